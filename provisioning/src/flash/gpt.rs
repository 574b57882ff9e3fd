//! The second copy of a partition table, moved to the real end of a drive that is larger than its image.
//!
//! Nothing else about the table changes, least of all the numbers of its partitions, which the `gpt` crate would
//! count anew. Protective MBR and first copy lie in the drive's head, which is still in memory.

use crc32fast::hash as crc;

/// Entries are read up to this size; 16 KiB is usual.
const ENTRIES_BYTES_MAX: u64 = 512 * 1024;
const HEADER_BYTES: usize = 92;

/// A table that is not as it should be.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum GptError {
    /// The image was made for drives with another sector.
    #[error("the image has its partition table for sectors of {image} bytes, and this drive has sectors of {drive}")]
    Sector {
        /// The image's.
        image: u64,
        /// The drive's.
        drive: u64,
    },
    /// The image's own fault.
    #[error("the image's partition table is damaged: {0}")]
    Damaged(&'static str),
    /// Partitions beyond the end.
    #[error("the image's partitions reach beyond the end of this drive")]
    Beyond,
}

/// The second copy of a table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Backup {
    /// Where it belongs, in bytes.
    pub at: u64,
    /// Entries and header.
    pub bytes: Vec<u8>,
}

/// Points the table in a drive's head to the end of a drive of this size, and gives what belongs there.
/// Nothing, if the head has no such table.
pub fn fit(head: &mut [u8], sector: u64, drive_bytes: u64) -> Result<Option<Backup>, GptError> {
    let Some(image_sector) = sector_of(head) else { return Ok(None) };
    if image_sector != sector {
        return Err(GptError::Sector { image: image_sector, drive: sector });
    }
    let size = usize::try_from(sector).map_err(|_| GptError::Damaged("its sector"))?;
    let mut header = head[size..2 * size].to_vec();
    let header_bytes = usize::try_from(number32(&header, 12)).unwrap_or(usize::MAX);
    if !(HEADER_BYTES..=size).contains(&header_bytes) {
        return Err(GptError::Damaged("its header has an impossible length"));
    }
    if checksum_of(&header, header_bytes) != number32(&header, 16) {
        return Err(GptError::Damaged("its header's checksum does not match"));
    }
    let entries_bytes = u64::from(number32(&header, 80)) * u64::from(number32(&header, 84));
    let start = number64(&header, 72).checked_mul(sector).filter(|start| *start >= 2 * sector);
    let span = start.zip(start.and_then(|start| start.checked_add(entries_bytes)));
    let span = span.and_then(|(start, end)| Some(usize::try_from(start).ok()?..usize::try_from(end).ok()?));
    let entries = span.filter(|_| entries_bytes <= ENTRIES_BYTES_MAX).and_then(|span| head.get(span));
    let entries = entries.ok_or(GptError::Damaged("its entries are not where the header says"))?.to_vec();
    if crc(&entries) != number32(&header, 88) {
        return Err(GptError::Damaged("its entries' checksum does not match"));
    }
    let last = (drive_bytes / sector).checked_sub(1).ok_or(GptError::Beyond)?;
    let entries_sectors = entries_bytes.div_ceil(sector);
    let backup_entries = last.checked_sub(entries_sectors).ok_or(GptError::Beyond)?;
    let last_usable = backup_entries.checked_sub(1).ok_or(GptError::Beyond)?;
    if last_of(&entries, number32(&header, 84)) > last_usable || number64(&header, 40) > last_usable {
        return Err(GptError::Beyond);
    }
    put64(&mut header, 32, last);
    put64(&mut header, 48, last_usable);
    seal(&mut header, header_bytes);
    head[size..2 * size].copy_from_slice(&header);
    protect(head, last);

    let mut second = header;
    put64(&mut second, 24, last);
    put64(&mut second, 32, 1);
    put64(&mut second, 72, backup_entries);
    seal(&mut second, header_bytes);
    let mut bytes = entries;
    bytes.resize(usize::try_from(entries_sectors * sector).unwrap_or(0), 0);
    bytes.extend_from_slice(&second);
    Ok(Some(Backup { at: backup_entries * sector, bytes }))
}

/// The sector for which the head has a table.
pub fn sector_of(head: &[u8]) -> Option<u64> {
    let signed = |sector: &usize| head.get(*sector..2 * sector).is_some_and(|header| header.starts_with(b"EFI PART"));
    [512_usize, 4096].iter().find(|sector| signed(sector)).map(|sector| *sector as u64)
}

/// The last sector that any partition has.
fn last_of(entries: &[u8], step: u32) -> u64 {
    let step = usize::try_from(step).unwrap_or(0).max(128);
    entries
        .chunks_exact(step)
        .filter(|entry| entry[..16] != [0; 16])
        .map(|entry| number64(entry, 40))
        .max()
        .unwrap_or(0)
}

/// The protective entry of the MBR covers the whole drive.
fn protect(head: &mut [u8], last: u64) {
    for at in [446, 462, 478, 494] {
        if head[at + 4] == 0xee {
            let sectors = u32::try_from(last).unwrap_or(u32::MAX);
            head[at + 12..at + 16].copy_from_slice(&sectors.to_le_bytes());
        }
    }
}

fn seal(header: &mut [u8], header_bytes: usize) {
    let sum = checksum_of(header, header_bytes);
    header[16..20].copy_from_slice(&sum.to_le_bytes());
}

/// The checksum of a header is made with zeros in its place.
fn checksum_of(header: &[u8], header_bytes: usize) -> u32 {
    let mut copy = header[..header_bytes].to_vec();
    copy[16..20].fill(0);
    crc(&copy)
}

