//! Debian packages as files, whatever system they are read on. Nothing of them is run.

use std::io::{self, Read};
use std::path::Path;

use sha2::{Digest as _, Sha256};

use crate::disk::cpio::{Node, Tree};

/// A package whose signature the package client has checked, or that its user named.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Package {
    /// Its name.
    pub name: String,
    /// Its version.
    pub version: String,
    /// SHA-256 of the file, hex.
    pub sha256: String,
    /// When it was made, in seconds since 1970.
    #[serde(skip)]
    pub made_s: u64,
    #[serde(skip)]
    bytes: Vec<u8>,
}

/// A kernel with all its modules is some 300 MB.
const UNPACKED_BYTES_MAX: u64 = 2 << 30;
/// And some 5,000 files.
const ENTRIES_MAX: usize = 100_000;
const CONTROL_BYTES_MAX: u64 = 1 << 20;

/// Why a package cannot be read.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs)]
pub enum PackageError {
    #[error("cannot read the package {name}")]
    Read {
        name: String,
        #[source]
        source: io::Error,
    },
    #[error("{name} is no Debian package: {what}")]
    Form { name: String, what: &'static str },
}

impl Package {
    /// Reads a package's file.
    pub fn read(path: &Path) -> Result<Self, PackageError> {
        let name = path.file_name().map_or_else(String::new, |name| name.to_string_lossy().into_owned());
        let bytes = std::fs::read(path).map_err(|source| PackageError::Read { name: name.clone(), source })?;
        Self::from_bytes(&name, bytes)
    }

    /// The same from bytes; `file` names it in errors.
    pub fn from_bytes(file: &str, bytes: Vec<u8>) -> Result<Self, PackageError> {
        let read = |source| PackageError::Read { name: file.to_owned(), source };
        let form = |what| PackageError::Form { name: file.to_owned(), what };
        let control = control(&bytes).map_err(read)?;
        let field = |name: &str| {
            control
                .lines()
                .find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))
                .map(|value| value.trim().to_owned())
        };
        let name = field("Package").ok_or_else(|| form("it does not say its name"))?;
        let version = field("Version").ok_or_else(|| form("it does not say its version"))?;
        let made_s = ar::Archive::new(bytes.as_slice())
            .next_entry()
            .and_then(|entry| Some(entry.ok()?.header().mtime()))
            .unwrap_or_default();
        Ok(Self { name, version, sha256: hex::encode(Sha256::digest(&bytes)), made_s, bytes })
    }

    /// Puts the files that are wanted into a tree, under the paths of a system whose `/bin`, `/sbin` and `/lib`
    /// lie in `/usr`.
    pub fn unpack(&self, tree: &mut Tree, wanted: &dyn Fn(&str) -> bool) -> Result<(), PackageError> {
        self.unpack_into(tree, wanted).map_err(|source| PackageError::Read { name: self.name.clone(), source })
    }

    fn unpack_into(&self, tree: &mut Tree, wanted: &dyn Fn(&str) -> bool) -> io::Result<()> {
        let mut archive = tar::Archive::new(part(&self.bytes, "data.tar")?.take(UNPACKED_BYTES_MAX));
        for (entry, number) in archive.entries()?.zip(0..) {
            if number > ENTRIES_MAX {
                return Err(io::Error::other("it has more files than any package"));
            }
            let mut entry = entry?;
            let Some(path) = place(&entry.path()?.to_string_lossy()) else { continue };
            if !wanted(&path) {
                continue;
            }
            let kind = entry.header().entry_type();
            if kind.is_file() {
                let program = entry.header().mode()? & 0o100 != 0;
                let mut bytes = vec![];
                entry.read_to_end(&mut bytes)?;
                tree.put(&path, Node::File(bytes.into(), program));
            } else if let (true, Some(target)) = (kind.is_symlink(), entry.link_name()?) {
                let target = target.to_string_lossy();
                // One that begins at the root leads to where that lies here.
                let moved = if target.starts_with('/') { place(&target).map(|path| format!("/{path}")) } else { None };
                tree.put(&path, Node::Link(moved.unwrap_or_else(|| target.into_owned())));
            } else if let (true, Some(target)) = (kind.is_hard_link(), entry.link_name()?) {
                // The file that it is another name of comes before it.
                let first = place(&target.to_string_lossy()).and_then(|first| tree.get(&first).cloned());
                if let Some(node) = first {
                    tree.put(&path, node);
                }
            }
        }
        Ok(())
    }
}

/// A path as it is kept here; none: it is the root, or leads out of it.
fn place(path: &str) -> Option<String> {
    let path = path.trim_start_matches("./").trim_matches('/');
    if path.is_empty() || path == "." || path.split('/').any(|part| part == "..") {
        return None;
    }
    let moved = ["bin/", "sbin/", "lib/", "lib64/"].iter().any(|old| path.starts_with(old));
    Some(if moved { format!("usr/{path}") } else { path.to_owned() })
}

