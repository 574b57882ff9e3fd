use std::process::Command;

use super::*;

fn package<'a>(version: &'a ReleaseVersion, target: &'a Target, agent: &'a [u8]) -> Package<'a> {
    Package { version, target, agent, glibc: (2, 28), made_s: 1_700_000_000 }
}

fn of(text: &str) -> (ReleaseVersion, Target) {
    (text.parse().expect("a version"), "armv7-unknown-linux-gnueabihf".parse().expect("a target"))
}

#[test]
fn the_same_agent_gives_the_same_bytes_and_another_one_others() {
    let (version, target) = of("0.2.0");
    let build = |agent: &[u8]| package(&version, &target, agent).build().expect("builds");
    assert_eq!(build(b"agent"), build(b"agent"));
    assert_ne!(build(b"agent"), build(b"agenT"));
}

#[test]
fn dpkg_reads_what_was_made() {
    let (version, target) = of("0.2.0-rc.1");
    let agent = package(&version, &target, b"an agent");
    assert_eq!(agent.file_name().expect("a name").as_str(), "muster-agent_0.2.0-rc.1_armhf.deb");
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("agent.deb");
    std::fs::write(&path, agent.build().expect("builds")).expect("writes");
    let dpkg = |arguments: &[&str]| {
        let done = Command::new("dpkg-deb").args(arguments).arg(&path).output().expect("dpkg-deb is there");
        assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
        String::from_utf8(done.stdout).expect("text")
    };
    let told = dpkg(&["--show", "--showformat=${Package} ${Version} ${Architecture} ${Depends}"]);
    assert_eq!(told, "muster-agent 0.2.0~rc.1 armhf libc6 (>= 2.28), passwd");
    let contents = dpkg(&["--contents"]);
    for (mode, path) in [
        ("drwxr-xr-x", "./etc/muster/"),
        ("-rw-r--r--", "./etc/muster/agent.toml"),
        ("-rwxr-xr-x", "./usr/bin/muster-agent"),
        ("-rw-r--r--", "./usr/lib/systemd/system/muster-agent.service"),
    ] {
        let found = contents
            .lines()
            .any(|line| line.starts_with(mode) && line.contains(" root/root ") && line.ends_with(&format!(" {path}")));
        assert!(found, "{mode} {path} in:\n{contents}");
    }
    let folders = contents.lines().filter(|line| line.ends_with(" ./usr/")).count();
    assert_eq!(folders, 1, "{contents}");
}

#[test]
fn only_kinds_of_machine_that_debian_has_get_a_package() {
    let (version, _) = of("0.2.0");
    for other in ["aarch64-unknown-linux-musl", "riscv64gc-unknown-linux-gnu"] {
        let target = other.parse().expect("a target");
        let refused = package(&version, &target, b"").build();
        assert!(matches!(refused, Err(CannotPack::NoArchitecture(_))), "{other}");
    }
}

#[test]
fn scripts_are_ones_that_every_shell_reads() {
    for name in ["postinst", "prerm", "postrm", "muster-agent.init"] {
        let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("debian").join(name);
        let done = Command::new("sh").arg("-n").arg(&path).output().expect("a shell");
        assert!(done.status.success(), "{name}: {}", String::from_utf8_lossy(&done.stderr));
    }
}
