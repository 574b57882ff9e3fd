//! Looks at this device: its files, its kernel. Bounded, and leaves nothing behind.

use std::fs::{self, File};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use muster_tls::ClientIdentity;

use super::disk::{Data, Written};
use super::identity::{Certificate, Enrolled, Key};
use crate::config::Config;
use crate::identity::{self, DeviceKey, Enrolment, Life};
use crate::network::target::Target;
use crate::status::{self, Status};

/// What a full disk still takes in a block that is there already says nothing: this is more.
const TRIAL_BYTES: usize = 64 * 1024;
/// Any of the files that are read whole.
const FILE_BYTES_MAX: u64 = 4 << 20;

/// Where a device's things are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Places {
    /// `agent.toml`.
    pub config: PathBuf,
    /// The data folder, where no configuration says otherwise.
    pub data: PathBuf,
}

/// What lies on disk.
pub struct OnDisk {
    /// The configuration.
    pub config: Result<Config, String>,
    /// The data folder.
    pub data: Data,
    /// What enrolment left.
    pub enrolled: Enrolled,
    /// The same with all that is in it.
    pub enrolment: Option<Enrolment>,
    /// Where devices come in by HTTPS.
    pub tunnel: Option<Target>,
    /// The key.
    pub key: Key,
    /// The certificate.
    pub certificate: Certificate,
    /// What is shown to the broker, where key and certificate are whole.
    pub shows: Option<ClientIdentity>,
    /// What the agent says of itself.
    pub status: Option<Result<Status, String>>,
}

/// Looks at all of it.
pub fn on_disk(places: &Places) -> OnDisk {
    let config = config(&places.config);
    let folder = config.as_ref().map_or_else(|_| places.data.clone(), |config| config.data.clone());
    // As people know it, without `/./` and links.
    let folder = folder.canonicalize().unwrap_or(folder);
    let read = identity::enrolment(&folder);
    let (enrolled, enrolment) = match read {
        Ok(Some(enrolment)) => (Enrolled::As(enrolment.device.clone()), Some(enrolment)),
        Ok(None) => (Enrolled::No, None),
        Err(error) => (Enrolled::Damaged(format!("{error:#}")), None),
    };
    let (key, device_key) = key(&folder);
    let certificate = certificate(&folder, device_key.as_ref());
    OnDisk {
        data: data(&folder),
        enrolled,
        tunnel: enrolment.as_ref().and_then(|enrolment| enrolment.tunnel.as_ref()?.parse().ok()),
        enrolment,
        certificate,
        shows: device_key.and_then(|key| key.client_identity(&folder).ok()),
        key,
        status: status(&folder),
        config,
    }
}

fn config(path: &Path) -> Result<Config, String> {
    Config::read(path).map_err(|error| format!("{:#}", anyhow::Error::new(error)))
}

/// Writes a file as the agent would, and takes it away.
fn data(folder: &Path) -> Data {
    let room = rustix::fs::statvfs(folder).ok();
    let free_bytes = room.as_ref().map(|room| room.f_bavail.saturating_mul(room.f_frsize));
    // File systems without a bound say 0 of 0.
    let free_files = room.filter(|room| room.f_files > 0).map(|room| room.f_favail);
    let written = if folder.is_dir() { try_to_write(folder) } else { Written::NoFolder };
    Data { path: folder.to_owned(), written, free_bytes, free_files }
}

fn try_to_write(folder: &Path) -> Written {
    let file = folder.join(format!(".doctor-{}", std::process::id()));
    let tried = File::options().write(true).create_new(true).open(&file).and_then(|mut trial| {
        trial.write_all(&[0xa5; TRIAL_BYTES])?;
        trial.sync_all()
    });
    // Whatever came of it, nothing stays.
    let _ = fs::remove_file(&file);
    match tried {
        Ok(()) => Written::Done,
        Err(error) => match error.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded | io::ErrorKind::FileTooLarge => {
                Written::Full(error.to_string())
            }
            _ => Written::Refused(error.to_string()),
        },
    }
}

/// The device's key; none is made.
fn key(data: &Path) -> (Key, Option<DeviceKey>) {
    let path = data.join("identity/key.pem");
    let unusable = |error: &dyn std::fmt::Display| Key::Unusable(format!("{} {error}", path.display()));
    let pem = match plain(&path) {
        Ok(pem) => pem,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return (Key::Absent, None),
        Err(error) => return (unusable(&format!("cannot be read: {error}")), None),
    };
    let key = std::str::from_utf8(&pem).map_err(anyhow::Error::from).and_then(DeviceKey::from_pem);
    let open_to_others = fs::metadata(&path).is_ok_and(|meta| meta.permissions().mode() & 0o077 != 0);
    match key {
        Ok(key) => (Key::Good { open_to_others }, Some(key)),
        Err(error) => (unusable(&format!("is no key of a device: {error:#}")), None),
    }
}

fn certificate(data: &Path, key: Option<&DeviceKey>) -> Certificate {
    let path = data.join("identity/certificate.pem");
    let unusable = |error: anyhow::Error| Certificate::Unusable(format!("{}: {error:#}", path.display()));
    let pem = match plain(&path) {
        Ok(pem) => pem,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Certificate::Absent,
        Err(error) => return unusable(error.into()),
    };
    let read = identity::certificate_of(&pem).and_then(|certificate| Ok((Life::of(&certificate)?, certificate)));
    match read {
        // Without a key nobody can say whose it is; that is the key's fault, not its own.
        Ok((life, certificate)) => {
            Certificate::Good { life, is_ours: key.is_none_or(|key| identity::is_for(&certificate, key)) }
        }
        Err(error) => unusable(error),
    }
}

/// What the agent says of itself.
fn status(data: &Path) -> Option<Result<Status, String>> {
    match plain(&data.join(status::FILE)) {
        Ok(bytes) => Some(serde_json::from_slice(&bytes).map_err(|error| error.to_string())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => None,
        Err(error) => Some(Err(error.to_string())),
    }
}

/// A file of a bounded length.
pub fn plain(path: &Path) -> io::Result<Vec<u8>> {
    let file = File::open(path)?;
    // A pipe or a device would not end.
    if !file.metadata()?.is_file() {
        return Err(io::Error::other("it is no plain file"));
    }
    let mut bytes = vec![];
    file.take(FILE_BYTES_MAX).read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// The user that a folder belongs to, where this process is another one that may write there all the same.
pub fn other_owner(folder: &Path) -> Option<u32> {
    let owner = fs::metadata(folder).ok()?.uid();
    (rustix::process::geteuid().is_root() && owner != 0).then_some(owner)
}
