//! Which way into an image, and each change, before any is made. Pure.

use std::fmt::Write as _;

use sha2::{Digest as _, Sha256};

use super::ext4::{What, Write};
use super::look::{Boot, Found, Look, System};
use super::nocloud;
use crate::disk::table::Partition;
use crate::enrolment::Enrolment;
use crate::image;

/// A way in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Way {
    /// Files on the boot partition, for cloud-init.
    NoCloud,
    /// Files in the ext4 root.
    Inject,
}

/// What is to get into an image.
#[derive(Debug)]
pub struct Wanted<'a> {
    /// The agent's program.
    pub agent: &'a [u8],
    /// What lets the machine in.
    pub enrolment: &'a Enrolment,
    /// The way, where its user says.
    pub way: Option<Way>,
}

/// One change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    /// The file, as the system has it.
    pub path: String,
    /// What is done, for a person.
    pub what: String,
    /// What is written there.
    pub write: Write,
}

/// All changes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plan {
    /// The way in.
    pub way: Way,
    /// The system, for a person.
    pub system: String,
    /// The partition that is changed.
    pub partition: Partition,
    /// The changes, in order.
    pub changes: Vec<Change>,
}

/// Why there is no way in.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[allow(missing_docs)]
pub enum NoWay {
    #[error("the agent is no program for a processor that is known here")]
    Agent,
    #[error("the image has no system that is known here: {0}")]
    Unknown(String),
    #[error(
        "the boot partition's user-data is neither #cloud-config nor a script, so nothing can be put beside it: say --way inject"
    )]
    UserData,
    #[error("{0} is not run by systemd, and nothing else is known here")]
    NotSystemd(String),
    #[error("{0} has no cloud-init; without --way the files go into its root")]
    NoCloudInit(String),
    #[error("{0} is for another processor than the agent")]
    Processor(String),
    #[error(
        "the file system of {0} was not left in order: start the machine once, switch it off properly, and read its card again"
    )]
    NeedsRecovery(String),
    #[error("{place} has {free} MiB free, and {needed} MiB are needed")]
    NoRoom { place: String, free: u64, needed: u64 },
}

const AGENT_TOML: &str = include_str!("../../debian/agent.toml");
const FIRST_BOOT: &str = include_str!("../../device/stock/first-boot");
const AGENT_UNIT: &str = include_str!("../../debian/muster-agent.service");
const ENROL_UNIT: &str = include_str!("../../device/stock/muster-enrol.service");
/// Labels of FAT partitions that systems' cloud-init looks for by name.
const SEED_LABELS: [&str; 2] = ["system-boot", "cidata"];
/// Beside the files themselves.
const ROOM_BYTES: u64 = 4 << 20;

/// Decides.
pub fn plan(look: &Look, wanted: &Wanted) -> Result<Plan, NoWay> {
    let architecture = image::architecture(wanted.agent).ok_or(NoWay::Agent)?;
    let seed = look.found.iter().find_map(|found| Some((found, found.boot.as_ref().filter(|boot| is_seed(boot))?)));
    let place = look.found.iter().find(|found| found.root.is_some());
    let root = place.and_then(|found| found.root.as_ref());
    if let Some(root) = root.filter(|root| !root.runs(architecture)) {
        return Err(NoWay::Processor(root.name.clone()));
    }
    // Where the root cannot be read, what the boot partition says is all there is.
    let reads_seed = root.is_none_or(|root| root.cloud_init);
    match (wanted.way, seed, place) {
        (Some(Way::NoCloud), _, _) if !reads_seed => {
            Err(NoWay::NoCloudInit(root.map(|root| root.name.clone()).unwrap_or_default()))
        }
        (Some(Way::NoCloud), None, _) => Err(NoWay::Unknown(
            "no FAT partition has user-data or meta-data, or a label that cloud-init knows".to_owned(),
        )),
        (Some(Way::NoCloud) | None, Some((found, boot)), _) if reads_seed => {
            by_cloud_init(found, boot, root.map(|root| root.name.clone()), wanted)
        }
        (_, _, Some(found)) => inject(found, wanted),
        _ => Err(NoWay::Unknown(holds(look))),
    }
}

fn is_seed(boot: &Boot) -> bool {
    let named = boot.names.iter().any(|name| name == "user-data" || name == "meta-data");
    named || SEED_LABELS.iter().any(|label| boot.label.eq_ignore_ascii_case(label))
}

