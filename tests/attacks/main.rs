//! Every attack that Muster is to withstand, and for each the proof that its check is needed: with the
//! check taken out, in the same build, the attack succeeds.
//!
//! Runs over the programs of a build with the feature `attacks` (`MUSTER_PROGRAMS`). Prints a table, then
//! one JSON object; ends with an error if an attack succeeds, or a twin does not.
//!
//! The words: an attack *is held* where it comes to nothing, and does its *harm* where it succeeds. A
//! twin takes out all checks that stand in the attack's way; where these are several, each alone must
//! hold it.

mod bounds;
mod everything;
mod members;
mod releases;
mod stage;
mod tuf;
mod uptane;

use std::process::ExitCode;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use muster_shared::checks::Check;
use muster_world::rows::{self, Row};

use stage::{Ending, Stage, Template};

/// Attacks at a time.
const AT_A_TIME: usize = 2;

/// What is attacked, and how.
#[derive(Clone, Copy)]
pub enum Play {
    /// A device, by whoever owns what lies between it and its publishers.
    Device(fn(&mut Stage<'_>) -> anyhow::Result<Ending>),
    /// A control plane, by a device or a stranger; it brings its own fleet, without these checks.
    Plane(fn(&Template, &[Check]) -> anyhow::Result<Ending>),
}

/// One attack.
pub struct Attack {
    /// Whose name for it, and the name.
    pub name: &'static str,
    /// What stands in its way: with all of these taken out it succeeds, with any one of them it does not.
    pub checks: &'static [Check],
    /// How it goes.
    pub play: Play,
}

fn main() -> ExitCode {
    let filter = std::env::args().nth(1).filter(|argument| !argument.starts_with('-'));
    let all =
        [tuf::ATTACKS, uptane::ATTACKS, bounds::ATTACKS, members::ATTACKS, releases::ATTACKS, everything::ATTACKS];
    let attacks: Vec<&Attack> = all
        .into_iter()
        .flatten()
        .filter(|attack| filter.as_ref().is_none_or(|filter| attack.name.contains(filter.as_str())))
        .collect();
    let template = match muster_tests::programs().and_then(Template::make) {
        Ok(template) => template,
        Err(error) => {
            eprintln!("cannot set the stage: {error:#}");
            return ExitCode::FAILURE;
        }
    };
    let (next, rows) = (AtomicUsize::new(0), Mutex::new(vec![]));
    std::thread::scope(|scope| {
        for _ in 0..AT_A_TIME {
            scope.spawn(|| {
                while let Some(attack) = attacks.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let row = judge(attack, &template);
                    println!(
                        "{} {}\n    {}",
                        if row.ok { "ok    " } else { "FAILED" },
                        row.name,
                        row.note.replace('\n', "\n    ")
                    );
                    rows.lock().expect("no thread panics with it").push(row);
                }
            });
        }
    });
    let rows = rows.into_inner().expect("no thread panics with it");
    let good = rows::tell("attacks", &rows) == 0 && !rows.is_empty();
    if good { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// Plays an attack with every check in place, then its twins.
fn judge(attack: &Attack, template: &Template) -> Row {
    let began = Instant::now();
    let mut notes = vec![];
    let mut ok = true;
    let mut plays: Vec<(String, Vec<Check>, bool)> = vec![("with every check".to_owned(), vec![], false)];
    let all = attack.checks.iter().map(|check| check.name()).collect::<Vec<_>>().join(", ");
    plays.push((format!("without {all}"), attack.checks.to_vec(), true));
    if attack.checks.len() > 1 {
        for kept in attack.checks {
            let out = attack.checks.iter().copied().filter(|check| check != kept).collect();
            plays.push((format!("with {} alone of these", kept.name()), out, false));
        }
    }
    for (how, out, succeeds) in plays {
        let ending = match attack.play {
            Play::Device(play) => Stage::start(template, &out).and_then(|mut stage| play(&mut stage)),
            Play::Plane(play) => play(template, &out),
        };
        let (good, told) = match ending {
            Ok(Ending::Harm(harm)) => (succeeds, format!("{how}: it succeeds: {harm}")),
            Ok(Ending::Held(reason)) => (!succeeds, format!("{how}: held: {reason}")),
            Err(error) => (false, format!("{how}: cannot be played: {error:#}")),
        };
        ok &= good;
        notes.push(if good { told } else { format!("NOT AS IT SHOULD BE {told}") });
    }
    let seconds = (began.elapsed().as_secs_f64() * 10.0).round() / 10.0;
    Row { ours: Some(seconds), ..Row::played(attack.name, ok, notes.join("\n")) }
}
