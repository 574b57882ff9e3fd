//! `muster flash`: an image onto cards and drives, each with its own claim. Without an image: which drives there are.

mod list;
mod show;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use muster_provisioning::enrolment::{self, Enrolment};
use muster_provisioning::flash::bmap::{BMAP_BYTES_MAX, Bmap};
use muster_provisioning::flash::boot_files::BootFile;
use muster_provisioning::flash::card::{CardError, Flashed, Job};
use muster_provisioning::flash::drives::{Machine, Wish};
use muster_provisioning::flash::many::{self, Card, Outcome};
use muster_provisioning::flash::source::{Image, Looked, SourceError};
use muster_provisioning::flash::target::{Target, TargetError, find};
use muster_provisioning::flash::{Left, Stop};
use muster_provisioning::kit::{Fate, Kit, KitError, Settled, Taken, settle};
use muster_shared::quantity::Bytes;
use serde::Serialize;

use crate::error::{Attempt as _, Failure, Result, next_move, warn};
use crate::files;
use crate::output::{self, TextOrJson};

/// A claim for one card is far shorter.
const ENROLMENT_BYTES_MAX: u64 = 16 * 1024;

/// Arguments of `muster flash`.
#[derive(clap::Args)]
pub struct Args {
    /// The image: raw, .xz, .gz or .zst; - reads it from the standard input
    image: Option<PathBuf>,
    /// Where it goes: sdb, /dev/sdb, several, or a plain file
    #[arg(value_name = "DEVICE")]
    targets: Vec<PathBuf>,
    /// Put one claim of this folder on each card: `muster claim new --labels-from CSV -o FOLDER` makes it
    #[arg(long, value_name = "FOLDER", conflicts_with = "enrol")]
    claims: Option<PathBuf>,
    /// Put this enrolment file on the one card
    #[arg(long, value_name = "FILE")]
    enrol: Option<PathBuf>,
    /// The image's block map; without it, IMAGE.bmap where there is one
    #[arg(long, value_name = "FILE")]
    bmap: Option<PathBuf>,
    /// Write everything, also where there is a block map
    #[arg(long, conflicts_with = "bmap")]
    no_bmap: bool,
    /// Make DEVICE as a plain file of this size
    #[arg(long, value_name = "SIZE")]
    size: Option<Bytes>,
    /// Also drives that cannot be taken out of this machine; never one that it runs from
    #[arg(long)]
    built_in: bool,
    /// Do not ask before what is on the drives is erased
    #[arg(short, long)]
    yes: bool,
    /// Do not read back what was written
    #[arg(long)]
    no_verify: bool,
    /// Do not look whether a drive holds what it says
    #[arg(long)]
    no_counterfeit_check: bool,
    /// How to print
    #[arg(short, long, value_enum, default_value_t)]
    output: TextOrJson,
    /// A folder with sys, proc and dev in place of this machine's, for tests
    #[arg(long, value_name = "FOLDER", hide = true)]
    machine: Option<PathBuf>,
}

/// What became of one card.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct View<'a> {
    device: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    bytes: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    verified: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    claim: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    left: Option<String>,
}

pub async fn run(args: Args) -> Result<()> {
    let machine = args.machine.as_deref().map_or_else(Machine::this, Machine::under);
    let Some(path) = &args.image else { return list::print(&machine, args.built_in, args.output) };
    if args.targets.is_empty() {
        return Err(Failure::new("no drive is named to write the image to")
            .hint("`muster flash` lists the drives; then `muster flash IMAGE sdb`"));
    }
    let stop = Stop::default();
    let targets = targets(&args, &machine)?;
    // A wrong target is told before minutes are spent on the image.
    let mut wish = Wish { named: true, built_in: args.built_in, bytes: 0 };
    judge(&targets, path, wish)?;
    ask(&args, path, &targets)?;
    let image = Image { path: path.clone(), bmap: bmap(&args, path)? };
    let looked = look(&image, &targets, &stop).await?;
    wish.bytes = looked.bytes.unwrap_or(0);
    judge(&targets, path, wish)?;
    let mut claims = claims(&args, targets.len())?;

    let mut cards = Vec::new();
    for (number, target) in targets.iter().enumerate() {
        let medium = target.open(&machine, wish).map_err(refusal)?;
        cards.push(Card { medium: Box::new(medium), job: job(&args, claims.text(number))? });
    }
    targets.iter().try_for_each(|target| target.look_again(&machine, wish).map_err(refusal))?;
    claims.begin();
    let show = show::Show::new(&targets, looked.written);
    let outcome = while_listening(&stop, move |stop| {
        let outcome = many::flash(&image, cards, stop, &|card, stage, done| show.tell(card, stage, done));
        show.end();
        outcome
    })
    .await?;
    tell(&args, &machine, &targets, outcome, claims)
}

