//! How a device joins a fleet, and how its certificate is renewed. Everything the device is to
//! believe comes from the claim token, or was baked into its image: the server must show the CA and serve
//! the root named there.
//!
//! An enrolment that waits, for an operator or since too many ask, goes on by itself; one that was cut off
//! is begun again, with the same key: it was durable before the first request.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, anyhow, bail};
use axum::http::StatusCode;
use muster_agent_core::backoff::delay_ms;
use muster_shared::api::{Enrol, EnrolWaiting, Enrolled, Problem, Renew};
use muster_shared::checks::{self, Check};
use muster_shared::claim::ClaimToken;
use muster_shared::id::{Labels, UnixMs};
use muster_shared::message::Renewal;
use muster_shared::root::TrustedRoot;
use muster_shared::signing::{Envelope, payload_type};
use muster_shared::{DeviceId, Digest, wire};
use muster_tls::TimeKnown;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use serde::Serialize;

use crate::config::{Config, RawConfig, RawDoor, RawLimits, RawStatus, RawTrust};
use crate::identity::{self, DeviceKey, Enrolment};
use crate::network::connector::{Ask, Connector, Secured};
use crate::network::fault::Fault;
use crate::network::post::{self, Answer};
use crate::network::resolve::Resolver;
use crate::network::route::Mode;
use crate::network::target::Target;
use crate::network::{RawNetwork, Settings};
use crate::outside::{Timekeeper, jitter};

/// What a device must know beforehand; never learned from the server that it is to distrust.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pins {
    /// The digest of the root that it starts from.
    pub root: Digest,
    /// The digest of the CA that the server must show.
    pub ca: Digest,
    /// A time that has surely passed: when the claim or the image was made.
    pub issued_ms: UnixMs,
}

/// How to join.
#[derive(Debug)]
pub struct Enrolling {
    /// The control plane's API.
    pub url: String,
    /// What to believe.
    pub pins: Pins,
    /// The claim's id and secret, hex; none: this device's key is on the factory list.
    pub claim: Option<(String, String)>,
    /// Where the agent keeps everything.
    pub data: PathBuf,
    /// The id that it would like.
    pub name: Option<DeviceId>,
    /// What its owner calls it.
    pub labels: Labels,
    /// Whether to wait for an operator's approval, and while too many ask.
    pub wait: bool,
    /// How it gets out. Nothing said: as an `agent.toml` that lies there already says.
    pub network: RawNetwork,
    /// Whether an `agent.toml` is written beside the data; not where the device's owner has one elsewhere.
    pub writes_config: bool,
}

/// Told where an owner's file says something else about the network than was said here.
pub const NETWORK_STAYS: &str =
    "agent.toml stays as it is: write there under [network] what was said here about the proxy and the tunnel";

/// How the control plane's API is reached.
#[derive(Debug, Clone)]
pub struct Reach {
    /// Connects.
    pub connector: Connector,
    /// As the owner says.
    pub settings: Settings,
}

impl Reach {
    /// With the CA that the server must show, and what is kept below `data`.
    pub fn new(ca: Digest, settings: Settings, data: &Path) -> anyhow::Result<Self> {
        let connector = Connector::new(ca, settings.proxy_ca.as_deref(), Resolver::open(data))?;
        Ok(Self { connector, settings })
    }
}

impl Pins {
    /// From a claim, or from what an image brings: one of the two, whole.
    pub fn new(
        claim: Option<&ClaimToken>,
        root: Option<Digest>,
        ca: Option<Digest>,
        not_before_ms: Option<UnixMs>,
    ) -> anyhow::Result<Self> {
        match (claim, root, ca) {
            (Some(claim), None, None) => {
                let issued_ms = claim.issued_ms.max(not_before_ms.unwrap_or(0));
                Ok(Self { root: claim.root, ca: claim.ca, issued_ms })
            }
            (None, Some(root), Some(ca)) => Ok(Self { root, ca, issued_ms: not_before_ms.unwrap_or(0) }),
            (Some(_), ..) => bail!("a claim brings its digests along; leave --root-digest and --ca-digest out"),
            (None, None, _) => bail!(
                "without the digest of its root a device would have to believe the server it is to distrust; name a \
                 claim from `muster claim new` with --claim, or --root-digest and --ca-digest as baked into the image"
            ),
            (None, Some(_), None) => bail!(
                "without the digest of its CA a device cannot tell the control plane from another server; add \
                 --ca-digest, which the control plane prints when it starts"
            ),
        }
    }
}

