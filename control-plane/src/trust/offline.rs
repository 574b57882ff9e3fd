//! Keys that must not be here: whoever takes this machine must not get what signs bundles or roots.

use std::path::{Path, PathBuf};

use muster_shared::root::Root;
use muster_shared::signing::key::{PublicKey, SecretKey};

use crate::files;

/// A PEM file is far shorter.
const FILE_BYTES_MAX: u64 = 64 * 1024;
/// Files that are looked at; a data folder holds far fewer beside its blobs.
const FILES_MAX: usize = 4096;
/// How deep folders are looked into.
const DEPTH_MAX: usize = 4;
/// The folder of blobs, in which nothing can be a key: each file there has the digest of its content as
/// its name.
const BLOBS: &str = "blobs";

/// A secret key that the root wants off line lies on the control plane.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "{path} holds the secret {role} key {key}, which must never be on a server: whoever takes this machine could \
     sign with it. Take it off this machine, and if others may have read it, replace it: `muster keys rotate {role} \
     --compromised`"
)]
pub struct OfflineKeyHere {
    /// The file.
    pub path: String,
    /// Whose key it is.
    pub role: &'static str,
    /// Its public half.
    pub key: PublicKey,
}

/// Looks for secret keys of root, publishers and release signers in a data folder. What cannot be read
/// is passed over: a key that this process cannot read, it cannot use either.
pub fn look_for_offline_keys(folder: &Path, root: &Root) -> Result<(), OfflineKeyHere> {
    let mut left = FILES_MAX;
    let mut folders = vec![(folder.to_owned(), 0)];
    while let Some((folder, depth)) = folders.pop() {
        for entry in std::fs::read_dir(&folder).into_iter().flatten().filter_map(Result::ok) {
            if left == 0 {
                tracing::warn!("the data folder holds more files than are looked at for keys that must not be there");
                return Ok(());
            }
            left -= 1;
            let (path, Ok(kind)) = (entry.path(), entry.file_type()) else { continue };
            if kind.is_dir() && depth < DEPTH_MAX && !(depth == 0 && entry.file_name() == BLOBS) {
                folders.push((path, depth + 1));
            } else if kind.is_file()
                && let Some((role, key)) = offline_key(&path, root)
            {
                return Err(OfflineKeyHere { path: path.display().to_string(), role, key });
            }
        }
    }
    Ok(())
}

/// The key in a file, if the root names it for a role that signs off line. Of a key with a passphrase the
/// file beside it tells whose it is, as `muster keys` writes it.
fn offline_key(path: &Path, root: &Root) -> Option<(&'static str, PublicKey)> {
    let text = files::read_text(path, FILE_BYTES_MAX).ok()??;
    let key = if text.contains("BEGIN ENCRYPTED PRIVATE KEY") {
        let beside: PathBuf = path.with_extension("pub");
        files::read_text(&beside, FILE_BYTES_MAX).ok()??.trim().parse().ok()?
    } else {
        SecretKey::from_pem(&text).ok()?.public()
    };
    role_of(root, &key).map(|role| (role, key))
}

/// The role that signs off line for which a root names this key.
pub fn role_of(root: &Root, key: &PublicKey) -> Option<&'static str> {
    if root.root.keys.contains(key) {
        Some("root")
    } else if root.publishers.iter().any(|publisher| publisher.key == *key) {
        Some("publisher")
    } else {
        root.release.keys.contains(key).then_some("release")
    }
}

#[cfg(test)]
mod tests {
    use muster_shared::root::TrustedRoot;

    use super::*;
    use crate::trust::roles::tests::{key, signed_root};

    #[test]
    fn a_publishers_key_on_the_plane_is_found_also_with_a_passphrase() {
        let root = TrustedRoot::self_signed(&signed_root(1, 1, key(20).public())).expect("a root");
        let look = |folder: &Path| look_for_offline_keys(folder, root.root()).map_err(|found| found.role);
        let folder = tempfile::tempdir().expect("a folder");
        let write = |name: &str, text: &str| std::fs::write(folder.path().join(name), text).expect("writes");
        write("director.pem", &key(20).to_pem().expect("PEM"));
        write("strange.pem", &key(77).to_pem().expect("PEM"));
        std::fs::create_dir_all(folder.path().join("copies/old")).expect("a folder");
        assert_eq!(look(folder.path()), Ok(()));
        write("copies/old/kept", &key(10).to_pem().expect("PEM"));
        assert_eq!(look(folder.path()), Err("publisher"));
        write("copies/old/kept", "-----BEGIN ENCRYPTED PRIVATE KEY-----\n");
        assert_eq!(look(folder.path()), Ok(()), "nobody can tell whose it is");
        write("copies/old/kept.pub", &format!("{}\n", key(1).public()));
        assert_eq!(look(folder.path()), Err("root"));
    }
}
