//! Failures as people read them: what was attempted, why it failed, what to do next.
//!
//! Inside the CLI, errors are typed where something branches on them ([`crate::client::ClientError`],
//! [`crate::onnx::OnnxError`], [`crate::bundle::BundleError`]). At a command's edge [`Attempt`] turns
//! each into a [`Failure`], and [`hint_for`] finds the next move in the chain of causes.

use std::error::Error as StdError;
use std::io;

use clap::builder::styling::{AnsiColor, Style};

use crate::client::ClientError;

/// What every command returns.
pub type Result<T, E = Failure> = std::result::Result<T, E>;

/// An error with the causes in one line, and the next move.
#[derive(Debug)]
pub struct Failure {
    text: String,
    hint: Option<String>,
    sort: Sort,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Sort {
    Ordinary,
    /// Trying again may help.
    Passing,
    /// The reader of our output went away: nobody is left to tell.
    Quiet,
}

impl Failure {
    /// A failure that no other error caused.
    pub fn new(text: impl Into<String>) -> Self {
        Self { text: text.into(), hint: None, sort: Sort::Ordinary }
    }

    /// A failure of ours that needs no words.
    pub fn quiet() -> Self {
        Self { sort: Sort::Quiet, ..Self::new("the output was closed") }
    }

    /// The failure that another error is, after what was attempted.
    pub fn of(what: impl std::fmt::Display, error: &(dyn StdError + 'static)) -> Self {
        Self { text: format!("{what}: {}", chain(error)), hint: hint_for(error), sort: sort_of(error) }
    }

    /// Sets the next move, in place of any more general one.
    pub fn hint(self, hint: impl Into<String>) -> Self {
        Self { hint: Some(hint.into()), ..self }
    }

    /// Sets the next move where none is known yet.
    pub fn hint_if_none(self, hint: impl Into<String>) -> Self {
        if self.hint.is_some() { self } else { self.hint(hint) }
    }

    /// Whether trying again may help.
    pub fn is_passing(&self) -> bool {
        self.sort == Sort::Passing
    }

    /// Writes it to stderr, coloured on a terminal.
    pub fn print(&self) {
        if self.sort == Sort::Quiet {
            return;
        }
        let (error, hint) = (bold(AnsiColor::Red), bold(AnsiColor::Cyan));
        anstream::eprintln!("{error}error:{error:#} {}", self.text);
        if let Some(text) = &self.hint {
            anstream::eprintln!("{hint}hint:{hint:#} {text}");
        }
    }
}

impl std::fmt::Display for Failure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.text)?;
        self.hint.iter().try_for_each(|hint| write!(f, " (hint: {hint})"))
    }
}

fn bold(color: AnsiColor) -> Style {
    Style::new().bold().fg_color(Some(color.into()))
}

/// Says on stderr what a person should know although nothing failed.
pub fn warn(text: impl std::fmt::Display) {
    let style = bold(AnsiColor::Yellow);
    anstream::eprintln!("{style}warning:{style:#} {text}");
}

/// Says on stderr what to do next after a success.
pub fn next_move(text: impl std::fmt::Display) {
    let style = bold(AnsiColor::Cyan);
    anstream::eprintln!("{style}hint:{style:#} {text}");
}

/// Puts before an error what was attempted.
pub trait Attempt<T> {
    /// `what` reads like "cannot read digits.bundle".
    fn attempt<W: Into<String>>(self, what: impl FnOnce() -> W) -> Result<T>;
}

impl<T, E: StdError + 'static> Attempt<T> for std::result::Result<T, E> {
    fn attempt<W: Into<String>>(self, what: impl FnOnce() -> W) -> Result<T> {
        self.map_err(|error| Failure::of(what().into(), &error))
    }
}

impl<T> Attempt<T> for Result<T, Failure> {
    fn attempt<W: Into<String>>(self, what: impl FnOnce() -> W) -> Result<T> {
        self.map_err(|inner| Failure { text: format!("{}: {}", what().into(), inner.text), ..inner })
    }
}

/// An error and its causes in one line. A cause that its error already repeats is left out.
pub fn chain(error: &(dyn StdError + 'static)) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let words = cause.to_string();
        if !text.contains(&words) {
            text = format!("{text}: {words}");
        }
        source = cause.source();
    }
    text
}

fn sort_of(error: &(dyn StdError + 'static)) -> Sort {
    match error.downcast_ref::<ClientError>() {
        Some(client) if client.is_passing() => Sort::Passing,
        _ => Sort::Ordinary,
    }
}

/// The next move for the first cause that has one.
fn hint_for(error: &(dyn StdError + 'static)) -> Option<String> {
    let mut next = Some(error);
    while let Some(cause) = next {
        if let Some(client) = cause.downcast_ref::<ClientError>() {
            return client.hint();
        }
        if let Some(io) = cause.downcast_ref::<io::Error>() {
            return io_hint(io.kind()).map(str::to_owned);
        }
        if cause.is::<muster_shared::signing::key::BadSecretKey>() {
            return Some("use a key that `muster keys init` made; `muster keys show` lists them".to_owned());
        }
        next = cause.source();
    }
    None
}

fn io_hint(kind: io::ErrorKind) -> Option<&'static str> {
    match kind {
        io::ErrorKind::NotFound => Some("check the path: there is no such file or folder"),
        io::ErrorKind::PermissionDenied => Some("check who owns the file, and its mode with `ls -l`"),
        io::ErrorKind::StorageFull => Some("free some disk space and try again"),
        io::ErrorKind::IsADirectory => Some("name a file: this is a folder"),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_says_attempt_cause_and_next_move() {
        let missing = std::fs::read("/no/such/file").attempt(|| "cannot read /no/such/file");
        let failure = missing.attempt(|| "cannot pack digits").map_err(|failure| failure.to_string());
        let text = failure.err().unwrap_or_default();
        assert!(text.starts_with("cannot pack digits: cannot read /no/such/file: "), "{text}");
        assert!(text.contains("(hint: check the path"), "{text}");
    }

    #[test]
    fn the_nearest_hint_wins_unless_a_better_one_is_set() {
        let failure = Failure::new("a").hint("first").hint_if_none("second");
        assert_eq!(failure.hint.as_deref(), Some("first"));
        assert_eq!(failure.hint("third").hint.as_deref(), Some("third"));
    }
}