/// What an image holds, for a person.
fn holds(look: &Look) -> String {
    let mut text = String::new();
    for found in &look.found {
        let system = match found.system {
            System::Fat => "FAT without user-data",
            System::Ext => "ext4 without a system",
            System::Other(name) => name,
            System::Unknown => "unknown",
        };
        let separator = if text.is_empty() { "" } else { ", " };
        let _ = write!(text, "{separator}partition {} is {system}", found.partition.number);
    }
    if text.is_empty() { "it has no partition".to_owned() } else { text }
}

fn by_cloud_init(found: &Found, boot: &Boot, name: Option<String>, wanted: &Wanted) -> Result<Plan, NoWay> {
    let user_data = nocloud::user_data(boot.user_data.as_deref()).ok_or(NoWay::UserData)?;
    let enrolment = wanted.enrolment.to_string();
    let instance = hex::encode(&Sha256::digest(enrolment.as_bytes())[..6]);
    let meta_data = nocloud::meta_data(boot.meta_data.as_deref(), &instance);
    let files: [(&str, &[u8], &str); 8] = [
        ("muster/muster-agent", wanted.agent, "the agent"),
        ("muster/muster-agent.service", AGENT_UNIT.as_bytes(), "runs the agent as the user muster"),
        ("muster/muster-enrol.service", ENROL_UNIT.as_bytes(), "lets the machine in, once"),
        ("muster/first-boot", FIRST_BOOT.as_bytes(), "makes the user, enrols, starts the agent"),
        ("muster/agent.toml", AGENT_TOML.as_bytes(), "the agent's settings"),
        ("muster/enrol", enrolment.as_bytes(), "the claim; removed once the machine is in"),
        ("meta-data", meta_data.as_bytes(), "a new instance id, so that cloud-init runs"),
        ("user-data", user_data.as_bytes(), "takes the above into the system at the first boot"),
    ];
    let place = format!("the partition {}", boot.label);
    room(&place, boot.free, files.iter().map(|(_, bytes, _)| bytes.len()).sum())?;
    let changes = files.into_iter().map(|(path, bytes, what)| {
        let there = boot.names.iter().any(|name| name == path);
        let what = if there { format!("{what} (what it says already stays)") } else { what.to_owned() };
        change(path, What::File(bytes.to_vec(), 0o644), what)
    });
    let system = name.unwrap_or_else(|| format!("a system with cloud-init, boot partition {}", boot.label));
    Ok(Plan { way: Way::NoCloud, system, partition: found.partition.clone(), changes: changes.collect() })
}

fn inject(found: &Found, wanted: &Wanted) -> Result<Plan, NoWay> {
    let root = found.root.clone().unwrap_or_default();
    let units = root.units.ok_or_else(|| NoWay::NotSystemd(root.name.clone()))?;
    if root.needs_recovery {
        return Err(NoWay::NeedsRecovery(root.name));
    }
    room(&root.name, root.free, wanted.agent.len())?;
    let enrolment = wanted.enrolment.to_string();
    let wants = "/etc/systemd/system/multi-user.target.wants/muster-enrol.service";
    let file =
        |path: &str, bytes: &[u8], mode, what: &str| change(path, What::File(bytes.to_vec(), mode), what.to_owned());
    let changes = vec![
        file("/usr/bin/muster-agent", wanted.agent, 0o755, "the agent"),
        file(
            &format!("{units}/muster-agent.service"),
            AGENT_UNIT.as_bytes(),
            0o644,
            "runs the agent as the user muster",
        ),
        file(&format!("{units}/muster-enrol.service"), ENROL_UNIT.as_bytes(), 0o644, "lets the machine in, once"),
        file("/usr/lib/muster/first-boot", FIRST_BOOT.as_bytes(), 0o755, "makes the user, enrols, starts the agent"),
        file("/etc/muster/agent.toml", AGENT_TOML.as_bytes(), 0o644, "the agent's settings"),
        file("/etc/muster/enrol", enrolment.as_bytes(), 0o600, "the claim; removed once the machine is in"),
        change(wants, What::Link(format!("{units}/muster-enrol.service")), "starts it at boot".to_owned()),
    ];
    Ok(Plan { way: Way::Inject, system: root.name, partition: found.partition.clone(), changes })
}

fn change(path: &str, what: What, told: String) -> Change {
    Change { path: path.to_owned(), what: told, write: Write { path: path.to_owned(), what } }
}

