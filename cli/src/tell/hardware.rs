//! What a machine is made of and how its hardware fares, in phrases.

use muster_shared::hardware::{Accelerator, Board, CoreKind, Hardware, Health, PowerSource, Reserve, Storage, Strain};

/// `Raspberry Pi 5 Model B Rev 1.0`, with its maker where that is told apart.
pub fn board(board: &Board) -> String {
    match &board.vendor {
        Some(vendor) if !board.model.to_lowercase().contains(&vendor.to_lowercase()) => {
            format!("{vendor} {}", board.model)
        }
        _ => board.model.clone(),
    }
}

/// `4 × Cortex-A76 up to 2.40 GHz, 4 × Cortex-A55`.
pub fn cores(kinds: &[CoreKind]) -> String {
    let kind = |kind: &CoreKind| {
        let name = kind.name.as_deref().unwrap_or("core");
        let speed = kind.khz_max.map_or_else(String::new, |khz| format!(" up to {}", gigahertz(khz)));
        format!("{} × {name}{speed}", kind.count)
    };
    kinds.iter().map(kind).collect::<Vec<_>>().join(", ")
}

fn gigahertz(khz: u64) -> String {
    format!("{:.2} GHz", khz as f64 / 1e6)
}

/// `NPU Hailo (hailo, /dev/hailo0); the agent may not open it`.
pub fn accelerator(it: &Accelerator) -> String {
    let driver = it.driver.as_ref().filter(|driver| **driver != it.name);
    let beside: Vec<&str> = [driver, it.node.as_ref()].into_iter().flatten().map(String::as_str).collect();
    let beside = if beside.is_empty() { String::new() } else { format!(" ({})", beside.join(", ")) };
    let closed = if it.may_open == Some(false) { "; the agent may not open it" } else { "" };
    format!("{} {}{beside}{closed}", it.kind.words(), it.name)
}

/// The accelerators by name, for a column.
pub fn accelerators(hardware: &Hardware) -> Option<String> {
    let names: Vec<&str> = hardware.accelerators.iter().map(|it| it.name.as_str()).collect();
    (!names.is_empty()).then(|| names.join(", "))
}

/// `under-voltage, frequency capped (at 1.50 GHz)`.
pub fn strains(strains: &[Strain], khz_allowed: Option<u64>) -> Option<String> {
    let word = |strain: &Strain| match (strain, khz_allowed) {
        (Strain::FrequencyCapped, Some(khz)) => format!("{} (at {})", strain.words(), gigahertz(khz)),
        _ => strain.words().to_owned(),
    };
    let words: Vec<String> = strains.iter().map(word).collect();
    (!words.is_empty()).then(|| words.join(", "))
}

/// What slowed it down since it was started and does no more.
pub fn strains_before(health: &Health) -> Option<String> {
    let before: Vec<Strain> =
        health.strains_since_boot.iter().copied().filter(|strain| !health.strains.contains(strain)).collect();
    strains(&before, None)
}

/// `BAT0 71 %, discharging`; `AC gives power`.
pub fn power(source: &PowerSource) -> String {
    let online = source.online.map(|online| if online { "gives power" } else { "gives no power" }.to_owned());
    let percent = source.percent.map(|percent| format!("{percent} %"));
    let state = source.state.map(|state| state.words().to_owned());
    let said: Vec<String> = [online, percent, state].into_iter().flatten().collect();
    format!("{} {}", source.name, said.join(", ")).trim_end().to_owned()
}

/// `eMMC mmcblk0, ext4, up to 20 % of its life used`.
pub fn storage(storage: &Storage) -> String {
    let medium = storage.medium.map(|medium| medium.words().to_owned());
    let disk = [medium, storage.device.clone()].into_iter().flatten().collect::<Vec<_>>().join(" ");
    let wear = storage.wear_percent.map(|percent| match percent {
        0..=100 => format!("up to {percent} % of its life used"),
        _ => "used beyond the life that it was built for".to_owned(),
    });
    let reserve = storage.reserve.filter(|reserve| *reserve != Reserve::Normal);
    let reserve = reserve.map(|reserve| format!("reserve {}", reserve.words()));
    let read_only = storage.read_only.then(|| "read-only".to_owned());
    let parts = [Some(disk), storage.filesystem.clone(), wear, reserve, read_only];
    parts.into_iter().flatten().filter(|part| !part.is_empty()).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use muster_shared::hardware::{AcceleratorKind, BatteryState, Medium, PowerKind};

    use super::*;

    #[test]
    fn each_phrase_says_what_is_known_and_no_more() {
        let lenovo = Board { model: "ThinkPad T14".into(), vendor: Some("LENOVO".into()), compatible: vec![] };
        assert_eq!(board(&lenovo), "LENOVO ThinkPad T14");
        let strong = CoreKind { count: 4, name: Some("Cortex-A76".into()), capacity: None, khz_max: Some(2_400_000) };
        let kinds = [strong, CoreKind { count: 2, ..CoreKind::default() }];
        assert_eq!(cores(&kinds), "4 × Cortex-A76 up to 2.40 GHz, 2 × core");
        let hailo = Accelerator {
            kind: AcceleratorKind::Npu,
            name: "Hailo".into(),
            driver: Some("hailo".into()),
            node: Some("/dev/hailo0".into()),
            may_open: Some(false),
        };
        assert_eq!(accelerator(&hailo), "NPU Hailo (hailo, /dev/hailo0); the agent may not open it");
        let capped = [Strain::UnderVoltage, Strain::FrequencyCapped];
        assert_eq!(strains(&capped, Some(1_500_000)).as_deref(), Some("under-voltage, frequency capped (at 1.50 GHz)"));
        assert_eq!(strains(&[], None), None);
        let battery = PowerSource {
            name: "BAT0".into(),
            kind: PowerKind::Battery,
            online: None,
            percent: Some(71),
            state: Some(BatteryState::Discharging),
        };
        assert_eq!(power(&battery), "BAT0 71 %, discharging");
        let worn = Storage {
            device: Some("mmcblk0".into()),
            medium: Some(Medium::Emmc),
            filesystem: Some("ext4".into()),
            read_only: true,
            wear_percent: Some(110),
            reserve: Some(Reserve::Urgent),
        };
        assert_eq!(
            storage(&worn),
            "eMMC mmcblk0, ext4, used beyond the life that it was built for, reserve 90 % used, read-only"
        );
        assert_eq!(storage(&Storage { filesystem: Some("overlay".into()), ..Storage::default() }), "overlay");
    }
}
