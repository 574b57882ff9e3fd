//! What an agent does when what it believes changes: a root, a version floor, a watermark came, or a
//! manifest was seen signed.
//!
//! Invariant: a desired state is taken only after its mark is kept beside the key, so that no loss of
//! state lets an older one in.

use std::collections::{BTreeMap, BTreeSet};

use muster_shared::checks::{self, Check};
use muster_shared::command::Order;
use muster_shared::desired::{Resources, SlotSpec};
use muster_shared::id::{Generation, UnixMs};
use muster_shared::limits::{NOTES_MAX, clip};
use muster_shared::manifest::VerifiedManifest;
use muster_shared::message::EventKind;
use muster_shared::reported::ModelFloor;
use muster_shared::signing::Envelope;
use muster_shared::{DeploymentName, Digest, Nonce};

use super::{Action, Agent};
use crate::limits::OwnerLimits;
use crate::slot::{Child, Running, Slot, SlotEvent};
use crate::verify::bundle::{Known, Proven, Software, files};
use crate::verify::command::VerifiedCommand;
use crate::verify::desired::AcceptedDesired;
use crate::verify::floors::Floors;
use crate::verify::roots::{self, Offered, Standing};
use crate::verify::{Mark, NotAccepted, Watermark};

impl Agent {
    pub(super) fn trust_offered(&mut self, offered: &Envelope, now_ms: UnixMs) -> Vec<Action> {
        match roots::offered(&self.root, offered) {
            Ok(Offered::Next(next)) => {
                self.root = *next;
                self.root_kept = Some(offered.clone());
                self.floors.judge_again(&self.root);
                // It was accepted under the root before; it comes again in answer to the hello.
                self.pending = None;
                self.root_asked_for = None;
                let version = self.root.root().version;
                let text = format!("root {version} is followed");
                let mut actions = vec![Action::SaveRoot(version, offered.clone())];
                actions.push(Action::KeepWatermark(self.watermark()));
                actions.push(Action::Tell(EventKind::TrustChanged, None, text));
                actions.extend(self.trust_changed(now_ms));
                actions.extend(self.judge_again(now_ms));
                actions.extend([Action::SayHello, Action::Report]);
                actions
            }
            Ok(Offered::Repeat) => vec![],
            Err(error) => vec![refused(format!("a root was not followed: {error}"))],
        }
    }

    pub(super) fn floor_offered(
        &mut self,
        floor: &Envelope,
        manifest: Option<&Envelope>,
        now_ms: UnixMs,
    ) -> Vec<Action> {
        let mut actions = vec![];
        let mut changed = false;
        match manifest.map(|manifest| VerifiedManifest::verify(manifest, &self.root)).transpose() {
            Ok(verified) => changed |= verified.is_some_and(|verified| self.floors.saw(&verified)),
            Err(error) => actions.push(refused(format!("a manifest that came with a floor was not believed: {error}"))),
        }
        match self.floors.offered(floor, &self.root) {
            Ok(raised) => changed |= raised,
            Err(error) => actions.push(refused(format!("a version floor was not believed: {error}"))),
        }
        if changed {
            let text = self.floors.all().map(|floor| format!("{} {}", floor.model, floor.version));
            let text = format!("version floors are now: {}", text.collect::<Vec<_>>().join(", "));
            actions.push(Action::KeepWatermark(self.watermark()));
            actions.push(Action::Tell(EventKind::TrustChanged, None, clip(text)));
            actions.extend(self.trust_changed(now_ms));
            actions.push(Action::Report);
        }
        actions
    }

    /// A publisher signed this bundle.
    pub(super) fn verified(&mut self, manifest: &VerifiedManifest, envelope: Digest, now_ms: UnixMs) -> Vec<Action> {
        let specs = self.specs_in_use().into_iter().filter(|spec| spec.manifest == manifest.digest());
        let mut known = Known { signers: manifest.signers().to_vec(), envelope, files: BTreeMap::new() };
        for spec in specs {
            known.files.insert(spec.variant.clone(), files(manifest.manifest(), &spec));
        }
        self.known.insert(manifest.digest(), known);
        if !self.floors.saw(manifest) {
            return vec![];
        }
        let mut actions = vec![Action::KeepWatermark(self.watermark())];
        actions.extend(self.distrust(now_ms));
        actions
    }

