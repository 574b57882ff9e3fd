//! How long to wait before trying again: doubling from a second to a minute.

/// The first wait, in milliseconds.
pub const DELAY_MS_MIN: u64 = 1_000;
/// The longest wait, in milliseconds.
pub const DELAY_MS_MAX: u64 = 60_000;

/// The wait before attempt `attempt + 1`, in milliseconds. `jitter` (0 to 1, drawn by the caller)
/// spreads a fleet: the wait lies between half and the whole of the doubled delay.
pub fn delay_ms(attempt: u32, jitter: f64) -> u64 {
    let ceiling = DELAY_MS_MIN.saturating_mul(1 << attempt.min(16)).min(DELAY_MS_MAX);
    (ceiling as f64 * (0.5 + jitter.clamp(0.0, 1.0) / 2.0)) as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_up_to_a_minute() {
        let waits: Vec<u64> = [0, 1, 2, 5, 6, 7, u32::MAX].into_iter().map(|attempt| delay_ms(attempt, 1.0)).collect();
        assert_eq!(waits, [1_000, 2_000, 4_000, 32_000, 60_000, 60_000, 60_000]);
        assert_eq!(delay_ms(0, 0.0), 500);
    }
}
