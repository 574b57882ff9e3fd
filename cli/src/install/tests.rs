use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::{Command, Output};

use proptest::prelude::*;

use super::*;

const PACKAGE: &str = "the package";

fn release() -> Release {
    let artifact = |target: &str, kind, name: &str| Artifact {
        target: target.parse().expect("a target"),
        kind,
        name: name.parse().expect("a name"),
        bytes: PACKAGE.len() as u64,
        sha256: Digest::of(PACKAGE),
    };
    let artifacts = vec![
        artifact("x86_64-unknown-linux-gnu", ArtifactKind::Agent, "muster-agent-x86_64"),
        artifact("x86_64-unknown-linux-gnu", ArtifactKind::Package, "muster-agent_0.10.0-rc.1_amd64.deb"),
        artifact("aarch64-unknown-linux-gnu", ArtifactKind::Package, "muster-agent_0.10.0-rc.1_arm64.deb"),
        artifact("armv7-unknown-linux-gnueabihf", ArtifactKind::Package, "muster-agent_0.10.0-rc.1_armhf.deb"),
    ];
    Release { version: "0.10.0-rc.1".parse().expect("a version"), issued_ms: 1, artifacts }
}

fn claim() -> ClaimToken {
    let (root, ca) = (Digest::of("root"), Digest::of("ca"));
    ClaimToken { id: [255; 8], secret: [255; 16], root, ca, issued_ms: u64::MAX }
}

fn spell(url: &str, release: &Release) -> Result<String, NoLine> {
    Line { url, release, root: Digest::of("root"), claim: &claim() }.spell()
}

#[test]
fn the_line_holds_what_the_machine_is_to_believe_and_fits_a_terminal() {
    let line = spell(&format!("https://{}.example:65535", "a".repeat(200)), &release()).expect("a line");
    for held in [Digest::of(PACKAGE).to_string(), Digest::of("root").to_string(), claim().to_string()] {
        assert!(line.contains(&held), "{held}");
    }
    assert!(!line.contains('\n') && line.matches('\'').count() == 2, "{line}");
}

#[test]
fn there_is_no_line_where_it_could_mean_something_else() {
    assert!(matches!(spell("http://127.0.0.1:1", &release()), Err(NoLine::NotHttps(_))));
    for odd in ["https://a'b:1", "https://a;reboot", "https://$(reboot)", "https://a b", "https://a`b", "https://a\"b"]
    {
        assert!(matches!(spell(odd, &release()), Err(NoLine::OddUrl(_))), "{odd}");
    }
    let mut without = release();
    without.artifacts.truncate(1);
    assert!(matches!(spell("https://plane:1", &without), Err(NoLine::NoPackage(_))));
}

/// A machine as far as the line sees it: programs that say what they were asked.
struct Machine {
    folder: tempfile::TempDir,
}

impl Machine {
    fn new() -> Self {
        let machine = Self { folder: tempfile::tempdir().expect("a folder") };
        for program in ["sh", "cat", "head", "sha256sum", "tar", "chmod", "rm", "grep", "ls"] {
            let path = ["/usr/bin", "/bin"].map(|folder| Path::new(folder).join(program));
            let path = path.into_iter().find(|path| path.exists()).expect("a usual program");
            std::os::unix::fs::symlink(path, machine.folder.path().join(program)).expect("links");
        }
        machine.has("id", "echo 0").has("uname", "echo x86_64");
        machine.has("mktemp", &format!("mkdir {0}/made && echo {0}/made", machine.folder.path().display()));
        std::os::unix::fs::symlink("/bin/mkdir", machine.folder.path().join("mkdir")).expect("links");
        machine.has("dpkg", "echo dpkg $* >>$0.log; test $1 = --print-architecture && echo amd64");
        machine.has("dpkg-deb", "echo dpkg-deb $* >>$0.log; exit 9");
        machine
    }

    fn has(&self, program: &str, script: &str) -> &Self {
        let path = self.folder.path().join(program);
        std::fs::write(&path, format!("#!/bin/sh\n{script}\n")).expect("writes");
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).expect("may be run");
        self
    }

    fn run(&self, line: &str) -> (bool, String) {
        let Output { status, stderr, .. } = Command::new("/bin/sh")
            .args(["-c", line])
            .env_clear()
            .env("PATH", self.folder.path())
            .output()
            .expect("a shell");
        (status.success(), String::from_utf8_lossy(&stderr).into_owned())
    }

    fn log(&self, program: &str) -> String {
        std::fs::read_to_string(self.folder.path().join(format!("{program}.log"))).unwrap_or_default()
    }
}