    /// The mark of an accepted desired state is kept first, then it is taken.
    pub(super) fn mark_then_take(
        &mut self,
        offered: &Envelope,
        accepted: AcceptedDesired,
        now_ms: UnixMs,
    ) -> Vec<Action> {
        if let Some(reason) = &self.mark_unknown {
            let reason = format!("nothing new is taken before this device knows what it took last: {reason}");
            return self.refuse_desired(Some(accepted.held().generation), reason, now_ms);
        }
        let held = accepted.held();
        let mark = Mark { generation: held.generation, digest: Some(held.digest) };
        if self.mark == Some(mark) {
            return self.take(offered.clone(), accepted, now_ms);
        }
        self.pending = Some((offered.clone(), accepted));
        vec![Action::KeepWatermark(Watermark { desired: Some(mark), ..self.watermark() })]
    }

    pub(super) fn watermark_kept(&mut self, mark: Option<Mark>, now_ms: UnixMs) -> Vec<Action> {
        let rises = mark.map(|mark| mark.generation) >= self.mark.map(|mark| mark.generation);
        if !checks::on(Check::Order) || rises {
            self.mark = mark;
        }
        let is_marked = |(_, accepted): &mut (Envelope, AcceptedDesired)| {
            mark.is_some_and(|mark| mark.digest == Some(accepted.held().digest))
        };
        match self.pending.take_if(is_marked) {
            Some((envelope, accepted)) => self.take(envelope, accepted, now_ms),
            None => vec![],
        }
    }

    pub(super) fn watermark_not_kept(&mut self, reason: String, now_ms: UnixMs) -> Vec<Action> {
        match self.pending.take() {
            Some((_, accepted)) => {
                let reason = format!("it cannot be marked as taken, and waits: {reason}");
                self.refuse_desired(Some(accepted.held().generation), reason, now_ms)
            }
            None => vec![],
        }
    }

    pub(super) fn watermark_read(&mut self, watermark: &Watermark, now_ms: UnixMs) -> Vec<Action> {
        self.mark_unknown = None;
        if watermark.desired.map(|mark| mark.generation) > self.mark.map(|mark| mark.generation) {
            self.mark = watermark.desired;
        }
        let mut actions = self.trust_changed(now_ms);
        actions.extend([Action::SayHello, Action::Report]);
        actions
    }

    fn take(&mut self, envelope: Envelope, accepted: AcceptedDesired, now_ms: UnixMs) -> Vec<Action> {
        self.desired = Some(accepted);
        self.desired_refused = None;
        self.root_asked_for = None;
        let mut actions = vec![Action::SaveDesired(envelope)];
        actions.extend(self.reconcile(now_ms));
        actions.extend(self.judge_checks_again(now_ms));
        actions.push(Action::Report);
        actions
    }

    /// What is believed changed: what is believed no more stops, and what waited goes on.
    fn trust_changed(&mut self, now_ms: UnixMs) -> Vec<Action> {
        let mut actions = self.distrust(now_ms);
        actions.extend(self.reconcile(now_ms));
        actions
    }

    /// Stops what is believed no more.
    fn distrust(&mut self, now_ms: UnixMs) -> Vec<Action> {
        let mut gone = vec![];
        for (deployment, slot) in &self.slots {
            let running = slot.runnings().into_iter().map(|running| &running.spec);
            let mut seen = BTreeSet::new();
            for spec in running.chain(slot.target()).filter(|spec| seen.insert(spec.manifest)) {
                if let Some(reason) = self.distrusts(spec) {
                    gone.push((deployment.clone(), SlotEvent::Distrust(vec![spec.manifest], clip(reason))));
                }
            }
        }
        gone.into_iter().flat_map(|(deployment, event)| self.slot_event(&deployment, event, now_ms)).collect()
    }

    /// Why a version must not run, whoever wants it.
    fn distrusts(&self, spec: &SlotSpec) -> Option<String> {
        let signers = self.known.get(&spec.manifest).map(|known| known.signers.as_slice()).unwrap_or_default();
        if roots::standing(&self.root, &spec.model, signers) == Standing::Compromised {
            let root = self.root.root().version;
            return Some(format!("only keys that root {root} marks as compromised signed version {}", spec.version));
        }
        self.floors.forbid(&spec.model, spec.version)
    }

