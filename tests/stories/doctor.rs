//! What can be wrong with a device, each thing staged, and named by `muster-agent doctor` with the next move.
//!
//! What needs a machine of its own (a disk that is full, a network without IPv4) gets one by namespaces, which
//! need no rights on most machines; where they are not to be had, the story says so and the tables beside the checks
//! are all there is.

use std::io::{Read as _, Write as _};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, ensure};
use muster_shared::release::ArtifactKind;
use muster_shared::signing::key::SecretKey;
use muster_tests::releases::{Made, OURS, THEIRS};
use muster_tests::{programs, world};
use muster_world::{DEADLINE, World, output, until, wrong_clock};
use serde_json::Value;

/// A port of this machine that nobody listens at.
const CLOSED: &str = "127.0.0.1:1";

/// What doctor said.
struct Said {
    rows: Vec<Value>,
    healthy: bool,
}

impl Said {
    /// The row of the check that names `fault`.
    fn names(&self, check: &str, fault: &str, level: &str) -> Result<&Value> {
        let is_it = |row: &&Value| row["name"] == check && row["fault"] == fault && row["level"] == level;
        let row = self.rows.iter().find(is_it).with_context(|| format!("no {level} {fault} of {check}: {self}"))?;
        ensure!(row["next"].as_str().is_some_and(|next| !next.is_empty()), "without a next move: {row}");
        ensure!(self.healthy == self.faults().is_empty(), "its exit status says something else: {self}");
        println!(
            "{check}: {} → {}",
            row["note"].as_str().unwrap_or_default(),
            row["next"].as_str().unwrap_or_default()
        );
        Ok(row)
    }

    fn faults(&self) -> Vec<&Value> {
        self.rows.iter().filter(|row| row["level"] == "fault").map(|row| &row["fault"]).collect()
    }
}

impl std::fmt::Display for Said {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.rows.iter().try_for_each(|row| writeln!(f, "\n  {row}"))
    }
}

fn said(command: &mut Command) -> Result<Said> {
    let done = command.output()?;
    let (out, error) = (String::from_utf8_lossy(&done.stdout), String::from_utf8_lossy(&done.stderr));
    let line = out.lines().last().with_context(|| format!("it said nothing: {error}"))?;
    let line: Value = serde_json::from_str(line).with_context(|| format!("{out}{error}"))?;
    ensure!(line["command"] == "doctor", "{line}");
    let rows = line["rows"].as_array().context("rows")?.clone();
    Ok(Said { rows, healthy: done.status.success() })
}

fn doctor(agent: &Path, folder: &Path) -> Command {
    let mut command = Command::new(agent);
    command.arg("doctor").arg("--json").arg("--data").arg(folder);
    command
}

/// Doctor on a machine of its own, which `stage` makes ill. None where there are no namespaces.
fn doctor_apart(agent: &Path, folder: &Path, stage: &str) -> Result<Option<Said>> {
    let apart = || {
        let mut unshare = Command::new("unshare");
        unshare.args(["--map-root-user", "--net", "--mount"]);
        unshare
    };
    if !apart().arg("true").status().is_ok_and(|status| status.success()) {
        println!("skipped: no machine of its own can be made here (`unshare` fails)");
        return Ok(None);
    }
    let script = format!("set -e\n{stage}\nexec \"$1\" doctor --json --data \"$2\"");
    said(apart().args(["sh", "-c", &script, "sh"]).arg(agent).arg(folder)).map(Some)
}

/// A device's folder, to be made ill: what enrolment left, changed.
fn patient(world: &World, name: &str, change: impl FnOnce(&mut Value)) -> Result<PathBuf> {
    let (from, to) = (world.device_folder("edge-1"), world.folder().join(name));
    std::fs::create_dir_all(to.join("identity"))?;
    // Whatever listens on this machine, it is not this device's door.
    let config = std::fs::read_to_string(from.join("agent.toml"))?.replace("127.0.0.1:8501", CLOSED);
    std::fs::write(to.join("agent.toml"), config)?;
    for entry in std::fs::read_dir(from.join("identity"))? {
        let entry = entry?;
        std::fs::copy(entry.path(), to.join("identity").join(entry.file_name()))?;
    }
    let file = to.join("identity/enrolment.json");
    let mut enrolment: Value = serde_json::from_slice(&std::fs::read(&file)?)?;
    change(&mut enrolment);
    std::fs::write(file, enrolment.to_string())?;
    Ok(to)
}