fn line() -> String {
    spell("https://plane:8443", &release()).expect("a line")
}

#[test]
fn a_machine_that_is_not_meant_is_told_why_and_stays_as_it_was() {
    let cases: &[(&str, &str, &str)] = &[
        ("uname", "echo riscv64", "release 0.10.0-rc.1 has no package for amd64/riscv64, only for amd64, arm64, armhf"),
        ("dpkg", "echo armhf; echo >>$0.log", "has no package for armhf/x86_64"),
        ("dpkg", "exit 127", "this machine has no dpkg"),
    ];
    for (program, script, said) in cases {
        let machine = Machine::new();
        machine.has("curl", "echo curl >>$0.log").has(program, script);
        let (done, told) = machine.run(&line());
        assert!(!done && told.contains(said) && told.contains("nothing was installed"), "{said}: {told}");
        assert_eq!(machine.log("curl"), "", "{said}");
    }
    let (done, told) = Machine::new().run(&line());
    assert!(!done && told.contains("neither curl nor wget"), "{told}");
}

#[test]
fn old_boards_whose_processors_share_a_name_are_told_apart() {
    for (dpkg, uname, found) in [
        ("armhf", "armv7l", true),
        // A 64-bit kernel under a 32-bit system.
        ("armhf", "aarch64", true),
        ("armhf", "armv6l", false),
        ("arm64", "aarch64", true),
        ("amd64", "x86_64", true),
        ("i386", "x86_64", false),
    ] {
        let machine = Machine::new();
        machine.has("dpkg", &format!("echo {dpkg}")).has("uname", &format!("echo {uname}"));
        machine.has("curl", &format!("echo $* >>$0.log; printf %s \"{PACKAGE}\""));
        machine.run(&line());
        let asked = machine.log("curl");
        let name = format!("_{dpkg}.deb");
        assert_eq!(asked.lines().next().is_some_and(|asked| asked.contains(&name)), found, "{dpkg}/{uname}: {asked}");
    }
}

#[test]
fn nothing_is_unpacked_before_the_digest_matches() {
    for (fetched, said) in [
        ("the packagE", "what came is not the package with the SHA-256"),
        ("the package and more", "what came is not the package with the SHA-256"),
        ("the packag", "what came is not the package with the SHA-256"),
        ("", "cannot fetch https://plane:8443/api/v1/releases/0.10.0-rc.1/muster-agent_0.10.0-rc.1_amd64.deb"),
    ] {
        for fetcher in ["curl", "wget"] {
            let machine = Machine::new();
            machine.has(fetcher, &format!("echo fetched >>$0.log; printf %s \"{fetched}\""));
            let (done, told) = machine.run(&line());
            assert!(!done && told.contains(said) && told.contains("nothing was installed"), "{fetched}: {told}");
            assert_eq!(machine.log("dpkg-deb"), "", "{fetched}");
            assert_eq!(machine.log("dpkg"), "dpkg --print-architecture\n", "{fetched}");
            assert_eq!(machine.log(fetcher), "fetched\n", "{fetched}");
            assert!(!machine.folder.path().join("made").exists(), "{fetched}: it cleans up");
        }
    }
    // The same with the right bytes goes on to unpack.
    let machine = Machine::new();
    machine.has("curl", &format!("printf %s \"{PACKAGE}\""));
    let (done, told) = machine.run(&line());
    assert!(!done && machine.log("dpkg-deb").contains("--fsys-tarfile"), "{told}");
}

#[test]
fn a_stream_without_an_end_is_cut_off() {
    let machine = Machine::new();
    machine.has("curl", "cat /dev/zero");
    let (done, told) = machine.run(&line());
    assert!(!done && told.contains("what came is not the package"), "{told}");
}

proptest! {
    /// Whatever a URL holds, the line has two quotes and the script between them none.
    #[test]
    fn no_url_breaks_out_of_the_line(host in "\\PC{0,40}") {
        if let Ok(line) = spell(&format!("https://{host}"), &release()) {
            prop_assert_eq!(line.matches('\'').count(), 2);
            prop_assert!(!line.contains(['`', '\\', '\n', '!']));
        }
    }
}
