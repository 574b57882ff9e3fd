//! Models served without a fleet: which versions shall answer, and what to do until they do. A new
//! version is loaded beside the old one, which answers until the new one does; one that cannot be
//! loaded takes nobody's place, and is tried again.

use std::collections::BTreeMap;
use std::path::PathBuf;

use muster_shared::{ModelName, Version};

use crate::backoff;
use crate::slot::WorkerId;

/// A worker that ran for so long did not die of its start: it is started again at once, one that did not
/// later and later.
const STEADY_MS: u64 = 10_000;

/// One version of a model, by name and number.
pub type Key = (ModelName, Version);

/// Where a version comes from. Another stamp is another content at the same place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Source {
    /// The model's file.
    pub file: PathBuf,
    /// Length and time of change, or whatever else tells contents apart.
    pub stamp: (u64, u64),
}

/// What happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// These versions of this model shall answer, and no others.
    Wanted(ModelName, BTreeMap<Version, Source>),
    /// Whatever of this model failed is to be tried again now.
    Again(ModelName),
    /// A worker is loaded and warm.
    Started(WorkerId),
    /// A worker could not load its model, or ended.
    Ended(WorkerId, String),
    /// Time has passed.
    Tick,
}

/// What is to be done, in this order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// Start a worker for this version.
    Start(WorkerId, Key, PathBuf),
    /// From now on this worker answers for the version; requests under way end where they began.
    Route(WorkerId, Key),
    /// Nobody answers for the version: its worker ended, for this reason, and is started again.
    Unroute(Key, String),
    /// The version could not be loaded, for this reason; nobody answers for it.
    Fail(Key, String),
    /// Nothing is to be known of the version any more.
    Forget(Key),
    /// Let the worker finish what it has, and end it.
    Stop(WorkerId),
}

/// Where a version is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum State {
    /// It is being loaded and does not answer.
    Loading,
    /// It answers.
    Available,
    /// It does not answer; the reason, and it is tried again.
    Waiting(String),
}

#[derive(Debug, Default)]
struct Entry {
    wanted: Option<Source>,
    /// What ran when it was wanted no more: it goes on, also over its death, until what is wanted instead
    /// is there.
    kept: Option<Source>,
    running: Option<Running>,
    loading: Option<(WorkerId, Source)>,
    /// Not before then; with the content that could not be loaded.
    retry: Option<(u64, Source)>,
    attempts: u32,
    error: Option<String>,
}

#[derive(Debug)]
struct Running {
    worker: WorkerId,
    source: Source,
    since_ms: u64,
}

/// The versions of all models. One `step` for each event.
#[derive(Debug, Default)]
pub struct Repository {
    entries: BTreeMap<Key, Entry>,
    workers: u64,
}

impl Repository {
    /// What to do about an event. `jitter`, 0 to 1, spreads retries.
    pub fn step(&mut self, event: Event, now_ms: u64, jitter: f64) -> Vec<Action> {
        let mut actions = vec![];
        match event {
            Event::Wanted(model, versions) => self.want(&model, versions),
            Event::Again(model) => self.again(&model),
            Event::Started(worker) => self.started(worker, now_ms, &mut actions),
            Event::Ended(worker, reason) => self.ended(worker, reason, now_ms, jitter, &mut actions),
            Event::Tick => {}
        }
        self.reconcile(now_ms, &mut actions);
        actions
    }

    /// Where a version is; none where nothing is known of it.
    pub fn state(&self, key: &Key) -> Option<State> {
        let entry = self.entries.get(key)?;
        Some(match (&entry.running, &entry.error) {
            (Some(_), _) => State::Available,
            (None, Some(error)) => State::Waiting(error.clone()),
            (None, None) => State::Loading,
        })
    }

    /// Whether every version of a model that shall answer does, with the content that it shall have.
    /// An error says why one does not, once it was tried.
    pub fn settled(&self, model: &ModelName) -> Option<Result<(), String>> {
        for (_, entry) in self.entries.iter().filter(|((of, _), _)| of == model) {
            match (&entry.wanted, &entry.error) {
                (Some(_), Some(error)) if !entry.is_there() => return Some(Err(error.clone())),
                (Some(_), None) if !entry.is_there() => return None,
                _ => {}
            }
        }
        Some(Ok(()))
    }

    /// When the next tick is due, if one is.
    pub fn next_deadline_ms(&self) -> Option<u64> {
        let due = |entry: &Entry| {
            let (at, of) = entry.retry.as_ref()?;
            (entry.goal() == Some(of) && !entry.is_there() && entry.loading.is_none()).then_some(*at)
        };
        self.entries.values().filter_map(due).min()
    }