/// What an answer to an enrolment means.
#[derive(Debug)]
enum Step {
    /// It is done.
    Done(Box<Enrolled>),
    /// Ask again after a while, and why; not sooner than this, where the server says so.
    Wait(String, Option<Duration>),
}

/// Enrols the device whose data lies in `data`. Doing it again with the same key is harmless. `tell` hears
/// why it waits.
pub async fn enrol(asked: &Enrolling, tell: &(dyn Fn(&str) + Sync)) -> anyhow::Result<Enrolment> {
    let Enrolling { url, pins, data, .. } = asked;
    std::fs::create_dir_all(data).with_context(|| format!("cannot make {}", data.display()))?;
    if let Some(enrolment) = identity::enrolment(data)? {
        bail!("this device is enrolled already, as {}; `muster-agent run` starts it", enrolment.device);
    }
    let key = DeviceKey::open_or_make(data)?;
    let (claim, secret) = asked.claim.clone().unzip();
    let request = Enrol {
        claim,
        secret,
        csr: key.request(asked.name.as_ref())?.pem()?,
        name: asked.name.clone(),
        labels: asked.labels.clone(),
    };
    let network = network(asked)?;
    let reach = Reach::new(pins.ca, Settings::ready(network.clone(), data)?, data)?;
    let target = target(url)?;
    let time = Timekeeper::unconfirmed(pins.issued_ms);
    let (mut attempt, mut told) = (0, String::new());
    let enrolled = loop {
        let answer = ask(&reach, url, &target, ("enrol", request.secret.is_some()), time.known(), &request).await;
        let step = match answer.and_then(|(answer, _)| step(&answer, &key, asked.claim.is_some())) {
            // It was noted, or told to come back: a server that is away meanwhile changes nothing.
            Err(error) if !told.is_empty() && error.downcast_ref::<CannotReach>().is_some() => {
                Step::Wait(format!("{error:#}"), None)
            }
            step => step?,
        };
        let (text, after) = match step {
            Step::Done(enrolled) => break *enrolled,
            Step::Wait(text, after) => (text, after),
        };
        if !asked.wait {
            bail!("{text}; run the same command again later: the key is kept");
        }
        if text != told {
            tell(&format!("{text}; asking again until then (this command may be stopped and run again)"));
            told = text;
        }
        let pause = Duration::from_millis(delay_ms(attempt, jitter()));
        tokio::time::sleep(pause.max(after.unwrap_or_default())).await;
        attempt += 1;
    };
    let root = follow_roots(&enrolled.roots, pins.root)?;
    check_certificates(&enrolled, pins.ca, &key)?;

    identity::save_certificate(data, &enrolled.certificate)?;
    if asked.writes_config
        && !write_config(data, asked.labels.clone(), network.clone())?
        && Config::read(&data.join("agent.toml"))?.raw_network != network
    {
        tell(NETWORK_STAYS);
    }
    let mqtt = broker_address(&enrolled.mqtt, url)?;
    let tunnel = enrolled.tunnel.as_deref().map(|offered| tunnel_address(offered, &target)).transpose()?;
    let enrolment = Enrolment {
        device: enrolled.device,
        url: url.to_owned(),
        mqtt,
        tunnel,
        ca: pins.ca,
        root: pins.root,
        roots: enrolled.roots,
        issued_ms: pins.issued_ms,
    };
    identity::save_enrolment(data, &enrolment)?;
    tracing::info!(device = %enrolment.device, fleet = %root.root().fleet, "enrolled");
    Ok(enrolment)
}

/// How this device gets out: as it was said now, else as the owner's file says.
fn network(asked: &Enrolling) -> anyhow::Result<RawNetwork> {
    let path = asked.data.join("agent.toml");
    if !asked.network.is_default() || !path.exists() {
        return Ok(asked.network.clone());
    }
    Ok(Config::read(&path)?.raw_network)
}

fn target(url: &str) -> anyhow::Result<Target> {
    if !url.starts_with("https://") {
        bail!("{url:?}: the control plane is reached by https:// only");
    }
    Target::of_url(url).with_context(|| format!("{url:?} is no https://HOST:PORT"))
}

fn step(answer: &Answer, key: &DeviceKey, with_claim: bool) -> anyhow::Result<Step> {
    match answer.status {
        StatusCode::ACCEPTED => {
            let waiting: EnrolWaiting = read(answer)?;
            let fingerprint = key.fingerprint();
            Ok(Step::Wait(
                format!("noted as {}, which waits: {} (its key is {fingerprint})", waiting.device, waiting.detail),
                None,
            ))
        }
        StatusCode::TOO_MANY_REQUESTS => {
            Ok(Step::Wait("the control plane takes no more enrolments for the moment".to_owned(), answer.retry_after))
        }
        status if status.is_success() => Ok(Step::Done(Box::new(read(answer)?))),
        StatusCode::FORBIDDEN | StatusCode::UNAUTHORIZED if !with_claim => {
            let refusal = refusal(answer, "enrol");
            bail!("{refusal}; the operator puts this device's key on the factory list: {}", key.fingerprint())
        }
        _ => Err(refusal(answer, "enrol")),
    }
}

