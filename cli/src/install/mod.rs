//! The line that installs the agent's package on a machine and lets that into the fleet. It is pasted into a
//! shell there, and holds all that the machine is to believe: each package's SHA-256, the root's digest, the claim.
//!
//! The rules that it keeps, in the order of the script:
//! - The script reaches `sh` over a pipe, from a builtin: neither it nor the claim stands in a list of processes.
//! - What it does not know (another processor, no dpkg, no way to fetch) it says, and changes nothing.
//! - What is fetched goes into a folder of root's, bounded, and is run by nobody before the digest matches. The
//!   server's certificate proves nothing to curl or wget and need not: whoever stands in its place can send
//!   nothing that is believed, and is sent nothing that is secret. The claim goes to the agent alone, which
//!   tells it to no server that does not show the pinned CA.
//! - The agent of the package goes on: `muster-agent install` verifies the release under the newest root.

use muster_shared::Digest;
use muster_shared::claim::ClaimToken;
use muster_shared::limits::RELEASE_BYTES_MAX;
use muster_shared::release::{Artifact, ArtifactKind, FILE_NAME, Release};

/// A terminal hands a program no longer line than this; some shells read no other way.
const LINE_BYTES_MAX: usize = 4095;
/// Every root so far, as long as agents read.
const ROOTS_BYTES_MAX: usize = 4 * 1024 * 1024;

/// What the line is made of.
pub struct Line<'a> {
    /// The control plane's `https://host:port`.
    pub url: &'a str,
    /// The release, which was verified here.
    pub release: &'a Release,
    /// The digest of the root.
    pub root: Digest,
    /// The claim.
    pub claim: &'a ClaimToken,
}

/// Why there is no line.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NoLine {
    /// No package in it.
    #[error("release {0} has no package")]
    NoPackage(String),
    /// Devices are let in over TLS.
    #[error("{0} cannot be reached by a device: it takes https://")]
    NotHttps(String),
    /// It would mean something else to a shell.
    #[error("{0:?} cannot stand in a shell's line")]
    OddUrl(String),
    /// Too long.
    #[error("the line has {0} bytes, and a terminal takes {LINE_BYTES_MAX}")]
    TooLong(usize),
}

/// A package, and the machines that may have it.
struct Choice<'a> {
    package: &'a Artifact,
    /// A pattern of `DEBIAN-ARCHITECTURE/PROCESSOR`, as `dpkg` and `uname` tell them.
    machines: &'static str,
}

impl Line<'_> {
    /// The line.
    pub fn spell(&self) -> Result<String, NoLine> {
        if !self.url.starts_with("https://") {
            return Err(NoLine::NotHttps(self.url.to_owned()));
        }
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || b".:/-_[]".contains(&byte);
        if !self.url.bytes().all(plain) {
            return Err(NoLine::OddUrl(self.url.to_owned()));
        }
        let script = self.script()?;
        // The shell that it is pasted into may be any of sh's kin; what runs it is sh, as root.
        let line = format!("printf %s '{script}' | $(test $(id -u) = 0 || echo sudo) sh");
        if line.len() > LINE_BYTES_MAX { Err(NoLine::TooLong(line.len())) } else { Ok(line) }
    }

    fn script(&self) -> Result<String, NoLine> {
        let Self { url, release, root, claim } = self;
        let version = &release.version;
        let choices = choices(release);
        if choices.is_empty() {
            return Err(NoLine::NoPackage(version.to_string()));
        }
        let cases: String = choices
            .iter()
            .map(|Choice { package: Artifact { name, bytes, sha256, .. }, machines }| {
                format!("{machines}) p={name} n={bytes} s={sha256};; ")
            })
            .collect();
        let there = choices.iter().filter_map(|choice| choice.package.target.debian_architecture());
        let there = there.collect::<Vec<_>>().join(", ");
        Ok([
            "set -eu; die() { echo \"muster: $*; nothing was installed\" >&2; exit 1; }; ",
            "a=$(dpkg --print-architecture 2>/dev/null) || die \"this machine has no dpkg, and the package is for those that do\"; ",
            &format!(
                "case $a/$(uname -m) in {cases}*) die \"release {version} has no package for $a/$(uname -m), only for {there}\";; esac; "
            ),
            "if command -v curl >/dev/null; then get() { curl -qgfsSk -y 60 \"$1\"; }; ",
            "elif command -v wget >/dev/null; then get() { wget -qO- --no-check-certificate \"$1\"; }; ",
            "else die \"this machine has neither curl nor wget\"; fi; ",
            "umask 077; d=$(mktemp -d /var/lib/muster-install.XXXXXX); trap \"rm -rf $d\" EXIT; trap \"exit 1\" HUP INT TERM; ",
            "f() { get \"$u/$1\" </dev/null | head -c $2 >$d/$3; test -s $d/$3 || die \"cannot fetch $u/$1\"; }; ",
            &format!("u={url}/api/v1; v=releases/{version}; "),
            "f $v/$p $((n+1)) package.deb; ",
            "echo \"$s  $d/package.deb\" | sha256sum -c >/dev/null 2>&1 || ",
            "die \"what came is not the package with the SHA-256 $s\"; ",
            &format!("f $v/{FILE_NAME} {RELEASE_BYTES_MAX} release.json; f trust/roots {ROOTS_BYTES_MAX} roots.json; "),
            "dpkg-deb --fsys-tarfile $d/package.deb | tar -xOf - ./usr/bin/muster-agent >$d/agent; chmod 700 $d/agent; ",
            "$d/agent --version >/dev/null || die \"the agent does not run on this machine\"; ",
            &format!("MUSTER_CLAIM={claim} "),
            "$d/agent install --package $d/package.deb --release $d/release.json --roots $d/roots.json ",
            &format!("--root-digest {root} --url {url} </dev/null"),
        ]
        .concat())
    }
}

/// The packages, each with the machines that may have it.
fn choices(release: &Release) -> Vec<Choice<'_>> {
    release
        .of_kind(ArtifactKind::Package)
        .filter_map(|package| {
            // A 64-bit kernel often carries a 32-bit system: what dpkg says counts; but of 32-bit ARM there are
            // older processors than the package is for, and Debian calls them by the same name.
            let machines = match package.target.debian_architecture()? {
                "amd64" => "amd64/x86_64",
                "arm64" => "arm64/aarch64",
                "armhf" => "armhf/armv7*|armhf/armv8*|armhf/aarch64",
                _ => return None,
            };
            Some(Choice { package, machines })
        })
        .collect()
}

#[cfg(test)]
mod tests;