    /// Why a wanted version is not begun, if so.
    pub(super) fn speaks_against(&self, spec: &SlotSpec) -> Option<String> {
        let refusal = self.refusal_of(spec).map(|refusal| refusal.reason.clone());
        let owner = || self.allowed.kept_out.get(&spec.deployment).cloned();
        let distrusted = if self.is_signed_anew(spec) { None } else { self.distrusts(spec) };
        distrusted.or(refusal).or_else(owner)
    }

    /// Whether the publisher may have signed a version again that is not believed any more: the envelope is
    /// another, and what is in it is judged when it is here.
    fn is_signed_anew(&self, spec: &SlotSpec) -> bool {
        let runs = self.slots.values().flat_map(Slot::runnings).any(|running| running.spec.manifest == spec.manifest);
        !runs && self.known.get(&spec.manifest).is_some_and(|known| known.envelope != spec.envelope.sha256)
    }

    /// What a slot's present version is granted, and whether it is the one that is wanted.
    pub(super) fn running_for(&self, spec: &SlotSpec) -> Option<(Resources, bool)> {
        let slot = self.slots.get(&spec.deployment)?;
        let runnings = slot.runnings();
        let same = runnings.iter().any(|running| running.spec.same_worker(spec));
        // Versions that stand beside each other take memory each; they share the cores.
        let beside = |a: Resources, b: Resources| Resources {
            cpu_milli: a.cpu_milli.max(b.cpu_milli),
            memory_bytes: a.memory_bytes.saturating_add(b.memory_bytes),
        };
        let granted = |running: &&Running| match running.is_parked() {
            true => Resources { memory_bytes: 0, ..running.spec.resources },
            false => running.spec.resources,
        };
        let resources = runnings.iter().map(granted).reduce(beside);
        let checking = match slot {
            Slot::Checking { target, .. } if target.same_worker(spec) => Some(target.resources),
            _ => None,
        };
        let same = same || checking.is_some();
        resources.into_iter().chain(checking).reduce(beside).map(|resources| (resources, same))
    }

    /// What began under another root and does not run yet is judged by the new one.
    fn judge_again(&mut self, now_ms: UnixMs) -> Vec<Action> {
        let under_way = |slot: &Slot| matches!(slot, Slot::Fetching { .. } | Slot::Checking { .. });
        self.fetch_again(under_way, now_ms)
    }

    /// A check goes on only while a new one could begin: what a desired state says of floors may be news.
    fn judge_checks_again(&mut self, now_ms: UnixMs) -> Vec<Action> {
        let floors = self.floors.clone();
        let waits = move |slot: &Slot| match slot {
            Slot::Checking { target, .. } => !floors.is_known(&target.model, target.floor),
            _ => false,
        };
        self.fetch_again(waits, now_ms)
    }

    fn fetch_again(&mut self, which: impl Fn(&Slot) -> bool, now_ms: UnixMs) -> Vec<Action> {
        let which: Vec<_> =
            self.slots.iter().filter(|(_, slot)| which(slot)).map(|(deployment, _)| deployment.clone()).collect();
        let again = |deployment: DeploymentName| self.slot_event(&deployment, SlotEvent::FetchAgain, now_ms);
        which.into_iter().flat_map(again).collect()
    }

    /// Why nothing new begins on this device at present, whoever wants it.
    pub(super) fn not_now(&self, now_ms: UnixMs) -> Option<String> {
        let unknown = self.mark_unknown.as_ref();
        let unknown = unknown.map(|reason| format!("this device does not know what it took last: {reason}"));
        unknown.or_else(|| self.clock.is_known_wrong(now_ms).then(|| self.clock.describe(now_ms)))
    }

    /// Whether a check that could not be made may be made now.
    pub(super) fn may_check_again(&self, deployment: &DeploymentName, now_ms: UnixMs) -> bool {
        match (self.slots.get(deployment), &self.desired) {
            (Some(Slot::Checking { child: Child::Waiting { .. }, .. }), Some(desired)) => {
                self.not_now(now_ms).is_none() && desired.may_begin(&self.root, self.clock.wall(now_ms)).is_ok()
            }
            _ => true,
        }
    }

