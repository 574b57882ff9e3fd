//! Folders as FAT wants them. `fatfs` gives a new folder's first two entries, `.` and `..`, long names, which a
//! file system checker takes for damage; here they become what every other program writes.

use std::io::{self, Read, Seek, SeekFrom, Write};

const ENTRY: usize = 32;
/// The attributes of a piece of a long name, and of a folder, which may be hidden as well, but no label.
const LONG: u8 = 0x0f;
const FOLDER: u8 = 0x10;
const KINDS: u8 = 0x18;
const DELETED: u8 = 0xe5;
/// Deeper than anybody nests folders on such a partition, and more than anybody has there.
const DEPTH_MAX: usize = 16;
const FOLDERS_MAX: usize = 100_000;
/// A folder that FAT allows has at most 2 MiB.
const FOLDER_BYTES_MAX: usize = 2 << 20;

/// Where things lie, from the first sector.
struct Geometry {
    fat: u64,
    data: u64,
    cluster: u64,
    /// How many clusters there are: no more can be read, each being one folder's.
    clusters: u64,
    /// The bits of an entry of the table.
    wide: bool,
    /// The root's first cluster, or its place and length where it is not made of clusters.
    root: Root,
}

enum Root {
    Cluster(u32),
    Fixed(u64, usize),
}

/// What a look through a file system found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Checked {
    /// Its folders end.
    Sound,
    /// It is 12-bit FAT, which is neither read nor changed here.
    Narrow,
}

/// Follows every folder of the file system on all of `disk` to its end. One that has none is an error.
pub fn check(disk: &mut (impl Read + Seek)) -> io::Result<Checked> {
    let Some(geometry) = geometry(disk)? else { return Ok(Checked::Narrow) };
    walk(disk, &geometry, |_, _, _| Ok(()))?;
    Ok(Checked::Sound)
}

/// Mends every folder of the file system on all of `disk`.
pub fn folders(disk: &mut (impl Read + Write + Seek)) -> io::Result<()> {
    let geometry = geometry(disk)?.ok_or_else(|| broken("it is 12-bit FAT, which no disk of this kind has"))?;
    walk(disk, &geometry, |disk, first, entries| {
        if let Some(mended) = mended(entries, &geometry.root) {
            disk.seek(SeekFrom::Start(geometry.place(first)?))?;
            disk.write_all(&mended)?;
        }
        Ok(())
    })?;
    disk.flush()
}

/// Shows every folder below the root: its first cluster, and all of it.
fn walk<D: Read + Seek>(
    disk: &mut D,
    geometry: &Geometry,
    mut visit: impl FnMut(&mut D, u32, &[u8]) -> io::Result<()>,
) -> io::Result<()> {
    let mut left = geometry.clusters;
    let mut open: Vec<(u32, usize)> = match geometry.root {
        Root::Cluster(first) => below(&read(disk, geometry, first, &mut left)?, 1),
        Root::Fixed(start, bytes) => {
            let mut root = vec![0; bytes];
            disk.seek(SeekFrom::Start(start))?;
            disk.read_exact(&mut root)?;
            below(&root, 1)
        }
    };
    let mut seen = 0;
    while let Some((first, depth)) = open.pop() {
        seen += 1;
        if depth > DEPTH_MAX || seen + open.len() > FOLDERS_MAX {
            return Err(broken("its folders lead in a circle"));
        }
        let entries = read(disk, geometry, first, &mut left)?;
        visit(disk, first, &entries)?;
        open.extend(below(&entries, depth + 1));
    }
    Ok(())
}

/// The first four entries anew, if they are the library's. A folder in the root says 0 of what is above it.
fn mended(entries: &[u8], root: &Root) -> Option<[u8; 4 * ENTRY]> {
    let first: &[u8; 4 * ENTRY] = entries.first_chunk()?;
    let [long_dot, dot, long_dots, dots] = first.as_chunks::<ENTRY>().0 else { return None };
    let is_long = |entry: &[u8; ENTRY]| entry[11] == LONG;
    if !(is_long(long_dot) && is_long(long_dots) && dot.starts_with(b".          ") && dots.starts_with(b"..         "))
    {
        return None;
    }
    let mut mended = *first;
    mended[..ENTRY].copy_from_slice(dot);
    mended[ENTRY..2 * ENTRY].copy_from_slice(dots);
    if matches!(root, Root::Cluster(root) if *root == cluster(dots)) {
        mended[ENTRY + 20..ENTRY + 22].fill(0);
        mended[ENTRY + 26..ENTRY + 28].fill(0);
    }
    for entry in mended[2 * ENTRY..].as_chunks_mut::<ENTRY>().0 {
        *entry = [0; ENTRY];
        entry[0] = DELETED;
    }
    Some(mended)
}

