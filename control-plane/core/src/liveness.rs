//! Which devices are there, which are silent, and when many fell silent together.
//!
//! Silence counts only while we could have heard: an outage of ours is not the loss of the fleet. When
//! at least [`TOGETHER_MIN`] devices and more than half of a site or of the fleet fall silent within
//! one grace period, they are frozen: nothing of theirs moves until they return or an operator
//! approves it.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use muster_shared::DeviceId;
use muster_shared::id::UnixMs;
use serde::{Deserialize, Serialize};

use crate::fleet::Presence;

/// So many devices that fall silent are "many".
pub const TOGETHER_MIN: usize = 2;

/// What is remembered of silence; durable, so that a restart of the plane does not forget who was lost.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Liveness {
    /// The silent devices.
    pub silent: BTreeMap<DeviceId, Silence>,
    /// Groups whose moves are frozen.
    pub freezes: BTreeMap<Group, Freeze>,
    /// When this was last looked at.
    pub looked_ms: UnixMs,
}

/// One silent device.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Silence {
    /// Since when.
    pub since_ms: UnixMs,
    /// How long of that we could have heard it.
    pub counted_ms: u64,
    /// An operator takes it for lost, whatever fell silent with it.
    pub approved: bool,
}

/// Devices that may fall silent together.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum Group {
    /// All of them.
    Fleet,
    /// Those of one site.
    Site(String),
}

/// A group that fell silent together.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Freeze {
    /// Since when.
    pub since_ms: UnixMs,
    /// Those that fell silent and are still.
    pub devices: BTreeSet<DeviceId>,
    /// Devices of the group that were there before.
    pub of: usize,
}

/// What is seen of one device.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Seen {
    /// Since when it holds a connection; none: it holds none.
    pub connected_ms: Option<UnixMs>,
    /// Where it stands.
    pub site: Option<String>,
}

/// What is seen of the fleet.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Sight {
    /// Every enrolled device that ever reported.
    pub devices: BTreeMap<DeviceId, Seen>,
    /// Since when we hear devices without a gap; none: we do not hear them now.
    pub hearing_since_ms: Option<UnixMs>,
    /// Devices that fall silent within this time fall silent together: the longest grace period.
    pub together_ms: u64,
    /// Nothing moves before a device has been silent for so long: the shortest grace period.
    pub first_ms: u64,
}

impl Liveness {
    /// Looks again.
    pub fn step(mut self, sight: &Sight, now_ms: UnixMs) -> Self {
        // Time in which we heard nothing counts for nobody.
        let heard_since = sight.hearing_since_ms.map(|since| since.max(self.looked_ms));
        let heard_ms = heard_since.map_or(0, |since| now_ms.saturating_sub(since));
        self.looked_ms = now_ms;
        let before: BTreeMap<DeviceId, u64> =
            self.silent.iter().map(|(id, silence)| (id.clone(), silence.counted_ms)).collect();
        let is_up = |id: &DeviceId| sight.devices.get(id).is_none_or(|seen| seen.connected_ms.is_some());
        self.silent.retain(|id, _| !is_up(id));
        for (id, _) in sight.devices.iter().filter(|(id, _)| !is_up(id)) {
            match self.silent.get_mut(id) {
                Some(silence) => silence.counted_ms = silence.counted_ms.saturating_add(heard_ms),
                None => {
                    let silence = Silence { since_ms: now_ms, counted_ms: 0, approved: false };
                    self.silent.insert(id.clone(), silence);
                }
            }
        }
        self.thaw(sight);
        self.freeze(sight, &before, now_ms);
        self
    }

    /// An operator takes every silent device for lost: moves go on.
    pub fn approve(&mut self) {
        self.silent.values_mut().for_each(|silence| silence.approved = true);
        self.freezes.clear();
    }

    /// Whether a device is there.
    pub fn presence(&self, id: &DeviceId, seen: Option<&Seen>, now_ms: UnixMs) -> Presence {
        match (self.silent.get(id), seen.and_then(|seen| seen.connected_ms)) {
            (Some(silence), _) => Presence::Silent {
                for_ms: if silence.approved { u64::MAX } else { silence.counted_ms },
                frozen: self.freezes.values().any(|freeze| freeze.devices.contains(id)),
            },
            (None, Some(since_ms)) => Presence::Up { for_ms: now_ms.saturating_sub(since_ms) },
            (None, None) => Presence::default(),
        }
    }

