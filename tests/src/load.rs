//! Clients that ask the gateway all the time while something happens to the fleet, and hold each answer
//! against scikit-learn's prediction of the version that the answer names.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use muster_world::fixtures::{agrees, held_out};
use muster_world::{World, post};
use serde_json::{Value, json};

/// Clients at work at once: enough that a slow answer holds no other request back.
const CLIENTS: usize = 8;

/// Requests under way.
pub struct Load {
    stop: Arc<AtomicBool>,
    clients: Vec<JoinHandle<()>>,
    pace: JoinHandle<()>,
    seen: Arc<Mutex<Seen>>,
}

/// What the clients saw.
#[derive(Debug, Default, Clone)]
pub struct Seen {
    /// Requests sent.
    pub asked: u64,
    /// What went wrong, a sentence each; at most a few are kept.
    pub failed: Vec<String>,
    /// Good answers, by version.
    pub versions: BTreeMap<u64, u64>,
    /// Devices that answered.
    pub devices: BTreeSet<String>,
    /// The device of each answer of the last moments, with when it was asked.
    pub last: BTreeMap<String, Instant>,
}

/// What is known of a model's versions: a row, and its prediction by version.
struct Expected {
    body: String,
    row: BTreeMap<u64, Value>,
}

impl Load {
    /// Asks `model` so many times a second, with held-out rows of these versions.
    pub fn start(world: &World, model: &str, versions: &[u32], per_second: u32) -> Result<Self> {
        let expected = Arc::new(expected(model, versions)?);
        let url = format!("{}/v1/models/{model}:predict", world.plane().gateway);
        let (stop, seen) = (Arc::new(AtomicBool::new(false)), Arc::new(Mutex::new(Seen::default())));
        let (sender, receiver) = mpsc::channel::<usize>();
        let receiver = Arc::new(Mutex::new(receiver));
        let pace = {
            let stop = stop.clone();
            std::thread::spawn(move || {
                let began = Instant::now();
                for number in 0usize.. {
                    let due = began + Duration::from_secs_f64(number as f64 / f64::from(per_second));
                    std::thread::sleep(due.saturating_duration_since(Instant::now()));
                    if stop.load(Ordering::SeqCst) || sender.send(number).is_err() {
                        return;
                    }
                }
            })
        };
        let client = |_| {
            let (url, seen, receiver, expected) = (url.clone(), seen.clone(), receiver.clone(), expected.clone());
            std::thread::spawn(move || {
                loop {
                    let next = receiver.lock().unwrap_or_else(PoisonError::into_inner).recv();
                    let Ok(number) = next else { return };
                    let asked_at = Instant::now();
                    let verdict = ask(&url, &expected[number % expected.len()]);
                    seen.lock().unwrap_or_else(PoisonError::into_inner).note(asked_at, verdict);
                }
            })
        };
        let clients = (0..CLIENTS).map(client).collect();
        Ok(Self { stop, clients, pace, seen })
    }

    /// What was seen so far.
    pub fn seen(&self) -> Seen {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Stops asking, waits for what is under way, and tells what was seen.
    pub fn stop(self) -> Result<Seen> {
        self.stop.store(true, Ordering::SeqCst);
        for thread in std::iter::once(self.pace).chain(self.clients) {
            thread.join().map_err(|_| anyhow::anyhow!("a client panicked"))?;
        }
        Ok(self.seen.lock().unwrap_or_else(PoisonError::into_inner).clone())
    }
}

impl Seen {
    fn note(&mut self, asked_at: Instant, verdict: Result<(u64, String)>) {
        self.asked += 1;
        match verdict {
            Ok((version, device)) => {
                *self.versions.entry(version).or_default() += 1;
                self.devices.insert(device.clone());
                self.last.insert(device, asked_at);
            }
            Err(error) if self.failed.len() < 20 => self.failed.push(format!("{error:#}")),
            Err(_) => {}
        }
    }

    /// Good answers.
    pub fn good(&self) -> u64 {
        self.versions.values().sum()
    }
}

fn expected(model: &str, versions: &[u32]) -> Result<Vec<Expected>> {
    let mut rows: Vec<Expected> = vec![];
    for version in versions {
        let held = held_out(model, *version)?;
        for (at, (row, prediction)) in held.instances.iter().zip(held.predictions).enumerate() {
            if rows.len() <= at {
                rows.push(Expected { body: json!({ "instances": [row] }).to_string(), row: BTreeMap::new() });
            }
            rows[at].row.insert(u64::from(*version), prediction);
        }
    }
    Ok(rows)
}

/// Which version answered rightly, and where.
fn ask(url: &str, expected: &Expected) -> Result<(u64, String)> {
    let answer = post(url, &expected.body)?;
    anyhow::ensure!(answer.status == 200, "{:?} answered {}: {}", answer.device, answer.status, answer.body);
    let version = answer.version.context("the answer names no version")?;
    let device = answer.device.context("the answer names no device")?;
    let right = expected.row.get(&version).with_context(|| format!("version {version} was never there"))?;
    let got = &answer.body["predictions"][0];
    anyhow::ensure!(agrees(right, got), "{device} answered {got} as version {version}; that says {right}");
    Ok((version, device))
}