/// Runs what blocks; an interrupt, or a wish to terminate, makes it stop.
async fn while_listening<T: Send + 'static>(stop: &Stop, work: impl FnOnce(&Stop) -> T + Send + 'static) -> Result<T> {
    let mut terminate = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate())
        .attempt(|| "cannot listen for signals")?;
    let stopping = stop.clone();
    let mut work = tokio::task::spawn_blocking(move || work(&stopping));
    loop {
        tokio::select! {
            done = &mut work => return done.attempt(|| "cannot flash"),
            _ = tokio::signal::ctrl_c() => stop.ask(),
            _ = terminate.recv() => stop.ask(),
        }
    }
}

fn targets(args: &Args, machine: &Machine) -> Result<Vec<Target>> {
    let size = args.size.map(|size| size.0);
    let mut names = BTreeSet::new();
    let mut targets = Vec::new();
    for named in &args.targets {
        let target = find(machine, named, size).map_err(refusal)?;
        let real = named.canonicalize().map_or_else(|_| target.name(), |real| real.display().to_string());
        let name = if let Target::Drive(drive) = &target { drive.name.clone() } else { real };
        if !names.insert(name) {
            return Err(Failure::new(format!("{} is named twice", target.name())).hint("name each drive once"));
        }
        targets.push(target);
    }
    Ok(targets)
}

fn judge(targets: &[Target], image: &Path, wish: Wish) -> Result<()> {
    targets.iter().try_for_each(|target| target.judge(image, wish).map_err(refusal))
}

fn refusal(error: TargetError) -> Failure {
    let failure = Failure::of("nothing was written", &error);
    error.next_move().into_iter().fold(failure, Failure::hint)
}

/// The map that was named, or the one beside the image: `x.img.bmap` or `x.bmap` for `x.img.xz`.
fn bmap(args: &Args, image: &Path) -> Result<Option<Bmap>> {
    if args.no_bmap {
        return Ok(None);
    }
    let beside = || {
        let with_bmap = |path: &Path| {
            let mut name = path.as_os_str().to_owned();
            name.push(".bmap");
            PathBuf::from(name)
        };
        let bare = image.with_extension("");
        [with_bmap(image), with_bmap(&bare), bare.with_extension("bmap")].into_iter().find(|path| path.is_file())
    };
    let Some(path) = args.bmap.clone().or_else(beside) else { return Ok(None) };
    let attempt = || format!("cannot read the block map {}", path.display());
    let bytes =
        std::fs::File::open(&path).and_then(|file| files::read_bounded(file, BMAP_BYTES_MAX)).attempt(attempt)?;
    let text = String::from_utf8(bytes).attempt(attempt)?;
    let hint = "get the map again, or write everything with --no-bmap";
    Bmap::parse(&text).attempt(attempt).map_err(|failure| failure.hint(hint)).map(Some)
}

/// Reads a packed image through once: its size is known then, and that it is whole.
async fn look(image: &Image, targets: &[Target], stop: &Stop) -> Result<Looked> {
    let most = targets.iter().map(Target::bytes).max().unwrap_or(0);
    let (image, bar) = (image.clone(), show::looking());
    let looked = while_listening(stop, move |stop| {
        use std::ops::ControlFlow::{Break, Continue};
        let looked = image.look(most, |done| {
            bar.set_position(done);
            if stop.is_asked() { Break(()) } else { Continue(()) }
        });
        bar.finish_and_clear();
        looked
    })
    .await?;
    if stop.is_asked() {
        return Err(Failure::new("stopped: nothing was written").hint("flash it again when you like"));
    }
    let hint = match &looked {
        Err(SourceError::Length { .. }) => "get the image and its map again, or write everything with --no-bmap",
        _ => "get the image again",
    };
    looked.attempt(|| "nothing was written").map_err(|failure| failure.hint_if_none(hint))
}

