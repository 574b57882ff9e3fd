//! The fleet on virtual time: a queue of events, a network, and the plane and the devices at its ends.

use std::collections::BTreeMap;

use muster_agent_core::reconcile::Event as AgentEvent;
use muster_control_plane_core::rollout::{CannotChange, Rollout, Stage};
use muster_shared::DeploymentName;
use muster_shared::api::deployment::Spec;
use muster_shared::api::fleet::Schedule;
use muster_shared::id::UnixMs;
use muster_shared::quantity::Bytes;

use crate::catalog::{Catalog, Nature, name};
use crate::check;
use crate::device::{Cue, Device, Effect, Up};
use crate::faults::{self, CHAOS_MS, Fault, SITES, Wish};
use crate::plane::{Down, Plane};
use crate::rng::Rng;
use crate::trace::Trace;

/// When virtual time begins.
const BEGIN_MS: UnixMs = 1_800_000_000_000;
/// So long after the faults stopped everything must have converged.
pub const SETTLE_MS: u64 = 60 * 60_000;
/// So long it is watched at least: moves for a gain wait until devices have been there for a while.
const WATCH_MS: u64 = 3 * 60_000;
/// So often, after the faults stopped, somebody looks after what they left.
const CLEAN_UP_MS: u64 = 60_000;
/// Who wants a replica to grow where there is no room gives up after so many attempts.
const CLEAN_UPS_MAX: u32 = 5;
const CHECK_EVERY_MS: u64 = 5_000;
/// Events of one run; more means that something goes in circles.
const EVENTS_MAX: u64 = 20_000_000;

/// A fleet with its plane.
pub struct World {
    now_ms: UnixMs,
    rng: Rng,
    catalog: Catalog,
    plane: Plane,
    devices: Vec<Device>,
    /// The last session of each device that the broker saw come.
    sessions: Vec<u64>,
    next_session: u64,
    specs: Vec<(DeploymentName, Spec)>,
    queue: BTreeMap<(UnixMs, u64), Event>,
    queued: u64,
    /// Counts the broker's lives: what was under way in an earlier one is gone.
    broker: u64,
    broker_is_up: bool,
    is_calm: bool,
    /// How often somebody looked after what the faults left: after that nothing may be stopped.
    cleaned_up: u32,
    broken: Option<String>,
    /// How often the power went between two actions.
    cuts: u64,
    /// What happened, folded into a number.
    pub trace: Trace,
}

enum Event {
    Cue { device: usize, boots: u64, cue: Cue },
    Up { device: usize, broker: u64, message: Up },
    Down { device: usize, session: u64, message: Down },
    Gone { device: usize, broker: u64, session: u64 },
    On { device: usize },
    LineUp { device: usize },
    PlaneUp,
    BrokerUp,
    Fault(Fault),
    Calm,
    CleanUp,
    Check,
}

/// How a run went.
#[derive(Debug, Clone)]
pub struct Summary {
    /// Everything that happened, folded into a number: equal seeds have equal digests.
    pub digest: u64,
    /// Virtual milliseconds from the end of the faults until all had converged.
    pub settled_ms: u64,
    /// Events.
    pub events: u64,
    /// Looks of the planner.
    pub decisions: u64,
    /// Desired states signed.
    pub signed: u64,
    /// What happened, by kind, and how often.
    pub happened: BTreeMap<String, u64>,
}

