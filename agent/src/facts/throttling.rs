//! What slows a machine down: its supply, its heat, its firmware.

use std::collections::BTreeSet;

use muster_shared::hardware::Strain;

use super::board::is_set;
use super::roots::{Roots, entries, name, number, text};

/// What the firmware of a Raspberry Pi says, by bit: now, and 16 bits above since it was started.
const PI_BITS: [(u32, Strain); 4] = [
    (0, Strain::UnderVoltage),
    (1, Strain::FrequencyCapped),
    (2, Strain::Throttled),
    (3, Strain::SoftTemperatureLimit),
];
const PI_SINCE_BOOT: u32 = 16;
/// Cooling devices that cool by doing less. A fan that turns slows nothing down.
const SLOWING: [&str; 4] = ["cpufreq", "devfreq", "Processor", "intel_powerclamp"];

/// What slows it down now and did since it was started, and the frequency that is left to it.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Throttling {
    /// Now.
    pub now: BTreeSet<Strain>,
    /// Since the machine was started.
    pub since_boot: BTreeSet<Strain>,
    /// Where the processor may not run as fast as it could, how fast it may.
    pub khz_allowed: Option<u64>,
}

/// Reads all of it.
pub fn throttling(roots: &Roots) -> Throttling {
    let mut found = Throttling::default();
    if let Some((now, since_boot)) = raspberry_pi(roots) {
        found.now.extend(now);
        found.since_boot.extend(since_boot);
    }
    let chips = entries(&roots.sys.join("class/hwmon"), "hwmon");
    let low = |chip: &std::path::PathBuf| {
        text(&chip.join("name")).as_deref() == Some("rpi_volt") && is_set(&chip.join("in0_lcrit_alarm"))
    };
    found.now.extend(chips.iter().any(low).then_some(Strain::UnderVoltage));
    found.khz_allowed = khz_allowed(roots);
    found.now.extend(found.khz_allowed.map(|_| Strain::FrequencyCapped));
    found.now.extend(is_cooling(roots).then_some(Strain::CoolingDown));
    found.since_boot.extend(was_throttled(roots).then_some(Strain::Throttled));
    found.since_boot.extend(found.now.iter().copied());
    found
}

fn raspberry_pi(roots: &Roots) -> Option<(Vec<Strain>, Vec<Strain>)> {
    // `soc/soc:firmware`, with the bus's address in the names of newer boards.
    let buses = entries(&roots.sys.join("devices/platform"), "soc");
    let inside = buses.iter().flat_map(|bus| entries(bus, "soc"));
    let mut firmware = inside.filter(|entry| name(entry).ends_with(":firmware"));
    parse(&firmware.find_map(|entry| text(&entry.join("get_throttled")))?)
}

/// What `get_throttled` says: now, and since the machine was started.
pub fn parse(text: &str) -> Option<(Vec<Strain>, Vec<Strain>)> {
    let bits = u32::from_str_radix(text.trim().trim_start_matches("0x"), 16).ok()?;
    let set = |above: u32| PI_BITS.iter().filter(move |(bit, _)| bits >> (bit + above) & 1 == 1);
    let strains = |above: u32| set(above).map(|(_, strain)| *strain).collect();
    Some((strains(0), strains(PI_SINCE_BOOT)))
}

/// The lowest frequency that a group of cores is held to, if any is.
fn khz_allowed(roots: &Roots) -> Option<u64> {
    let policies = entries(&roots.sys.join("devices/system/cpu/cpufreq"), "policy");
    let held = policies.iter().filter_map(|policy| {
        let hardware: u64 = number(&policy.join("cpuinfo_max_freq"))?;
        number(&policy.join("scaling_max_freq")).filter(|allowed| *allowed < hardware)
    });
    held.min()
}

fn is_cooling(roots: &Roots) -> bool {
    entries(&roots.sys.join("class/thermal"), "cooling_device").iter().any(|device| {
        let kind = text(&device.join("type")).unwrap_or_default();
        SLOWING.iter().any(|word| kind.contains(word))
            && number::<i64>(&device.join("cur_state")).is_some_and(|state| state > 0)
    })
}

/// Processors of x86 count how often they slowed themselves down.
fn was_throttled(roots: &Roots) -> bool {
    let cpus = entries(&roots.sys.join("devices/system/cpu"), "cpu");
    let counts = ["core_throttle_count", "package_throttle_count"];
    cpus.iter().any(|cpu| counts.iter().any(|count| is_set(&cpu.join("thermal_throttle").join(count))))
}
