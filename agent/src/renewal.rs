//! When this device asks for its next certificate: at two thirds of the present one's life, and when a
//! broker does not take it. So a device that was off, or cut off, until long after its certificate ended
//! comes back by itself: the request is signed by its key, which does not end.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use muster_agent_core::backoff::delay_ms;
use muster_shared::id::UnixMs;
use tokio::sync::mpsc;
use tokio::time::Instant;
use tracing::{info, warn};

use crate::enrol::{self, Reach};
use crate::identity::{self, DeviceKey, Enrolment, Life};
use crate::mqtt::Mqtt;
use crate::network::line::Lines;
use crate::outside::{Timekeeper, jitter};

/// A certificate is looked at as often as this, at least: clocks are corrected, machines sleep.
const LOOK_EVERY: Duration = Duration::from_secs(600);

/// The certificate's renewals, one at a time, beside everything else.
pub struct Renewal {
    enrolment: Enrolment,
    key: Arc<DeviceKey>,
    data: PathBuf,
    time: Timekeeper,
    mqtt: Mqtt,
    lines: Arc<Lines>,
    reach: Reach,
    next: Next,
    ended: (mpsc::Sender<bool>, mpsc::Receiver<bool>),
}

/// When to look at the certificate, and what for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Next {
    at: Instant,
    /// A broker refused the certificate: whatever its dates say, it is renewed.
    refused: bool,
    /// Whether one is being asked for.
    asking: bool,
    /// Attempts since a connection last stood.
    attempts: u32,
    /// It was renewed by a clock that nobody has confirmed. By such a clock the next one may look ended
    /// too, without end.
    renewed_unsure: bool,
}

impl Renewal {
    /// Looks at the certificate at once.
    pub fn new(
        enrolment: Enrolment,
        (key, data): (Arc<DeviceKey>, PathBuf),
        time: Timekeeper,
        mqtt: Mqtt,
        (lines, reach): (Arc<Lines>, Reach),
    ) -> Self {
        let next = Next { at: Instant::now(), refused: false, asking: false, attempts: 0, renewed_unsure: false };
        Self { enrolment, key, data, time, mqtt, lines, reach, next, ended: mpsc::channel(1) }
    }

    /// When [`Self::look`] has something to do.
    pub fn due(&self) -> Option<Instant> {
        (!self.next.asking).then_some(self.next.at)
    }

    /// Asks for the next certificate if it is time to.
    pub fn look(&mut self) {
        if let Some(wait) = self.wait() {
            self.next.at = Instant::now() + wait;
            return;
        }
        self.next.asking = true;
        self.next.attempts = self.next.attempts.saturating_add(1);
        // The tunnel may have become another one by an earlier renewal.
        let tunnel = self.lines.tunnel().map(|tunnel| tunnel.to_string());
        let enrolment = Enrolment { tunnel, ..self.enrolment.clone() };
        let (key, data, lines, reach) = (self.key.clone(), self.data.clone(), self.lines.clone(), self.reach.clone());
        let (known, ended) = (self.time.known(), self.ended.0.clone());
        tokio::spawn(async move {
            let renewed = enrol::renew(&enrolment, &key, &data, known, &reach).await;
            match &renewed {
                Ok(tunnel) => {
                    if let Some(tunnel) = tunnel {
                        lines.set_tunnel(tunnel.clone());
                    }
                    info!("the client certificate is renewed");
                }
                Err(error) => warn!(error = format!("{error:#}"), "cannot renew the client certificate; trying again"),
            }
            // The loop is gone only when the whole process ends.
            let _ = ended.send(renewed.is_ok()).await;
        });
    }

    /// How long until the certificate is to be renewed; none: now.
    fn wait(&self) -> Option<Duration> {
        if self.next.refused {
            return None;
        }
        let life = identity::certificate(&self.data).and_then(|certificate| Life::of(&certificate));
        match life {
            Ok(life) => wait(life, self.time.wall_ms(), self.next.renewed_unsure && !self.time.known().confirmed),
            Err(error) => {
                warn!(error = format!("{error:#}"), "asking for a new client certificate");
                None
            }
        }
    }

    /// Waits for the end of a renewal: whether there is a new certificate.
    pub async fn ended(&mut self) -> bool {
        // This side keeps a sender: the channel never closes.
        self.ended.1.recv().await.unwrap_or_default()
    }

    /// A renewal ended.
    pub fn end(&mut self, renewed: bool) {
        self.next.asking = false;
        if renewed {
            self.next.refused = false;
            self.next.renewed_unsure = !self.time.known().confirmed;
            self.mqtt.reconnect();
        }
        // Also after a success: one that is refused, or ends, at once must not be asked for in a loop.
        self.next.at = Instant::now() + Duration::from_millis(delay_ms(self.next.attempts, jitter()));
    }

    /// The broker does not take the certificate.
    pub fn refused(&mut self) {
        if self.next.refused || self.next.asking {
            return;
        }
        self.next.refused = true;
        let pause = if self.next.attempts == 0 { 0 } else { delay_ms(self.next.attempts, jitter()) };
        self.next.at = Instant::now() + Duration::from_millis(pause);
    }

    /// A connection stands: the certificate is good.
    pub fn connected(&mut self) {
        (self.next.attempts, self.next.refused) = (0, false);
    }

    /// The clock changed: what was not due may be.
    pub fn clock_changed(&mut self) {
        self.next.at = self.next.at.min(Instant::now());
    }
}

/// How long until a certificate is to be renewed by this wall clock; none: now. `just_renewed`: it was, by
/// the same unconfirmed clock.
fn wait(life: Life, wall_ms: UnixMs, just_renewed: bool) -> Option<Duration> {
    let left_ms = life.renew_at_ms().saturating_sub(wall_ms);
    match left_ms {
        0 if just_renewed => Some(LOOK_EVERY),
        0 => None,
        left_ms => Some(LOOK_EVERY.min(Duration::from_millis(left_ms))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_certificate_is_asked_for_at_two_thirds_and_once_only_by_an_unconfirmed_clock() {
        let life = Life { from_ms: 0, until_ms: 3_000_000 };
        assert_eq!(wait(life, 0, false), Some(LOOK_EVERY));
        assert_eq!(wait(life, 1_990_000, false), Some(Duration::from_secs(10)));
        for wall_ms in [2_000_000, 3_000_001, u64::MAX] {
            assert_eq!(wait(life, wall_ms, false), None);
            assert_eq!(wait(life, wall_ms, true), Some(LOOK_EVERY));
        }
    }
}
