//! Muster's control plane: the API, the catalog of bundles, the planner, the publisher of signed
//! desired states, the chunk server, the ingest of what devices say, and the gateway, in one process.
//!
//! Read in this order: how it starts ([`config`], this file, [`ready`]); what all parts share
//! ([`plane`], [`live`], [`routes`], [`hearing`]); what is stored ([`db`], [`blobs`], [`catalog`], [`releases`]); who is believed ([`trust`]);
//! how devices are spoken with ([`broker`], [`tunnel`], [`ingest`], [`chunk_server`]); what thinks and tells
//! ([`tasks`], [`status`], [`figures`]); what people and programs use ([`http`], [`gateway`]).
//!
//! Invariants: state is durable before anyone acts on it; nothing that comes from a network, a disk or
//! a person ends the process; models are never parsed here.

pub mod config;
pub mod ready;

pub mod hearing;
pub mod live;
pub mod plane;
pub mod routes;

pub mod blobs;
pub mod catalog;
pub mod db;
mod files;
pub mod releases;

pub mod trust;

pub mod broker;
pub mod chunk_server;
pub mod ingest;
pub mod tunnel;

pub mod figures;
pub mod status;
pub mod tasks;

pub mod gateway;
pub mod http;

#[cfg(test)]
mod stories;
#[cfg(test)]
mod testing;

use std::fs::File;
use std::net::{SocketAddr, TcpListener};
use std::path::Path;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::Context;
use axum::Router;
use axum_server::Handle;
use axum_server::accept::NoDelayAcceptor;
use axum_server::tls_rustls::RustlsConfig;
use muster_shared::id::{InstanceId, UnixMs};
use tokio::sync::mpsc;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::blobs::BlobStore;
use crate::broker::EmbeddedBroker;
use crate::catalog::Catalog;
use crate::chunk_server::ChunkServer;
use crate::config::Config;
use crate::db::{Db, TelemetryDb};
use crate::figures::Windows;
use crate::gateway::Gateway;
use crate::hearing::Hearing;
use crate::http::Listener;
use crate::http::feed::Feed;
use crate::http::session::Tries;
use crate::live::Live;
use crate::plane::{Nudges, Plane};
use crate::ready::{Ready, reachable};
use crate::releases::Releases;
use crate::releases::downloads::Downloads;
use crate::routes::Routes;
use crate::trust::barred::Judged;
use crate::trust::ca::{self, Authority, ServerCertificate};
use crate::trust::director::Director;
use crate::trust::floors::Floors;
use crate::trust::ledger::Ledger;
use crate::trust::refusals::Refusals;
use crate::trust::revocations::Revocations;
use crate::trust::roles::Trust;
use crate::tunnel::Tunnels;

/// What devices said and nobody has read yet; then the broker waits, and with it the devices.
const BROKER_EVENTS_MAX: usize = 1024;
/// How long requests and tasks may go on after the plane was told to stop.
const STOP_TIME: Duration = Duration::from_millis(1500);
/// How long a new connection may take to ask for something.
const FIRST_REQUEST_TIME: Duration = Duration::from_secs(15);

/// Milliseconds since 1970.
pub fn now_ms() -> UnixMs {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    since.as_millis().try_into().unwrap_or(UnixMs::MAX)
}

/// A plane that runs until its `stop` token is cancelled.
pub struct Running {
    plane: Arc<Plane>,
    ready: Ready,
    servers: Vec<Handle<SocketAddr>>,
    /// Held as long as the plane runs: one process for one folder.
    _lock: File,
}

/// Starts a plane: when this returns, everything listens.
pub async fn start(config: Config, stop: CancellationToken) -> anyhow::Result<Running> {
    muster_tls::install_provider();
    let lock = open_data(&config.data)?;
    let settings = Settings {
        device_life: config.device_certificate_life,
        revocations: config.revocations.as_deref(),
        restored: config.restored,
    };
    let plane = Arc::new(open_plane(&config.data, settings, stop).await?);
    trust::ledger::count_change(&plane).await?;
    // Before any door opens: a code that was drawn at the last start must not work any more.
    let admin_code = http::auth::draw_admin_code(&plane, config.new_admin_code).await?;
    let admin_password = http::session::draw_admin_password(&plane, config.new_admin_password).await?;
    let certificate = Arc::new(ServerCertificate::new(plane.authority.clone(), &config.names)?);
    let mqtt = start_broker(&plane, &config, certificate.clone()).await?;
    tasks::start(&plane);
    let mut listeners = Listeners { plane: &plane, certificate, servers: Vec::new() };
    let http = listeners.tls(config.http, "--http", http::api)?;
    let plain_http =
        config.plain_http.map(|address| listeners.plain(address, "--plain-http", http::api)).transpose()?;
    let devices = config.devices.map(|address| listeners.devices(address)).transpose()?;
    if let Some(address) = devices {
        let advertised = config.advertise_devices.clone().unwrap_or_else(|| format!(":{}", address.port()));
        // Set only here.
        let _ = plane.tunnel_address.set(advertised);
    }
    let gateway = match config.gateway {
        Some(gateway) if gateway.open => Some(listeners.plain(gateway.address, "--gateway", http::gateway)?),
        Some(gateway) => Some(listeners.tls(gateway.address, "--gateway", http::gateway)?),
        None => None,
    };
    let ready = Ready {
        http,
        plain_http,
        mqtt: reachable(mqtt),
        devices: devices.map(|address| format!("https://{}", reachable(address))),
        gateway,
        ca_fingerprint: plane.authority.fingerprint(),
        admin_code,
        admin_password,
        gateway_is_open: config.gateway.is_some_and(|gateway| gateway.open),
    };
    let servers = listeners.servers;
    if let Some(path) = &config.ready_file {
        ready.write(path).with_context(|| format!("cannot write the ready file {}", path.display()))?;
    }
    Ok(Running { plane, ready, servers, _lock: lock })
}

