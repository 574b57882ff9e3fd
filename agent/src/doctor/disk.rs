//! Checks of what the agent stands on: its configuration, its folder, its disk, its machine. Pure.

use std::path::PathBuf;

use muster_shared::hardware::{Health, Reserve, Strain};

use super::finding::{Finding, Ill};

/// Below this there is hardly room for a version of a model.
const FREE_BYTES_LOW: u64 = 64 << 20;
/// Below this even the journal may not grow.
const FREE_BYTES_MIN: u64 = 1 << 20;
/// From here on a disk is worth replacing.
const WORN_PERCENT: u8 = 90;

/// The data folder as it was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Data {
    /// Where.
    pub path: PathBuf,
    /// What came of writing a file there.
    pub written: Written,
    /// Room for whoever may write there.
    pub free_bytes: Option<u64>,
    /// Files that can still be made; absent where there is no bound.
    pub free_files: Option<u64>,
}

/// What came of writing a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Written {
    /// It was written, made durable and taken away.
    Done,
    /// There is no such folder.
    NoFolder,
    /// There is no room.
    Full(String),
    /// It may not be written.
    Refused(String),
}

/// `agent.toml`.
pub fn configuration(config: &Result<PathBuf, String>) -> Finding {
    const CHECK: &str = "configuration";
    match config {
        Ok(path) => Finding::good(CHECK, path.display().to_string()),
        Err(text) => Finding::fault(
            CHECK,
            Ill::Configuration,
            text.clone(),
            "name the file with --config, correct the key that is named, or let `muster-agent enrol` write a new one",
        ),
    }
}

/// Whether the agent can keep anything.
pub fn data(data: &Data) -> Finding {
    const CHECK: &str = "data folder";
    let path = data.path.display();
    let not = |why: &str, next: &str| Finding::fault(CHECK, Ill::DataNotWritable, format!("{path} {why}"), next);
    match &data.written {
        Written::Done | Written::Full(_) => Finding::good(CHECK, format!("{path} can be written")),
        Written::NoFolder => not("does not exist", "name it with --data; `muster-agent enrol` makes it"),
        Written::Refused(why) => not(
            &format!("cannot be written: {why}"),
            "give it to the user that the agent runs as; if the file system may only be read, look at the kernel's \
             log for why and mount it anew",
        ),
    }
}

/// Whether there is room.
pub fn room(data: &Data) -> Finding {
    const CHECK: &str = "room on disk";
    const NEXT: &str =
        "free space: withdraw versions that nobody runs with `muster withdraw`, or keep less beside them";
    let Some(free) = data.free_bytes.filter(|_| data.written != Written::NoFolder) else {
        return Finding::skipped(CHECK, "there is no folder to look at");
    };
    let size = megabytes(free);
    match (&data.written, data.free_files) {
        (Written::Full(why), _) => Finding::fault(CHECK, Ill::DiskFull, format!("full: {why}; {size} are free"), NEXT),
        (_, Some(0)) => Finding::fault(CHECK, Ill::DiskFull, "the file system can make no more files", NEXT),
        _ if free < FREE_BYTES_MIN => Finding::fault(CHECK, Ill::DiskFull, format!("full: {size} are free"), NEXT),
        _ if free < FREE_BYTES_LOW => Finding::warning(CHECK, Ill::DiskFull, format!("only {size} are free"), NEXT),
        _ => Finding::good(CHECK, format!("{size} are free")),
    }
}

fn megabytes(bytes: u64) -> String {
    match bytes >> 20 {
        0 => format!("{} KiB", bytes >> 10),
        mebibytes => format!("{mebibytes} MiB"),
    }
}

