//! What happens on the clean systems, case by case.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::{Context as _, bail, ensure};
use muster_provisioning::deb::Package;
use muster_shared::Digest;
use muster_shared::release::{Artifact, ArtifactKind, FILE_NAME, Release};
use muster_shared::signing::key::SecretKey;
use muster_shared::signing::{Envelope, payload_type};
use muster_world::rows::{self, Row};
use muster_world::{Bundle, DEADLINE, Programs, World, get, until};
use serde_json::Value;

use super::machine::Machine;
use super::{CURL, SYSTEMD, WGET};

const MODEL: &str = "digits";
/// Where the package's configuration opens the agent's door.
const DOOR: &str = "http://127.0.0.1:8501";

type Case = fn(&mut Scene<'_>) -> anyhow::Result<String>;

/// In this order: the fleet that one leaves is the next one's.
const CASES: &[(&str, Case)] = &[
    ("the line, in sh with curl: installed, enrolled, serving", installs),
    ("the same line again: nothing changes", again),
    ("a newer release: upgraded and started again; the owner's configuration stays", newer),
    ("an older release: refused, and what runs stays", older),
    ("purged: nothing is left", purged),
    ("another kind of machine: refused, nothing run", other_machine),
    ("one byte of the package changed: refused, nothing run", one_byte),
    ("another package in its place: refused, nothing run", another_package),
    ("its twin, the digest not compared: the other package has the machine", twin),
    ("a release that a publisher signed, to the installer of the package: refused", wrong_role),
    ("a line whose claim has run out: installed, not enrolled", claim_ran_out),
    ("and a new line, in bash with wget: it goes on from there", goes_on),
    ("a machine that systemd runs: installed, enrolled, serving; started again when it dies", under_systemd),
    ("the release key stolen, and the root says so, since the line was printed: refused", key_stolen),
];

struct Scene<'a> {
    folder: &'a Path,
    world: World,
    /// The release that is offered, and where it lies.
    release: Release,
    place: PathBuf,
    /// The line of the first case.
    line: String,
    /// The device of the first case.
    device: String,
    /// The system that the present cases play on.
    machine: Option<Machine>,
}

/// Plays every case; an error if one does not go as it should.
pub fn run(folder: &Path) -> anyhow::Result<()> {
    let programs = Programs::in_folder(&folder.join("programs").canonicalize()?);
    let world = World::start(programs, &|what| eprintln!("{what}"))?;
    let place = folder.join("release");
    let path = place.to_str().context("a path that is text")?;
    world.muster(&["release", "sign", path])?;
    world.muster(&["release", "push", path])?;
    let envelope = Release::envelope(&std::fs::read(place.join(FILE_NAME))?)?;
    let release = Release::parse(&envelope.payload)?;
    world.publish(&Bundle::fixture(MODEL, 1))?;
    let mut scene = Scene { folder, world, release, place, line: String::new(), device: String::new(), machine: None };
    let mut rows = vec![];
    for (name, case) in CASES {
        let (ok, note) = match case(&mut scene) {
            Ok(note) => (true, note),
            Err(error) => (false, format!("{error:#}")),
        };
        println!("{} {name}\n    {}", if ok { "ok    " } else { "FAILED" }, note.trim().replace('\n', "\n    "));
        rows.push(Row::played(*name, ok, note));
    }
    let failed = rows::tell("installer", &rows);
    ensure!(failed == 0, "{failed} of {} cases do not go as they should", rows.len());
    Ok(())
}