/// The first clusters of the folders that are in a folder.
fn below(entries: &[u8], depth: usize) -> Vec<(u32, usize)> {
    let all = entries.as_chunks::<ENTRY>().0.iter().take_while(|entry| entry[0] != 0);
    let folders = all.filter(|entry| entry[0] != DELETED && entry[0] != b'.' && entry[11] & KINDS == FOLDER);
    folders.map(cluster).filter(|first| *first >= 2).map(|first| (first, depth)).collect()
}

/// The first cluster of what an entry is of.
fn cluster(entry: &[u8; ENTRY]) -> u32 {
    u32::from_le_bytes([entry[26], entry[27], entry[20], entry[21]])
}

/// All of a folder. `left` clusters can still be somebody's.
fn read(disk: &mut (impl Read + Seek), geometry: &Geometry, first: u32, left: &mut u64) -> io::Result<Vec<u8>> {
    let (mut all, mut at) = (vec![], first);
    loop {
        let start = all.len();
        let length = usize::try_from(geometry.cluster).map_err(io::Error::other)?;
        if start + length > FOLDER_BYTES_MAX {
            return Err(broken("a folder does not end"));
        }
        *left = left.checked_sub(1).ok_or_else(|| broken("its folders have more clusters than there are"))?;
        all.resize(start + length, 0);
        disk.seek(SeekFrom::Start(geometry.place(at)?))?;
        disk.read_exact(&mut all[start..])?;
        let (width, end) = if geometry.wide { (4, 0x0fff_fff8) } else { (2, 0xfff8) };
        let mut next = [0; 4];
        disk.seek(SeekFrom::Start(geometry.fat + u64::from(at) * width as u64))?;
        disk.read_exact(&mut next[..width])?;
        at = u32::from_le_bytes(next) & 0x0fff_ffff;
        if at >= end || at < 2 {
            return Ok(all);
        }
    }
}

impl Geometry {
    fn place(&self, cluster: u32) -> io::Result<u64> {
        let number = u64::from(cluster).checked_sub(2).ok_or_else(|| broken("a folder has no place"))?;
        Ok(self.data + number * self.cluster)
    }
}

/// Of the file system on all of `disk`; none: it is 12-bit FAT.
fn geometry(disk: &mut (impl Read + Seek)) -> io::Result<Option<Geometry>> {
    let mut first = [0; 512];
    disk.rewind()?;
    disk.read_exact(&mut first)?;
    let short = |at: usize| u64::from(u16::from_le_bytes([first[at], first[at + 1]]));
    let long = |at: usize| short(at) | short(at + 2) << 16;
    let (sector, per_cluster, reserved) = (short(11), u64::from(first[13]), short(14));
    let or = |narrow: u64, wide: u64| if narrow == 0 { wide } else { narrow };
    let (fats, root_entries) = (u64::from(first[16]), short(17));
    let (sectors, fat_sectors) = (or(short(19), long(32)), or(short(22), long(36)));
    if sector == 0 || per_cluster == 0 {
        return Err(broken("its first sector says nothing"));
    }
    let root_sectors = (root_entries * ENTRY as u64).div_ceil(sector);
    let (root, data) = (reserved + fats * fat_sectors, reserved + fats * fat_sectors + root_sectors);
    let clusters = sectors.saturating_sub(data) / per_cluster;
    let wide = clusters >= 65_525;
    if clusters < 4_085 {
        return Ok(None);
    }
    let root = if wide {
        Root::Cluster(u32::try_from(long(44)).map_err(io::Error::other)?)
    } else {
        Root::Fixed(root * sector, usize::try_from(root_entries).map_err(io::Error::other)? * ENTRY)
    };
    let cluster = per_cluster * sector;
    // What the first sector says of more than there is, is nobody's.
    let clusters = clusters.min(disk.seek(SeekFrom::End(0))? / cluster);
    Ok(Some(Geometry { fat: reserved * sector, data: data * sector, cluster, clusters, wide, root }))
}

fn broken(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("the FAT file system is broken: {what}"))
}