/// The claims of this run's cards.
enum Claims {
    None,
    /// One file for one card.
    One(String),
    /// Of a folder, one for each card.
    Kit(Kit, Vec<Taken>),
}

impl Claims {
    fn text(&self, card: usize) -> Option<&str> {
        match self {
            Self::None => None,
            Self::One(text) => Some(text),
            Self::Kit(_, taken) => taken.get(card).map(|taken| taken.text.as_str()),
        }
    }

    /// From now on they may be on their cards.
    fn begin(&mut self) {
        if let Self::Kit(_, taken) = self {
            taken.iter_mut().for_each(Taken::begin);
        }
    }
}

fn claims(args: &Args, cards: usize) -> Result<Claims> {
    if let Some(path) = &args.enrol {
        if cards != 1 {
            return Err(Failure::new("one enrolment file is for one card, and several are named").hint(
                "make a folder of claims with `muster claim new --count N -o FOLDER`, and name it with --claims",
            ));
        }
        let attempt = || format!("cannot read the enrolment file {}", path.display());
        let file = std::fs::File::open(path).attempt(attempt)?;
        let bytes = files::read_bounded(file, ENROLMENT_BYTES_MAX).attempt(attempt)?;
        let text = String::from_utf8(bytes).attempt(attempt)?;
        Enrolment::parse(&text).attempt(attempt)?;
        return Ok(Claims::One(text));
    }
    let Some(folder) = &args.claims else { return Ok(Claims::None) };
    let kit = Kit::open(folder).map_err(kit_failure)?;
    let stranded = kit.stranded().map_err(kit_failure)?;
    if let [first, ..] = stranded.as_slice() {
        warn(format_args!(
            "{} was taken by a run that goes on, or did not end: if no card has it, move it from {}/taken back to \
             {}/cards",
            first,
            folder.display(),
            folder.display()
        ));
    }
    let taken = kit.take(cards).map_err(kit_failure)?;
    Ok(Claims::Kit(kit, taken))
}

pub(crate) fn kit_failure(error: KitError) -> Failure {
    let failure = Failure::of("cannot use the folder of claims", &error);
    error.next_move().into_iter().fold(failure, Failure::hint)
}

fn job(args: &Args, claim: Option<&str>) -> Result<Job> {
    let mut seed = [0; 16];
    getrandom::fill(&mut seed).map_err(|_| Failure::new("this machine gives no random numbers"))?;
    let file = |text: &str| BootFile { path: enrolment::PATH.to_owned(), bytes: text.into() };
    Ok(Job {
        files: claim.map(file).into_iter().collect(),
        skip_counterfeit_check: args.no_counterfeit_check,
        skip_verification: args.no_verify,
        seed,
    })
}

/// What is on the drives will be gone: a person says yes to that.
fn ask(args: &Args, image: &Path, targets: &[Target]) -> Result<()> {
    let loses = |target: &&Target| !matches!(target, Target::File { is_new: true, .. });
    let losing: Vec<String> = targets.iter().filter(loses).map(|target| format!("  {}", list::line(target))).collect();
    if losing.is_empty() {
        return Ok(());
    }
    let question = format!("{} replaces everything on\n{}\nGo on?", image.display(), losing.join("\n"));
    super::agree(&question, args.yes)
}