/// Asks for a new certificate for the same key and keeps it, with the tunnel's address where that is another one
/// now. Where the API's own address is blocked, the listener for devices answers too.
pub async fn renew(
    enrolment: &Enrolment,
    key: &DeviceKey,
    data: &Path,
    known: TimeKnown,
    reach: &Reach,
) -> anyhow::Result<Option<Target>> {
    let csr = key.request(Some(&enrolment.device))?.der().to_vec();
    let renewal = wire::encode(&Renewal { device: enrolment.device.clone(), csr })?;
    let request = Renew { renewal: key.sign(payload_type::RENEWAL, renewal)? };
    let api = target(&enrolment.url)?;
    let tunnel: Option<Target> = enrolment.tunnel.as_deref().and_then(|tunnel| tunnel.parse().ok());
    let mut targets: Vec<Target> =
        [Some(api.clone()), tunnel.filter(|tunnel| *tunnel != api)].into_iter().flatten().collect();
    if reach.settings.tunnel == Mode::Always {
        targets.reverse();
    }
    let mut failed = None;
    for target in &targets {
        let url = format!("https://{target}");
        match ask(reach, &url, target, ("renew", false), known, &request).await {
            Ok((answer, by_proxy)) => return renewed(enrolment, key, data, &answer, (&api, by_proxy)),
            Err(error) => failed = failed.or(Some(error)),
        }
    }
    Err(failed.unwrap_or_else(|| anyhow!("there is no address to ask")))
}

fn renewed(
    enrolment: &Enrolment,
    key: &DeviceKey,
    data: &Path,
    answer: &Answer,
    (api, by_proxy): (&Target, bool),
) -> anyhow::Result<Option<Target>> {
    if !answer.status.is_success() {
        return Err(refusal(answer, "renew"));
    }
    let enrolled: Enrolled = read(answer)?;
    check_certificates(&enrolled, enrolment.ca, key)?;
    identity::save_certificate(data, &enrolled.certificate)?;
    // Where a control plane is, only the control plane says.
    let Some(offered) = enrolled.tunnel.filter(|_| !by_proxy) else { return Ok(None) };
    let tunnel = tunnel_address(&offered, api)?;
    if enrolment.tunnel.as_deref() != Some(tunnel.as_str()) {
        identity::save_enrolment(data, &Enrolment { tunnel: Some(tunnel.clone()), ..enrolment.clone() })?;
    }
    Ok(Some(tunnel.parse()?))
}

/// Follows the roots from the pinned one to the newest.
pub fn follow_roots(roots: &[Envelope], pinned: Digest) -> anyhow::Result<TrustedRoot> {
    let is_pinned = |root: &&Envelope| !checks::on(Check::PinnedRoot) || Digest::of(&root.payload) == pinned;
    let mut roots = roots.iter().skip_while(|root| !is_pinned(root));
    let first = roots.next().with_context(|| {
        format!(
            "the control plane does not have the root {} that the claim names: it is of another fleet, or began anew; \
             compare with `muster keys show`, and make a new claim with `muster claim new`",
            pinned.short()
        )
    })?;
    let mut trusted = match checks::on(Check::PinnedRoot) {
        true => TrustedRoot::pinned(first, pinned)?,
        false => TrustedRoot::self_signed(first)?,
    };
    for next in roots {
        trusted = trusted.follow(next).context("the control plane's roots do not follow one another")?;
    }
    Ok(trusted)
}

/// Follows the roots that came after a trusted one; earlier ones among them are passed over.
pub fn follow_later(mut trusted: TrustedRoot, roots: &[Envelope]) -> anyhow::Result<TrustedRoot> {
    for next in roots {
        let version = TrustedRoot::self_signed(next)?.root().version;
        if version > trusted.root().version {
            trusted = trusted.follow(next)?;
        }
    }
    Ok(trusted)
}