impl Scene<'_> {
    fn new_line(&self, more: &[&str]) -> anyhow::Result<String> {
        Ok(self.world.muster(&[&["claim", "new", "--install"], more].concat())?.trim().to_owned())
    }

    /// A fresh system of one kind in the place of the present one.
    fn fresh(&mut self, name: &str, fetcher: &str, shell: &str, before: &[&str]) -> anyhow::Result<&mut Machine> {
        let root = self.unpack(name, fetcher)?;
        Ok(self.machine.insert(Machine::enter(&root, shell, before)?))
    }

    fn unpack(&mut self, name: &str, system: &str) -> anyhow::Result<PathBuf> {
        self.machine = None;
        let root = self.folder.join(name);
        Machine::unpack(&self.folder.join(format!("{system}.tar")), &root)?;
        Ok(root)
    }

    fn machine(&mut self) -> anyhow::Result<&mut Machine> {
        self.machine.as_mut().context("no clean system is there")
    }

    fn package(&self) -> anyhow::Result<&Artifact> {
        self.release.of_kind(ArtifactKind::Package).next().context("the release has no package")
    }

    /// Where the plane keeps the package: whoever holds the plane can change it there.
    fn blob(&self) -> anyhow::Result<PathBuf> {
        let sha256 = self.package()?.sha256.to_string();
        Ok(self.world.plane_folder().join("blobs").join(&sha256[..2]).join(&sha256))
    }

    /// Other bytes in the package's place, while `then` happens.
    fn with_package<T>(
        &mut self,
        bytes: &[u8],
        then: impl FnOnce(&mut Self) -> anyhow::Result<T>,
    ) -> anyhow::Result<T> {
        let blob = self.blob()?;
        let good = std::fs::read(&blob)?;
        std::fs::write(&blob, bytes)?;
        let done = then(self);
        std::fs::write(&blob, good)?;
        done
    }

    fn devices(&self) -> anyhow::Result<Vec<Value>> {
        self.world.devices()
    }
}

/// Runs a line that must be refused, in a fresh system under a watcher; nothing may change there, and nothing
/// may be run that came with it.
fn refused(scene: &mut Scene<'_>, name: &str, line: &str, said: &str) -> anyhow::Result<String> {
    let trace = scene.folder.join(format!("{name}.trace"));
    let watched = trace.to_str().context("a path that is text")?.to_owned();
    let machine =
        scene.fresh(name, CURL, "sh", &["strace", "-f", "-s", "200", "-e", "trace=execve", "-o", &watched])?;
    let before = machine.tree()?;
    let done = machine.line(line)?;
    ensure!(!done.good && done.told.contains(said), "it said, and {}: {}", done.good, done.told);
    let after = machine.tree()?;
    if before != after {
        let changed: Vec<_> = after.iter().filter(|(path, about)| before.get(*path) != Some(*about)).collect();
        bail!("files changed: {changed:?}");
    }
    let runs = std::fs::read_to_string(&trace)?;
    let runs: Vec<&str> = runs.lines().filter(|run| run.contains("execve(") && run.ends_with("= 0")).collect();
    ensure!(runs.iter().any(|run| run.contains("sha256sum") || run.contains("uname")), "nobody watched: {runs:?}");
    let foreign = runs.iter().find(|run| {
        let asks = run.contains("dpkg") && !run.contains("--print-architecture");
        asks || run.contains("execve(\"/var/lib/")
    });
    ensure!(foreign.is_none(), "it ran {foreign:?}");
    let told = done.told.lines().last().unwrap_or_default().to_owned();
    Ok(format!("{told}\nno file of the system changed, and of {} programs that ran none was fetched", runs.len()))
}

/// Looks, while something happens, whether a text stands among any process's arguments.
fn nobody_sees<T>(text: &str, then: impl FnOnce() -> anyhow::Result<T>) -> anyhow::Result<T> {
    let over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let watch = scope.spawn(|| {
            let mut looks = 0u64;
            while !over.load(Ordering::Relaxed) {
                looks += 1;
                for process in std::fs::read_dir("/proc").into_iter().flatten().flatten() {
                    let line = std::fs::read(process.path().join("cmdline")).unwrap_or_default();
                    if String::from_utf8_lossy(&line).contains(text) {
                        return Err(String::from_utf8_lossy(&line).replace('\0', " "));
                    }
                }
            }
            Ok(looks)
        });
        let done = then();
        over.store(true, Ordering::Relaxed);
        match watch.join() {
            Ok(Ok(looks)) if looks > 0 => done,
            Ok(Ok(_)) => bail!("nobody looked"),
            Ok(Err(seen)) => bail!("everybody on the machine could read the claim: {seen}"),
            Err(_) => bail!("the watcher failed"),
        }
    })
}

/// The claim that a line holds.
fn claim_of(line: &str) -> anyhow::Result<String> {
    let start = line.find("muster1_").context("the line holds no claim")?;
    Ok(line[start..].split(' ').next().unwrap_or_default().to_owned())
}

