//! Puts files on the FAT partition that an image boots from: the claim by which a card enrols.

use std::io::{self, Read as _, Seek as _, SeekFrom};

use super::overlay::Overlay;
use crate::disk::fat;
use crate::disk::table::{self, Kind, TableError};

/// A file for the boot partition.
#[derive(Clone, PartialEq, Eq)]
pub struct BootFile {
    /// Its path there, as [`crate::enrolment::PATH`].
    pub path: String,
    /// What stands in it. May be secret.
    pub bytes: Vec<u8>,
}

impl std::fmt::Debug for BootFile {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} ({} bytes)", self.path, self.bytes.len())
    }
}

/// Why a file is not there.
#[derive(Debug, thiserror::Error)]
pub enum BootFileError {
    /// Nothing to put it on.
    #[error("the image has no boot partition with a FAT file system to put {0} on")]
    NoPartition(String),
    /// It did not get there.
    #[error("cannot put {path} on the image's boot partition")]
    Put {
        /// The file.
        path: String,
        /// Why.
        #[source]
        source: io::Error,
    },
}

/// Puts files on the first partition of firmware that is a FAT.
pub fn put(drive: &mut Overlay<'_>, files: &[BootFile]) -> Result<(), BootFileError> {
    let Some(first) = files.first() else { return Ok(()) };
    let failed = |path: &str, source| BootFileError::Put { path: path.to_owned(), source };
    let found = find(drive).map_err(|source| failed(&first.path, source))?;
    let (start, bytes) = found.ok_or_else(|| BootFileError::NoPartition(first.path.clone()))?;
    drive.narrow(start, bytes);
    let mut path = first.path.as_str();
    let changed = fat::change(drive, |system| {
        files.iter().try_for_each(|file| {
            path = &file.path;
            fat::put(system, &file.path, &file.bytes)
        })
    });
    changed.map_err(|source| failed(path, source))
}

/// Where to put them: the whole drive, where it is a FAT without a table (whose boot code could be taken for one);
/// else the first partition that firmware, or any computer, reads.
fn find(drive: &mut Overlay<'_>) -> io::Result<Option<(u64, u64)>> {
    drive.narrow(0, u64::MAX);
    let listed = match table::read(drive) {
        Ok((_, partitions)) => partitions,
        // Without a table there may still be a file system.
        Err(TableError::None | TableError::Gpt(_)) => Vec::new(),
        Err(error) => return Err(io::Error::other(error)),
    };
    let listed = listed.iter().filter(|partition| matches!(partition.kind, Kind::Efi | Kind::Basic));
    let places = std::iter::once((0, u64::MAX)).chain(listed.map(|partition| (partition.start, partition.bytes)));
    for (start, bytes) in places {
        drive.narrow(start, bytes);
        let mut first = [0; 512];
        if drive.read_exact(&mut first).is_ok() && is_fat(&first, drive.seek(SeekFrom::End(0))?) {
            return Ok(Some((start, bytes)));
        }
    }
    Ok(None)
}

/// Whether a first sector is that of a FAT which lies within its partition. Strict: what follows it believes the rest.
fn is_fat(sector: &[u8; 512], partition_bytes: u64) -> bool {
    let number16 = |at: usize| u64::from(u16::from_le_bytes([sector[at], sector[at + 1]]));
    let number32 = |at: usize| number16(at) | number16(at + 2) << 16;
    let (sector_bytes, cluster) = (number16(11), u64::from(sector[13]));
    let (reserved, fats) = (number16(14), u64::from(sector[16]));
    let sectors = if number16(19) == 0 { number32(32) } else { number16(19) };
    let fat_sectors = if number16(22) == 0 { number32(36) } else { number16(22) };
    let before = reserved + fats * fat_sectors + (number16(17) * 32).div_ceil(sector_bytes.max(1));
    sector[510..] == [0x55, 0xaa]
        && matches!(sector_bytes, 512 | 1024 | 2048 | 4096)
        && cluster.is_power_of_two()
        && reserved > 0
        && matches!(fats, 1 | 2)
        && fat_sectors > 0
        && before < sectors
        && sectors * sector_bytes <= partition_bytes
}

#[cfg(test)]
mod tests {
    use std::io::Cursor;

    use fatfs::{FatType, FileSystem, FormatVolumeOptions, FsOptions};
    use proptest::prelude::*;

    use super::super::aligned::Aligned;
    use super::super::medium::Medium as _;
    use super::super::source::PIECE_BYTES;
    use super::super::testing::{Fake, Lie};
    use super::*;

    const DRIVE: u64 = 48 * 1024 * 1024;