/// How the hardware fares.
pub fn hardware(health: &Health) -> Finding {
    const CHECK: &str = "hardware";
    let mut found: Vec<(String, &str)> = vec![];
    // A cap alone may be its owner's wish.
    let slowing: Vec<&str> =
        health.strains.iter().filter(|it| **it != Strain::FrequencyCapped).map(|strain| strain.words()).collect();
    if !slowing.is_empty() {
        let next = match health.strains.contains(&Strain::UnderVoltage) {
            true => "give it a stronger supply, or a shorter and thicker cable",
            false => "give it a heat sink, a fan, or a cooler place",
        };
        found.push((format!("slowed down: {}", slowing.join(", ")), next));
    }
    if let Some(storage) = &health.storage {
        let worn = storage.wear_percent.filter(|percent| *percent >= WORN_PERCENT);
        if worn.is_some() || storage.reserve == Some(Reserve::Urgent) {
            let worn = worn.map_or_else(
                || "its reserve is nearly used up".to_owned(),
                |worn| format!("{worn} % of its life is used"),
            );
            let disk = storage.device.as_deref().unwrap_or("the disk");
            found.push((format!("{disk} is worn out: {worn}"), "replace it before it fails"));
        }
    }
    if !health.read_only.is_empty() {
        let points = health.read_only.join(", ");
        found.push((
            format!("may only be read: {points}"),
            "after an error a kernel stops writing: look at its log, check the file system, replace the disk if it fails \
             again",
        ));
    }
    if found.is_empty() {
        return Finding::good(CHECK, "nothing slows it down, no disk is known to be worn");
    }
    let (texts, nexts): (Vec<_>, Vec<_>) = found.into_iter().unzip();
    Finding::warning(CHECK, Ill::Hardware, texts.join("; "), nexts.join("; "))
}

#[cfg(test)]
mod tests {
    use muster_shared::hardware::Storage;

    use super::*;
    use crate::doctor::finding::Level;

    fn found(finding: &Finding) -> (Level, Option<Ill>) {
        (finding.level, finding.fault)
    }

    #[test]
    fn a_folder_and_its_room() {
        let full = || Written::Full("No space left on device".to_owned());
        let refused = || Written::Refused("Read-only file system".to_owned());
        let (good, fault) = ((Level::Good, None), |ill| (Level::Fault, Some(ill)));
        for (written, free_bytes, free_files, folder, space) in [
            (Written::Done, Some(1 << 30), Some(1000), good, good),
            (Written::Done, Some(1 << 30), None, good, good),
            (Written::Done, Some(32 << 20), Some(1000), good, (Level::Warning, Some(Ill::DiskFull))),
            (Written::Done, Some(4096), Some(1000), good, fault(Ill::DiskFull)),
            (Written::Done, Some(1 << 30), Some(0), good, fault(Ill::DiskFull)),
            (full(), Some(0), Some(1000), good, fault(Ill::DiskFull)),
            // A quota: the disk has room, this user has none.
            (full(), Some(1 << 30), Some(1000), good, fault(Ill::DiskFull)),
            (refused(), Some(1 << 30), Some(1000), fault(Ill::DataNotWritable), good),
            (Written::NoFolder, None, None, fault(Ill::DataNotWritable), (Level::Skipped, None)),
        ] {
            let at = Data { path: "/var/lib/muster".into(), written, free_bytes, free_files };
            assert_eq!((found(&data(&at)), found(&room(&at))), (folder, space), "{at:?}");
        }
    }

    #[test]
    fn strained_and_worn_hardware_is_a_warning_with_a_next_move() {
        assert_eq!(found(&hardware(&Health::default())), (Level::Good, None));
        let capped = Health { strains: vec![Strain::FrequencyCapped], ..Health::default() };
        assert_eq!(found(&hardware(&capped)), (Level::Good, None));
        let worn = Health {
            strains: vec![Strain::UnderVoltage],
            storage: Some(Storage { device: Some("mmcblk0".into()), wear_percent: Some(110), ..Storage::default() }),
            read_only: vec!["/boot".into()],
            ..Health::default()
        };
        let finding = hardware(&worn);
        assert_eq!(found(&finding), (Level::Warning, Some(Ill::Hardware)));
        for part in ["under-voltage", "mmcblk0 is worn out", "/boot"] {
            assert!(finding.text.contains(part), "{finding:?}");
        }
        assert!(finding.next.expect("a move").contains("supply"));
    }

    #[test]
    fn a_configuration_that_cannot_be_used_says_why() {
        assert_eq!(found(&configuration(&Ok("/etc/agent.toml".into()))), (Level::Good, None));
        let finding = configuration(&Err("door.listen: 0.0.0.0:1 is not a loopback address".to_owned()));
        assert_eq!(found(&finding), (Level::Fault, Some(Ill::Configuration)));
        assert!(finding.text.contains("door.listen"));
    }
}
