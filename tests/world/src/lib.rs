//! A control plane and agents in a temporary folder, brought up by the same commands that a user
//! types. The demo shows such a [`World`], the stories test in one.

pub mod fixtures;
pub mod handmade;
mod http;
pub mod onnx;
mod process;
pub mod rows;
mod server;

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, bail};
use serde::Deserialize;
use serde_json::Value;
use tempfile::TempDir;

pub use http::{Answer, get, post, text};
pub use process::{Process, Running, descendants, last_lines, output, spelled, until};
pub use server::{Server, resident_bytes};

/// How long a program may take to be ready.
const READY_DEADLINE: Duration = Duration::from_secs(60);
/// How long a story may wait for a condition: generous, since machines are slow and busy.
pub const DEADLINE: Duration = Duration::from_secs(90);
/// The beginning of the temporary folder's name; the number of the process that made it follows.
const FOLDER_PREFIX: &str = "muster-world-";
/// The fleet's name.
const FLEET: &str = "demo";

/// Where the three programs lie.
#[derive(Debug, Clone)]
pub struct Programs {
    /// The operator's command line.
    pub muster: PathBuf,
    /// The agent.
    pub agent: PathBuf,
    /// The control plane.
    pub control_plane: PathBuf,
    /// What agents and the control plane find in their environment beside ours.
    pub environment: Vec<(String, String)>,
}

impl Programs {
    /// The names of the programs.
    pub const NAMES: [&str; 3] = ["muster", "muster-agent", "muster-control-plane"];

    /// The programs as they lie in a folder.
    pub fn in_folder(folder: &Path) -> Self {
        let [muster, agent, control_plane] = Self::NAMES.map(|name| folder.join(name));
        Self { muster, agent, control_plane, environment: vec![] }
    }
}

/// The running programs. Dropping it stops them: agents first, then the plane; the folder goes last.
pub struct World {
    devices: BTreeMap<String, Device>,
    plane: Option<Running>,
    programs: Programs,
    ready: PlaneReady,
    /// Arguments of the control plane beside those that every world has.
    plane_arguments: Vec<String>,
    /// What agents are started by: `ip netns exec …`.
    agents_by: Vec<String>,
    folder: TempDir,
}

/// One device: its folder, and its agent while that runs.
struct Device {
    agent: Option<Running>,
    door: String,
}

/// What the control plane says of itself.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PlaneReady {
    /// The API's URL.
    pub http: String,
    /// The broker's `host:port`.
    pub mqtt: String,
    /// The URL of the listener for devices, if there is one.
    #[serde(default)]
    pub devices: Option<String>,
    /// The gateway's URL.
    pub gateway: String,
    /// The API's URL without TLS, for scripts on this machine.
    pub plain_http: String,
    /// SHA-256 of the CA's certificate.
    pub ca_fingerprint: String,
    /// The password of the dashboard's user admin, where it was drawn at this start.
    #[serde(default)]
    pub admin_password: Option<String>,
    admin_code: Option<String>,
}

#[derive(Deserialize)]
struct AgentReady {
    door: String,
}

/// A bundle to be packed: files, and what to call them.
#[derive(Debug, Clone)]
pub struct Bundle {
    /// The model's name.
    pub model: String,
    /// The version's number.
    pub version: u32,
    /// The ONNX file.
    pub onnx: PathBuf,
    /// The golden vectors.
    pub golden: Option<PathBuf>,
}

impl Bundle {
    /// A version of a fixture model.
    pub fn fixture(model: &str, version: u32) -> Self {
        let folder = fixtures::folder(model, version);
        let (onnx, golden) = (folder.join("model.onnx"), Some(folder.join("golden.json")));
        Self { model: model.to_owned(), version, onnx, golden }
    }
}

/// A deployment's figures.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Deployment {
    /// Its name.
    pub name: String,
    /// Replicas wanted.
    pub wanted: u64,
    /// Replicas that answer with the wanted version.
    pub ready: u64,
    /// The version its rule means.
    pub version: Option<u64>,
}

