//! From an image to cards that boot, and nothing else touched.
//!
//! [`drives`] says what may be written, [`target`] opens it and looks again; [`source`] gives the image in pieces;
//! [`many`] hands them to every card at once, and each takes [its own way](card).

mod aligned;
pub mod bmap;
pub mod boot_files;
pub mod card;
pub mod counterfeit;
pub mod drives;
mod gpt;
pub mod many;
pub mod medium;
mod overlay;
pub mod progress;
mod reread;
pub mod source;
pub mod target;
#[cfg(test)]
mod testing;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// Somebody's wish to end, asked for at every piece.
#[derive(Debug, Clone, Default)]
pub struct Stop(Arc<AtomicBool>);

impl Stop {
    /// From now on everything ends as soon as it can.
    pub fn ask(&self) {
        self.0.store(true, Ordering::Relaxed);
    }

    /// Whether it was asked for.
    pub fn is_asked(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

/// How far a card is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stage {
    /// Whether it holds what it says.
    Checking,
    /// The image goes onto it.
    Writing,
    /// What was written is read back.
    Verifying,
    /// Its files, and what makes it start.
    Finishing,
}

/// What a card is when its way ended early.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Left {
    /// As it was.
    Untouched,
    /// What was on it is gone, and it starts nothing.
    Erased,
    /// It starts nothing, but files that were meant for it, a claim among them, may be on it.
    MayHold,
    /// It may start, and what it starts is not known to be right.
    Unsure,
}

impl Left {
    /// Whether files that were meant for it, a claim among them, may be on it.
    pub fn may_hold_files(self) -> bool {
        match self {
            Self::Untouched | Self::Erased => false,
            Self::MayHold | Self::Unsure => true,
        }
    }
}

impl std::fmt::Display for Left {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Untouched => "nothing was written to it",
            Self::Erased => "it is erased and starts nothing",
            Self::MayHold => "it starts nothing, and its claim may be on it",
            Self::Unsure => "do not start it: what is on it is not known to be right",
        })
    }
}
