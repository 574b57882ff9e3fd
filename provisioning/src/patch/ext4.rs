//! The ext4 root of a system, read and written with e2fsprogs: `debugfs` speaks to the file system inside an
//! image, without a mount and without root. What was written is read back, and `e2fsck` has the last word.

use std::fs::{self, File};
use std::io::{self, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::disk::table::Partition;
use crate::image::Architecture;

/// What is known of a system's root.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Root {
    /// `PRETTY_NAME` of its os-release.
    pub name: String,
    /// Where its units lie; none: systemd does not run it.
    pub units: Option<&'static str>,
    /// Its processor, by systemd's program.
    pub machine: u16,
    /// Whether cloud-init is in it.
    pub cloud_init: bool,
    /// Free, in bytes.
    pub free: u64,
    /// It was not left in order: its journal has something that is not yet in its place.
    pub needs_recovery: bool,
}

/// A file to be written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Write {
    /// Where, from the root on, with a slash.
    pub path: String,
    /// What.
    pub what: What,
}

/// What is written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum What {
    /// A file, and who may what.
    File(Vec<u8>, u32),
    /// A link to a path.
    Link(String),
}

/// Why a root cannot be read or written.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs)]
pub enum Ext4Error {
    #[error("cannot start {0}; install the package e2fsprogs")]
    NoProgram(&'static str, #[source] io::Error),
    #[error("cannot read the file system's first block")]
    Read(#[source] io::Error),
    #[error("cannot put down what is to be written")]
    Scratch(#[source] io::Error),
    #[error(
        "cannot work on the image under the name {0}: e2fsprogs takes what follows a `?` for options; use a folder without one"
    )]
    Name(String),
    #[error("{path} has {bytes} bytes, and at most {most} are read of it: no system has one like it")]
    TooLarge { path: String, bytes: u64, most: u64 },
    #[error("debugfs cannot open the file system: {0}; a newer e2fsprogs may")]
    Open(String),
    #[error("{path} did not come out as it was to be written: {why}")]
    NotWritten { path: String, why: String },
    #[error("the file system is not in order after the change; the image that was read is untouched. e2fsck says: {0}")]
    Check(String),
}

const OS_RELEASE: [&str; 2] = ["/usr/lib/os-release", "/etc/os-release"];
const SYSTEMD: [&str; 2] = ["/usr/lib/systemd/systemd", "/lib/systemd/systemd"];
const UNITS: [&str; 2] = ["/usr/lib/systemd/system", "/lib/systemd/system"];
const TEXT_BYTES_MAX: u64 = 64 * 1024;
/// Far more than systemd's program has.
const PROGRAM_BYTES_MAX: u64 = 64 << 20;

/// The first block of an ext4 file system, as far as it is needed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Superblock {
    /// Free, in bytes.
    pub free: u64,
    /// Its journal has something that is not yet in its place.
    pub needs_recovery: bool,
}

/// Reads a superblock; none: it is none.
pub fn superblock(bytes: &[u8; 1024]) -> Option<Superblock> {
    let short = |at: usize| u16::from_le_bytes([bytes[at], bytes[at + 1]]);
    let word = |at: usize| u64::from(short(at)) | u64::from(short(at + 2)) << 16;
    if short(56) != 0xef53 || word(24) > 6 {
        return None;
    }
    let incompatible = word(96);
    let high = if incompatible & 0x80 != 0 { word(344) << 32 } else { 0 };
    Some(Superblock {
        free: (word(12) | high).saturating_mul(1024 << word(24)),
        needs_recovery: incompatible & 0x4 != 0,
    })
}

/// What is in a partition's root; none: no system.
pub fn root(image: &Path, partition: &Partition) -> Result<Option<Root>, Ext4Error> {
    let mut block = [0; 1024];
    let mut file = File::open(image).map_err(Ext4Error::Read)?;
    file.seek(SeekFrom::Start(partition.start + 1024)).map_err(Ext4Error::Read)?;
    file.read_exact(&mut block).map_err(Ext4Error::Read)?;
    let Some(block) = superblock(&block) else { return Ok(None) };
    let place = Place::new(image, partition)?;
    let Some(release) = first_text(&place, &OS_RELEASE)? else { return Ok(None) };
    let name = release.lines().find_map(|line| line.strip_prefix("PRETTY_NAME="));
    let name = name.map_or("a system without a name", |name| name.trim_matches('"'));
    let name = super::plain(name);
    let mut units = None;
    for folder in UNITS {
        if units.is_none() && place.exists(folder)? {
            units = Some(folder);
        }
    }
    let mut machine = 0;
    for path in SYSTEMD {
        if let Some(head) = place.dump(path, PROGRAM_BYTES_MAX)?.filter(|_| machine == 0) {
            machine = crate::image::machine(&head).unwrap_or_default();
        }
    }
    let cloud_init = place.exists("/usr/bin/cloud-init")?;
    let Superblock { free, needs_recovery } = block;
    Ok(Some(Root { name, units, machine, cloud_init, free, needs_recovery }))
}

