//! `cargo xtask …`: everything the project does to itself.

mod attacks;
mod bench;
mod boot;
mod build;
mod cache;
mod cards;
mod clients;
mod cross;
mod dashboard;
mod demo;
mod installer;
mod measure;
mod release;
mod report;
mod setup;
mod shell;
mod sim;
mod test;
mod web;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

#[derive(Parser)]
#[command(name = "cargo xtask", about = "Builds, shows and tests Muster")]
struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Start a control plane and three agents with real models, and say what to try
    Demo(demo::Options),
    /// Everything a change must pass
    Test(test::Options),
    /// Seeds of a simulated fleet: the real cores on virtual time, with faults
    Sim(sim::Options),
    /// Build the dashboard's page into web/dist, from where the control plane's build takes it
    Web(web::Options),
    /// Test the dashboard in a browser, as `test` does
    Dashboard,
    /// Ask `muster-agent serve` with the clients that people have, as `test` does
    Clients,
    /// Each attack that Muster withstands, and its twin without the check that holds it
    Attacks {
        /// Only attacks whose names contain this
        filter: Option<String>,
    },
    /// Build the agent for each kind of device, and run it as on one
    Cross(cross::Options),
    /// Make a release of the agent: for each kind of device the program, its package and what it is made of;
    /// checksums, and the document for the release signers
    Release(release::Options),
    /// Play the line that installs and enrols on clean Debian systems
    Installer(installer::Options),
    /// Build an image, start a machine from it in an emulator, and ask the model that it serves
    Boot(boot::Options),
    /// `muster flash` with a USB stick, an SD card and drives that fail, in an emulated machine
    Cards {
        /// Install missing system packages without asking
        #[arg(long)]
        yes: bool,
    },
    /// Take the pictures of the dashboard that the README shows
    Screenshots,
    /// Idle memory and binary size of the agent, as docs/figures.md records them
    Measure,
    /// Compare Muster with its peers, side by side in one run
    #[command(subcommand)]
    Bench(bench::Bench),
    /// Train the fixture models again and compare them with the committed ones
    Models {
        /// Replace the committed models instead
        #[arg(long)]
        write: bool,
    },
}

fn main() -> ExitCode {
    let done = match Args::parse().command {
        Command::Demo(options) => demo::run(&options),
        Command::Test(options) => test::run(&options),
        Command::Sim(options) => sim::run(&options),
        Command::Web(options) => web::run(&options),
        Command::Dashboard => dashboard::check(),
        Command::Clients => clients::check(),
        Command::Attacks { filter } => attacks::run(filter.as_deref()),
        Command::Cross(options) => cross::run(&options),
        Command::Release(options) => release::run(&options),
        Command::Installer(options) => installer::run(&options),
        Command::Boot(options) => boot::run(&options),
        // `--yes` is looked for where packages are installed.
        Command::Cards { yes: _ } => cards::run(),
        Command::Screenshots => dashboard::screenshots(),
        Command::Measure => measure::run(),
        Command::Bench(bench) => bench::run(&bench),
        Command::Models { write } => setup::python().and_then(|python| setup::train_models(&python, write)),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}
