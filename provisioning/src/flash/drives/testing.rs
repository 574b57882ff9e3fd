//! Machines in a folder: block devices as sysfs has them, with the kernel's tables beside.

use std::path::Path;

use tempfile::TempDir;

use super::Machine;

/// A block device to be made.
pub struct Block {
    name: String,
    way: String,
    attributes: Vec<(String, String)>,
    parts: Vec<String>,
    holders: Vec<(String, String)>,
}

impl Block {
    pub fn new(name: &str, number: &str, way: &str) -> Self {
        let attributes = [("dev", number), ("size", "0"), ("ro", "0"), ("removable", "0"), ("diskseq", "1")];
        let attributes = attributes.map(|(name, value)| (name.to_owned(), value.to_owned())).to_vec();
        Self { name: name.to_owned(), way: way.to_owned(), attributes, parts: Vec::new(), holders: Vec::new() }
    }

    pub fn attribute(mut self, name: &str, value: &str) -> Self {
        self.attributes.push((name.to_owned(), value.to_owned()));
        self
    }

    /// In sectors of 512 bytes.
    pub fn size(self, sectors: u64) -> Self {
        self.attribute("size", &sectors.to_string())
    }

    pub fn removable(self) -> Self {
        self.attribute("removable", "1")
    }

    pub fn part(mut self, name: &str) -> Self {
        self.parts.push(name.to_owned());
        self
    }

    pub fn holder(mut self, of: &str, name: &str) -> Self {
        self.holders.push((of.to_owned(), name.to_owned()));
        self
    }
}

/// A folder that looks like a machine.
pub struct Made(TempDir);

impl Made {
    pub fn new() -> Self {
        let made = Self(tempfile::tempdir().expect("a folder"));
        for folder in ["sys/block", "sys/class/block", "sys/dev/block", "proc/self", "dev/mapper"] {
            std::fs::create_dir_all(made.0.path().join(folder)).expect("a folder");
        }
        made.mounts(&["0:2 tmpfs /tmp"]);
        made.swaps(&[]);
        made
    }

    pub fn machine(&self) -> Machine {
        Machine::under(self.0.path())
    }

    pub fn path(&self) -> &Path {
        self.0.path()
    }

    pub fn add(&self, block: &Block) {
        let below = format!("devices/{}/block/{}", block.way, block.name);
        let folder = self.0.path().join("sys").join(&below);
        for (name, value) in &block.attributes {
            self.write(&folder.join(name), value);
        }
        self.link(&format!("sys/block/{}", block.name), &format!("../{below}"));
        self.link(&format!("sys/class/block/{}", block.name), &format!("../../{below}"));
        let number = block.attributes.iter().rev().find(|(name, _)| name == "dev").map(|(_, number)| number.as_str());
        self.link(&format!("sys/dev/block/{}", number.unwrap_or("0:0")), &format!("../../{below}"));
        for (at, part) in block.parts.iter().enumerate() {
            self.write(&folder.join(part).join("partition"), &(at + 1).to_string());
            self.write(&folder.join(part).join("dev"), &format!("8:{}", 100 + at));
            self.link(&format!("sys/class/block/{part}"), &format!("../../{below}/{part}"));
            self.link(&format!("sys/dev/block/8:{}", 100 + at), &format!("../../{below}/{part}"));
        }
        for (of, holder) in &block.holders {
            let of = if *of == block.name { folder.clone() } else { folder.join(of) };
            self.write(&of.join("holders").join(holder), "");
        }
        self.write(&self.0.path().join("dev").join(&block.name), "");
    }

    pub fn link(&self, at: &str, to: &str) {
        let at = self.0.path().join(at);
        let _ = std::fs::remove_file(&at);
        std::os::unix::fs::symlink(to, at).expect("a link");
    }

    /// Each as "number source place".
    pub fn mounts(&self, mounts: &[&str]) {
        let line = |mount: &&str| {
            let words: Vec<&str> = mount.split(' ').collect();
            format!("22 1 {} / {} rw - ext4 {} rw\n", words[0], words[2], words[1])
        };
        self.write(&self.0.path().join("proc/self/mountinfo"), &mounts.iter().map(line).collect::<String>());
    }

    pub fn swaps(&self, paths: &[&str]) {
        let lines: String = paths.iter().map(|path| format!("{path} partition 1 0 1\n")).collect();
        self.write(&self.0.path().join("proc/swaps"), &format!("Filename Type Size Used Priority\n{lines}"));
    }

    pub fn write(&self, path: &Path, text: &str) {
        std::fs::create_dir_all(path.parent().expect("a folder")).expect("a folder");
        std::fs::write(path, text).expect("writes");
    }
}
