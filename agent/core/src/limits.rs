//! What the device's owner allows. The control plane may only tighten it.
//!
//! What a director wants beyond these limits is kept out, slot by slot, and reported with the reason;
//! what runs already keeps its place first, so that a new wish never costs what serves.

use std::collections::{BTreeMap, BTreeSet};

use muster_shared::DeploymentName;
use muster_shared::checks::{self, Check};
use muster_shared::desired::{Resources, SlotSpec};
use muster_shared::id::ModelName;

/// The owner's limits; absent ones limit nothing.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct OwnerLimits {
    /// Memory of all models together: what the facts report.
    pub memory_bytes: Option<u64>,
    /// Thousandths of cores of all models together: what the facts report.
    pub cpu_milli: Option<u32>,
    /// Bytes of all models' files together.
    pub disk_bytes: Option<u64>,
    /// How many slots.
    pub slots: Option<u32>,
    /// The only models that may run.
    pub models: Option<Vec<ModelName>>,
}

/// What the limits make of a director's wishes.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Allowed {
    /// Slots that are kept out, and why.
    pub kept_out: BTreeMap<DeploymentName, String>,
    /// Slots whose old version makes room before the new one is loaded, though the director did not say so.
    pub swapped: BTreeSet<DeploymentName>,
}

impl OwnerLimits {
    /// What of the wanted slots is allowed. `running` says what a slot's present version is granted, and
    /// whether it is the one that is wanted.
    pub fn allow(&self, wanted: &[SlotSpec], running: impl Fn(&SlotSpec) -> Option<(Resources, bool)>) -> Allowed {
        let mut allowed = Allowed::default();
        if !checks::on(Check::OwnerLimits) {
            return allowed;
        }
        let mut taken = Taken::default();
        let of_running: Vec<_> = wanted.iter().map(&running).collect();
        for (resources, _) in of_running.iter().flatten() {
            taken = taken.with(*resources, Resources { memory_bytes: 0, cpu_milli: 0 });
            taken.slots += 1;
        }
        for (spec, old) in wanted.iter().zip(of_running) {
            if old.is_some_and(|(_, same)| same) {
                continue;
            }
            let none = Resources { memory_bytes: 0, cpu_milli: 0 };
            let old = old.map(|(resources, _)| resources);
            let slots = taken.slots + u32::from(old.is_none());
            // The grants of the old version end with it; its cores are shared meanwhile.
            let cpu_only = Resources { memory_bytes: 0, ..old.unwrap_or(none) };
            let beside = Taken { slots, ..taken.with(spec.resources, cpu_only) };
            let instead = Taken { slots, ..taken.with(spec.resources, old.unwrap_or(none)) };
            let instead_only = spec.swap_in_place || self.speaks_against(spec, &beside).is_some();
            let then = if instead_only { instead } else { beside };
            match self.speaks_against(spec, &then) {
                Some(reason) => {
                    allowed.kept_out.insert(spec.deployment.clone(), reason);
                }
                None => {
                    if instead_only && !spec.swap_in_place {
                        allowed.swapped.insert(spec.deployment.clone());
                    }
                    taken = then;
                }
            }
        }
        allowed
    }

    fn speaks_against(&self, spec: &SlotSpec, then: &Taken) -> Option<String> {
        if self.models.as_ref().is_some_and(|models| !models.contains(&spec.model)) {
            return Some(format!("this device's owner does not allow the model {} (limits.models)", spec.model));
        }
        if let Some(most) = self.slots.filter(|most| then.slots > *most) {
            return Some(format!("this device's owner allows {most} models at a time (limits.slots)"));
        }
        if let Some(most) = self.memory_bytes.filter(|most| then.memory_bytes > u128::from(*most)) {
            return Some(format!(
                "with it models would be granted {} bytes of memory; this device gives {most} (limits.memory)",
                then.memory_bytes
            ));
        }
        self.cpu_milli.filter(|most| then.cpu_milli > u64::from(*most)).map(|most| {
            let milli = then.cpu_milli;
            format!(
                "with it models would be granted {milli} thousandths of a core; this device gives {most} (limits.cpu)"
            )
        })
    }
}

/// What is granted together.
#[derive(Debug, Clone, Copy, Default)]
struct Taken {
    memory_bytes: u128,
    cpu_milli: u64,
    slots: u32,
}

