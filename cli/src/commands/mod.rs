//! The commands, in the order in which a newcomer meets them. Each file has its `Args` and `run`.

pub mod context;
pub mod login;
pub mod whoami;

pub mod approve;
pub mod claim;
pub mod keys;
pub mod revoke;
pub mod trust;

pub mod inspect;
pub mod pack;
pub mod push;

pub mod apply;
pub mod delete;
pub mod describe;
pub mod get;
pub mod predict;

pub mod explain;
pub mod plan;
pub mod rollout;
pub mod scale;

pub mod cordon;
pub mod drain;
pub mod uncordon;

use std::io::{BufRead as _, IsTerminal as _, Write as _};

use crate::error::{Attempt as _, Result};

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
