//! The image as a stream of pieces: as it is, or out of xz, gz or zst; whole, or what its block map names.
//!
//! What an image is shows by its first bytes, not by its name. Nothing is unpacked to disk.

use std::fs::File;
use std::io::{self, BufReader, Cursor, Read, Seek as _, SeekFrom};
use std::ops::Range;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};

use muster_shared::Digest;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use sha2::{Digest as _, Sha256};

use super::Stop;
use super::aligned::Aligned;
use super::bmap::Bmap;

/// What is read, written and verified at once.
pub const PIECE_BYTES: u64 = 1024 * 1024;
/// The memory that an xz stream may ask for; `xz -9` asks for 65 MiB.
const XZ_MEMORY_BYTES_MAX: u64 = 512 * 1024 * 1024;
/// How many first bytes tell a format.
const MAGIC_BYTES: usize = 8;

/// How an image is packed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Packing {
    /// Not at all.
    Raw,
    /// `.xz`
    Xz,
    /// `.gz`
    Gzip,
    /// `.zst`
    Zstd,
}

impl std::fmt::Display for Packing {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Raw => "raw",
            Self::Xz => "xz",
            Self::Gzip => "gz",
            Self::Zstd => "zst",
        })
    }
}

/// Why an image cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum SourceError {
    /// It cannot be opened or read.
    #[error("cannot read {}", path.display())]
    Read {
        /// The image.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// What is packed there is damaged or cut off.
    #[error("{} is damaged: it cannot be unpacked beyond byte {at} of the image", path.display())]
    Damaged {
        /// The image.
        path: PathBuf,
        /// How far it was good.
        at: u64,
        /// What the unpacker says.
        #[source]
        source: io::Error,
    },
    /// Something else than an image of a drive.
    #[error("{} is {what}", path.display())]
    NotAnImage {
        /// The file.
        path: PathBuf,
        /// What it is.
        what: &'static str,
    },
    /// Nothing in it.
    #[error("{} holds no bytes", .0.display())]
    Empty(PathBuf),
    /// The map is for something else.
    #[error("bytes {start} to {end} of the image are not those that its block map describes")]
    NotAsMapped {
        /// The first byte.
        start: u64,
        /// The one after the last.
        end: u64,
    },
    /// The map is for an image of another length.
    #[error("the image ends at byte {at}, and its block map says that it has {expected}")]
    Length {
        /// Where it ends.
        at: u64,
        /// What the map says.
        expected: u64,
    },
}

/// A piece of the image, and its digest for the reading back.
#[derive(Debug)]
pub struct Piece {
    /// Where it belongs.
    pub at: u64,
    /// What belongs there.
    pub bytes: Aligned,
    /// Its SHA-256.
    pub digest: Digest,
}

/// A file with an image.
#[derive(Debug, Clone)]
pub struct Image {
    /// The file; `-` is the standard input.
    pub path: PathBuf,
    /// What of it must be written; nothing: all.
    pub bmap: Option<Bmap>,
}

/// What a look through an image found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Looked {
    /// How it is packed.
    pub packing: Packing,
    /// The bytes of the whole image, unpacked; nothing: it comes by a pipe and is read only once.
    pub bytes: Option<u64>,
    /// The bytes that are to be written.
    pub written: Option<u64>,
}

impl Image {
    /// How large it is. A packed image is unpacked once for that, up to `bytes_max`: a damaged download is found
    /// before anything is erased. Counts what it did; ends early when told to.
    pub fn look(
        &self,
        bytes_max: u64,
        mut did: impl FnMut(u64) -> std::ops::ControlFlow<()>,
    ) -> Result<Looked, SourceError> {
        if self.is_pipe() {
            return Ok(Looked {
                packing: Packing::Raw,
                bytes: self.bmap.as_ref().map(|bmap| bmap.image_bytes),
                written: None,
            });
        }
        let mut opened = open(&self.path, &Stop::default())?;
        if let (Some(bmap), Some(at)) = (&self.bmap, opened.raw_bytes)
            && at != bmap.image_bytes
        {
            return Err(SourceError::Length { at, expected: bmap.image_bytes });
        }
        let mapped = self.bmap.as_ref().map(|bmap| (bmap.image_bytes, bmap.mapped_bytes()));
        let (bytes, written) = match (mapped, opened.raw_bytes) {
            // The map's checksums are looked at while it is written.
            (Some((bytes, written)), _) => (bytes, written),
            (None, Some(bytes)) => (bytes, bytes),
            (None, None) => {
                let mut total = 0;
                let mut buffer = vec![0; 256 * 1024];
                loop {
                    let damaged = |source| SourceError::Damaged { path: self.path.clone(), at: total, source };
                    let count = opened.reader.read(&mut buffer).map_err(damaged)?;
                    total += count as u64;
                    if count == 0 || total > bytes_max || did(total).is_break() {
                        break (total, total);
                    }
                }
            }
        };
        if bytes == 0 {
            return Err(SourceError::Empty(self.path.clone()));
        }
        Ok(Looked { packing: opened.packing, bytes: Some(bytes), written: Some(written) })
    }

