//! What an image holds, as far as it matters for getting the agent into it.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::path::Path;

use super::ext4::{self, Ext4Error, Root};
use crate::disk::table::{self, Kind, Partition, Scheme, TableError};
use crate::disk::{Window, fat};

/// A file system, told by its first bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum System {
    /// FAT, of any width.
    Fat,
    /// ext2, ext3 or ext4.
    Ext,
    /// Another one, by name.
    Other(&'static str),
    /// Nothing that is known here.
    Unknown,
}

/// What cloud-init may read.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Boot {
    /// Its label.
    pub label: String,
    /// The names in its root.
    pub names: Vec<String>,
    /// `user-data`, as it is.
    pub user_data: Option<String>,
    /// `meta-data`, as it is.
    pub meta_data: Option<String>,
    /// Free, in bytes.
    pub free: u64,
}

/// A partition and what is in it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    /// The partition.
    pub partition: Partition,
    /// Its file system.
    pub system: System,
    /// Where it is FAT: what is on it.
    pub boot: Option<Boot>,
    /// Where it is the root of a system: what that is.
    pub root: Option<Root>,
}

/// What an image holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Look {
    /// Its table.
    pub scheme: Scheme,
    /// Its partitions.
    pub found: Vec<Found>,
}

/// Why an image cannot be looked at.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs)]
pub enum LookError {
    #[error("cannot open {0}")]
    Open(String, #[source] io::Error),
    #[error(transparent)]
    Table(#[from] TableError),
    #[error("cannot read partition {0}")]
    Partition(u32, #[source] io::Error),
    #[error(transparent)]
    Ext4(#[from] Ext4Error),
}

/// Enough to tell every file system that has a name here.
const HEAD_BYTES: usize = 0x1_1000;

/// Looks into a raw image.
pub fn look(image: &Path) -> Result<Look, LookError> {
    let open = |source| LookError::Open(image.display().to_string(), source);
    // Written to in no way; the table's reader wants to be able to.
    let mut file = File::options().read(true).write(true).open(image).map_err(open)?;
    let (scheme, partitions) = table::read(&mut file)?;
    let mut found = vec![];
    for partition in partitions {
        let failed = |source| LookError::Partition(partition.number, source);
        let system = probe(&mut file, &partition).map_err(failed)?;
        let boot = match system {
            System::Fat => boot(&file, &partition).map_err(failed)?,
            _ => None,
        };
        let root = match system {
            System::Ext if partition.kind != Kind::Efi => ext4::root(image, &partition)?,
            _ => None,
        };
        found.push(Found { partition, system, boot, root });
    }
    Ok(Look { scheme, found })
}

fn probe(file: &mut File, partition: &Partition) -> io::Result<System> {
    let mut head = vec![];
    file.seek(SeekFrom::Start(partition.start))?;
    let most = partition.bytes.min(HEAD_BYTES as u64);
    file.take(most).read_to_end(&mut head)?;
    Ok(tell(&head))
}

/// Tells a file system by its first bytes.
pub fn tell(head: &[u8]) -> System {
    let at = |place: usize, mark: &[u8]| head.get(place..place + mark.len()) == Some(mark);
    let others: [(usize, &[u8], &'static str); 7] = [
        (0, b"LUKS\xba\xbe", "LUKS (encrypted)"),
        (0, b"hsqs", "squashfs (read-only)"),
        (0, b"XFSB", "xfs"),
        (1024, &[0xe2, 0xe1, 0xf5, 0xe0], "erofs (read-only)"),
        (1024, &[0x10, 0x20, 0xf5, 0xf2], "f2fs"),
        (0x1_0040, b"_BHRfS_M", "btrfs"),
        (0x218, b"LVM2 001", "LVM"),
    ];
    if let Some((_, _, name)) = others.iter().find(|(place, mark, _)| at(*place, mark)) {
        return System::Other(name);
    }
    if at(1024 + 56, &[0x53, 0xef]) {
        return System::Ext;
    }
    if at(510, &[0x55, 0xaa]) && (at(82, b"FAT32") || at(54, b"FAT16") || at(54, b"FAT12")) {
        return System::Fat;
    }
    System::Unknown
}

/// A boot partition's contents; none: it is no FAT that can be changed here.
fn boot(file: &File, partition: &Partition) -> io::Result<Option<Boot>> {
    let mut window = Window::new(file, partition.start, partition.bytes)?;
    if fat::open(&mut window).is_err() || fat::check(&mut window)? == fat::Checked::Narrow {
        return Ok(None);
    }
    let system = fat::open(window)?;
    let text = |name: &str| -> io::Result<Option<String>> {
        Ok(fat::get(&system, name)?.map(|bytes| String::from_utf8_lossy(&bytes).into_owned()))
    };
    let names = fat::names(&system, "")?;
    let label = system.read_volume_label_from_root_dir()?.unwrap_or_else(|| system.volume_label());
    let (user_data, meta_data) = (text("user-data")?, text("meta-data")?);
    let free = fat::free(&system)?;
    Ok(Some(Boot { label: super::plain(label.trim()), names, user_data, meta_data, free }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn file_systems_are_told_by_their_marks() {
        let check = |place: usize, mark: &[u8], expected: System| {
            let mut head = vec![0; HEAD_BYTES];
            head[place..place + mark.len()].copy_from_slice(mark);
            assert_eq!(tell(&head), expected);
        };
        check(0, b"LUKS\xba\xbe", System::Other("LUKS (encrypted)"));
        check(0x1_0040, b"_BHRfS_M", System::Other("btrfs"));
        check(0, b"XFSB", System::Other("xfs"));
        check(1080, &[0x53, 0xef], System::Ext);
        check(0, b"nothing", System::Unknown);
        assert_eq!(tell(b"short"), System::Unknown);
    }
}