impl Root {
    /// Whether programs for a processor run on it.
    pub fn runs(&self, architecture: Architecture) -> bool {
        self.machine == architecture.machine()
    }
}

fn first_text(place: &Place, paths: &[&str]) -> Result<Option<String>, Ext4Error> {
    for path in paths {
        if let Some(bytes) = place.dump(path, TEXT_BYTES_MAX)? {
            return Ok(Some(String::from_utf8_lossy(&bytes).into_owned()));
        }
    }
    Ok(None)
}

/// A file system inside an image.
#[derive(Debug)]
pub struct Place {
    /// As e2fsprogs takes it.
    device: String,
}

impl Place {
    /// Of a partition.
    pub fn new(image: &Path, partition: &Partition) -> Result<Self, Ext4Error> {
        // From the root on: a name that begins with a dash would be an option.
        let path = std::path::absolute(image).map_err(Ext4Error::Read)?;
        match path.to_str() {
            Some(name) if !name.contains('?') => Ok(Self { device: format!("{name}?offset={}", partition.start) }),
            _ => Err(Ext4Error::Name(path.display().to_string())),
        }
    }

    /// Whether there is something at a path.
    pub fn exists(&self, path: &str) -> Result<bool, Ext4Error> {
        let told = self.ask(&format!("stat {}", quoted(path)))?;
        Ok(told.contains("Inode:"))
    }

    /// A file's bytes; none: there is no such file. One of more than `most` is an error, and is not written out.
    pub fn dump(&self, path: &str, most: u64) -> Result<Option<Vec<u8>>, Ext4Error> {
        let told = self.ask(&format!("stat {}", quoted(path)))?;
        if !told.contains("Inode:") {
            return Ok(None);
        }
        let bytes = size(&told).unwrap_or(u64::MAX);
        if bytes > most {
            return Err(Ext4Error::TooLarge { path: path.to_owned(), bytes, most });
        }
        let scratch = tempfile::NamedTempFile::new().map_err(Ext4Error::Scratch)?;
        let told = self.ask(&format!("dump {} {}", quoted(path), quoted(&scratch.path().to_string_lossy())))?;
        if told.contains("File not found") {
            return Ok(None);
        }
        let mut dumped = vec![];
        let file = File::open(scratch.path()).map_err(Ext4Error::Scratch)?;
        file.take(most).read_to_end(&mut dumped).map_err(Ext4Error::Scratch)?;
        Ok(Some(dumped))
    }

    fn ask(&self, request: &str) -> Result<String, Ext4Error> {
        let output = program("debugfs").args(["-R", request, &self.device]).output();
        let output = output.map_err(|source| Ext4Error::NoProgram("debugfs", source))?;
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        if said.contains("while trying to open") || said.contains("Filesystem not open") {
            return Err(Ext4Error::Open(said.lines().skip(1).collect::<Vec<_>>().join(" ")));
        }
        Ok(String::from_utf8_lossy(&output.stdout).into_owned() + &said)
    }

    /// Writes all of it, reads it back, and has the file system checked.
    pub fn write(&self, writes: &[Write]) -> Result<(), Ext4Error> {
        let scratch = tempfile::tempdir().map_err(Ext4Error::Scratch)?;
        let script = self.script(writes, scratch.path())?;
        let file = scratch.path().join("commands");
        fs::write(&file, script).map_err(Ext4Error::Scratch)?;
        let output = program("debugfs").args(["-w", "-f"]).arg(&file).arg(&self.device).output();
        let output = output.map_err(|source| Ext4Error::NoProgram("debugfs", source))?;
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        for write in writes {
            self.check(write, &said)?;
        }
        let checked = program("e2fsck").args(["-f", "-n", &self.device]).output();
        let checked = checked.map_err(|source| Ext4Error::NoProgram("e2fsck", source))?;
        if !checked.status.success() {
            return Err(Ext4Error::Check(String::from_utf8_lossy(&checked.stdout).trim().to_owned()));
        }
        Ok(())
    }