/// What a package says of itself.
fn control(bytes: &[u8]) -> io::Result<String> {
    let mut archive = tar::Archive::new(part(bytes, "control.tar")?);
    let mut text = String::new();
    for entry in archive.entries()? {
        let mut entry = entry?;
        if entry.path()?.ends_with("control") {
            entry.by_ref().take(CONTROL_BYTES_MAX).read_to_string(&mut text)?;
            break;
        }
    }
    Ok(text)
}

/// One of the archives inside, unpacked.
fn part<'a>(bytes: &'a [u8], wanted: &str) -> io::Result<Box<dyn Read + 'a>> {
    let mut package = ar::Archive::new(bytes);
    let mut at = 0usize;
    while let Some(entry) = package.next_entry() {
        let entry = entry?;
        let name = String::from_utf8_lossy(entry.header().identifier()).into_owned();
        let length = entry.header().size();
        drop(entry);
        // A header of 60 bytes, and what it heads, padded to an even length; before all of them, 8 bytes.
        let start = at + 8 + 60;
        let inner = usize::try_from(length).ok().and_then(|length| bytes.get(start..start.checked_add(length)?));
        at += 60 + usize::try_from(length + length % 2).map_err(io::Error::other)?;
        if let Some(packed) = name.strip_prefix(wanted) {
            let inner = inner.ok_or_else(|| io::Error::from(io::ErrorKind::UnexpectedEof))?;
            return match packed {
                "" => Ok(Box::new(inner)),
                ".gz" => Ok(Box::new(flate2::read::MultiGzDecoder::new(inner))),
                ".xz" => Ok(Box::new(liblzma::read::XzDecoder::new(inner))),
                ".zst" => Ok(Box::new(zstd::stream::read::Decoder::new(inner)?)),
                other => Err(io::Error::other(format!("{wanted}{other} is packed in a way that is not known here"))),
            };
        }
    }
    Err(io::Error::other(format!("it has no {wanted}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tarred(files: &[(&str, &str)]) -> Vec<u8> {
        let mut archive = tar::Builder::new(vec![]);
        for (path, text) in files {
            let mut header = tar::Header::new_gnu();
            header.set_mode(0o755);
            if let Some(target) = text.strip_prefix("-> ") {
                header.set_entry_type(tar::EntryType::Symlink);
                header.set_size(0);
                archive.append_link(&mut header, path, target).expect("a link");
            } else {
                header.set_size(text.len() as u64);
                archive.append_data(&mut header, path, text.as_bytes()).expect("a file");
            }
        }
        archive.into_inner().expect("an archive")
    }

    fn package(control: &str, files: &[(&str, &str)]) -> Vec<u8> {
        let mut package = ar::Builder::new(vec![]);
        let packed = zstd::encode_all(tarred(files).as_slice(), 1).expect("packed");
        let control = tarred(&[("./control", control)]);
        for (name, bytes) in [("debian-binary", b"2.0\n".to_vec()), ("control.tar", control), ("data.tar.zst", packed)]
        {
            package.append(&ar::Header::new(name.into(), bytes.len() as u64), bytes.as_slice()).expect("a part");
        }
        package.into_inner().expect("a package")
    }

    #[test]
    fn files_lie_where_a_system_of_today_has_them() {
        let files = [
            ("./bin/busybox", "busy"),
            ("./usr/lib/a.so.1", "-> a.so.1.2"),
            ("./lib/a.so.1.2", "elf"),
            ("./usr/share/doc/x", "unwanted"),
        ];
        let bytes = package("Package: busybox-static\nVersion: 1:1.35\n", &files);
        let package = Package::from_bytes("x.deb", bytes).expect("a package");
        assert_eq!((package.name.as_str(), package.version.as_str()), ("busybox-static", "1:1.35"));
        let mut tree = Tree::new();
        package.unpack(&mut tree, &|path| !path.starts_with("usr/share")).expect("unpacked");
        assert_eq!(tree.file("usr/bin/busybox").map(|(_, bytes)| bytes.to_vec()), Some(b"busy".to_vec()));
        assert_eq!(tree.file("usr/lib/a.so.1").map(|(path, _)| path).as_deref(), Some("usr/lib/a.so.1.2"));
        assert_eq!(tree.get("usr/share/doc/x"), None);
    }

    #[test]
    fn what_is_no_package_is_said() {
        let check = |bytes: &[u8], says: &str| {
            let error = Package::from_bytes("x.deb", bytes.to_vec()).expect_err("no package");
            let text =
                format!("{error}: {}", std::error::Error::source(&error).map_or(String::new(), |e| e.to_string()));
            assert!(text.contains(says), "{text}");
        };
        check(b"", "x.deb");
        check(b"!<arch>\n", "no control.tar");
        check(&package("Version: 1\n", &[]), "its name");
        let whole = package("Package: x\nVersion: 1\n", &[("./bin/x", "x")]);
        for cut in (0..whole.len()).step_by(97) {
            let cut = Package::from_bytes("x.deb", whole[..cut].to_vec());
            let _ = cut.and_then(|package| package.unpack(&mut Tree::new(), &|_| true));
        }
        assert_eq!(place("../../etc/passwd"), None);
    }
}
