//! Key files: PKCS#8 PEM as OpenSSL writes it, encrypted with PBES2 and scrypt where there is a
//! passphrase. Beside each lies its public half, so that it can be shown without the passphrase.

use std::path::Path;

use muster_shared::signing::key::{BadSecretKey, PublicKey, SecretKey};
use pkcs8::der::Decode as _;
use pkcs8::der::pem::{LineEnding, PemLabel as _};
use pkcs8::{EncryptedPrivateKeyInfoRef, PrivateKeyInfoRef, SecretDocument};
use zeroize::Zeroizing;

use super::passphrase::Unlock;
use super::{place, read_text};
use crate::error::{Attempt as _, Failure, Result};
use crate::files::{self, Readable};

/// A PEM file is far shorter.
const KEY_BYTES_MAX: u64 = 64 * 1024;

/// Reads a secret key; asks for its passphrase if it has one.
pub fn read(path: &Path, unlock: &Unlock) -> Result<SecretKey> {
    let attempt = || format!("cannot read the key {}", path.display());
    let bytes = std::fs::File::open(path).and_then(|file| files::read_bounded(file, KEY_BYTES_MAX)).attempt(attempt)?;
    let bytes = Zeroizing::new(bytes);
    let text = std::str::from_utf8(&bytes).map_err(|_| BadSecretKey).attempt(attempt)?;
    if !is_encrypted(text) {
        return SecretKey::from_pem(text).attempt(attempt);
    }
    let (_, document) = SecretDocument::from_pem(text).map_err(|_| BadSecretKey).attempt(attempt)?;
    let encrypted =
        EncryptedPrivateKeyInfoRef::from_der(document.as_bytes()).map_err(|_| BadSecretKey).attempt(attempt)?;
    let passphrase = unlock.known_passphrase(path)?;
    let plain = encrypted.decrypt(passphrase.as_bytes()).map_err(|_| {
        Failure::new(format!("cannot read the key {}: the passphrase is wrong", path.display()))
            .hint("it is the one that was given when the key was made")
    })?;
    let pem = plain.to_pem(PrivateKeyInfoRef::PEM_LABEL, LineEnding::LF).map_err(|_| BadSecretKey).attempt(attempt)?;
    SecretKey::from_pem(&pem).attempt(attempt)
}

/// Makes a key in a file that must not be there yet.
pub fn make(path: &Path, unlock: &Unlock) -> Result<SecretKey> {
    place::refuse_server(path)?;
    let attempt = || format!("cannot write the key {}", path.display());
    if path.exists() {
        return Err(Failure::new(format!("cannot write the key {}: it is there already", path.display()))
            .hint("choose another name: a key is never overwritten"));
    }
    let passphrase = unlock.new_passphrase(path)?;
    let mut seed = Zeroizing::new([0; 32]);
    getrandom::fill(&mut *seed).attempt(|| "cannot get random numbers for a key")?;
    let key = SecretKey::from_seed(*seed);
    let pem = Zeroizing::new(key.to_pem().attempt(attempt)?);
    let pem = match passphrase {
        Some(passphrase) => encrypt(&pem, &passphrase).attempt(attempt)?,
        None => pem,
    };
    // The public half first: a key without it could not be shown.
    let public = format!("{}\n", key.public());
    files::replace(&path.with_extension("pub"), public.as_bytes(), Readable::ByAll).attempt(attempt)?;
    files::create(path, pem.as_bytes(), Readable::ByOwner).attempt(attempt)?;
    Ok(key)
}

fn encrypt(pem: &str, passphrase: &str) -> std::result::Result<Zeroizing<String>, BadSecretKey> {
    let (_, document) = SecretDocument::from_pem(pem).map_err(|_| BadSecretKey)?;
    let plain = PrivateKeyInfoRef::from_der(document.as_bytes()).map_err(|_| BadSecretKey)?;
    let encrypted = plain.encrypt(passphrase.as_bytes()).map_err(|_| BadSecretKey)?;
    encrypted.to_pem(EncryptedPrivateKeyInfoRef::PEM_LABEL, LineEnding::LF).map_err(|_| BadSecretKey)
}

fn is_encrypted(text: &str) -> bool {
    text.contains("-----BEGIN ENCRYPTED PRIVATE KEY-----")
}

/// The public half of a key file, without its passphrase.
pub fn public_half(path: &Path) -> Option<PublicKey> {
    let text = Zeroizing::new(read_text(path, KEY_BYTES_MAX).ok()?);
    // The key itself is asked where it can be: what lies beside it proves nothing.
    if is_encrypted(&text) { public_beside(path) } else { SecretKey::from_pem(&text).ok().map(|key| key.public()) }
}

/// The public key in a `.pub` file, or in the one beside a key with a passphrase.
pub fn public_beside(path: &Path) -> Option<PublicKey> {
    let is_public = path.extension().is_some_and(|extension| extension == "pub");
    let encrypted = || read_text(path, KEY_BYTES_MAX).is_ok_and(|text| is_encrypted(&text));
    if !is_public && !encrypted() {
        return None;
    }
    read_text(&path.with_extension("pub"), KEY_BYTES_MAX).ok()?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_with_a_passphrase_opens_with_that_one_only() {
        let folder = tempfile::tempdir().expect("a folder");
        let write = |name: &str, text: &str| {
            let path = folder.path().join(name);
            std::fs::write(&path, text).expect("writes");
            Unlock::from_file(path)
        };
        let (right, wrong) = (write("right", "correct horse\n"), write("wrong", "battery staple\n"));
        let path = folder.path().join("publisher.pem");
        let made = make(&path, &right).expect("makes");
        let text = std::fs::read_to_string(&path).expect("reads");
        assert!(text.starts_with("-----BEGIN ENCRYPTED PRIVATE KEY-----"), "{text}");
        assert_eq!(read(&path, &right).expect("reads").public(), made.public());
        let refused = read(&path, &wrong).err().map(|failure| failure.to_string()).unwrap_or_default();
        assert!(refused.contains("passphrase is wrong"), "{refused}");
        assert_eq!(public_half(&path), Some(made.public()), "without the passphrase");
        assert!(make(&path, &right).is_err(), "a key is never overwritten");
    }
}
