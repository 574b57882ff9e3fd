//! All chance of a run, from one number: SplitMix64.

/// A stream of numbers. Equal seeds give equal streams, on every machine.
#[derive(Debug, Clone)]
pub struct Rng(u64);

impl Rng {
    /// The stream of a seed.
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// The next number.
    pub fn draw(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// A number from `low` up to, and without, `high`.
    pub fn range(&mut self, low: u64, high: u64) -> u64 {
        low + self.draw() % high.saturating_sub(low).max(1)
    }

    /// True so often in a thousand times.
    pub fn permille(&mut self, permille: u64) -> bool {
        self.draw() % 1000 < permille
    }

    /// One of several; they must not be none.
    pub fn pick<'a, T>(&mut self, of: &'a [T]) -> &'a T {
        let at = self.range(0, of.len() as u64) as usize;
        &of[at]
    }

    /// Sixteen bytes, as ids of runs and nonces have them.
    pub fn bytes(&mut self) -> [u8; 16] {
        let (first, second) = (self.draw(), self.draw());
        let mut bytes = [0; 16];
        bytes[..8].copy_from_slice(&first.to_le_bytes());
        bytes[8..].copy_from_slice(&second.to_le_bytes());
        bytes
    }
}
