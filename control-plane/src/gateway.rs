//! Predictions by deployment name, so that a fleet looks like one TensorFlow Serving: a request goes
//! over MQTT to a device that serves the deployment, and its answer comes back as it is.
//!
//! Everything has a deadline and a bound: what cannot be answered gets a status and `Retry-After`,
//! never a hang.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use muster_shared::id::Nonce;
use muster_shared::message::{Call, Reply, Request, TfServingVerb};
use muster_shared::topic::Leaf;
use muster_shared::{DeploymentName, DeviceId, Version};
use tokio::sync::{Semaphore, oneshot};
use tokio::time::timeout;

use crate::broker::QoS;
use crate::db::{self, DbError};
use crate::plane::Plane;

/// Requests in flight over all devices; then 429.
const IN_FLIGHT_MAX: usize = 1024;
/// Requests in flight to one device; then another one is asked, and where there is none, 429.
const DEVICE_IN_FLIGHT_MAX: usize = 64;
/// How long a device may take.
const DEADLINE: Duration = Duration::from_secs(10);

/// What is asked of a deployment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ask {
    /// The deployment.
    pub deployment: DeploymentName,
    /// The version, where the caller names one.
    pub version: Option<Version>,
    /// What to do.
    pub verb: TfServingVerb,
    /// The request's body.
    pub body: Vec<u8>,
}

/// A device's answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// Which device.
    pub device: DeviceId,
    /// The version that answered.
    pub version: Option<Version>,
    /// An HTTP status.
    pub status: u16,
    /// The answer's body.
    pub body: Vec<u8>,
}

/// Why there is no answer of a device.
#[derive(Debug, thiserror::Error)]
pub enum GatewayError {
    /// No such deployment.
    #[error("Servable not found for request: Latest({0})")]
    UnknownDeployment(DeploymentName),
    /// No device has this version of it.
    #[error("Servable not found for request: Specific({0}, {1})")]
    UnknownVersion(DeploymentName, Version),
    /// Nobody serves it now.
    #[error("no device serves {deployment} now: {reason}")]
    NobodyServes {
        /// The deployment.
        deployment: DeploymentName,
        /// Why.
        reason: String,
    },
    /// Too many requests.
    #[error("too many requests at a time")]
    Busy,
    /// The device took too long.
    #[error("{0} did not answer within {DEADLINE:?}")]
    Late(DeviceId),
    /// The device went away.
    #[error("{0} went away before it answered")]
    Gone(DeviceId),
    /// There is no randomness for an id.
    #[error("the system gives no random bytes")]
    Random,
    /// The database failed.
    #[error(transparent)]
    Db(#[from] DbError),
}

/// Requests in flight.
pub struct Gateway {
    places: Semaphore,
    calls: Mutex<HashMap<Nonce, Pending>>,
    /// Breaks ties between devices that are equally busy.
    turn: AtomicU64,
}

struct Pending {
    device: DeviceId,
    answer: oneshot::Sender<Reply>,
}

impl Default for Gateway {
    fn default() -> Self {
        Self { places: Semaphore::new(IN_FLIGHT_MAX), calls: Mutex::default(), turn: AtomicU64::new(0) }
    }
}

impl Gateway {
    /// Hands a reply to whoever waits for it. A reply by another device than the one asked, or one
    /// that comes too late, is dropped.
    pub fn reply(&self, device: &DeviceId, reply: Reply) {
        let mut calls = self.calls();
        if calls.get(&reply.id).is_some_and(|pending| pending.device == *device)
            && let Some(pending) = calls.remove(&reply.id)
        {
            // The asker may have given up in this moment.
            let _ = pending.answer.send(reply);
        }
    }

    /// Tells everyone who waits for a device that it is gone.
    pub fn device_is_gone(&self, device: &DeviceId) {
        self.calls().retain(|_, pending| pending.device != *device);
    }

    /// Requests in flight to each device.
    fn in_flight(&self) -> HashMap<DeviceId, usize> {
        let mut counts = HashMap::new();
        for pending in self.calls().values() {
            *counts.entry(pending.device.clone()).or_default() += 1;
        }
        counts
    }

    fn calls(&self) -> MutexGuard<'_, HashMap<Nonce, Pending>> {
        self.calls.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Asks a device that serves the deployment.
pub async fn ask(plane: &Plane, ask: Ask) -> Result<Answer, GatewayError> {
    let gateway = &plane.gateway;
    let Some(deployment) = db::deployments::get(plane.db.read(), &ask.deployment).await? else {
        return Err(GatewayError::UnknownDeployment(ask.deployment));
    };
    let _place = gateway.places.try_acquire().map_err(|_| GatewayError::Busy)?;
    let device = choose(plane, &ask).await?;
    let mut id = [0; 16];
    getrandom::fill(&mut id).map_err(|_| GatewayError::Random)?;
    let id = Nonce(id);
    let (sender, answer) = oneshot::channel();
    gateway.calls().insert(id, Pending { device: device.clone(), answer: sender });
    let _forget = Forget { gateway, id };
    let call = Call {
        id,
        reply_to: plane.instance.clone(),
        deadline_ms: DEADLINE.as_millis() as u32,
        request: Request::TfServing {
            served: deployment.spec.served_as.unwrap_or(ask.deployment),
            version: ask.version,
            verb: ask.verb,
            body: ask.body,
        },
    };
    plane.send(&device, Leaf::Call, &call, QoS::AtLeastOnce).await;
    match timeout(DEADLINE, answer).await {
        Ok(Ok(reply)) => Ok(Answer { device, version: reply.version, status: reply.status, body: reply.body }),
        Ok(Err(_)) => Err(GatewayError::Gone(device)),
        Err(_) => Err(GatewayError::Late(device)),
    }
}

/// Forgets a call when its asker is done with it, however that came.
struct Forget<'a> {
    gateway: &'a Gateway,
    id: Nonce,
}

impl Drop for Forget<'_> {
    fn drop(&mut self) {
        self.gateway.calls().remove(&self.id);
    }
}

