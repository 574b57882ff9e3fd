//! `muster-agent doctor`: what is wrong with this device, by name, with the next move.
//!
//! It looks ([`read`], [`addresses`], [`probe`], [`dns`]), then judges: the checks ([`disk`], [`identity`],
//! [`machine`], [`network`]) are pure functions over what was seen, and each gives a [`finding`] that [`report`]
//! prints. It needs no running agent, believes nothing that it hears, and changes nothing.

pub mod addresses;
pub mod disk;
pub mod dns;
pub mod finding;
pub mod heard;
pub mod identity;
pub mod machine;
pub mod network;
pub mod probe;
pub mod read;
pub mod release;
pub mod report;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use muster_tls::TimeKnown;
use rustls::RootCertStore;

use self::addresses::Networks;
use self::finding::{Finding, Ill};
use self::identity::Times;
use self::network::Way;
use self::probe::{Attempt, Then, probe};
use self::read::{OnDisk, Places};
use crate::facts::{self, roots::Roots};
use crate::identity::{Enrolment, time_bound};
use crate::install;
use crate::network::dial::dial;
use crate::network::proxy::Proxy;
use crate::network::resolve::Resolver;
use crate::network::target::Target;
use crate::outside::{now_ms, random};
use crate::worker::sandbox;

/// The check of the way as a whole, where there is none to look at.
const WAY: &str = "way";

/// `muster-agent doctor`.
#[derive(Debug, clap::Args)]
pub struct Doctor {
    /// The configuration [default: agent.toml in the data folder, or the package's /etc/muster/agent.toml]
    #[arg(long)]
    config: Option<PathBuf>,
    /// Where the agent keeps everything, where no configuration says so
    #[arg(long)]
    data: Option<PathBuf>,
    /// Look at the way through this proxy instead of the configuration's: http://HOST:PORT
    #[arg(long, value_name = "URL")]
    proxy: Option<Proxy>,
    /// A release of the agent to verify against this device's root: its release.json
    #[arg(long, value_name = "FILE")]
    release: Option<PathBuf>,
    /// Print one line of JSON instead of a table
    #[arg(long)]
    json: bool,
}

impl Doctor {
    /// Examines the device and prints what was found. Gives back whether something keeps it from its work.
    pub async fn run(self) -> bool {
        let findings = examine(&self).await;
        match self.json {
            true => println!("{}", report::line(&findings)),
            false => print!("{}", report::table(&findings)),
        }
        report::is_ill(&findings)
    }

    fn places(&self) -> Places {
        let beside = |config: &Path| config.parent().map_or_else(PathBuf::new, Path::to_owned);
        match (&self.config, &self.data) {
            (Some(config), Some(data)) => Places { config: config.clone(), data: data.clone() },
            (Some(config), None) => Places { config: config.clone(), data: beside(config) },
            (None, Some(data)) => Places { config: data.join("agent.toml"), data: data.clone() },
            (None, None) => Places { config: install::CONFIG.into(), data: install::DATA.into() },
        }
    }
}

/// Looks at everything and judges it.
pub async fn examine(asked: &Doctor) -> Vec<Finding> {
    let places = asked.places();
    let mut seen = read::on_disk(&places);
    let folder = seen.data.path.clone();
    let roots = Roots::default();
    let way = match seen.enrolment.clone() {
        Some(enrolment) => way(asked, &mut seen, &enrolment, &roots).await.map_err(|why| {
            let next = "correct it in agent.toml; what enrolment left is made anew by enrolling again";
            Finding::fault(WAY, Ill::Configuration, why, next)
        }),
        None => Err(Finding::skipped(WAY, "there is no control plane to look for before it is enrolled")),
    };
    let times = Times {
        clock_ms: now_ms(),
        bound_ms: seen.enrolment.as_ref().map_or(0, |enrolment| time_bound(&folder, enrolment)),
        server_ms: way.as_ref().ok().and_then(|way| way.api.reached.as_ref().ok()?.server_ms),
    };
    let door = match &seen.config {
        Ok(config) => Some((config.listen, is_open(config.listen).await)),
        Err(_) => None,
    };
    let OnDisk { config, data, enrolled, key, certificate, status, .. } = seen;
    let config = match enrolled {
        // Enrolment writes it.
        identity::Enrolled::No if !places.config.exists() => {
            Finding::skipped("configuration", format!("{} is not there yet", places.config.display()))
        }
        _ => disk::configuration(&config.map(|_| places.config.clone())),
    };
    let mut findings = vec![
        config,
        owned(disk::data(&data), &folder),
        disk::room(&data),
        disk::hardware(&facts::health(&roots, &folder)),
        identity::enrolment(&enrolled),
        identity::key(&enrolled, &key),
        identity::certificate(&enrolled, &certificate, times),
        identity::clock(times),
        machine::sandbox(&sandbox::available()),
    ];
    match way {
        Ok(way) => findings.extend(network::checks(&way)),
        Err(why) => findings.push(why),
    }
    findings.push(machine::agent(&enrolled, &machine::Agent { door, status }));
    let verified = asked.release.as_ref().map(|file| release::verify(file, &folder, times));
    findings.push(machine::release(verified.as_ref()));
    findings
}