    /// Its pieces, in order. A wish to stop ends the waiting for a pipe that gives nothing.
    pub fn pieces(&self, stop: &Stop) -> Result<Pieces, SourceError> {
        let opened = open(&self.path, stop)?;
        Ok(Pieces {
            path: self.path.clone(),
            ranges: self.bmap.as_ref().map(|bmap| bmap.ranges.clone()),
            image_bytes: self.bmap.as_ref().map(|bmap| bmap.image_bytes),
            can_seek: opened.raw_bytes.is_some() && !self.is_pipe(),
            opened,
            at: 0,
            range: 0,
            sum: Sha256::new(),
        })
    }

    /// Whether it can be read only once.
    pub fn is_pipe(&self) -> bool {
        self.path == Path::new("-") || std::fs::metadata(&self.path).is_ok_and(|meta| !meta.is_file())
    }
}

struct Opened {
    reader: Box<dyn Read + Send>,
    /// To move within an image that is not packed.
    seek: Option<File>,
    packing: Packing,
    /// The length of a file that is not packed.
    raw_bytes: Option<u64>,
}

/// A pipe that may give nothing for a long time: who waits for it can still be stopped.
struct Pipe<T> {
    pipe: T,
    stop: Stop,
}

/// How often a wish to stop is looked for.
const LOOK_PERIOD: Timespec = Timespec { tv_sec: 0, tv_nsec: 100_000_000 };

impl<T: Read + AsFd> Read for Pipe<T> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        loop {
            if self.stop.is_asked() {
                return Err(io::Error::other("stopped"));
            }
            let ready = poll(&mut [PollFd::new(&self.pipe, PollFlags::IN)], Some(&LOOK_PERIOD));
            match ready {
                Ok(0) | Err(rustix::io::Errno::INTR) => {}
                Ok(_) => return self.pipe.read(into),
                Err(error) => return Err(error.into()),
            }
        }
    }
}

fn open(path: &Path, stop: &Stop) -> Result<Opened, SourceError> {
    let failed = |source| SourceError::Read { path: path.to_owned(), source };
    let stop = stop.clone();
    let mut file: Box<dyn Read + Send> = match path {
        // Without the buffer of the standard input, which poll knows nothing of.
        path if path == Path::new("-") => {
            let pipe = io::stdin().as_fd().try_clone_to_owned().map(File::from).map_err(failed)?;
            Box::new(Pipe { pipe, stop })
        }
        path => Box::new(Pipe { pipe: File::open(path).map_err(failed)?, stop }),
    };
    let mut first = Vec::new();
    file.by_ref().take(MAGIC_BYTES as u64).read_to_end(&mut first).map_err(failed)?;
    let packing = packing_of(&first).map_err(|what| SourceError::NotAnImage { path: path.to_owned(), what })?;
    let meta = std::fs::metadata(path).ok().filter(std::fs::Metadata::is_file);
    let packed = BufReader::with_capacity(256 * 1024, Cursor::new(first).chain(file));
    let mut opened = Opened { reader: Box::new(io::empty()), seek: None, packing, raw_bytes: None };
    opened.reader = match packing {
        Packing::Raw => {
            opened.raw_bytes = meta.map(|meta| meta.len());
            opened.seek = opened.raw_bytes.and_then(|_| File::open(path).ok());
            Box::new(packed)
        }
        Packing::Gzip => Box::new(flate2::bufread::MultiGzDecoder::new(packed)),
        Packing::Xz => {
            let flags = liblzma::stream::CONCATENATED;
            let stream = liblzma::stream::Stream::new_stream_decoder(XZ_MEMORY_BYTES_MAX, flags);
            let stream = stream.map_err(|error| failed(error.into()))?;
            Box::new(liblzma::bufread::XzDecoder::new_stream(packed, stream))
        }
        Packing::Zstd => Box::new(zstd::stream::read::Decoder::with_buffer(packed).map_err(failed)?),
    };
    Ok(opened)
}

/// What is in a file with an image, unpacked.
pub fn unpacked(path: &Path) -> Result<Box<dyn Read + Send>, SourceError> {
    open(path, &Stop::default()).map(|opened| opened.reader)
}

