//! Tells devices that are to leave to empty themselves, as often as it takes, and believes only their own key that
//! they have.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::stream::{FuturesUnordered, StreamExt as _};
use muster_shared::api::members::Standing;
use muster_shared::checks::{self, Check};
use muster_shared::command::{Emptied, Order, SignedEmptied};
use muster_shared::id::Nonce;
use muster_shared::limits::clip;
use muster_shared::signing::VerifyError;
use muster_shared::signing::payload_type;
use muster_shared::{DeviceId, wire};

use crate::db;
use crate::gateway::{Answer, commands};
use crate::live::LiveDevice;
use crate::plane::Plane;
use crate::trust::members::{self, MemberError};

/// How often a device that has yet to leave is looked at.
const PERIOD: Duration = Duration::from_secs(2);
/// Devices that are told at once.
const AT_ONCE_MAX: usize = 16;
/// How soon a device that said no is asked again: its owner may have changed that.
const AGAIN_AFTER: Duration = Duration::from_secs(60);
/// How long a device may take to remove its models.
const DEADLINE: Duration = Duration::from_secs(60);

/// Why a device's word does not count.
#[derive(Debug, thiserror::Error)]
enum NotEmptied {
    #[error("it answered with status {0}: {1}")]
    Refused(u16, String),
    #[error("what it said cannot be read")]
    Malformed(#[from] wire::WireError),
    #[error("its key did not sign that")]
    Signature(#[from] VerifyError),
    #[error("what it signed is about another command, device or fleet")]
    Other,
}

/// Tells them until the plane stops.
pub async fn run(plane: Arc<Plane>) {
    // Who said no, and from when on it is asked again.
    let mut later = BTreeMap::new();
    loop {
        let round = async {
            match look(&plane).await {
                Ok(leaving) => tell(&plane, leaving, &mut later).await,
                Err(error) => {
                    tracing::warn!(error = &error as &dyn std::error::Error, "cannot look which devices leave");
                }
            }
            let _ = tokio::time::timeout(PERIOD, plane.nudges.departures.notified()).await;
        };
        tokio::select! {
            () = plane.stop.cancelled() => return,
            () = round => {}
        }
    }
}

/// Who is to be told now. Those that said that they are empty, when the plane stopped before it let them go, are let
/// go. While a restored database waits for an operator, nobody leaves: it may be older than the word that kept one.
async fn look(plane: &Plane) -> Result<Vec<DeviceId>, MemberError> {
    let can_be_told = |device: &LiveDevice| device.connected && device.hello.is_some();
    if leaving(plane, |_| true).is_empty() || members::waits(plane.db.read()).await?.is_some() {
        return Ok(vec![]);
    }
    let departures = db::departures::list(plane.db.read()).await?;
    let said = |id: &DeviceId| departures.get(id).is_some_and(|departure| departure.confirmed_ms.is_some());
    for id in leaving(plane, |_| true).iter().filter(|id| said(id)) {
        members::let_go(plane, id).await?;
    }
    Ok(leaving(plane, can_be_told))
}

/// Those that are on their way out and of which this is so.
fn leaving(plane: &Plane, which: impl Fn(&LiveDevice) -> bool) -> Vec<DeviceId> {
    let leaves = |device: &LiveDevice| device.standing == Standing::Leaving && which(device);
    plane.live.read(|devices| devices.iter().filter(|(_, device)| leaves(device)).map(|(id, _)| id.clone()).collect())
}

async fn tell(plane: &Plane, leaving: Vec<DeviceId>, later: &mut BTreeMap<DeviceId, Instant>) {
    let now = Instant::now();
    later.retain(|_, at| *at > now);
    let due: Vec<DeviceId> = leaving.into_iter().filter(|id| !later.contains_key(id)).collect();
    for some in due.chunks(AT_ONCE_MAX) {
        let mut told = FuturesUnordered::new();
        for id in some {
            told.push(tell_one(plane, id));
        }
        while let Some(told) = told.next().await {
            if let Err(Not(id)) = told {
                later.insert(id, now + AGAIN_AFTER);
            }
        }
    }
}

/// It answered, and not that it is empty.
struct Not(DeviceId);

/// One device's trouble is its own.
async fn tell_one(plane: &Plane, id: &DeviceId) -> Result<(), Not> {
    // An operator may have kept it while others were told.
    match db::members::standing(plane.db.read(), id).await {
        Ok(stands) if stands.standing == Standing::Leaving => {}
        _ => return Ok(()),
    }
    let (command, answer) = match commands::order_within(plane, id, Order::Decommission, DEADLINE).await {
        Ok(answered) => answered,
        // It is told again.
        Err(error) => {
            tracing::debug!(device = %id, %error, "a device cannot be told to leave now");
            return Ok(());
        }
    };
    match verify(plane, id, command, &answer) {
        Ok(()) => match members::emptied(plane, id).await {
            Ok(()) => tracing::info!(device = %id, "a device left the fleet, and said that it is empty"),
            Err(error) => {
                tracing::warn!(device = %id, error = &error as &dyn std::error::Error, "cannot let a device go");
            }
        },
        Err(error) => {
            note(plane, id, &crate::http::error::chain(&error));
            return Err(Not(id.clone()));
        }
    }
    Ok(())
}

/// Why it has not left yet, for whoever looks at it.
fn note(plane: &Plane, id: &DeviceId, why: &str) {
    let text = clip(format!("an operator takes it out of the fleet; it has yet to say that it is empty: {why}"));
    tracing::warn!(device = %id, why, "a device does not leave");
    plane.live.explains(id, Standing::Leaving, &text);
}

/// The device's own key says that it carried out this command.
fn verify(plane: &Plane, id: &DeviceId, command: Nonce, answer: &Answer) -> Result<(), NotEmptied> {
    if answer.status != 200 {
        let told = serde_json::from_slice::<serde_json::Value>(&answer.body).ok();
        let text = told.as_ref().and_then(|told| told["error"].as_str()).unwrap_or_default();
        return Err(NotEmptied::Refused(answer.status, clip(text.to_owned())));
    }
    let SignedEmptied(envelope) = wire::decode(&answer.body)?;
    let live = plane.live.get(id).ok_or(NotEmptied::Other)?;
    let verified = envelope.verify_device(payload_type::EMPTIED, &live.key);
    let payload = match verified {
        Err(_) if !checks::on(Check::DeviceSignature) => envelope.payload.as_slice(),
        other => other?,
    };
    let emptied: Emptied = wire::decode(payload)?;
    let fleet = plane.trust.newest().map(|root| root.root().fleet.clone());
    let is_this = emptied.device == *id && emptied.command == command && Some(emptied.fleet) == fleet;
    if is_this { Ok(()) } else { Err(NotEmptied::Other) }
}
