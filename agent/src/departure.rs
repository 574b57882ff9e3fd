//! Leaving a fleet: everything that came from it goes, and last the key. A note on disk says that it has begun, so
//! that a power cut in the middle ends in an empty device, too.
//!
//! In order: the note; models, journal and what is told of the connection; the word to the control plane; key,
//! certificate and enrolment; the note. The owner's `agent.toml` stays. What is removed is unlinked: flash memory
//! may hold the bytes until it needs the room.

use std::fs;
use std::io;
use std::path::Path;

use anyhow::Context as _;
use muster_shared::Digest;
use muster_shared::id::{InstanceId, Nonce};
use tracing::{info, warn};

use crate::identity::{self, DeviceKey};
use crate::network::resolve;
use crate::{journal, status, store};

/// The note that this device leaves; in it stands the fingerprint of the key that leaves.
const NOTE: &str = "leaving";
/// What a fleet brings, but for the key: never anything that is not the agent's own.
const FROM_THE_FLEET: [&str; 5] = [store::BLOBS, store::STAGING, journal::FILE, status::FILE, resolve::FILE];

/// The command to leave, and who waits for word.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Told {
    /// The command.
    pub command: Nonce,
    /// Who gave it.
    pub reply_to: InstanceId,
}

/// Notes that this device leaves.
pub fn begin(data: &Path, key: Digest) -> io::Result<()> {
    identity::write_durably(&data.join(NOTE), key.to_string().as_bytes(), 0o644)
}

/// The device stays after all: its control plane sent it something to run again.
pub fn stay(data: &Path) -> io::Result<()> {
    remove(&data.join(NOTE))?;
    sync(data)
}

/// Removes all that came from the fleet, but for what proves who this device is.
pub fn empty(data: &Path) -> io::Result<()> {
    for entry in fs::read_dir(data)? {
        let entry = entry?;
        if entry.file_name().to_str().is_some_and(is_the_fleets) {
            remove(&entry.path())?;
        }
    }
    sync(data)
}

/// By its name; also what such a file is called while it is written: `.status.json.a1b2c3`.
fn is_the_fleets(name: &str) -> bool {
    let is_part = |of: &str| {
        name.strip_prefix('.').and_then(|name| name.strip_prefix(of)).is_some_and(|rest| rest.starts_with('.'))
    };
    FROM_THE_FLEET.iter().any(|of| name == *of || is_part(of))
}

/// Removes whatever there is of the fleet, what proves who this device is, then the note.
pub fn finish(data: &Path) -> io::Result<()> {
    empty(data)?;
    let identity = identity::folder(data);
    // First what makes it one of the fleet: without that, the rest is known to be on its way out.
    remove(&identity::enrolment_file(data))?;
    match sync(&identity) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    remove(&identity)?;
    sync(data)?;
    stay(data)
}

/// Goes on where a power cut, or a control plane that did not listen, ended it: the device is emptied again, and
/// stays connected until it is told once more, or is not let in any more. Gives back whether it is on its way out.
pub fn resume(data: &Path) -> anyhow::Result<bool> {
    let note = match fs::read_to_string(data.join(NOTE)) {
        Ok(note) => note,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
        Err(error) => return Err(error).with_context(|| format!("cannot read {}", data.join(NOTE).display())),
    };
    let key = DeviceKey::open(data)?.filter(|_| identity::enrolment_file(data).exists());
    match key {
        Some(key) if key.fingerprint().to_string() == note.trim() => {
            info!("this device was told to leave its fleet: it is emptied, and waits for the control plane's word");
            empty(data)?;
            Ok(true)
        }
        Some(_) => {
            warn!("a note says that another key than this device's leaves its fleet; the note is old");
            stay(data)?;
            Ok(false)
        }
        // The key was being removed.
        None => {
            finish(data)?;
            Ok(false)
        }
    }
}

