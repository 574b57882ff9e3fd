//! Releases of the agent: signed, pushed, offered, judged by whoever is to install them; and the line that
//! installs one, as far as it goes without changing the machine that the test runs on. On a clean Debian
//! system `cargo xtask installer` plays all of it.

use std::fs;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use anyhow::{Context as _, Result, ensure};
use muster_provisioning::deb::Package;
use muster_shared::release::ArtifactKind::{Agent, Package as Deb};
use muster_shared::release::{ArtifactKind, ReleaseVersion};
use muster_shared::signing::key::SecretKey;
use muster_tests::releases::{Made, OURS, THEIRS};
use muster_tests::world;
use muster_world::World;

fn key_of(world: &World, role: &str) -> Result<SecretKey> {
    let path = world.home().join("keys/demo").join(format!("{role}.pem"));
    Ok(SecretKey::from_pem(&fs::read_to_string(path)?)?)
}

fn text(path: &Path) -> Result<&str> {
    path.to_str().context("a path that is text")
}

/// Runs a command that must fail, and gives back what it said.
fn refusal(command: &mut Command) -> Result<String> {
    let Output { status, stderr, stdout } = command.env("RUST_BACKTRACE", "0").output()?;
    let told = String::from_utf8_lossy(&stderr).into_owned();
    ensure!(!status.success(), "it was taken: {}{told}", String::from_utf8_lossy(&stdout));
    Ok(told)
}

fn muster(world: &World, arguments: &[&str]) -> Command {
    let mut command = Command::new(&world.programs().muster);
    command.env("MUSTER_HOME", world.home()).args(arguments);
    command
}

#[test]
fn a_release_is_signed_by_its_signer_pushed_offered_and_shown() -> Result<()> {
    let world = world(&[])?;
    let folder = world.folder().join("release");
    let files: &[(&str, ArtifactKind, &[u8])] = &[(OURS, Deb, b"a package"), (OURS, Agent, b"an agent")];
    let made = Made::write(&folder, "0.2.0", files, &[])?;
    let path = text(&made.folder)?;

    let told = refusal(&mut muster(&world, &["release", "push", path]))?;
    ensure!(told.contains("not signed by the release keys") && told.contains("muster release sign"), "{told}");
    // The publisher's key signs, and nobody believes it.
    let publisher = world.publisher_key();
    world.muster(&["release", "sign", path, "--key", text(&publisher)?])?;
    let told = refusal(&mut muster(&world, &["release", "push", path]))?;
    ensure!(told.contains("signed by a publisher's key"), "{told}");
    // A file that was changed is not signed.
    let package = made.file(OURS, Deb);
    fs::write(&package, b"a packagE")?;
    let told = refusal(&mut muster(&world, &["release", "sign", path]))?;
    ensure!(told.contains("is not the file that release 0.2.0 names"), "{told}");
    fs::write(&package, b"a package")?;
    world.muster(&["release", "sign", path])?;
    world.muster(&["release", "verify", path])?;

    ensure!(world.muster(&["release", "push", path])?.contains("pushed: 2 files"), "it pushes both files");
    ensure!(world.muster(&["release", "push", path])?.contains("was there already"), "and once only");
    let shown = world.muster(&["release", "show", "0.2.0"])?;
    ensure!(shown.contains("signed by") && shown.contains(&made.release.artifacts[0].sha256.to_string()), "{shown}");
    // An older one comes later: it is kept, and what is offered stays.
    let older = Made::write(&world.folder().join("older"), "0.1.9", files, &[&key_of(&world, "release")?])?;
    world.muster(&["release", "push", text(&older.folder)?])?;
    let list = world.json(&["release", "list"])?;
    let offered: Vec<_> = list.as_array().context("a list")?.iter().filter(|view| view["offered"] == true).collect();
    ensure!(offered.len() == 1 && offered[0]["version"] == "0.2.0", "{list}");
    // Another release of the same version is none.
    let other = Made::write(&world.folder().join("other"), "0.2.0", &files[..1], &[&key_of(&world, "release")?])?;
    let told = refusal(&mut muster(&world, &["release", "push", text(&other.folder)?]))?;
    ensure!(told.contains("version 0.2.0 is another release already"), "{told}");
    Ok(())
}