impl World {
    /// Starts a control plane, logs in and makes the keys. `tell` hears of each step.
    pub fn start(programs: Programs, tell: &dyn Fn(&str)) -> anyhow::Result<Self> {
        Self::start_with(programs, &[], tell)
    }

    /// As [`Self::start`], with further arguments of the control plane.
    pub fn start_with(programs: Programs, plane: &[&str], tell: &dyn Fn(&str)) -> anyhow::Result<Self> {
        let plane_arguments: Vec<String> = plane.iter().map(|&argument| argument.to_owned()).collect();
        remove_leftovers();
        let folder = tempfile::Builder::new().prefix(&format!("{FOLDER_PREFIX}{}-", std::process::id())).tempdir()?;
        tell("starting the control plane");
        let any = "127.0.0.1:0".to_owned();
        let (plane, ready) =
            start_plane(&programs, folder.path(), [&any, &any, &any, &any].map(String::clone), &plane_arguments)?;
        let (devices, agents_by) = Default::default();
        let world = Self { devices, plane: Some(plane), programs, ready, plane_arguments, agents_by, folder };
        tell("logging in and making keys");
        let code = world.ready.admin_code.clone().context("the control plane printed no code to log in with")?;
        world.muster(&[
            "login",
            &world.ready.http,
            "--ca-fingerprint",
            &world.ready.ca_fingerprint,
            "--code",
            &code,
        ])?;
        world.muster(&["keys", "init", "--fleet", FLEET])?;
        Ok(world)
    }

    /// Enrols a device and starts its agent.
    pub fn add_device(&mut self, name: &str) -> anyhow::Result<()> {
        let url = self.ready.http.clone();
        self.enrol_at(name, &url, &[])?;
        self.start_agent(name)
    }

    /// Enrols a device at a URL, with further arguments; its agent is not started.
    pub fn enrol_at(&mut self, name: &str, url: &str, more: &[&str]) -> anyhow::Result<()> {
        let claim = self.muster(&["claim", "new", "--may-label", "site"])?;
        let mut enrol = self.agent_command();
        enrol.args(["enrol", "--name", name, "--label", "site=demo", "--url", url, "--claim", claim.trim()]);
        output(enrol.args(more).arg("--data").arg(self.device_folder(name)))?;
        self.enrolled(name)
    }

    /// Takes up a device that enrolled.
    pub fn enrolled(&mut self, name: &str) -> anyhow::Result<()> {
        // Stories look at telemetry: ten seconds would make them wait.
        self.configure(name, |text| text.replace("telemetry-every = \"10s\"", "telemetry-every = \"1s\""))?;
        self.devices.insert(name.to_owned(), Device { agent: None, door: String::new() });
        Ok(())
    }

    /// Starts agents, from now on, by this command: it is given the program and its arguments, and becomes it.
    pub fn start_agents_by(&mut self, command: &[&str]) {
        self.agents_by = command.iter().map(|&word| word.to_owned()).collect();
    }

    /// The agent's program, as it is started here.
    pub fn agent_command(&self) -> Command {
        let Some((first, rest)) = self.agents_by.split_first() else { return Command::new(&self.programs.agent) };
        let mut command = Command::new(first);
        command.args(rest).arg(&self.programs.agent);
        command
    }

    /// What a device's agent says of its connection, `status.json`; null before it is written.
    pub fn connection(&self, device: &str) -> Value {
        let bytes = std::fs::read(self.device_folder(device).join("status.json")).unwrap_or_default();
        serde_json::from_slice(&bytes).unwrap_or_default()
    }

    /// Changes a device's `agent.toml`; its agent reads it when it starts.
    pub fn configure(&self, name: &str, change: impl FnOnce(String) -> String) -> anyhow::Result<()> {
        let file = self.device_folder(name).join("agent.toml");
        Ok(std::fs::write(&file, change(std::fs::read_to_string(&file)?))?)
    }

    /// What a device's agent wrote since it was started.
    pub fn log(&self, device: &str) -> anyhow::Result<String> {
        Ok(std::fs::read_to_string(self.folder().join(format!("{device}.log")))?)
    }

