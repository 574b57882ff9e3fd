//! Whether a device is there, and what an operator wants of it.

use muster_shared::api::fleet::{DeviceView, Schedule};
use muster_shared::api::members::Standing;
use muster_shared::id::UnixMs;

use crate::output::age;

/// In one word or two: `connected`, `cordoned`, `draining, silent 12s`.
pub fn state(device: &DeviceView, now_ms: UnixMs) -> String {
    let standing = match device.standing {
        Standing::Member => None,
        Standing::Waiting => Some("waiting"),
        Standing::Held => Some("held"),
        Standing::Cloned => Some("cloned"),
        Standing::Leaving => Some("leaving"),
        Standing::Revoked if device.departure.as_ref().is_some_and(|it| it.confirmed_ms.is_some()) => {
            Some("left, empty")
        }
        Standing::Revoked => Some("revoked"),
    };
    if let Some(word) = standing {
        return word.to_owned();
    }
    let silence = (!device.connected).then(|| match device.silent_since_ms {
        Some(since_ms) => format!("silent {}", age(since_ms, now_ms)),
        None => "silent".to_owned(),
    });
    let word = match device.schedule {
        Schedule::Open => None,
        Schedule::Cordoned => Some("cordoned"),
        Schedule::Draining => Some("draining"),
    };
    match (word, silence) {
        (Some(word), Some(silence)) => format!("{word}, {silence}"),
        (Some(word), None) => word.to_owned(),
        (None, Some(silence)) => silence,
        (None, None) => "connected".to_owned(),
    }
}

/// What an operator wants of it, and what that means.
pub fn schedule(schedule: Schedule) -> &'static str {
    match schedule {
        Schedule::Open => "open: replicas may be placed on it",
        Schedule::Cordoned => "cordoned: nothing new comes to it, and what is there stays",
        Schedule::Draining => "draining: nothing new comes to it, and what is there moves elsewhere",
    }
}

#[cfg(test)]
pub mod tests {
    use serde_json::{Value, json};

    use super::*;

    /// A device as the API gives it, with these fields in place of the usual ones.
    pub fn device(fields: Value) -> DeviceView {
        let mut whole = json!({
            "id": "edge-1", "connected": true, "silentSinceMs": null, "schedule": "open", "lastSeenMs": 1000,
            "enrolledMs": 1000, "fingerprint": muster_shared::Digest::of("key"), "labels": {"site": "north"},
            "desired": null, "applied": null, "facts": null, "slots": [], "refusals": [], "desiredRefused": null,
            "host": null, "models": [],
        });
        for (name, value) in fields.as_object().expect("an object") {
            whole[name] = value.clone();
        }
        serde_json::from_value(whole).expect("a device")
    }

    #[test]
    fn a_state_says_what_is_unusual() {
        for (fields, text) in [
            (json!({}), "connected"),
            (json!({"schedule": "cordoned"}), "cordoned"),
            (json!({"schedule": "draining"}), "draining"),
            (json!({"connected": false, "silentSinceMs": 1000}), "silent 12s"),
            (json!({"connected": false}), "silent"),
            (json!({"standing": "revoked", "connected": false}), "revoked"),
            (json!({"standing": "cloned"}), "cloned"),
            (json!({"standing": "leaving", "departure": {"askedMs": 5}}), "leaving"),
            (json!({"standing": "revoked", "departure": {"askedMs": 5}}), "revoked"),
            (json!({"standing": "revoked", "departure": {"askedMs": 5, "confirmedMs": 6}}), "left, empty"),
            (json!({"connected": false, "silentSinceMs": 1000, "schedule": "draining"}), "draining, silent 12s"),
        ] {
            assert_eq!(state(&device(fields), 13_000), text);
        }
    }
}
