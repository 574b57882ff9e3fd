//! The list of revoked keys, in a file beside the database: a database that is put back from a backup
//! does not bring a revoked key back.
//!
//! One JSON object a line, only ever added to. A line is on the disk before its key counts as revoked.

use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError, RwLock};

use muster_shared::Digest;

use crate::db::members::Revoked;
use crate::files;

/// A file of a million keys is shorter.
const FILE_BYTES_MAX: u64 = 512 * 1024 * 1024;

/// The list of revoked keys.
pub struct Revocations {
    path: PathBuf,
    keys: RwLock<BTreeMap<Digest, Revoked>>,
    writing: Mutex<()>,
}

impl Revocations {
    /// Reads the list; there is none at the first start. A last line that a power cut left unfinished
    /// never counted; any other line that cannot be read is an error: a key may stand in it.
    pub fn open(path: &Path) -> io::Result<Self> {
        // Nobody could be revoked where the folder is missing: better known at the start.
        if let Some(folder) = path.parent().filter(|folder| !folder.as_os_str().is_empty()) {
            files::create_private_folder(folder)?;
        }
        let mut text = String::new();
        match File::open(path) {
            Ok(file) => {
                file.take(FILE_BYTES_MAX + 1).read_to_string(&mut text)?;
                if text.len() as u64 > FILE_BYTES_MAX {
                    return Err(io::Error::new(
                        io::ErrorKind::InvalidData,
                        format!("more than {FILE_BYTES_MAX} bytes"),
                    ));
                }
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
        let keys = parse(&text)?;
        Ok(Self { path: path.to_owned(), keys: RwLock::new(keys), writing: Mutex::default() })
    }

    /// Whether a key is revoked.
    pub fn has(&self, fingerprint: &Digest) -> bool {
        self.keys.read().unwrap_or_else(PoisonError::into_inner).contains_key(fingerprint)
    }

    /// Every revoked key.
    pub fn all(&self) -> Vec<Revoked> {
        self.keys.read().unwrap_or_else(PoisonError::into_inner).values().cloned().collect()
    }

    /// How long the file is up to the end of its last whole line.
    fn whole_bytes(&self) -> io::Result<u64> {
        let bytes = std::fs::read(&self.path)?;
        Ok(bytes.iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1) as u64)
    }

    /// Adds keys; when this returns they are on the disk.
    pub fn add(&self, revoked: &[Revoked]) -> io::Result<()> {
        let _writing = self.writing.lock().unwrap_or_else(PoisonError::into_inner);
        let news: Vec<&Revoked> = revoked.iter().filter(|revoked| !self.has(&revoked.fingerprint)).collect();
        if news.is_empty() {
            return Ok(());
        }
        let mut text = String::new();
        for revoked in &news {
            text.push_str(&serde_json::to_string(revoked)?);
            text.push('\n');
        }
        let mut file = OpenOptions::new().append(true).create(true).mode(0o600).open(&self.path)?;
        // What a power cut or a full disk left unfinished never counted, and must not spoil the next line.
        file.set_len(self.whole_bytes()?)?;
        file.write_all(text.as_bytes())?;
        file.sync_all()?;
        files::sync_folder_of(&self.path)?;
        let mut keys = self.keys.write().unwrap_or_else(PoisonError::into_inner);
        keys.extend(news.into_iter().map(|revoked| (revoked.fingerprint, revoked.clone())));
        Ok(())
    }
}

/// The keys that a file's text lists.
pub fn parse(text: &str) -> io::Result<BTreeMap<Digest, Revoked>> {
    let mut keys = BTreeMap::new();
    let mut lines = text.lines().enumerate().peekable();
    while let Some((number, line)) = lines.next() {
        let last = lines.peek().is_none() && !text.ends_with('\n');
        match serde_json::from_str::<Revoked>(line) {
            _ if last => {}
            Ok(revoked) => drop(keys.insert(revoked.fingerprint, revoked)),
            Err(_) if line.trim().is_empty() => {}
            Err(error) => {
                let text =
                    format!("line {} cannot be read ({error}); repair it, or remove it if it is damaged", number + 1);
                return Err(io::Error::new(io::ErrorKind::InvalidData, text));
            }
        }
    }
    Ok(keys)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn revoked(number: u8) -> Revoked {
        Revoked {
            fingerprint: Digest([number; 32]),
            device: "edge-1".parse().expect("an id"),
            at_ms: 1,
            reason: "lost\nat \"sea\"".to_owned(),
        }
    }

    #[test]
    fn keys_are_on_the_disk_and_a_torn_last_line_costs_nothing() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("revocations");
        let list = Revocations::open(&path).expect("none yet");
        list.add(&[revoked(1)]).expect("written");
        // A power cut in the middle of the next line.
        let mut file = OpenOptions::new().append(true).open(&path).expect("there");
        file.write_all(b"{\"fingerprint\":\"0202").expect("written");
        let list = Revocations::open(&path).expect("reads");
        assert!(list.has(&Digest([1; 32])) && !list.has(&Digest([2; 32])));
        list.add(&[revoked(3)]).expect("written");
        let list = Revocations::open(&path).expect("reads");
        assert!(list.has(&Digest([1; 32])) && list.has(&Digest([3; 32])));
    }

    #[test]
    fn a_damaged_line_is_not_passed_over() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("revocations");
        let list = Revocations::open(&path).expect("none yet");
        list.add(&[revoked(1), revoked(2)]).expect("written");
        let text = std::fs::read_to_string(&path).expect("there").replacen("fingerprint", "fingerprnt", 1);
        std::fs::write(&path, text).expect("written");
        assert!(Revocations::open(&path).err().expect("an error").to_string().contains("line 1"));
    }
}