/// What the first bytes say.
fn packing_of(first: &[u8]) -> Result<Packing, &'static str> {
    let is = |magic: &[u8]| first.starts_with(magic);
    match () {
        () if is(b"\xfd7zXZ\0") => Ok(Packing::Xz),
        () if is(&[0x1f, 0x8b]) => Ok(Packing::Gzip),
        // A frame, or one to be skipped.
        () if is(&[0x28, 0xb5, 0x2f, 0xfd]) || (first.get(1..4) == Some(&[0x2a, 0x4d, 0x18]) && first[0] >> 4 == 5) => {
            Ok(Packing::Zstd)
        }
        () if is(b"PK\x03\x04") => Err("a zip archive: unpack it, and flash the image in it"),
        () if is(b"BZh") => Err("packed with bzip2: unpack it with `bunzip2`"),
        () if is(b"7z\xbc\xaf") => Err("a 7z archive: unpack it, and flash the image in it"),
        () if is(b"Rar!") => Err("a rar archive: unpack it, and flash the image in it"),
        () if is(b"QFI\xfb") => Err("a virtual machine's disk: make it raw with `qemu-img convert -O raw`"),
        () if is(b"KDMV") || is(b"vhdxfile") => {
            Err("a virtual machine's disk: make it raw with `qemu-img convert -O raw`")
        }
        () if is(&[0x3a, 0xff, 0x26, 0xed]) => Err("an Android sparse image: make it raw with `simg2img`"),
        () if is(b"<?xml") || is(b"<bmap") => Err("a block map: name the image itself, the map beside it is found"),
        () => Ok(Packing::Raw),
    }
}

/// Gives an image's pieces one after the other.
pub struct Pieces {
    path: PathBuf,
    opened: Opened,
    ranges: Option<Vec<super::bmap::Mapped>>,
    image_bytes: Option<u64>,
    can_seek: bool,
    /// How far the reader is.
    at: u64,
    /// Which range it is in.
    range: usize,
    /// The sum of that range so far.
    sum: Sha256,
}

impl Pieces {
    /// The next piece; nothing at the end. Pieces end at multiples of [`PIECE_BYTES`].
    pub fn read(&mut self) -> Result<Option<Piece>, SourceError> {
        let wanted = match &self.ranges {
            None => self.at..u64::MAX,
            Some(ranges) => match ranges.get(self.range) {
                None => return Ok(None),
                Some(mapped) => self.at.max(mapped.bytes.start)..mapped.bytes.end,
            },
        };
        self.go_to(wanted.start)?;
        let end = wanted.end.min((wanted.start / PIECE_BYTES + 1) * PIECE_BYTES);
        let mut bytes = Aligned::zeros(usize::try_from(end - wanted.start).unwrap_or(0));
        let count = self.fill(&mut bytes)?;
        bytes.truncate(count);
        self.at = wanted.start + count as u64;
        if self.ranges.is_some() {
            self.check_range(&bytes, end)?;
        } else if count == 0 {
            return Ok(None);
        }
        let digest = Digest::of(&*bytes);
        Ok(Some(Piece { at: wanted.start, bytes, digest }))
    }

    /// Holds what was read against the map.
    fn check_range(&mut self, bytes: &[u8], expected_end: u64) -> Result<(), SourceError> {
        let Some(mapped) = self.ranges.as_ref().and_then(|ranges| ranges.get(self.range)) else { return Ok(()) };
        if self.at < expected_end {
            return Err(SourceError::Length { at: self.at, expected: self.image_bytes.unwrap_or(expected_end) });
        }
        self.sum.update(bytes);
        if self.at == mapped.bytes.end {
            let sum = std::mem::take(&mut self.sum).finalize();
            if sum[..] != mapped.digest.0 {
                let Range { start, end } = mapped.bytes;
                return Err(SourceError::NotAsMapped { start, end });
            }
            self.range += 1;
        }
        Ok(())
    }

    fn go_to(&mut self, at: u64) -> Result<(), SourceError> {
        let gap = at - self.at;
        if gap == 0 {
            return Ok(());
        }
        if let Some(mut file) = self.opened.seek.take().filter(|_| self.can_seek) {
            let moved = file.seek(SeekFrom::Start(at)).and_then(|_| file.try_clone());
            let failed = |source| SourceError::Read { path: self.path.clone(), source };
            self.opened.seek = Some(moved.map_err(failed)?);
            self.opened.reader = Box::new(BufReader::new(file));
        } else {
            let skipped = io::copy(&mut self.opened.reader.by_ref().take(gap), &mut io::sink());
            let skipped = skipped.map_err(|source| self.damaged(source))?;
            if skipped < gap {
                return Err(SourceError::Length { at: self.at + skipped, expected: self.image_bytes.unwrap_or(at) });
            }
        }
        self.at = at;
        Ok(())
    }

    /// Reads until the buffer is full or the image ends.
    fn fill(&mut self, buffer: &mut [u8]) -> Result<usize, SourceError> {
        let mut count = 0;
        while count < buffer.len() {
            match self.opened.reader.read(&mut buffer[count..]) {
                Ok(0) => break,
                Ok(more) => count += more,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(source) => return Err(self.damaged(source)),
            }
        }
        Ok(count)
    }

    fn damaged(&self, source: io::Error) -> SourceError {
        let path = self.path.clone();
        match self.opened.packing {
            Packing::Raw => SourceError::Read { path, source },
            _ => SourceError::Damaged { path, at: self.at, source },
        }
    }
}

#[cfg(test)]
mod tests;
