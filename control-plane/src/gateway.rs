//! Predictions by deployment name, so that a fleet looks like one TensorFlow Serving: a request goes
//! over MQTT to a device that serves the deployment, and its answer comes back as it is.
//!
//! Everything has a deadline and a bound: what cannot be answered gets a status and `Retry-After`,
//! never a hang.

mod calls;
pub mod commands;
mod soonest;

use std::time::{Duration, Instant};

use muster_shared::id::Nonce;
use muster_shared::message::{Call, Door, DoorRequest, Reply, Request};
use muster_shared::topic::Leaf;
use muster_shared::{DeploymentName, DeviceId, Version};
use tokio::sync::Semaphore;
use tokio::time::timeout;

use self::calls::Calls;
use crate::broker::QoS;
use crate::db::{self, DbError};
use crate::plane::Plane;
use crate::routes::{Route, Routes};

/// Requests in flight over all devices; then 429.
const IN_FLIGHT_MAX: usize = 1024;
/// How long an answer may take, where the asker says nothing.
pub const DEADLINE: Duration = Duration::from_secs(10);
/// The longest time that an asker may give.
pub const DEADLINE_MAX: Duration = Duration::from_secs(25);
/// How often a request is tried, each time on another device.
const TRIES_MAX: usize = 2;

/// What is asked of a deployment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ask {
    /// The deployment.
    pub deployment: DeploymentName,
    /// The version, where the caller names one.
    pub version: Option<Version>,
    /// At which door.
    pub door: Door,
    /// Whether it is a `POST`; else a `GET`.
    pub post: bool,
    /// The path behind the deployment's name.
    pub rest: String,
    /// How much of the body is JSON, where tensors follow it.
    pub json_bytes: Option<u32>,
    /// The request's body.
    pub body: Vec<u8>,
    /// How long the asker waits.
    pub deadline: Duration,
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
    /// How much of the body is JSON, where tensors follow it.
    pub json_bytes: Option<u32>,
    /// The answer's body.
    pub body: Vec<u8>,
}

/// Why there is no answer of a device.
#[derive(Debug, thiserror::Error)]
pub enum GatewayError {
    /// No such deployment.
    #[error("there is no deployment {0}")]
    UnknownDeployment(DeploymentName),
    /// No device has this version of it.
    #[error("no device serves version {1} of {0}")]
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
    #[error("{0} did not answer within {1:?}")]
    Late(DeviceId, Duration),
    /// The device went away.
    #[error("{0} went away before it answered")]
    Gone(DeviceId),
    /// The device cannot be asked now.
    #[error("{device} {reason}")]
    NotThere {
        /// The device.
        device: DeviceId,
        /// Why.
        reason: String,
    },
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
    calls: Calls,
}

impl Default for Gateway {
    fn default() -> Self {
        Self { places: Semaphore::new(IN_FLIGHT_MAX), calls: Calls::default() }
    }
}

impl Gateway {
    /// Hands a reply to whoever waits for it. A reply by another device than the one asked, or one
    /// that comes too late, is dropped.
    pub fn reply(&self, device: &DeviceId, reply: Reply) {
        self.calls.reply(device, reply, Instant::now());
    }

    /// Tells everyone who waits for a device that it is gone.
    pub fn device_is_gone(&self, device: &DeviceId) {
        self.calls.device_is_gone(device);
    }

    /// Whether a device still has calls for a deployment that it is no longer asked for.
    pub fn is_draining(&self, device: &DeviceId, routes: &Routes) -> bool {
        let table = routes.now();
        let asked =
            |deployment: &DeploymentName| table.get(deployment).is_some_and(|route| route.devices.contains(device));
        self.calls.deployments_of(device).iter().any(|deployment| !asked(deployment))
    }
}

/// Asks the device that will answer soonest; another one where that one went away, has no time or no
/// longer serves it. A prediction changes nothing, so asking twice is safe. One that ended a model's
/// process is not asked again: it might end the next one.
pub async fn ask(plane: &Plane, ask: Ask) -> Result<Answer, GatewayError> {
    let Some(route) = plane.routes.now().get(&ask.deployment).cloned() else {
        return Err(no_route(plane, &ask).await?);
    };
    let _place = plane.gateway.places.try_acquire().map_err(|_| GatewayError::Busy)?;
    let until = Instant::now() + ask.deadline;
    let mut tried: Vec<DeviceId> = Vec::new();
    let mut last: Option<Result<Answer, GatewayError>> = None;
    while tried.len() < TRIES_MAX {
        let mut devices = serving(plane, &route, &ask.deployment, ask.version);
        devices.retain(|device| !tried.contains(device));
        let left = until.saturating_duration_since(Instant::now());
        if last.is_some() && (devices.is_empty() || left.is_zero()) {
            break;
        }
        if devices.is_empty() {
            return Err(nobody(plane, &route, &ask).await?);
        }
        let (device, outcome) = ask_one(plane, &ask, &route, devices, left).await?;
        if !worth_another_try(&outcome) {
            return outcome;
        }
        tried.push(device);
        last = Some(outcome);
    }
    last.unwrap_or(Err(GatewayError::Busy))
}

