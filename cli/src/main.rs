//! `muster`: the command line of a fleet. Each command is one file in `commands/`.

mod args;
mod commands;

mod bundle;
mod golden;
mod keys;
mod onnx;

mod client;
mod context;
mod resources;
mod trust;
mod url;
mod yaml;

mod error;
mod files;
mod output;
mod tell;
mod wait;

use std::process::ExitCode;

use clap::Parser as _;

#[tokio::main]
async fn main() -> ExitCode {
    muster_tls::install_provider();
    match args::Cli::parse().run().await {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            failure.print();
            ExitCode::FAILURE
        }
    }
}
