//! One drive's way from whatever it was to a verified image, in this order:
//!
//! 1. its first and last MiB are emptied: from here on it starts nothing, and no old table is found;
//! 2. it is looked at whether it holds what it says ([`counterfeit`](super::counterfeit));
//! 3. everything but the first MiB is written, then read back from the medium and compared;
//! 4. the far end is looked at again, now that all that was written went over the drive's own memory;
//! 5. the second partition table goes to the real end, its files onto the boot partition, both read back;
//! 6. the first MiB is written and read back.
//!
//! So whatever ends it early leaves a drive that starts nothing, and says so.

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;

use muster_shared::Digest;

use super::aligned::Aligned;
use super::boot_files::{self, BootFile, BootFileError};
use super::counterfeit::{Found, MARK_BYTES, Marks, NoAnswer};
use super::gpt::{self, GptError};
use super::medium::Medium;
use super::overlay::Overlay;
use super::source::{PIECE_BYTES, Piece};
use super::{Left, Stage, Stop};

/// What shall become of a drive.
#[derive(Debug, Clone, Default)]
pub struct Job {
    /// Files for its boot partition.
    pub files: Vec<BootFile>,
    /// Skips the look for counterfeits.
    pub skip_counterfeit_check: bool,
    /// Skips the reading back.
    pub skip_verification: bool,
    /// Chance, for marks that are unlike any older ones.
    pub seed: [u8; 16],
}

/// A drive that is done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Flashed {
    /// The bytes of the image that were written.
    pub bytes: u64,
    /// Whether all of it was read back.
    pub verified: bool,
}

