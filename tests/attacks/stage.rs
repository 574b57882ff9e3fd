//! Where an attack plays: a device that serves version 1 of a model, and everything that stands between
//! it and its publishers in the attacker's hands. Each attack gets a copy of the device and a plane of
//! its own.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result};
use muster_control_plane::now_ms;
use muster_control_plane::trust::ca;
use muster_shared::checks::Check;
use muster_shared::desired::{Desired, SlotSpec};
use muster_shared::director_time::DirectorTime;
use muster_shared::id::Generation;
use muster_shared::message::{EventKind, TrustUpdate};
use muster_shared::reported::{Phase, Reported};
use muster_shared::root::{Publisher, Role, Root};
use muster_shared::signing::key::SecretKey;
use muster_shared::signing::{Envelope, payload_type};
use muster_shared::topic::Leaf;
use muster_shared::{Digest, ModelName, wire};
use muster_tests::hostile::{Contents, HostilePlane, open_bundle, slot};
use muster_world::{Bundle, DEADLINE, Programs, Running, World, handmade, output, until};
use serde::Deserialize;
use tempfile::TempDir;

/// The variable by which a build for attacks is told which checks to leave out.
pub const CHECKS_OUT: &str = "MUSTER_CHECKS_OUT";
/// The one device.
pub const DEVICE: &str = "edge-1";
/// The model that it serves: y = x × the version.
pub const MODEL: &str = "times";
/// A model that the limited publisher may publish, too.
pub const OTHER: &str = "other";
/// What a payload that must not run multiplies by.
pub const EVIL: f64 = 666.0;
const HOUR_MS: u64 = 3_600_000;
const YEAR_MS: u64 = 365 * 24 * HOUR_MS;

/// How an attack ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ending {
    /// Its own harm was done.
    Harm(String),
    /// It came to nothing, and this is how that showed.
    Held(String),
}

/// The keys of the fleet, and one that is not of it.
pub struct Keys {
    /// Three root keys, of which two must sign.
    pub root: [SecretKey; 3],
    /// May publish every model.
    pub publisher: SecretKey,
    /// May publish [`OTHER`] only.
    pub limited: SecretKey,
    /// May publish every model, until its theft is found out.
    pub stolen: SecretKey,
    /// Nobody named it.
    pub mallory: SecretKey,
    /// Signs releases.
    pub release: SecretKey,
}

/// What every stage is a copy of.
pub struct Template {
    world: World,
    device: PathBuf,
    fingerprint: Digest,
    /// The keys.
    pub keys: Keys,
    root: Root,
    bundles: BTreeMap<(&'static str, u64), Contents>,
}

/// One attack's device and plane.
pub struct Stage<'a> {
    /// What it is a copy of.
    pub template: &'a Template,
    folder: TempDir,
    /// The plane in the attacker's hands.
    pub plane: HostilePlane,
    agent: Option<Running>,
    out: String,
    door: String,
}

#[derive(Deserialize)]
struct AgentReady {
    door: String,
}

fn key(seed: u8) -> SecretKey {
    SecretKey::from_seed([seed; 32])
}

