//! A drive as it will be: what changes is kept in memory until all of it is known.

use std::collections::BTreeMap;
use std::io::{self, Read, Seek, SeekFrom, Write};

use super::aligned::Aligned;
use super::medium::Medium;

/// Changes are kept in blocks of this size.
const BLOCK_BYTES: u64 = 4096;
/// A file for a boot partition changes far fewer.
const BLOCKS_MAX: usize = 16_384;

impl std::fmt::Debug for Overlay<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} changed blocks of a drive", self.blocks.len())
    }
}

/// A window on a drive through which changes are made that it does not have yet.
pub struct Overlay<'a> {
    medium: &'a mut dyn Medium,
    head: Aligned,
    blocks: BTreeMap<u64, Aligned>,
    start: u64,
    bytes: u64,
    at: u64,
}

impl<'a> Overlay<'a> {
    /// All of a drive, whose first bytes are these.
    pub fn new(medium: &'a mut dyn Medium, head: &Aligned) -> Self {
        let bytes = medium.bytes();
        Self { medium, head: head.clone(), blocks: BTreeMap::new(), start: 0, bytes, at: 0 }
    }

    /// The drive's first bytes.
    pub fn head(&self) -> &[u8] {
        &self.head
    }

    /// Looks at a part of the drive from now on; as much of it as there is.
    pub fn narrow(&mut self, start: u64, bytes: u64) {
        let drive = self.medium.bytes();
        self.start = start.min(drive);
        self.bytes = bytes.min(drive - self.start);
        self.at = 0;
    }

    /// The new head, and the blocks beyond it that changed.
    pub fn into_changes(self) -> (Aligned, BTreeMap<u64, Vec<u8>>) {
        (self.head, self.blocks.into_iter().map(|(at, bytes)| (at, bytes.to_vec())).collect())
    }

    /// The block around a place of the drive; it is no longer than what is left of the drive.
    fn block(&mut self, place: u64) -> io::Result<(u64, Aligned)> {
        let at = place / BLOCK_BYTES * BLOCK_BYTES;
        if let Some(block) = self.blocks.get(&at) {
            return Ok((at, block.clone()));
        }
        let length = BLOCK_BYTES.min(self.medium.bytes() - at);
        let mut block = Aligned::zeros(usize::try_from(length).map_err(io::Error::other)?);
        self.medium.read_at(at, &mut block)?;
        Ok((at, block))
    }

    /// Where the next byte lies on the drive, and how many follow it in the window.
    fn place(&self, wanted: usize) -> (u64, usize) {
        let left = self.bytes.saturating_sub(self.at);
        (self.start + self.at, usize::try_from(left).unwrap_or(usize::MAX).min(wanted))
    }
}

impl Read for Overlay<'_> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let (place, count) = self.place(into.len());
        if count == 0 {
            return Ok(0);
        }
        let copied = match usize::try_from(place).ok().and_then(|place| self.head.get(place..)) {
            Some(rest) if !rest.is_empty() => {
                let count = count.min(rest.len());
                into[..count].copy_from_slice(&rest[..count]);
                count
            }
            _ => {
                let (at, block) = self.block(place)?;
                let from = usize::try_from(place - at).map_err(io::Error::other)?;
                let count = count.min(block.len() - from);
                into[..count].copy_from_slice(&block[from..from + count]);
                count
            }
        };
        self.at += copied as u64;
        Ok(copied)
    }
}

impl Write for Overlay<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let (place, count) = self.place(bytes.len());
        if count == 0 {
            return Ok(0);
        }
        let head_bytes = self.head.len();
        let written = match usize::try_from(place) {
            Ok(place) if place < head_bytes => {
                let count = count.min(head_bytes - place);
                self.head[place..place + count].copy_from_slice(&bytes[..count]);
                count
            }
            _ => {
                let (at, mut block) = self.block(place)?;
                let from = usize::try_from(place - at).map_err(io::Error::other)?;
                let count = count.min(block.len() - from);
                block[from..from + count].copy_from_slice(&bytes[..count]);
                self.blocks.insert(at, block);
                if self.blocks.len() > BLOCKS_MAX {
                    return Err(io::Error::other("more changes than a few files make"));
                }
                count
            }
        };
        self.at += written as u64;
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Seek for Overlay<'_> {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        let at = match to {
            SeekFrom::Start(at) => Some(at),
            SeekFrom::End(by) => self.bytes.checked_add_signed(by),
            SeekFrom::Current(by) => self.at.checked_add_signed(by),
        };
        self.at = at.ok_or(io::ErrorKind::InvalidInput)?;
        Ok(self.at)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::source::PIECE_BYTES;
    use super::super::testing::{Fake, Lie};
    use super::*;

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(32))]
        #[test]
        fn a_window_is_like_a_file_and_changes_nothing_itself(
            start in 0_u64..3 * PIECE_BYTES,
            writes in prop::collection::vec((0_u64..40_000, 1_usize..9_000, any::<u8>()), 1..8),
        ) {
            let mut drive = Fake::new(4 * PIECE_BYTES, Lie::None);
            drive.write_at(PIECE_BYTES, &vec![9; PIECE_BYTES as usize]).expect("writes");
            let before = drive.contents(4 * PIECE_BYTES);
            let head = Aligned::of(&before[..PIECE_BYTES as usize]);
            let mut overlay = Overlay::new(&mut drive, &head);
            overlay.narrow(start, 50_000);
            let from = start as usize;
            let mut model = before[from..from + 50_000].to_vec();
            for (at, length, byte) in writes {
                overlay.seek(SeekFrom::Start(at)).expect("moves");
                let length = length.min(50_000 - at as usize);
                overlay.write_all(&vec![byte; length]).expect("writes");
                model[at as usize..at as usize + length].fill(byte);
            }
            let mut all = Vec::new();
            overlay.rewind().expect("moves");
            overlay.read_to_end(&mut all).expect("reads");
            prop_assert!(all == model);
            let (head, blocks) = overlay.into_changes();
            prop_assert!(drive.contents(4 * PIECE_BYTES) == before);
            drive.write_at(0, &head).expect("writes");
            for (at, bytes) in blocks {
                drive.write_at(at, &bytes).expect("writes");
            }
            prop_assert!(drive.contents(4 * PIECE_BYTES)[from..from + 50_000] == model);
        }
    }
}