    /// When silence of a device that is not frozen reaches this length, if it goes on.
    pub fn next_deadline_ms(&self, lengths_ms: &BTreeSet<u64>) -> Option<UnixMs> {
        let frozen = |id: &DeviceId| self.freezes.values().any(|freeze| freeze.devices.contains(id));
        let next = |(_, silence): (&DeviceId, &Silence)| {
            let length = lengths_ms.range(silence.counted_ms + 1..).next()?;
            Some(self.looked_ms + (length - silence.counted_ms))
        };
        self.silent.iter().filter(|(id, silence)| !frozen(id) && !silence.approved).filter_map(next).min()
    }

    /// Ends freezes of which no longer many are silent. Those that are left count from now on: the
    /// others came back only just now, and so may they.
    fn thaw(&mut self, sight: &Sight) {
        for (group, mut freeze) in std::mem::take(&mut self.freezes) {
            freeze.devices.retain(|id| self.silent.contains_key(id));
            let of = freeze.of.min(sight.devices.values().filter(|seen| group.holds(seen)).count());
            if is_many(freeze.devices.len(), of) {
                self.freezes.insert(group, freeze);
            } else {
                for id in &freeze.devices {
                    if let Some(silence) = self.silent.get_mut(id) {
                        silence.counted_ms = 0;
                    }
                }
            }
        }
    }

    /// Looks for groups that fell silent together as soon as one of their devices would be lost.
    /// `before`: how long each had been silent at the last look; who was lost then did not fall silent
    /// together with these.
    fn freeze(&mut self, sight: &Sight, before: &BTreeMap<DeviceId, u64>, now_ms: UnixMs) {
        let sites = sight.devices.values().filter_map(|seen| seen.site.clone()).map(Group::Site);
        let groups: BTreeSet<Group> = sites.chain([Group::Fleet]).collect();
        for group in groups {
            let members = || sight.devices.iter().filter(|(_, seen)| group.holds(seen));
            let held = self.freezes.get(&group).map(|freeze| freeze.devices.clone()).unwrap_or_default();
            let fell = |id: &&DeviceId| {
                let silence = self.silent.get(*id).filter(|silence| !silence.approved);
                let earlier = before.get(*id).copied().unwrap_or(0);
                silence.is_some() && (earlier < sight.together_ms || held.contains(*id))
            };
            let silent: BTreeSet<DeviceId> = members().map(|(id, _)| id).filter(fell).cloned().collect();
            let up = members().filter(|(id, _)| !self.silent.contains_key(*id)).count();
            let of = up + silent.len();
            let is_due =
                silent.iter().any(|id| self.silent.get(id).is_some_and(|silence| silence.counted_ms >= sight.first_ms));
            if is_many(silent.len(), of) && (is_due || !held.is_empty()) {
                let freeze =
                    self.freezes.entry(group).or_insert(Freeze { since_ms: now_ms, devices: BTreeSet::new(), of });
                freeze.of = freeze.of.max(of);
                freeze.devices.extend(silent);
            }
        }
    }
}

fn is_many(silent: usize, of: usize) -> bool {
    silent >= TOGETHER_MIN && silent * 2 > of
}

impl Group {
    fn holds(&self, seen: &Seen) -> bool {
        match self {
            Self::Fleet => true,
            Self::Site(site) => seen.site.as_ref() == Some(site),
        }
    }
}

impl fmt::Display for Group {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Fleet => f.write_str("fleet"),
            Self::Site(site) => write!(f, "site {site}"),
        }
    }
}

impl From<Group> for String {
    fn from(group: Group) -> Self {
        match group {
            Group::Fleet => "fleet".to_owned(),
            Group::Site(site) => format!("site={site}"),
        }
    }
}

impl TryFrom<String> for Group {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        match text.strip_prefix("site=") {
            Some(site) => Ok(Self::Site(site.to_owned())),
            None if text == "fleet" => Ok(Self::Fleet),
            None => Err(format!("{text:?} is no group of devices")),
        }
    }
}

