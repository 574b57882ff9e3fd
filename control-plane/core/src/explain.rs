//! Why a replica is where it is, and why another waits: data first, sentences at the end.

use std::fmt;

use muster_shared::api::deployment::{Selector, VersionRule};
use muster_shared::quantity::{Bytes, MilliCpu};
use muster_shared::{DeploymentName, DeviceId, ModelName, Version};

use crate::fleet::Barred;

/// Reasons that one sentence lists; the rest are counted.
pub const REASONS_LISTED_MAX: usize = 5;

/// Why a device was chosen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Choice {
    /// It holds the replica already, and nothing speaks against it.
    Kept,
    /// Of those that could take it, its site has the fewest replicas.
    Spread {
        /// Devices that could take it.
        candidates: usize,
        /// Replicas at its site before.
        same_site: usize,
        /// Replicas at the next best one's site.
        elsewhere: usize,
    },
    /// Of those with as much room, it was measured to be the fastest.
    Fastest {
        /// Devices that could take it.
        candidates: usize,
        /// Microseconds for one prediction.
        latency_us: u64,
        /// What stays free of its scarcest resource, in thousandths.
        free_permille: u32,
    },
    /// It moved here because its device was crowded.
    Relieves {
        /// Where it was.
        from: DeviceId,
        /// What was free there, in thousandths.
        before_permille: u32,
        /// What is free on the fuller of the two after the move.
        after_permille: u32,
    },
    /// Of those that could take it, it has the most room.
    MostRoom {
        /// Devices that could take it.
        candidates: usize,
        /// What stays free of its scarcest resource, in thousandths.
        free_permille: u32,
    },
}

/// Why a replica is not on a device, or on none.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reason {
    /// The catalog has nothing to run.
    NoBundle {
        /// The model asked for.
        model: ModelName,
        /// The version rule asked for.
        version: VersionRule,
    },
    /// There is a bundle, but nothing may begin with it.
    Barred {
        /// The model.
        model: ModelName,
        /// The version.
        version: Version,
        /// Why.
        why: Barred,
    },
    /// The fleet is empty.
    NoDevices,
    /// Nobody carries the labels asked for.
    NoMatch {
        /// What was asked for.
        selector: Selector,
    },
    /// More replicas than matching devices.
    OneEach,
    /// More replicas than matching devices, of which some must let theirs go.
    OthersHoldOne,
    /// It has yet to say what it is.
    NotReported(DeviceId),
    /// It holds no connection, so nothing new goes there.
    NotConnected(DeviceId),
    /// It fell silent together with many others, so nothing of theirs moves.
    Frozen(DeviceId),
    /// It has been silent for longer than its replicas wait.
    Lost(DeviceId),
    /// An operator wants nothing new on it.
    Cordoned(DeviceId),
    /// An operator wants it empty.
    Draining(DeviceId),
    /// It has not got to serve the replica for too long.
    Stuck(DeviceId),
    /// It is much fuller than another one.
    Crowded(DeviceId),
    /// Its labels, or the selector, changed.
    NoLongerMatches(DeviceId),
    /// The rollout stopped, so no further device begins.
    Closed {
        /// The version.
        version: Version,
        /// Why it stopped.
        reason: String,
    },
    /// It has proven this very bundle bad.
    Refused {
        /// The device.
        device: DeviceId,
        /// The version.
        version: Version,
        /// What it proved.
        reason: String,
    },
    /// None of its engines reads any variant.
    NoEngine(DeviceId),
    /// All its slots are taken.
    SlotsFull(DeviceId),
    /// Another deployment answers to the name there.
    NameTaken {
        /// The device.
        device: DeviceId,
        /// The name at its doors.
        served: DeploymentName,
    },
    /// Too little memory is free.
    Memory {
        /// The device.
        device: DeviceId,
        /// What was asked for.
        wanted_bytes: u64,
        /// What no slot has.
        free_bytes: u64,
        /// What models may use there.
        all_bytes: u64,
    },
    /// Too little CPU is free.
    Cpu {
        /// The device.
        device: DeviceId,
        /// What was asked for.
        wanted_milli: u32,
        /// What no slot has.
        free_milli: u32,
        /// What models may use there.
        all_milli: u32,
    },
}

/// A deployment that does not have all its replicas, and why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Waiting {
    /// Replicas that have no place.
    pub missing: u32,
    /// Replicas wanted.
    pub wanted: u32,
    /// Why; at least one.
    pub reasons: Vec<Reason>,
}