/// It was told that the control plane is elsewhere.
fn moved(api: &str, broker: &str) -> impl FnOnce(&mut Value) {
    let (api, broker) = (format!("https://{api}"), broker.to_owned());
    move |enrolment| {
        (enrolment["url"], enrolment["mqtt"]) = (api.into(), broker.into());
        enrolment["tunnel"] = Value::Null;
    }
}

fn whole(_: &mut Value) {}

/// A server that gives everybody the same answer.
fn always_answers(answer: &'static str) -> Result<String> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let address = listener.local_addr()?.to_string();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let Ok(mut stream) = stream else { return };
            let _ = stream.read(&mut [0; 4096]);
            let _ = stream.write_all(answer.as_bytes());
        }
    });
    Ok(address)
}

fn note(row: &Value) -> &str {
    row["note"].as_str().unwrap_or_default()
}

#[test]
fn a_device_that_is_well_is_told_so_and_a_wrong_clock_is_named() -> Result<()> {
    let mut world = World::start_with(programs()?, &["--devices", "127.0.0.1:0"], &|_| {})?;
    world.add_device("edge-1")?;
    world.until("the agent to be connected", |world| {
        Ok((world.connection("edge-1")["state"] == "connected").then_some(()))
    })?;
    let (agent, folder) = (world.programs().agent.clone(), world.device_folder("edge-1"));
    let door = world.door("edge-1")?.trim_start_matches("http://").to_owned();
    world.configure("edge-1", |text| text.replace("127.0.0.1:8501", &door))?;
    let well = said(&mut doctor(&agent, &folder))?;
    ensure!(well.healthy && well.faults().is_empty(), "{well}");
    for check in ["agent", "API", "broker", "tunnel", "certificate", "clock", "key"] {
        let is_good = |row: &Value| row["name"] == check && row["level"] == "good";
        ensure!(well.rows.iter().any(is_good), "{check} is not well: {well}");
    }
    let table = output(Command::new(&agent).args(["doctor", "--data"]).arg(&folder))?;
    println!("{table}");

    for clock in ["@1970-01-01 00:01:00", "@2099-06-01 12:00:00", "-1y"] {
        said(doctor(&agent, &folder).envs(wrong_clock(clock)?))?.names("clock", "clockWrong", "fault")?;
    }
    // With the control plane away the bound alone tells, and the agent says that it is alone.
    world.stop_plane();
    world.until("the agent to notice", |world| Ok((world.connection("edge-1")["state"] == "offline").then_some(())))?;
    let away = said(doctor(&agent, &folder).envs(wrong_clock("@1970-01-01 00:01:00")?))?;
    away.names("clock", "clockWrong", "fault")?;
    away.names("API", "unreachable", "fault")?;
    away.names("agent", "agentNotConnected", "fault")?;
    Ok(())
}

