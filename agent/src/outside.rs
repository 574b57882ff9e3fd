//! What a pure core must be given from outside: the time, and chance.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use muster_agent_core::clock::Clock;
use muster_shared::id::UnixMs;
use muster_tls::TimeKnown;

/// The device's clock, which may be wrong and may jump.
pub fn now_ms() -> UnixMs {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as u64)
}

/// Time that never jumps: the device's clock when this was made, and what passed since.
#[derive(Debug, Clone, Copy)]
pub struct Steady {
    began_ms: UnixMs,
    began: Instant,
}

impl Steady {
    /// Begins now.
    pub fn start() -> Self {
        Self { began_ms: now_ms(), began: Instant::now() }
    }

    /// The steady time.
    pub fn now_ms(&self) -> UnixMs {
        let passed = u64::try_from(self.began.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.began_ms.saturating_add(passed)
    }
}

/// The core's clock for those who work beside the loop: connections, renewals, events.
#[derive(Debug, Clone)]
pub struct Timekeeper {
    steady: Steady,
    clock: Arc<Mutex<Clock>>,
}

impl Timekeeper {
    /// Keeps the time by a clock of the core.
    pub fn new(steady: Steady, clock: Clock) -> Self {
        Self { steady, clock: Arc::new(Mutex::new(clock)) }
    }

    /// A device that has a bound and no more, as before its first connection.
    pub fn unconfirmed(bound_ms: UnixMs) -> Self {
        let steady = Steady::start();
        Self::new(steady, Clock::new(bound_ms, steady.now_ms()))
    }

    /// The steady time.
    pub fn steady_ms(&self) -> UnixMs {
        self.steady.now_ms()
    }

    /// The time to date things by.
    pub fn wall_ms(&self) -> UnixMs {
        self.clock().wall(self.steady_ms())
    }

    /// What certificates are judged by.
    pub fn known(&self) -> TimeKnown {
        let clock = self.clock();
        let clock_ms = clock.reading(self.steady_ms());
        TimeKnown { clock_ms, bound_ms: clock.bound_ms(), confirmed: clock.is_confirmed() }
    }

    /// The clock as it is now.
    pub fn clock(&self) -> Clock {
        self.clock.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The core's clock changed.
    pub fn set(&self, clock: &Clock) {
        self.clock.lock().unwrap_or_else(PoisonError::into_inner).clone_from(clock);
    }
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