impl Running {
    /// Where everything is.
    pub fn ready(&self) -> &Ready {
        &self.ready
    }

    /// What all parts share; for tests that look inside.
    pub fn plane(&self) -> &Arc<Plane> {
        &self.plane
    }

    /// Waits for the `stop` token, then finishes what is under way, for a short time.
    pub async fn finished(self) {
        self.plane.stop.cancelled().await;
        tracing::info!("stopping");
        for server in &self.servers {
            server.graceful_shutdown(Some(STOP_TIME));
        }
        self.plane.tasks.close();
        let ended = async {
            if let Some(broker) = self.plane.broker.get() {
                broker.closed().await;
            }
            self.plane.tasks.wait().await;
        };
        if timeout(STOP_TIME, ended).await.is_err() {
            tracing::warn!("stopped before everything had ended");
        }
        self.plane.db.close().await;
        self.plane.telemetry.close().await;
    }
}

/// Makes the data folder, and takes it for this process alone.
fn open_data(folder: &Path) -> anyhow::Result<File> {
    let doing = || format!("cannot use the data folder {}", folder.display());
    files::create_private_folder(folder).with_context(doing)?;
    let path = folder.join("lock");
    let file = File::options().create(true).truncate(false).write(true).open(&path).with_context(doing)?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(std::fs::TryLockError::WouldBlock) => anyhow::bail!(
            "another control plane runs on the data folder {}; stop it first, or name another folder with --data",
            folder.display()
        ),
        Err(std::fs::TryLockError::Error(error)) => Err(error).with_context(doing),
    }
}

/// What opening a plane depends on beside its folder.
struct Settings<'a> {
    /// How long a device's certificate lives.
    device_life: Duration,
    /// Where the list of revoked keys lies, if not in the folder.
    revocations: Option<&'a Path>,
    /// Whether the operator says that the database was put back from a backup.
    restored: bool,
}

async fn open_plane(folder: &Path, settings: Settings<'_>, stop: CancellationToken) -> anyhow::Result<Plane> {
    let db = Db::open(&folder.join("state.db")).await?;
    // Beside the database, and apart from it where the owner says so: what a backup must not bring back.
    let path = settings.revocations.map_or_else(|| folder.join("revocations"), Path::to_owned);
    let doing = || format!("cannot read the list of revoked keys {}", path.display());
    let revocations = Revocations::open(&path).with_context(doing)?;
    let ledger_path = path.with_extension("ledger");
    let ledger =
        Ledger::open(&ledger_path).with_context(|| format!("cannot read the ledger {}", ledger_path.display()))?;
    trust::members::start(&db, &revocations, &ledger, settings.restored).await?;
    let director = Arc::new(Director::open(folder)?);
    let instance = new_instance()?;
    Ok(Plane {
        telemetry: TelemetryDb::open(&folder.join("telemetry.db")).await?,
        blobs: BlobStore::open(&folder.join("blobs"))?,
        catalog: Catalog::default(),
        releases: Releases::open(&db).await?,
        downloads: Downloads::default(),
        authority: Arc::new(Authority::open(&folder.join("ca.pem"))?.with_device_life(settings.device_life)),
        trust: Trust::open(&db, director.clone()).await?,
        floors: Floors::open(&db).await?,
        judged: Judged::default(),
        live: Arc::new(Live::new(
            instance.clone(),
            db::devices::list(db.read()).await?,
            db::members::standings(db.read()).await?,
        )),
        revocations,
        ledger,
        refusals: Refusals::default(),
        chunks: ChunkServer::default(),
        gateway: Gateway::default(),
        routes: Routes::default(),
        hearing: Hearing::default(),
        figures: Windows::default(),
        deciding: tokio::sync::Mutex::default(),
        tries: Tries::default(),
        feed: Feed::default(),
        tunnels: Tunnels::default(),
        nudges: Nudges::default(),
        tasks: TaskTracker::new(),
        broker: OnceLock::new(),
        mqtt_address: OnceLock::new(),
        tunnel_address: OnceLock::new(),
        db,
        director,
        instance,
        stop,
    })
}

