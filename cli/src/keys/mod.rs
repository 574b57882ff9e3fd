//! What signs: a key in a file, with a passphrase or without, or one that never leaves its token.
//!
//! `--key` takes a path or a PKCS#11 URI, in every command that signs; nothing else of the CLI knows the
//! difference.

pub mod file;
pub mod fingerprint;
pub mod passphrase;
pub mod place;
mod token;
pub mod uri;

use std::path::{Path, PathBuf};

use muster_shared::signing::key::{PublicKey, SecretKey};
use muster_shared::signing::{Envelope, Signature};

use self::passphrase::Unlock;
use self::token::TokenKey;
use self::uri::Uri;
use crate::error::{Attempt as _, Failure, Result};
use crate::files;

/// Something that signs.
pub enum Signer {
    /// A secret key at hand.
    File(SecretKey),
    /// A secret key in a token.
    Token(TokenKey),
}

impl Signer {
    /// Opens the key that `--key` names.
    pub fn open(key: &str, unlock: &Unlock) -> Result<Self> {
        if Uri::is_one(key) {
            return TokenKey::open(&uri(key)?).map(Self::Token);
        }
        file::read(Path::new(key), unlock).map(Self::File)
    }

    /// Makes a new key in the place that `key` names, which must be free.
    pub fn make(key: &str, unlock: &Unlock) -> Result<Self> {
        if Uri::is_one(key) {
            return TokenKey::make(&uri(key)?).map(Self::Token);
        }
        file::make(Path::new(key), unlock).map(Self::File)
    }

    /// The public half.
    pub fn public(&self) -> PublicKey {
        match self {
            Self::File(key) => key.public(),
            Self::Token(key) => key.public(),
        }
    }

    /// Puts a payload in an envelope, signed.
    pub fn sign(&self, payload_type: &str, payload: Vec<u8>) -> Result<Envelope> {
        let mut envelope = Envelope { payload_type: payload_type.to_owned(), payload, signatures: vec![] };
        self.add_signature(&mut envelope)?;
        Ok(envelope)
    }

    /// Signs an envelope too, unless it has.
    pub fn add_signature(&self, envelope: &mut Envelope) -> Result<()> {
        let keyid = self.public().id();
        if envelope.signatures.iter().any(|signature| signature.keyid == keyid) {
            return Ok(());
        }
        let message = Envelope::message_to_sign(&envelope.payload_type, &envelope.payload);
        let sig = match self {
            Self::File(key) => key.sign(&message).to_vec(),
            Self::Token(key) => key.sign(&message)?,
        };
        envelope.signatures.push(Signature { keyid, sig });
        Ok(())
    }
}

fn uri(text: &str) -> Result<Uri> {
    text.parse::<Uri>()
        .attempt(|| format!("cannot use the key {text}"))
        .map_err(|failure| failure.hint("write it as pkcs11:token=NAME;object=NAME?module-path=/path/to/module.so"))
}

/// The public key that a text names: in hex, in a `.pub` file, or of a secret key.
pub fn public_key(text: &str, unlock: &Unlock) -> Result<PublicKey> {
    if let Ok(key) = text.parse() {
        return Ok(key);
    }
    if let Some(key) = file::public_beside(Path::new(text)) {
        return Ok(key);
    }
    Signer::open(text, unlock).map(|signer| signer.public())
}

/// The key files in a folder whose public halves can be told without a passphrase, by name.
pub fn in_folder(folder: &Path) -> Vec<(PathBuf, PublicKey)> {
    let entries = std::fs::read_dir(folder).into_iter().flatten().filter_map(std::result::Result::ok);
    let mut paths: Vec<PathBuf> = entries.map(|entry| entry.path()).collect();
    paths.retain(|path| path.extension().is_some_and(|extension| extension == "pem"));
    paths.sort();
    paths.into_iter().filter_map(|path| Some((path.clone(), file::public_half(&path)?))).collect()
}

/// Reads a short file as text.
fn read_text(path: &Path, bytes_max: u64) -> Result<String> {
    let attempt = || format!("cannot read {}", path.display());
    let bytes = std::fs::File::open(path).and_then(|file| files::read_bounded(file, bytes_max)).attempt(attempt)?;
    String::from_utf8(bytes).map_err(|_| Failure::new(format!("{} is no text", path.display())))
}
