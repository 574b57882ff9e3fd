//! The commands, in the order in which a newcomer meets them. Each file has its `Args` and `run`.

pub mod context;
pub mod login;
pub mod whoami;

pub mod approve;
pub mod claim;
pub mod decommission;
pub mod flash;
pub mod floor;
pub mod keys;
pub mod revoke;
pub mod trust;

pub mod inspect;
pub mod pack;
pub mod push;
pub mod release;

pub mod image;

pub mod apply;
pub mod delete;
pub mod describe;
pub mod get;
pub mod predict;

pub mod diagnose;
pub mod explain;
pub mod plan;
pub mod rollout;
pub mod scale;

pub mod cordon;
pub mod drain;
pub mod uncordon;

use std::io::{BufRead as _, IsTerminal as _, Write as _};

use crate::error::{Attempt as _, Failure, Result};

/// The longest line that a person may type.
const LINE_BYTES_MAX: u64 = 4096;

/// Asks a person on the terminal; nothing where stdin or stderr is none.
fn ask(question: &str) -> Result<Option<String>> {
    if !std::io::stdin().is_terminal() || !std::io::stderr().is_terminal() {
        return Ok(None);
    }
    let mut stderr = std::io::stderr();
    let attempt = || "cannot ask on the terminal";
    stderr.write_all(question.as_bytes()).and_then(|()| stderr.flush()).attempt(attempt)?;
    let mut line = String::new();
    std::io::Read::take(std::io::stdin().lock(), LINE_BYTES_MAX).read_line(&mut line).attempt(attempt)?;
    Ok(Some(line.trim().to_owned()))
}

/// Asks whether to go on; without a terminal only `--yes` says so.
fn agree(question: &str, yes: bool) -> Result<()> {
    if yes {
        return Ok(());
    }
    match ask(&format!("{question} [y/N] "))? {
        Some(answer) if ["y", "yes"].contains(&answer.to_lowercase().as_str()) => Ok(()),
        Some(_) => Err(Failure::new("nothing was changed").hint("answer y to go on")),
        None => Err(Failure::new("nothing was changed: there is no terminal to ask on").hint("add --yes to go on")),
    }
}
