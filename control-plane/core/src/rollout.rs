//! A version change over the fleet: wave by wave, each device watched, back at once when it fails.
//!
//! `Running → Done`, or `Paused`, `Stopped`, `Undone`. What must hold before the next wave: every
//! device that was given the new release serves it past its probation. Every wait ends: a device that
//! makes no progress counts as failed after a deadline.
//!
//! Invariant: while there is a previous release, only granted devices have the new one.

mod operator;
mod view;

use std::collections::BTreeMap;

use muster_shared::api::fleet::Happening;
use muster_shared::id::UnixMs;
use muster_shared::limits::clip;
use muster_shared::quantity::{CountOrPercent, Millis};
use muster_shared::reported::Phase;
use muster_shared::{DeploymentName, DeviceId, Digest};
use serde::{Deserialize, Serialize};

use crate::fleet::{Device, Granted, Release, Releases};

pub use operator::CannotChange;

/// A device that comes and goes gets this many times the deadline in all.
const DEADLINES_MAX: u64 = 10;
/// A worker that is started again so often after its probation fails the device.
const RESTARTS_MAX: u32 = 3;
/// Devices that may fall silent while they take the first version of a deployment: devices die, and a
/// version that kills them is rarer. With more, it is taken for the version's doing.
const LOST_MAX: u32 = 2;

/// One rollout, as it is remembered.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rollout {
    /// Counts the rollouts of this deployment.
    pub number: u64,
    /// What it brings.
    pub target: Release,
    /// What it goes back to; none: there is nothing to protect, so every device begins at once.
    pub previous: Option<Release>,
    /// How far it is.
    pub stage: Stage,
    /// Devices that are to have the target.
    pub granted: BTreeMap<DeviceId, Grant>,
    /// Devices on which it failed.
    pub failed: BTreeMap<DeviceId, Failure>,
    /// Devices that fell silent while they took it.
    #[serde(default)]
    pub lost: u32,
    /// When it began.
    pub began_ms: UnixMs,
    /// When its stage or its wave last changed.
    pub changed_ms: UnixMs,
}

/// How far a rollout is. Waves count from 0.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", tag = "stage")]
pub enum Stage {
    /// In this wave.
    Running {
        /// Which.
        wave: usize,
    },
    /// In this wave; no further device begins.
    Paused {
        /// Which.
        wave: usize,
    },
    /// It failed.
    Stopped {
        /// Why.
        reason: String,
    },
    /// An operator took it back.
    Undone,
    /// Every device has the target.
    Done,
}

/// One device that is to have the target.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Grant {
    /// In which wave it came.
    pub wave: usize,
    /// When.
    pub began_ms: UnixMs,
    /// Since when it makes no progress.
    pub since_ms: UnixMs,
    /// What it last said.
    pub said: Option<String>,
    /// How often its worker had been started again when its probation ended; none: it has not.
    pub healthy: Option<u32>,
}

/// Why a device failed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failure {
    /// In which wave.
    pub wave: usize,
    /// Why.
    pub reason: String,
}

/// How a rollout is to go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Policy {
    /// Devices that have the target after each wave, in all.
    pub waves: Vec<CountOrPercent>,
    /// Devices that may fail.
    pub max_failed: CountOrPercent,
    /// How long a device may make no progress, its probation included.
    pub deadline_ms: u64,
}

/// What is seen of a deployment.
#[derive(Debug, Clone, PartialEq)]
pub struct View<'a> {
    /// The deployment.
    pub name: &'a DeploymentName,
    /// What is wanted today; none: the catalog has nothing that the rule means.
    pub resolved: Option<Release>,
    /// How a change is to go.
    pub policy: &'a Policy,
    /// The devices that have it, with whether they are lost for it.
    pub holders: BTreeMap<&'a DeviceId, (&'a Device, bool)>,
    /// Devices among them that have no room for what is wanted today, and why.
    pub without_room: BTreeMap<&'a DeviceId, String>,
    /// Silence of many holds everything back.
    pub frozen: bool,
    /// How much of the time since the last look counts for no device: we heard none of them, or
    /// everything was held back.
    pub lapsed_ms: u64,
}

/// Something that happened in a step.
pub type Happened = (Happening, Option<DeviceId>, String);

/// How a device stands to the target.
enum Standing {
    Healthy { restarts: u32 },
    Failed(String),
    Working(String),
    Silent,
}

