//! Passphrases of key files and PINs of tokens: from a file, from the environment, or asked on the
//! terminal; never from the command line, which others can read.

use std::io::IsTerminal as _;
use std::path::{Path, PathBuf};

use zeroize::Zeroizing;

use super::read_text;
use crate::error::{Attempt as _, Failure, Result, warn};

/// The longest passphrase or PIN.
const PASSPHRASE_BYTES_MAX: u64 = 4096;
/// Holds the passphrase of key files, for scripts.
const PASSPHRASE_VARIABLE: &str = "MUSTER_PASSPHRASE";
/// Holds the PIN of a token, for scripts.
const PIN_VARIABLE: &str = "MUSTER_PIN";

/// Where passphrases come from.
#[derive(Debug, Clone, Default, clap::Args)]
pub struct Unlock {
    /// A file whose first line is the passphrase of the key files; else MUSTER_PASSPHRASE, else it is asked
    #[arg(long, value_name = "FILE")]
    passphrase_file: Option<PathBuf>,
}

impl Unlock {
    /// Passphrases from a file.
    pub fn from_file(path: PathBuf) -> Self {
        Self { passphrase_file: Some(path) }
    }

    /// The passphrase of a key that has one.
    pub fn known_passphrase(&self, key: &Path) -> Result<Zeroizing<String>> {
        if let Some(given) = self.given()? {
            return Ok(given);
        }
        let question = format!("Passphrase of {}: ", key.display());
        ask(&question)?.ok_or_else(|| {
            Failure::new(format!("cannot read the key {}: it has a passphrase, and none is given", key.display()))
                .hint("run it on a terminal, set MUSTER_PASSPHRASE, or name a file with --passphrase-file")
        })
    }

    /// The passphrase for a new key: asked on a terminal; a script's keys have none unless it gives one.
    pub fn new_passphrase(&self, key: &Path) -> Result<Option<Zeroizing<String>>> {
        if let Some(given) = self.given()? {
            return Ok(Some(given));
        }
        let Some(first) = ask(&format!("Passphrase for the new key {} (empty for none): ", key.display()))? else {
            return Ok(None);
        };
        if first.is_empty() {
            warn(format_args!("{} has no passphrase: whoever reads the file can sign with it", key.display()));
            return Ok(None);
        }
        let again = ask("The same again: ")?.unwrap_or_default();
        if *again != *first {
            return Err(Failure::new("the two passphrases differ").hint("try again"));
        }
        Ok(Some(first))
    }

    fn given(&self) -> Result<Option<Zeroizing<String>>> {
        if let Some(path) = &self.passphrase_file {
            let given = first_line(path)?;
            if given.is_empty() {
                let text = format!("the passphrase in {} is empty", path.display());
                return Err(Failure::new(text).hint("its first line is the passphrase"));
            }
            return Ok(Some(given));
        }
        Ok(from_environment(PASSPHRASE_VARIABLE))
    }
}

/// The PIN of a token.
pub fn pin(source: Option<&Path>, token: &str) -> Result<Zeroizing<String>> {
    if let Some(path) = source {
        return first_line(path);
    }
    if let Some(pin) = from_environment(PIN_VARIABLE) {
        return Ok(pin);
    }
    ask(&format!("PIN of the token {token}: "))?.ok_or_else(|| {
        Failure::new(format!("the token {token} wants a PIN, and none is given"))
            .hint("run it on a terminal, set MUSTER_PIN, or add pin-source=/path/to/file behind the ? of the URI")
    })
}

fn from_environment(name: &str) -> Option<Zeroizing<String>> {
    std::env::var(name).ok().filter(|value| !value.is_empty()).map(Zeroizing::new)
}

fn first_line(path: &Path) -> Result<Zeroizing<String>> {
    let text = Zeroizing::new(read_text(path, PASSPHRASE_BYTES_MAX)?);
    Ok(Zeroizing::new(text.lines().next().unwrap_or_default().to_owned()))
}

/// Asks without showing what is typed; nothing where there is no terminal.
fn ask(question: &str) -> Result<Option<Zeroizing<String>>> {
    if !std::io::stdin().is_terminal() || !std::io::stderr().is_terminal() {
        return Ok(None);
    }
    let typed = rpassword::prompt_password(question).attempt(|| "cannot ask on the terminal")?;
    Ok(Some(Zeroizing::new(typed)))
}