fn installs(scene: &mut Scene<'_>) -> anyhow::Result<String> {
    let line = scene.new_line(&[])?;
    scene.line = line.clone();
    let machine = scene.fresh("first", CURL, "sh", &[])?;
    let done = nobody_sees(&claim_of(&line)?, || machine.line(&line))?;
    ensure!(done.good, "{}", done.told);
    let id = machine.line("stat -c %U:%a /var/lib/muster /var/lib/muster/identity/key.pem; id -u muster")?;
    ensure!(id.told.starts_with("muster:700\nmuster:600\n"), "whose is it? {}", id.told);
    let runs = machine.line(
        "for p in /proc/[0-9]*; do test \"$(readlink $p/exe)\" = /usr/bin/muster-agent && stat -c %U $p; done; true",
    )?;
    ensure!(runs.told.lines().next() == Some("muster"), "the agent runs as {:?}", runs.told);
    scene.world.until("the device to be there", |world| {
        let devices = world.devices()?;
        Ok(devices.iter().any(|device| device["connected"] == true).then_some(()))
    })?;
    let devices = scene.devices()?;
    ensure!(devices.len() == 1, "{devices:?}");
    scene.device = id_of(&devices[0]).context("a device's id")?;
    scene.world.deploy(MODEL, "1")?;
    scene.world.until_serves(&scene.device, MODEL, 1)?;
    let state = get(&format!("{DOOR}/v1/models/{MODEL}"))?;
    ensure!(available(&state.body), "{}", state.body);
    Ok(format!("{}\n{MODEL} serves on {}, and the claim stood in no list of processes", done.told.trim(), scene.device))
}

fn id_of(device: &Value) -> Option<String> {
    device["id"].as_str().map(str::to_owned)
}

/// Whether a door says that a model answers.
fn available(status: &Value) -> bool {
    status["model_version_status"][0]["state"] == "AVAILABLE"
}

fn again(scene: &mut Scene<'_>) -> anyhow::Result<String> {
    let line = scene.line.clone();
    let done = scene.machine()?.line(&line)?;
    ensure!(done.good && done.told.contains("enrolled already"), "{}", done.told);
    ensure!(scene.devices()?.len() == 1, "there is another device");
    Ok(done.told)
}

/// Signs a release by the release key and pushes it; its files lie in its folder.
fn push(scene: &Scene<'_>, release: &Release, folder: &Path) -> anyhow::Result<()> {
    let key = scene.world.home().join("keys/demo/release.pem");
    let key = SecretKey::from_pem(&std::fs::read_to_string(key)?)?;
    let envelope = Envelope::sign(payload_type::RELEASE, release.to_payload(), &[&key]);
    std::fs::write(folder.join(FILE_NAME), envelope.to_json())?;
    scene.world.muster(&["release", "push", folder.to_str().context("a path that is text")?]).map(drop)
}

/// The same agent as a package of a later version.
fn newer(scene: &mut Scene<'_>) -> anyhow::Result<String> {
    let (version, folder) = ("9.9.9".parse()?, scene.folder.join("newer"));
    std::fs::create_dir(&folder)?;
    let agent = scene.release.of_kind(ArtifactKind::Agent).next().context("the release has no agent")?;
    let agent = std::fs::read(scene.place.join(agent.name.as_str()))?;
    let target = scene.package()?.target.clone();
    let package = Package { version: &version, target: &target, agent: &agent, glibc: (2, 28), made_s: 1 };
    let (name, bytes) = (package.file_name()?, package.build()?);
    std::fs::write(folder.join(name.as_str()), &bytes)?;
    let (kind, sha256) = (ArtifactKind::Package, Digest::of(&bytes));
    let artifact = Artifact { target, kind, name, bytes: bytes.len() as u64, sha256 };
    let release = Release { version, artifacts: vec![artifact], ..scene.release.clone() };
    push(scene, &release, &folder)?;
    (scene.release, scene.place) = (release, folder);
    let line = scene.new_line(&[])?;
    let machine = scene.machine()?;
    let before = machine.line("echo \"# mine\" >>/etc/muster/agent.toml; cat /run/muster-agent.pid")?.told;
    let done = machine.line(&line)?;
    ensure!(done.good && done.told.contains("enrolled already"), "{}", done.told);
    let after = machine.line("tail -n 1 /etc/muster/agent.toml; dpkg-query --show muster-agent")?.told;
    ensure!(after == "# mine\nmuster-agent\t9.9.9\n", "{after}");
    let runs = machine.line("cat /run/muster-agent.pid")?.told;
    ensure!(runs != before, "the old agent still runs: {runs}");
    let device = scene.device.clone();
    scene.world.until_serves(&device, MODEL, 1)?;
    Ok(done.told)
}

