//! An image as it was downloaded, packed or not, made a raw one; and the way back.

use std::fs::File;
use std::io::{self, Read, Seek as _, SeekFrom, Write};
use std::path::Path;

use tempfile::NamedTempFile;

use crate::flash::source::unpacked;

/// What is read at once; whole pieces of nothing are left out of the file.
const PIECE_BYTES: usize = 1 << 20;
/// Far more than any system's image has; a packed file of a few MiB can claim to be anything.
const IMAGE_BYTES_MAX: u64 = 64 << 30;
/// What others that write to the same disk are left.
const SPARE_BYTES: u64 = 256 << 20;

/// Copies an image into an empty file, unpacking it, without writing what is empty. `told` hears how many bytes
/// there are so far. The length.
pub fn unpack(from: &Path, to: &mut File, told: &dyn Fn(u64)) -> io::Result<u64> {
    let disk = rustix::fs::fstatvfs(&*to)?;
    let free = disk.f_bavail.saturating_mul(disk.f_frsize);
    unpack_within(from, to, told, IMAGE_BYTES_MAX, free.saturating_sub(SPARE_BYTES))
}

fn unpack_within(from: &Path, to: &mut File, told: &dyn Fn(u64), most: u64, room: u64) -> io::Result<u64> {
    let mut reader = unpacked(from).map_err(io::Error::other)?;
    let (mut piece, mut length, mut written) = (vec![0; PIECE_BYTES], 0u64, 0u64);
    loop {
        let read = fill(&mut reader, &mut piece)?;
        if read == 0 {
            break;
        }
        if length + read as u64 > most {
            let why = format!("it holds more than {} MiB, which no system's image does", most >> 20);
            return Err(io::Error::new(io::ErrorKind::FileTooLarge, why));
        }
        if piece[..read].iter().any(|byte| *byte != 0) {
            written += read as u64;
            if written > room {
                let why = format!("it takes more than the {} MiB that are to spare for the new image", room >> 20);
                return Err(io::Error::new(io::ErrorKind::StorageFull, why));
            }
            to.seek(SeekFrom::Start(length))?;
            to.write_all(&piece[..read])?;
        }
        length += read as u64;
        told(length);
    }
    to.set_len(length)?;
    Ok(length)
}