#[test]
fn what_is_in_the_way_to_the_control_plane_is_named() -> Result<()> {
    let mut world = World::start_with(programs()?, &["--devices", "127.0.0.1:0"], &|_| {})?;
    world.add_device("edge-1")?;
    world.stop_agent("edge-1")?;
    let agent = world.programs().agent.clone();

    // The broker's port: the tunnel is open beside it, is closed too, or was never named.
    for (name, tunnel, level, part) in [
        ("closed-port", None, "warning", "is open, so the agent goes that way"),
        ("closed-ports", Some(Value::from(CLOSED)), "fault", "is not open either"),
        ("closed-and-no-tunnel", Some(Value::Null), "fault", "is open, but the control plane named no tunnel"),
    ] {
        let folder = patient(&world, name, |enrolment| {
            enrolment["mqtt"] = CLOSED.into();
            if let Some(tunnel) = tunnel {
                enrolment["tunnel"] = tunnel;
            }
        })?;
        let closed = said(&mut doctor(&agent, &folder))?;
        let row = closed.names("broker", "portClosed", level)?;
        ensure!(note(row).contains(part), "it says something else: {row}");
    }

    // A login page in the control plane's place.
    let page = always_answers("HTTP/1.1 302 Found\r\nlocation: http://login.example/\r\ncontent-length: 0\r\n\r\n")?;
    let folder = patient(&world, "captive", moved(&page, &world.plane().mqtt))?;
    let captive = said(&mut doctor(&agent, &folder))?;
    let row = captive.names("API", "captivePortal", "fault")?;
    ensure!(note(row).contains("http://login.example/"), "{row}");

    // A proxy that refuses, as a person tries it and as the owner's file names it; one that is away.
    let proxy = always_answers("HTTP/1.1 403 Forbidden\r\ncontent-length: 0\r\n\r\n")?;
    let folder = patient(&world, "proxy", whole)?;
    for proxy in [&proxy, CLOSED] {
        let proxy = format!("http://{proxy}");
        said(doctor(&agent, &folder).args(["--proxy", &proxy]))?.names("proxy", "proxyRefuses", "fault")?;
    }
    let file = folder.join("agent.toml");
    let config = std::fs::read_to_string(&file)?;
    std::fs::write(file, format!("{config}\n[network]\nproxy = \"http://{proxy}\"\n"))?;
    said(&mut doctor(&agent, &folder))?.names("proxy", "proxyRefuses", "fault")?;

    // A resolver that is dead, a network without IPv4, and no network.
    let folder = patient(&world, "dead-resolver", moved("plane.example:8443", "plane.example:8883"))?;
    std::fs::write(folder.join("resolv.conf"), "nameserver 127.0.0.1\noptions timeout:1 attempts:1\n")?;
    let stage = "ip link set lo up\nmount --bind \"$2/resolv.conf\" /etc/resolv.conf";
    if let Some(dead) = doctor_apart(&agent, &folder, stage)? {
        dead.names("names", "resolverDead", "fault")?;
    }
    let folder = patient(&world, "ipv6-only", moved("198.51.100.7:8443", "198.51.100.7:8883"))?;
    let stage = "ip link set lo up\nip link add wan type veth peer name far\nip link set far up\nip link set wan up\n\
                 ip -6 address add 2001:db8::2/64 dev wan nodad\nip -6 route add default via 2001:db8::1 dev wan";
    if let Some(only) = doctor_apart(&agent, &folder, stage)? {
        only.names("addresses", "noIpv4", "fault")?;
    }
    if let Some(none) = doctor_apart(&agent, &folder, "")? {
        none.names("addresses", "noNetwork", "fault")?;
    }
    Ok(())
}

#[test]
fn what_is_wrong_with_a_devices_folder_its_key_and_its_sandbox_is_named() -> Result<()> {
    let mut world = world(&["edge-1"])?;
    world.stop_agent("edge-1")?;
    let agent = world.programs().agent.clone();
    let folder = patient(&world, "whole", whole)?;
    said(&mut doctor(&agent, &folder))?.names("agent", "agentNotConnected", "warning")?;
    ensure!(std::fs::read_dir(&folder)?.count() == 2, "it left something behind");

    let nobody = world.folder().join("nobody");
    std::fs::create_dir(&nobody)?;
    said(&mut doctor(&agent, &nobody))?.names("enrolment", "notEnrolled", "fault")?;
    said(&mut doctor(&agent, &world.folder().join("nowhere")))?.names("data folder", "dataNotWritable", "fault")?;

    let key = |name: &str| -> Result<(PathBuf, PathBuf)> {
        let folder = patient(&world, name, whole)?;
        Ok((folder.clone(), folder.join("identity/key.pem")))
    };
    let (folder, file) = key("key-lost")?;
    std::fs::remove_file(file)?;
    said(&mut doctor(&agent, &folder))?.names("key", "keyLost", "fault")?;
    let (folder, file) = key("key-damaged")?;
    std::fs::write(file, "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n")?;
    said(&mut doctor(&agent, &folder))?.names("key", "keyUnreadable", "fault")?;
    let folder = patient(&world, "enrolment-damaged", whole)?;
    std::fs::write(folder.join("identity/enrolment.json"), "{")?;
    said(&mut doctor(&agent, &folder))?.names("enrolment", "enrolmentDamaged", "fault")?;
    let folder = patient(&world, "configuration", whole)?;
    std::fs::write(folder.join("agent.toml"), "data = \".\"\ndor.listen = \"127.0.0.1:1\"\n")?;
    let row = said(&mut doctor(&agent, &folder))?;
    ensure!(
        row.names("configuration", "configuration", "fault")?["note"].as_str().is_some_and(|note| note.contains("dor"))
    );

    // Disks.
    let folder = patient(&world, "disk", whole)?;
    let read_only = "mount --bind \"$2\" \"$2\"\nmount -o remount,bind,ro \"$2\"";
    if let Some(closed) = doctor_apart(&agent, &folder, read_only)? {
        closed.names("data folder", "dataNotWritable", "fault")?;
    }
    let full = "mkdir \"$2.kept\"\ncp -a \"$2/.\" \"$2.kept\"\nmount -t tmpfs -o size=128k tmpfs \"$2\"\n\
                cp -a \"$2.kept/.\" \"$2\"\ndd if=/dev/zero of=\"$2/ballast\" 2>/dev/null || true";
    if let Some(full) = doctor_apart(&agent, &folder, full)? {
        full.names("room on disk", "diskFull", "fault")?;
    }

    // A kernel without Landlock, and one with nothing that confines.
    let without_landlock = |stage: &'static str| -> Result<Option<Said>> {
        let (agent, folder) = (agent.clone(), folder.clone());
        // What this thread may not, what it starts may not either.
        std::thread::spawn(move || {
            refuse_landlock()?;
            doctor_apart(&agent, &folder, stage)
        })
        .join()
        .map_err(|_| anyhow::anyhow!("the thread failed"))?
    };
    if let Some(thin) = without_landlock("")? {
        thin.names("sandbox", "sandboxMissing", "warning")?;
    }
    if let Some(none) = without_landlock("mount -t tmpfs tmpfs /proc/sys/kernel/seccomp")? {
        none.names("sandbox", "sandboxMissing", "fault")?;
    }
    Ok(())
}

