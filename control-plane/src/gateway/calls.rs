//! Requests in flight, and how long each device takes: one lock, so that a device is chosen and counted
//! in the same moment.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use muster_shared::id::Nonce;
use muster_shared::message::Reply;
use muster_shared::{DeploymentName, DeviceId};
use tokio::sync::oneshot;

use super::soonest::{Candidate, soonest};

/// Requests in flight to one device; then another one is asked.
const DEVICE_IN_FLIGHT_MAX: usize = 64;
/// How much a new measurement counts against those before.
const WEIGHT: f64 = 0.2;
/// A measurement that is older says nothing: a device that was slow once gets another chance.
const ESTIMATE_LIFE: Duration = Duration::from_secs(10);
/// Estimates that are kept; beyond that, old ones are dropped.
const ESTIMATES_MAX: usize = 100_000;

/// Requests in flight.
#[derive(Debug, Default)]
pub struct Calls(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    pending: HashMap<Nonce, Pending>,
    estimates: HashMap<(DeviceId, DeploymentName), Estimate>,
    /// Breaks ties between devices that will answer equally soon.
    turn: u64,
}

#[derive(Debug)]
struct Pending {
    device: DeviceId,
    /// None: a command, which no deployment answers.
    deployment: Option<DeploymentName>,
    since: Instant,
    answer: oneshot::Sender<Reply>,
}

#[derive(Debug, Clone, Copy)]
struct Estimate {
    seconds: f64,
    at: Instant,
}

impl Calls {
    /// Chooses the device that will answer soonest, and counts the call as its from now on. None: each
    /// has all that it can take.
    pub fn begin(
        &self,
        id: Nonce,
        deployment: &DeploymentName,
        devices: Vec<DeviceId>,
        now: Instant,
    ) -> Option<(DeviceId, oneshot::Receiver<Reply>)> {
        let mut state = self.state();
        let mut in_flight: HashMap<&DeviceId, usize> = HashMap::new();
        for pending in state.pending.values() {
            *in_flight.entry(&pending.device).or_default() += 1;
        }
        let candidate = |device: DeviceId| {
            let in_flight = in_flight.get(&device).copied().unwrap_or(0);
            let estimate = state.estimates.get(&(device.clone(), deployment.clone()));
            let fresh = estimate.filter(|estimate| now.saturating_duration_since(estimate.at) < ESTIMATE_LIFE);
            Candidate { device, in_flight, seconds: fresh.map(|estimate| estimate.seconds) }
        };
        let candidates = devices.into_iter().map(candidate).filter(|it| it.in_flight < DEVICE_IN_FLIGHT_MAX).collect();
        let device = soonest(candidates, state.turn)?;
        state.turn = state.turn.wrapping_add(1);
        let (sender, answer) = oneshot::channel();
        let pending =
            Pending { device: device.clone(), deployment: Some(deployment.clone()), since: now, answer: sender };
        state.pending.insert(id, pending);
        Some((device, answer))
    }

    /// Counts a command to one device. None: it has all that it can take.
    pub fn begin_command(&self, id: Nonce, device: &DeviceId, now: Instant) -> Option<oneshot::Receiver<Reply>> {
        let mut state = self.state();
        if state.pending.values().filter(|pending| pending.device == *device).count() >= DEVICE_IN_FLIGHT_MAX {
            return None;
        }
        let (sender, answer) = oneshot::channel();
        let pending = Pending { device: device.clone(), deployment: None, since: now, answer: sender };
        state.pending.insert(id, pending);
        Some(answer)
    }

    /// Hands a reply to whoever waits for it. A reply by another device than the one asked, or one
    /// that comes too late, is dropped.
    pub fn reply(&self, device: &DeviceId, reply: Reply, now: Instant) {
        let mut state = self.state();
        if state.pending.get(&reply.id).is_none_or(|pending| pending.device != *device) {
            return;
        }
        let Some(pending) = state.pending.remove(&reply.id) else { return };
        if let Some(deployment) = pending.deployment.filter(|_| reply.status == 200) {
            let took = now.saturating_duration_since(pending.since).as_secs_f64();
            state.learn((pending.device, deployment), took, now);
        }
        // The asker may have given up in this moment.
        let _ = pending.answer.send(reply);
    }