impl fmt::Display for Freeze {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (silent, of) = (self.devices.len(), self.of);
        write!(
            f,
            "{silent} of {of} devices fell silent together, so nothing of theirs moves until they return; \
             if they are lost, approve it with `muster plan approve`"
        )
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const GRACE_MS: u64 = 5_000;

    fn id(number: usize) -> DeviceId {
        format!("edge-{number}").parse().expect("an id")
    }

    /// Devices by letter: `U` up, `s` silent, all at one site.
    fn sight(states: &str, hearing_since_ms: Option<UnixMs>) -> Sight {
        let seen = |state: char| Seen { connected_ms: (state == 'U').then_some(0), site: None };
        let devices = states.chars().enumerate().map(|(at, state)| (id(at + 1), seen(state))).collect();
        Sight { devices, hearing_since_ms, together_ms: GRACE_MS, first_ms: GRACE_MS }
    }

    /// Looks at `states` at each time and says who is lost at the end, and whether anything is frozen.
    fn check(looks: &[(UnixMs, &str)], lost: &[usize], frozen: bool) -> Liveness {
        let mut liveness = Liveness::default();
        for (at_ms, states) in looks {
            liveness = liveness.step(&sight(states, Some(0)), *at_ms);
        }
        let is_lost = |number: &usize| matches!(liveness.presence(&id(*number), None, 0), Presence::Silent { for_ms, frozen: false } if for_ms >= GRACE_MS);
        let devices = looks.last().map_or(0, |(_, states)| states.len());
        let found: Vec<usize> = (1..=devices).filter(|number| is_lost(number)).collect();
        assert_eq!((found, !liveness.freezes.is_empty()), (lost.to_vec(), frozen), "{looks:?} {liveness:?}");
        liveness
    }

    #[test]
    fn a_silent_device_is_lost_after_its_grace_and_a_return_forgets_it() {
        check(&[(0, "UUU"), (1_000, "UUs"), (5_999, "UUs")], &[], false);
        check(&[(0, "UUU"), (1_000, "UUs"), (6_000, "UUs")], &[3], false);
        check(&[(0, "UUU"), (1_000, "UUs"), (6_000, "UUs"), (6_100, "UUU"), (9_000, "UUs")], &[], false);
        // One alone is one alone, also where it is the whole fleet.
        check(&[(0, "U"), (1_000, "s"), (6_000, "s")], &[1], false);
    }

    #[test]
    fn many_that_fall_silent_together_freeze_and_return() {
        check(&[(0, "UUU"), (1_000, "Uss"), (60_000, "Uss")], &[], true);
        check(&[(0, "UUU"), (1_000, "UUs"), (4_000, "Uss"), (60_000, "sss")], &[], true);
        // Half is not more than half.
        check(&[(0, "UUUU"), (1_000, "UUss"), (6_000, "UUss")], &[3, 4], false);
        // Those that are left count from the others' return.
        check(&[(0, "UUU"), (1_000, "Uss"), (60_000, "Uss"), (61_000, "UUs"), (65_000, "UUs")], &[], false);
        check(&[(0, "UUU"), (1_000, "Uss"), (60_000, "Uss"), (61_000, "UUs"), (66_000, "UUs")], &[3], false);
    }

    #[test]
    fn who_was_lost_long_ago_does_not_count_as_falling_silent() {
        // Three of five were lost one by one; then one of the two that are left.
        let looks = [
            (0, "UUUUU"),
            (10_000, "UUUUs"),
            (15_000, "UUUUs"),
            (20_000, "UUUss"),
            (25_000, "UUUss"),
            (30_000, "UUsss"),
            (35_000, "UUsss"),
            (40_000, "Ussss"),
            (45_000, "Ussss"),
        ];
        check(&looks, &[2, 3, 4, 5], false);
    }

