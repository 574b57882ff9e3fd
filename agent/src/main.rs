//! `muster-agent`: enrols a device, runs its agent; started again by itself as `worker`.

use std::io::IsTerminal as _;
use std::path::PathBuf;

use anyhow::Context as _;
use clap::{Parser, Subcommand};
use muster_agent::config::Config;
use muster_agent::doctor::Doctor;
use muster_agent::network::RawNetwork;
use muster_agent::network::route::Mode;
use muster_agent::{driver, enrol, install, release, serve, worker};
use muster_shared::claim::ClaimToken;
use muster_shared::id::LabelText;
use muster_shared::{DeviceId, Digest};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;

/// Threads of the agent's runtime: it moves bytes; models compute in processes of their own.
const RUNTIME_THREADS: usize = 2;

#[derive(Parser)]
#[command(version, about = "Runs signed models on this device for a Muster control plane")]
struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Join a fleet with a claim from `muster claim new`, or with a key on the factory list
    Enrol(Box<EnrolArgs>),
    /// Run the agent; exits with 3 where this device is in no fleet, or no more
    Run {
        /// The configuration that `enrol` wrote
        #[arg(long)]
        config: PathBuf,
        /// Open the door here instead of where the configuration says
        #[arg(long)]
        listen: Option<std::net::SocketAddr>,
        /// Write a JSON file here once the door is open
        #[arg(long)]
        ready_file: Option<PathBuf>,
        /// Stop when standard input closes, so that a supervisor that dies takes this process along
        #[arg(long)]
        stop_with_stdin: bool,
    },
    /// Serve models without a fleet: a plain inference server
    Serve(Box<serve::args::Serve>),
    /// Say what is wrong with this device, and the next move; exits with 0 only where nothing keeps it from its work
    Doctor(Box<Doctor>),
    /// Judge a release of the agent as this machine would before installing it
    Release(release::check::Args),
    /// Install the agent's package, enrol and start, as the line of `muster claim new --install` does
    Install(Box<install::Args>),
    /// Hold one model (started by `run` and `serve`, not by people)
    #[command(hide = true)]
    Worker,
}

#[derive(clap::Args)]
struct EnrolArgs {
    /// The control plane's API, https://HOST:PORT
    #[arg(long)]
    url: String,
    /// The claim token; without one this device's key is on the factory list
    #[arg(long, env = "MUSTER_CLAIM", hide_env_values = true)]
    claim: Option<ClaimToken>,
    /// Without a claim: the digest of the root that this device starts from
    #[arg(long, value_name = "DIGEST", value_parser = Digest::typed)]
    root_digest: Option<Digest>,
    /// Without a claim: the digest of the CA that the control plane must show
    #[arg(long, value_name = "DIGEST", value_parser = Digest::typed)]
    ca_digest: Option<Digest>,
    /// When the image was made, in milliseconds since 1970: the time has surely passed it
    #[arg(long, value_name = "MS")]
    not_before: Option<u64>,
    /// Fail where an operator has to approve this device, instead of waiting for it
    #[arg(long)]
    no_wait: bool,
    /// An HTTP proxy, http://HOST:PORT, with NAME:PASSWORD@ where it asks for them; or "environment", for what
    /// HTTPS_PROXY says
    #[arg(long, value_name = "URL")]
    proxy: Option<String>,
    /// The CA of a proxy that ends TLS, a PEM file: such a proxy can then read and change predictions
    #[arg(long, value_name = "FILE")]
    proxy_ca: Option<PathBuf>,
    /// When MQTT goes through a WebSocket: auto (where the broker's port is blocked), always, never
    #[arg(long, value_name = "WHEN", value_parser = tunnel_mode)]
    tunnel: Option<Mode>,
    /// Where the agent keeps everything; an agent.toml is written there
    #[arg(long, required_unless_present = "config")]
    data: Option<PathBuf>,
    /// The agent.toml that this device's owner keeps elsewhere: it says where the data goes and what the device
    /// is called
    #[arg(long, value_name = "FILE", conflicts_with_all = ["data", "labels"])]
    config: Option<PathBuf>,
    /// The id this device would like; else one is made from its key
    #[arg(long)]
    name: Option<DeviceId>,
    /// A label, key=value; may be given several times
    #[arg(long = "label", value_parser = parse_label)]
    labels: Vec<(LabelText, LabelText)>,
}

fn tunnel_mode(text: &str) -> Result<Mode, String> {
    match text {
        "auto" => Ok(Mode::Auto),
        "always" => Ok(Mode::Always),
        "never" => Ok(Mode::Never),
        _ => Err("write auto, always or never".to_owned()),
    }
}

fn parse_label(text: &str) -> Result<(LabelText, LabelText), String> {
    let (key, value) = text.split_once('=').ok_or("write it as key=value")?;
    let parse = |text: &str| text.parse::<LabelText>().map_err(|error| error.to_string());
    Ok((parse(key)?, parse(value)?))
}

/// A connection is a file, and the usual bound is that of a program of one person's.
fn raise_files_limit() {
    let limit = getrlimit(Resource::Nofile);
    // Where it cannot be raised there are fewer connections.
    let _ = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum.map(|most| most.min(FILES_MAX)), ..limit });
}

/// Connections, workers' pipes, and room beside.
const FILES_MAX: u64 = 8192;

/// How it ends where there is no fleet to run for, so that a supervisor does not start it again.
const IN_NO_FLEET: i32 = 3;

