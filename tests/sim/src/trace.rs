//! What happened, folded into one number: the same seed must give the same one.

/// A fold over everything that happened.
#[derive(Debug, Clone, Copy)]
pub struct Trace(u64);

impl Default for Trace {
    fn default() -> Self {
        Self(0xcbf2_9ce4_8422_2325)
    }
}

impl Trace {
    /// Something happened.
    pub fn note(&mut self, at_ms: u64, what: u64, who: u64, which: u64) {
        for number in [at_ms, what, who, which] {
            // Fowler, Noll and Vo's hash, a word at a time.
            self.0 = (self.0 ^ number).wrapping_mul(0x0000_0100_0000_01b3).rotate_left(17);
        }
    }

    /// All of it.
    pub fn digest(&self) -> u64 {
        self.0
    }
}
