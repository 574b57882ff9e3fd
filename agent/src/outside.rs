//! What a pure core must be given from outside: the time, and chance.

use std::time::{SystemTime, UNIX_EPOCH};

use muster_shared::id::UnixMs;

/// The device's clock.
pub fn now_ms() -> UnixMs {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as u64)
}

/// Random bytes from the kernel.
pub fn random<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    // Linux gives random bytes from early boot on; without any, nothing that follows would be safe.
    if let Err(error) = getrandom::fill(&mut bytes) {
        tracing::error!(%error, "the kernel gives no random bytes");
        std::process::abort();
    }
    bytes
}

/// A number from 0 to 1, to spread a fleet.
pub fn jitter() -> f64 {
    f64::from(u32::from_le_bytes(random())) / f64::from(u32::MAX)
}
