//! What a disk is made of, as bytes in a file: [tables](table) of partitions, [FAT](fat) file systems, and the
//! [archive](cpio) that a kernel unpacks into memory. The same inputs give the same bytes: no clock is read and
//! nothing is drawn by chance.

pub mod cpio;
pub mod fat;
pub mod table;
mod window;

pub use window::Window;

/// A sector, as partition tables count them.
pub const SECTOR: u64 = 512;