impl Reason {
    /// The device that it speaks of, if it speaks of one.
    pub fn device(&self) -> Option<&DeviceId> {
        match self {
            Self::NoBundle { .. }
            | Self::Barred { .. }
            | Self::NoDevices
            | Self::NoMatch { .. }
            | Self::OneEach
            | Self::OthersHoldOne
            | Self::Closed { .. } => None,
            Self::NotReported(device)
            | Self::NotConnected(device)
            | Self::Frozen(device)
            | Self::Lost(device)
            | Self::Cordoned(device)
            | Self::Draining(device)
            | Self::Stuck(device)
            | Self::Crowded(device)
            | Self::NoLongerMatches(device)
            | Self::NoEngine(device)
            | Self::SlotsFull(device)
            | Self::Refused { device, .. }
            | Self::NameTaken { device, .. }
            | Self::Memory { device, .. }
            | Self::Cpu { device, .. } => Some(device),
        }
    }

    /// The reason in one word, as Kubernetes' conditions have it.
    pub fn word(&self) -> &'static str {
        match self {
            Self::NoBundle { .. } => "NoBundle",
            Self::Barred { why: Barred::BelowFloor(_), .. } => "BelowFloor",
            Self::Barred { why: Barred::RootExpired, .. } => "RootExpired",
            Self::Barred { .. } => "PublisherNotTrusted",
            Self::NoDevices => "NoDevices",
            Self::NoMatch { .. } => "NoDeviceMatches",
            Self::OneEach | Self::OthersHoldOne => "TooFewDevices",
            Self::NotReported(_) => "NotReported",
            Self::NotConnected(_) => "NotConnected",
            Self::Frozen(_) => "MovesFrozen",
            Self::Lost(_) => "DeviceLost",
            Self::Cordoned(_) => "Cordoned",
            Self::Draining(_) => "Draining",
            Self::Stuck(_) => "NoProgress",
            Self::Crowded(_) => "Rebalancing",
            Self::NoLongerMatches(_) => "NoLongerMatches",
            Self::Closed { .. } => "RolloutStopped",
            Self::Refused { .. } => "Refused",
            Self::NoEngine(_) => "NoEngine",
            Self::SlotsFull(_) => "SlotsFull",
            Self::NameTaken { .. } => "NameTaken",
            Self::Memory { .. } => "TooLittleMemory",
            Self::Cpu { .. } => "TooLittleCpu",
        }
    }
}

impl Waiting {
    /// One word for all reasons: theirs if they agree.
    pub fn word(&self) -> &'static str {
        match self.reasons.split_first() {
            Some((first, rest)) if rest.iter().all(|reason| reason.word() == first.word()) => first.word(),
            _ => "NoDeviceFits",
        }
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoBundle { model, version: VersionRule::Latest } => {
                write!(f, "model {model} has no complete bundle")
            }
            Self::NoBundle { model, version: VersionRule::Exact(version) } => {
                write!(f, "model {model} has no complete bundle of version {version}")
            }
            Self::Barred { model, version, why } => {
                let next = match why {
                    Barred::BelowFloor(floor) => format!("push version {floor} or a later one"),
                    Barred::RootExpired => "sign the next root: `muster keys renew`".to_owned(),
                    _ => "sign it anew with a publisher's key that the root names, and push it again".to_owned(),
                };
                write!(f, "nothing begins with version {version} of model {model}: {why}; {next}")
            }
            Self::NoDevices => f.write_str("no device is enrolled yet"),
            Self::NoMatch { selector } => {
                f.write_str("no device matches ")?;
                for (at, (key, value)) in selector.match_labels.iter().enumerate() {
                    let comma = if at == 0 { "" } else { "," };
                    write!(f, "{comma}{key}={value}")?;
                }
                Ok(())
            }
            Self::OthersHoldOne => f.write_str("every other matching device already holds one"),
            Self::OneEach => f.write_str("every matching device already holds one"),
            Self::NotReported(device) => write!(f, "{device} has yet to report"),
            Self::NotConnected(device) => write!(f, "{device} is not connected"),
            Self::Frozen(device) => write!(f, "{device} fell silent together with many others"),
            Self::Lost(device) => write!(f, "{device} fell silent and did not come back in time"),
            Self::Cordoned(device) => write!(f, "{device} is cordoned"),
            Self::Draining(device) => write!(f, "{device} is being drained"),
            Self::Stuck(device) => write!(f, "{device} has not got to serve it for too long"),
            Self::Crowded(device) => write!(f, "{device} is much fuller than another device"),
            Self::NoLongerMatches(device) => write!(f, "{device} no longer matches the selector"),
            Self::Closed { version, reason } => write!(f, "the rollout of version {version} stopped: {reason}"),
            Self::Refused { device, version, reason } => write!(f, "{device} refused version {version}: {reason}"),
            Self::NoEngine(device) => write!(f, "{device} has no engine for this model's format"),
            Self::SlotsFull(device) => write!(f, "{device} has no slot left"),
            Self::NameTaken { device, served } => {
                write!(f, "{device}: another deployment answers as {served} there")
            }
            Self::Memory { device, wanted_bytes, free_bytes, all_bytes } => {
                let (wanted, free, all) = (Bytes(*wanted_bytes), in_mebibytes(*free_bytes), in_mebibytes(*all_bytes));
                write!(f, "{device}: {wanted} wanted, {free} of {all} free")
            }
            Self::Cpu { device, wanted_milli, free_milli, all_milli } => {
                let (wanted, free, all) = (MilliCpu(*wanted_milli), MilliCpu(*free_milli), MilliCpu(*all_milli));
                write!(f, "{device}: {wanted} CPU wanted, {free} of {all} free")
            }
        }
    }
}

