//! What happens when bundles are believed no more: by a new root, or by a version floor that rose.
//!
//! A distrusted version is forgotten first, so that no reboot brings it back, then it stops; a version that
//! is still trusted takes over.

use muster_shared::Digest;
use muster_shared::message::EventKind;

use super::{Again, Outcome, Running, Slot, SlotAction, Step, back_to, tell};

impl Slot {
    /// These bundles are believed no more.
    pub(super) fn distrust(self, bundles: &[Digest], reason: &str, step: &mut Step<'_>) -> Outcome {
        let is_distrusted = |spec: &muster_shared::desired::SlotSpec| bundles.contains(&spec.manifest);
        match self {
            Self::Empty => (Self::Empty, vec![]),
            Self::Fetching { target, previous, waiting } => {
                let (previous, mut actions) = drop_distrusted(previous, bundles, reason, true);
                if !is_distrusted(&target) {
                    return (Self::Fetching { target, previous, waiting }, actions);
                }
                actions.extend([SlotAction::StopFetch, tell(EventKind::BundleRefused, &target, reason)]);
                (refused(target, reason, previous), actions)
            }
            Self::Checking { target, child, previous } => {
                let (mut previous, mut actions) = drop_distrusted(previous, bundles, reason, true);
                if !is_distrusted(&target) {
                    return (Self::Checking { target, child, previous }, actions);
                }
                actions.extend(child.worker().map(SlotAction::Stop));
                actions.push(tell(EventKind::BundleRefused, &target, reason));
                actions.extend(previous.as_mut().and_then(|previous| previous.unpark(step)));
                (refused(target, reason, previous), actions)
            }
            Self::Probation { running, previous, until_ms } => {
                let (mut previous, mut actions) = drop_distrusted(previous, bundles, reason, false);
                if !is_distrusted(&running.spec) {
                    return (Self::Probation { running, previous, until_ms }, actions);
                }
                actions.extend(back_to(previous.as_mut(), Some(&running), step));
                actions.push(tell(EventKind::Distrusted, &running.spec, reason));
                (refused(running.spec, reason, previous), actions)
            }
            Self::Serving { running } => {
                let target = running.spec.clone();
                match drop_distrusted(Some(running), bundles, reason, true) {
                    (Some(running), actions) => (Self::Serving { running }, actions),
                    (None, actions) => (refused(target, reason, None), actions),
                }
            }
            Self::Refused { target, reason: earlier, again, previous } => {
                let (previous, actions) = drop_distrusted(previous, bundles, reason, true);
                if is_distrusted(&target) {
                    return (refused(target, reason, previous), actions);
                }
                (Self::Refused { target, reason: earlier, again, previous }, actions)
            }
        }
    }

    /// Gives up what is under way and fetches it again: what is on disk is found there, and all that
    /// speaks for it is judged anew.
    pub(super) fn fetch_again(self, step: &mut Step<'_>) -> Outcome {
        match self {
            Self::Checking { ref target, .. } => {
                let target = target.clone();
                let (previous, mut actions) = self.settle(step);
                actions.push(SlotAction::Fetch(target.clone()));
                (Self::Fetching { target, previous, waiting: None }, actions)
            }
            Self::Fetching { target, previous, .. } => {
                let fetch = SlotAction::Fetch(target.clone());
                (Self::Fetching { target, previous, waiting: None }, vec![fetch])
            }
            other => (other, vec![]),
        }
    }
}

fn refused(target: muster_shared::desired::SlotSpec, reason: &str, previous: Option<Running>) -> Slot {
    Slot::Refused { target, reason: reason.to_owned(), again: Again::WhenWanted, previous }
}

/// A proven version, unless it is distrusted. `answers`: whether doors ask it.
fn drop_distrusted(
    proven: Option<Running>,
    bundles: &[Digest],
    reason: &str,
    answers: bool,
) -> (Option<Running>, Vec<SlotAction>) {
    match proven {
        Some(gone) if bundles.contains(&gone.spec.manifest) => {
            let mut actions = vec![SlotAction::Prove(None)];
            actions.extend(answers.then_some(SlotAction::Unroute));
            actions.extend(gone.has_worker().then_some(SlotAction::Stop(gone.worker)));
            actions.push(tell(EventKind::Distrusted, &gone.spec, reason));
            (None, actions)
        }
        other => (other, vec![]),
    }
}