impl Taken {
    /// With a new grant in the place of an old one, as far as it is larger.
    fn with(self, new: Resources, old: Resources) -> Self {
        Self {
            memory_bytes: self.memory_bytes + u128::from(new.memory_bytes.saturating_sub(old.memory_bytes)),
            cpu_milli: self.cpu_milli + u64::from(new.cpu_milli.saturating_sub(old.cpu_milli)),
            slots: self.slots,
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::testing;

    fn spec(name: &str, memory_bytes: u64, cpu_milli: u32) -> SlotSpec {
        SlotSpec { resources: Resources { memory_bytes, cpu_milli }, ..testing::spec(name, 1) }
    }

    fn kept_out(limits: &OwnerLimits, wanted: &[SlotSpec], runs: &str) -> Vec<String> {
        let running = |spec: &SlotSpec| (spec.deployment.as_str() == runs).then_some((spec.resources, true));
        let kept_out = limits.allow(wanted, running).kept_out;
        kept_out.into_keys().map(|name| name.to_string()).collect()
    }

    #[test]
    fn what_runs_keeps_its_place_and_what_fits_beside_it_comes() {
        let wanted = [spec("a", 60, 1), spec("b", 50, 1), spec("c", 40, 1)];
        let none = OwnerLimits::default();
        assert!(kept_out(&none, &wanted, "").is_empty());
        let memory = OwnerLimits { memory_bytes: Some(100), ..none.clone() };
        assert_eq!(kept_out(&memory, &wanted, ""), ["b"]);
        assert_eq!(kept_out(&memory, &wanted, "b"), ["a"]);
        let cpu = OwnerLimits { cpu_milli: Some(2), ..none.clone() };
        assert_eq!(kept_out(&cpu, &wanted, "c"), ["b"]);
        let slots = OwnerLimits { slots: Some(1), ..none.clone() };
        assert_eq!(kept_out(&slots, &wanted, "c"), ["a", "b"]);
        let models = OwnerLimits { models: Some(vec!["other".parse().unwrap()]), ..none };
        assert_eq!(kept_out(&models, &wanted, ""), ["a", "b", "c"]);
    }

    #[test]
    fn an_old_version_makes_room_where_the_two_would_not_fit() {
        let limits = OwnerLimits { memory_bytes: Some(100), ..OwnerLimits::default() };
        let old = |memory_bytes| move |_: &SlotSpec| Some((Resources { memory_bytes, cpu_milli: 1 }, false));
        let digits = || BTreeSet::from(["digits".parse::<DeploymentName>().unwrap()]);
        let beside = limits.allow(&[spec("digits", 40, 1)], old(60));
        assert_eq!(beside, Allowed::default());
        let swapped = limits.allow(&[spec("digits", 50, 1)], old(60));
        assert_eq!(swapped, Allowed { swapped: digits(), ..Allowed::default() });
        let too_large = limits.allow(&[spec("digits", 101, 1)], old(60));
        assert_eq!(too_large.kept_out.into_keys().collect::<BTreeSet<_>>(), digits());
        let said = SlotSpec { swap_in_place: true, ..spec("digits", 50, 1) };
        assert_eq!(limits.allow(&[said], old(60)), Allowed::default());
    }

    proptest! {
        /// Whatever a plane wants, and whatever runs within the limits: what is let in keeps every limit, also
        /// while old and new versions stand beside each other.
        #[test]
        fn no_wish_loosens_a_limit(
            wishes in prop::collection::vec((0u64..100, 0u32..100, prop::option::of((0u64..100, 0u32..100)), any::<bool>()), 0..12),
            memory_bytes in 0u64..400, cpu_milli in 0u32..400, slots in 0u32..12,
        ) {
            let slot = |at: usize| format!("slot-{at}");
            let mut olds = BTreeMap::new();
            let (mut memory, mut cpu, mut count) = (0, 0, 0);
            for (at, wish) in wishes.iter().enumerate() {
                let Some((old_bytes, old_milli)) = wish.2 else { continue };
                // What runs was let in by the same limits.
                if memory + old_bytes <= memory_bytes && cpu + old_milli <= cpu_milli && count < slots {
                    (memory, cpu, count) = (memory + old_bytes, cpu + old_milli, count + 1);
                    olds.insert(slot(at), Resources { memory_bytes: old_bytes, cpu_milli: old_milli });
                }
            }
            let wanted: Vec<_> = wishes.iter().enumerate()
                .map(|(at, wish)| SlotSpec { swap_in_place: wish.3, ..spec(&slot(at), wish.0, wish.1) }).collect();
            let limits = OwnerLimits {
                memory_bytes: Some(memory_bytes), cpu_milli: Some(cpu_milli), slots: Some(slots), ..OwnerLimits::default()
            };
            let old_of = |spec: &SlotSpec| olds.get(spec.deployment.as_str()).copied();
            let allowed = limits.allow(&wanted, |spec| old_of(spec).map(|old| (old, old == spec.resources)));
            let (mut memory, mut cpu, mut count) = (0, 0, 0);
            for spec in &wanted {
                let old = old_of(spec);
                let comes = !allowed.kept_out.contains_key(&spec.deployment) && old != Some(spec.resources);
                let swaps = spec.swap_in_place || allowed.swapped.contains(&spec.deployment);
                let (old_bytes, old_milli) = old.map_or((0, 0), |old| (old.memory_bytes, old.cpu_milli));
                let (new_bytes, new_milli) = if comes { (spec.resources.memory_bytes, spec.resources.cpu_milli) } else { (0, 0) };
                memory += if swaps { old_bytes.max(new_bytes) } else { old_bytes + new_bytes };
                cpu += old_milli.max(new_milli);
                count += u32::from(comes || old.is_some());
            }
            prop_assert!(memory <= memory_bytes && cpu <= cpu_milli && count <= slots);
        }
    }
}
