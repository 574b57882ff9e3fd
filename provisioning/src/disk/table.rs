//! Tables of partitions: GPT, written and read; the old table of four, read only.

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::io::{self, Read, Seek, SeekFrom, Write};

use gpt::partition::Partition as Entry;
use gpt::partition_types::{BASIC, EFI, LINUX_FS, Type};
use uuid::Uuid;

use super::SECTOR;

/// What the table itself takes at the disk's end: the copy of 128 entries, and of the header.
pub const END_SECTORS: u64 = 33;
/// Where the first partition may begin: at a whole MiB, which suits every kind of flash.
pub const FIRST_SECTOR: u64 = 2048;

/// What a partition is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// What the firmware reads: a FAT file system.
    Efi,
    /// A file system of Linux.
    Linux,
    /// A file system that any computer reads.
    Basic,
    /// Anything else.
    Other,
}

/// A partition that is to be.
#[derive(Debug, Clone)]
pub struct Planned {
    /// Its name in the table.
    pub name: &'static str,
    /// What it is for.
    pub kind: Kind,
    /// Its first sector.
    pub first: u64,
    /// How many it has.
    pub sectors: u64,
    /// Its own id.
    pub id: Uuid,
}

/// A partition that is there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Partition {
    /// Its number, from 1 on.
    pub number: u32,
    /// What it is for.
    pub kind: Kind,
    /// Its name; the old table has none.
    pub name: String,
    /// Where it begins, in bytes.
    pub start: u64,
    /// Its length in bytes.
    pub bytes: u64,
}

/// Which table a disk has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scheme {
    /// GUID partition table.
    Gpt,
    /// Four entries in the first sector.
    Mbr,
}