/// Why a drive is not done.
#[derive(Debug, thiserror::Error)]
pub enum CardError {
    /// Somebody said so.
    #[error("stopped")]
    Stopped,
    /// The image could not be read to its end; that is told once for all drives.
    #[error("the image ended early")]
    NoImage,
    /// The image is longer.
    #[error("the image is larger than the drive, which holds {drive} bytes")]
    TooSmall {
        /// What the drive holds.
        drive: u64,
    },
    /// The image's block map counts in smaller steps than the drive.
    #[error("the image's block map has blocks of {block} bytes, and this drive has sectors of {sector}")]
    Blocks {
        /// The map's.
        block: u64,
        /// The drive's.
        sector: u32,
    },
    /// A piece that is not the last ends within a sector.
    #[error("the image has a gap within the sector at byte {at}")]
    Gap {
        /// Where the piece begins.
        at: u64,
    },
    /// It says more than it holds.
    #[error("the drive is a counterfeit, or broken: it says that it holds {says} bytes, and holds about {holds}")]
    Counterfeit {
        /// What it says.
        says: u64,
        /// What it holds at most.
        holds: u64,
    },
    /// It takes no more.
    #[error("cannot write at byte {at}")]
    Write {
        /// Where.
        at: u64,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// It gives nothing back.
    #[error("cannot read back at byte {at}")]
    Read {
        /// Where.
        at: u64,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// It gives something else back.
    #[error("what was read back at byte {at} is not what was written")]
    Mismatch {
        /// Where the piece begins.
        at: u64,
    },
    /// The image's table does not fit.
    #[error(transparent)]
    Table(#[from] GptError),
    /// A file has no place.
    #[error(transparent)]
    BootFile(#[from] BootFileError),
    /// Ours.
    #[error("a fault of muster itself ended the writing")]
    Fault,
}

impl CardError {
    /// What a person can do.
    pub fn next_move(&self) -> &'static str {
        match self {
            Self::Stopped => "flash it again when you like",
            Self::NoImage => "see what is wrong with the image, then flash it again",
            Self::TooSmall { .. } => "use a larger one, or a smaller image",
            Self::Blocks { .. } | Self::Gap { .. } => "write everything with --no-bmap",
            Self::Counterfeit { .. } => "do not use it: send it back to whoever sold it",
            Self::Write { .. } | Self::Read { .. } => "try another reader or port, then another card",
            Self::Mismatch { .. } => "try once more in another reader; if it happens again the card is worn out",
            Self::Fault => "flash it again, and report what stands above",
            Self::Table(_) => "use a drive with the sectors that the image was made for, or another image",
            Self::BootFile(_) => {
                "flash an image that has a boot partition with FAT, or put the files on it yourself after flashing"
            }
        }
    }
}

/// What comes to a drive.
#[derive(Debug, Clone)]
pub enum Feed {
    /// The next piece.
    Piece(Arc<Piece>),
    /// All was read, and it was right.
    End,
}

/// Writes a drive. `feed` gives what comes next; nothing: no more will come.
pub fn write(
    medium: &mut dyn Medium,
    job: &Job,
    mut feed: impl FnMut() -> Option<Feed>,
    stop: &Stop,
    mut told: impl FnMut(Stage, u64),
) -> Result<Flashed, (CardError, Left)> {
    let left = Left::Untouched;
    let mut card = Card { medium, head: head(), digests: BTreeMap::new(), is_ended: false, left };
    let done = card.write(job, &mut feed, stop, &mut told);
    done.map_err(|error| (error, card.left))
}

struct Card<'a> {
    medium: &'a mut dyn Medium,
    /// The drive's first piece, until it is written last.
    head: Aligned,
    /// What was written where, but for the head: length and digest.
    digests: BTreeMap<u64, (usize, Digest)>,
    /// A piece ended within a sector: it was the last one.
    is_ended: bool,
    left: Left,
}

fn head() -> Aligned {
    Aligned::zeros(usize::try_from(PIECE_BYTES).unwrap_or(0))
}

type Told<'a> = &'a mut dyn FnMut(Stage, u64);

impl Card<'_> {
    fn write(
        &mut self,
        job: &Job,
        feed: &mut dyn FnMut() -> Option<Feed>,
        stop: &Stop,
        told: Told<'_>,
    ) -> Result<Flashed, CardError> {
        if stop.is_asked() {
            return Err(CardError::Stopped);
        }
        let drive = self.medium.bytes();
        self.head.truncate(usize::try_from(drive.min(PIECE_BYTES)).unwrap_or(0));
        self.empty()?;
        // A file that was made a moment ago is no counterfeit.
        let marks = Marks::of(drive).filter(|_| !job.skip_counterfeit_check && !self.medium.is_blank());
        if let Some(marks) = &marks {
            let found = marks.check(self.medium, &job.seed, stop, |done| told(Stage::Checking, done * MARK_BYTES));
            self.judge(found)?;
            // One of the marks was there.
            self.empty_head()?;
        }
        let (bytes, end) = self.body(feed, stop, told)?;
        self.medium.settle().map_err(|source| CardError::Write { at: end, source })?;
        if !job.skip_verification {
            self.verify(stop, told)?;
        }
        told(Stage::Finishing, 0);
        if let Some(marks) = &marks {
            let is_there = |place| place >= PIECE_BYTES && self.is_beside_the_image(place);
            let there: Vec<u64> = marks.places().filter(|place| is_there(*place)).collect();
            let found = marks.look(self.medium, &job.seed, |place| there.contains(&place));
            self.judge(found)?;
            self.wipe(&there)?;
        }
        self.finish(job)?;
        Ok(Flashed { bytes, verified: !job.skip_verification })
    }

    /// Nothing that is left of before shall be found.
    fn empty(&mut self) -> Result<(), CardError> {
        self.left = Left::Erased;
        if self.medium.is_blank() {
            return Ok(());
        }
        self.empty_head()?;
        let drive = self.medium.bytes();
        let last = drive.saturating_sub(PIECE_BYTES).next_multiple_of(4096).min(drive);
        if last >= PIECE_BYTES {
            let zeros = Aligned::zeros(usize::try_from(drive - last).unwrap_or(0));
            self.medium.write_at(last, &zeros).map_err(|source| CardError::Write { at: last, source })?;
        }
        self.medium.settle().map_err(|source| CardError::Write { at: 0, source })
    }

    /// Takes marks off again: the same image leaves the same bytes.
    fn wipe(&mut self, places: &[u64]) -> Result<(), CardError> {
        let zeros = Aligned::zeros(usize::try_from(MARK_BYTES).unwrap_or(0));
        for at in places {
            self.medium.write_at(*at, &zeros).map_err(|source| CardError::Write { at: *at, source })?;
        }
        Ok(())
    }

    fn empty_head(&mut self) -> Result<(), CardError> {
        let zeros = Aligned::zeros(self.head.len());
        self.medium.write_at(0, &zeros).map_err(|source| CardError::Write { at: 0, source })
    }

    fn judge(&self, found: Result<Found, NoAnswer>) -> Result<(), CardError> {
        match found {
            Ok(Found::Whole) => Ok(()),
            Ok(Found::Less { bytes }) => Err(CardError::Counterfeit { says: self.medium.bytes(), holds: bytes }),
            Err(NoAnswer::Stopped) => Err(CardError::Stopped),
            Err(NoAnswer::Write(at, source)) => Err(CardError::Write { at, source }),
            Err(NoAnswer::Read(at, source)) => Err(CardError::Read { at, source }),
        }
    }

    /// Everything but the head. Says how much that was, and where it ended.
    fn body(
        &mut self,
        feed: &mut dyn FnMut() -> Option<Feed>,
        stop: &Stop,
        told: Told<'_>,
    ) -> Result<(u64, u64), CardError> {
        let (mut done, mut end) = (0, 0);
        told(Stage::Writing, 0);
        loop {
            let piece = match feed() {
                Some(Feed::Piece(piece)) => piece,
                Some(Feed::End) => return Ok((done, end)),
                None if stop.is_asked() => return Err(CardError::Stopped),
                None => return Err(CardError::NoImage),
            };
            if stop.is_asked() {
                return Err(CardError::Stopped);
            }
            end = piece.at + piece.bytes.len() as u64;
            if end > self.medium.bytes() {
                return Err(CardError::TooSmall { drive: self.medium.bytes() });
            }
            if piece.at < PIECE_BYTES {
                let at = usize::try_from(piece.at).unwrap_or(0);
                self.head[at..at + piece.bytes.len()].copy_from_slice(&piece.bytes);
            } else {
                self.put(&piece)?;
            }
            done += piece.bytes.len() as u64;
            told(Stage::Writing, done);
        }
    }

    fn put(&mut self, piece: &Piece) -> Result<(), CardError> {
        let failed = |source| CardError::Write { at: piece.at, source };
        let sector = usize::try_from(self.medium.sector_bytes()).unwrap_or(512);
        let is_zero = self.medium.is_blank() && piece.bytes.iter().all(|byte| *byte == 0);
        if self.is_ended || !piece.at.is_multiple_of(sector as u64) {
            return Err(CardError::Gap { at: piece.at });
        }
        // An image may end within a sector.
        if piece.bytes.len().is_multiple_of(sector) {
            if !is_zero {
                self.medium.write_at(piece.at, &piece.bytes).map_err(failed)?;
            }
            self.digests.insert(piece.at, (piece.bytes.len(), piece.digest));
        } else {
            self.is_ended = true;
            let mut whole = Aligned::zeros(piece.bytes.len().next_multiple_of(sector));
            whole[..piece.bytes.len()].copy_from_slice(&piece.bytes);
            self.medium.write_at(piece.at, &whole).map_err(failed)?;
            self.digests.insert(piece.at, (whole.len(), Digest::of(&*whole)));
        }
        Ok(())
    }

    fn verify(&mut self, stop: &Stop, told: Told<'_>) -> Result<(), CardError> {
        let mut done = 0;
        told(Stage::Verifying, 0);
        for (at, (length, digest)) in &self.digests {
            if stop.is_asked() {
                return Err(CardError::Stopped);
            }
            let mut back = Aligned::zeros(*length);
            self.medium.read_at(*at, &mut back).map_err(|source| CardError::Read { at: *at, source })?;
            if Digest::of(&*back) != *digest {
                return Err(CardError::Mismatch { at: *at });
            }
            done += *length as u64;
            told(Stage::Verifying, done);
        }
        Ok(())
    }

    /// Whether a mark's place was not written over by the image.
    fn is_beside_the_image(&self, place: u64) -> bool {
        let before = self.digests.range(..place + MARK_BYTES).next_back();
        before.is_none_or(|(at, (length, _))| at + *length as u64 <= place)
    }

    /// The second table, the files, and last the head.
    fn finish(&mut self, job: &Job) -> Result<(), CardError> {
        let (drive, sector) = (self.medium.bytes(), self.medium.sector_bytes());
        let mut changed: BTreeMap<u64, Vec<u8>> = BTreeMap::new();
        if let Some(backup) = gpt::fit(&mut self.head, sector.into(), drive)? {
            changed.insert(backup.at, backup.bytes);
        }
        if !job.files.is_empty() {
            let mut overlay = Overlay::new(self.medium, &self.head);
            boot_files::put(&mut overlay, &job.files)?;
            let (head, blocks) = overlay.into_changes();
            self.head = head;
            changed.extend(blocks);
            // A write that fails, or is read back as something else, may have left them there.
            self.left = Left::MayHold;
        }
        for (at, bytes) in changed {
            self.put_and_look(at, &Aligned::of(&bytes), job)?;
        }
        let head = std::mem::replace(&mut self.head, Aligned::zeros(0));
        self.left = Left::Unsure;
        self.put_and_look(0, &head, job)
    }

    fn put_and_look(&mut self, at: u64, bytes: &Aligned, job: &Job) -> Result<(), CardError> {
        self.medium.write_at(at, bytes).map_err(|source| CardError::Write { at, source })?;
        self.medium.settle().map_err(|source| CardError::Write { at, source })?;
        if job.skip_verification {
            return Ok(());
        }
        let mut back = Aligned::zeros(bytes.len());
        self.medium.read_at(at, &mut back).map_err(|source| CardError::Read { at, source })?;
        if *back == **bytes { Ok(()) } else { Err(CardError::Mismatch { at }) }
    }
}

#[cfg(test)]
mod tests;
