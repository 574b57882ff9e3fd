//! The Debian package of the agent, made without Debian's tools: the same agent always gives the same bytes,
//! on whatever system it is packed.
//!
//! What stands in it lies in `provisioning/debian/`, as it will on the machine.

use std::io::{self, Write as _};

use muster_shared::id::{ArtifactName, Target};
use muster_shared::release::ReleaseVersion;

/// The package's name.
pub const NAME: &str = "muster-agent";
/// Who answers for it.
const MAINTAINER: &str = "Muster authors <muster@localhost>";
/// xz's strongest setting that an old board can unpack: 8 MiB of memory.
const XZ_PRESET: u32 = 6;

/// What the package holds: where, with which rights, and what.
const FILES: &[(&str, u32, &[u8])] = &[
    ("etc/init.d/muster-agent", 0o755, include_bytes!("../debian/muster-agent.init")),
    (CONFIG, 0o644, include_bytes!("../debian/agent.toml")),
    ("usr/lib/systemd/system/muster-agent.service", 0o644, include_bytes!("../debian/muster-agent.service")),
    ("usr/share/doc/muster-agent/copyright", 0o644, include_bytes!("../debian/copyright")),
];
const CONFIG: &str = "etc/muster/agent.toml";
const PROGRAM: &str = "usr/bin/muster-agent";
/// What dpkg runs.
const SCRIPTS: &[(&str, &[u8])] = &[
    ("postinst", include_bytes!("../debian/postinst")),
    ("prerm", include_bytes!("../debian/prerm")),
    ("postrm", include_bytes!("../debian/postrm")),
];
/// What its owner may change, and an upgrade leaves as it is.
const CONFFILES: &str = "/etc/init.d/muster-agent\n/etc/muster/agent.toml\n";

/// What is packed.
#[derive(Debug)]
pub struct Package<'a> {
    /// The agent's version.
    pub version: &'a ReleaseVersion,
    /// The machines that it is for.
    pub target: &'a Target,
    /// The agent.
    pub agent: &'a [u8],
    /// The version of glibc that it needs.
    pub glibc: (u32, u32),
    /// The time that all its files bear, in seconds since 1970.
    pub made_s: u64,
}

/// Why there is no package.
#[derive(Debug, thiserror::Error)]
pub enum CannotPack {
    /// Debian has no such machines, or not with this C library.
    #[error("Debian has no machines of the kind {0}")]
    NoArchitecture(Target),
    /// Bytes could not be put together.
    #[error("cannot put the package together")]
    Write(#[from] io::Error),
}

impl Package<'_> {
    /// What the package's file is called, as Debian does.
    pub fn file_name(&self) -> Result<ArtifactName, CannotPack> {
        let name = format!("{NAME}_{}_{}.deb", self.version.debian().replace('~', "-"), self.architecture()?);
        name.parse().map_err(|error| CannotPack::Write(io::Error::other(error)))
    }

    fn architecture(&self) -> Result<&'static str, CannotPack> {
        let none = || CannotPack::NoArchitecture(self.target.clone());
        self.target.debian_architecture().filter(|_| !self.target.is_static()).ok_or_else(none)
    }

    /// The package's bytes.
    pub fn build(&self) -> Result<Vec<u8>, CannotPack> {
        let mut files: Vec<(&str, u32, &[u8])> = FILES.to_vec();
        files.push((PROGRAM, 0o755, self.agent));
        files.sort_unstable();
        let control = self.control(&files)?;
        let mut about: Vec<(&str, u32, &[u8])> =
            vec![("control", 0o644, control.as_bytes()), ("conffiles", 0o644, CONFFILES.as_bytes())];
        about.extend(SCRIPTS.iter().map(|(name, script)| (*name, 0o755, *script)));
        let mut package = ar::Builder::new(Vec::new());
        for (name, bytes) in [
            ("debian-binary", b"2.0\n".to_vec()),
            ("control.tar.xz", self.archive(&about)?),
            ("data.tar.xz", self.archive(&files)?),
        ] {
            let mut header = ar::Header::new(name.as_bytes().to_vec(), bytes.len() as u64);
            header.set_mode(0o100_644);
            header.set_mtime(self.made_s);
            package.append(&header, bytes.as_slice())?;
        }
        Ok(package.into_inner()?)
    }

    /// What dpkg is to know.
    fn control(&self, files: &[(&str, u32, &[u8])]) -> Result<String, CannotPack> {
        let (major, minor) = self.glibc;
        let kib: usize = files.iter().map(|(_, _, bytes)| bytes.len().div_ceil(1024)).sum();
        Ok(format!(
            "Package: {NAME}\n\
             Version: {}\n\
             Architecture: {}\n\
             Maintainer: {MAINTAINER}\n\
             Installed-Size: {kib}\n\
             Depends: libc6 (>= {major}.{minor}), passwd\n\
             Section: net\n\
             Priority: optional\n\
             Description: agent of a Muster fleet\n \
             It runs signed models on this machine for a control plane: checks them here, serves them on\n \
             loopback, and reports. It does nothing before `muster-agent enrol` has let it into a fleet.\n",
            self.version.debian(),
            self.architecture()?
        ))
    }

    /// Files, and the folders above them, as a compressed archive.
    fn archive(&self, files: &[(&str, u32, &[u8])]) -> io::Result<Vec<u8>> {
        let mut archive = tar::Builder::new(liblzma::write::XzEncoder::new(Vec::new(), XZ_PRESET));
        let mut folders: Vec<&str> = Vec::new();
        archive.append(&self.header(tar::EntryType::Directory, "./", 0o755, 0)?, io::empty())?;
        for (path, mode, bytes) in files {
            for (at, _) in path.match_indices('/') {
                let above = &path[..at];
                if !folders.contains(&above) {
                    let header = self.header(tar::EntryType::Directory, &format!("./{above}/"), 0o755, 0)?;
                    archive.append(&header, io::empty())?;
                    folders.push(above);
                }
            }
            let header = self.header(tar::EntryType::Regular, &format!("./{path}"), *mode, bytes.len())?;
            archive.append(&header, *bytes)?;
        }
        let mut compressed = archive.into_inner()?;
        compressed.flush()?;
        compressed.finish()
    }

    /// What stands before a file. Names begin with `./`, as dpkg's own do, which the tar library would leave out.
    fn header(&self, kind: tar::EntryType, path: &str, mode: u32, bytes: usize) -> io::Result<tar::Header> {
        let mut header = tar::Header::new_gnu();
        let name = header.as_gnu_mut().and_then(|header| header.name.get_mut(..path.len()));
        name.ok_or_else(|| io::Error::other(format!("the path {path} is too long")))?.copy_from_slice(path.as_bytes());
        header.set_entry_type(kind);
        header.set_mode(mode);
        header.set_mtime(self.made_s);
        header.set_size(bytes as u64);
        header.set_uid(0);
        header.set_gid(0);
        header.set_username("root")?;
        header.set_groupname("root")?;
        header.set_cksum();
        Ok(header)
    }
}

#[cfg(test)]
mod tests;
