//! What feeds a machine.

use std::path::Path;

use muster_shared::hardware::{BatteryState, PowerKind, PowerSource};
use muster_shared::limits::POWER_SOURCES_MAX;

use super::roots::{Roots, entries, name, number, text};

/// Its power sources; what feeds a mouse or a headset is none of them.
pub fn sources(roots: &Roots) -> Vec<PowerSource> {
    let mut found: Vec<_> =
        entries(&roots.sys.join("class/power_supply"), "").iter().filter_map(|it| source(it)).collect();
    found.truncate(POWER_SOURCES_MAX);
    found
}

fn source(supply: &Path) -> Option<PowerSource> {
    let says = |file: &str| text(&supply.join(file));
    if says("scope").as_deref() == Some("Device") || says("present").as_deref() == Some("0") {
        return None;
    }
    let kind = match says("type")?.as_str() {
        "Battery" | "UPS" => PowerKind::Battery,
        // `Mains`, `USB`, `USB_C`, `USB_PD`, `Wireless`, …
        _ => PowerKind::Mains,
    };
    let is_battery = kind == PowerKind::Battery;
    let state = says("status").and_then(|status| match status.as_str() {
        "Charging" => Some(BatteryState::Charging),
        "Discharging" => Some(BatteryState::Discharging),
        "Full" | "Not charging" => Some(BatteryState::Idle),
        _ => None,
    });
    Some(PowerSource {
        name: name(supply),
        kind,
        online: number::<u8>(&supply.join("online")).map(|online| online > 0).filter(|_| !is_battery),
        percent: number::<u8>(&supply.join("capacity")).filter(|percent| *percent <= 100 && is_battery),
        state: state.filter(|_| is_battery),
    })
}

/// Whether a machine is fed from outside; absent: nothing says so.
pub fn on_mains(sources: &[PowerSource]) -> Option<bool> {
    let plugs: Vec<bool> = sources.iter().filter_map(|source| source.online).collect();
    if !plugs.is_empty() {
        return Some(plugs.contains(&true));
    }
    let states: Vec<BatteryState> = sources.iter().filter_map(|source| source.state).collect();
    match () {
        () if states.contains(&BatteryState::Charging) => Some(true),
        () if states.contains(&BatteryState::Discharging) => Some(false),
        () => None,
    }
}

/// How full the emptiest battery is.
pub fn battery_percent(sources: &[PowerSource]) -> Option<u8> {
    sources.iter().filter_map(|source| source.percent).min()
}
