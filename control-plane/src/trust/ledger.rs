//! A count of changes in a file beside the database, which holds the same count: a database with a
//! smaller one was put back from a backup.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use crate::db::{self, DbError};
use crate::files;
use crate::plane::Plane;

/// A number is shorter.
const FILE_BYTES_MAX: u64 = 64;

/// The count in the file.
pub struct Ledger {
    path: PathBuf,
    count: Mutex<u64>,
}

impl Ledger {
    /// Reads the count; there is none at the first start.
    pub fn open(path: &Path) -> io::Result<Self> {
        let count = match files::read_text(path, FILE_BYTES_MAX)? {
            Some(text) => parse(&text)?,
            None => 0,
        };
        Ok(Self { path: path.to_owned(), count: Mutex::new(count) })
    }

    /// The count in the file.
    pub fn count(&self) -> u64 {
        *self.count.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Writes a later count; an earlier one changes nothing.
    fn write(&self, count: u64) -> io::Result<()> {
        let mut held = self.count.lock().unwrap_or_else(PoisonError::into_inner);
        if count > *held {
            files::write_private(&self.path, format!("{count}\n").as_bytes())?;
            *held = count;
        }
        Ok(())
    }
}

/// The count in a file's text.
pub fn parse(text: &str) -> io::Result<u64> {
    text.trim().parse().map_err(|_| {
        io::Error::new(io::ErrorKind::InvalidData, "it holds no number; remove it and start with --restored")
    })
}

/// Counts a change that must not be forgotten: in the database first, so that the file is never ahead of
/// a database that nobody put back.
pub async fn count_change(plane: &Plane) -> Result<(), DbError> {
    let transaction = plane.db.begin().await?;
    let count = db::members::count(&transaction).await?.saturating_add(1).max(plane.ledger.count());
    db::members::set_count(&transaction, count).await?;
    db::commit(transaction).await?;
    if let Err(error) = plane.ledger.write(count) {
        tracing::warn!(%error, path = %plane.ledger.path.display(), "cannot write the ledger; a backup put back may not be noticed");
    }
    Ok(())
}