impl World {
    /// The fleet of a seed.
    pub fn new(seed: u64, devices: usize) -> Self {
        let mut rng = Rng::new(seed);
        let mut catalog = Catalog::new(&mut rng);
        let devices: Vec<Device> = (0..devices)
            .map(|at| {
                let slowness = if rng.permille(50) { rng.range(4, 12) } else { 1 };
                let facts = faults::machine(&mut rng);
                Device::new(name(&format!("edge-{at:03}")), SITES[at % SITES.len()], facts, slowness, &catalog)
            })
            .collect();
        let mut plane = Plane::new(&devices);
        let deployments = rng.range(3, 6) as usize;
        let mut specs = Vec::new();
        for at in 0..deployments {
            let spec = faults::spec(at, devices.len(), &mut rng);
            catalog.push(&spec.model, Nature::Good, &mut rng);
            let deployment: DeploymentName = name(&format!("d{at}"));
            plane.database.deployments.insert(deployment.clone(), spec.clone());
            specs.push((deployment, spec));
        }
        plane.start(&catalog, BEGIN_MS);
        let mut world = Self {
            now_ms: BEGIN_MS,
            catalog,
            plane,
            sessions: vec![0; devices.len()],
            next_session: 0,
            specs,
            queue: BTreeMap::new(),
            queued: 0,
            broker: 0,
            broker_is_up: true,
            is_calm: false,
            cleaned_up: 0,
            broken: None,
            cuts: 0,
            trace: Trace::default(),
            rng: rng.clone(),
            devices,
        };
        for device in 0..world.devices.len() {
            let after_ms = world.rng.range(0, 5_000);
            world.after(after_ms, Event::On { device });
        }
        for (at_ms, fault) in faults::script(world.devices.len(), deployments, &mut rng) {
            world.after(at_ms, Event::Fault(fault));
        }
        world.after(CHAOS_MS, Event::Calm);
        world
    }

    /// Runs until all has converged; an error says what has not, or which rule was broken.
    pub fn run(&mut self) -> Result<Summary, String> {
        let mut last = "nothing was checked".to_owned();
        let calm_ms = BEGIN_MS + CHAOS_MS;
        loop {
            let planned = self.plane.next_ms().filter(|_| self.broken.is_none());
            let queued = self.queue.first_key_value().map(|((at_ms, _), _)| *at_ms);
            if let Some(at_ms) = planned.filter(|at_ms| queued.is_none_or(|queued| *at_ms <= queued)) {
                self.now_ms = self.now_ms.max(at_ms);
                self.plane_works();
            } else if let Some(((at_ms, _), event)) = self.queue.pop_first() {
                self.now_ms = at_ms;
                if let Event::Check = event {
                    self.after(CHECK_EVERY_MS, Event::Check);
                    let whole = || if self.cleaned_up > 0 { check::nothing_stopped(&self.plane) } else { Ok(()) };
                    match check::converged(&self.plane, &self.devices, &self.catalog).and_then(|()| whole()) {
                        Ok(()) => return Ok(self.summary(self.now_ms - calm_ms)),
                        Err(waits) => last = waits,
                    }
                } else {
                    self.happen(event);
                }
            } else {
                return Err("nothing happens any more".to_owned());
            }
            if let Some(broken) = self.broken.take() {
                return Err(format!("after {} s: {broken}", (self.now_ms - BEGIN_MS) / 1000));
            }
            if self.now_ms > calm_ms + SETTLE_MS {
                let what = check::describe(&self.plane);
                return Err(format!("not converged {} s after the faults stopped: {last}\n{what}", SETTLE_MS / 1000));
            }
            if self.queued > EVENTS_MAX {
                return Err(format!("{EVENTS_MAX} events; the last thing not converged: {last}"));
            }
        }
    }

    fn summary(&self, settled_ms: u64) -> Summary {
        let (decisions, signed) = (self.plane.decisions, self.plane.signed);
        let mut happened = self.plane.happened.clone();
        happened.insert("PowerCutAmidActions".to_owned(), self.cuts);
        happened.insert("DesiredRefused".to_owned(), self.devices.iter().map(Device::refused_count).sum());
        happened.insert("MemoryOverloaded".to_owned(), self.devices.iter().map(Device::overloaded_count).sum());
        Summary { digest: self.trace.digest(), settled_ms, events: self.queued, decisions, signed, happened }
    }

    fn after(&mut self, after_ms: u64, event: Event) {
        self.queued += 1;
        self.queue.insert((self.now_ms + after_ms, self.queued), event);
    }

    fn plane_works(&mut self) {
        match self.plane.work(&self.catalog, self.now_ms) {
            Ok(sent) => {
                self.trace.note(self.now_ms, 1, self.plane.decisions, self.plane.signed);
                for (id, message) in sent {
                    if let Some(device) = self.devices.iter().position(|device| device.id == id) {
                        self.send_down(device, message);
                    }
                }
            }
            Err(broken) => self.broken = Some(broken),
        }
    }