impl Template {
    /// Brings the fleet up as its owner would, then takes the plane's keys and stops it.
    pub fn make(programs: Programs) -> Result<Self> {
        let mut world = World::start(programs, &|_| {})?;
        world.add_device(DEVICE)?;
        let of_fleet = |name: &str| -> Result<SecretKey> {
            let file = world.home().join("keys/demo").join(format!("{name}.pem"));
            Ok(SecretKey::from_pem(&fs::read_to_string(file)?)?)
        };
        let keys = Keys {
            root: [of_fleet("root")?, key(102), key(103)],
            publisher: of_fleet("publisher")?,
            limited: key(110),
            stolen: key(111),
            mallory: key(120),
            release: of_fleet("release")?,
        };
        let mut bundles = BTreeMap::new();
        let signed = [
            (MODEL, 1, 1.0, &keys.publisher),
            (MODEL, 2, 2.0, &keys.publisher),
            (MODEL, 3, 3.0, &keys.publisher),
            (OTHER, 1, 10.0, &keys.limited),
            (MODEL, 7, 7.0, &keys.stolen),
            // What must never run.
            (MODEL, 8, EVIL, &keys.limited),
            (MODEL, 9, EVIL, &keys.mallory),
        ];
        for (model, version, factor, key) in signed {
            let file = pack(&world, model, version, factor as f32, key)?;
            bundles.insert((model, version), open_bundle(&file)?);
        }
        output(
            Command::new(&world.programs().muster)
                .env("MUSTER_HOME", world.home())
                .arg("push")
                .arg(bundle_file(&world, MODEL, 1)),
        )?;
        world.deploy(MODEL, "1")?;
        world.until_serves(DEVICE, MODEL, 1)?;
        let device = world.device(DEVICE)?;
        let fingerprint = device["fingerprint"].as_str().context("a fingerprint")?.parse()?;
        world.stop_plane();

        // A root with a threshold, as its owners sign it.
        let director = ca::open_director(&world.plane_folder().join("director.pem"))?;
        let any = |key: &SecretKey| Publisher { key: key.public(), models: None };
        let other: ModelName = OTHER.parse()?;
        let root = Root {
            fleet: "demo".parse()?,
            version: 2,
            epoch: 1,
            expires_ms: now_ms() + YEAR_MS,
            root: Role { threshold: 2, keys: keys.root.iter().map(SecretKey::public).collect() },
            publishers: vec![
                any(&keys.publisher),
                Publisher { models: Some(vec![other]), ..any(&keys.limited) },
                any(&keys.stolen),
            ],
            directors: vec![director.public()],
            release: Role { threshold: 1, keys: vec![keys.release.public()] },
            compromised: vec![],
        };
        {
            let plane = HostilePlane::start(&world.plane_folder(), &world.plane().mqtt, DEVICE, fingerprint)?;
            plane.hello()?;
            let next = sign_root(&root, &[&keys.root[0], &keys.root[1]]);
            plane.publish(Leaf::Trust, &TrustUpdate::Root(next))?;
            plane.until_reported("the root with a threshold to be followed", |reported| {
                (reported.root_version == 2 && serves(reported, 1)).then_some(())
            })?;
        }
        world.stop_agent(DEVICE)?;
        let device = world.device_folder(DEVICE);
        Ok(Self { world, device, fingerprint, keys, root, bundles })
    }

    /// A bundle, as it is served.
    pub fn bundle(&self, model: &'static str, version: u64) -> &Contents {
        &self.bundles[&(model, version)]
    }

    /// The root that follows the one that the device has, changed.
    pub fn next_root(&self, change: impl FnOnce(&mut Root)) -> Root {
        let mut root = Root { version: self.root.version + 1, ..self.root.clone() };
        change(&mut root);
        root
    }

    /// The fleet's owners' signature under a root.
    pub fn sign_root(&self, root: &Root) -> Envelope {
        sign_root(root, &[&self.keys.root[0], &self.keys.root[1]])
    }

    /// The root that the device has: everybody may have seen it.
    pub fn present_root(&self) -> Envelope {
        self.sign_root(&self.root)
    }

    /// The programs.
    pub fn programs(&self) -> &Programs {
        self.world.programs()
    }
}

/// Signs a root with any keys.
pub fn sign_root(root: &Root, keys: &[&SecretKey]) -> Envelope {
    Envelope::sign(payload_type::ROOT, root.to_payload(), keys)
}

fn bundle_file(world: &World, model: &str, version: u64) -> PathBuf {
    world.folder().join(format!("{model}-{version}.bundle"))
}

/// Packs y = x × `factor` and signs it with `key`.
fn pack(world: &World, model: &str, version: u64, factor: f32, key: &SecretKey) -> Result<PathBuf> {
    let onnx = world.folder().join(format!("{model}-{version}.onnx"));
    fs::write(&onnx, handmade::times(factor))?;
    let bundle = Bundle { model: model.to_owned(), version: version as u32, onnx, golden: None };
    let pem = world.folder().join("packing.pem");
    fs::write(&pem, key.to_pem()?)?;
    let file = bundle_file(world, model, version);
    let mut command = Command::new(&world.programs().muster);
    command.env("MUSTER_HOME", world.home());
    command.args(["pack", "--name", model, "--version", &version.to_string()]).arg(&bundle.onnx);
    output(command.arg("--key").arg(&pem).arg("-o").arg(&file))?;
    Ok(file)
}

