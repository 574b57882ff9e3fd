//! Anything in any order: what a device believes holds for all of it.

use std::collections::BTreeSet;

use proptest::prelude::*;

use super::*;

/// Something that a plane, a broker or a publisher brings to a device, or what befalls it.
#[derive(Debug, Clone)]
enum Chance {
    Desired { epoch: u64, number: u64, version: u64, signer: u8, director: bool, floor: Option<u64>, root: u64 },
    Floor { version: u64, signer: u8, seen: Option<u64> },
    Root { by_root: bool, skips: bool, epoch: u64, removed: Option<u8>, compromised: Option<u8> },
    Restart { loses_journal: bool },
    Died,
}

fn chance() -> impl Strategy<Value = Chance> {
    let signer = || prop_oneof![4 => Just(PUBLISHER), 3 => Just(OTHER), 2 => Just(NOBODY)];
    let desired =
        (1u64..4, 1u64..8, 1u64..6, signer(), prop::bool::weighted(0.9), prop::option::weighted(0.2, 1u64..6), 1u64..4);
    prop_oneof![
        8 => desired.prop_map(|(epoch, number, version, signer, director, floor, root)| {
            Chance::Desired { epoch: epoch.max(2) - 1, number, version, signer, director, floor, root: root.max(2) - 1 }
        }),
        3 => (1u64..6, signer(), prop::option::of(1u64..6)).prop_map(|(version, signer, seen)| Chance::Floor { version, signer, seen }),
        1 => (prop::bool::weighted(0.8), prop::bool::weighted(0.1), 0u64..2, prop::option::of(signer()), prop::option::weighted(0.3, signer()))
            .prop_map(|(by_root, skips, epoch, removed, compromised)| Chance::Root { by_root, skips, epoch, removed, compromised }),
        1 => any::<bool>().prop_map(|loses_journal| Chance::Restart { loses_journal }),
        1 => Just(Chance::Died),
    ]
}

impl World {
    fn on(&mut self, chance: Chance) {
        match chance {
            Chance::Desired { epoch, number, version, signer, director, floor, root } => {
                let slot = SlotSpec { floor: floor.and_then(Version::new), ..signed_by(signer, version) };
                let desired = Desired { expires_ms: 900_000, root_version: root, ..wanted(epoch, number, &[slot]) };
                let director = if director { DIRECTOR } else { NOBODY };
                let payload = encode(&desired).unwrap();
                let envelope = Envelope::sign(payload_type::DESIRED, payload, &[&key(director)]);
                let held = self.agent.held();
                self.happen(Event::DesiredOffered(envelope));
                assert!(director == DIRECTOR || self.agent.held() == held);
            }
            Chance::Floor { version, signer, seen } => {
                let seen = seen.map(|version| manifest("digits", version, signer).0);
                self.happen(Event::FloorOffered(floor("digits", version, signer), seen));
            }
            Chance::Root { by_root, skips, epoch, removed, compromised } => {
                let mut next = self.root.clone();
                next.version += 1 + u64::from(skips);
                next.epoch = (next.epoch + epoch).min(2);
                next.publishers.retain(|publisher| Some(publisher.key) != removed.map(|seed| key(seed).public()));
                next.compromised.extend(compromised.map(|seed| key(seed).public().id()));
                let signer = key(if by_root { ROOT } else { NOBODY });
                let envelope = Envelope::sign(payload_type::ROOT, next.to_payload(), &[&signer]);
                if by_root && !skips {
                    self.root = next;
                }
                self.happen(Event::TrustOffered(envelope));
                assert_eq!(self.agent.root().root(), &self.root);
            }
            Chance::Restart { loses_journal } => self.restart(loses_journal),
            Chance::Died => {
                let dies: Vec<_> = self.workers.iter().map(|(id, spec)| (*id, spec.deployment.clone())).collect();
                for (id, deployment) in dies {
                    self.workers.remove(&id);
                    let died = SlotEvent::Died(id, crate::slot::Death::Killed, "killed".into());
                    self.happen(Event::Slot(deployment, died));
                }
            }
        }
        self.work();
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    /// Whatever is offered in whatever order, over restarts and losses of all but the identity folder: nothing
    /// runs that no trusted publisher signed, nothing below its effective floor, and no generation goes back.
    #[test]
    fn nothing_untrusted_runs_whatever_is_offered(chances in prop::collection::vec(chance(), 1..40)) {
        let mut world = World::new();
        let mut floors: BTreeMap<_, Version> = BTreeMap::new();
        for chance in chances {
            let is_root = matches!(chance, Chance::Root { .. });
            world.on(chance);
            // What began was judged as it began; here what still runs is judged again.
            for spec in world.workers.values() {
                world.may_run(spec);
            }
            for proven in world.proven.values() {
                world.may_run(&proven.spec);
            }
            let routed: BTreeSet<_> = world.routed.values().collect();
            prop_assert!(routed.iter().all(|id| world.workers.contains_key(id)) || routed.is_empty() || world.agent.next_deadline_ms().is_some());
            prop_assert!(world.watermark.desired.map(|mark| mark.generation) >= world.highest);
            // A floor sinks only by a root that takes its signer away.
            let effective = world.agent.floors().effective(&"digits".parse().unwrap());
            let before = floors.get("digits").copied();
            prop_assert!(is_root || effective >= before, "the floor sank from {before:?} to {effective:?}");
            match effective { Some(floor) => drop(floors.insert("digits", floor)), None => drop(floors.remove("digits")) }
        }
    }
}