    #[test]
    fn an_operator_may_take_them_for_lost() {
        let mut liveness = check(&[(0, "UUU"), (1_000, "Uss"), (60_000, "Uss")], &[], true);
        liveness.approve();
        let liveness = liveness.step(&sight("Uss", Some(0)), 60_100);
        assert!(liveness.freezes.is_empty());
        assert_eq!(liveness.presence(&id(3), None, 0), Presence::Silent { for_ms: u64::MAX, frozen: false });
        // Once back, the approval is used up.
        let liveness = liveness.step(&sight("UUU", Some(0)), 61_000).step(&sight("UUs", Some(0)), 62_000);
        assert_eq!(liveness.presence(&id(3), None, 0), Presence::Silent { for_ms: 0, frozen: false });
    }

    #[test]
    fn time_in_which_we_hear_nobody_counts_for_nobody() {
        let mut liveness = Liveness::default().step(&sight("UUUU", Some(0)), 0).step(&sight("UUUs", Some(0)), 1_000);
        for at_ms in (2_000..60_000).step_by(1_000) {
            liveness = liveness.step(&sight("UUUs", None), at_ms);
        }
        // We hear again since a moment ago.
        liveness = liveness.step(&sight("UUUs", Some(59_900)), 60_000);
        assert_eq!(liveness.presence(&id(4), None, 0), Presence::Silent { for_ms: 100, frozen: false });
        liveness = liveness.step(&sight("UUUs", Some(59_900)), 65_000);
        assert_eq!(liveness.presence(&id(4), None, 0), Presence::Silent { for_ms: 5_100, frozen: false });
    }

    #[test]
    fn a_site_freezes_by_itself() {
        let seen = |site: &str, up: bool| Seen { connected_ms: up.then_some(0), site: Some(site.to_owned()) };
        let devices = |north: bool| -> BTreeMap<DeviceId, Seen> {
            (1..=10)
                .map(|number| (id(number), if number <= 3 { seen("north", north) } else { seen("south", true) }))
                .collect()
        };
        let sight = |north: bool| Sight {
            devices: devices(north),
            hearing_since_ms: Some(0),
            together_ms: GRACE_MS,
            first_ms: GRACE_MS,
        };
        let liveness = Liveness::default().step(&sight(true), 0).step(&sight(false), 1_000).step(&sight(false), 90_000);
        assert_eq!(liveness.freezes.keys().collect::<Vec<_>>(), [&Group::Site("north".to_owned())]);
        let json = serde_json::to_string(&liveness).expect("JSON");
        assert_eq!(serde_json::from_str::<Liveness>(&json).expect("reads back"), liveness);
    }

    #[test]
    fn the_next_deadline_is_when_the_next_grace_ends() {
        let liveness = Liveness::default().step(&sight("UUUs", Some(0)), 1_000);
        assert_eq!(liveness.next_deadline_ms(&[2_000, GRACE_MS].into()), Some(3_000));
        let liveness = liveness.step(&sight("UUUs", Some(0)), 3_000);
        assert_eq!(liveness.next_deadline_ms(&[2_000, GRACE_MS].into()), Some(6_000));
        let liveness = liveness.step(&sight("UUUs", Some(0)), 6_000);
        assert_eq!(liveness.next_deadline_ms(&[2_000, GRACE_MS].into()), None);
    }

    proptest! {
        #[test]
        fn many_never_move_together(looks in prop::collection::vec(("[Us]{6}", 1u64..4_000), 1..30)) {
            // However devices come and go: at no look are those that are lost newly and at once more than
            // half of those that are there or were until now.
            let mut liveness = Liveness::default().step(&sight("UUUUUU", Some(0)), 0);
            let lost = |liveness: &Liveness| -> BTreeSet<usize> {
                (1..=6).filter(|number| matches!(liveness.presence(&id(*number), None, 0), Presence::Silent { for_ms, frozen: false } if for_ms >= GRACE_MS)).collect()
            };
            let mut now_ms = 0;
            for (states, after_ms) in looks {
                now_ms += after_ms;
                let before = lost(&liveness);
                liveness = liveness.step(&sight(&states, Some(0)), now_ms);
                let after = lost(&liveness);
                let new = after.difference(&before).count();
                let up = states.chars().filter(|state| *state == 'U').count();
                prop_assert!(!is_many(new, up + new), "{new} lost at once: {liveness:?}");
            }
        }
    }
}