/// Whether what came with an enrolment or a renewal is of the pinned CA and for this device's key.
pub fn check_certificates(enrolled: &Enrolled, ca: Digest, key: &DeviceKey) -> anyhow::Result<()> {
    let shown =
        CertificateDer::from_pem_slice(enrolled.ca.as_bytes()).context("the CA's certificate cannot be read")?;
    if checks::on(Check::PinnedCa) && Digest::of(&shown) != ca {
        bail!("the control plane's CA is not the one that the claim names; make a new claim with `muster claim new`");
    }
    let own = CertificateDer::from_pem_slice(enrolled.certificate.as_bytes())
        .context("the client certificate cannot be read")?;
    if !identity::is_for(&own, key) {
        bail!("the client certificate is for another key than this device's");
    }
    Ok(())
}

/// Where the broker is, from what the control plane says and how it was reached.
pub fn broker_address(offered: &str, url: &str) -> anyhow::Result<String> {
    let (host, port) = offered.rsplit_once(':').context("the control plane names no broker")?;
    if !host.is_empty() {
        return Ok(offered.to_owned());
    }
    let uri: axum::http::Uri = url.parse().context("the URL cannot be read")?;
    let host = uri.host().context("the URL has no host")?;
    Ok(format!("{host}:{port}"))
}

/// Where the listener for devices is, from what the control plane says and how it was reached.
pub fn tunnel_address(offered: &str, asked: &Target) -> anyhow::Result<String> {
    let target = Target::offered(offered, asked);
    Ok(target.context("the control plane's listener for devices has no address that can be used")?.to_string())
}

/// Whether the file was written: one that is there is its owner's, and stays as it is.
fn write_config(data: &Path, labels: Labels, network: RawNetwork) -> anyhow::Result<bool> {
    let path = data.join("agent.toml");
    if path.exists() {
        return Ok(false);
    }
    let raw = RawConfig {
        data: ".".into(),
        door: RawDoor::default(),
        limits: RawLimits::default(),
        trust: RawTrust::default(),
        network,
        status: RawStatus::default(),
        telemetry_every: muster_shared::quantity::Millis(10_000),
        labels,
        local_mqtt: None,
    };
    // A proxy's password may stand in it.
    let mode = if raw.network.proxy.is_some() { 0o600 } else { 0o644 };
    identity::write_durably(&path, toml::to_string_pretty(&raw)?.as_bytes(), mode)?;
    Ok(true)
}

/// The server cannot be reached, or is not the one that is meant.
#[derive(Debug, thiserror::Error)]
#[error("cannot reach {0}")]
struct CannotReach(String);

fn read<A: serde::de::DeserializeOwned>(answer: &Answer) -> anyhow::Result<A> {
    serde_json::from_slice(&answer.body).context("the control plane's answer cannot be read")
}

/// The refusal in its own words, with its own next move.
fn refusal(answer: &Answer, what: &str) -> anyhow::Error {
    let problem: Option<Problem> = serde_json::from_slice(&answer.body).ok();
    let text = problem.map_or_else(
        || answer.status.to_string(),
        |problem| {
            let hint = problem.hint.map_or_else(String::new, |hint| format!("; {hint}"));
            format!("{}{hint}", problem.detail)
        },
    );
    anyhow!("the control plane refused to {what} this device: {text}")
}

/// Asks the API. Says whether the owner's proxy, which ends TLS, passed the question on; it gets no secrets to see.
async fn ask(
    reach: &Reach,
    url: &str,
    target: &Target,
    (what, secret): (&str, bool),
    known: TimeKnown,
    request: &impl Serialize,
) -> anyhow::Result<(Answer, bool)> {
    let body = serde_json::to_vec(request)?;
    let proxy = reach.settings.proxy.for_target(target)?;
    let asked = async {
        // However unsure the server's time is: what it answers is checked against the pinned CA and root, and a
        // certificate for this key that is of no use is replaced by the next renewal.
        let ask = Ask { target, proxy: proxy.as_ref(), may_be_ended: true, identity: None, known };
        let secured: Secured = reach.connector.connect(ask, &|_| {}).await?;
        if secured.by_proxy && secret {
            return Ok(None);
        }
        let by_proxy = secured.by_proxy;
        let answer = post::post(secured.stream, target, &format!("/api/v1/{what}"), body).await?;
        Ok::<_, Fault>(Some((answer, by_proxy)))
    };
    let uri = format!("{}/api/v1/{what}", url.trim_end_matches('/'));
    let answer = asked.await.map_err(|fault| anyhow!(fault.text).context(CannotReach(uri)))?;
    answer.context(
        "the proxy ends TLS and would see the claim's secret; put this device's key on the factory list \
         (`muster claim factory add`) and enrol without --claim, or enrol from another network",
    )
}

#[cfg(test)]
mod tests;
