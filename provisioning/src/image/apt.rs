//! Fetches packages through the host's own package client, which checks their signatures. The client has a state
//! of its own here: neither what is installed on the host nor its architectures change, and root is not needed.

use std::ffi::OsStr;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use super::{Architecture, Kernel};

/// The programs of an image beside its kernel and the agent.
const PROGRAMS: [&str; 4] = ["busybox-static", "e2fsprogs", "fdisk", "systemd-boot-efi"];
/// What their packages call for, but for libraries, is for installing them.
const LIBRARY: &str = "lib";

/// Which packages.
#[derive(Debug, Clone)]
pub struct Wanted {
    /// For which processor.
    pub architecture: Architecture,
    /// Which kernel.
    pub kernel: Kernel,
    /// A mirror of Debian and a suite (`bookworm`); none: whatever sources the host has.
    pub mirror: Option<(String, String)>,
}

/// Why there are no packages.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs)]
pub enum AptError {
    #[error("cannot start {0}; without Debian's package client, name a folder of packages with --packages")]
    NoClient(String, #[source] io::Error),
    #[error("`{command}` failed: {said}")]
    Failed { command: String, said: String },
    #[error("the sources have no kernel for {0}; name a mirror of Debian with --mirror URL --suite bookworm")]
    NoKernel(Architecture),
    #[error("cannot write {path}")]
    Write {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
}

/// Debian's own key, where a mirror is named.
const KEYRING: &str = "/usr/share/keyrings/debian-archive-keyring.gpg";

/// Fetches what an image is made of into a folder of `cache`; what is there already stays. The packages' files,
/// in order of their names.
pub fn fetch(wanted: &Wanted, cache: &Path, tell: &dyn Fn(&str)) -> Result<Vec<PathBuf>, AptError> {
    let state = State::set_up(wanted, cache)?;
    tell("reading the lists of packages");
    state.run("apt-get", ["--quiet", "--quiet", "update"])?;
    let meta = match wanted.kernel {
        Kernel::Generic => format!("linux-image-{}", wanted.architecture),
        Kernel::Cloud => format!("linux-image-cloud-{}", wanted.architecture),
    };
    // It stands for the newest of them, whose name has a version in it.
    let told = state.depends(&[&meta], false).map_err(|_| AptError::NoKernel(wanted.architecture))?;
    let kernel = told.iter().find(|name| name.starts_with("linux-image-") && **name != meta);
    let kernel = kernel.ok_or(AptError::NoKernel(wanted.architecture))?;
    let mut names = state.depends(&PROGRAMS, true)?;
    names.retain(|name| name.starts_with(LIBRARY));
    names.extend(PROGRAMS.map(str::to_owned));
    names.push(kernel.clone());
    names.sort();
    names.dedup();
    tell(&format!("fetching {} packages, {kernel} among them", names.len()));
    let arguments = ["--quiet", "--quiet", "download"].into_iter().chain(names.iter().map(String::as_str));
    state.run("apt-get", arguments)?;
    state.newest(&names)
}

/// The package client's state.
struct State {
    packages: PathBuf,
    configuration: PathBuf,
}

impl State {
    fn set_up(wanted: &Wanted, cache: &Path) -> Result<Self, AptError> {
        let kernel = match wanted.kernel {
            Kernel::Generic => "generic",
            Kernel::Cloud => "cloud",
        };
        let suite = wanted.mirror.as_ref().map_or("host", |(_, suite)| suite);
        let folder = cache.join(format!("{}-{suite}", wanted.architecture));
        let packages = folder.join(format!("packages-{kernel}"));
        for path in [&folder.join("state/lists/partial"), &folder.join("cache/archives/partial"), &packages] {
            fs::create_dir_all(path).map_err(|source| AptError::Write { path: path.clone(), source })?;
        }
        let state = folder.display();
        let mut text = format!(
            "APT::Architecture \"{0}\";\nAPT::Architectures {{ \"{0}\"; }};\nDir::State \"{state}/state\";\n\
             Dir::State::status \"{state}/state/status\";\nDir::Cache \"{state}/cache\";\nAcquire::Languages \"none\";\n\
             APT::Sandbox::User \"\";\n",
            wanted.architecture
        );
        write(&folder.join("state/status"), "")?;
        if let Some((mirror, suite)) = &wanted.mirror {
            let signed = if Path::new(KEYRING).exists() { format!(" signed-by={KEYRING}") } else { String::new() };
            let sources = folder.join("sources.list");
            write(&sources, &format!("deb [arch={}{signed}] {mirror} {suite} main\n", wanted.architecture))?;
            text += &format!("Dir::Etc::sourcelist \"{}\";\nDir::Etc::sourceparts \"-\";\n", sources.display());
        }
        let configuration = folder.join("apt.conf");
        write(&configuration, &text)?;
        Ok(Self { packages, configuration })
    }

    /// What packages call for; with `all`, what that calls for in turn.
    fn depends(&self, names: &[&str], all: bool) -> Result<Vec<String>, AptError> {
        let kinds = ["recommends", "suggests", "conflicts", "breaks", "replaces", "enhances"];
        let mut arguments = vec!["depends".to_owned()];
        arguments.extend(kinds.map(|kind| format!("--no-{kind}")));
        arguments.extend(all.then(|| "--recurse".to_owned()));
        arguments.extend(names.iter().map(|&name| name.to_owned()));
        let told = self.run("apt-cache", arguments)?;
        let heads = told.lines().filter(|line| !line.starts_with([' ', '<', '|']));
        let called = told.lines().filter_map(|line| line.trim().split_once("Depends: ").map(|(_, name)| name));
        let real = heads.chain(called).filter(|name| !name.starts_with('<')).map(|name| name.trim().to_owned());
        Ok(real.collect())
    }

    fn run<A: AsRef<OsStr>>(&self, program: &str, arguments: impl IntoIterator<Item = A>) -> Result<String, AptError> {
        let mut command = Command::new(program);
        command.args(arguments).current_dir(&self.packages).env("APT_CONFIG", &self.configuration);
        command.env("LC_ALL", "C").stdin(Stdio::null());
        let output = command.output().map_err(|source| AptError::NoClient(program.to_owned(), source))?;
        if output.status.success() {
            return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
        }
        let said = String::from_utf8_lossy(&output.stderr);
        let said: Vec<&str> = said.lines().filter(|line| line.starts_with("E:")).collect();
        let what = command.get_args().next().unwrap_or_default().to_string_lossy().into_owned();
        Err(AptError::Failed { command: format!("{program} {what}"), said: said.join("; ") })
    }

    /// The files of these packages; of several versions the one that was fetched last.
    fn newest(&self, names: &[String]) -> Result<Vec<PathBuf>, AptError> {
        let read = |source| AptError::Write { path: self.packages.clone(), source };
        let mut files = vec![];
        for entry in fs::read_dir(&self.packages).map_err(read)? {
            let path = entry.map_err(read)?.path();
            if path.extension().is_some_and(|extension| extension == "deb") {
                files.push(path);
            }
        }
        let told =
            self.run("apt-cache", ["--no-all-versions", "show"].into_iter().chain(names.iter().map(String::as_str)))?;
        // Of each package the version that would be installed.
        let field = |part: &str, name: &str| {
            part.lines().find_map(|line| line.strip_prefix(name)).map(|value| value.trim().to_owned())
        };
        let current: Vec<String> = told
            .split("\n\n")
            .filter_map(|part| {
                let (name, version) = (field(part, "Package: ")?, field(part, "Version: ")?);
                Some(format!("{name}_{}_", version.replace(':', "%3a")))
            })
            .collect();
        let is_current = |path: &PathBuf| {
            let name = path.file_name().map_or_else(String::new, |name| name.to_string_lossy().into_owned());
            current.iter().any(|start| name.starts_with(start.as_str()))
        };
        files.retain(is_current);
        files.sort();
        Ok(files)
    }
}

fn write(path: &Path, text: &str) -> Result<(), AptError> {
    fs::write(path, text).map_err(|source| AptError::Write { path: path.to_owned(), source })
}