fn room(place: &str, free: u64, needed: usize) -> Result<(), NoWay> {
    let needed = needed as u64 + ROOM_BYTES;
    if free < needed {
        return Err(NoWay::NoRoom { place: place.to_owned(), free: free >> 20, needed: needed.div_ceil(1 << 20) });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::disk::table::{Kind, Scheme};
    use crate::patch::ext4::Root;

    fn partition(number: u32) -> Partition {
        Partition { number, kind: Kind::Linux, name: String::new(), start: 1 << 20, bytes: 1 << 30 }
    }

    fn fat(names: &[&str], label: &str) -> Found {
        let names = names.iter().map(|&name| name.to_owned()).collect();
        let boot = Boot { label: label.to_owned(), names, free: 1 << 30, ..Boot::default() };
        Found { partition: partition(1), system: System::Fat, boot: Some(boot), root: None }
    }

    fn own() -> (Vec<u8>, u16) {
        let agent = std::fs::read("/proc/self/exe").expect("this program");
        let machine = image::machine(&agent).expect("a program");
        (agent, machine)
    }

    fn ext4(change: impl FnOnce(&mut Root)) -> Found {
        let mut root = Root {
            name: "Debian 12".to_owned(),
            units: Some("/usr/lib/systemd/system"),
            machine: own().1,
            free: 4 << 30,
            ..Root::default()
        };
        change(&mut root);
        Found { partition: partition(2), system: System::Ext, boot: None, root: Some(root) }
    }

    fn planned(found: Vec<Found>, way: Option<Way>) -> Result<Plan, NoWay> {
        let (agent, _) = own();
        let text = format!("url=https://x\nroot-digest={0}\nca-digest={0}", "5".repeat(64));
        let enrolment = Enrolment::parse(&text).expect("an enrolment");
        plan(&Look { scheme: Scheme::Gpt, found }, &Wanted { agent: &agent, enrolment: &enrolment, way })
    }

    fn way(found: Vec<Found>, way: Option<Way>) -> Result<(Way, u32), String> {
        planned(found, way).map(|plan| (plan.way, plan.partition.number)).map_err(|no| no.to_string())
    }

    #[test]
    fn the_way_in_follows_from_what_is_there() {
        // As Raspberry Pi OS of 2025, Ubuntu for Pi, Debian's for Pi and a Jetson have it.
        let cloud = || ext4(|root| root.cloud_init = true);
        assert_eq!(way(vec![fat(&["user-data", "config.txt"], "bootfs"), cloud()], None), Ok((Way::NoCloud, 1)));
        assert_eq!(way(vec![fat(&[], "system-boot"), cloud()], None), Ok((Way::NoCloud, 1)));
        assert_eq!(way(vec![fat(&["user-data"], "bootfs"), ext4(|_| {})], None), Ok((Way::Inject, 2)));
        assert_eq!(way(vec![fat(&["user-data"], "bootfs")], None), Ok((Way::NoCloud, 1)));
        assert_eq!(way(vec![fat(&["config.txt", "cmdline.txt"], "bootfs"), ext4(|_| {})], None), Ok((Way::Inject, 2)));
        assert_eq!(way(vec![ext4(|_| {})], None), Ok((Way::Inject, 2)));
        assert_eq!(way(vec![fat(&["user-data"], "x"), cloud()], Some(Way::Inject)), Ok((Way::Inject, 2)));
    }

    #[test]
    fn what_has_no_way_in_says_why() {
        let check = |found: Vec<Found>, wanted, says: &str| {
            let text = way(found, wanted).expect_err(says);
            assert!(text.contains(says), "{text}");
        };
        let other = Found { system: System::Other("btrfs"), root: None, ..ext4(|_| {}) };
        check(vec![other], None, "partition 2 is btrfs");
        check(vec![], None, "no partition");
        check(vec![ext4(|root| root.units = None)], None, "systemd");
        check(vec![ext4(|root| root.machine = 40)], None, "another processor");
        check(vec![fat(&["user-data"], "x"), ext4(|root| root.machine = 40)], None, "another processor");
        check(vec![ext4(|root| root.needs_recovery = true)], None, "left in order");
        check(vec![ext4(|root| root.free = 1 << 20)], None, "MiB are needed");
        check(vec![ext4(|_| {})], Some(Way::NoCloud), "no cloud-init");
        check(vec![ext4(|root| root.cloud_init = true)], Some(Way::NoCloud), "no FAT partition");
    }

    #[test]
    fn the_claim_is_root_s_alone() {
        let plan = planned(vec![ext4(|_| {})], None).expect("a plan");
        let claim = plan.changes.iter().find(|change| change.path == "/etc/muster/enrol").expect("a claim");
        assert!(matches!(claim.write.what, What::File(_, 0o600)));
    }

    #[test]
    fn scripts_are_scripts() {
        for script in [FIRST_BOOT, nocloud::SCRIPT] {
            let checked = std::process::Command::new("sh").args(["-n", "-c", script]).output().expect("a shell");
            assert!(checked.status.success(), "{}", String::from_utf8_lossy(&checked.stderr));
        }
    }
}
