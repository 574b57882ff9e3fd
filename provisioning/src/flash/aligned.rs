//! Memory that starts where direct reads and writes want it to.

/// Pages, and more than any drive's sector.
pub const ALIGNMENT: usize = 4096;

/// Bytes that start at a multiple of [`ALIGNMENT`] in memory.
#[derive(Clone)]
pub struct Aligned {
    memory: Vec<u8>,
    start: usize,
    length: usize,
}

impl Aligned {
    /// This many zeros.
    pub fn zeros(length: usize) -> Self {
        // The memory of a vector that does not grow stays where it is.
        let memory = vec![0; length + ALIGNMENT];
        let start = memory.as_ptr().align_offset(ALIGNMENT).min(ALIGNMENT);
        Self { memory, start, length }
    }

    /// These bytes.
    pub fn of(bytes: &[u8]) -> Self {
        let mut aligned = Self::zeros(bytes.len());
        aligned.copy_from_slice(bytes);
        aligned
    }

    /// Leaves the first bytes only.
    pub fn truncate(&mut self, length: usize) {
        self.length = self.length.min(length);
    }
}

impl std::ops::Deref for Aligned {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.memory[self.start..self.start + self.length]
    }
}

impl std::ops::DerefMut for Aligned {
    fn deref_mut(&mut self) -> &mut [u8] {
        &mut self.memory[self.start..self.start + self.length]
    }
}

impl std::fmt::Debug for Aligned {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} bytes", self.length)
    }
}

/// Whether bytes at a place of a drive can go there directly.
pub fn is_aligned(at: u64, bytes: &[u8], unit: u64) -> bool {
    let multiple = |number: u64| number.is_multiple_of(unit);
    multiple(at) && multiple(bytes.len() as u64) && bytes.as_ptr().align_offset(ALIGNMENT) == 0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_starts_at_a_page() {
        for length in [0, 1, 511, 4096, 1_000_003] {
            let mut aligned = Aligned::zeros(length);
            assert_eq!(aligned.len(), length);
            assert_eq!(aligned.as_ptr().align_offset(ALIGNMENT), 0);
            aligned.truncate(100);
            assert_eq!(aligned.len(), length.min(100));
        }
        assert_eq!(&*Aligned::of(b"abc"), b"abc");
        let copy = Aligned::of(&[7; 4096]);
        assert!(is_aligned(8192, &copy, 4096));
        assert!(!is_aligned(8192, &copy[512..1024], 512));
        assert!(!is_aligned(100, &copy, 512));
    }
}
