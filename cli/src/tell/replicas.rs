//! Replicas in columns: where, what, how far, what they use, and why they are there.

use muster_shared::api::deployment::Replica;
use muster_shared::reported::Phase;

use super::figures;
use crate::output::{Table, or_dash};

/// A table of replicas. The first column is what tells them apart: their device, or their deployment.
pub fn table<'a>(first: &'static str, replicas: impl IntoIterator<Item = (&'a str, &'a Replica)>) -> Table {
    let header: Vec<&'static str> =
        [first, "VERSION", "PHASE"].into_iter().chain(figures::HEADER).chain(["WHY"]).collect();
    let mut table = Table::new(&header);
    for (name, replica) in replicas {
        let start = [name.to_owned(), version(replica), phase(replica)];
        let cells = start.into_iter().chain(figures::cells(replica.figures.as_ref()));
        table.row(cells.chain([why(replica)]));
    }
    table
}

/// The version that answers, and the one that is to come.
pub fn version(replica: &Replica) -> String {
    match replica.running {
        Some(running) if running == replica.version => running.to_string(),
        running => format!("{} → {}", or_dash(running), replica.version),
    }
}

/// How far it is, and whether it is to go.
pub fn phase(replica: &Replica) -> String {
    let word = replica.phase.map_or("not reported", Phase::words);
    if replica.leaving { format!("{word}, leaves") } else { word.to_owned() }
}

/// Why it is there, and why it does not go on.
pub fn why(replica: &Replica) -> String {
    match &replica.reason {
        Some(reason) if replica.why.is_empty() => reason.clone(),
        Some(reason) => format!("{}; {reason}", replica.why),
        None if replica.why.is_empty() => "-".to_owned(),
        None => replica.why.clone(),
    }
}

#[cfg(test)]
pub mod tests {
    use serde_json::{Value, json};

    use super::*;

    /// A replica as the API gives it, with these fields in place of the usual ones.
    pub fn replica(fields: Value) -> Value {
        let mut whole = json!({
            "device": "edge-1", "phase": "serving", "running": 1, "version": 1,
            "manifest": muster_shared::Digest::of("m"),
            "why": "it is there already", "leaving": false, "reason": null, "figures": null,
        });
        for (name, value) in fields.as_object().expect("an object") {
            whole[name] = value.clone();
        }
        whole
    }

    /// The figures of the worked example.
    pub fn worked_example() -> Value {
        json!({
            "windowSeconds": 60.0, "share": 0.125, "requestsPerSecond": 40.0, "coreMsPerPrediction": 25.0,
            "coresDemanded": 1.0, "p50Ms": 24.0, "p99Ms": 31.5,
        })
    }

    #[test]
    fn a_table_has_figures_and_reasons() {
        let read = |fields| serde_json::from_value::<Replica>(replica(fields)).expect("a replica");
        let replicas = [
            read(json!({"figures": worked_example()})),
            read(json!({"device": "edge-2", "phase": "refused", "running": null, "reason": "golden vectors\nfail"})),
            read(json!({"device": "edge-3", "phase": null, "leaving": true, "why": ""})),
        ];
        let rows = replicas.iter().map(|replica| (replica.device.as_str(), replica));
        assert_eq!(
            table("DEVICE", rows).render(),
            "\
DEVICE   VERSION   PHASE                  SHARE   REQ/S   R CORE-MS   A CORES   P50       P99       WHY
edge-1   1         serving                12.5%   40.0    25.0        1.00      24.0 ms   31.5 ms   it is there already
edge-2   - → 1     refused                -       -       -           -         -         -         it is there already; golden vectors fail
edge-3   1         not reported, leaves   -       -       -           -         -         -         -
"
        );
    }
}