/// The least busy of the connected devices that answer for this deployment.
async fn choose(plane: &Plane, ask: &Ask) -> Result<DeviceId, GatewayError> {
    let serving = serving(plane, &ask.deployment, ask.version);
    if serving.is_empty() {
        return Err(nobody(plane, ask).await?);
    }
    let in_flight = plane.gateway.in_flight();
    let turn = plane.gateway.turn.fetch_add(1, Ordering::Relaxed);
    least_busy(serving, &in_flight, turn).ok_or(GatewayError::Busy)
}

/// The connected devices whose slot of this deployment has a worker that answers: in whatever phase,
/// since the old version goes on while a new one is fetched, checked or refused.
fn serving(plane: &Plane, deployment: &DeploymentName, version: Option<Version>) -> Vec<DeviceId> {
    plane.live.read(|devices| {
        let serves = |(id, device): (&DeviceId, &crate::live::LiveDevice)| {
            let reported = device.reported.as_ref().filter(|_| device.connected)?;
            let slot = reported.slots.iter().find(|slot| slot.deployment == *deployment)?;
            let running = slot.running.as_ref()?;
            version.is_none_or(|version| version == running.version).then(|| id.clone())
        };
        devices.iter().filter_map(serves).collect()
    })
}

/// The least busy device below the bound; equally busy ones take turns.
fn least_busy(devices: Vec<DeviceId>, in_flight: &HashMap<DeviceId, usize>, turn: u64) -> Option<DeviceId> {
    let load = |device: &DeviceId| in_flight.get(device).copied().unwrap_or(0);
    let least = devices.iter().map(load).min().filter(|load| *load < DEVICE_IN_FLIGHT_MAX)?;
    let mut equals: Vec<DeviceId> = devices.into_iter().filter(|device| load(device) == least).collect();
    let at = turn.checked_rem(equals.len() as u64)?;
    Some(equals.swap_remove(at as usize))
}

/// Why nobody serves it.
async fn nobody(plane: &Plane, ask: &Ask) -> Result<GatewayError, GatewayError> {
    if let Some(version) = ask.version
        && !serving(plane, &ask.deployment, None).is_empty()
    {
        return Ok(GatewayError::UnknownVersion(ask.deployment.clone(), version));
    }
    let status = crate::status::of(plane, &ask.deployment).await?;
    let reason = status.and_then(|status| crate::status::why_not_available(&status));
    Ok(GatewayError::NobodyServes {
        deployment: ask.deployment.clone(),
        reason: reason.unwrap_or_else(|| "it was just removed".to_owned()),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_least_busy_device_is_asked_and_equals_take_turns() {
        let id = |text: &str| -> DeviceId { text.parse().expect("an id") };
        let devices = || vec![id("a"), id("b"), id("c")];
        let busy = HashMap::from([(id("a"), 2), (id("b"), 1)]);
        assert_eq!(least_busy(devices(), &busy, 0), Some(id("c")));
        let none = HashMap::new();
        let turns: Vec<_> = (0..4).filter_map(|turn| least_busy(devices(), &none, turn)).collect();
        assert_eq!(turns, [id("a"), id("b"), id("c"), id("a")]);
        let full = devices().into_iter().map(|device| (device, DEVICE_IN_FLIGHT_MAX)).collect();
        assert_eq!(least_busy(devices(), &full, 0), None);
        assert_eq!(least_busy(vec![], &none, 0), None);
    }

    #[tokio::test]
    async fn only_the_device_that_was_asked_can_answer() {
        let gateway = Gateway::default();
        let (a, b): (DeviceId, DeviceId) = ("a".parse().expect("an id"), "b".parse().expect("an id"));
        let (sender, answer) = oneshot::channel();
        let id = Nonce([1; 16]);
        gateway.calls().insert(id, Pending { device: a.clone(), answer: sender });
        let reply = |status| Reply { id, status, version: None, body: vec![] };
        gateway.reply(&b, reply(200));
        gateway.reply(&a, reply(201));
        gateway.reply(&a, reply(202));
        assert_eq!(answer.await.map(|reply| reply.status), Ok(201));
        let (sender, answer) = oneshot::channel();
        gateway.calls().insert(id, Pending { device: a.clone(), answer: sender });
        gateway.device_is_gone(&a);
        assert!(answer.await.is_err());
    }
}