/// Asks the soonest of these devices once.
async fn ask_one(
    plane: &Plane,
    ask: &Ask,
    route: &Route,
    devices: Vec<DeviceId>,
    left: Duration,
) -> Result<(DeviceId, Result<Answer, GatewayError>), GatewayError> {
    let calls = &plane.gateway.calls;
    let mut id = [0; 16];
    getrandom::fill(&mut id).map_err(|_| GatewayError::Random)?;
    let id = Nonce(id);
    let begun = calls.begin(id, &ask.deployment, devices, Instant::now());
    let (device, answer) = begun.ok_or(GatewayError::Busy)?;
    let _forget = Forget { calls, id };
    let call = Call {
        id,
        reply_to: plane.instance.clone(),
        deadline_ms: left.as_millis().try_into().unwrap_or(u32::MAX),
        request: Request::Door(DoorRequest {
            door: ask.door,
            post: ask.post,
            served: route.served.clone(),
            rest: ask.rest.clone(),
            json_bytes: ask.json_bytes,
            body: ask.body.clone(),
        }),
    };
    plane.send(&device, Leaf::Call, &call, QoS::AtLeastOnce).await;
    let outcome = match timeout(left, answer).await {
        Ok(Ok(reply)) => {
            let Reply { version, status, json_bytes, body, .. } = reply;
            Ok(Answer { device: device.clone(), version, status, json_bytes, body })
        }
        Ok(Err(_)) => Err(GatewayError::Gone(device.clone())),
        Err(_) => Err(GatewayError::Late(device.clone(), ask.deadline)),
    };
    Ok((device, outcome))
}

/// Whether another device may do better: this one is gone, is full, does not serve it any more, or its
/// worker was not there to take the request.
fn worth_another_try(outcome: &Result<Answer, GatewayError>) -> bool {
    match outcome {
        Ok(answer) => matches!(answer.status, 404 | 429 | 503),
        Err(error) => matches!(error, GatewayError::Gone(_)),
    }
}

/// Forgets a call when its asker is done with it, however that came.
struct Forget<'a> {
    calls: &'a Calls,
    id: Nonce,
}

impl Drop for Forget<'_> {
    fn drop(&mut self) {
        self.calls.end(&self.id);
    }
}

/// The connected devices of a route whose slot has a worker that answers: in whatever phase, since the
/// old version goes on while a new one is fetched, checked or refused.
fn serving(plane: &Plane, route: &Route, deployment: &DeploymentName, version: Option<Version>) -> Vec<DeviceId> {
    plane.live.read(|devices| {
        let serves = |id: &&DeviceId| {
            let device = devices.get(*id).filter(|device| device.connected);
            let reported = device.and_then(|device| device.reported.as_ref());
            let slot = reported.and_then(|reported| reported.slots.iter().find(|slot| slot.deployment == *deployment));
            let running = slot.and_then(|slot| slot.running.as_ref());
            running.is_some_and(|running| version.is_none_or(|version| version == running.version))
        };
        route.devices.iter().filter(serves).cloned().collect()
    })
}

/// Why there is no route: there is no such deployment, or the planner has yet to look at it.
async fn no_route(plane: &Plane, ask: &Ask) -> Result<GatewayError, GatewayError> {
    match db::deployments::exists(plane.db.read(), &ask.deployment).await? {
        false => Ok(GatewayError::UnknownDeployment(ask.deployment.clone())),
        true => Ok(GatewayError::NobodyServes {
            deployment: ask.deployment.clone(),
            reason: "the planner has yet to look at it".to_owned(),
        }),
    }
}

/// Why nobody serves it.
async fn nobody(plane: &Plane, route: &Route, ask: &Ask) -> Result<GatewayError, GatewayError> {
    if let Some(version) = ask.version
        && !serving(plane, route, &ask.deployment, None).is_empty()
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