    fn want(&mut self, model: &ModelName, mut versions: BTreeMap<Version, Source>) {
        for ((of, version), entry) in &mut self.entries {
            if of == model {
                entry.wanted = versions.remove(version);
                entry.kept = match (&entry.wanted, &entry.running) {
                    (Some(_), _) => None,
                    (None, Some(running)) => Some(running.source.clone()),
                    (None, None) => entry.kept.take(),
                };
            }
        }
        for (version, source) in versions {
            self.entries.insert((model.clone(), version), Entry { wanted: Some(source), ..Entry::default() });
        }
    }

    fn again(&mut self, model: &ModelName) {
        for (_, entry) in self.entries.iter_mut().filter(|((of, _), _)| of == model) {
            (entry.retry, entry.attempts, entry.error) = (None, 0, None);
        }
    }

    fn started(&mut self, worker: WorkerId, now_ms: u64, actions: &mut Vec<Action>) {
        let found = self.entries.iter_mut().find(|(_, entry)| entry.loads(worker));
        // One that was stopped in the meantime is nobody's.
        let Some((key, entry)) = found else { return };
        let Some((worker, source)) = entry.loading.take() else { return };
        actions.push(Action::Route(worker, key.clone()));
        (entry.error, entry.retry) = (None, None);
        if let Some(old) = entry.running.replace(Running { worker, source, since_ms: now_ms }) {
            actions.push(Action::Stop(old.worker));
        }
    }

    fn ended(&mut self, worker: WorkerId, reason: String, now_ms: u64, jitter: f64, actions: &mut Vec<Action>) {
        let is_it = |entry: &Entry| entry.loads(worker) || entry.runs(worker);
        let Some((key, entry)) = self.entries.iter_mut().find(|(_, entry)| is_it(entry)) else { return };
        if entry.loads(worker) {
            let Some((_, source)) = entry.loading.take() else { return };
            entry.retry = Some((now_ms + backoff::delay_ms(entry.attempts, jitter), source));
            entry.attempts += 1;
            entry.error = Some(reason.clone());
            if entry.running.is_none() {
                actions.push(Action::Fail(key.clone(), reason));
            }
            return;
        }
        let Some(running) = entry.running.take() else { return };
        if now_ms.saturating_sub(running.since_ms) >= STEADY_MS {
            entry.attempts = 0;
        }
        let wait = if entry.attempts == 0 { 0 } else { backoff::delay_ms(entry.attempts - 1, jitter) };
        entry.retry = Some((now_ms + wait, running.source));
        entry.attempts += 1;
        entry.error = Some(reason.clone());
        actions.push(Action::Unroute(key.clone(), reason));
    }

    fn reconcile(&mut self, now_ms: u64, actions: &mut Vec<Action>) {
        let mut workers = self.workers;
        for (key, entry) in &mut self.entries {
            let outdated = entry.loading.as_ref().is_some_and(|(_, source)| Some(source) != entry.goal());
            if outdated && let Some((worker, _)) = entry.loading.take() {
                actions.push(Action::Stop(worker));
            }
            let Some(source) = entry.goal().cloned() else { continue };
            if entry.retry.as_ref().is_some_and(|(_, of)| *of != source) {
                // Another content is another attempt.
                (entry.retry, entry.attempts, entry.error) = (None, 0, None);
            }
            let due = entry.retry.as_ref().is_none_or(|(at, _)| *at <= now_ms);
            if !entry.is_there() && entry.loading.is_none() && due {
                workers += 1;
                let worker = WorkerId(workers);
                entry.loading = Some((worker, source.clone()));
                actions.push(Action::Start(worker, key.clone(), source.file));
            }
        }
        self.workers = workers;
        self.let_go(actions);
    }

    /// What is not wanted goes once what is wanted instead is there.
    fn let_go(&mut self, actions: &mut Vec<Action>) {
        let mut waited_for: Vec<ModelName> = vec![];
        for ((model, _), entry) in &self.entries {
            if entry.wanted.is_some() && entry.running.is_none() {
                waited_for.push(model.clone());
            }
        }
        self.entries.retain(|key, entry| {
            if entry.wanted.is_some() || (entry.kept.is_some() && waited_for.contains(&key.0)) {
                return true;
            }
            actions.push(Action::Forget(key.clone()));
            actions.extend(entry.loading.take().map(|(worker, _)| Action::Stop(worker)));
            actions.extend(entry.running.take().map(|running| Action::Stop(running.worker)));
            false
        });
    }
}

