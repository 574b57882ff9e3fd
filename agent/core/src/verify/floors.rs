//! Version floors, and the highest versions seen signed: below min(floor, seen) nothing of a model runs.
//!
//! A floor is kept as its publisher signed it and verified again by each root, so that a root can take a
//! stolen key's floor back. `seen` only rises: it bounds floors, so that a floor that names a version far
//! ahead stops nothing that the publisher has no successor for.

use std::collections::BTreeMap;

use muster_shared::Version;
use muster_shared::checks::{self, Check};
use muster_shared::floor::{FloorError, VerifiedFloor};
use muster_shared::id::ModelName;
use muster_shared::limits::FLOORS_MAX;
use muster_shared::manifest::VerifiedManifest;
use muster_shared::reported::ModelFloor;
use muster_shared::root::TrustedRoot;
use muster_shared::signing::Envelope;

use super::Watermark;

/// What a device knows of floors.
#[derive(Debug, Clone, Default)]
pub struct Floors {
    floors: BTreeMap<ModelName, Kept>,
    seen: BTreeMap<ModelName, Version>,
}

#[derive(Debug, Clone)]
struct Kept {
    version: Version,
    envelope: Envelope,
}

impl Floors {
    /// What was kept, as far as the root still believes it.
    pub fn restored(watermark: &Watermark, root: &TrustedRoot) -> Self {
        let mut floors = Self { seen: watermark.seen.clone(), ..Self::default() };
        for envelope in watermark.floors.iter().take(FLOORS_MAX) {
            // One that is not believed any more stays away until a root names its signer again.
            let _ = floors.offered(envelope, root);
        }
        floors
    }

    /// Takes a floor that came, if a publisher of its model signed it. Says whether it changed anything: a
    /// floor only rises.
    pub fn offered(&mut self, envelope: &Envelope, root: &TrustedRoot) -> Result<bool, FloorError> {
        let verified = VerifiedFloor::verify(envelope, root)?;
        let (model, version) = (&verified.floor().model, verified.floor().version);
        let held = self.floors.get(model).map(|kept| kept.version);
        if held.is_some_and(|held| checks::on(Check::Floor) && held >= version) || !has_room(&self.floors, model) {
            return Ok(false);
        }
        self.floors.insert(model.clone(), Kept { version, envelope: envelope.clone() });
        Ok(true)
    }

    /// Takes notice of a version that a publisher signed. Says whether it is the highest so far.
    pub fn saw(&mut self, manifest: &VerifiedManifest) -> bool {
        let (model, version) = (&manifest.manifest().model, manifest.manifest().version);
        let higher = self.seen.get(model).is_none_or(|seen| *seen < version) && has_room(&self.seen, model);
        if higher {
            self.seen.insert(model.clone(), version);
        }
        higher
    }

    /// Leaves away floors that a new root does not believe.
    pub fn judge_again(&mut self, root: &TrustedRoot) {
        self.floors.retain(|_, kept| VerifiedFloor::verify(&kept.envelope, root).is_ok());
    }

    /// The floor that a publisher's word is held for.
    pub fn known(&self, model: &ModelName) -> Option<Version> {
        self.floors.get(model).map(|kept| kept.version)
    }

    /// The lowest version of a model that may run here.
    pub fn effective(&self, model: &ModelName) -> Option<Version> {
        let floor = self.known(model)?;
        if !checks::on(Check::FloorBound) {
            return Some(floor);
        }
        match self.seen.get(model) {
            Some(seen) => Some(floor.min(*seen)),
            // Where there is no place left to see it in, a floor must not fail open.
            None => (!has_room(&self.seen, model)).then_some(floor),
        }
    }

    /// Why a version may not run, if it may not.
    pub fn forbid(&self, model: &ModelName, version: Version) -> Option<String> {
        let floor = self.effective(model)?;
        let below = checks::on(Check::Floor) && version < floor;
        below.then(|| format!("version {version} of {model} is below its floor, version {floor}"))
    }

    /// Whether the floor that the director knows is known here, too.
    pub fn is_known(&self, model: &ModelName, floor: Option<Version>) -> bool {
        !checks::on(Check::FloorKnown)
            || floor.is_none_or(|floor| self.known(model).is_some_and(|known| known >= floor))
    }

    /// The floors that a publisher's word is held for, by model.
    pub fn all(&self) -> impl Iterator<Item = ModelFloor> + '_ {
        self.floors.iter().map(|(model, kept)| ModelFloor { model: model.clone(), version: kept.version })
    }

    /// The highest versions seen signed, by model.
    pub fn seen(&self) -> &BTreeMap<ModelName, Version> {
        &self.seen
    }

    /// The floors as they are kept.
    pub fn envelopes(&self) -> Vec<Envelope> {
        self.floors.values().map(|kept| kept.envelope.clone()).collect()
    }
}

