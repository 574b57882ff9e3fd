//! Drives as tests need them: honest ones, liars, and those that fail.

use std::collections::BTreeMap;
use std::io;

use super::Stop;
use super::medium::Medium;

const BLOCK: u64 = 512;

/// How a drive lies about its size.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lie {
    None,
    /// Goes on at its beginning.
    Wraps(u64),
    /// Forgets what lies beyond.
    Drops(u64),
}

/// A drive in memory; what was never written is zero.
pub struct Fake {
    pub blocks: BTreeMap<u64, [u8; BLOCK as usize]>,
    pub bytes: u64,
    pub lie: Lie,
    pub blank: bool,
    pub sector: u32,
    /// Fails to write here.
    pub bad_write: Option<u64>,
    /// Reads something else here than was written.
    pub bad_read: Option<u64>,
    /// Asks to stop once so many bytes were written.
    pub stop_after: Option<(u64, Stop)>,
    pub written: u64,
    /// Each write: where, and how much.
    pub log: Vec<(u64, usize)>,
}

impl Fake {
    pub fn new(bytes: u64, lie: Lie) -> Self {
        Self {
            blocks: BTreeMap::new(),
            bytes,
            lie,
            blank: false,
            sector: 512,
            bad_write: None,
            bad_read: None,
            stop_after: None,
            written: 0,
            log: Vec::new(),
        }
    }

    /// Everything on it, or as much as is asked for.
    pub fn contents(&mut self, length: u64) -> Vec<u8> {
        let mut all = vec![0; usize::try_from(length).expect("small")];
        let bad = self.bad_read.take();
        self.read_at(0, &mut all).expect("reads");
        self.bad_read = bad;
        all
    }

    /// Where a block really lies; nothing: nowhere.
    fn real(&self, block: u64) -> Option<u64> {
        match self.lie {
            Lie::None => Some(block),
            Lie::Wraps(real) => Some(block % (real / BLOCK)),
            Lie::Drops(real) => Some(block).filter(|block| *block < real / BLOCK),
        }
    }

    fn fits(&self, at: u64, length: usize) -> io::Result<()> {
        if !at.is_multiple_of(BLOCK) || !(length as u64).is_multiple_of(BLOCK) {
            return Err(io::Error::other(format!("{length} bytes at {at} are no whole sectors")));
        }
        if at + length as u64 > self.bytes { Err(io::ErrorKind::StorageFull.into()) } else { Ok(()) }
    }
}

impl Medium for Fake {
    fn bytes(&self) -> u64 {
        self.bytes
    }

    fn sector_bytes(&self) -> u32 {
        self.sector
    }

    fn is_blank(&self) -> bool {
        self.blank
    }

    fn write_at(&mut self, at: u64, bytes: &[u8]) -> io::Result<()> {
        self.fits(at, bytes.len())?;
        let end = at + bytes.len() as u64;
        if self.bad_write.is_some_and(|bad| (at..end).contains(&bad)) {
            return Err(io::Error::other("the medium failed"));
        }
        for (number, block) in bytes.chunks_exact(BLOCK as usize).enumerate() {
            if let Some(real) = self.real(at / BLOCK + number as u64) {
                self.blocks.insert(real, block.try_into().expect("a block"));
            }
        }
        self.log.push((at, bytes.len()));
        self.written += bytes.len() as u64;
        if let Some((after, stop)) = &self.stop_after
            && self.written >= *after
        {
            stop.ask();
        }
        Ok(())
    }

    fn read_at(&mut self, at: u64, into: &mut [u8]) -> io::Result<()> {
        self.fits(at, into.len())?;
        for (number, block) in into.chunks_exact_mut(BLOCK as usize).enumerate() {
            let real = self.real(at / BLOCK + number as u64);
            let bytes = real.and_then(|real| self.blocks.get(&real)).copied().unwrap_or([0; BLOCK as usize]);
            block.copy_from_slice(&bytes);
        }
        if let Some(bad) = self.bad_read.filter(|bad| (at..at + into.len() as u64).contains(bad)) {
            into[usize::try_from(bad - at).expect("small")] ^= 1;
        }
        Ok(())
    }

    fn settle(&mut self) -> io::Result<()> {
        Ok(())
    }
}
