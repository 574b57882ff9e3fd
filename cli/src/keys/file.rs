//! Key files: PKCS#8 PEM as OpenSSL writes it, encrypted with PBES2 and scrypt where there is a
//! passphrase. Beside each lies its public half, so that it can be shown without the passphrase.

use std::path::Path;

use muster_shared::signing::key::{BadSecretKey, PublicKey, SecretKey};
use pkcs8::der::Decode as _;
use pkcs8::der::pem::{LineEnding, PemLabel as _};
use pkcs8::pkcs5::pbes2::Kdf;
use pkcs8::{EncryptedPrivateKeyInfoRef, PrivateKeyInfoRef, SecretDocument};
use zeroize::Zeroizing;

use super::passphrase::Unlock;
use super::{place, read_text};
use crate::error::{Attempt as _, Failure, Result};
use crate::files::{self, Readable};

/// A PEM file is far shorter.
const KEY_BYTES_MAX: u64 = 64 * 1024;

/// Memory that scrypt takes for each unit of its cost and its block size.
const SCRYPT_BYTES_OF_BLOCK: u64 = 128;
/// Memory that opening a key may take: OpenSSL's keys take 16 MiB.
const SCRYPT_BYTES_MAX: u64 = 1 << 30;
/// Times that it may be taken, one after the other.
const SCRYPT_LANES_MAX: u16 = 16;
/// Rounds of PBKDF2: far more than anyone recommends, and done in seconds.
const PBKDF2_ROUNDS_MAX: u32 = 10_000_000;

/// Why a key with a passphrase cannot be opened, whatever the passphrase.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[allow(missing_docs)]
pub enum BadEncryptedKey {
    #[error("it is no encrypted PKCS#8 key")]
    Malformed,
    #[error("it is encrypted in a way that is not known here; encrypt it with PBES2: `openssl pkcs8 -topk8`")]
    Unknown,
    #[error("to open it would take more than {} MiB of memory, or too long; encrypt it anew: `openssl pkcs8 -topk8`",
        SCRYPT_BYTES_MAX >> 20)]
    TooCostly,
}

/// Reads a secret key; asks for its passphrase if it has one.
pub fn read(path: &Path, unlock: &Unlock) -> Result<SecretKey> {
    let attempt = || format!("cannot read the key {}", path.display());
    let bytes = std::fs::File::open(path).and_then(|file| files::read_bounded(file, KEY_BYTES_MAX)).attempt(attempt)?;
    let bytes = Zeroizing::new(bytes);
    let text = std::str::from_utf8(&bytes).map_err(|_| BadSecretKey).attempt(attempt)?;
    if !is_encrypted(text) {
        return SecretKey::from_pem(text).attempt(attempt);
    }
    let document = encrypted_document(text).attempt(attempt)?;
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

/// What a file with a passphrase holds, if opening it takes no more than it may.
pub fn encrypted_document(text: &str) -> std::result::Result<SecretDocument, BadEncryptedKey> {
    let (_, document) = SecretDocument::from_pem(text).map_err(|_| BadEncryptedKey::Malformed)?;
    let encrypted =
        EncryptedPrivateKeyInfoRef::from_der(document.as_bytes()).map_err(|_| BadEncryptedKey::Malformed)?;
    let parameters = encrypted.encryption_algorithm.pbes2().ok_or(BadEncryptedKey::Unknown)?;
    let affordable = match &parameters.kdf {
        Kdf::Scrypt(scrypt) => {
            let (cost, block) = (scrypt.cost_parameter, u64::from(scrypt.block_size));
            // The library panics over a cost of zero.
            cost.is_power_of_two()
                && SCRYPT_BYTES_OF_BLOCK.saturating_mul(block).saturating_mul(cost) <= SCRYPT_BYTES_MAX
                && scrypt.parallelization <= SCRYPT_LANES_MAX
        }
        Kdf::Pbkdf2(pbkdf2) => pbkdf2.iteration_count <= PBKDF2_ROUNDS_MAX,
        _ => return Err(BadEncryptedKey::Unknown),
    };
    if affordable { Ok(document) } else { Err(BadEncryptedKey::TooCostly) }
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
    fn a_key_that_would_take_all_memory_or_no_cost_at_all_to_open_is_refused() {
        use pkcs8::pkcs5::pbes2;
        let plain = SecretKey::from_seed([1; 32]).to_pem().expect("PEM");
        let (_, plain) = SecretDocument::from_pem(&plain).expect("reads");
        let plain = PrivateKeyInfoRef::from_der(plain.as_bytes()).expect("reads");
        let small = pkcs8::pkcs5::scrypt::Params::new(1, 1, 1).expect("allowed");
        let parameters = pbes2::Parameters::generate_scrypt_aes256cbc(small, b"saltsalt", [7; 16]).expect("allowed");
        let good = plain.encrypt_with_params(parameters, "horse").expect("encrypts");
        let opened = |bytes: &[u8]| {
            let document = SecretDocument::try_from(bytes).expect("DER");
            let pem = document.to_pem(EncryptedPrivateKeyInfoRef::PEM_LABEL, LineEnding::LF).expect("PEM");
            encrypted_document(&pem).map(|_| ())
        };
        assert_eq!(opened(good.as_bytes()), Ok(()));
        // salt, cost, block size, lanes.
        let place = good.as_bytes().windows(9).position(|bytes| bytes == [2, 1, 2, 2, 1, 1, 2, 1, 1]).expect("there");
        let with = |at: usize, value: u8| {
            let mut bytes = good.as_bytes().to_vec();
            bytes[place + at] = value;
            opened(&bytes)
        };
        assert_eq!(with(2, 64), Ok(()));
        assert_eq!(with(2, 0), Err(BadEncryptedKey::TooCostly), "the library panics over it");
        assert_eq!(with(2, 3), Err(BadEncryptedKey::TooCostly));
        assert_eq!(with(8, 100), Err(BadEncryptedKey::TooCostly));
    }

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