/// Whether the model's slot serves this version.
pub fn serves(reported: &Reported, version: u64) -> bool {
    reported.slots.iter().any(|slot| {
        let running = slot.running.as_ref().is_some_and(|running| running.version.get() == version);
        slot.deployment.as_str() == MODEL && slot.phase == Phase::Serving && running
    })
}

impl<'a> Stage<'a> {
    /// A copy of the device, and a plane for it, without these checks.
    pub fn start(template: &'a Template, out: &[Check]) -> Result<Self> {
        let folder = tempfile::Builder::new().prefix("muster-attack-").tempdir()?;
        let data = folder.path().join(DEVICE);
        copy_folder(&template.device, &data)?;
        let plane = HostilePlane::start(&template.world.plane_folder(), "127.0.0.1:0", DEVICE, template.fingerprint)?;
        let enrolment = data.join("identity/enrolment.json");
        let mut text: serde_json::Value = serde_json::from_slice(&fs::read(&enrolment)?)?;
        text["mqtt"] = plane.address().to_string().into();
        fs::write(&enrolment, text.to_string())?;
        for contents in template.bundles.values() {
            plane.serve(contents.blobs.iter().cloned());
        }
        let out = out.iter().map(|check| check.name()).collect::<Vec<_>>().join(",");
        let mut stage = Self { template, folder, plane, agent: None, out, door: String::new() };
        stage.start_agent()?;
        stage.until("version 1 to serve", |stage| {
            let reported = stage.plane.reported();
            Ok(reported.is_some_and(|reported| serves(&reported, 1)).then_some(()))
        })?;
        Ok(stage)
    }

    fn start_agent(&mut self) -> Result<()> {
        let ready_file = self.folder.path().join("ready.json");
        let _ = fs::remove_file(&ready_file);
        let mut command = Command::new(&self.template.programs().agent);
        command.env(CHECKS_OUT, &self.out);
        command.arg("run").arg("--config").arg(self.data().join("agent.toml"));
        command.args(["--listen", "127.0.0.1:0", "--ready-file"]).arg(&ready_file);
        let mut agent = Running::start(DEVICE, &mut command, self.folder.path().join("agent.log"))?;
        self.door = agent.ready::<AgentReady>(&ready_file, DEADLINE)?.door;
        self.agent = Some(agent);
        Ok(())
    }

    /// Ends the agent as a power cut would, lets something happen to its files, and starts it again. Gives
    /// back once the new run has said hello.
    pub fn restart(&mut self, meanwhile: impl FnOnce(&Path) -> Result<()>) -> Result<()> {
        let before = self.plane.hello()?.boot;
        if let Some(mut agent) = self.agent.take() {
            agent.kill()?;
        }
        meanwhile(&self.data())?;
        self.start_agent()?;
        self.until("a hello of the new run", |stage| Ok((stage.plane.hello()?.boot != before).then_some(())))
    }

    /// The device's data.
    pub fn data(&self) -> PathBuf {
        self.folder.path().join(DEVICE)
    }

    /// The device's own door.
    pub fn door(&self) -> &str {
        &self.door
    }

    /// The agent's process.
    pub fn agent_id(&self) -> Result<u32> {
        Ok(self.agent.as_ref().context("the agent does not run")?.id())
    }

    /// The desired state that follows the held one, with these slots.
    pub fn next(&self, slots: Vec<SlotSpec>) -> Result<Desired> {
        let hello = self.plane.hello()?;
        let held = hello.holds.map_or(Generation { epoch: 1, number: 0 }, |held| held.generation);
        Ok(Desired {
            fleet: "demo".parse()?,
            device: DEVICE.parse()?,
            fingerprint: self.template.fingerprint,
            generation: Generation { number: held.number + 1, ..held },
            issued_ms: now_ms(),
            expires_ms: now_ms() + HOUR_MS,
            nonce: Some(hello.nonce),
            root_version: hello.root_version,
            slots,
        })
    }

    /// A slot of the model with this bundle.
    pub fn slot(&self, version: u64) -> Result<SlotSpec> {
        slot(MODEL, version, &self.template.bundle(MODEL, version).envelope)
    }