    /// Starts the agent of an enrolled device.
    pub fn start_agent(&mut self, name: &str) -> anyhow::Result<()> {
        self.start_agent_with(name, &[])
    }

    /// Starts the agent of an enrolled device whose wall clock is wrong: `@1970-01-01 00:01:00` (UTC) at its
    /// start, `-1y` all along, or the path of a file that says so and may change. Time that only counts on is
    /// as it is.
    pub fn start_agent_at(&mut self, name: &str, clock: &str) -> anyhow::Result<()> {
        self.start_agent_with(name, &wrong_clock(clock)?)
    }

    /// Starts the agent of an enrolled device in another environment.
    fn start_agent_with(&mut self, name: &str, environment: &[(&str, String)]) -> anyhow::Result<()> {
        let ready_file = self.folder().join(format!("{name}.json"));
        let _ = std::fs::remove_file(&ready_file);
        let mut command = self.agent_command();
        command.envs(self.programs.environment.iter().cloned());
        command.arg("run").arg("--config").arg(self.device_folder(name).join("agent.toml"));
        command.args(["--listen", "127.0.0.1:0", "--ready-file"]).arg(&ready_file);
        command.envs(environment.iter().map(|(name, value)| (name, value)));
        let mut agent = Running::start(name, &mut command, self.folder().join(format!("{name}.log")))?;
        let door = agent.ready::<AgentReady>(&ready_file, READY_DEADLINE)?.door;
        self.devices.insert(name.to_owned(), Device { agent: Some(agent), door });
        Ok(())
    }

    /// Ends an agent as a power cut would: `kill -9`, its workers too.
    pub fn kill_agent(&mut self, name: &str) -> anyhow::Result<()> {
        let device = self.devices.get_mut(name).with_context(|| format!("there is no device {name}"))?;
        let mut agent = device.agent.take().with_context(|| format!("the agent of {name} does not run"))?;
        agent.kill()
    }

    /// Asks an agent to stop, and waits until it has.
    pub fn stop_agent(&mut self, name: &str) -> anyhow::Result<()> {
        let device = self.devices.get_mut(name).with_context(|| format!("there is no device {name}"))?;
        drop(device.agent.take());
        Ok(())
    }

    /// Changes the control plane's further arguments, from its next start on.
    pub fn set_plane_arguments(&mut self, arguments: &[&str]) {
        self.plane_arguments = arguments.iter().map(|&argument| argument.to_owned()).collect();
    }

    /// Stops the control plane.
    pub fn stop_plane(&mut self) {
        drop(self.plane.take());
    }

    /// Ends the control plane as a power cut would: `kill -9`.
    pub fn kill_plane(&mut self) -> anyhow::Result<()> {
        let mut plane = self.plane.take().context("the control plane does not run")?;
        plane.kill()
    }

    /// Starts the control plane again, at the same addresses.
    pub fn start_plane(&mut self) -> anyhow::Result<()> {
        let address = |url: &str| url.rsplit_once("//").map_or(url, |(_, address)| address).to_owned();
        let PlaneReady { http, mqtt, gateway, plain_http, devices, .. } = &self.ready;
        if let (Some(at), Some(devices)) = (self.plane_arguments.iter().position(|it| it == "--devices"), devices) {
            self.plane_arguments[at + 1] = address(devices);
        }
        let addresses = [http, mqtt, gateway, plain_http].map(|url| address(url));
        let (plane, ready) = start_plane(&self.programs, self.folder.path(), addresses, &self.plane_arguments)?;
        (self.plane, self.ready) = (Some(plane), ready);
        Ok(())
    }

    /// Packs, signs and pushes a bundle. Gives back its file.
    pub fn publish(&self, bundle: &Bundle) -> anyhow::Result<PathBuf> {
        let file = self.pack(bundle)?;
        output(self.command(&["push"]).arg(&file))?;
        Ok(file)
    }