#[test]
fn an_agent_says_why_it_does_not_take_a_file() -> Result<()> {
    let world = world(&[])?;
    let (signer, publisher) = (key_of(&world, "release")?, key_of(&world, "publisher")?);
    let roots = world.folder().join("roots.json");
    fs::write(&roots, world.api("trust/roots")?.to_string())?;
    let files: &[(&str, ArtifactKind, &[u8])] = &[
        (OURS, Deb, b"!<arch>\nfor this machine"),
        (THEIRS, Deb, b"!<arch>\nfor another one!"),
        (OURS, Agent, b"\x7fELF for this machine"),
    ];
    let make =
        |name: &str, version: &str, key: &SecretKey| Made::write(&world.folder().join(name), version, files, &[key]);
    let good = make("good", "9.0.0", &signer)?;
    let check = |file: &Path, made: &Made, more: &[&str]| {
        let mut check = Command::new(&world.programs().agent);
        check.args(["release", "check"]).arg(file).arg("--release").arg(made.document());
        check.arg("--root").arg(&roots).args(more);
        check
    };
    for kind in [Deb, Agent] {
        let told = muster_world::output(&mut check(&good.file(OURS, kind), &good, &[]))?;
        ensure!(told.contains("of release 9.0.0") && told.contains(OURS), "{told}");
    }

    let changed = world.folder().join("changed");
    fs::write(&changed, b"!<arch>\nfor this machinE")?;
    let wrong_role = make("role", "9.0.0", &publisher)?;
    let older = make("older", "0.0.9", &signer)?;
    let unsigned = Made::write(&world.folder().join("unsigned"), "9.0.0", files, &[])?;
    let pinned_elsewhere = ["--root-digest", &"0".repeat(64)];
    let cases: &[(&str, PathBuf, &Made, &[&str])] = &[
        ("signed by a publisher's key, which may not sign releases", wrong_role.file(OURS, Deb), &wrong_role, &[]),
        ("not signed by the release keys", unsigned.file(OURS, Deb), &unsigned, &[]),
        ("release 0.0.9 is older than the agent 0.1.0 that is installed", older.file(OURS, Deb), &older, &[]),
        ("older than the agent 9.0.1", good.file(OURS, Deb), &good, &["--installed", "9.0.1"]),
        ("the package is not package-x86_64-unknown-linux-gnu of release 9.0.0", changed, &good, &[]),
        ("and this machine is x86_64-unknown-linux-gnu: another processor", good.file(THEIRS, Deb), &good, &[]),
        (
            "has no package for riscv64gc-unknown-linux-gnu",
            roots.clone(),
            &good,
            &["--target", "riscv64gc-unknown-linux-gnu"],
        ),
        ("no root here has the digest", good.file(OURS, Deb), &good, &pinned_elsewhere),
    ];
    for (said, file, made, more) in cases {
        let told = refusal(&mut check(file, made, more))?;
        // Of what is no package the agent says that it is no agent.
        let said = if *file == roots { said.replace("package", "agent") } else { (*said).to_owned() };
        ensure!(told.contains(&said), "wanted {said:?}, was told: {told}");
    }
    Ok(())
}