/// A newcomer gives way: what is known must not be pushed out by what comes.
fn has_room<T>(map: &BTreeMap<ModelName, T>, model: &ModelName) -> bool {
    map.len() < FLOORS_MAX || map.contains_key(model)
}

#[cfg(test)]
mod tests {
    use muster_shared::root::Root;
    use proptest::prelude::*;

    use super::*;
    use crate::testing::{self, PUBLISHER, floor, key, manifest};

    fn version(number: u64) -> Version {
        Version::new(number).unwrap()
    }

    fn saw(floors: &mut Floors, number: u64) {
        let root = testing::trusted(&testing::root());
        let (envelope, _) = manifest("digits", number, PUBLISHER);
        floors.saw(&VerifiedManifest::verify(&envelope, &root).unwrap());
    }

    #[test]
    fn a_floor_counts_up_to_the_highest_version_seen_signed() {
        let root = testing::trusted(&testing::root());
        let digits: ModelName = "digits".parse().unwrap();
        let mut floors = Floors::default();
        assert_eq!(floors.offered(&floor("digits", 7, PUBLISHER), &root), Ok(true));
        assert_eq!((floors.known(&digits), floors.effective(&digits)), (Some(version(7)), None));
        saw(&mut floors, 4);
        assert_eq!(floors.effective(&digits), Some(version(4)));
        assert!(floors.forbid(&digits, version(3)).is_some() && floors.forbid(&digits, version(4)).is_none());
        saw(&mut floors, 9);
        assert_eq!(floors.effective(&digits), Some(version(7)));
        saw(&mut floors, 2);
        assert_eq!(floors.effective(&digits), Some(version(7)));
        assert!(floors.forbid(&"other".parse().unwrap(), version(1)).is_none());
    }

    #[test]
    fn a_floor_never_sinks_and_goes_with_its_signer() {
        let root = testing::trusted(&testing::root());
        let digits: ModelName = "digits".parse().unwrap();
        let mut floors = Floors::default();
        assert_eq!(floors.offered(&floor("digits", 7, PUBLISHER), &root), Ok(true));
        assert_eq!(floors.offered(&floor("digits", 6, PUBLISHER), &root), Ok(false));
        assert!(floors.offered(&floor("digits", 8, 33), &root).is_err());
        assert_eq!(floors.known(&digits), Some(version(7)));
        let compromised = vec![key(PUBLISHER).public().id()];
        floors.judge_again(&testing::trusted(&Root { compromised, ..testing::root() }));
        assert_eq!(floors.known(&digits), None);
    }

    #[test]
    fn a_newcomer_gives_way_when_all_places_are_taken() {
        let root = testing::trusted(&testing::root());
        let mut floors = Floors::default();
        for number in 0..FLOORS_MAX {
            assert_eq!(floors.offered(&floor(&format!("model-{number}"), 1, PUBLISHER), &root), Ok(true));
        }
        assert_eq!(floors.offered(&floor("one-more", 1, PUBLISHER), &root), Ok(false));
        assert_eq!(floors.offered(&floor("model-0", 2, PUBLISHER), &root), Ok(true));
    }

    proptest! {
        /// Whatever comes in whatever order, the effective floor is that of the rule, and never sinks.
        #[test]
        fn the_effective_floor_is_the_least_of_the_highest_floor_and_the_highest_seen(
            came in prop::collection::vec((any::<bool>(), 1u64..9, any::<bool>()), 0..12),
        ) {
            let root = testing::trusted(&testing::root());
            let digits: ModelName = "digits".parse().unwrap();
            let (mut floors, mut highest, mut highest_seen, mut last) = (Floors::default(), None, None, None);
            for (is_floor, number, trusted) in came {
                let signer = if trusted { PUBLISHER } else { 33 };
                if is_floor {
                    let taken = floors.offered(&floor("digits", number, signer), &root);
                    prop_assert_eq!(taken.is_ok(), trusted);
                    highest = highest.max(trusted.then_some(number));
                } else if let Ok(verified) = VerifiedManifest::verify(&manifest("digits", number, signer).0, &root) {
                    prop_assert!(trusted);
                    floors.saw(&verified);
                    highest_seen = highest_seen.max(Some(number));
                }
                let effective = floors.effective(&digits).map(Version::get);
                prop_assert_eq!(effective, highest.zip(highest_seen).map(|(floor, seen)| floor.min(seen)));
                prop_assert!(effective >= last);
                last = effective;
                // A restart in between changes nothing.
                let (floors_kept, seen) = (floors.envelopes(), floors.seen().clone());
                let watermark = Watermark { floors: floors_kept, seen, ..Watermark::default() };
                floors = Floors::restored(&watermark, &root);
            }
        }
    }
}