impl Rollout {
    /// One look: what became of the devices, and what follows. None: there is nothing to run yet.
    pub fn step(held: Option<Self>, view: &View<'_>, now_ms: UnixMs) -> (Option<Self>, Vec<Happened>) {
        let mut happened = Vec::new();
        let rollout = match (held, &view.resolved) {
            (None, None) => return (None, happened),
            (None, Some(target)) => Self::begin(1, target.clone(), None, now_ms),
            (Some(held), Some(target)) if !held.target.is_same(target) => {
                let (number, base) = (held.number + 1, held.base(view));
                // Back to what the others still have: there is nothing to try out.
                let previous = base.filter(|base| !base.is_same(target));
                happened.push((Happening::RolloutStarted, None, started(target, previous.as_ref())));
                Self::begin(number, target.clone(), previous, now_ms)
            }
            (Some(held), _) => held,
        };
        let rollout = match rollout.stage {
            Stage::Running { wave } => rollout.run(wave, view, now_ms, &mut happened),
            _ => rollout,
        };
        (Some(rollout), happened)
    }

    fn begin(number: u64, target: Release, previous: Option<Release>, now_ms: UnixMs) -> Self {
        Self {
            number,
            target,
            previous,
            stage: Stage::Running { wave: 0 },
            granted: BTreeMap::new(),
            failed: BTreeMap::new(),
            lost: 0,
            began_ms: now_ms,
            changed_ms: now_ms,
        }
    }

    /// What devices have that the next rollout has not reached: the last release that proved itself.
    fn base(&self, view: &View<'_>) -> Option<Release> {
        let is_proven = || view.holders.values().any(|(device, _)| self.has_it(view.name, device));
        match self.stage {
            Stage::Done => Some(self.target.clone()),
            _ => self.previous.clone().or_else(|| is_proven().then(|| self.target.clone())),
        }
    }

    fn run(mut self, wave: usize, view: &View<'_>, now_ms: UnixMs, happened: &mut Vec<Happened>) -> Self {
        for grant in self.granted.values_mut() {
            grant.began_ms = grant.began_ms.saturating_add(view.lapsed_ms).min(now_ms);
            grant.since_ms = grant.since_ms.saturating_add(view.lapsed_ms).min(now_ms);
        }
        if view.frozen || view.holders.is_empty() {
            return self;
        }
        let total = view.holders.len().try_into().unwrap_or(u32::MAX);
        self.judge(wave, view, now_ms);
        if let Some(reason) = self.verdict(wave, view.policy, total) {
            happened.push((Happening::RolloutStopped, None, format!("{}: {reason}", self.what())));
            return self.to(Stage::Stopped { reason }, now_ms);
        }
        let waves = self.sizes(view.policy, total);
        // Fewer devices may mean fewer waves; the last one is still watched to its end.
        let last = waves.len().saturating_sub(1);
        let wave = wave.min(last);
        let tried = self.granted.len() + self.failed.len();
        let more = match waves.get(wave) {
            // Whoever came meanwhile gets it too.
            _ if wave == last => usize::MAX,
            Some(size) => (*size as usize).saturating_sub(tried),
            None => 0,
        };
        let more = self.eligible(view, more);
        if !more.is_empty() {
            let grant = Grant { wave, began_ms: now_ms, since_ms: now_ms, said: None, healthy: None };
            self.granted.extend(more.into_iter().map(|id| (id, grant.clone())));
            return self;
        }
        let settled = self.granted.iter().all(|(id, grant)| grant.healthy.is_some() || is_silent(view, id));
        let any_healthy = self.granted.values().any(|grant| grant.healthy.is_some());
        if !settled || !any_healthy {
            return self;
        }
        if wave == last {
            return self.done(now_ms, happened);
        }
        let text = format!("{}: wave {} of {}", self.what(), wave + 2, waves.len());
        happened.push((Happening::RolloutWave, None, text));
        let next = View { lapsed_ms: 0, ..view.clone() };
        self.to(Stage::Running { wave: wave + 1 }, now_ms).run(wave + 1, &next, now_ms, happened)
    }

    fn done(self, now_ms: UnixMs, happened: &mut Vec<Happened>) -> Self {
        happened.push((Happening::RolloutDone, None, format!("{} is on every device", self.what())));
        self.to(Stage::Done, now_ms)
    }

