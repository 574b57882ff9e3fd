//! `muster keys`: the keys that rule a fleet are made here, on a person's machine, and never leave
//! it. What is said with them is said in roots, each signed by the one before: [`init`] makes the first,
//! [`change`] the next, [`pending`] collects signatures where several people must sign.

mod change;
mod folder;
mod init;
mod pending;
mod show;
mod words;

use std::path::PathBuf;

use muster_shared::FleetId;

use crate::context::{Context, Session};
use crate::error::{Attempt as _, Result, next_move};
use crate::keys::Signer;
use crate::keys::passphrase::Unlock;
use crate::output::{self, TextOrJson};

/// Arguments of `muster keys`.
#[derive(clap::Args)]
pub struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(clap::Subcommand)]
enum Command {
    /// Make root, publisher and release keys, sign the first root, and upload it
    Init(init::Init),
    /// Show the keys that are kept here, and fingerprints to compare
    Show(Which),
    /// Make a key, in a file or in a token
    New(New),
    /// Put a new key in the place of another
    Rotate(change::Rotate),
    /// Let another key sign too
    Add(change::Add),
    /// Let a key sign no more
    Remove(change::Remove),
    /// Let the root hold for longer
    Renew(change::Renew),
    /// Add a signature to a root that waits for several
    Sign(pending::Sign),
    /// Upload a root that has all its signatures
    Push(pending::Push),
}

/// Which fleet's keys.
#[derive(clap::Args)]
struct Which {
    /// The fleet's id; by default the context's, or "home"
    #[arg(long)]
    fleet: Option<FleetId>,
    /// The folder of the keys; by default keys/FLEET in the home folder
    #[arg(long)]
    dir: Option<PathBuf>,
    /// How to print
    #[arg(short, long, value_enum, default_value_t)]
    output: TextOrJson,
}

#[derive(clap::Args)]
struct New {
    /// Where the key is to be: a file, or a PKCS#11 URI (pkcs11:token=NAME;object=NAME?module-path=FILE)
    key: String,
    #[command(flatten)]
    unlock: Unlock,
    /// How to print
    #[arg(short, long, value_enum, default_value_t)]
    output: TextOrJson,
}

pub async fn run(args: Args, session: &Session) -> Result<()> {
    match args.command {
        Command::Init(args) => init::run(args, session).await,
        Command::Show(which) => show::run(&which, session),
        Command::New(new) => make(&new),
        Command::Rotate(args) => change::rotate(args, session).await,
        Command::Add(args) => change::add(args, session).await,
        Command::Remove(args) => change::remove(args, session).await,
        Command::Renew(args) => change::renew(args, session).await,
        Command::Sign(args) => pending::sign(args, session),
        Command::Push(args) => pending::push(args, session).await,
    }
}

fn make(new: &New) -> Result<()> {
    let public = Signer::make(&new.key, &new.unlock)?.public();
    if new.output == TextOrJson::Json {
        return output::print_json(&serde_json::json!({ "key": new.key, "public": public, "id": public.id() }));
    }
    output::print_line(public)?;
    next_move(format_args!("that is its public half; it signs once a root names it: `muster keys add ROLE {public}`"));
    Ok(())
}

impl Which {
    fn fleet(&self, context: Option<&Context>) -> Result<FleetId> {
        match self.fleet.clone().or_else(|| context.and_then(|context| context.fleet.clone())) {
            Some(fleet) => Ok(fleet),
            None => "home".parse::<FleetId>().attempt(|| "cannot name the fleet"),
        }
    }

    fn dir(&self, session: &Session, fleet: &FleetId) -> PathBuf {
        self.dir.clone().unwrap_or_else(|| session.home.keys(fleet))
    }
}