    /// Packs and signs a bundle. Gives back its file.
    pub fn pack(&self, bundle: &Bundle) -> anyhow::Result<PathBuf> {
        let Bundle { model, version, onnx, golden } = bundle;
        let file = self.folder().join(format!("{model}-{version}.bundle"));
        let version = version.to_string();
        let mut pack = self.command(&["pack", "--name", model, "--version", &version]);
        pack.arg(onnx).arg("--key").arg(self.publisher_key()).arg("-o").arg(&file);
        if let Some(golden) = golden {
            pack.arg("--golden").arg(golden);
        }
        output(&mut pack)?;
        Ok(file)
    }

    /// The publisher's secret key.
    pub fn publisher_key(&self) -> PathBuf {
        self.home().join("keys").join(FLEET).join("publisher.pem")
    }

    /// Applies a deployment of `model` under its own name, on one device.
    pub fn deploy(&self, model: &str, version: &str) -> anyhow::Result<()> {
        self.deploy_fleet(model, version, 1, "rollout: { probation: 1s }")
    }

    /// Applies a deployment of `model` under its own name; `more` is YAML of its spec.
    pub fn deploy_fleet(&self, model: &str, version: &str, replicas: u32, more: &str) -> anyhow::Result<()> {
        let yaml = format!(
            "apiVersion: muster.dev/v1\nkind: Deployment\nmetadata: {{ name: {model} }}\nspec:\n  model: {model}\n  \
             version: {version}\n  replicas: {replicas}\n  resources: {{ cpu: 250m, memory: 64Mi }}\n  {more}\n"
        );
        let file = self.folder().join(format!("{model}.yaml"));
        std::fs::write(&file, yaml)?;
        output(self.command(&["apply", "-f"]).arg(file)).map(drop)
    }

    /// One deployment's status.
    pub fn status(&self, deployment: &str) -> anyhow::Result<Value> {
        Ok(self.json(&["get", "deployment", deployment])?["status"].clone())
    }

    /// Devices that serve a deployment with the version that they are to have.
    pub fn holders(&self, deployment: &str) -> anyhow::Result<BTreeSet<String>> {
        let status = self.status(deployment)?;
        let replicas = status["replicas"].as_array().cloned().unwrap_or_default();
        let serves = |replica: &&Value| {
            matches!(replica["phase"].as_str(), Some("serving" | "probation")) && replica["reason"].is_null()
        };
        Ok(replicas.iter().filter(serves).filter_map(|replica| replica["device"].as_str().map(str::to_owned)).collect())
    }

    /// Waits until a deployment has all its replicas, and no other device holds one. Gives back where.
    pub fn until_whole(&mut self, deployment: &str, replicas: usize) -> anyhow::Result<BTreeSet<String>> {
        self.until(&format!("{deployment} to have {replicas} replicas"), |world| {
            let status = world.status(deployment)?;
            let held = status["replicas"].as_array().map_or(0, Vec::len);
            let holders = world.holders(deployment)?;
            Ok((holders.len() == replicas && held == replicas).then_some(holders))
        })
    }

    /// What `muster get deployments` says.
    pub fn deployments(&self) -> anyhow::Result<Vec<Deployment>> {
        let read = |deployment: &Value| {
            let (status, name) = (&deployment["status"], deployment["metadata"]["name"].as_str());
            let count = |field: &str| status[field].as_u64().context("a deployment has no status");
            let name = name.context("a deployment has no name")?.to_owned();
            Ok(Deployment {
                name,
                wanted: count("wanted")?,
                ready: count("ready")?,
                version: status["version"].as_u64(),
            })
        };
        let list = self.json(&["get", "deployments"])?;
        list.as_array().context("`get deployments` gives no list")?.iter().map(read).collect()
    }

    /// What `muster get devices` says.
    pub fn devices(&self) -> anyhow::Result<Vec<Value>> {
        let list = self.json(&["get", "devices"])?;
        list.as_array().cloned().context("`get devices` gives no list")
    }

    /// One device as the plane knows it.
    pub fn device(&self, name: &str) -> anyhow::Result<Value> {
        self.json(&["get", "device", name])
    }

