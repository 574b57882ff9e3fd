//! What is asked of one device beside predictions: signed by the director, bound to the device, its key
//! and its last `hello`, so that a broker's owner can neither make such a command nor say it again.

use std::time::{Duration, Instant};

use muster_shared::DeviceId;
use muster_shared::command::{Command, Order};
use muster_shared::id::Nonce;
use muster_shared::message::{Call, Reply, Request};
use muster_shared::signing::payload_type;
use muster_shared::topic::Leaf;
use muster_shared::wire;
use tokio::time::timeout;

use super::{Answer, Forget, GatewayError};
use crate::broker::QoS;
use crate::now_ms;
use crate::plane::Plane;

/// How long a device may take to carry out a command.
const DEADLINE: Duration = Duration::from_secs(10);

/// Orders a device to do something, and waits for what it says.
pub async fn order(plane: &Plane, device: &DeviceId, order: Order) -> Result<Answer, GatewayError> {
    order_within(plane, device, order, DEADLINE).await.map(|(_, answer)| answer)
}

/// The same with a deadline; gives the command's id, too.
pub async fn order_within(
    plane: &Plane,
    device: &DeviceId,
    order: Order,
    deadline: Duration,
) -> Result<(Nonce, Answer), GatewayError> {
    let not_there = |reason: &str| GatewayError::NotThere { device: device.clone(), reason: reason.to_owned() };
    let live = plane.live.get(device).filter(|live| live.connected).ok_or_else(|| not_there("is not connected"))?;
    let hello = live.hello.ok_or_else(|| not_there("is connected but has yet to say hello"))?;
    let root = plane.trust.newest().ok_or_else(|| not_there("obeys nobody before there is a root"))?;
    let _place = plane.gateway.places.try_acquire().map_err(|_| GatewayError::Busy)?;
    let mut id = [0; 16];
    getrandom::fill(&mut id).map_err(|_| GatewayError::Random)?;
    let id = Nonce(id);
    let command = Command {
        fleet: root.root().fleet.clone(),
        device: device.clone(),
        fingerprint: live.fingerprint,
        id,
        nonce: hello.nonce,
        issued_ms: now_ms(),
        order,
    };
    let payload = wire::encode(&command).map_err(|_| GatewayError::Busy)?;
    let calls = &plane.gateway.calls;
    let answer = calls.begin_command(id, device, Instant::now()).ok_or(GatewayError::Busy)?;
    let _forget = Forget { calls, id };
    let call = Call {
        id,
        reply_to: plane.instance.clone(),
        deadline_ms: deadline.as_millis().try_into().unwrap_or(u32::MAX),
        request: Request::Command(plane.director.sign(payload_type::COMMAND, payload)),
    };
    plane.send(device, Leaf::Call, &call, QoS::AtLeastOnce).await;
    match timeout(deadline, answer).await {
        Ok(Ok(Reply { version, status, json_bytes, body, .. })) => {
            Ok((id, Answer { device: device.clone(), version, status, json_bytes, body }))
        }
        Ok(Err(_)) => Err(GatewayError::Gone(device.clone())),
        Err(_) => Err(GatewayError::Late(device.clone(), deadline)),
    }
}
