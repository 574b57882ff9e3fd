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
use muster_tests::{programs, world};
use muster_world::{DEADLINE, World, until, wrong_clock};
use serde_json::Value;

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

/// A device's folder, to be made ill: what enrolment left, with its addresses changed.
fn patient(world: &World, name: &str, url: Option<&str>, broker: Option<&str>) -> Result<PathBuf> {
    let (from, to) = (world.device_folder("edge-1"), world.folder().join(name));
    std::fs::create_dir_all(to.join("identity"))?;
    std::fs::copy(from.join("agent.toml"), to.join("agent.toml"))?;
    for entry in std::fs::read_dir(from.join("identity"))? {
        let entry = entry?;
        std::fs::copy(entry.path(), to.join("identity").join(entry.file_name()))?;
    }
    let file = to.join("identity/enrolment.json");
    let mut enrolment: Value = serde_json::from_slice(&std::fs::read(&file)?)?;
    for (key, value) in [("url", url), ("mqtt", broker)] {
        if let Some(value) = value {
            enrolment[key] = value.into();
        }
    }
    std::fs::write(file, enrolment.to_string())?;
    Ok(to)
}

/// A port of this machine where nobody listens.
fn closed_port() -> Result<u16> {
    Ok(TcpListener::bind("127.0.0.1:0")?.local_addr()?.port())
}

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

#[test]
fn a_device_that_is_well_is_told_so_and_its_wrong_clock_and_its_ways_are_named() -> Result<()> {
    let mut world = world(&["edge-1"])?;
    let agent = world.programs().agent.clone();
    let door = world.door("edge-1")?.trim_start_matches("http://").to_owned();
    world.configure("edge-1", |text| text.replace("127.0.0.1:8501", &door))?;
    let well = said(&mut doctor(&agent, &world.device_folder("edge-1")))?;
    ensure!(well.healthy && well.faults().is_empty(), "{well}");
    let table = Command::new(&agent).args(["doctor", "--data"]).arg(world.device_folder("edge-1")).output()?;
    println!("{}", String::from_utf8_lossy(&table.stdout));

    // The machine's clock.
    for clock in ["@1970-01-01 00:01:00", "@2099-06-01 12:00:00", "-1y"] {
        let folder = world.device_folder("edge-1");
        said(doctor(&agent, &folder).envs(wrong_clock(clock)?))?.names("clock", "clockWrong", "fault")?;
    }

    // The broker's port, with the API's open beside it.
    let broker = format!("127.0.0.1:{}", closed_port()?);
    let folder = patient(&world, "closed-port", None, Some(&broker))?;
    let closed = said(&mut doctor(&agent, &folder))?;
    let row = closed.names("broker", "portClosed", "fault")?;
    ensure!(row["note"].as_str().is_some_and(|note| note.contains("is open")), "it names no other way: {row}");

    // A login page in the control plane's place.
    let page = always_answers("HTTP/1.1 302 Found\r\nlocation: http://login.example/\r\ncontent-length: 0\r\n\r\n")?;
    let folder = patient(&world, "captive", Some(&format!("https://{page}")), None)?;
    let captive = said(&mut doctor(&agent, &folder))?;
    let row = captive.names("API", "captivePortal", "fault")?;
    ensure!(row["note"].as_str().is_some_and(|note| note.contains("http://login.example/")), "{row}");

    // A proxy that refuses.
    let proxy = always_answers("HTTP/1.1 403 Forbidden\r\ncontent-length: 0\r\n\r\n")?;
    let folder = world.device_folder("edge-1");
    said(doctor(&agent, &folder).args(["--proxy", &format!("http://{proxy}")]))?.names(
        "proxy",
        "proxyRefuses",
        "fault",
    )?;

    // A resolver that is dead, and a network without IPv4.
    let folder = patient(&world, "dead-resolver", Some("https://plane.example:8443"), Some("plane.example:8883"))?;
    std::fs::write(folder.join("resolv.conf"), "nameserver 127.0.0.1\noptions timeout:1 attempts:1\n")?;
    let stage = "ip link set lo up\nmount --bind \"$2/resolv.conf\" /etc/resolv.conf";
    if let Some(dead) = doctor_apart(&agent, &folder, stage)? {
        dead.names("names", "resolverDead", "fault")?;
    }
    let folder = patient(&world, "ipv6-only", Some("https://198.51.100.7:8443"), Some("198.51.100.7:8883"))?;
    let stage = "ip link set lo up\nip link add wan type veth peer name far\nip link set far up\nip link set wan up\n\
                 ip -6 address add 2001:db8::2/64 dev wan nodad\nip -6 route add default via 2001:db8::1 dev wan";
    if let Some(only) = doctor_apart(&agent, &folder, stage)? {
        only.names("addresses", "noIpv4", "fault")?;
    }
    if let Some(none) = doctor_apart(&agent, &folder, "")? {
        none.names("addresses", "noNetwork", "fault")?;
    }

    // With the control plane away the bound alone tells that a clock is wrong.
    world.stop_plane();
    let away = said(doctor(&agent, &world.device_folder("edge-1")).envs(wrong_clock("@1970-01-01 00:01:00")?))?;
    away.names("clock", "clockWrong", "fault")?;
    away.names("API", "unreachable", "fault")?;
    Ok(())
}

#[test]
fn what_is_wrong_with_a_devices_folder_its_key_and_its_sandbox_is_named() -> Result<()> {
    let mut world = world(&["edge-1"])?;
    world.stop_agent("edge-1")?;
    let agent = world.programs().agent.clone();
    let folder = patient(&world, "whole", None, None)?;
    said(&mut doctor(&agent, &folder))?.names("agent", "agentNotConnected", "warning")?;
    ensure!(std::fs::read_dir(&folder)?.count() == 2, "it left something behind");

    let nobody = world.folder().join("nobody");
    std::fs::create_dir(&nobody)?;
    said(&mut doctor(&agent, &nobody))?.names("enrolment", "notEnrolled", "fault")?;
    said(&mut doctor(&agent, &world.folder().join("nowhere")))?.names("data folder", "dataNotWritable", "fault")?;

    let key = |name: &str| -> Result<(PathBuf, PathBuf)> {
        let folder = patient(&world, name, None, None)?;
        Ok((folder.clone(), folder.join("identity/key.pem")))
    };
    let (folder, file) = key("key-lost")?;
    std::fs::remove_file(file)?;
    said(&mut doctor(&agent, &folder))?.names("key", "keyLost", "fault")?;
    let (folder, file) = key("key-damaged")?;
    std::fs::write(file, "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n")?;
    said(&mut doctor(&agent, &folder))?.names("key", "keyUnreadable", "fault")?;
    let folder = patient(&world, "enrolment-damaged", None, None)?;
    std::fs::write(folder.join("identity/enrolment.json"), "{")?;
    said(&mut doctor(&agent, &folder))?.names("enrolment", "enrolmentDamaged", "fault")?;
    let folder = patient(&world, "configuration", None, None)?;
    std::fs::write(folder.join("agent.toml"), "data = \".\"\ndor.listen = \"127.0.0.1:1\"\n")?;
    let row = said(&mut doctor(&agent, &folder))?;
    ensure!(
        row.names("configuration", "configuration", "fault")?["note"].as_str().is_some_and(|note| note.contains("dor"))
    );

    // Disks.
    let folder = patient(&world, "disk", None, None)?;
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