fn remove(path: &Path) -> io::Result<()> {
    let removed = match fs::symlink_metadata(path) {
        Ok(meta) if meta.is_dir() => fs::remove_dir_all(path),
        Ok(_) => fs::remove_file(path),
        Err(error) => Err(error),
    };
    match removed {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

fn sync(folder: &Path) -> io::Result<()> {
    fs::File::open(folder)?.sync_all()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use tempfile::TempDir;

    use super::*;
    use crate::identity::Enrolment;

    /// A device with models, an identity, and things that are not the agent's.
    fn device() -> (TempDir, Digest) {
        let folder = tempfile::tempdir().expect("a folder");
        let data = folder.path();
        let key = DeviceKey::open_or_make(data).expect("a key").fingerprint();
        let enrolment = Enrolment {
            device: "edge-1".parse().expect("an id"),
            url: "https://plane:8443".to_owned(),
            mqtt: "plane:8883".to_owned(),
            tunnel: None,
            ca: Digest::of("ca"),
            root: Digest::of("root"),
            roots: vec![],
            issued_ms: 0,
        };
        identity::save_enrolment(data, &enrolment).expect("keeps");
        for file in [
            "blobs/ab/model",
            "staging/x",
            "journal.redb",
            "status.json",
            ".status.json.a1b2c3",
            "addresses.json",
            "agent.toml",
            "photos/mine.jpg",
        ] {
            let path = data.join(file);
            fs::create_dir_all(path.parent().expect("a folder")).expect("a folder");
            fs::write(path, "x").expect("writes");
        }
        (folder, key)
    }

    fn names(folder: &TempDir) -> BTreeSet<String> {
        let entries = fs::read_dir(folder.path()).expect("reads").flatten();
        entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect()
    }

    fn set(names: &[&str]) -> BTreeSet<String> {
        names.iter().map(|name| (*name).to_owned()).collect()
    }

    #[test]
    fn what_came_from_the_fleet_goes_and_what_is_the_owners_stays() {
        let (folder, key) = device();
        begin(folder.path(), key).expect("begins");
        empty(folder.path()).expect("empties");
        assert_eq!(names(&folder), set(&["agent.toml", "photos", "identity", "leaving"]));
        finish(folder.path()).expect("ends");
        assert_eq!(names(&folder), set(&["agent.toml", "photos"]));
        resume(folder.path()).expect("nothing to do");
    }

    #[test]
    fn a_cut_at_any_moment_ends_in_an_empty_device() {
        // Before anything was removed: it is emptied, and the key stays until the control plane has heard of it.
        let (folder, key) = device();
        begin(folder.path(), key).expect("begins");
        assert!(resume(folder.path()).expect("goes on"));
        assert_eq!(names(&folder), set(&["agent.toml", "photos", "identity", "leaving"]));
        // In the middle of the key's end, whatever of it is gone.
        for gone in ["enrolment.json", "key.pem"] {
            let (folder, key) = device();
            begin(folder.path(), key).expect("begins");
            fs::remove_file(folder.path().join("identity").join(gone)).expect("removes");
            assert!(!resume(folder.path()).expect("goes on"), "{gone}");
            assert_eq!(names(&folder), set(&["agent.toml", "photos"]), "{gone}");
        }
    }

    #[test]
    fn a_device_that_is_kept_is_not_emptied_again() {
        let (folder, key) = device();
        begin(folder.path(), key).expect("begins");
        stay(folder.path()).expect("stays");
        let before = names(&folder);
        assert!(!resume(folder.path()).expect("nothing to do"));
        assert_eq!(names(&folder), before);
    }

    #[test]
    fn an_old_note_empties_no_device_that_was_enrolled_anew() {
        let (folder, _) = device();
        begin(folder.path(), Digest::of("another key")).expect("begins");
        let mut expected = names(&folder);
        resume(folder.path()).expect("nothing to do");
        expected.remove(NOTE);
        assert_eq!(names(&folder), expected);
    }
}