fn number32(bytes: &[u8], at: usize) -> u32 {
    bytes.get(at..at + 4).and_then(|field| field.try_into().ok()).map_or(0, u32::from_le_bytes)
}

fn number64(bytes: &[u8], at: usize) -> u64 {
    bytes.get(at..at + 8).and_then(|field| field.try_into().ok()).map_or(0, u64::from_le_bytes)
}

fn put64(bytes: &mut [u8], at: usize, number: u64) {
    bytes[at..at + 8].copy_from_slice(&number.to_le_bytes());
}

/// An image with one EFI system partition, as tests need it.
#[cfg(test)]
pub(crate) fn image(bytes: u64, partition_start: u64) -> Vec<u8> {
    use std::collections::BTreeMap;

    let mut image = std::io::Cursor::new(vec![0; usize::try_from(bytes).expect("small")]);
    let sectors = u32::try_from(bytes / 512 - 1).expect("small");
    gpt::mbr::ProtectiveMBR::with_lb_size(sectors).overwrite_lba0(&mut image).expect("writes");
    let config = gpt::GptConfig::new().writable(true).logical_block_size(gpt::disk::LogicalBlockSize::Lb512);
    let mut disk = config.create_from_device(image, Some(gpt_guid(1))).expect("makes");
    let esp = gpt::partition::Partition {
        part_type_guid: gpt::partition_types::EFI,
        part_guid: gpt_guid(2),
        first_lba: partition_start / 512,
        last_lba: bytes / 512 - 64,
        flags: 0,
        name: "ESP".to_owned(),
    };
    // Number 3: numbers must not change.
    disk.update_partitions(BTreeMap::from([(3, esp)])).expect("takes");
    let mut bytes = disk.write().expect("writes").into_inner();
    // The crate counts anew; put the entry where its number says.
    let entry = bytes[1024..1152].to_vec();
    bytes[1024..1152].fill(0);
    bytes[1024 + 2 * 128..1024 + 3 * 128].copy_from_slice(&entry);
    let count = usize::try_from(number32(&bytes[512..1024], 80)).expect("small");
    let sum = crc(&bytes[1024..1024 + count * 128]);
    bytes[512 + 88..512 + 92].copy_from_slice(&sum.to_le_bytes());
    seal(&mut bytes[512..1024], HEADER_BYTES);
    bytes
}

#[cfg(test)]
fn gpt_guid(number: u8) -> uuid::Uuid {
    uuid::Uuid::from_bytes([number; 16])
}

#[cfg(test)]
mod tests {
    use std::io::Cursor;

    use proptest::prelude::*;

    use super::*;

    const IMAGE: u64 = 8 * 1024 * 1024;

    /// A drive of another size with the image and what `fit` made of it.
    fn fitted(drive: u64) -> Vec<u8> {
        let mut bytes = image(IMAGE, 1024 * 1024);
        bytes.resize(usize::try_from(drive).expect("small"), 0);
        let backup = fit(&mut bytes[..1024 * 1024], 512, drive).expect("fits").expect("has a table");
        let at = usize::try_from(backup.at).expect("small");
        assert_eq!(at + backup.bytes.len(), bytes.len());
        bytes[at..].copy_from_slice(&backup.bytes);
        bytes
    }

    #[test]
    fn another_reader_finds_both_copies_right_and_the_partitions_as_they_were() {
        for drive in [IMAGE, 2 * IMAGE, 2 * IMAGE + 512 * 77] {
            let disk = gpt::GptConfig::new().only_valid_headers(true).open_from_device(Cursor::new(fitted(drive)));
            let disk = disk.expect("both headers are right");
            assert_eq!(disk.primary_header().expect("first").backup_lba, drive / 512 - 1);
            assert_eq!(disk.primary_header().expect("first").last_usable, drive / 512 - 34);
            assert_eq!(disk.backup_header().expect("second").current_lba, drive / 512 - 1);
            let numbers: Vec<u32> =
                disk.partitions().iter().filter(|(_, part)| part.is_used()).map(|(number, _)| *number).collect();
            assert_eq!(numbers, [3]);
        }
    }

    #[test]
    fn what_does_not_fit_is_refused_and_what_is_no_table_is_left_alone() {
        let whole = image(IMAGE, 1024 * 1024);
        let mut head = whole[..1024 * 1024].to_vec();
        assert_eq!(fit(&mut head.clone(), 4096, IMAGE), Err(GptError::Sector { image: 512, drive: 4096 }));
        assert_eq!(fit(&mut head.clone(), 512, IMAGE - 512 * 64), Err(GptError::Beyond));
        assert_eq!(fit(&mut head.clone(), 512, 512), Err(GptError::Beyond));
        let mut none = vec![0; 1024 * 1024];
        assert_eq!(fit(&mut none, 512, IMAGE), Ok(None));
        assert_eq!(fit(&mut [0; 20], 512, IMAGE), Ok(None));
        head[600] ^= 1;
        assert!(matches!(fit(&mut head, 512, IMAGE), Err(GptError::Damaged(_))));
    }

    proptest! {
        #[test]
        fn no_head_ends_the_program(changes in prop::collection::vec((0_usize..2048, any::<u8>()), 1..20), length in 0_usize..40_000) {
            let mut head = image(IMAGE, 1024 * 1024)[..40_000].to_vec();
            changes.iter().for_each(|(at, byte)| head[*at] = *byte);
            head.truncate(length);
            let _ = fit(&mut head, 512, IMAGE);
        }
    }
}