    /// debugfs's commands. Folders that are missing are made; a file that is there goes first.
    fn script(&self, writes: &[Write], scratch: &Path) -> Result<String, Ext4Error> {
        let (mut script, mut made) = (String::new(), vec![]);
        for (write, number) in writes.iter().zip(0..) {
            let (folder, name) = write.path.rsplit_once('/').unwrap_or(("", &write.path));
            for (at, _) in folder.match_indices('/').chain([(folder.len(), "")]).filter(|(at, _)| *at > 0) {
                let above = &folder[..at];
                if !made.contains(&above) && !self.exists(above)? {
                    script += &format!("mkdir {0}\nsif {0} mode 040755\nsif {0} uid 0\nsif {0} gid 0\n", quoted(above));
                    made.push(above);
                }
            }
            let name = quoted(name);
            script += &format!("cd {}\n", quoted(if folder.is_empty() { "/" } else { folder }));
            if self.exists(&write.path)? {
                script += &format!("rm {name}\n");
            }
            match &write.what {
                What::Link(target) => script += &format!("symlink {name} {}\n", quoted(target)),
                What::File(bytes, mode) => {
                    let source = scratch.join(number.to_string());
                    fs::write(&source, bytes).map_err(Ext4Error::Scratch)?;
                    script += &format!("write {} {name}\n", quoted(&source.to_string_lossy()));
                    script += &format!("sif {name} mode 0100{mode:o}\nsif {name} uid 0\nsif {name} gid 0\n");
                }
            }
        }
        Ok(script)
    }

    fn check(&self, write: &Write, said: &str) -> Result<(), Ext4Error> {
        let path = &write.path;
        let wrong = |why: String| Ext4Error::NotWritten { path: path.clone(), why };
        // What debugfs says beside its own first line.
        let said = || said.lines().skip(1).collect::<Vec<_>>().join("; ");
        match &write.what {
            What::File(bytes, mode) => {
                match self.dump(path, bytes.len() as u64) {
                    Ok(Some(there)) if there == *bytes => {}
                    Ok(_) | Err(Ext4Error::TooLarge { .. }) => return Err(wrong(said())),
                    Err(error) => return Err(error),
                }
                let told = self.ask(&format!("stat {}", quoted(path)))?;
                let right = told.contains(&format!("Mode:  0{mode:o}")) && told.contains("User:     0");
                if !right {
                    return Err(wrong("it has other rights".to_owned()));
                }
            }
            What::Link(target) => {
                let told = self.ask(&format!("stat {}", quoted(path)))?;
                if !told.contains(&format!("Fast link dest: \"{target}\"")) {
                    return Err(wrong(said()));
                }
            }
        }
        Ok(())
    }
}

/// A file's size, of what debugfs says of it. The first is the inode's own; none: it is not as it was.
fn size(told: &str) -> Option<u64> {
    let (_, after) = told.split_once("Size: ")?;
    after.split_whitespace().next()?.parse().ok()
}

/// debugfs takes words in quotes, and no quotes inside of them.
fn quoted(path: &str) -> String {
    format!("\"{}\"", path.replace('"', ""))
}