impl fmt::Display for Waiting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { missing, wanted, reasons } = self;
        if *wanted > 1 && *missing > 0 {
            let verb = if *missing == 1 { "waits" } else { "wait" };
            write!(f, "{missing} of {wanted} replicas {verb}: ")?;
        }
        for (at, reason) in reasons.iter().take(REASONS_LISTED_MAX).enumerate() {
            let semicolon = if at == 0 { "" } else { "; " };
            write!(f, "{semicolon}{reason}")?;
        }
        match reasons.len().saturating_sub(REASONS_LISTED_MAX) {
            0 => Ok(()),
            more => write!(f, "; and {more} more"),
        }
    }
}

impl fmt::Display for Choice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Kept => f.write_str("it is there already"),
            Self::Spread { candidates, same_site, elsewhere } => write!(
                f,
                "of {candidates} devices one whose site has the fewest replicas: {same_site}, the next one has {elsewhere}"
            ),
            Self::Fastest { candidates, latency_us, free_permille } => {
                let ms = *latency_us as f64 / 1000.0;
                write!(
                    f,
                    "of {candidates} devices the fastest with much room: {ms:.2} ms for a prediction, {}% stays free",
                    free_permille / 10
                )
            }
            Self::Relieves { from, before_permille, after_permille } => write!(
                f,
                "it relieves {from}, which had {}% free; now the fuller of the two has {}%",
                before_permille / 10,
                after_permille / 10
            ),
            Self::MostRoom { candidates: 1, .. } => f.write_str("the only device that can take it"),
            Self::MostRoom { candidates, free_permille } => {
                write!(f, "of {candidates} devices the one with the most room: {}% stays free", free_permille / 10)
            }
        }
    }
}

/// Machines rarely have a round number of bytes; a person wants to see `497Mi`.
fn in_mebibytes(bytes: u64) -> Bytes {
    const MEBIBYTE: u64 = 1 << 20;
    Bytes(if bytes < MEBIBYTE { bytes } else { bytes / MEBIBYTE * MEBIBYTE })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reasons_read_as_a_person_would_say_them() {
        let device: DeviceId = "edge-1".parse().expect("an id");
        let labels = [("site", "north"), ("arch", "arm")];
        let label = |text: &str| text.parse().expect("a label");
        let selector = Selector { match_labels: labels.map(|(key, value)| (label(key), label(value))).into() };
        let memory = Reason::Memory {
            device: device.clone(),
            wanted_bytes: 128 << 20,
            free_bytes: (40 << 20) + 5,
            all_bytes: 512 << 20,
        };
        let cpu = Reason::Cpu { device: device.clone(), wanted_milli: 500, free_milli: 250, all_milli: 4000 };
        let version = Version::new(3).expect("positive");
        let refused =
            Reason::Refused { device: device.clone(), version, reason: "golden vectors: row 2 is off by 0.5".into() };
        let model: ModelName = "digits".parse().expect("a name");
        let no_version = Reason::NoBundle { model, version: VersionRule::Exact(version) };
        for (reason, text) in [
            (Reason::NoMatch { selector }, "no device matches arch=arm,site=north"),
            (memory, "edge-1: 128Mi wanted, 40Mi of 512Mi free"),
            (cpu, "edge-1: 500m CPU wanted, 250m of 4 free"),
            (refused, "edge-1 refused version 3: golden vectors: row 2 is off by 0.5"),
            (no_version, "model digits has no complete bundle of version 3"),
        ] {
            assert_eq!(reason.to_string(), text);
        }
    }

    #[test]
    fn what_waits_is_counted_and_long_lists_are_cut() {
        let device = |number: u32| -> DeviceId { format!("edge-{number}").parse().expect("an id") };
        let one_each = Waiting { missing: 2, wanted: 3, reasons: vec![Reason::OneEach] };
        assert_eq!(one_each.to_string(), "2 of 3 replicas wait: every matching device already holds one");
        assert_eq!(one_each.word(), "TooFewDevices");
        let reasons = (1..=7).map(|number| Reason::Cordoned(device(number))).collect();
        let many = Waiting { missing: 1, wanted: 1, reasons };
        assert_eq!(
            many.to_string(),
            "edge-1 is cordoned; edge-2 is cordoned; edge-3 is cordoned; edge-4 is cordoned; edge-5 is cordoned; and 2 more"
        );
        let mixed = Waiting { reasons: vec![Reason::OneEach, Reason::Cordoned(device(1))], ..one_each };
        assert_eq!(mixed.word(), "NoDeviceFits");
    }
}
