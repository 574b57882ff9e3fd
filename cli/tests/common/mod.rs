//! What the CLI's tests share: a person's desk, and a control plane that only remembers.
#![allow(dead_code, reason = "each test file uses its own part")]

pub mod plane;

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

/// A home folder of its own, in which `muster` runs.
pub struct Desk {
    folder: tempfile::TempDir,
    /// What its environment holds beside the usual.
    variables: Vec<(String, String)>,
}

impl Desk {
    pub fn new() -> Self {
        Self { folder: tempfile::tempdir().expect("a folder"), variables: vec![] }
    }

    /// From now on, the environment holds this.
    pub fn set(&mut self, name: &str, value: &str) {
        self.variables.retain(|(held, _)| held != name);
        self.variables.push((name.to_owned(), value.to_owned()));
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Writes a file; its path as an argument.
    pub fn write(&self, name: &str, text: &str) -> String {
        let path = self.path(name);
        std::fs::write(&path, text).expect("writes");
        path.display().to_string()
    }

    pub fn muster(&self, args: &[&str]) -> Output {
        self.muster_reading("", args)
    }

    /// Runs `muster` with a text on standard input.
    pub fn muster_reading(&self, stdin: &str, args: &[&str]) -> Output {
        let mut child = Command::new(env!("CARGO_BIN_EXE_muster"))
            .args(args)
            .env_clear()
            .env("MUSTER_HOME", self.path("home"))
            .env("SOURCE_DATE_EPOCH", "1700000000")
            .envs(self.variables.clone())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("starts");
        // A command that reads nothing may be gone already.
        let _ = child.stdin.take().expect("a pipe").write_all(stdin.as_bytes());
        child.wait_with_output().expect("runs")
    }

    /// Runs a command that must succeed; its stdout.
    #[track_caller]
    pub fn ok(&self, args: &[&str]) -> String {
        let output = self.muster(args);
        assert!(output.status.success(), "{args:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).expect("UTF-8")
    }

    /// Runs a command that must succeed and print JSON.
    #[track_caller]
    pub fn json(&self, args: &[&str]) -> serde_json::Value {
        serde_json::from_str(&self.ok(args)).expect("JSON")
    }

    /// Runs a command that must fail with an error and a hint that hold these words.
    #[track_caller]
    pub fn refused(&self, args: &[&str], error: &str, hint: &str) {
        let output = self.muster(args);
        let stderr = String::from_utf8(output.stderr).expect("UTF-8");
        assert_eq!(output.status.code(), Some(1), "{args:?}: {stderr}");
        assert!(output.stdout.is_empty(), "{args:?} prints only errors, to stderr");
        assert!(!stderr.contains('\u{1b}'), "no colour where stderr is no terminal: {stderr}");
        let find = |prefix: &str| stderr.lines().find_map(|line| line.strip_prefix(prefix)).unwrap_or_default();
        assert!(find("error: ").contains(error), "{args:?}: {error:?} is not in: {stderr}");
        assert!(find("hint: ").contains(hint), "{args:?}: {hint:?} is not in: {stderr}");
    }

    /// A context that points to a port where nobody listens.
    pub fn context(&self, root: Option<&str>) {
        std::fs::create_dir_all(self.path("home")).expect("a folder");
        let digest = "a".repeat(64);
        let root = root.map(|root| format!("root = {{ version = 1, digest = \"{root}\" }}\n")).unwrap_or_default();
        let text = format!(
            "current = \"here\"\n[contexts.here]\nurl = \"https://127.0.0.1:9\"\nca_fingerprint = \"{digest}\"\n\
             token = \"t\"\n{root}"
        );
        std::fs::write(self.path("home/contexts.toml"), text).expect("writes");
    }

    /// A key that no root names.
    pub fn strange_key(&self) -> String {
        let key = muster_shared::signing::key::SecretKey::from_seed([9; 32]);
        self.write("strange.pem", &key.to_pem().expect("PEM"))
    }
}

/// A committed model or its golden vectors.
pub fn fixture(path: &str) -> String {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/models").join(path).display().to_string()
}
