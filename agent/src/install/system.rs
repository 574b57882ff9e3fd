//! The machine's package manager, and the user that the package made.

use std::os::unix::fs::MetadataExt as _;
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context as _, ensure};
use muster_shared::release::ReleaseVersion;

/// The package's name.
const PACKAGE: &str = "muster-agent";
/// Where the package puts the agent.
const PROGRAM: &str = "/usr/bin/muster-agent";

/// What dpkg knows of the package.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Installed {
    /// Nothing.
    Not,
    /// It is installed.
    Whole(ReleaseVersion),
    /// An installation of it was cut off.
    Half(ReleaseVersion),
}

impl Installed {
    /// Asks dpkg.
    pub fn ask() -> anyhow::Result<Self> {
        let mut query = Command::new("dpkg-query");
        query.args(["--show", "--showformat=${db:Status-Status} ${Version}", PACKAGE]);
        let answer = query.stdin(Stdio::null()).stderr(Stdio::null()).output();
        let answer = answer.context("cannot ask dpkg-query what is installed; this command is for Debian's systems")?;
        if !answer.status.success() {
            // It knows no package of this name.
            return Ok(Self::Not);
        }
        Self::read(&String::from_utf8_lossy(&answer.stdout))
    }

    /// Reads dpkg's answer: a status and a version.
    fn read(answer: &str) -> anyhow::Result<Self> {
        let (status, version) = answer.trim().split_once(' ').unwrap_or((answer.trim(), ""));
        if matches!(status, "not-installed" | "config-files") {
            return Ok(Self::Not);
        }
        let version = ReleaseVersion::of_debian(version).with_context(|| {
            format!("a package {PACKAGE} {version:?} is installed that is none of Muster's: remove it first")
        })?;
        Ok(if status == "installed" { Self::Whole(version) } else { Self::Half(version) })
    }

    /// The version that is there.
    pub fn version(&self) -> Option<&ReleaseVersion> {
        match self {
            Self::Not => None,
            Self::Whole(version) | Self::Half(version) => Some(version),
        }
    }
}

/// Installs the package. Files that the owner changed stay as they are; a newer version stays, too.
pub fn install(package: &Path) -> anyhow::Result<()> {
    let mut dpkg = Command::new("dpkg");
    dpkg.args(["--refuse-downgrade", "--force-confdef", "--force-confold", "--install"]).arg(package);
    let done = dpkg.env("DEBIAN_FRONTEND", "noninteractive").stdin(Stdio::null()).status();
    let done = done.context("cannot start dpkg")?;
    ensure!(
        done.success(),
        "dpkg could not install the package; where it says that something is missing, `apt-get --fix-broken install` \
         brings it and finishes, and the same line goes on from there"
    );
    Ok(())
}

/// The installed agent, to be run as the user whose folder this is.
pub fn agent_as_owner_of(data: &Path) -> anyhow::Result<Command> {
    let about = std::fs::metadata(data).with_context(|| format!("the package made no folder {}", data.display()))?;
    ensure!(
        about.uid() != 0,
        "{} belongs to root; `chown muster:muster {0}` gives it to the user that the agent runs as",
        data.display()
    );
    let mut agent = Command::new(PROGRAM);
    agent.uid(about.uid()).gid(about.gid()).current_dir("/").stdin(Stdio::null());
    Ok(agent)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_dpkg_answers_is_understood() {
        let read = |answer: &str| Installed::read(answer).map_err(|error| error.to_string());
        let version = |text: &str| text.parse::<ReleaseVersion>().expect("a version");
        assert_eq!(read("installed 0.2.0"), Ok(Installed::Whole(version("0.2.0"))));
        assert_eq!(read("installed 0.2.0~rc.1\n"), Ok(Installed::Whole(version("0.2.0-rc.1"))));
        for half in ["unpacked", "half-configured", "half-installed", "triggers-pending"] {
            assert_eq!(read(&format!("{half} 0.2.0")), Ok(Installed::Half(version("0.2.0"))));
        }
        for none in ["not-installed ", "config-files 9.9-1", "not-installed"] {
            assert_eq!(read(none), Ok(Installed::Not), "{none}");
        }
        assert!(read("installed 1:7.4-2").expect_err("refused").contains("remove it first"));
        assert!(read("").is_err());
    }
}
