//! Devices: what they are, what they run, how they fare.

use muster_shared::DeviceId;
use muster_shared::api::fleet::{DeviceView, ModelView};
use muster_shared::id::UnixMs;
use muster_shared::reported::{Phase, SlotReport};

use super::{Item, Kind, found, labels, name};
use crate::client::Client;
use crate::error::{Attempt as _, Result};
use crate::output::{Facts, age, bytes, date, now_ms, or_dash};
use crate::tell::{self, figures};

pub const HEADER: &[&str] = &["NAME", "STATE", "SEEN", "SERVING", "CPU", "MEMORY", "AGENT"];
pub const HEADER_WIDE: &[&str] = &["ARCH", "OS", "TEMPERATURE", "DISK FREE", "APPLIED", "DESIRED", "LABELS"];

/// Telemetry and the time of the last message.
const RESTLESS: &[&str] = &["lastSeenMs", "host", "models"];

pub async fn fetch(client: &Client, only: Option<&str>, wide: bool) -> Result<Vec<Item>> {
    let all = match only {
        Some(only) => vec![one(client, only).await?],
        None => client.get("/devices").await.attempt(|| "cannot list the devices")?,
    };
    all.iter().map(|device| item(device, wide, now_ms())).collect()
}

async fn one(client: &Client, text: &str) -> Result<DeviceView> {
    let id: DeviceId = name(Kind::Devices, text)?;
    found(Kind::Devices, text, client.get(&format!("/devices/{id}")).await)
}

fn item(device: &DeviceView, wide: bool, now_ms: UnixMs) -> Result<Item> {
    let serving = device.slots.iter().filter(|slot| matches!(slot.phase, Phase::Serving | Phase::Probation)).count();
    let mut row = vec![
        device.id.to_string(),
        tell::device::state(device, now_ms),
        or_dash(device.last_seen_ms.map(|at| age(at, now_ms))),
        format!("{serving}/{}", device.slots.len()),
        or_dash(device.host.as_ref().map(|host| format!("{:.0}%", f64::from(host.cpu_permille) / 10.0))),
        or_dash(
            device
                .host
                .as_ref()
                .map(|host| format!("{} of {}", bytes(host.memory_used_bytes), bytes(host.memory_bytes))),
        ),
        or_dash(device.facts.as_ref().map(|facts| facts.agent.clone())),
    ];
    if wide {
        let disk = device.host.as_ref().and_then(|host| host.disk_free_bytes);
        row.extend([
            or_dash(device.facts.as_ref().map(|facts| facts.arch.clone())),
            or_dash(device.facts.as_ref().map(|facts| facts.os.clone())),
            or_dash(temperature(device)),
            or_dash(disk.map(bytes)),
            or_dash(device.applied),
            or_dash(device.desired),
            labels(&device.labels),
        ]);
    }
    Item::new(device.id.to_string(), row, device, RESTLESS)
}

fn temperature(device: &DeviceView) -> Option<String> {
    let milli = device.host.as_ref()?.temperature_millicelsius?;
    Some(format!("{:.1} °C", f64::from(milli) / 1000.0))
}

pub async fn describe(client: &Client, name: &str) -> Result<String> {
    Ok(text(&one(client, name).await?, now_ms()))
}

