//! `muster image`: what a device starts from. The agent is one that the fleet's release signers stand for.
//! Everything happens in files of the user's own; no control plane is asked.

mod build;
mod inputs;
mod patch;

use crate::context::Session;
use crate::error::Result;

/// Arguments of `muster image`.
#[derive(clap::Args)]
pub struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(clap::Subcommand)]
enum Command {
    /// Make a bootable image of a whole small system around the agent, from Debian's packages
    Build(Box<build::Args>),
    /// Put the agent into a system's image that you have, after showing each change
    Patch(Box<patch::Args>),
}

pub fn run(args: Args, session: &Session) -> Result<()> {
    match args.command {
        Command::Build(args) => build::run(*args, session),
        Command::Patch(args) => patch::run(*args, session),
    }
}