/// Each run is an instance of its own: a reply to an earlier one finds nobody.
fn new_instance() -> anyhow::Result<InstanceId> {
    let mut bytes = [0; 8];
    getrandom::fill(&mut bytes).context("the system gives no random bytes")?;
    Ok(format!("cp-{}", hex::encode(bytes)).parse()?)
}

async fn start_broker(
    plane: &Arc<Plane>,
    config: &Config,
    certificate: Arc<ServerCertificate>,
) -> anyhow::Result<SocketAddr> {
    let listener = bind(config.mqtt, "--mqtt")?;
    let listener = tokio::net::TcpListener::from_std(listener)?;
    let tls = Arc::new(ca::broker_tls(&plane.authority, certificate)?);
    let (sender, events) = mpsc::channel(BROKER_EVENTS_MAX);
    let broker = EmbeddedBroker::start(listener, tls, plane.live.clone(), sender, plane.stop.clone()).await?;
    let address = broker.local_addr();
    // An empty host is the host that the device reached this plane by.
    let advertised = config.advertise_mqtt.clone().unwrap_or_else(|| format!(":{}", address.port()));
    // Both are set only here.
    let _ = plane.mqtt_address.set(advertised);
    let _ = plane.broker.set(broker);
    plane.tasks.spawn(ingest::run(plane.clone(), events));
    Ok(address)
}

/// Binds at once, so that an address in use is an error of the start.
fn bind(address: SocketAddr, key: &str) -> anyhow::Result<TcpListener> {
    let listener = TcpListener::bind(address).with_context(|| format!("{key}: cannot listen on {address}"))?;
    listener.set_nonblocking(true)?;
    Ok(listener)
}

struct Listeners<'a> {
    plane: &'a Arc<Plane>,
    certificate: Arc<ServerCertificate>,
    servers: Vec<Handle<SocketAddr>>,
}

type MakeRouter = fn(Arc<Plane>, Listener) -> Router;

impl Listeners<'_> {
    fn tls(&mut self, address: SocketAddr, key: &str, make: MakeRouter) -> anyhow::Result<String> {
        let listener = bind(address, key)?;
        let address = listener.local_addr()?;
        let tls = ca::api_tls(self.certificate.clone())?;
        self.serve_tls(listener, tls, make(self.plane.clone(), Listener::Tls))?;
        Ok(format!("https://{}", reachable(address)))
    }

    fn serve_tls(&mut self, listener: TcpListener, tls: rustls::ServerConfig, router: Router) -> anyhow::Result<()> {
        let server = axum_server::from_tcp_rustls(listener, RustlsConfig::from_config(Arc::new(tls)))?;
        let server = server.handle(self.handle()).map(|tls| tls.acceptor(NoDelayAcceptor::new()));
        let server = server.first_request_timeout(FIRST_REQUEST_TIME);
        self.spawn(server.serve(router.into_make_service_with_connect_info::<SocketAddr>()));
        Ok(())
    }

    /// The listener for devices: it asks for client certificates, which a browser must never be.
    fn devices(&mut self, address: SocketAddr) -> anyhow::Result<SocketAddr> {
        let listener = bind(address, "--devices")?;
        let address = listener.local_addr()?;
        let tls = ca::devices_tls(&self.plane.authority, self.certificate.clone())?;
        self.serve_tls(listener, tls, http::devices(self.plane.clone()))?;
        Ok(address)
    }

    fn plain(&mut self, address: SocketAddr, key: &str, make: MakeRouter) -> anyhow::Result<String> {
        let listener = bind(address, key)?;
        let address = listener.local_addr()?;
        let server = axum_server::from_tcp(listener)?.handle(self.handle()).acceptor(NoDelayAcceptor::new());
        let server = server.first_request_timeout(FIRST_REQUEST_TIME);
        self.spawn(server.serve(
            make(self.plane.clone(), Listener::Loopback(address)).into_make_service_with_connect_info::<SocketAddr>(),
        ));
        Ok(format!("http://{address}"))
    }

    fn handle(&mut self) -> Handle<SocketAddr> {
        let handle = Handle::new();
        self.servers.push(handle.clone());
        handle
    }

    fn spawn(&self, server: impl Future<Output = std::io::Result<()>> + Send + 'static) {
        let stop = self.plane.stop.clone();
        self.plane.tasks.spawn(async move {
            if let Err(error) = server.await {
                // A plane that nobody can reach had better be started again.
                tracing::error!(%error, "a listener failed; stopping");
                stop.cancel();
            }
        });
    }
}