/// What is logged, without `RUST_LOG`.
const LOGGED: &str = "info,rumqttc=warn";

fn log_to_stderr() {
    let asked = std::env::var("RUST_LOG").ok().filter(|asked| !asked.is_empty());
    // By target and level only: what looks into spans brings regular expressions along.
    let filter = asked.as_deref().unwrap_or(LOGGED).parse::<Targets>();
    let (filter, wrong) = match filter {
        Ok(filter) => (filter, None),
        Err(error) => (Targets::new().with_default(tracing::Level::INFO), Some(error)),
    };
    let lines =
        tracing_subscriber::fmt::layer().with_writer(std::io::stderr).with_ansi(std::io::stderr().is_terminal());
    tracing_subscriber::registry().with(lines).with(filter).init();
    if let Some(error) = wrong {
        tracing::warn!(%error, "RUST_LOG cannot be read; write it as info,rumqttc=warn");
    }
}

fn main() -> anyhow::Result<()> {
    let args = Args::parse();
    if matches!(args.command, Command::Worker) {
        // No runtime, no logging, no TLS: only a model.
        return worker::child::run();
    }
    log_to_stderr();
    #[cfg(feature = "attacks")]
    take_out_checks()?;
    muster_tls::install_provider();
    raise_files_limit();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(RUNTIME_THREADS).enable_all().build()?;
    runtime.block_on(run(args.command))
}

/// In a build for `cargo xtask attacks`: takes out the checks that its caller names.
#[cfg(feature = "attacks")]
fn take_out_checks() -> anyhow::Result<()> {
    use muster_shared::checks;
    let names = std::env::var(checks::VARIABLE).unwrap_or_default();
    checks::take_out(&names).map_err(anyhow::Error::msg)
}

async fn run(command: Command) -> anyhow::Result<()> {
    match command {
        Command::Enrol(args) => {
            let EnrolArgs {
                url, claim, root_digest, ca_digest, not_before, no_wait, data, config, name, labels, ..
            } = *args;
            let owners = config.as_deref().map(Config::read).transpose()?;
            let writes_config = owners.is_none();
            let said = RawNetwork {
                tunnel: args.tunnel.unwrap_or_default(),
                proxy: args.proxy,
                // The file of the configuration lies elsewhere than this command was typed.
                proxy_ca: args.proxy_ca.map(std::path::absolute).transpose()?,
                try_direct_every: None,
            };
            let network = match &owners {
                Some(config) if said.is_default() => config.raw_network.clone(),
                Some(config) if config.raw_network != said => {
                    eprintln!("{}", enrol::NETWORK_STAYS);
                    said
                }
                _ => said,
            };
            let labels = owners.as_ref().map_or_else(|| labels.into_iter().collect(), |config| config.labels.clone());
            let data = data.or(owners.map(|config| config.data)).context("neither --data nor --config is given")?;
            let pins = enrol::Pins::new(claim.as_ref(), root_digest, ca_digest, not_before)?;
            let asked = enrol::Enrolling {
                url,
                pins,
                claim: claim.map(|claim| (claim.id_hex(), claim.secret_hex())),
                data,
                name,
                labels,
                wait: !no_wait,
                network,
                writes_config,
            };
            let enrolment = enrol::enrol(&asked, &|text| eprintln!("{text}")).await?;
            let config = config.unwrap_or_else(|| asked.data.join("agent.toml"));
            println!("enrolled as {}", enrolment.device);
            println!("start it with: muster-agent run --config {}", config.display());
            Ok(())
        }
        Command::Run { config, listen, ready_file, stop_with_stdin } => {
            let mut config = Config::read(&config)?;
            if let Some(listen) = listen {
                anyhow::ensure!(listen.ip().is_loopback(), "--listen {listen}: the door stays on a loopback address");
                config.listen = listen;
            }
            worker::prepare();
            let stop = CancellationToken::new();
            tokio::spawn(stop_on_signal(stop.clone(), stop_with_stdin));
            match driver::run(driver::Run { config, ready_file }, stop).await? {
                driver::Ended::Stopped => Ok(()),
                driver::Ended::InNoFleet => std::process::exit(IN_NO_FLEET),
            }
        }
        Command::Serve(serve) => {
            let stop = CancellationToken::new();
            tokio::spawn(stop_on_signal(stop.clone(), serve.stop_with_stdin));
            let config = serve.config()?;
            worker::prepare();
            serve::run(config, stop).await
        }
        Command::Doctor(doctor) => match doctor.run().await {
            // The findings are said; a message beside them would say nothing more.
            true => std::process::exit(1),
            false => Ok(()),
        },
        Command::Release(args) => release::check::run(&args),
        Command::Install(args) => install::run(&args, &|text| eprintln!("{text}")),
        Command::Worker => Ok(()),
    }
}

async fn stop_on_signal(stop: CancellationToken, with_stdin: bool) {
    if with_stdin {
        let stop = stop.clone();
        // A thread of its own: reading standard input cannot be cancelled, and must not hold up the end.
        std::thread::spawn(move || {
            let _ = std::io::copy(&mut std::io::stdin(), &mut std::io::sink());
            stop.cancel();
        });
    }
    let terminated = async {
        match signal(SignalKind::terminate()) {
            Ok(mut signal) => drop(signal.recv().await),
            Err(_) => std::future::pending().await,
        }
    };
    tokio::select! {
        _ = tokio::signal::ctrl_c() => {}
        () = terminated => {}
        () = stop.cancelled() => {}
    }
    stop.cancel();
}
