//! What is written to: bytes at places, and a promise that what was read came from the medium itself.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;

use rustix::fs::{Advice, OFlags, fadvise, fcntl_getfl, fcntl_setfl};

use super::aligned::{Aligned, is_aligned};

/// Written in between where writes go through the cache: else progress would be the memory's, not the drive's.
const UNSETTLED_BYTES_MAX: u64 = 32 * 1024 * 1024;

/// A drive, or what stands for one.
pub trait Medium: Send {
    /// How much it holds, as it says.
    fn bytes(&self) -> u64;

    /// Its smallest unit.
    fn sector_bytes(&self) -> u32;

    /// Whether everything on it is known to be zero.
    fn is_blank(&self) -> bool;

    /// Writes all bytes at a place.
    fn write_at(&mut self, at: u64, bytes: &[u8]) -> io::Result<()>;

    /// Reads from the medium, not from a memory of what was written.
    fn read_at(&mut self, at: u64, into: &mut [u8]) -> io::Result<()>;

    /// Returns when everything that was written is on the medium.
    fn settle(&mut self) -> io::Result<()>;
}

/// A block device, or a plain file in place of one.
pub struct DiskFile {
    file: File,
    bytes: u64,
    sector_bytes: u32,
    /// What direct reads and writes must be multiples of.
    unit: u64,
    is_blank: bool,
    /// Reads and writes go around the cache now.
    direct: bool,
    /// The file system refused that.
    never_direct: bool,
    unsettled: u64,
}

impl DiskFile {
    /// A block device that is open for reading and writing.
    pub fn device(file: File, bytes: u64, sector_bytes: u32) -> Self {
        Self::new(file, bytes, sector_bytes, sector_bytes.into(), false)
    }

    /// A plain file that is open for reading and writing; blank: all of it is zero.
    pub fn plain(file: File, bytes: u64, is_blank: bool) -> Self {
        Self::new(file, bytes, 512, 4096, is_blank)
    }

    fn new(file: File, bytes: u64, sector_bytes: u32, unit: u64, is_blank: bool) -> Self {
        Self { file, bytes, sector_bytes, unit, is_blank, direct: false, never_direct: false, unsettled: 0 }
    }

    /// Goes around the cache, or through it; says which it is now.
    fn set_direct(&mut self, wanted: bool) -> io::Result<bool> {
        let wanted = wanted && !self.never_direct;
        if wanted != self.direct {
            let mut flags = fcntl_getfl(&self.file)?;
            flags.set(OFlags::DIRECT, wanted);
            match fcntl_setfl(&self.file, flags) {
                Err(rustix::io::Errno::INVAL) if wanted => self.never_direct = true,
                other => {
                    other?;
                    self.direct = wanted;
                }
            }
        }
        Ok(self.direct)
    }

    /// Does it directly where that is possible, else through the cache. Some file systems refuse only then.
    fn directly(
        &mut self,
        possible: bool,
        mut io: impl FnMut(&File) -> io::Result<()>,
        cached: impl FnOnce(&mut Self) -> io::Result<()>,
    ) -> io::Result<()> {
        if self.set_direct(possible)? {
            match io(&self.file) {
                Err(error) if error.kind() == io::ErrorKind::InvalidInput => self.never_direct = true,
                done => return done,
            }
            self.set_direct(false)?;
        }
        cached(self)
    }

    /// Everything is on the medium, and nothing of it in memory.
    fn forget(&mut self) -> io::Result<()> {
        self.file.sync_data()?;
        self.unsettled = 0;
        fadvise(&self.file, 0, None, Advice::DontNeed)?;
        Ok(())
    }
}

impl Medium for DiskFile {
    fn bytes(&self) -> u64 {
        self.bytes
    }

    fn sector_bytes(&self) -> u32 {
        self.sector_bytes
    }

    fn is_blank(&self) -> bool {
        self.is_blank
    }

    fn write_at(&mut self, at: u64, bytes: &[u8]) -> io::Result<()> {
        if at.saturating_add(bytes.len() as u64) > self.bytes {
            // A plain file would grow.
            return Err(io::ErrorKind::StorageFull.into());
        }
        let possible = is_aligned(at, bytes, self.unit);
        self.directly(
            possible,
            |file| file.write_all_at(bytes, at),
            |this| {
                this.file.write_all_at(bytes, at)?;
                this.unsettled += bytes.len() as u64;
                if this.unsettled >= UNSETTLED_BYTES_MAX { this.forget() } else { Ok(()) }
            },
        )
    }

    fn read_at(&mut self, at: u64, into: &mut [u8]) -> io::Result<()> {
        let end = at.saturating_add(into.len() as u64);
        if end > self.bytes {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        if is_aligned(at, into, self.unit) {
            let mut all = Aligned::zeros(into.len());
            self.directly(
                true,
                |file| file.read_exact_at(&mut all, at),
                |this| {
                    this.forget()?;
                    this.file.read_exact_at(into, at)
                },
            )?;
            if self.direct {
                into.copy_from_slice(&all);
            }
            return Ok(());
        }
        // A wider piece that can be read directly, if it does not lead beyond the end.
        let from = at - at % self.unit;
        let to = end.next_multiple_of(self.unit);
        if to > self.bytes {
            self.set_direct(false)?;
            self.forget()?;
            return self.file.read_exact_at(into, at);
        }
        let mut wider = Aligned::zeros(usize::try_from(to - from).map_err(io::Error::other)?);
        self.read_at(from, &mut wider)?;
        let start = usize::try_from(at - from).map_err(io::Error::other)?;
        into.copy_from_slice(&wider[start..start + into.len()]);
        Ok(())
    }

    fn settle(&mut self) -> io::Result<()> {
        self.set_direct(false)?;
        self.file.sync_all()?;
        self.forget()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn disk(bytes: u64) -> DiskFile {
        let file = tempfile::tempfile().expect("a file");
        file.set_len(bytes).expect("a size");
        DiskFile::plain(file, bytes, true)
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn what_is_written_anywhere_is_read_back(
            size in 1_u64..40_000,
            writes in prop::collection::vec((0_u64..40_000, 0_usize..9_000, any::<u8>(), any::<bool>()), 1..12),
        ) {
            let mut disk = disk(size);
            let mut model = vec![0; usize::try_from(size).expect("small")];
            for (at, length, byte, whole_pages) in writes {
                let (at, length) = if whole_pages { (at / 4096 * 4096, length / 4096 * 4096) } else { (at, length) };
                let bytes = Aligned::of(&vec![byte; length]);
                let fits = at + length as u64 <= size;
                prop_assert_eq!(disk.write_at(at, &bytes).is_ok(), fits);
                if fits {
                    let at = usize::try_from(at).expect("small");
                    model[at..at + length].fill(byte);
                    let mut back = vec![0; length];
                    disk.read_at(at as u64, &mut back).expect("reads");
                    prop_assert_eq!(&back[..], &bytes[..]);
                }
            }
            disk.settle().expect("settles");
            let mut all = vec![0; model.len()];
            disk.read_at(0, &mut all).expect("reads");
            prop_assert_eq!(all, model);
            prop_assert!(disk.read_at(size, &mut [0]).is_err());
        }
    }
}
