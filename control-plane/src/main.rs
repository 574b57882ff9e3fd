//! The control plane's process: what was typed, logs, signals; the rest is the library.

use std::io::{IsTerminal, Read};
use std::process::ExitCode;

use anyhow::Context;
use clap::Parser;
use muster_control_plane::config::Args;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;
use tracing_subscriber::EnvFilter;

/// What is logged where nothing else is asked for: libraries speak only of trouble.
const QUIET: &str = "info,sqlx=warn,sea_orm=warn,sea_orm_migration=warn,mqtt5=warn";

fn main() -> ExitCode {
    let args = Args::parse();
    start_logs();
    match run(args) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// To standard error; `RUST_LOG` says how much.
fn start_logs() {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new(QUIET));
    let colour = std::io::stderr().is_terminal();
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).with_ansi(colour).init();
}

/// In a build for `cargo xtask attacks`: takes out the checks that its caller names.
#[cfg(feature = "attacks")]
fn take_out_checks() -> anyhow::Result<()> {
    use muster_shared::checks;
    let names = std::env::var(checks::VARIABLE).unwrap_or_default();
    checks::take_out(&names).map_err(anyhow::Error::msg)
}

fn run(args: Args) -> anyhow::Result<()> {
    #[cfg(feature = "attacks")]
    take_out_checks()?;
    let stop = CancellationToken::new();
    if args.stop_with_stdin {
        stop_with_stdin(stop.clone()).context("cannot watch standard input")?;
    }
    let config = args.into_config()?;
    let runtime = tokio::runtime::Runtime::new().context("cannot start the runtime")?;
    runtime.block_on(async {
        stop_with_signals(stop.clone()).context("cannot watch for signals")?;
        let running = muster_control_plane::start(config, stop).await?;
        print!("{}", running.ready());
        running.finished().await;
        Ok(())
    })
}

/// Cancels `stop` at Ctrl-C or SIGTERM.
fn stop_with_signals(stop: CancellationToken) -> std::io::Result<()> {
    let (mut interrupt, mut terminate) = (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);
    tokio::spawn(async move {
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
        }
        stop.cancel();
    });
    Ok(())
}

/// Cancels `stop` when standard input ends: whoever started this process is gone.
fn stop_with_stdin(stop: CancellationToken) -> std::io::Result<()> {
    let watch = move || {
        let mut buffer = [0; 1024];
        while std::io::stdin().read(&mut buffer).is_ok_and(|bytes| bytes > 0) {}
        stop.cancel();
    };
    std::thread::Builder::new().name("stdin".to_owned()).spawn(watch).map(drop)
}