    /// Proven versions that may start: before any network, and whoever may publish today, but nothing that is
    /// believed no more, and nothing that the owner does not allow.
    pub(super) fn trusted_still(&mut self, proven: Vec<Proven>, actions: &mut Vec<Action>) -> Vec<SlotSpec> {
        let mut trusted = vec![];
        for Proven { spec, signers, files } in proven {
            // Nobody is known to have signed it: it is fetched again, and judged then.
            if signers.is_empty() {
                continue;
            }
            let known = Known { signers: vec![], envelope: spec.envelope.sha256, files: BTreeMap::new() };
            let known = self.known.entry(spec.manifest).or_insert(known);
            known.files.insert(spec.variant.clone(), files);
            known.signers = signers;
            match self.distrusts(&spec) {
                None => trusted.push(spec),
                Some(reason) => {
                    let text = clip(format!("{} version {}: {reason}", spec.model, spec.version));
                    actions.push(Action::SaveProven(spec.deployment.clone(), None));
                    actions.push(Action::Tell(EventKind::Distrusted, Some(spec.deployment), text));
                }
            }
        }
        let allowed = self.limits.allow(&trusted, |_| None);
        trusted.retain(|spec| !allowed.kept_out.contains_key(&spec.deployment));
        trusted
    }

    /// A version that passed its probation, as the journal keeps it.
    pub(super) fn proven(&self, spec: SlotSpec) -> Proven {
        let (signers, files) = match self.known.get(&spec.manifest) {
            Some(known) => (known.signers.clone(), known.files.get(&spec.variant).cloned().unwrap_or_default()),
            None => Default::default(),
        };
        Proven { signers, files, spec }
    }

    /// Bundles that no slot has to do with any more need not be known.
    pub(super) fn forget_unused(&mut self) {
        let used: BTreeSet<_> = self.specs_in_use().into_iter().map(|spec| (spec.manifest, spec.variant)).collect();
        self.known.retain(|manifest, known| {
            known.files.retain(|variant, _| used.contains(&(*manifest, variant.clone())));
            !known.files.is_empty()
        });
    }

    /// What is to be kept beside the key.
    pub fn watermark(&self) -> Watermark {
        Watermark {
            desired: self.mark,
            root: self.root_kept.clone(),
            floors: self.floors.envelopes(),
            seen: self.floors.seen().clone(),
        }
    }

    /// Whether a director asks this of this device now, in the call `id`.
    pub fn command(&self, envelope: &Envelope, id: Nonce) -> Result<Order, NotAccepted> {
        VerifiedCommand::verify(envelope, self.holding(), id).map(|command| command.order().clone())
    }

    /// Whether this bundle was verified before, by this run or by the one that proved it.
    pub fn has_verified(&self, manifest: Digest) -> bool {
        self.known.contains_key(&manifest)
    }

    /// The generation that a report names: what it works towards or, after a loss of state, the last that it
    /// ever took, so that the next one is numbered above it.
    pub fn applied(&self) -> Option<Generation> {
        let held = self.held().map(|held| held.generation);
        held.max(self.mark.map(|mark| mark.generation))
    }

    /// Version floors, and the highest versions seen signed.
    pub fn floors(&self) -> &Floors {
        &self.floors
    }

    /// The floors that a report names: those of the models in its slots.
    pub fn reported_floors(&self) -> Vec<ModelFloor> {
        let models: BTreeSet<_> = self.specs_in_use().into_iter().map(|spec| spec.model).collect();
        self.floors.all().filter(|floor| models.contains(&floor.model)).collect()
    }

    /// What its engines take.
    pub fn software(&self) -> &Software {
        &self.software
    }

    /// What its owner allows.
    pub fn limits(&self) -> &OwnerLimits {
        &self.limits
    }

    /// What a person should know beside the slots' own reasons.
    pub fn notes(&self) -> Vec<String> {
        let mut notes = vec![];
        if let Some(reason) = &self.mark_unknown {
            notes.push(clip(format!("nothing new is taken: {reason}")));
        }
        for (deployment, slot) in &self.slots {
            for running in slot.runnings() {
                let spec = &running.spec;
                let Some(known) = self.known.get(&spec.manifest) else { continue };
                if roots::standing(&self.root, &spec.model, &known.signers) == Standing::Removed {
                    let root = self.root.root().version;
                    notes.push(format!(
                        "{deployment}: version {} serves on, though root {root} names its publisher no more",
                        spec.version
                    ));
                }
            }
        }
        let kept_out = self.allowed.kept_out.iter();
        notes.extend(kept_out.map(|(deployment, reason)| clip(format!("{deployment} is kept out: {reason}"))));
        notes.truncate(NOTES_MAX);
        notes
    }
}

fn refused(text: String) -> Action {
    Action::Tell(EventKind::TrustRefused, None, clip(text))
}