    /// Sends a desired state as the stolen director signs it.
    pub fn send(&self, desired: &Desired) -> Result<()> {
        self.plane.send(self.plane.sign(desired)?)
    }

    /// Sends something to believe in.
    pub fn trust(&self, update: TrustUpdate) -> Result<()> {
        self.plane.publish(Leaf::Trust, &update)
    }

    /// A director's word on the time, in answer to the last hello.
    pub fn time(&self) -> Result<Envelope> {
        let (hello, desired) = (self.plane.hello()?, self.next(vec![])?);
        let (fleet, device, fingerprint) = (desired.fleet, desired.device, desired.fingerprint);
        let time = DirectorTime { fleet, device, fingerprint, nonce: hello.nonce, now_ms: now_ms() };
        Ok(Envelope::sign(payload_type::TIME, wire::encode(&time)?, &[self.plane.director()]))
    }

    /// The stolen director's key, as a key of the attacker's own.
    pub fn stolen_director(&self) -> Result<SecretKey> {
        Ok(ca::open_director(&self.template.world.plane_folder().join("director.pem"))?)
    }

    /// What the model multiplies by at the device's own door, and the version that says so.
    pub fn answer(&self) -> Result<Option<(u64, f64)>> {
        self.answer_of(MODEL)
    }

    /// The same of any model.
    pub fn answer_of(&self, model: &str) -> Result<Option<(u64, f64)>> {
        let answer = muster_world::post(
            &format!("{}/v1/models/{model}:predict", self.door),
            r#"{"instances": [[1, 1, 1, 1]]}"#,
        )?;
        let factor = answer.body["predictions"][0][0].as_f64();
        Ok(answer.version.zip(factor).filter(|_| answer.status == 200))
    }

    /// Why the last desired state was not taken, if it was not.
    pub fn desired_refused(&self) -> Option<String> {
        self.plane.reported()?.desired_refused.map(|refused| refused.reason)
    }

    /// Why a slot does not take what is wanted, if it is refused.
    pub fn slot_refused(&self) -> Option<String> {
        let slots = self.plane.reported()?.slots;
        let refused = slots.into_iter().find(|slot| slot.phase == Phase::Refused)?;
        Some(refused.waiting.unwrap_or_default())
    }

    /// The text of an event of this kind, if one was told.
    pub fn told(&self, kind: EventKind) -> Option<String> {
        self.plane.events().into_iter().rev().find(|event| event.kind == kind).map(|event| event.text)
    }

    /// Harm if the model multiplies by this.
    pub fn runs(&self, factor: f64) -> Result<Option<String>> {
        Ok(self
            .answer()?
            .filter(|(_, got)| *got == factor)
            .map(|(version, got)| format!("version {version} answers, and multiplies by {got}")))
    }

    /// Waits for something.
    pub fn until<T>(&mut self, what: &str, mut look: impl FnMut(&Self) -> Result<Option<T>>) -> Result<T> {
        let found = until(what, Duration::from_secs(30), || {
            if let Some(agent) = &mut self.agent {
                agent.check()?;
            }
            look(self)
        });
        found.with_context(|| {
            let log = muster_world::last_lines(&self.folder.path().join("agent.log"));
            format!("last reported: {:?}\nthe agent's last words:\n{log}", self.plane.reported())
        })
    }

    /// Waits until the harm shows, or what keeps it out does. Where both could show, the harm counts.
    pub fn ending(
        &mut self,
        harm: impl Fn(&Self) -> Result<Option<String>>,
        held: impl Fn(&Self) -> Result<Option<String>>,
    ) -> Result<Ending> {
        let ending = self.until("the attack to end", |stage| {
            if let Some(harm) = harm(stage)? {
                return Ok(Some(Ending::Harm(harm)));
            }
            Ok(held(stage)?.map(Ending::Held))
        })?;
        Ok(match harm(self)? {
            Some(harm) => Ending::Harm(harm),
            None => ending,
        })
    }
}

fn copy_folder(from: &Path, to: &Path) -> Result<()> {
    fs::create_dir_all(to)?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let target = to.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            copy_folder(&entry.path(), &target)?;
        } else {
            fs::copy(entry.path(), target)?;
        }
    }
    Ok(())
}
