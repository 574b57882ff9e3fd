//! FAT file systems inside a file: made, read and changed. Files bear the first day that FAT knows, so that the
//! same files always give the same bytes.

mod mend;

pub use mend::{Checked, check};

use std::io::{self, Read, Write as _};

use fatfs::{Date, DateTime, FileSystem, FormatVolumeOptions, FsOptions, ReadWriteSeek, Time, TimeProvider};

/// What a label may have: as long as FAT takes it.
const LABEL_BYTES: usize = 11;
/// Far more than any file that is read from such a partition to be looked at.
const READ_MAX: u64 = 1 << 20;
/// More than a folder that FAT allows has room for.
const NAMES_MAX: usize = 65_536;

/// The first day that FAT knows. Firmware refuses to rename a file that has no valid date.
#[derive(Debug)]
struct FirstDay;

const FIRST_DATE: Date = Date { year: 1980, month: 1, day: 1 };

impl TimeProvider for FirstDay {
    fn get_current_date(&self) -> Date {
        FIRST_DATE
    }

    fn get_current_date_time(&self) -> DateTime {
        DateTime { date: FIRST_DATE, time: Time { hour: 0, min: 0, sec: 0, millis: 0 } }
    }
}

/// Makes an empty file system of 32-bit FAT on all of `disk`.
pub fn format(disk: &mut impl ReadWriteSeek, label: &str, id: u32) -> io::Result<()> {
    let mut padded = [b' '; LABEL_BYTES];
    for (place, byte) in padded.iter_mut().zip(label.bytes()) {
        *place = byte;
    }
    disk.rewind()?;
    let options = FormatVolumeOptions::new().fat_type(fatfs::FatType::Fat32).bytes_per_cluster(4096);
    fatfs::format_volume(&mut *disk, options.volume_label(padded).volume_id(id))?;
    disk.rewind()
}

/// Opens the file system on all of `disk`.
pub fn open<D: ReadWriteSeek>(mut disk: D) -> io::Result<FileSystem<D>> {
    disk.rewind()?;
    FileSystem::new(disk, FsOptions::new().time_provider(&FirstDay))
}

/// Opens the file system on all of `disk`, changes it, and leaves it as a checker likes it. Its folders are
/// looked through first: the library follows them without an end.
pub fn change<D: ReadWriteSeek>(
    disk: &mut D,
    change: impl FnOnce(&FileSystem<&mut D>) -> io::Result<()>,
) -> io::Result<()> {
    if check(disk)? == Checked::Narrow {
        return Err(io::Error::new(io::ErrorKind::Unsupported, "it is 12-bit FAT, which no disk of this kind has"));
    }
    let system = open(&mut *disk)?;
    change(&system)?;
    // So that the free space is known and written down.
    system.stats()?;
    system.unmount()?;
    mend::folders(disk)
}

/// Writes a file, and the folders above it, in place of one that may be there.
pub fn put<D: ReadWriteSeek>(system: &FileSystem<D>, path: &str, bytes: &[u8]) -> io::Result<()> {
    let root = system.root_dir();
    for (at, _) in path.match_indices('/') {
        root.create_dir(&path[..at])?;
    }
    let mut file = root.create_file(path)?;
    file.truncate()?;
    file.write_all(bytes)?;
    file.flush()
}