    fn happen(&mut self, event: Event) {
        let now_ms = self.now_ms;
        match event {
            Event::Cue { device, boots, cue } => {
                if self.devices[device].boots() != boots || self.devices[device].run().is_none() {
                    return;
                }
                self.trace.note(now_ms, 2, device as u64, boots);
                match cue {
                    Cue::Connect => self.connect(device),
                    cue => {
                        let effects = self.devices[device].cue(cue, &self.catalog, &mut self.rng, now_ms);
                        self.carry_out(device, effects);
                    }
                }
            }
            Event::Up { device, broker, message } => {
                if broker == self.broker {
                    self.trace.note(now_ms, 3, device as u64, 0);
                    self.heard(device, message);
                }
            }
            Event::Down { device, session, message } => {
                if self.devices[device].run().and_then(|run| run.session) == Some(session) {
                    self.trace.note(now_ms, 4, device as u64, session);
                    let event = match message {
                        Down::Trust(root) => AgentEvent::TrustOffered(root),
                        Down::Desired(desired) => AgentEvent::DesiredOffered(desired),
                        Down::Chunk(data) => AgentEvent::Chunk(data),
                    };
                    let effects = self.devices[device].happen(event, &self.catalog, &mut self.rng, now_ms);
                    self.carry_out(device, effects);
                }
            }
            Event::Gone { device, broker, session } => {
                if broker == self.broker && session == self.sessions[device] {
                    self.trace.note(now_ms, 5, device as u64, session);
                    let id = self.devices[device].id.clone();
                    self.plane.connection(&id, false, now_ms);
                }
            }
            Event::On { device } => {
                let effects = self.devices[device].switch_on(&self.catalog, &mut self.rng, now_ms);
                self.carry_out(device, effects);
            }
            Event::LineUp { device } => self.devices[device].line = true,
            Event::PlaneUp => self.plane_up(),
            Event::BrokerUp => self.broker_up(),
            Event::Fault(fault) if !self.is_calm => {
                self.trace.note(now_ms, 6, 0, 0);
                self.fault(fault);
            }
            Event::Fault(_) | Event::Check => {}
            Event::Calm => self.calm(),
            Event::CleanUp => self.clean_up(),
        }
    }

    fn heard(&mut self, device: usize, message: Up) {
        let id = self.devices[device].id.clone();
        if self.plane.live.is_none() {
            return;
        }
        match message {
            Up::Hello(hello) => self.plane.hello(&id, hello, self.now_ms),
            Up::Reported(reported) => self.plane.reported(&id, *reported, self.now_ms),
            Up::ChunkGet(get) => {
                for data in self.plane.chunks(&id, get, &self.catalog) {
                    self.send_down(device, data);
                }
            }
        }
    }

    fn carry_out(&mut self, device: usize, effects: Vec<Effect>) {
        let boots = self.devices[device].boots();
        for effect in effects {
            match effect {
                Effect::After(after_ms, cue) => self.after(after_ms, Event::Cue { device, boots, cue }),
                Effect::Send(message) => self.send_up(device, message),
                Effect::Cut { amid_actions } => {
                    self.cuts += u64::from(amid_actions);
                    let (noticed_ms, broker, session) =
                        (self.rng.range(100, 4_000), self.broker, self.sessions[device]);
                    self.after(noticed_ms, Event::Gone { device, broker, session });
                    let off_ms = self.rng.range(1_000, 60_000);
                    self.after(off_ms, Event::On { device });
                }
                Effect::Broken(text) => self.broken = self.broken.take().or(Some(text)),
            }
        }
    }

    fn connect(&mut self, device: usize) {
        let can = self.devices[device].line && self.broker_is_up && self.plane.live.is_some();
        let has = self.devices[device].run().is_some_and(|run| run.session.is_some());
        if has {
            return;
        }
        if !can {
            let (again_ms, boots) = (self.rng.range(500, 5_000), self.devices[device].boots());
            self.after(again_ms, Event::Cue { device, boots, cue: Cue::Connect });
            return;
        }
        self.next_session += 1;
        let session = self.next_session;
        // The broker knows of a session before anything can come through it.
        self.sessions[device] = session;
        let id = self.devices[device].id.clone();
        self.plane.connection(&id, true, self.now_ms);
        let effects = self.devices[device].connected(session, &self.catalog, &mut self.rng, self.now_ms);
        self.carry_out(device, effects);
    }