/// A release of an earlier version with the same files.
fn older(scene: &mut Scene<'_>) -> anyhow::Result<String> {
    let release = Release { version: "0.0.9".parse()?, ..scene.release.clone() };
    let folder = scene.folder.join("older");
    std::fs::create_dir(&folder)?;
    for Artifact { name, .. } in &release.artifacts {
        std::fs::hard_link(scene.place.join(name.as_str()), folder.join(name.as_str()))?;
    }
    push(scene, &release, &folder)?;
    let line = scene.new_line(&["--release", "0.0.9"])?;
    let done = scene.machine()?.line(&line)?;
    ensure!(!done.good && done.told.contains("is older than the agent"), "{}", done.told);
    let (device, before) = (scene.device.clone(), scene.devices()?.len());
    ensure!(scene.world.slot(&device, MODEL)?["phase"] == "serving" && before == 1, "something changed");
    Ok(done.told)
}

fn purged(scene: &mut Scene<'_>) -> anyhow::Result<String> {
    let machine = scene.machine()?;
    let done = machine.line("dpkg --purge muster-agent </dev/null")?;
    ensure!(done.good, "{}", done.told);
    let left = machine.line("find / -xdev -iname \"*muster*\" -not -path \"/proc/*\"")?;
    // dpkg's own log and a backup of its lists name packages that were.
    let left: Vec<&str> = left.told.lines().filter(|path| path.starts_with('/')).collect();
    ensure!(left.is_empty(), "{left:?}");
    ensure!(get(&format!("{DOOR}/healthz")).is_err(), "an agent still answers");
    scene.world.muster(&["revoke", &scene.device])?;
    Ok("no file of that name is left, and nothing answers".to_owned())
}

fn other_machine(scene: &mut Scene<'_>) -> anyhow::Result<String> {
    let line = scene.new_line(&[])?;
    // `uname` says i686 there.
    let line = format!("linux32 sh -c {}", quoted(&line));
    refused(scene, "i686", &line, "has no package for amd64/i686, only for amd64; nothing was installed")
}

fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\'', "'\"'\"'"))
}

fn one_byte(scene: &mut Scene<'_>) -> anyhow::Result<String> {
    let line = scene.new_line(&[])?;
    let mut bytes = std::fs::read(scene.blob()?)?;
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    scene.with_package(&bytes, |scene| refused(scene, "byte", &line, "what came is not the package"))
}

/// A package whose agent has the machine once it is run.
fn evil(scene: &Scene<'_>) -> anyhow::Result<Vec<u8>> {
    let agent = b"#!/bin/sh\necho had >/root/had\n";
    let (version, target) = (&scene.release.version, &scene.package()?.target);
    Ok(Package { version, target, agent, glibc: (2, 28), made_s: 1 }.build()?)
}

fn another_package(scene: &mut Scene<'_>) -> anyhow::Result<String> {
    let (line, bytes) = (scene.new_line(&[])?, evil(scene)?);
    scene.with_package(&bytes, |scene| refused(scene, "evil", &line, "what came is not the package"))
}

fn twin(scene: &mut Scene<'_>) -> anyhow::Result<String> {
    let (line, bytes) = (scene.new_line(&[])?, evil(scene)?);
    let without = line.replace("sha256sum -c", "cat");
    ensure!(without != line, "the line compares no digest");
    scene.with_package(&bytes, |scene| {
        let machine = scene.fresh("twin", CURL, "sh", &[])?;
        let done = machine.line(&without)?;
        let had = std::fs::read_to_string(machine.path("/root/had")).unwrap_or_default();
        ensure!(had.starts_with("had"), "nothing happened, so the other cases prove nothing: {}", done.told);
        Ok("it was run, as root".to_owned())
    })
}