/// A file's bytes; none: there is no such file. One that is larger than any that people write is an error.
pub fn get<D: ReadWriteSeek>(system: &FileSystem<D>, path: &str) -> io::Result<Option<Vec<u8>>> {
    let mut file = match system.root_dir().open_file(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    let mut bytes = vec![];
    Read::by_ref(&mut file).take(READ_MAX + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > READ_MAX {
        return Err(io::Error::new(io::ErrorKind::FileTooLarge, format!("{path} is larger than {READ_MAX} bytes")));
    }
    Ok(Some(bytes))
}

/// Copies a file, however large, to another name.
pub fn copy<D: ReadWriteSeek>(system: &FileSystem<D>, from: &str, to: &str) -> io::Result<()> {
    let mut bytes = vec![];
    system.root_dir().open_file(from)?.read_to_end(&mut bytes)?;
    put(system, to, &bytes)
}

/// The names in a folder, in order; none: there is no such folder.
pub fn names<D: ReadWriteSeek>(system: &FileSystem<D>, path: &str) -> io::Result<Vec<String>> {
    let root = system.root_dir();
    let folder = match path {
        "" => root,
        path => match root.open_dir(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(vec![]),
            folder => folder?,
        },
    };
    let mut names: Vec<String> =
        folder.iter().take(NAMES_MAX + 1).map(|entry| Ok(entry?.file_name())).collect::<io::Result<Vec<String>>>()?;
    if names.len() > NAMES_MAX {
        let why = format!("the FAT file system is broken: a folder has more than {NAMES_MAX} names");
        return Err(io::Error::new(io::ErrorKind::InvalidData, why));
    }
    names.retain(|name| name != "." && name != "..");
    names.sort();
    Ok(names)
}

/// The bytes that are free.
pub fn free<D: ReadWriteSeek>(system: &FileSystem<D>) -> io::Result<u64> {
    let stats = system.stats()?;
    Ok(u64::from(stats.free_clusters()) * u64::from(stats.cluster_size()))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Where there is a checker of file systems, it finds nothing to mend.
    #[test]
    fn a_checker_finds_no_fault() {
        let file = tempfile::NamedTempFile::new().expect("a file");
        std::fs::write(file.path(), made().get_ref()).expect("written");
        let checker = ["fsck.vfat", "/usr/sbin/fsck.vfat"]
            .into_iter()
            .find_map(|program| std::process::Command::new(program).args(["-n", "-v"]).arg(file.path()).output().ok());
        let Some(told) = checker else {
            eprintln!("skipped: this machine has no fsck.vfat (package dosfstools)");
            return;
        };
        assert!(told.status.success(), "{}", String::from_utf8_lossy(&told.stdout));
    }

    /// The smallest that is 32-bit FAT has 65,525 clusters.
    const BYTES: usize = 300 << 20;

    fn made() -> io::Cursor<Vec<u8>> {
        let mut disk = io::Cursor::new(vec![0; BYTES]);
        format(&mut disk, "MUSTER", 0x1a2b_3c4d).expect("a file system");
        change(&mut disk, |system| {
            put(system, "loader/entries/muster-a+3.conf", b"title Muster\n")?;
            put(system, "muster/big", &vec![7; 3 << 20])?;
            copy(system, "muster/big", "muster/b/big")
        })
        .expect("written");
        disk
    }

    fn word(disk: &io::Cursor<Vec<u8>>, at: usize) -> usize {
        let bytes = &disk.get_ref()[at..at + 4];
        u32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]) as usize
    }

    /// Says in the first table what follows a cluster.
    fn follow(disk: &mut io::Cursor<Vec<u8>>, cluster: usize, next: u32) {
        let at = (word(disk, 14) & 0xffff) * 512 + cluster * 4;
        disk.get_mut()[at..at + 4].copy_from_slice(&next.to_le_bytes());
    }

    /// Fills a cluster with entries of a kind, all of which begin at one cluster.
    fn fill(disk: &mut io::Cursor<Vec<u8>>, cluster: usize, attributes: u8, first: u16) {
        let tables = (disk.get_ref()[16] as usize) * word(disk, 36);
        let at = ((word(disk, 14) & 0xffff) + tables) * 512 + (cluster - 2) * 4096;
        for entry in disk.get_mut()[at..at + 4096].as_chunks_mut::<32>().0 {
            *entry = [0; 32];
            entry[..11].copy_from_slice(b"A          ");
            entry[11] = attributes;
            entry[26..28].copy_from_slice(&first.to_le_bytes());
        }
    }

    #[test]
    fn a_root_that_loops_is_found_before_anything_hangs() {
        let mut disk = made();
        fill(&mut disk, 2, 0x20, 0);
        follow(&mut disk, 2, 2);
        let says = |told: io::Error, what: &str| assert!(told.to_string().contains(what), "{told}");
        says(check(&mut disk).expect_err("it loops"), "a folder does not end");
        let changed = change(&mut disk, |system| put(system, "x", b"x"));
        says(changed.expect_err("it loops"), "a folder does not end");
        let listed = names(&open(&mut disk).expect("opens"), "");
        says(listed.expect_err("it loops"), "more than 65536 names");
    }

    #[test]
    fn a_hidden_folder_that_loops_is_found_too() {
        let mut disk = made();
        fill(&mut disk, 2, 0x12, 4000);
        fill(&mut disk, 4000, 0x20, 0);
        follow(&mut disk, 4000, 4000);
        let told = check(&mut disk).expect_err("it loops");
        assert!(told.to_string().contains("a folder does not end"), "{told}");
    }

    #[test]
    fn folders_that_share_clusters_are_given_up() {
        let mut disk = made();
        assert_eq!(check(&mut disk).expect("it is whole"), Checked::Sound);
        // 256 folders of 500 clusters each, on a disk that has fewer than 77,000.
        for cluster in 4000..4499 {
            follow(&mut disk, cluster, u32::try_from(cluster).expect("small") + 1);
        }
        for (root, next) in [(2, 3000), (3000, 0x0fff_ffff)] {
            fill(&mut disk, root, 0x10, 4000);
            follow(&mut disk, root, next);
        }
        follow(&mut disk, 4499, 0x0fff_ffff);
        let told = check(&mut disk).expect_err("they are one");
        assert!(told.to_string().contains("more clusters than there are"), "{told}");
    }

    #[test]
    fn files_come_back_and_the_bytes_are_the_same_twice() {
        let mut disk = made();
        assert!(disk.get_ref() == made().get_ref());
        let system = open(&mut disk).expect("opens");
        assert_eq!(system.volume_label(), "MUSTER");
        assert_eq!(names(&system, "loader/entries").expect("names"), ["muster-a+3.conf"]);
        assert_eq!(get(&system, "muster/none").expect("read"), None);
        assert_eq!(get(&system, "loader/entries/muster-a+3.conf").expect("read"), Some(b"title Muster\n".to_vec()));
        assert!(get(&system, "muster/big").is_err(), "too large to be looked at");
        let folder = system.root_dir().open_dir("loader/entries").expect("a folder");
        let entry = folder.iter().flatten().find(|entry| entry.is_file()).expect("a file");
        let dates = [entry.modified().date, entry.created().date, entry.accessed()];
        assert!(
            dates.iter().all(|date| (date.month, date.day) == (1, 1)),
            "the firmware renames no file without a date"
        );
        put(&system, "loader/entries/muster-a+3.conf", b"new").expect("written");
        assert_eq!(get(&system, "loader/entries/muster-a+3.conf").expect("read"), Some(b"new".to_vec()));
        assert!(free(&system).expect("a number") > 200 << 20);
    }
}