/// A program of e2fsprogs, which lies where not everybody looks.
fn program(name: &str) -> Command {
    let place = ["/usr/sbin", "/sbin", "/usr/local/sbin"].iter().map(|folder| Path::new(folder).join(name));
    let found: Option<PathBuf> = place.into_iter().find(|path| path.exists());
    let mut command = Command::new(found.unwrap_or_else(|| PathBuf::from(name)));
    command.env("LC_ALL", "C").env("DEBUGFS_PAGER", "cat").stdin(Stdio::null());
    command
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::disk::table::Kind;

    /// An ext4 file system at 1 MiB of a file, with what `fill` puts into its root.
    fn made(fill: &dyn Fn(&Path)) -> Option<(tempfile::NamedTempFile, Partition)> {
        let (image, root) = (tempfile::NamedTempFile::new().expect("a file"), tempfile::tempdir().expect("a folder"));
        fill(root.path());
        image.as_file().set_len(17 << 20).expect("a length");
        let partition =
            Partition { number: 1, kind: Kind::Linux, name: String::new(), start: 1 << 20, bytes: 16 << 20 };
        let mut make = program("mke2fs");
        make.args(["-q", "-t", "ext4", "-E", "offset=1048576", "-d"]).arg(root.path()).arg(image.path()).arg("16384");
        match make.output() {
            Ok(output) => assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr)),
            Err(_) => {
                eprintln!("skipped: this machine has no e2fsprogs");
                return None;
            }
        }
        Some((image, partition))
    }

    #[test]
    fn files_are_written_replaced_and_checked() {
        let fill = |root: &Path| {
            fs::create_dir_all(root.join("etc")).expect("a folder");
            fs::create_dir_all(root.join("usr/lib/systemd/system")).expect("a folder");
            fs::write(root.join("etc/os-release"), "PRETTY_NAME=\"Debian 12\"\n").expect("a file");
            fs::write(root.join("etc/old"), "old").expect("a file");
        };
        let Some((image, partition)) = made(&fill) else { return };
        let found = root(image.path(), &partition).expect("reads").expect("a root");
        assert_eq!((found.name.as_str(), found.units), ("Debian 12", Some("/usr/lib/systemd/system")));
        assert!(found.free > 1 << 20 && !found.needs_recovery && !found.cloud_init);
        let place = Place::new(image.path(), &partition).expect("a place");
        let write = |path: &str, what| Write { path: path.to_owned(), what };
        let writes = [
            write("/usr/bin/muster-agent", What::File(vec![7; 3 << 20], 0o755)),
            write("/etc/muster/enrol", What::File(b"claim\n".to_vec(), 0o600)),
            write("/etc/old", What::File(b"new".to_vec(), 0o644)),
            write(
                "/etc/systemd/system/a.target.wants/x.service",
                What::Link("/etc/systemd/system/x.service".to_owned()),
            ),
        ];
        place.write(&writes).expect("written");
        assert_eq!(place.dump("/etc/old", 1 << 20).expect("reads"), Some(b"new".to_vec()));
        place.write(&writes).expect("the same again");
        let too_large = [write("/usr/bin/large", What::File(vec![1; 32 << 20], 0o644))];
        assert!(matches!(place.write(&too_large), Err(Ext4Error::NotWritten { .. })));
    }

    #[test]
    fn a_sparse_os_release_is_refused_before_it_is_written_out() {
        let fill = |root: &Path| {
            fs::create_dir_all(root.join("etc")).expect("a folder");
            let file = File::create(root.join("etc/os-release")).expect("a file");
            file.set_len(1 << 30).expect("a hole");
        };
        let Some((image, partition)) = made(&fill) else { return };
        let told = root(image.path(), &partition).expect_err("it is too large");
        assert!(matches!(told, Ext4Error::TooLarge { bytes: 0x4000_0000, most: TEXT_BYTES_MAX, .. }), "{told}");
    }

    #[test]
    fn a_system_s_name_does_not_speak_to_the_terminal() {
        let fill = |root: &Path| {
            fs::create_dir_all(root.join("etc")).expect("a folder");
            fs::write(root.join("etc/os-release"), "PRETTY_NAME=\"Debian\x1b[2J\u{9b}31m 12\"\n").expect("a file");
        };
        let Some((image, partition)) = made(&fill) else { return };
        let found = root(image.path(), &partition).expect("reads").expect("a root");
        assert_eq!(found.name, "Debian [2J 31m 12");
    }

    #[test]
    fn an_image_s_name_is_no_option_of_e2fsprogs() {
        let partition = Partition { number: 1, kind: Kind::Linux, name: String::new(), start: 512, bytes: 512 };
        let place = Place::new(Path::new("-w/a.img"), &partition).expect("a place");
        assert!(place.device.starts_with('/') && place.device.ends_with("/-w/a.img?offset=512"), "{}", place.device);
        let told = Place::new(Path::new("what?/a.img"), &partition).expect_err("it would be cut there");
        assert!(told.to_string().contains("use a folder without one"), "{told}");
    }

    #[test]
    fn a_file_system_without_a_system_is_no_root() {
        let Some((image, partition)) = made(&|_| {}) else { return };
        assert_eq!(root(image.path(), &partition).expect("reads"), None);
    }
}