#[test]
fn a_device_takes_no_older_agent_than_one_that_ran_on_it() -> Result<()> {
    let mut world = world(&["edge-1"])?;
    let signer = key_of(&world, "release")?;
    let made = Made::write(&world.folder().join("made"), "0.1.0", &[(OURS, Deb, b"!<arch>\n")], &[&signer])?;
    let check = |world: &World| {
        let mut check = Command::new(&world.programs().agent);
        check.args(["release", "check"]).arg(made.file(OURS, Deb)).arg("--release").arg(made.document());
        check.arg("--data").arg(world.device_folder("edge-1"));
        check
    };
    muster_world::output(&mut check(&world))?;
    world.stop_agent("edge-1")?;
    // As a newer agent would have left it.
    let memory = world.device_folder("edge-1").join("identity/agent.json");
    ensure!(fs::read_to_string(&memory)?.contains("0.1.0"), "the agent remembers that it ran");
    fs::write(&memory, r#"{"version":"0.7.0"}"#)?;
    let told = refusal(&mut check(&world))?;
    ensure!(told.contains("older than the agent 0.7.0"), "{told}");
    // This one runs all the same, says so, and does not forget.
    world.start_agent("edge-1")?;
    ensure!(world.log("edge-1")?.contains("a newer agent ran here before"), "nobody is told");
    ensure!(fs::read_to_string(&memory)?.contains("0.7.0"), "it forgot");
    Ok(())
}

/// What stands in for the parts of a machine that the line would change: the rest is this machine's own.
fn stage(world: &World) -> Result<PathBuf> {
    let folder = world.folder().join("bin");
    fs::create_dir(&folder)?;
    let path = std::env::var_os("PATH").context("a PATH")?;
    for program in ["curl", "head", "sha256sum", "tar", "chmod", "rm", "dpkg-deb", "mkdir", "sh", "cat", "uname"] {
        let mut places = std::env::split_paths(&path).map(|path| path.join(program));
        let found = places.find(|path| path.exists()).with_context(|| format!("{program} is missing"))?;
        symlink(found, folder.join(program))?;
    }
    let made = world.folder().join("made");
    let scripts = [
        ("id", "echo 0".to_owned()),
        ("dpkg", "echo \"$@\" >>$0.log; test $1 = --print-architecture && echo amd64".to_owned()),
        ("mktemp", format!("mkdir {0} && echo {0}", made.display())),
    ];
    for (name, script) in scripts {
        fs::write(folder.join(name), format!("#!/bin/sh\n{script}\n"))?;
        fs::set_permissions(folder.join(name), fs::Permissions::from_mode(0o755))?;
    }
    Ok(folder)
}

#[test]
fn the_printed_line_runs_what_was_signed_and_nothing_else() -> Result<()> {
    let world = world(&[])?;
    let told = refusal(&mut muster(&world, &["claim", "new", "--install"]))?;
    ensure!(told.contains("has no release to install"), "{told}");
    ensure!(world.api("claims")?.as_array().is_some_and(Vec::is_empty), "a claim was made for no line");

    // An agent that says that it was run, and with what.
    let ran = world.folder().join("ran");
    let agent = format!("#!/bin/sh\necho \"$@\" \"claim=${{MUSTER_CLAIM:-}}\" >>{}\n", ran.display());
    let (version, target) = ("0.2.0".parse::<ReleaseVersion>()?, OURS.parse()?);
    let package = Package { version: &version, target: &target, agent: agent.as_bytes(), glibc: (2, 28), made_s: 1 };
    let signer = key_of(&world, "release")?;
    let made = Made::write(&world.folder().join("release"), "0.2.0", &[(OURS, Deb, &package.build()?)], &[&signer])?;
    world.muster(&["release", "push", text(&made.folder)?])?;
    let printed: serde_json::Value = serde_json::from_str(&world.muster(&["claim", "new", "--install", "--json"])?)?;
    let (line, claim) = (printed["install"].as_str().context("a line")?, printed["token"].as_str().context("a token")?);
    let root = world.json(&["trust", "show"])?;
    for held in [claim.to_owned(), made.release.artifacts[0].sha256.to_string()] {
        ensure!(line.contains(&held), "{held} is not in the line: {line} ({root})");
    }

    let folder = stage(&world)?;
    let run = |line: &str| -> Result<(bool, String)> {
        let mut sh = Command::new("/bin/sh");
        sh.args(["-c", line]).env_clear().env("PATH", &folder);
        let Output { status, stderr, .. } = sh.output()?;
        Ok((status.success(), String::from_utf8_lossy(&stderr).into_owned()))
    };
    // Whoever holds the plane changes one byte of the package.
    let sha256 = made.release.artifacts[0].sha256.to_string();
    let blob = world.plane_folder().join("blobs").join(&sha256[..2]).join(&sha256);
    let good = fs::read(&blob)?;
    let mut bad = good.clone();
    bad[good.len() / 2] ^= 1;
    fs::write(&blob, &bad)?;
    let (done, told) = run(line)?;
    ensure!(!done && told.contains("what came is not the package") && told.contains("nothing was installed"), "{told}");
    ensure!(!ran.exists(), "it was run");
    let dpkg = fs::read_to_string(folder.join("dpkg.log"))?;
    ensure!(dpkg == "--print-architecture\n", "dpkg was asked for more: {dpkg}");

    fs::write(&blob, &good)?;
    let (done, told) = run(line)?;
    ensure!(done, "{told}");
    let told = fs::read_to_string(&ran)?;
    let last = told.lines().last().context("it was run")?;
    ensure!(last.starts_with("install --package") && last.ends_with(&format!("claim={claim}")), "{told}");
    ensure!(!world.folder().join("made").exists(), "it leaves something behind");
    Ok(())
}

#[test]
fn an_image_gets_no_agent_that_the_release_signers_do_not_stand_for() -> Result<()> {
    let world = world(&[])?;
    let files: &[(&str, ArtifactKind, &[u8])] = &[(THEIRS, Agent, b"\x7fELF for a board"), (OURS, Agent, b"\x7fELF")];
    let make =
        |name: &str, role: &str| Made::write(&world.folder().join(name), "9.0.0", files, &[&key_of(&world, role)?]);
    let (image, stock) = (world.folder().join("edge.img"), world.folder().join("stock.img"));
    fs::write(&stock, b"nobody looks at it")?;
    let refused = |made: &Made, more: &[&str], why: &str| {
        let (folder, image, stock) = (text(&made.folder)?, text(&image)?, text(&stock)?);
        let build = ["image", "build", "--release", folder, "--output", image];
        let patch = ["image", "patch", stock, "--factory", "--release", folder, "--output", image];
        for command in [&build[..], &patch[..]] {
            let told = refusal(muster(&world, command).args(more))?;
            ensure!(told.contains(why), "{command:?}: {told}");
        }
        ensure!(!Path::new(image).exists(), "something was written");
        Ok(())
    };
    refused(&make("role", "publisher")?, &[], "signed by a publisher's key")?;
    let changed = make("changed", "release")?;
    fs::write(changed.file(THEIRS, Agent), b"\x7fELF for a boarD")?;
    refused(&changed, &[], "it has the SHA-256")?;
    refused(
        &changed,
        &["--target", "armv7-unknown-linux-gnueabihf"],
        "has no agent for armv7-unknown-linux-gnueabihf",
    )?;
    // Signed by this fleet's release key, and somebody else's root is believed.
    let other = muster_tests::world(&[])?;
    let roots = other.folder().join("roots.json");
    fs::write(&roots, other.api("trust/roots")?.to_string())?;
    refused(&make("good", "release")?, &["--root", text(&roots)?], "not signed by the release keys")
}