    /// One slot of a device as the plane knows it; null where there is none.
    pub fn slot(&self, device: &str, deployment: &str) -> anyhow::Result<Value> {
        let device = self.device(device)?;
        let slots = device["slots"].as_array().cloned().unwrap_or_default();
        Ok(slots.into_iter().find(|slot| slot["deployment"] == deployment).unwrap_or_default())
    }

    /// Waits until a slot serves this version, as it reported.
    pub fn until_serves(&mut self, device: &str, deployment: &str, version: u64) -> anyhow::Result<()> {
        self.until(&format!("{device} to serve {deployment} version {version}"), |world| {
            let slot = world.slot(device, deployment)?;
            Ok((slot["phase"] == "serving" && slot["running"]["version"] == version).then_some(()))
        })
    }

    /// Runs `muster … -o json`.
    pub fn json(&self, arguments: &[&str]) -> anyhow::Result<Value> {
        let text = self.muster(&[arguments, &["-o", "json"]].concat())?;
        serde_json::from_str(&text).with_context(|| format!("`muster {}` gave no JSON: {text}", arguments.join(" ")))
    }

    /// Asks the API for what the command line does not show.
    pub fn api(&self, path: &str) -> anyhow::Result<Value> {
        let token = self.token()?;
        let answer = http::get_as(&format!("{}/api/v1/{path}", self.ready.plain_http), &token)?;
        anyhow::ensure!(answer.status == 200, "{path} answered {}: {}", answer.status, answer.body);
        Ok(answer.body)
    }

    fn token(&self) -> anyhow::Result<String> {
        let contexts = std::fs::read_to_string(self.home().join("contexts.toml"))?;
        let contexts: toml::Table = contexts.parse()?;
        find_token(&toml::Value::Table(contexts)).context("the command line is not logged in")
    }

    /// The plane's `/metrics`, line by line.
    pub fn metrics(&self) -> anyhow::Result<Vec<String>> {
        let text = http::text_as(&format!("{}/metrics", self.ready.plain_http), &self.token()?)?;
        Ok(text.lines().map(str::to_owned).collect())
    }

    /// The events of one kind, the newest first.
    pub fn events(&self, kind: &str) -> anyhow::Result<Vec<Value>> {
        let events = self.api("events?limit=1000")?;
        let of_kind = |event: &&Value| event["kind"] == kind;
        Ok(events.as_array().context("no list of events")?.iter().filter(of_kind).cloned().collect())
    }

    /// Runs `muster …` and gives back what it printed.
    pub fn muster(&self, arguments: &[&str]) -> anyhow::Result<String> {
        output(&mut self.command(arguments))
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(&self.programs.muster);
        command.args(arguments).env("MUSTER_HOME", self.home());
        command
    }

    /// Waits for a condition; a failure comes with the last words of every program.
    pub fn until<T>(
        &mut self,
        what: &str,
        mut look: impl FnMut(&Self) -> anyhow::Result<Option<T>>,
    ) -> anyhow::Result<T> {
        let found = until(what, DEADLINE, || {
            self.check()?;
            look(self)
        });
        found.with_context(|| self.last_words())
    }

    /// An error if a program ended that should run.
    pub fn check(&mut self) -> anyhow::Result<()> {
        let agents = self.devices.values_mut().filter_map(|device| device.agent.as_mut());
        agents.chain(&mut self.plane).try_for_each(Running::check)
    }

    /// An error if the plane ended, which should run.
    pub fn check_plane(&mut self) -> anyhow::Result<()> {
        self.plane.as_mut().map_or(Ok(()), Running::check)
    }

    fn last_words(&self) -> String {
        let mut text = String::from("the programs' last words:");
        for name in self.devices.keys().map(String::as_str).chain(["plane"]) {
            let log = last_lines(&self.folder().join(format!("{name}.log")));
            text.push_str(&format!("\n--- {name}\n{log}"));
        }
        text
    }

    /// The world's folder.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Where the command line keeps its login and keys.
    pub fn home(&self) -> PathBuf {
        self.folder().join("home")
    }

    /// The control plane's data.
    pub fn plane_folder(&self) -> PathBuf {
        self.folder().join("plane")
    }