    /// Looks at every device that has the target.
    fn judge(&mut self, wave: usize, view: &View<'_>, now_ms: UnixMs) {
        for (id, mut grant) in std::mem::take(&mut self.granted) {
            let Some((device, lost)) = view.holders.get(&id) else { continue };
            let standing = match self.standing(view, &id, device) {
                Standing::Silent if *lost && grant.healthy.is_none() => match self.may_be_lost(device) {
                    // Somebody else takes its place.
                    true => continue,
                    false => Standing::Failed(format!("it fell silent while it took version {}", self.target.version)),
                },
                standing => standing,
            };
            let failed = match standing {
                Standing::Failed(reason) => Some(reason),
                Standing::Healthy { restarts } => {
                    let before = *grant.healthy.get_or_insert(restarts);
                    let died = restarts.saturating_sub(before);
                    (died >= RESTARTS_MAX).then(|| format!("its worker died {died} times after its probation"))
                }
                // A worker that died is started again; how often counts when it is back.
                Standing::Working(_) | Standing::Silent if grant.healthy.is_some() => None,
                Standing::Working(said) => {
                    if grant.said.as_ref() != Some(&said) {
                        (grant.said, grant.since_ms) = (Some(said), now_ms);
                    }
                    self.overdue(&grant, view.policy, now_ms)
                }
                Standing::Silent => {
                    // Its time counts again once it is back.
                    grant.since_ms = now_ms;
                    self.overdue(&grant, view.policy, now_ms)
                }
            };
            match failed {
                Some(reason) => {
                    self.failed.insert(id, Failure { wave: grant.wave.min(wave), reason: clip(reason) });
                }
                None => {
                    self.granted.insert(id, grant);
                }
            }
        }
        // Where there is nothing to protect, whoever holds a replica and is there begins. And a device
        // that has the target already keeps it: nothing goes backwards because our memory is older than
        // the fleet. Where only the grant changes, what a device reports does not tell the two apart.
        let tells = self.previous.as_ref().is_none_or(|previous| previous.manifest != self.target.manifest);
        let stays = |(id, (_, lost)): &(&&DeviceId, &(&Device, bool))| !lost && !self.failed.contains_key(**id);
        for (id, (device, _)) in view.holders.iter().filter(stays).collect::<Vec<_>>() {
            let has_it = tells && self.has_it(view.name, device);
            if self.previous.is_none() && device.is_up() || has_it {
                // One that is silent has proven it before; its silence is no failure of this version.
                let report = device.slots.get(view.name).filter(|_| has_it && !device.is_up());
                let healthy = report.map(|report| report.restarts);
                let grant = || Grant { wave, began_ms: now_ms, since_ms: now_ms, said: None, healthy };
                self.granted.entry((*id).clone()).or_insert_with(grant);
            }
        }
    }

    /// Whether the loss of a device says nothing about the version that it was taking: an operator says so,
    /// or there is nothing yet that the version could be worse than, and few were lost so far.
    fn may_be_lost(&mut self, device: &Device) -> bool {
        if device.is_taken_for_lost() {
            return true;
        }
        self.lost = self.lost.saturating_add(1);
        self.previous.is_none() && self.lost <= LOST_MAX
    }

    fn overdue(&self, grant: &Grant, policy: &Policy, now_ms: UnixMs) -> Option<String> {
        let deadline_ms = policy.deadline_ms;
        let stuck = now_ms >= grant.since_ms.saturating_add(deadline_ms);
        let all_ms = deadline_ms.saturating_mul(DEADLINES_MAX);
        let too_long = now_ms >= grant.began_ms.saturating_add(all_ms);
        let said = grant.said.as_deref().unwrap_or("it did not report it");
        let version = self.target.version;
        match (too_long, stuck) {
            (true, _) => Some(format!("it did not serve version {version} within {}: {said}", Millis(all_ms))),
            (_, true) => {
                Some(format!("it made no progress for {} with version {version}: {said}", Millis(deadline_ms)))
            }
            _ => None,
        }
    }

    /// Why it cannot go on, if it cannot.
    fn verdict(&self, wave: usize, policy: &Policy, total: u32) -> Option<String> {
        let (first, failure) =
            self.failed.iter().find(|(_, failure)| failure.wave == wave).or(self.failed.iter().next())?;
        let failed = self.failed.len();
        let allowed = policy.max_failed.of(total) as usize;
        if failed > allowed {
            let more = match failed {
                1 => String::new(),
                _ => format!(" (and {} more)", failed - 1),
            };
            return Some(format!("{first}{more}: {}", failure.reason));
        }
        let is_of_wave = |of: usize| of == wave;
        let none_left = !self.granted.values().any(|grant| is_of_wave(grant.wave));
        let some_failed = self.failed.values().any(|failure| is_of_wave(failure.wave));
        (none_left && some_failed)
            .then(|| format!("it succeeded on no device of wave {}; {first}: {}", wave + 1, failure.reason))
    }

    /// How many devices have the target after each wave; waves that add nothing are left out.
    fn sizes(&self, policy: &Policy, total: u32) -> Vec<u32> {
        if self.previous.is_none() {
            return vec![total];
        }
        let mut sizes: Vec<u32> = policy.waves.iter().map(|wave| wave.of(total).max(1)).collect();
        // Whatever the waves say, the last one reaches everybody.
        sizes.push(total);
        let mut highest = 0;
        sizes.retain(|size| {
            let more = *size > highest;
            highest = highest.max(*size);
            more
        });
        sizes
    }