/// From here on the kernel answers this thread, and what it starts, as one without Landlock does.
fn refuse_landlock() -> Result<()> {
    use seccompiler::{BpfProgram, SeccompAction, SeccompFilter, apply_filter};
    // `landlock_create_ruleset` and the two beside it have one number everywhere.
    let calls = [444, 445, 446].map(|number| (number, vec![]));
    let absent = SeccompAction::Errno(38);
    let filter = SeccompFilter::new(calls.into(), SeccompAction::Allow, absent, std::env::consts::ARCH.try_into()?)?;
    Ok(apply_filter(&BpfProgram::try_from(filter)?)?)
}

#[test]
fn a_release_that_does_not_verify_is_named() -> Result<()> {
    let mut world = world(&["edge-1"])?;
    world.stop_agent("edge-1")?;
    let (agent, device) = (world.programs().agent.clone(), world.device_folder("edge-1"));
    let key = |role: &str| -> Result<SecretKey> {
        let path = world.home().join("keys/demo").join(format!("{role}.pem"));
        Ok(SecretKey::from_pem(&std::fs::read_to_string(path)?)?)
    };
    let made = |name: &str, version: &str, target: &str, signers: &[&SecretKey]| {
        let files: &[(&str, ArtifactKind, &[u8])] = &[(target, ArtifactKind::Agent, b"an agent")];
        Made::write(&world.folder().join(name), version, files, signers)
    };
    let ask = |made: &Made| said(doctor(&agent, &device).arg("--release").arg(made.document()));
    let (release, publisher) = (key("release")?, key("publisher")?);
    let good = ask(&made("good", "99.0.0", OURS, &[&release])?)?;
    ensure!(good.rows.iter().any(|row| row["name"] == "release" && row["level"] == "good"), "{good}");
    for (made, part) in [
        (made("by-publisher", "99.0.0", OURS, &[&publisher])?, "publisher's key"),
        (made("by-nobody", "99.0.0", OURS, &[])?, "not signed"),
        (made("older", "0.0.1", OURS, &[&release])?, "older"),
        (made("for-others", "99.0.0", THEIRS, &[&release])?, THEIRS),
    ] {
        let refused = ask(&made)?;
        let row = refused.names("release", "releaseNotVerified", "fault")?;
        ensure!(note(row).contains(part), "it says something else: {row}");
    }
    Ok(())
}

#[test]
fn a_certificate_that_ran_out_is_named() -> Result<()> {
    let mut world = World::start_with(programs()?, &["--device-certificate-life", "4s"], &|_| {})?;
    world.add_device("edge-1")?;
    world.stop_agent("edge-1")?;
    let (agent, folder) = (world.programs().agent.clone(), world.device_folder("edge-1"));
    let ended = until("the certificate to run out", DEADLINE, || {
        let said = said(&mut doctor(&agent, &folder))?;
        Ok(said.faults().iter().any(|fault| **fault == "certificateExpired").then_some(said))
    })?;
    ended.names("certificate", "certificateExpired", "fault")?;
    Ok(())
}
