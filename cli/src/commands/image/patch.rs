//! `muster image patch`.

use std::path::{Path, PathBuf};

use muster_provisioning::disk;
use muster_provisioning::patch::plan::{Wanted, plan};
use muster_provisioning::patch::{Plan, Way, apply, look, source};
use serde::Serialize;

use super::build::put;
use super::inputs::{self, Entry};
use crate::commands::agree;
use crate::context::Session;
use crate::error::{Attempt as _, Failure, Result, next_move};
use crate::output::{self, Table};

/// Arguments of `muster image patch`.
#[derive(clap::Args)]
pub struct Args {
    /// The system's image as you have it, packed (.xz, .gz, .zst) or not; it stays as it is
    image: PathBuf,
    #[command(flatten)]
    agent: inputs::Source,
    #[command(flatten)]
    entry: Entry,
    /// The way in, where you know better: files for cloud-init on the boot partition, or files in the ext4 root
    #[arg(long, value_enum)]
    way: Option<WayName>,
    /// Where the changed image goes; packed if the name ends with .xz, .gz or .zst
    #[arg(short, long, value_name = "FILE.img")]
    output: PathBuf,
    /// Make the changes without asking
    #[arg(short, long)]
    yes: bool,
    /// Show the changes and make none
    #[arg(long)]
    dry_run: bool,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

#[derive(Clone, Copy, clap::ValueEnum)]
enum WayName {
    Nocloud,
    Inject,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct View<'a> {
    file: Option<&'a Path>,
    system: &'a str,
    way: Way,
    partition: u32,
    changes: Vec<ViewChange<'a>>,
}

#[derive(Serialize)]
struct ViewChange<'a> {
    path: &'a str,
    what: &'a str,
}

pub fn run(args: Args, session: &Session) -> Result<()> {
    let agent = args.agent.agent(session)?;
    let enrolment = args.entry.read(session)?.ok_or_else(|| {
        Failure::new("nothing would let the device in")
            .hint("add --claim TOKEN from `muster claim new`, --factory, or --enrol FILE")
    })?;
    let attempt = || format!("cannot put the agent into {}", args.image.display());
    if disk::is_same_file(&args.image, &args.output) {
        let why = format!("{}: the new image would take its place", attempt());
        return Err(Failure::new(why).hint("give another name with -o; the image that you have stays as it is"));
    }
    let folder = args.output.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let mut staged = tempfile::Builder::new().prefix(".muster-image-").tempfile_in(folder).attempt(attempt)?;
    eprintln!("reading {}", args.image.display());
    source::unpack(&args.image, staged.as_file_mut(), &|_| {}).attempt(attempt)?;
    let look = look::look(staged.path()).attempt(attempt)?;
    let way = args.way.map(|way| match way {
        WayName::Nocloud => Way::NoCloud,
        WayName::Inject => Way::Inject,
    });
    let plan = plan(&look, &Wanted { agent: &agent.bytes, enrolment: &enrolment, way }).attempt(attempt)?;
    if !args.json {
        show(&plan)?;
    }
    if args.dry_run {
        return if args.json { print(&plan, None) } else { Ok(()) };
    }
    agree("Make these changes?", args.yes)?;
    apply::apply(staged.path(), &plan).attempt(attempt)?;
    put(staged, &args.output)?;
    if args.json {
        print(&plan, Some(&args.output))?;
    }
    next_move(format_args!("`muster flash {} DEVICE` writes it onto a card or a stick", args.output.display()));
    Ok(())
}

fn show(plan: &Plan) -> Result<()> {
    let by = match plan.way {
        Way::NoCloud => "cloud-init does the rest at the first boot",
        Way::Inject => "into its ext4 root",
    };
    output::print_line(format_args!("{}, partition {}: {by}", output::one_line(&plan.system), plan.partition.number))?;
    let mut table = Table::new(&["FILE", "WHAT FOR"]);
    for change in &plan.changes {
        table.row([change.path.clone(), change.what.clone()]);
    }
    output::print(&table.render())
}

fn print(plan: &Plan, file: Option<&Path>) -> Result<()> {
    let changes = plan.changes.iter().map(|change| ViewChange { path: &change.path, what: &change.what });
    output::print_json(&View {
        file,
        system: &plan.system,
        way: plan.way,
        partition: plan.partition.number,
        changes: changes.collect(),
    })
}