    /// The next devices, in an order of this deployment's own: not always the same device goes first.
    /// Those without room come last: they can only move away or fail.
    fn eligible(&self, view: &View<'_>, count: usize) -> Vec<DeviceId> {
        let is_new = |id: &DeviceId| !self.granted.contains_key(id) && !self.failed.contains_key(id);
        let fits = |(id, (device, _)): &(&&DeviceId, &(&Device, bool))| device.is_up() && is_new(id);
        let mut ids: Vec<&DeviceId> = view.holders.iter().filter(fits).map(|(id, _)| *id).collect();
        ids.sort_by_cached_key(|id| (view.without_room.contains_key(id), Digest::of(format!("{} {id}", view.name)).0));
        ids.into_iter().take(count).cloned().collect()
    }

    fn has_it(&self, name: &DeploymentName, device: &Device) -> bool {
        let report = device.slots.get(name);
        report.is_some_and(|report| report.phase == Phase::Serving && report.running == Some(self.target.manifest))
    }

    fn standing(&self, view: &View<'_>, id: &DeviceId, device: &Device) -> Standing {
        let version = self.target.version;
        // What it has proven holds, whatever else it was told meanwhile, and wherever it is now.
        if let Some(reason) = device.why_refused(&self.target) {
            return Standing::Failed(format!("refused version {version}: {reason}"));
        }
        if !device.is_up() {
            return Standing::Silent;
        }
        let report = device.slots.get(view.name).filter(|_| device.is_current);
        let Some(report) = report.filter(|report| report.wanted == Some(self.target.manifest)) else {
            let why = view.without_room.get(id).map_or("it has yet to take it", String::as_str);
            return Standing::Working(why.to_owned());
        };
        let waiting = report.waiting.clone();
        match report.phase {
            Phase::Serving if report.running == Some(self.target.manifest) => {
                Standing::Healthy { restarts: report.restarts }
            }
            Phase::Refused => {
                let reason = waiting.unwrap_or_else(|| "no reason given".to_owned());
                Standing::Failed(format!("refused version {version}: {reason}"))
            }
            phase => {
                let phase = phase.words();
                Standing::Working(waiting.map_or_else(|| phase.to_owned(), |waiting| format!("{phase}: {waiting}")))
            }
        }
    }

    /// Which device is to have what.
    pub fn releases(&self) -> Releases {
        let (granted, closed) = match &self.stage {
            Stage::Running { .. } | Stage::Paused { .. } => {
                (Granted::Only(self.granted.keys().cloned().collect()), None)
            }
            Stage::Stopped { reason } if self.previous.is_none() => (Granted::All, Some(reason.clone())),
            Stage::Done | Stage::Stopped { .. } | Stage::Undone => (Granted::All, None),
        };
        // When it is over, there is one release for everybody.
        let previous = self.previous.clone().filter(|_| self.is_under_way());
        Releases { target: self.settled_on().clone(), previous, granted, closed }
    }

    /// What every device is to have in the end.
    pub fn settled_on(&self) -> &Release {
        match (&self.stage, &self.previous) {
            (Stage::Stopped { .. } | Stage::Undone, Some(previous)) => previous,
            _ => &self.target,
        }
    }

    /// Whether devices are still to change.
    pub fn is_under_way(&self) -> bool {
        matches!(self.stage, Stage::Running { .. } | Stage::Paused { .. })
    }

    /// When a device's deadline ends, if nothing happens before.
    pub fn next_deadline_ms(&self, policy: &Policy) -> Option<UnixMs> {
        let running = matches!(self.stage, Stage::Running { .. });
        let waits = self.granted.values().filter(|grant| running && grant.healthy.is_none());
        let ends = |grant: &Grant| {
            let all_ms = policy.deadline_ms.saturating_mul(DEADLINES_MAX);
            let all = grant.began_ms.saturating_add(all_ms);
            grant.since_ms.saturating_add(policy.deadline_ms).min(all)
        };
        waits.map(ends).min()
    }

    fn what(&self) -> String {
        format!("{} version {}", self.target.model, self.target.version)
    }

    fn to(self, stage: Stage, now_ms: UnixMs) -> Self {
        Self { stage, changed_ms: now_ms, ..self }
    }
}

impl Release {
    /// Whether it is the same thing with the same grant, in whatever attempt.
    pub fn is_same(&self, other: &Self) -> bool {
        Self { attempt: 0, ..self.clone() } == Self { attempt: 0, ..other.clone() }
    }
}

fn started(target: &Release, previous: Option<&Release>) -> String {
    match previous {
        Some(previous) => {
            format!("{} version {} comes after version {}", target.model, target.version, previous.version)
        }
        None => format!("{} version {} comes to every device at once", target.model, target.version),
    }
}

fn is_silent(view: &View<'_>, id: &DeviceId) -> bool {
    view.holders.get(id).is_none_or(|(device, _)| !device.is_up())
}

#[cfg(test)]
mod tests;
