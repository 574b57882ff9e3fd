//! Devices: what they are, what they run, how they fare.

use muster_shared::DeviceId;
use muster_shared::api::fleet::{DeviceView, ModelView};
use muster_shared::hardware::{Hardware, Health};
use muster_shared::id::UnixMs;
use muster_shared::reported::{Phase, SlotReport};

use super::{Item, Kind, found, labels, name};
use crate::client::Client;
use crate::error::{Attempt as _, Result};
use crate::output::{Facts, age, bytes, date, now_ms, or_dash};
use crate::tell::{self, figures};

pub const HEADER: &[&str] = &["NAME", "STATE", "SEEN", "SERVING", "CPU", "MEMORY", "AGENT"];
pub const HEADER_WIDE: &[&str] =
    &["ARCH", "OS", "BOARD", "ACCELERATORS", "TEMPERATURE", "SLOWED BY", "DISK FREE", "APPLIED", "DESIRED", "LABELS"];

/// Telemetry and the time of the last message.
const RESTLESS: &[&str] = &["lastSeenMs", "host", "health", "models"];

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
        let hardware = device.facts.as_ref().map(|facts| &facts.hardware);
        row.extend([
            or_dash(device.facts.as_ref().map(|facts| facts.arch.clone())),
            or_dash(device.facts.as_ref().map(|facts| facts.os.clone())),
            or_dash(hardware.and_then(|hardware| hardware.board.as_ref()).map(tell::hardware::board)),
            or_dash(hardware.and_then(tell::hardware::accelerators)),
            or_dash(temperature(device)),
            or_dash(device.health.as_ref().and_then(|it| tell::hardware::strains(&it.strains, it.khz_allowed))),
            or_dash(disk.map(bytes)),
            or_dash(device.applied),
            or_dash(device.desired),
            labels(&device.labels),
        ]);
    }
    Item::new(device.id.to_string(), row, device, RESTLESS)
}

fn temperature(device: &DeviceView) -> Option<String> {
    Some(celsius(device.host.as_ref()?.temperature_millicelsius?))
}

fn celsius(milli: i32) -> String {
    format!("{:.1} °C", f64::from(milli) / 1000.0)
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
        made_of(&is.hardware, &mut facts);
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
    if let Some(health) = &device.health {
        fares(health, &mut facts);
    }
    device.slots.iter().for_each(|it| facts.add("slot", slot(it)));
    device.models.iter().for_each(|it| facts.add("traffic", traffic(it)));
    for refusal in &device.refusals {
        let bundle = &refusal.bundle;
        facts.add("refusal", format!("{} {}: {:?}: {}", bundle.model, bundle.version, refusal.kind, refusal.reason));
    }
    facts.render()
}

/// What a machine is made of.
fn made_of(hardware: &Hardware, facts: &mut Facts) {
    if let Some(board) = &hardware.board {
        let chip = hardware.soc.as_ref().map_or_else(String::new, |chip| format!(" ({chip})"));
        facts.add("board", format!("{}{chip}", tell::hardware::board(board)));
    }
    if !hardware.cores.is_empty() {
        facts.add("cores", tell::hardware::cores(&hardware.cores));
    }
    if !hardware.cpu_features.is_empty() {
        facts.add("can do", hardware.cpu_features.join(", "));
    }
    if let Some(all) = hardware.memory_bytes {
        let swap = hardware.swap_bytes.map_or_else(String::new, |swap| format!(", {} swap", bytes(swap)));
        facts.add("has", format!("{} memory{swap}", bytes(all)));
    }
    let kernel = [hardware.kernel.clone(), hardware.libc.as_ref().map(|libc| format!("agent for {libc}"))];
    let kernel: Vec<String> = kernel.into_iter().flatten().collect();
    if !kernel.is_empty() {
        facts.add("kernel", kernel.join(", "));
    }
    hardware.accelerators.iter().for_each(|it| facts.add("accelerator", tell::hardware::accelerator(it)));
}

/// How its hardware fares.
fn fares(health: &Health, facts: &mut Facts) {
    for sensor in &health.temperatures {
        let stops = sensor.critical_millicelsius.map(|at| format!(" (stops at {})", celsius(at)));
        let stops = stops.unwrap_or_default();
        facts.add("sensor", format!("{} {}{stops}", sensor.sensor, celsius(sensor.millicelsius)));
    }
    if let Some(now) = tell::hardware::strains(&health.strains, health.khz_allowed) {
        facts.add("slowed by", now);
    }
    if let Some(before) = tell::hardware::strains_before(health) {
        facts.add("slowed before", format!("{before} (since it was started)"));
    }
    health.power.iter().for_each(|it| facts.add("power", tell::hardware::power(it)));
    if let Some(storage) = &health.storage {
        facts.add("storage", tell::hardware::storage(storage));
    }
    if !health.read_only.is_empty() {
        facts.add("read-only", health.read_only.join(", "));
    }
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
    fn a_description_has_what_the_machine_is_made_of_and_how_it_fares() {
        let hardware = json!({
            "board": {"model": "Raspberry Pi 5 Model B Rev 1.0", "vendor": null, "compatible": []},
            "soc": "brcm,bcm2712",
            "cores": [{"count": 4, "name": "Cortex-A76", "capacity": 1024, "khzMax": 2_400_000}],
            "cpuFeatures": ["neon", "dotprod"], "memoryBytes": 1 << 30, "swapBytes": 0, "kernel": "6.12", "libc": "glibc",
            "accelerators": [{"kind": "npu", "name": "Hailo", "driver": "hailo", "node": "/dev/hailo0", "mayOpen": true}],
        });
        let facts = json!({"agent": "0.1.0", "arch": "aarch64", "os": "Debian 12", "cpuModel": null, "cpuMilli": 4000,
            "memoryBytes": 1 << 29, "diskFreeBytes": null, "engines": ["tract"], "isolation": [], "labels": {},
            "hardware": hardware});
        let health = json!({"temperatures": [{"sensor": "cpu-thermal", "millicelsius": 81_000,
            "criticalMillicelsius": 110_000}], "strains": ["underVoltage"], "strainsSinceBoot": ["underVoltage", "throttled"]});
        let edge = device(json!({"facts": facts, "health": health}));
        let said = text(&edge, 2_000);
        let lines = [
            "board           Raspberry Pi 5 Model B Rev 1.0 (brcm,bcm2712)",
            "cores           4 × Cortex-A76 up to 2.40 GHz",
            "can do          neon, dotprod",
            "has             1.00 GiB memory, 0 B swap",
            "kernel          6.12, agent for glibc",
            "accelerator     NPU Hailo (hailo, /dev/hailo0)",
            "sensor          cpu-thermal 81.0 °C (stops at 110.0 °C)",
            "slowed by       under-voltage",
            "slowed before   throttled (since it was started)",
        ];
        for line in lines {
            assert!(said.lines().any(|said| said == line), "{line:?} is not in {said}");
        }
        let wide = item(&edge, true, 2_000).expect("an item").row;
        let columns = ["Raspberry Pi 5 Model B Rev 1.0", "Hailo", "-", "under-voltage"];
        assert_eq!(wide[HEADER.len() + 2..HEADER.len() + 6], columns);
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