    /// A device's data.
    pub fn device_folder(&self, name: &str) -> PathBuf {
        self.folder().join(name)
    }

    /// Where the plane is.
    pub fn plane(&self) -> &PlaneReady {
        &self.ready
    }

    /// The programs.
    pub fn programs(&self) -> &Programs {
        &self.programs
    }

    /// A device's own door.
    pub fn door(&self, device: &str) -> anyhow::Result<&str> {
        self.devices
            .get(device)
            .map(|device| device.door.as_str())
            .with_context(|| format!("there is no device {device}"))
    }

    /// The process of a device's agent.
    pub fn agent_id(&self, device: &str) -> anyhow::Result<u32> {
        let agent = self.devices.get(device).and_then(|device| device.agent.as_ref());
        agent.map(Running::id).with_context(|| format!("the agent of {device} does not run"))
    }
}

/// The environment of a program whose wall clock is wrong, as [`World::start_agent_at`] has it. The library of
/// the system package `faketime` is preloaded: the program under test is the one that is shipped.
pub fn wrong_clock(clock: &str) -> anyhow::Result<[(&'static str, String); 5]> {
    let library = output(Command::new("faketime").args(["-f", "+0", "printenv", "LD_PRELOAD"]));
    let library = library.context("`faketime` is missing; `apt-get install faketime` brings it")?;
    Ok([
        ("LD_PRELOAD", library.trim().to_owned()),
        (if clock.starts_with('/') { "FAKETIME_TIMESTAMP_FILE" } else { "FAKETIME" }, clock.to_owned()),
        // A file is read each time.
        ("FAKETIME_NO_CACHE", "1".to_owned()),
        ("FAKETIME_DONT_FAKE_MONOTONIC", "1".to_owned()),
        ("TZ", "UTC".to_owned()),
    ])
}

/// `addresses`: of the API, the broker, the gateway, the API without TLS.
fn start_plane(
    programs: &Programs,
    folder: &Path,
    addresses: [String; 4],
    more: &[String],
) -> anyhow::Result<(Running, PlaneReady)> {
    let ready_file = folder.join("plane.json");
    let _ = std::fs::remove_file(&ready_file);
    let [http, mqtt, gateway, plain_http] = addresses;
    let mut command = Command::new(&programs.control_plane);
    command.envs(programs.environment.iter().cloned());
    command.arg("--data").arg(folder.join("plane")).args(["--plain-http", &plain_http]);
    for (flag, address) in [("--http", &http), ("--mqtt", &mqtt)] {
        if !more.iter().any(|argument| argument == flag) {
            command.args([flag, address]);
        }
    }
    command.args(["--gateway", &gateway, "--open-gateway", "--ready-file"]).arg(&ready_file).args(more);
    let mut plane = Running::start("the control plane", &mut command, folder.join("plane.log"))?;
    let ready = plane.ready(&ready_file, READY_DEADLINE)?;
    Ok((plane, ready))
}

/// The first `token` in the command line's file.
fn find_token(value: &toml::Value) -> Option<String> {
    match value {
        toml::Value::Table(table) => {
            let own = table.get("token").and_then(toml::Value::as_str).map(str::to_owned);
            own.or_else(|| table.values().find_map(find_token))
        }
        toml::Value::Array(items) => items.iter().find_map(find_token),
        _ => None,
    }
}

/// Sends a signal to a process that this program started.
pub fn signal(id: u32, signal: &str) -> anyhow::Result<()> {
    let sent = Command::new("kill").args([signal, &id.to_string()]).status()?;
    if !sent.success() {
        bail!("cannot send {signal} to process {id}");
    }
    Ok(())
}

/// A program that was killed could not remove its folder: the name says whose it was.
fn remove_leftovers() {
    let Ok(entries) = std::fs::read_dir(std::env::temp_dir()) else { return };
    for entry in entries.flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        let owner = name.strip_prefix(FOLDER_PREFIX).and_then(|rest| rest.split('-').next());
        if owner.is_some_and(|owner| !Path::new("/proc").join(owner).exists()) {
            let _ = std::fs::remove_dir_all(entry.path());
        }
    }
}