/// All that is known of a device, for people.
pub fn text(device: &DeviceView, now_ms: UnixMs) -> String {
    let mut facts = Facts::default();
    facts.add("name", &device.id);
    facts.add("labels", labels(&device.labels));
    facts.add("state", tell::device::state(device, now_ms));
    if let Some(why) = &device.standing_why {
        facts.add("standing", why);
    }
    facts.add("schedule", tell::device::schedule(device.schedule));
    facts.add("last seen", or_dash(device.last_seen_ms.map(date)));
    facts.add("enrolled", date(device.enrolled_ms));
    facts.add("key", device.fingerprint);
    facts.add("desired", format!("{} (applied {})", or_dash(device.desired), or_dash(device.applied)));
    device.notes.iter().for_each(|note| facts.add("note", note));
    if let Some(refused) = &device.desired_refused {
        facts.add("refused desired", format!("{}: {}", or_dash(refused.generation), refused.reason));
    }
    if let Some(is) = &device.facts {
        facts.add("agent", &is.agent);
        facts.add("machine", format!("{}, {}, {}", is.arch, is.os, or_dash(is.cpu_model.as_ref())));
        facts.add("for models", format!("{}m cores, {} memory", is.cpu_milli, bytes(is.memory_bytes)));
        facts.add("engines", is.engines.join(", "));
        facts.add("isolation", is.isolation.join(", "));
    }
    if let Some(host) = &device.host {
        facts.add("processor", format!("{:.1} % in use", f64::from(host.cpu_permille) / 10.0));
        facts.add("memory", format!("{} of {} in use", bytes(host.memory_used_bytes), bytes(host.memory_bytes)));
        facts.add(
            "disk",
            format!("{} of {} free", or_dash(host.disk_free_bytes.map(bytes)), or_dash(host.disk_bytes.map(bytes))),
        );
        facts.add("temperature", or_dash(temperature(device)));
    }
    device.slots.iter().for_each(|it| facts.add("slot", slot(it)));
    device.models.iter().for_each(|it| facts.add("traffic", traffic(it)));
    for refusal in &device.refusals {
        let bundle = &refusal.bundle;
        facts.add("refusal", format!("{} {}: {:?}: {}", bundle.model, bundle.version, refusal.kind, refusal.reason));
    }
    facts.render()
}

fn slot(slot: &SlotReport) -> String {
    let bundle = slot.running.as_ref().or(slot.wanted.as_ref());
    let bundle = or_dash(bundle.map(|bundle| format!("{} {}", bundle.model, bundle.version)));
    let mut text = format!("{} {:?}: {bundle}", slot.deployment, slot.phase);
    if let Some(measured) = slot.measured {
        let latency = milliseconds(measured.latency_us as f64);
        text.push_str(&format!(", {latency} and {} measured", bytes(measured.memory_peak_bytes)));
    }
    if slot.restarts > 0 {
        text.push_str(&format!(", restarted {} times", slot.restarts));
    }
    if let Some(waiting) = &slot.waiting {
        text.push_str(&format!(", waits: {waiting}"));
    }
    text
}

fn traffic(model: &ModelView) -> String {
    let latency = |us: Option<f64>| or_dash(us.map(milliseconds));
    let figures = model.figures.as_ref().map(|it| format!("; {}", figures::phrase(it))).unwrap_or_default();
    format!(
        "{} {}: {} requests, {} errors, p50 {}, p99 {}{figures}",
        model.deployment,
        model.version,
        model.requests,
        model.errors,
        latency(model.p50_us),
        latency(model.p99_us)
    )
}

fn milliseconds(us: f64) -> String {
    format!("{:.2} ms", us / 1000.0)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::tell::device::tests::device;
    use crate::tell::replicas::tests::worked_example;

    #[test]
    fn a_row_has_the_state() {
        let silent = device(json!({"connected": false, "silentSinceMs": 1000, "schedule": "cordoned"}));
        let row = item(&silent, false, 13_000).expect("an item").row;
        assert_eq!(row, ["edge-1", "cordoned, silent 12s", "12s", "0/0", "-", "-", "-"]);
        assert_eq!(HEADER.len(), row.len());
        let wide = item(&silent, true, 13_000).expect("an item").row;
        assert_eq!(HEADER.len() + HEADER_WIDE.len(), wide.len());
    }

    #[test]
    fn a_description_has_schedule_and_figures() {
        let models = json!([{"deployment": "digits", "version": 2, "requests": 400, "errors": 1, "cpuUs": 10_000_000,
                             "figures": worked_example(), "p50Us": 24_000.0, "p99Us": null}]);
        let said = text(&device(json!({"models": models, "schedule": "draining"})), 2_000);
        assert_eq!(
            said,
            format!(
                "\
name        edge-1
labels      site=north
state       draining
schedule    draining: nothing new comes to it, and what is there moves elsewhere
last seen   1970-01-01T00:00:01Z
enrolled    1970-01-01T00:00:01Z
key         {}
desired     - (applied -)
traffic     digits 2: 400 requests, 1 errors, p50 24.00 ms, p99 -; share 12.5%, 40.0 req/s, R 25.0 core-ms, A 1.00 cores
",
                muster_shared::Digest::of("key")
            )
        );
    }
}