    /// A device loses its connection, which the broker notices a little later.
    fn disconnect(&mut self, device: usize) {
        let Some(session) = self.devices[device].run().and_then(|run| run.session) else { return };
        let (noticed_ms, broker) = (self.rng.range(100, 4_000), self.broker);
        self.after(noticed_ms, Event::Gone { device, broker, session });
        let effects = self.devices[device].disconnected(&self.catalog, &mut self.rng, self.now_ms);
        self.carry_out(device, effects);
    }

    fn send_up(&mut self, device: usize, message: Up) {
        if self.devices[device].run().is_none_or(|run| run.session.is_none()) {
            return;
        }
        for delay_ms in self.delays(device) {
            let (broker, message) = (self.broker, message.clone());
            self.after(delay_ms, Event::Up { device, broker, message });
        }
    }

    fn send_down(&mut self, device: usize, message: Down) {
        let session = self.sessions[device];
        for delay_ms in self.delays(device) {
            let message = message.clone();
            self.after(delay_ms, Event::Down { device, session, message });
        }
    }

    /// When a message arrives: maybe never, maybe twice, maybe after later ones.
    fn delays(&mut self, device: usize) -> Vec<u64> {
        let slowness = self.devices[device].slowness;
        if !self.is_calm && self.rng.permille(30) {
            return vec![];
        }
        let copies = if !self.is_calm && self.rng.permille(30) { 2 } else { 1 };
        let mut delay = || match self.rng.permille(20) {
            true => self.rng.range(200, 3_000) * slowness,
            false => self.rng.range(3, 120) * slowness,
        };
        (0..copies).map(|_| delay()).collect()
    }

    fn fault(&mut self, fault: Fault) {
        match fault {
            Fault::Off { device, for_ms, after_actions } => {
                let after_actions = after_actions.filter(|_| for_ms.is_some());
                let was_on = self.devices[device].run().is_some();
                self.devices[device].dead |= for_ms.is_none();
                let effects = self.devices[device].cut(after_actions);
                self.carry_out(device, effects);
                if let (Some(for_ms), true) = (for_ms, was_on) {
                    self.after(for_ms, Event::On { device });
                }
            }
            Fault::Line { device, for_ms } => self.cut_line(device, for_ms),
            Fault::Site { site, for_ms } => {
                for device in (0..self.devices.len()).filter(|at| at % SITES.len() == site).collect::<Vec<_>>() {
                    let jitter_ms = self.rng.range(0, 2_000);
                    self.cut_line(device, for_ms + jitter_ms);
                }
            }
            Fault::Plane { down_ms } => {
                if self.plane.live.is_some() {
                    self.plane.stop();
                    self.drop_everybody();
                    self.after(down_ms, Event::PlaneUp);
                }
            }
            Fault::Broker { down_ms } => {
                if self.broker_is_up {
                    self.broker_is_up = false;
                    self.plane.hear(None);
                    self.drop_everybody();
                    self.after(down_ms, Event::BrokerUp);
                }
            }
            Fault::Kill { device } => {
                let effects = self.devices[device].kill_worker(&self.catalog, &mut self.rng, self.now_ms);
                self.carry_out(device, effects);
            }
            Fault::Wish(wish) => self.wish(wish),
        }
    }

    fn cut_line(&mut self, device: usize, for_ms: u64) {
        self.devices[device].line = false;
        self.disconnect(device);
        self.after(for_ms, Event::LineUp { device });
    }

    /// The broker goes: every connection, and everything under way.
    fn drop_everybody(&mut self) {
        self.broker += 1;
        for device in 0..self.devices.len() {
            let effects = self.devices[device].disconnected(&self.catalog, &mut self.rng, self.now_ms);
            self.carry_out(device, effects);
        }
    }

    fn plane_up(&mut self) {
        if self.plane.live.is_none() {
            self.plane.start(&self.catalog, self.now_ms);
            if !self.broker_is_up {
                self.plane.hear(None);
            }
        }
    }

    fn broker_up(&mut self) {
        if !self.broker_is_up {
            self.broker_is_up = true;
            self.plane.hear(Some(self.now_ms));
            self.plane.nudge_planner(self.now_ms);
        }
    }