/// The line is printed for no such release; the agent that it starts is asked by itself.
fn wrong_role(scene: &mut Scene<'_>) -> anyhow::Result<String> {
    let line = scene.new_line(&[])?;
    let publisher = SecretKey::from_pem(&std::fs::read_to_string(scene.world.publisher_key())?)?;
    let envelope = Envelope::sign(payload_type::RELEASE, scene.release.to_payload(), &[&publisher]);
    let package = scene.place.join(scene.package()?.name.as_str());
    let roots = scene.world.api("trust/roots")?.to_string();
    let url = scene.world.plane().http.clone();
    let machine = scene.fresh("role", CURL, "sh", &[])?;
    std::fs::copy(package, machine.path("/root/package.deb"))?;
    std::fs::write(machine.path("/root/release.json"), envelope.to_json())?;
    std::fs::write(machine.path("/root/roots.json"), roots)?;
    let root = line.split("--root-digest ").nth(1).and_then(|rest| rest.split(' ').next()).context("a digest")?;
    let done = machine.line(&format!(
        "cd /root && dpkg-deb --fsys-tarfile package.deb | tar -xO ./usr/bin/muster-agent >agent && chmod 700 agent && \
         MUSTER_CLAIM={} ./agent install --package package.deb --release release.json --roots roots.json \
         --root-digest {root} --url {url}",
        claim_of(&line)?
    ))?;
    ensure!(!done.good && done.told.contains("signed by a publisher's key, which may not"), "{}", done.told);
    let there = machine.line("dpkg-query --show muster-agent")?;
    ensure!(!there.good, "it was installed");
    Ok(done.told)
}

fn claim_ran_out(scene: &mut Scene<'_>) -> anyhow::Result<String> {
    let line = scene.new_line(&["--ttl", "1s"])?;
    let claims = scene.world.api("claims")?;
    let ends = claims.as_array().context("claims")?.iter().filter_map(|claim| claim["expiresMs"].as_u64()).min();
    let ends = ends.context("the claim's end")?;
    let now_ms = || SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as u64);
    scene.world.until("the claim to run out", |_| Ok((now_ms() > ends).then_some(())))?;
    let machine = scene.fresh("second", WGET, "bash", &[])?;
    let done = machine.line(&line)?;
    ensure!(!done.good && done.told.contains("it is installed, and not enrolled"), "{}", done.told);
    Ok(done.told)
}

fn goes_on(scene: &mut Scene<'_>) -> anyhow::Result<String> {
    let line = scene.new_line(&[])?;
    let done = scene.machine()?.line(&line)?;
    ensure!(done.good && done.told.contains("is installed already"), "{}", done.told);
    scene.world.until("the device to be there", |world| {
        let connected = world.devices()?.into_iter().filter(|device| device["connected"] == true).count();
        Ok((connected == 1).then_some(()))
    })?;
    Ok(done.told)
}

fn under_systemd(scene: &mut Scene<'_>) -> anyhow::Result<String> {
    let before: Vec<String> = scene.devices()?.iter().filter_map(id_of).collect();
    let line = scene.new_line(&[])?;
    let root = scene.unpack("systemd", SYSTEMD)?;
    let machine = scene.machine.insert(Machine::boot(&root)?);
    let done = machine.line(&line)?;
    ensure!(done.good, "{}", done.told);
    let state = machine.line("systemctl is-enabled muster-agent; systemctl is-active muster-agent")?;
    ensure!(state.told.starts_with("enabled\nactive\n"), "{}", state.told);
    let device = scene.world.until("the device to be there", |world| {
        let devices = world.devices()?;
        let new =
            devices.iter().filter(|device| device["connected"] == true).filter_map(|device| device["id"].as_str());
        Ok(new.map(str::to_owned).find(|device| !before.contains(device)))
    })?;
    for other in before {
        // Its agent went with its system; what it served goes to the new one.
        scene.world.muster(&["revoke", &other])?;
    }
    scene.world.until_serves(&device, MODEL, 1)?;
    let machine = scene.machine()?;
    let killed = machine.line("systemctl kill --signal=KILL muster-agent")?;
    ensure!(killed.good, "{}", killed.told);
    until("the agent to be started again", DEADLINE, || {
        let again = machine.line("systemctl show --property=NRestarts muster-agent")?;
        Ok((again.told.trim() == "NRestarts=1").then_some(()))
    })?;
    until("the model to serve again", DEADLINE, || {
        let state = get(&format!("{DOOR}/v1/models/{MODEL}")).ok();
        Ok(state.is_some_and(|answer| available(&answer.body)).then_some(()))
    })?;
    Ok(done.told)
}

fn key_stolen(scene: &mut Scene<'_>) -> anyhow::Result<String> {
    let line = scene.new_line(&[])?;
    scene.world.muster(&["keys", "rotate", "release", "--compromised", "--yes"])?;
    let machine = scene.fresh("stolen", CURL, "sh", &[])?;
    let done = machine.line(&line)?;
    ensure!(!done.good && done.told.contains("not signed by the release keys"), "{}", done.told);
    let there = machine.line("dpkg-query --show muster-agent")?;
    ensure!(!there.good, "it was installed");
    Ok(done.told)
}
