//! Files as they will lie in a machine's memory, and the archive that a kernel unpacks them from.

use std::collections::BTreeMap;
use std::io::{self, Write};
use std::sync::Arc;

/// One thing in a tree.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Node {
    /// A folder.
    Folder,
    /// A file, and whether it is a program.
    File(Arc<[u8]>, bool),
    /// A link to a path.
    Link(String),
}

/// Files by their path, which begins with no slash. Folders above a file are there by themselves.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Tree(BTreeMap<String, Node>);

impl Tree {
    /// An empty one.
    pub fn new() -> Self {
        Self::default()
    }

    /// Puts something there.
    pub fn put(&mut self, path: &str, node: Node) {
        for (at, _) in path.match_indices('/') {
            self.0.entry(path[..at].to_owned()).or_insert(Node::Folder);
        }
        self.0.insert(path.to_owned(), node);
    }

    /// A text that people may read.
    pub fn text(&mut self, path: &str, text: &str) {
        self.put(path, Node::File(text.as_bytes().into(), false));
    }

    /// A script that is run.
    pub fn script(&mut self, path: &str, text: &str) {
        self.put(path, Node::File(text.as_bytes().into(), true));
    }

    /// What is there.
    pub fn get(&self, path: &str) -> Option<&Node> {
        self.0.get(path)
    }

    /// Everything, in order.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &Node)> {
        self.0.iter().map(|(path, node)| (path.as_str(), node))
    }

    /// The file at a path, after its links: where it lies, and its bytes. Links lead upwards, sideways or to the
    /// root, as in a system.
    pub fn file(&self, path: &str) -> Option<(String, Arc<[u8]>)> {
        /// More than any package has one behind another.
        const LINKS_MAX: usize = 8;
        let mut path = path.to_owned();
        for _ in 0..LINKS_MAX {
            match self.0.get(&path)? {
                Node::File(bytes, _) => return Some((path, bytes.clone())),
                Node::Link(to) => path = join(&path, to)?,
                Node::Folder => return None,
            }
        }
        None
    }

    /// Writes the archive, in the form that kernels take (`newc`). Everything is root's and bears the first
    /// second of 1970.
    pub fn archive(&self, to: impl Write) -> io::Result<()> {
        let mut to = to;
        for ((path, node), inode) in self.0.iter().zip(1..) {
            let (kind, mode, bytes): (u32, u32, &[u8]) = match node {
                Node::Folder => (0o040_000, 0o755, &[]),
                Node::File(bytes, true) => (0o100_000, 0o755, bytes),
                Node::File(bytes, false) => (0o100_000, 0o644, bytes),
                Node::Link(target) => (0o120_000, 0o777, target.as_bytes()),
            };
            let length = u32::try_from(bytes.len())
                .map_err(|_| io::Error::new(io::ErrorKind::FileTooLarge, format!("{path} is larger than 4 GiB")))?;
            let entry = cpio::newc::Builder::new(path).ino(inode).mode(kind | mode).nlink(1).mtime(0);
            let mut writer = entry.write(to, length);
            writer.write_all(bytes)?;
            to = writer.finish()?;
        }
        cpio::newc::trailer(to)?.flush()
    }
}

/// A link's target, seen from the folder that the link is in.
fn join(link: &str, target: &str) -> Option<String> {
    let mut parts: Vec<&str> = match target.strip_prefix('/') {
        Some(_) => vec![],
        None => link.split('/').collect(),
    };
    parts.pop();
    for part in target.split('/') {
        match part {
            "" | "." => {}
            ".." => drop(parts.pop()?),
            part => parts.push(part),
        }
    }
    Some(parts.join("/"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tree() -> Tree {
        let mut tree = Tree::new();
        tree.script("usr/bin/agent", "#!");
        tree.text("etc/hosts", "127.0.0.1 localhost\n");
        tree.put("bin", Node::Link("usr/bin".to_owned()));
        tree.put("usr/lib/libx.so.1", Node::Link("libx.so.1.2".to_owned()));
        tree.put("usr/lib/libx.so.1.2", Node::File(Arc::from(*b"elf"), false));
        tree.put("usr/lib/up", Node::Link("../bin/agent".to_owned()));
        tree.put("usr/lib/round", Node::Link("round".to_owned()));
        tree
    }

    #[test]
    fn the_archive_is_the_same_twice_and_read_by_others() {
        let write = || {
            let mut bytes = vec![];
            tree().archive(&mut bytes).expect("an archive");
            bytes
        };
        let bytes = write();
        assert!(bytes == write());
        let mut reader = cpio::newc::Reader::new(bytes.as_slice()).expect("an entry");
        let mut found = vec![];
        while !reader.entry().is_trailer() {
            found.push((reader.entry().name().to_owned(), reader.entry().mode(), reader.entry().file_size()));
            let rest = reader.finish().expect("the next");
            reader = cpio::newc::Reader::new(rest).expect("an entry");
        }
        let names: Vec<&str> = found.iter().map(|(name, ..)| name.as_str()).collect();
        assert_eq!(names[..4], ["bin", "etc", "etc/hosts", "usr"], "folders come before what is in them");
        assert!(found.contains(&("usr/bin/agent".to_owned(), 0o100_755, 2)));
        assert!(found.contains(&("bin".to_owned(), 0o120_777, 7)));
    }

    #[test]
    fn links_are_followed_and_not_for_ever() {
        let tree = tree();
        assert_eq!(tree.file("usr/lib/libx.so.1").expect("a file").0, "usr/lib/libx.so.1.2");
        assert_eq!(tree.file("usr/lib/up").expect("a file").0, "usr/bin/agent");
        assert_eq!(tree.file("usr/lib/round"), None);
        assert_eq!(tree.file("usr"), None);
        assert_eq!(join("a", "../../b"), None);
    }
}