    /// A FAT as a boot partition has it.
    fn fat(bytes: u64, kind: FatType) -> Vec<u8> {
        let mut memory = Cursor::new(vec![0; bytes as usize]);
        let cluster = if bytes < 16 << 20 { 512 } else { 1024 };
        let options = FormatVolumeOptions::new().fat_type(kind).bytes_per_cluster(cluster);
        fatfs::format_volume(&mut memory, options).expect("formats");
        memory.into_inner()
    }

    fn drive_with(start: u64, fat: &[u8], table: &[u8]) -> Fake {
        let mut drive = Fake::new(DRIVE, Lie::None);
        drive.write_at(0, table).expect("writes");
        drive.write_at(start, fat).expect("writes");
        drive
    }

    /// Puts files, makes the changes, and reads one back.
    fn put_and_read(drive: &mut Fake, start: u64, files: &[BootFile]) -> Result<Vec<u8>, BootFileError> {
        let head = Aligned::of(&drive.contents(PIECE_BYTES));
        let mut overlay = Overlay::new(drive, &head);
        put(&mut overlay, files)?;
        let (head, blocks) = overlay.into_changes();
        drive.write_at(0, &head).expect("writes");
        for (at, bytes) in blocks {
            drive.write_at(at, &bytes).expect("writes");
        }
        let all = drive.contents(DRIVE)[start as usize..].to_vec();
        let read = FileSystem::new(Cursor::new(all), FsOptions::new()).expect("a FAT");
        let mut bytes = Vec::new();
        read.root_dir().open_file(&files[0].path).expect("is there").read_to_end(&mut bytes).expect("reads");
        Ok(bytes)
    }

    fn claim(text: &str) -> Vec<BootFile> {
        vec![BootFile { path: "muster/enrol.txt".to_owned(), bytes: text.into() }]
    }

    #[test]
    fn a_file_comes_onto_each_kind_of_fat_and_replaces_an_older_one() {
        let table = crate::flash::gpt::image(DRIVE, PIECE_BYTES)[..4096].to_vec();
        for (kind, bytes) in [(FatType::Fat16, 3 << 20), (FatType::Fat16, 16 << 20), (FatType::Fat32, 46 << 20)] {
            let mut drive = drive_with(PIECE_BYTES, &fat(bytes, kind), &table);
            for text in ["name=edge-1\nclaim=one\n".repeat(300), "short".to_owned()] {
                let read = put_and_read(&mut drive, PIECE_BYTES, &claim(&text)).expect("puts");
                assert_eq!(read, text.as_bytes(), "{kind:?}");
            }
        }
        // Without a partition table.
        let mut drive = drive_with(0, &fat(16 << 20, FatType::Fat16), &[]);
        assert_eq!(put_and_read(&mut drive, 0, &claim("x")).expect("puts"), b"x");
    }

    #[test]
    fn where_there_is_no_fat_nothing_is_put() {
        let table = crate::flash::gpt::image(DRIVE, PIECE_BYTES)[..4096].to_vec();
        for mut drive in [drive_with(PIECE_BYTES, &[], &table), drive_with(0, &[], &[])] {
            let refused = put_and_read(&mut drive, 0, &claim("x")).expect_err("no FAT");
            let text = "the image has no boot partition with a FAT file system to put muster/enrol.txt on";
            assert_eq!(refused.to_string(), text);
        }
        let full = put_and_read(
            &mut drive_with(PIECE_BYTES, &fat(3 << 20, FatType::Fat16), &table),
            PIECE_BYTES,
            &claim(&"x".repeat(4 << 20)),
        );
        assert!(matches!(full, Err(BootFileError::Put { .. })), "{full:?}");
    }

    #[test]
    fn the_same_file_makes_the_same_bytes() {
        let made = || {
            let mut drive = drive_with(0, &fat(16 << 20, FatType::Fat16), &[]);
            put_and_read(&mut drive, 0, &claim("x")).expect("puts");
            drive.contents(16 << 20)
        };
        assert!(made() == made());
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn no_file_system_ends_the_program(changes in prop::collection::vec((prop_oneof![0_usize..512, 0_usize..80_000], any::<u8>()), 1..12)) {
            let mut bytes = fat(4 << 20, FatType::Fat16);
            changes.iter().for_each(|(at, byte)| bytes[*at] = *byte);
            let mut drive = drive_with(0, &bytes, &[]);
            let head = Aligned::of(&drive.contents(PIECE_BYTES));
            let _ = put(&mut Overlay::new(&mut drive, &head), &claim("x"));
        }
    }
}
