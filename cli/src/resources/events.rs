//! What happened lately, oldest first, so that the newest stands next to the prompt. A name is a
//! device's or a deployment's.

use muster_shared::api::fleet::EventView;

use super::Item;
use crate::client::Client;
use crate::error::{Attempt as _, Result};
use crate::output::{date, or_dash};

pub const HEADER: &[&str] = &["TIME", "DEVICE", "DEPLOYMENT", "EVENT", "TEXT"];
pub const HEADER_WIDE: &[&str] = &[];

/// How many are asked for.
const EVENTS_MAX: usize = 200;

pub async fn fetch(client: &Client, only: Option<&str>) -> Result<Vec<Item>> {
    let all: Vec<EventView> =
        client.get(&format!("/events?limit={EVENTS_MAX}")).await.attempt(|| "cannot list the events")?;
    let about = |event: &EventView, name: &str| {
        event.device.as_ref().is_some_and(|device| device.as_str() == name)
            || event.deployment.as_ref().is_some_and(|deployment| deployment.as_str() == name)
    };
    let wanted = all.iter().rev().filter(|event| only.is_none_or(|name| about(event, name)));
    wanted.map(item).collect()
}

fn item(event: &EventView) -> Result<Item> {
    let row = vec![
        date(event.at_ms),
        or_dash(event.device.as_ref()),
        or_dash(event.deployment.as_ref()),
        format!("{:?}", event.kind),
        event.text.clone(),
    ];
    Item::new(format!("{} {}", event.at_ms, row[1..].join(" ")), row, event, &[])
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_happens_in_the_plane_is_shown_like_what_happens_on_a_device() {
        for (kind, shown) in [
            ("deviceLost", "DeviceLost"),
            ("deviceReturned", "DeviceReturned"),
            ("replicaMoved", "ReplicaMoved"),
            ("movesFrozen", "MovesFrozen"),
            ("movesResumed", "MovesResumed"),
            ("rolloutStarted", "RolloutStarted"),
            ("rolloutWave", "RolloutWave"),
            ("rolloutPaused", "RolloutPaused"),
            ("rolloutStopped", "RolloutStopped"),
            ("rolloutUndone", "RolloutUndone"),
            ("rolloutDone", "RolloutDone"),
        ] {
            let event = json!({"atMs": 0, "device": null, "kind": kind, "deployment": "digits", "text": "as it is"});
            let event: EventView = serde_json::from_value(event).expect("an event");
            assert_eq!(item(&event).expect("an item").row, ["1970-01-01T00:00:00Z", "-", "digits", shown, "as it is"]);
        }
    }
}
