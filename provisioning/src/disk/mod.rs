//! What a disk is made of, as bytes in a file: [tables](table) of partitions, [FAT](fat) file systems, and the
//! [archive](cpio) that a kernel unpacks into memory. The same inputs give the same bytes: no clock is read and
//! nothing is drawn by chance.

pub mod cpio;
pub mod fat;
pub mod table;
mod window;

use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

pub use window::Window;

/// A sector, as partition tables count them.
pub const SECTOR: u64 = 512;

/// Whether two names lead to one file. A name that leads nowhere is no file's.
pub fn is_same_file(one: &Path, other: &Path) -> bool {
    let file = |path: &Path| std::fs::metadata(path).map(|meta| (meta.dev(), meta.ino())).ok();
    file(one).is_some_and(|found| file(other) == Some(found))
}