/// Root may write everywhere: what it finds writable may be closed to the agent's own user.
fn owned(finding: Finding, folder: &Path) -> Finding {
    match read::other_owner(folder) {
        Some(owner) if finding.fault.is_none() => {
            Finding { text: format!("{} (looked at as root; it belongs to user {owner})", finding.text), ..finding }
        }
        _ => finding,
    }
}

async fn is_open(address: SocketAddr) -> bool {
    dial(&[address]).await.is_ok()
}

/// Tries every way to the control plane.
async fn way(asked: &Doctor, seen: &mut OnDisk, enrolment: &Enrolment, roots: &Roots) -> Result<Way, String> {
    let resolv_conf = facts::roots::table(Path::new("/etc/resolv.conf")).unwrap_or_default();
    let networks = Networks::read(roots, &resolv_conf);
    let api: Target = api_of(&enrolment.url)?;
    let broker: Target = enrolment.mqtt.parse().map_err(|error| format!("the broker: {error}"))?;
    let settings = seen.config.as_ref().ok().map(|config| &config.network);
    let proxy_for = |target: &Target| match (&asked.proxy, settings) {
        (Some(named), _) => Ok(Some(named.clone())),
        (None, Some(settings)) => settings.proxy.for_target(target).map_err(|error| format!("the proxy: {error}")),
        (None, None) => Ok(None),
    };
    let proxy_ca = settings.and_then(|settings| settings.proxy_ca.as_deref()).map(authorities).transpose()?;
    let (api_proxy, tunnel_proxy) = (proxy_for(&api)?, seen.tunnel.as_ref().map(proxy_for).transpose()?.flatten());
    let known = TimeKnown { clock_ms: now_ms(), bound_ms: time_bound(&seen.data.path, enrolment), confirmed: false };
    // As the agent looks names up, with the addresses that it remembers.
    let resolver = Resolver::open(&seen.data.path);
    let attempt = |target, proxy: Option<_>, then| {
        let proxy_ca = proxy_ca.clone().filter(|_| proxy.is_some());
        Attempt { target, proxy, ca: enrolment.ca, proxy_ca, known, then }
    };
    let (api, broker, tunnel) = tokio::join!(
        probe(&resolver, attempt(&api, api_proxy.as_ref(), Then::AskTheTime)),
        // The broker is reached directly or not at all.
        probe(&resolver, attempt(&broker, None, Then::Show(seen.shows.take()))),
        async {
            match &seen.tunnel {
                Some(target) => Some(probe(&resolver, attempt(target, tunnel_proxy.as_ref(), Then::AskTheTime)).await),
                None => None,
            }
        },
    );
    let unresolved = [Some(&api), Some(&broker), tunnel.as_ref()].into_iter().flatten().find_map(|place| {
        place.unresolved.as_ref()?;
        Some(place.target.host.clone())
    });
    let mut resolvers = vec![];
    if let Some(host) = unresolved {
        for address in &networks.nameservers {
            let id = u16::from_le_bytes(random());
            resolvers.push((*address, dns::ask(*address, &host, id).await));
        }
    }
    let proxy = api_proxy.or(tunnel_proxy).map(|proxy| proxy.to_string());
    Ok(Way { networks, api, broker, tunnel, proxy, resolvers })
}

/// The CAs of the owner's proxy.
fn authorities(file: &Path) -> Result<Arc<RootCertStore>, String> {
    let wrong = |error: &dyn std::fmt::Display| format!("network.proxy-ca: cannot use {}: {error}", file.display());
    let pem = read::plain(file).map_err(|error| wrong(&error))?;
    muster_tls::authorities_of_pem(&pem).map(Arc::new).map_err(|error| wrong(&error))
}

fn api_of(url: &str) -> Result<Target, String> {
    Target::of_url(url).map_err(|_| format!("{url:?} is no https://HOST:PORT"))
}
