//! Temperatures: the kernel's thermal zones, and monitoring chips beside them.

use std::collections::BTreeSet;
use std::ops::RangeInclusive;
use std::path::Path;

use muster_shared::hardware::Temperature;
use muster_shared::limits::SENSORS_MAX;

use super::roots::{Roots, clean, entries, number, text};

/// Trip points of one zone.
const TRIPS_MAX: usize = 16;
/// What a sensor says that is not there, or has no value yet, is far from this.
const PLAUSIBLE: RangeInclusive<i32> = -60_000..=200_000;

/// The sensors, the hottest first.
pub fn temperatures(roots: &Roots) -> Vec<Temperature> {
    let mut found: Vec<Temperature> = vec![];
    let mut zones = BTreeSet::new();
    for zone in entries(&roots.sys.join("class/thermal"), "thermal_zone") {
        let Some(kind) = text(&zone.join("type")) else { continue };
        zones.insert(kind.replace('-', "_"));
        push(&mut found, kind, &zone.join("temp"), critical(&zone));
    }
    for chip in entries(&roots.sys.join("class/hwmon"), "hwmon") {
        let Some(kind) = text(&chip.join("name")) else { continue };
        // The kernel shows each zone as a chip, too.
        if zones.contains(&kind.replace('-', "_")) {
            continue;
        }
        for input in entries(&chip, "temp").iter().filter(|entry| entry.to_string_lossy().ends_with("_input")) {
            let beside = |what: &str| input.with_file_name(super::roots::name(input).replace("_input", what));
            let label = text(&beside("_label")).map(|label| format!("{kind} {label}"));
            push(&mut found, label.unwrap_or_else(|| kind.clone()), input, number(&beside("_crit")));
        }
    }
    found.sort_by_key(|one| std::cmp::Reverse(one.millicelsius));
    found.truncate(SENSORS_MAX);
    found
}

/// Adds a sensor that says something plausible; what has another's name gets a number.
fn push(found: &mut Vec<Temperature>, sensor: String, file: &Path, critical: Option<i32>) {
    let Some(millicelsius) = number::<i32>(file).filter(|value| PLAUSIBLE.contains(value)) else { return };
    let critical_millicelsius = critical.filter(|value| PLAUSIBLE.contains(value) && *value > 0);
    let same = |name: &str| found.iter().any(|other| other.sensor == name);
    let again = (2..).map(|number| format!("{sensor} {number}"));
    let name = std::iter::once(sensor.clone()).chain(again).take(found.len() + 1).find(|name| !same(name));
    found.push(Temperature { sensor: clean(&name.unwrap_or(sensor)), millicelsius, critical_millicelsius });
}

/// Where a zone stops the machine.
fn critical(zone: &Path) -> Option<i32> {
    let trips = (0..TRIPS_MAX).map(|at| (format!("trip_point_{at}_type"), format!("trip_point_{at}_temp")));
    let mut critical = trips.filter(|(kind, _)| text(&zone.join(kind)).as_deref() == Some("critical"));
    critical.find_map(|(_, temp)| number(&zone.join(temp)))
}
