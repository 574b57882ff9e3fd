//! Entries of the boot menu, one file for each system slot (Boot Loader Specification, type 1), and the counter
//! in their names: `muster-b+2-1.conf` has two tries left and used one. The boot loader counts by renaming; a
//! name without a counter is one that proved itself.

use std::fmt;
use std::str::FromStr;

/// The folder of the entries, on the partition that the firmware reads.
pub const FOLDER: &str = "loader/entries";
/// How often a new system may try.
pub const TRIES: u32 = 3;

/// A place for one whole system.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Slot {
    /// The first, which an image brings.
    A,
    /// The second.
    B,
}

impl fmt::Display for Slot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::A => "a",
            Self::B => "b",
        })
    }
}

/// An entry's file name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Name {
    /// Whose it is.
    pub slot: Slot,
    /// Tries left, and done; none: it is not counted.
    pub tries: Option<(u32, u32)>,
}

impl Name {
    /// Of a system that has yet to prove itself.
    pub fn new(slot: Slot) -> Self {
        Self { slot, tries: Some((TRIES, 0)) }
    }

    /// Of one that did.
    pub fn proven(slot: Slot) -> Self {
        Self { slot, tries: None }
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "muster-{}", self.slot)?;
        match self.tries {
            None => {}
            Some((left, 0)) => write!(f, "+{left}")?,
            Some((left, done)) => write!(f, "+{left}-{done}")?,
        }
        f.write_str(".conf")
    }
}

/// A file that is no entry of ours.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("this is no entry of a system slot")]
pub struct NotOurs;

impl FromStr for Name {
    type Err = NotOurs;

    fn from_str(text: &str) -> Result<Self, NotOurs> {
        let stem = text.strip_prefix("muster-").and_then(|rest| rest.strip_suffix(".conf")).ok_or(NotOurs)?;
        let (slot, counter) = stem.split_once('+').map_or((stem, None), |(slot, counter)| (slot, Some(counter)));
        let slot = match slot {
            "a" => Slot::A,
            "b" => Slot::B,
            _ => return Err(NotOurs),
        };
        let number = |text: &str| text.parse().map_err(|_| NotOurs);
        let tries = counter.map(|counter| match counter.split_once('-') {
            Some((left, done)) => Ok((number(left)?, number(done)?)),
            None => Ok((number(counter)?, 0)),
        });
        Ok(Self { slot, tries: tries.transpose()? })
    }
}

/// What an entry says. Of two, the boot loader prefers the higher version, unless its tries are used up.
#[derive(Debug)]
pub struct Entry<'a> {
    /// Whose it is.
    pub slot: Slot,
    /// The system's number.
    pub version: u64,
    /// The kernel's options, beside those that every slot has.
    pub options: &'a [String],
}

/// What every kernel is told. `panic`: it starts again by itself, which counts as a try. `gpt`: where the first
/// table was torn by a power cut, the copy at the disk's end serves.
const OPTIONS: &str = "panic=10 oops=panic gpt quiet loglevel=4";

impl fmt::Display for Entry<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { slot, version, options } = self;
        writeln!(f, "title Muster ({slot})")?;
        writeln!(f, "sort-key muster")?;
        writeln!(f, "version {version}")?;
        writeln!(f, "linux /muster/{slot}/linux")?;
        writeln!(f, "initrd /muster/{slot}/initrd")?;
        write!(f, "options {OPTIONS} muster.slot={slot}")?;
        for option in *options {
            write!(f, " {option}")?;
        }
        writeln!(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_come_back_as_they_were_written() {
        for (name, text) in [
            (Name::new(Slot::A), "muster-a+3.conf"),
            (Name { slot: Slot::B, tries: Some((0, 3)) }, "muster-b+0-3.conf"),
            (Name::proven(Slot::B), "muster-b.conf"),
        ] {
            assert_eq!(name.to_string(), text);
            assert_eq!(text.parse(), Ok(name));
        }
        for other in ["debian.conf", "muster-c.conf", "muster-a+.conf", "muster-a+3-.conf", "muster-a"] {
            assert_eq!(other.parse::<Name>(), Err(NotOurs), "{other}");
        }
    }

    #[test]
    fn an_entry_says_what_to_start() {
        let options = ["console=ttyAMA0".to_owned()];
        let text = Entry { slot: Slot::B, version: 2, options: &options }.to_string();
        assert!(text.contains("linux /muster/b/linux\n") && text.contains("\nversion 2\n"));
        assert!(text.ends_with("muster.slot=b console=ttyAMA0\n"));
    }
}
