//! A version change over the fleet, in a line and in a word.

use muster_shared::api::deployment::{RolloutStage, RolloutView};

use super::count;

/// Everything in one line: `version 2 (from 1), wave 2 of 3: 1 of 2 devices healthy (8 in all); …`.
pub fn line(rollout: &RolloutView) -> String {
    let from = rollout.previous.map(|previous| format!(" (from {previous})")).unwrap_or_default();
    let version = format!("version {}{from}", rollout.version);
    let wave = format!("wave {} of {}", rollout.wave, rollout.waves);
    let message = &rollout.message;
    match rollout.stage {
        RolloutStage::Running => format!("{version}, {wave}: {}; {message}", healthy(rollout)),
        RolloutStage::Paused => format!("{version}, paused in {wave}: {}; {message}", healthy(rollout)),
        RolloutStage::Stopped => format!("{version}, stopped in {wave}: {message}"),
        RolloutStage::Undone => format!("{version}, undone: {message}"),
        RolloutStage::Done => format!("{version}, done: {message}"),
    }
}

/// For a column: `wave 2/3`, `paused 2/3`, `stopped`, `undone`, `done`.
pub fn word(rollout: &RolloutView) -> String {
    let wave = || format!("{}/{}", rollout.wave, rollout.waves);
    match rollout.stage {
        RolloutStage::Running => format!("wave {}", wave()),
        RolloutStage::Paused => format!("paused {}", wave()),
        stage => stage_name(stage).to_owned(),
    }
}

/// The stage alone.
pub fn stage_name(stage: RolloutStage) -> &'static str {
    match stage {
        RolloutStage::Running => "running",
        RolloutStage::Paused => "paused",
        RolloutStage::Stopped => "stopped",
        RolloutStage::Undone => "undone",
        RolloutStage::Done => "done",
    }
}

/// Each device on which it failed, and why.
pub fn failures(rollout: &RolloutView) -> impl Iterator<Item = String> {
    rollout.failed.iter().map(|failure| format!("{}: {}", failure.device, failure.reason))
}

fn healthy(rollout: &RolloutView) -> String {
    let of = format!("{} of {} healthy", rollout.healthy, count(rollout.granted, "device"));
    if rollout.granted == rollout.devices { of } else { format!("{of} ({} in all)", rollout.devices) }
}

#[cfg(test)]
pub mod tests {
    use serde_json::{Value, json};

    use super::*;

    /// A rollout as the API gives it, with these fields in place of the usual ones.
    pub fn rollout(fields: Value) -> Value {
        let mut whole = json!({
            "number": 2, "stage": "running", "version": 2, "previous": 1, "wave": 2, "waves": 3, "granted": 3,
            "healthy": 1, "devices": 3, "failed": [], "message": "it waits for edge-2 (in probation)",
            "beganMs": 1_700_000_000_000_u64, "changedMs": 1_700_000_060_000_u64,
        });
        for (name, value) in fields.as_object().expect("an object") {
            whole[name] = value.clone();
        }
        whole
    }

    #[test]
    fn each_stage_has_its_line_and_its_word() {
        let held = "an operator holds it";
        let back = "edge-1: refused; devices are back on version 1";
        for (fields, text, short) in [
            (
                json!({}),
                "version 2 (from 1), wave 2 of 3: 1 of 3 devices healthy; it waits for edge-2 (in probation)",
                "wave 2/3",
            ),
            (
                json!({"granted": 1, "healthy": 0, "devices": 8, "wave": 1, "previous": null}),
                "version 2, wave 1 of 3: 0 of 1 device healthy (8 in all); it waits for edge-2 (in probation)",
                "wave 1/3",
            ),
            (
                json!({"stage": "paused", "message": held}),
                "version 2 (from 1), paused in wave 2 of 3: 1 of 3 devices healthy; an operator holds it",
                "paused 2/3",
            ),
            (
                json!({"stage": "stopped", "wave": 1, "message": back}),
                "version 2 (from 1), stopped in wave 1 of 3: edge-1: refused; devices are back on version 1",
                "stopped",
            ),
            (json!({"stage": "undone", "message": "taken back"}), "version 2 (from 1), undone: taken back", "undone"),
            (json!({"stage": "done", "message": "everywhere"}), "version 2 (from 1), done: everywhere", "done"),
        ] {
            let view: RolloutView = serde_json::from_value(rollout(fields)).expect("a rollout");
            assert_eq!((line(&view).as_str(), word(&view).as_str()), (text, short));
        }
    }

    #[test]
    fn failures_name_device_and_reason() {
        let failed = json!([{"device": "edge-1", "reason": "golden vectors: row 2"}]);
        let view: RolloutView = serde_json::from_value(rollout(json!({"failed": failed}))).expect("a rollout");
        assert_eq!(failures(&view).collect::<Vec<_>>(), ["edge-1: golden vectors: row 2"]);
    }
}