impl Entry {
    fn is_there(&self) -> bool {
        self.running.as_ref().map(|running| &running.source) == self.goal()
    }

    fn goal(&self) -> Option<&Source> {
        self.wanted.as_ref().or(self.kept.as_ref())
    }

    fn loads(&self, worker: WorkerId) -> bool {
        self.loading.as_ref().is_some_and(|(loading, _)| *loading == worker)
    }

    fn runs(&self, worker: WorkerId) -> bool {
        self.running.as_ref().is_some_and(|running| running.worker == worker)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn model() -> ModelName {
        "m".parse().expect("a name")
    }

    fn key(version: u64) -> Key {
        (model(), Version::new(version).expect("positive"))
    }

    fn source(stamp: u64) -> Source {
        Source { file: PathBuf::from("model.onnx"), stamp: (stamp, 0) }
    }

    fn wanted(versions: &[(u64, u64)]) -> Event {
        let versions = versions.iter().map(|(version, stamp)| (key(*version).1, source(*stamp))).collect();
        Event::Wanted(model(), versions)
    }

    fn file() -> PathBuf {
        PathBuf::from("model.onnx")
    }

    #[test]
    fn a_new_version_is_loaded_beside_the_old_one_and_then_takes_its_place() {
        let mut repository = Repository::default();
        let one = WorkerId(1);
        assert_eq!(repository.step(wanted(&[(1, 0)]), 0, 0.0), [Action::Start(one, key(1), file())]);
        assert_eq!((repository.state(&key(1)), repository.settled(&model())), (Some(State::Loading), None));
        assert_eq!(repository.step(Event::Started(one), 1, 0.0), [Action::Route(one, key(1))]);
        assert_eq!(repository.settled(&model()), Some(Ok(())));
        let two = WorkerId(2);
        assert_eq!(repository.step(wanted(&[(2, 0)]), 2, 0.0), [Action::Start(two, key(2), file())]);
        assert_eq!(repository.state(&key(1)), Some(State::Available));
        let switched = [Action::Route(two, key(2)), Action::Forget(key(1)), Action::Stop(one)];
        assert_eq!(repository.step(Event::Started(two), 3, 0.0), switched);
        assert_eq!(repository.state(&key(1)), None);
    }

    #[test]
    fn one_that_cannot_be_loaded_takes_nobodys_place_and_is_tried_again() {
        let mut repository = Repository::default();
        repository.step(wanted(&[(1, 0)]), 0, 0.0);
        repository.step(Event::Started(WorkerId(1)), 0, 0.0);
        repository.step(wanted(&[(2, 0)]), 0, 0.0);
        let failed = repository.step(Event::Ended(WorkerId(2), "no model".into()), 0, 0.0);
        assert_eq!(failed, [Action::Fail(key(2), "no model".into())]);
        assert_eq!(repository.settled(&model()), Some(Err("no model".into())));
        assert_eq!(repository.state(&key(1)), Some(State::Available));
        assert_eq!(repository.next_deadline_ms(), Some(500));
        assert_eq!(repository.step(Event::Tick, 499, 0.0), []);
        assert_eq!(repository.step(Event::Tick, 500, 0.0), [Action::Start(WorkerId(3), key(2), file())]);
        repository.step(Event::Ended(WorkerId(3), "no model".into()), 500, 0.0);
        assert_eq!(repository.next_deadline_ms(), Some(1500), "a longer wait");
        assert_eq!(repository.step(Event::Again(model()), 501, 0.0), [Action::Start(WorkerId(4), key(2), file())]);
        assert_eq!(repository.settled(&model()), None, "nobody knows yet");
        repository.step(Event::Ended(WorkerId(4), "no model".into()), 502, 0.0);
        // Another content is another attempt, at once.
        assert_eq!(repository.step(wanted(&[(2, 1)]), 600, 0.0), [Action::Start(WorkerId(5), key(2), file())]);
    }

    #[test]
    fn the_old_version_goes_on_over_its_death_while_the_new_one_cannot_be_loaded() {
        let mut repository = Repository::default();
        repository.step(wanted(&[(1, 0)]), 0, 0.0);
        repository.step(Event::Started(WorkerId(1)), 0, 0.0);
        repository.step(wanted(&[(2, 0)]), 0, 0.0);
        repository.step(Event::Ended(WorkerId(2), "no model".into()), 0, 0.0);
        let died = repository.step(Event::Ended(WorkerId(1), "killed".into()), 100, 0.0);
        assert_eq!(died, [Action::Unroute(key(1), "killed".into()), Action::Start(WorkerId(3), key(1), file())]);
        assert_eq!(repository.step(Event::Started(WorkerId(3)), 200, 0.0), [Action::Route(WorkerId(3), key(1))]);
        // A kept one that dies while what is wanted comes is let go whatever it is doing.
        repository.step(Event::Ended(WorkerId(3), "killed".into()), 300, 0.0);
        repository.step(Event::Tick, 5_000, 0.0);
        assert!(repository.step(wanted(&[]), 6_000, 0.0).contains(&Action::Forget(key(1))));
    }

    #[test]
    fn one_that_dies_is_started_again_soon_and_later_and_later() {
        let mut repository = Repository::default();
        repository.step(wanted(&[(1, 0)]), 0, 0.0);
        repository.step(Event::Started(WorkerId(1)), 0, 0.0);
        let died = repository.step(Event::Ended(WorkerId(1), "killed".into()), STEADY_MS, 0.0);
        assert_eq!(died, [Action::Unroute(key(1), "killed".into()), Action::Start(WorkerId(2), key(1), file())]);
        repository.step(Event::Started(WorkerId(2)), STEADY_MS + 100, 0.0);
        repository.step(Event::Ended(WorkerId(2), "killed".into()), STEADY_MS + 200, 0.0);
        assert_eq!(repository.next_deadline_ms(), Some(STEADY_MS + 200 + 500));
    }

    #[test]
    fn another_content_of_the_same_version_takes_the_place_of_the_old() {
        let mut repository = Repository::default();
        repository.step(wanted(&[(1, 0)]), 0, 0.0);
        repository.step(Event::Started(WorkerId(1)), 0, 0.0);
        assert_eq!(repository.step(wanted(&[(1, 1)]), 0, 0.0), [Action::Start(WorkerId(2), key(1), file())]);
        assert_eq!(repository.settled(&model()), None);
        let switched = [Action::Route(WorkerId(2), key(1)), Action::Stop(WorkerId(1))];
        assert_eq!(repository.step(Event::Started(WorkerId(2)), 0, 0.0), switched);
    }

    #[test]
    fn what_is_wanted_no_more_goes_whatever_it_is_doing() {
        let mut repository = Repository::default();
        repository.step(wanted(&[(1, 0), (2, 0)]), 0, 0.0);
        repository.step(Event::Started(WorkerId(1)), 0, 0.0);
        let gone = repository.step(wanted(&[]), 0, 0.0);
        let expected =
            [Action::Stop(WorkerId(2)), Action::Forget(key(1)), Action::Stop(WorkerId(1)), Action::Forget(key(2))];
        assert_eq!(gone, expected);
        // A word of one that was stopped changes nothing.
        assert_eq!(repository.step(Event::Started(WorkerId(2)), 0, 0.0), []);
    }

    proptest! {
        /// Whatever happens, a model that answers goes on answering while one of its versions is wanted and
        /// none died, and every worker that was started is one that runs, loads, ended or was stopped.
        #[test]
        fn no_worker_is_lost_and_no_version_goes_before_another_is_there(
            events in prop::collection::vec((0u8..4, 0u64..4, 0u64..2), 1..60),
        ) {
            let mut repository = Repository::default();
            let (mut alive, mut now) = (std::collections::BTreeSet::new(), 0);
            for (kind, number, stamp) in events {
                now += 400;
                let answered = repository.entries.values().any(|entry| entry.running.is_some());
                let event = match kind {
                    0 => wanted(&[(number + 1, stamp)]),
                    1 => Event::Started(WorkerId(repository.workers.saturating_sub(number % 2))),
                    2 => Event::Ended(WorkerId(repository.workers.saturating_sub(number)), "ended".into()),
                    _ => Event::Tick,
                };
                if let Event::Ended(worker, _) = &event {
                    alive.remove(worker);
                }
                for action in repository.step(event, now, 0.5) {
                    match action {
                        Action::Start(worker, ..) => prop_assert!(alive.insert(worker)),
                        Action::Stop(worker) => { alive.remove(&worker); }
                        _ => {}
                    }
                }
                let answers = repository.entries.values().any(|entry| entry.running.is_some());
                prop_assert!(answers || !answered || kind == 2, "a switch left nobody");
                let known: std::collections::BTreeSet<WorkerId> = repository
                    .entries
                    .values()
                    .flat_map(|entry| {
                        let running = entry.running.as_ref().map(|running| running.worker);
                        running.into_iter().chain(entry.loading.as_ref().map(|(worker, _)| *worker))
                    })
                    .collect();
                prop_assert_eq!(&known, &alive);
            }
        }
    }
}