/// Settles the claims, then says what became of each card.
fn tell(args: &Args, machine: &Machine, targets: &[Target], outcome: Outcome, claims: Claims) -> Result<()> {
    // Before anything is printed: that may fail, and a claim that a card has is not for the next one.
    let (kit, settled) = match claims {
        Claims::Kit(kit, taken) => (Some(kit), settle(taken, &outcome.cards)),
        Claims::None | Claims::One(_) => (None, Vec::new()),
    };
    let misplaced = tell_claims(args, targets, &settled);
    for (target, _) in targets.iter().zip(&outcome.cards).filter(|(_, card)| card.is_ok()) {
        // It was written, whether or not the kernel looks again.
        target.reread(machine);
    }
    let mut failed = Vec::new();
    let mut printed = Ok(());
    for (number, (target, card)) in targets.iter().zip(outcome.cards).enumerate() {
        let claim = settled.get(number).map(|settled| settled.claim.as_str());
        // One that cannot be printed does not keep the others from being told.
        printed = printed.and(print_card(args, target, &card, claim));
        if let Err((error, left)) = card {
            failed.push((target, error, left));
        }
    }
    if let Some(source) = outcome.source {
        let failure = Failure::of(format!("cannot flash; {}", left_of(&failed)), &source);
        return Err(failure.hint_if_none("get the image again, then flash again"));
    }
    let Some((target, error, left)) = failed.first() else {
        printed?;
        if misplaced > 0 {
            return Err(Failure::new(format!("the cards are done, and {misplaced} claims could not be moved"))
                .hint("move their files as the warnings say, before you flash again"));
        }
        if let Some(kit) = kit {
            let left = kit.left().map_err(kit_failure)?;
            next_move(format_args!("take the cards out and start their devices; {left} claims are left"));
        }
        return Ok(());
    };
    let stopped = failed.iter().all(|(_, error, _)| matches!(error, CardError::Stopped));
    let text = match (stopped, targets.len()) {
        (true, _) => format!("stopped; {}", left_of(&failed)),
        (false, 1) => format!("cannot flash {}: {}; {left}", target.name(), why(error)),
        (false, all) => format!("{} of {all} cards failed; {}", failed.len(), left_of(&failed)),
    };
    Err(Failure::new(text).hint(error.next_move()))
}

/// Says which claims are not where a person would look for them; how many could not be moved.
fn tell_claims(args: &Args, targets: &[Target], settled: &[Settled]) -> usize {
    let folder = args.claims.as_deref().unwrap_or(Path::new(".")).display();
    let mut misplaced = 0;
    for (target, Settled { claim, fate, failed }) in targets.iter().zip(settled) {
        let (name, why) = (target.name(), failed.as_ref().map(|error| crate::error::chain(error)));
        misplaced += usize::from(failed.is_some());
        match (fate, why) {
            (Fate::Unsure, _) => warn(format_args!(
                "the claim {claim} may be on {name}: it stays in {folder}/taken; if no card has it, move it to \
                 {folder}/cards"
            )),
            (Fate::OnCard, Some(why)) => warn(format_args!(
                "{name} has the claim {claim}, and its file could not be moved: {why}; move it to {folder}/flashed"
            )),
            (Fate::Unused, Some(why)) => warn(format_args!(
                "{name} was not given the claim {claim}, and its file could not be moved: {why}; move it to \
                 {folder}/cards"
            )),
            (Fate::OnCard | Fate::Unused, None) => {}
        }
    }
    misplaced
}

fn left_of(failed: &[(&Target, CardError, Left)]) -> String {
    failed.iter().map(|(target, _, left)| format!("{}: {left}", target.name())).collect::<Vec<_>>().join("; ")
}

fn why(error: &CardError) -> String {
    crate::error::chain(error)
}

fn print_card(
    args: &Args,
    target: &Target,
    card: &Result<Flashed, (CardError, Left)>,
    claim: Option<&str>,
) -> Result<()> {
    let device = target.name();
    if args.output == TextOrJson::Json {
        let (done, error) = (card.as_ref().ok(), card.as_ref().err());
        return output::print_json(&View {
            device,
            bytes: done.map(|done| done.bytes),
            verified: done.map(|done| done.verified),
            claim: claim.filter(|_| done.is_some()),
            error: error.map(|(error, _)| why(error)),
            left: error.map(|(_, left)| left.to_string()),
        });
    }
    match card {
        Ok(done) => {
            let read = if done.verified { "written and read back" } else { "written, not read back" };
            let claim = claim.map(|claim| format!(", with the claim {claim}")).unwrap_or_default();
            output::print_line(format_args!("{device}: {} {read}{claim}", output::bytes(done.bytes)))
        }
        Err((error, left)) => {
            warn(format_args!("{device}: {}; {left}", why(error)));
            Ok(())
        }
    }
}