/// Why a table cannot be read or written.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs)]
pub enum TableError {
    #[error("cannot read the disk's first sectors")]
    Read(#[source] io::Error),
    #[error("this is no disk image: it has neither a partition table nor the mark of one (55 AA)")]
    None,
    #[error("the GUID partition table is broken: {0}")]
    Gpt(String),
    #[error("partition {number} ends at {end}, and the disk at {disk}: the image is cut off")]
    Beyond { number: u32, end: u64, disk: u64 },
    #[error("cannot write the partition table")]
    Write(#[source] io::Error),
}

/// Writes a table onto an empty disk whose length says where it ends.
pub fn write(
    disk: &mut (impl Read + Write + Seek + Debug),
    sectors: u64,
    id: Uuid,
    planned: &[Planned],
) -> Result<(), TableError> {
    let broken = |error: &dyn std::fmt::Display| TableError::Gpt(error.to_string());
    let protective = u32::try_from(sectors - 1).unwrap_or(u32::MAX);
    gpt::mbr::ProtectiveMBR::with_lb_size(protective).overwrite_lba0(disk).map_err(|error| broken(&error))?;
    let mut table =
        gpt::GptConfig::new().writable(true).create_from_device(disk, Some(id)).map_err(|error| broken(&error))?;
    let entries: BTreeMap<u32, Entry> = planned.iter().zip(1..).map(|(part, number)| (number, entry(part))).collect();
    table.update_partitions(entries).map_err(|error| broken(&error))?;
    table.write().map_err(|error| broken(&error))?.flush().map_err(TableError::Write)
}

fn entry(part: &Planned) -> Entry {
    Entry {
        part_type_guid: match part.kind {
            Kind::Efi => EFI,
            Kind::Linux => LINUX_FS,
            Kind::Basic | Kind::Other => BASIC,
        },
        part_guid: part.id,
        first_lba: part.first,
        last_lba: part.first + part.sectors - 1,
        flags: 0,
        name: part.name.to_owned(),
    }
}

/// Reads whichever table there is. Every partition lies inside the disk.
pub fn read(disk: &mut (impl Read + Write + Seek + Debug)) -> Result<(Scheme, Vec<Partition>), TableError> {
    let length = disk.seek(SeekFrom::End(0)).map_err(TableError::Read)?;
    let mut first = [0; SECTOR as usize];
    disk.seek(SeekFrom::Start(0)).and_then(|_| disk.read_exact(&mut first)).map_err(TableError::Read)?;
    if first[510..] != [0x55, 0xaa] {
        return Err(TableError::None);
    }
    let old = old_entries(&first);
    let (scheme, partitions) = if old.iter().any(|(kind, ..)| *kind == PROTECTIVE) {
        (Scheme::Gpt, gpt_entries(disk)?)
    } else {
        (Scheme::Mbr, old.iter().map(old_partition).collect())
    };
    for Partition { number, start, bytes, .. } in &partitions {
        let end = start.saturating_add(*bytes);
        if end > length {
            return Err(TableError::Beyond { number: *number, end, disk: length });
        }
    }
    Ok((scheme, partitions))
}

/// The one entry of a disk that has the newer table.
const PROTECTIVE: u8 = 0xee;

/// Kind, number, first sector, sectors.
type OldEntry = (u8, u32, u32, u32);

fn old_entries(first: &[u8; SECTOR as usize]) -> Vec<OldEntry> {
    let entries = first[446..510].as_chunks::<16>().0.iter().zip(1..);
    let read =
        |entry: &[u8; 16], at: usize| entry[at..].first_chunk::<4>().map_or(0, |bytes| u32::from_le_bytes(*bytes));
    let all = entries.map(|(entry, number)| (entry[4], number, read(entry, 8), read(entry, 12)));
    all.filter(|(kind, _, _, sectors)| *kind != 0 && *sectors != 0).collect()
}

fn old_partition(&(kind, number, first, sectors): &OldEntry) -> Partition {
    let kind = match kind {
        0xef => Kind::Efi,
        0x83 => Kind::Linux,
        0x01 | 0x04 | 0x06 | 0x0b | 0x0c | 0x0e => Kind::Basic,
        _ => Kind::Other,
    };
    let (start, bytes) = (u64::from(first) * SECTOR, u64::from(sectors) * SECTOR);
    Partition { number, kind, name: String::new(), start, bytes }
}

fn gpt_entries(disk: &mut (impl Read + Write + Seek + Debug)) -> Result<Vec<Partition>, TableError> {
    let table = gpt::GptConfig::new().open_from_device(disk).map_err(|error| TableError::Gpt(error.to_string()))?;
    let used = table.partitions().iter().filter(|(_, entry)| entry.is_used());
    let found = used.map(|(number, entry)| {
        let sectors = entry.sectors_len().map_err(|error| TableError::Gpt(error.to_string()))?;
        let bytes = |sectors: u64| sectors.checked_mul(SECTOR).ok_or_else(|| TableError::Gpt("too long".to_owned()));
        let (start, bytes) = (bytes(entry.first_lba)?, bytes(sectors)?);
        Ok(Partition { number: *number, kind: kind(&entry.part_type_guid), name: entry.name.clone(), start, bytes })
    });
    found.collect()
}

/// The roots of systems have ids of their own, one for each processor.
const LINUX_ROOTS: [&str; 3] = [
    "B921B045-1DF0-41C3-AF44-4C6F280D3FAE",
    "4F68BCE3-E8CD-4DB1-96E7-FBCAF984B709",
    "69DAD710-2CE4-4E3C-B16C-21A1D49ABED3",
];

fn kind(found: &Type) -> Kind {
    if *found == EFI {
        Kind::Efi
    } else if *found == LINUX_FS || LINUX_ROOTS.iter().any(|root| found.guid.to_string().eq_ignore_ascii_case(root)) {
        Kind::Linux
    } else if *found == BASIC {
        Kind::Basic
    } else {
        Kind::Other
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn planned(name: &'static str, kind: Kind, first: u64, sectors: u64) -> Planned {
        Planned { name, kind, first, sectors, id: Uuid::from_u128(first.into()) }
    }

    fn made(sectors: u64) -> Vec<u8> {
        let mut disk = io::Cursor::new(vec![0; (sectors * SECTOR) as usize]);
        let parts = [planned("esp", Kind::Efi, 2048, 4096), planned("data", Kind::Linux, 6144, 2048)];
        write(&mut disk, sectors, Uuid::from_u128(7), &parts).expect("a table");
        disk.into_inner()
    }

    #[test]
    fn what_was_written_is_read_and_the_same_twice() {
        let disk = made(10_240);
        assert!(disk == made(10_240));
        let (scheme, found) = read(&mut io::Cursor::new(disk)).expect("a table");
        let found: Vec<_> = found.iter().map(|p| (p.number, p.kind, p.name.as_str(), p.start, p.bytes)).collect();
        let mib = 1 << 20;
        assert_eq!(scheme, Scheme::Gpt);
        assert_eq!(found, [(1, Kind::Efi, "esp", mib, 2 * mib), (2, Kind::Linux, "data", 3 * mib, mib)]);
    }

    #[test]
    fn the_copy_at_the_end_serves_when_the_first_is_torn() {
        let mut disk = made(10_240);
        disk[512..1024].fill(0xff);
        assert_eq!(read(&mut io::Cursor::new(disk)).expect("a table").1.len(), 2);
    }

    #[test]
    fn the_old_table_is_read() {
        let mut disk = vec![0; 1 << 20];
        disk[510..512].copy_from_slice(&[0x55, 0xaa]);
        for (at, kind, first, sectors) in [(446, 0x0c, 64u32, 128u32), (462, 0x83, 192, 1024)] {
            disk[at + 4] = kind;
            disk[at + 8..at + 12].copy_from_slice(&first.to_le_bytes());
            disk[at + 12..at + 16].copy_from_slice(&sectors.to_le_bytes());
        }
        let (scheme, found) = read(&mut io::Cursor::new(disk.clone())).expect("a table");
        assert_eq!((scheme, found[0].kind, found[1].start), (Scheme::Mbr, Kind::Basic, 192 * SECTOR));
        disk.truncate(300 * SECTOR as usize);
        assert!(matches!(read(&mut io::Cursor::new(disk)), Err(TableError::Beyond { number: 2, .. })));
    }

    proptest::proptest! {
        /// Whatever stands in a table: partitions inside the disk, or an error.
        #[test]
        fn a_changed_table_ends_nothing(changes in proptest::collection::vec((0usize..2048, 0u8..), 1..8), old: bool) {
            let mut disk = made(6200 + 34 + 2048);
            if old {
                disk[450] = 0x83;
            }
            for (at, byte) in changes {
                disk[at] = byte;
            }
            let length = disk.len() as u64;
            for partition in read(&mut io::Cursor::new(disk)).map(|(_, found)| found).unwrap_or_default() {
                proptest::prop_assert!(partition.start + partition.bytes <= length);
            }
        }
    }

    #[test]
    fn what_is_no_disk_is_said() {
        assert!(matches!(read(&mut io::Cursor::new(vec![0; 4096])), Err(TableError::None)));
        assert!(matches!(read(&mut io::Cursor::new(vec![0; 40])), Err(TableError::Read(_))));
    }
}
