//! What a device believes and why it does what it does, as JSON: the answer to a director's `Diagnose`.

use muster_agent_core::reconcile::Agent;
use muster_shared::id::UnixMs;
use serde_json::{Value, json};

/// The answer. `steady_ms` is the core's time.
pub fn of(agent: &Agent, steady_ms: UnixMs) -> Value {
    let root = agent.root().root();
    let watermark = agent.watermark();
    let limits = agent.limits();
    let floors = agent.floors();
    let floor = |floor: muster_shared::reported::ModelFloor| {
        let effective = floors.effective(&floor.model);
        json!({ "model": floor.model, "version": floor.version, "effective": effective })
    };
    json!({
        "root": { "version": root.version, "epoch": root.epoch, "expiresMs": root.expires_ms },
        "floors": floors.all().map(floor).collect::<Vec<_>>(),
        "seen": floors.seen(),
        "held": agent.held().map(|held| held.generation),
        "watermark": watermark.desired.map(|mark| mark.generation),
        "desiredRefused": agent.desired_refused(),
        "slots": agent.slot_reports(),
        "limits": {
            "memoryBytes": limits.memory_bytes,
            "cpuMilli": limits.cpu_milli,
            "diskBytes": limits.disk_bytes,
            "slots": limits.slots,
            "models": limits.models,
        },
        "refusals": agent.refusals(),
        "notes": agent.notes(),
        "clock": {
            "wallMs": agent.clock().wall(steady_ms),
            "boundMs": agent.clock().bound_ms(),
            "confirmed": agent.clock().is_confirmed(),
            "text": agent.clock().describe(steady_ms),
        },
    })
}