    /// Forgets a call: its asker is done with it.
    pub fn end(&self, id: &Nonce) {
        self.state().pending.remove(id);
    }

    /// Tells everyone who waits for a device that it is gone.
    pub fn device_is_gone(&self, device: &DeviceId) {
        self.state().pending.retain(|_, pending| pending.device != *device);
    }

    /// The deployments for which a device still has calls.
    pub fn deployments_of(&self, device: &DeviceId) -> Vec<DeploymentName> {
        let state = self.state();
        let of = state.pending.values().filter(|pending| pending.device == *device);
        of.filter_map(|pending| pending.deployment.clone()).collect()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn learn(&mut self, key: (DeviceId, DeploymentName), seconds: f64, now: Instant) {
        if self.estimates.len() >= ESTIMATES_MAX {
            self.estimates.retain(|_, estimate| now.saturating_duration_since(estimate.at) < ESTIMATE_LIFE);
        }
        let before = self.estimates.get(&key).map(|estimate| estimate.seconds);
        let seconds = before.map_or(seconds, |before| before + WEIGHT * (seconds - before));
        self.estimates.insert(key, Estimate { seconds, at: now });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(text: &str) -> DeviceId {
        text.parse().expect("an id")
    }

    fn reply(number: u8, status: u16) -> Reply {
        Reply { id: Nonce([number; 16]), status, version: None, json_bytes: None, body: vec![] }
    }

    #[tokio::test]
    async fn only_the_device_that_was_asked_can_answer() {
        let (calls, digits, now) = (Calls::default(), "digits".parse().expect("a name"), Instant::now());
        let (device, answer) = calls.begin(Nonce([1; 16]), &digits, vec![id("a")], now).expect("a device");
        assert_eq!((device, calls.deployments_of(&id("a"))), (id("a"), vec![digits.clone()]));
        calls.reply(&id("b"), reply(1, 200), now);
        calls.reply(&id("a"), reply(1, 201), now);
        calls.reply(&id("a"), reply(1, 202), now);
        assert_eq!(answer.await.map(|reply| reply.status), Ok(201));
        let (_, answer) = calls.begin(Nonce([2; 16]), &digits, vec![id("a")], now).expect("a device");
        calls.device_is_gone(&id("a"));
        assert!(answer.await.is_err());
        assert_eq!(calls.deployments_of(&id("a")), []);
    }

    #[test]
    fn a_slow_device_is_asked_less_and_gets_another_chance() {
        let (calls, digits, start) = (Calls::default(), "digits".parse().expect("a name"), Instant::now());
        let devices = || vec![id("fast"), id("slow")];
        let mut number = 0;
        let mut ask = |at: Instant| {
            number += 1;
            let (device, _) = calls.begin(Nonce([number; 16]), &digits, devices(), at).expect("a device");
            let took = if device == id("fast") { Duration::from_millis(1) } else { Duration::from_millis(50) };
            calls.reply(&device, reply(number, 200), at + took);
            device
        };
        let asked: Vec<DeviceId> = (0..20).map(|_| ask(start)).collect();
        assert_eq!(asked.iter().filter(|device| **device == id("slow")).count(), 1, "{asked:?}");
        let later: Vec<DeviceId> = (0..4).map(|_| ask(start + ESTIMATE_LIFE * 2)).collect();
        assert!(later.contains(&id("slow")), "{later:?}");
    }

    #[test]
    fn a_full_device_is_not_asked() {
        let (calls, digits, now) = (Calls::default(), "digits".parse().expect("a name"), Instant::now());
        for number in 0..DEVICE_IN_FLIGHT_MAX {
            let nonce = Nonce([number as u8; 16]);
            assert!(calls.begin(nonce, &digits, vec![id("a")], now).is_some());
        }
        assert!(calls.begin(Nonce([255; 16]), &digits, vec![id("a")], now).is_none());
        let other = calls.begin(Nonce([255; 16]), &digits, vec![id("a"), id("b")], now);
        assert_eq!(other.map(|(device, _)| device), Some(id("b")));
    }
}