/// Reads until the buffer is full or nothing is left.
fn fill(reader: &mut impl Read, buffer: &mut [u8]) -> io::Result<usize> {
    let mut filled = 0;
    while filled < buffer.len() {
        match reader.read(&mut buffer[filled..]) {
            Ok(0) => break,
            Ok(read) => filled += read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(filled)
}

/// Packs a raw image by the ending of the new file's name: `.xz`, `.gz`, `.zst`.
pub fn pack(from: &mut File, to: &Path) -> io::Result<()> {
    from.rewind()?;
    let staged = tempfile::Builder::new().prefix(".muster-image-").tempfile_in(folder(to))?;
    let out = staged.as_file();
    match to.extension().and_then(|extension| extension.to_str()) {
        Some("xz") => {
            let mut packer = liblzma::write::XzEncoder::new(out, 3);
            io::copy(from, &mut packer)?;
            packer.finish()?;
        }
        Some("gz") => {
            let mut packer = flate2::GzBuilder::new().mtime(0).write(out, flate2::Compression::new(6));
            io::copy(from, &mut packer)?;
            packer.finish()?;
        }
        Some("zst") => {
            let mut packer = zstd::stream::write::Encoder::new(out, 6)?;
            io::copy(from, &mut packer)?;
            packer.finish()?;
        }
        _ => return Err(io::Error::other("only .xz, .gz and .zst are packed")),
    }
    keep(staged, to)
}

/// Gives a file its name when all of it is on the disk. Only its owner may read it: it may hold a claim.
pub fn keep(staged: NamedTempFile, to: &Path) -> io::Result<()> {
    staged.as_file().sync_all()?;
    staged.persist(to).map_err(|failed| failed.error)?;
    File::open(folder(to))?.sync_all()
}

fn folder(of: &Path) -> &Path {
    of.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

/// Whether a name asks for a packed file.
pub fn is_packed(name: &Path) -> bool {
    name.extension().and_then(|extension| extension.to_str()).is_some_and(|end| ["xz", "gz", "zst"].contains(&end))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;
    use crate::disk::is_same_file;

    fn image(folder: &tempfile::TempDir, bytes: &[u8]) -> std::path::PathBuf {
        let path = folder.path().join("a.img");
        std::fs::write(&path, bytes).expect("a file");
        path
    }

    #[test]
    fn an_image_without_an_end_is_given_up() {
        let folder = tempfile::tempdir().expect("a folder");
        let (raw, packed) = (image(&folder, &vec![0; 5 << 20]), folder.path().join("a.img.zst"));
        pack(&mut File::open(&raw).expect("a file"), &packed).expect("packed");
        let mut out = tempfile::tempfile().expect("a file");
        let told = unpack_within(&packed, &mut out, &|_| {}, 4 << 20, u64::MAX).expect_err("it is longer");
        assert!(told.to_string().contains("more than 4 MiB"), "{told}");
        assert_eq!(unpack_within(&packed, &mut out, &|_| {}, 5 << 20, 0).expect("it is empty"), 5 << 20);
    }

    #[test]
    fn an_image_that_would_fill_the_disk_is_given_up() {
        let folder = tempfile::tempdir().expect("a folder");
        let raw = image(&folder, &vec![7; 3 << 20]);
        let mut out = tempfile::tempfile().expect("a file");
        let told = unpack_within(&raw, &mut out, &|_| {}, u64::MAX, 2 << 20).expect_err("no room");
        assert!(told.to_string().contains("the 2 MiB that are to spare"), "{told}");
        assert_eq!(out.metadata().expect("a length").len(), 2 << 20);
    }

    #[test]
    fn a_claim_inside_a_packed_image_is_its_owner_s_alone() {
        let folder = tempfile::tempdir().expect("a folder");
        let (raw, packed) = (image(&folder, b"claim"), folder.path().join("a.img.xz"));
        pack(&mut File::open(&raw).expect("a file"), &packed).expect("packed");
        assert_eq!(packed.metadata().expect("a file").permissions().mode() & 0o777, 0o600);
    }

    #[test]
    fn packing_that_fails_leaves_what_was_there() {
        let folder = tempfile::tempdir().expect("a folder");
        let packed = folder.path().join("a.img.xz");
        std::fs::write(&packed, "before").expect("a file");
        let mut none = File::create(folder.path().join("none")).expect("a file");
        assert!(pack(&mut none, &packed).is_err(), "it cannot be read");
        assert_eq!(std::fs::read(&packed).expect("reads"), b"before");
        assert_eq!(std::fs::read_dir(folder.path()).expect("a folder").count(), 2, "nothing is left over");
    }

    #[test]
    fn an_image_is_known_by_another_name() {
        let folder = tempfile::tempdir().expect("a folder");
        let raw = image(&folder, b"image");
        let (link, hard) = (folder.path().join("link"), folder.path().join("hard"));
        std::os::unix::fs::symlink("a.img", &link).expect("a link");
        std::fs::hard_link(&raw, &hard).expect("a link");
        assert!(is_same_file(&raw, &link) && is_same_file(&raw, &hard));
        assert!(is_same_file(&raw, &folder.path().join("./a.img")));
        let none = folder.path().join("none");
        assert!(!is_same_file(&raw, &none) && !is_same_file(&none, &none));
    }

    #[test]
    fn packed_and_unpacked_is_what_it_was() {
        let folder = tempfile::tempdir().expect("a folder");
        let mut bytes = vec![0; 3 << 20];
        bytes[5] = 1;
        bytes.extend([7; 1000]);
        let raw = folder.path().join("a.img");
        std::fs::write(&raw, &bytes).expect("a file");
        for name in ["a.img", "b.img.xz", "b.img.gz", "b.img.zst"] {
            let path = folder.path().join(name);
            if is_packed(&path) {
                pack(&mut File::open(&raw).expect("a file"), &path).expect("packed");
            }
            let mut out = tempfile::tempfile().expect("a file");
            assert_eq!(unpack(&path, &mut out, &|_| {}).expect("unpacked"), bytes.len() as u64, "{name}");
            let mut back = vec![];
            out.rewind().and_then(|()| out.read_to_end(&mut back)).expect("reads");
            assert!(back == bytes, "{name}");
        }
        let cut = folder.path().join("cut.img.xz");
        let whole = std::fs::read(folder.path().join("b.img.xz")).expect("reads");
        std::fs::write(&cut, &whole[..whole.len() - 40]).expect("a file");
        assert!(unpack(&cut, &mut tempfile::tempfile().expect("a file"), &|_| {}).is_err(), "it is cut off");
    }
}