    fn wish(&mut self, wish: Wish) {
        // The API is the plane's: while that is down nobody can want anything.
        if self.plane.live.is_none() {
            return;
        }
        let now_ms = self.now_ms;
        let database = &mut self.plane.database;
        let held = |specs: &[(DeploymentName, Spec)], at: usize| specs[at].0.clone();
        match wish {
            Wish::Scale { deployment, replicas } => {
                let name = held(&self.specs, deployment);
                database.deployments.get_mut(&name).into_iter().for_each(|spec| spec.replicas = replicas);
            }
            Wish::Resize { deployment, memory_mib } => {
                let name = held(&self.specs, deployment);
                let memory = Bytes(memory_mib << 20);
                database.deployments.get_mut(&name).into_iter().for_each(|spec| spec.resources.memory = memory);
            }
            Wish::Push { deployment, nature } => {
                self.catalog.push(&self.specs[deployment].1.model, nature, &mut self.rng);
            }
            Wish::Schedule { device, schedule } => {
                let id = &self.devices[device].id;
                database.devices.get_mut(id).into_iter().for_each(|record| record.schedule = schedule);
            }
            Wish::Delete { deployment } => {
                database.deployments.remove(&held(&self.specs, deployment));
            }
            Wish::Create { deployment } => {
                let (name, spec) = self.specs[deployment].clone();
                database.deployments.entry(name).or_insert(spec);
            }
            Wish::Pause { deployment } => self.operate(deployment, |rollout| rollout.pause(now_ms)),
            Wish::Resume { deployment } => self.operate(deployment, |rollout| rollout.resume(now_ms)),
            Wish::Undo { deployment } => self.operate(deployment, |rollout| rollout.undo(now_ms)),
            Wish::Approve => database.state.liveness.approve(),
            Wish::Rotate { epoch } => {
                self.catalog.rotate(&mut self.rng, epoch);
                self.plane.root_changed(now_ms);
            }
        }
        self.plane.wanted_changed(&self.catalog, now_ms);
    }

    fn operate(&mut self, deployment: usize, wish: impl FnOnce(Rollout) -> Result<Rollout, CannotChange>) {
        let rollouts = &mut self.plane.database.state.rollouts;
        if let Some(rollout) = rollouts.get(&self.specs[deployment].0).cloned()
            && let Ok(rollout) = wish(rollout)
        {
            rollouts.insert(self.specs[deployment].0.clone(), rollout);
        }
    }

    /// The faults stop: whatever is not broken for good comes back, and nobody holds anything any more.
    fn calm(&mut self) {
        self.is_calm = true;
        self.plane_up();
        self.broker_up();
        for device in 0..self.devices.len() {
            self.devices[device].line = true;
            let after_ms = self.rng.range(0, 3_000);
            self.after(after_ms, Event::On { device });
        }
        let paused = |rollout: &Rollout| matches!(rollout.stage, Stage::Paused { .. });
        for at in 0..self.specs.len() {
            let now_ms = self.now_ms;
            self.operate(at, |rollout| if paused(&rollout) { rollout.resume(now_ms) } else { Ok(rollout) });
        }
        // Some devices stay drained.
        for (at, record) in self.plane.database.devices.values_mut().enumerate() {
            if record.schedule == Schedule::Cordoned || at % 2 == 0 {
                record.schedule = Schedule::Open;
            }
        }
        self.plane.wanted_changed(&self.catalog, self.now_ms);
        if self.rng.permille(600) {
            self.after(CLEAN_UP_MS, Event::CleanUp);
        }
        self.after(WATCH_MS, Event::Check);
    }

    /// Somebody looks after what stopped: a good version comes after a bad one, or it is tried again.
    fn clean_up(&mut self) {
        for deployment in 0..self.specs.len() {
            let (name, spec) = &self.specs[deployment];
            let Some(rollout) = self.plane.database.state.rollouts.get(name) else { continue };
            if self.catalog.nature(rollout.target.manifest) != Nature::Good {
                let model = spec.model.clone();
                self.catalog.push(&model, Nature::Good, &mut self.rng);
            } else if matches!(rollout.stage, Stage::Stopped { .. } | Stage::Undone) {
                self.wish(Wish::Resume { deployment });
            }
        }
        self.plane.wanted_changed(&self.catalog, self.now_ms);
        // What failed by itself after that is looked after, too, but not for ever.
        self.cleaned_up += 1;
        if self.cleaned_up < CLEAN_UPS_MAX {
            self.after(CLEAN_UP_MS, Event::CleanUp);
        }
    }
}
