//! A partition as a disk of its own: a part of a file that nothing reads or writes beyond.

use std::io::{self, Read, Seek, SeekFrom, Write};

/// A part of something larger.
#[derive(Debug)]
pub struct Window<D> {
    inner: D,
    start: u64,
    length: u64,
    at: u64,
}

impl<D: Seek> Window<D> {
    /// `length` bytes from `start` on.
    pub fn new(inner: D, start: u64, length: u64) -> io::Result<Self> {
        if start.checked_add(length).is_none() {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "a partition ends beyond every disk"));
        }
        Ok(Self { inner, start, length, at: 0 })
    }

    /// How much of `wanted` there is from here on.
    fn room(&mut self, wanted: usize) -> io::Result<usize> {
        let left = self.length.saturating_sub(self.at);
        self.inner.seek(SeekFrom::Start(self.start + self.at))?;
        Ok(usize::try_from(left).map_or(wanted, |left| left.min(wanted)))
    }
}

impl<D: Read + Seek> Read for Window<D> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let room = self.room(buffer.len())?;
        let read = self.inner.read(&mut buffer[..room])?;
        self.at += read as u64;
        Ok(read)
    }
}

impl<D: Write + Seek> Write for Window<D> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let room = self.room(bytes.len())?;
        let written = self.inner.write(&bytes[..room])?;
        self.at += written as u64;
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}

impl<D: Seek> Seek for Window<D> {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        let at = match to {
            SeekFrom::Start(at) => Some(at),
            SeekFrom::End(by) => self.length.checked_add_signed(by),
            SeekFrom::Current(by) => self.at.checked_add_signed(by),
        };
        self.at = at.ok_or_else(|| io::Error::new(io::ErrorKind::InvalidInput, "before the partition's beginning"))?;
        Ok(self.at)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_outside_is_read_or_written() {
        let mut disk = io::Cursor::new((0u8..10).collect::<Vec<_>>());
        let mut window = Window::new(&mut disk, 3, 4).expect("a window");
        let mut all = vec![];
        window.read_to_end(&mut all).expect("reads");
        assert_eq!(all, [3, 4, 5, 6]);
        window.seek(SeekFrom::End(-2)).expect("seeks");
        assert!(window.write_all(&[9; 5]).is_err(), "there is room for two");
        assert!(window.seek(SeekFrom::Current(-9)).is_err());
        assert_eq!(disk.into_inner(), [0, 1, 2, 3, 4, 9, 9, 7, 8, 9]);
        assert!(Window::new(io::Cursor::new(vec![]), u64::MAX, 2).is_err());
    }
}
