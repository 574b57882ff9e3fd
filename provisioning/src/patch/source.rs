//! An image as it was downloaded, packed or not, made a raw one; and the way back.

use std::fs::File;
use std::io::{self, Read, Seek as _, SeekFrom, Write};
use std::path::Path;

use crate::flash::source::unpacked;

/// What is read at once; whole pieces of nothing are left out of the file.
const PIECE_BYTES: usize = 1 << 20;

/// Copies an image into an empty file, unpacking it, without writing what is empty. `told` hears how many bytes
/// there are so far. The length.
pub fn unpack(from: &Path, to: &mut File, told: &dyn Fn(u64)) -> io::Result<u64> {
    let mut reader = unpacked(from).map_err(io::Error::other)?;
    let (mut piece, mut length) = (vec![0; PIECE_BYTES], 0u64);
    loop {
        let read = fill(&mut reader, &mut piece)?;
        if read == 0 {
            break;
        }
        if piece[..read].iter().any(|byte| *byte != 0) {
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

/// Packs a raw image by the ending of the new file's name: `.xz`, `.gz`, `.zst`; none of them: it is copied.
pub fn pack(from: &mut File, to: &Path) -> io::Result<()> {
    from.rewind()?;
    let out = File::create(to)?;
    match to.extension().and_then(|extension| extension.to_str()) {
        Some("xz") => {
            let mut packer = liblzma::write::XzEncoder::new(out, 3);
            io::copy(from, &mut packer)?;
            packer.finish()?.sync_all()
        }
        Some("gz") => {
            let mut packer = flate2::GzBuilder::new().mtime(0).write(out, flate2::Compression::new(6));
            io::copy(from, &mut packer)?;
            packer.finish()?.sync_all()
        }
        Some("zst") => {
            let mut packer = zstd::stream::write::Encoder::new(out, 6)?;
            io::copy(from, &mut packer)?;
            packer.finish()?.sync_all()
        }
        _ => Err(io::Error::other("only .xz, .gz and .zst are packed")),
    }
}

/// Whether a name asks for a packed file.
pub fn is_packed(name: &Path) -> bool {
    name.extension().and_then(|extension| extension.to_str()).is_some_and(|end| ["xz", "gz", "zst"].contains(&end))
}

#[cfg(test)]
mod tests {
    use super::*;

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
