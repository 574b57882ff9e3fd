//! Files that are written whole or not at all.

use std::fs::Permissions;
use std::io::{self, Read, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, PermissionsExt as _};
use std::path::Path;

use tempfile::NamedTempFile;

/// Who may read a new file; the umask still applies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Readable {
    /// Its owner: keys and tokens.
    ByOwner,
    /// Everyone: bundles, roots.
    ByAll,
}

/// Replaces `path` in one step.
pub fn replace(path: &Path, bytes: &[u8], readable: Readable) -> io::Result<()> {
    let mut staged = stage(path, readable)?;
    staged.write_all(bytes)?;
    keep(staged, path)
}

/// Makes `path`, which must not be there yet: an existing key is never overwritten.
pub fn create(path: &Path, bytes: &[u8], readable: Readable) -> io::Result<()> {
    let mut staged = stage(path, readable)?;
    staged.write_all(bytes)?;
    staged.as_file().sync_all()?;
    staged.persist_noclobber(path).map_err(|error| error.error)?;
    sync_folder(path)
}

/// A file beside `path` to write to, until [`keep`] puts it in its place.
pub fn stage(path: &Path, readable: Readable) -> io::Result<NamedTempFile> {
    let mode = match readable {
        Readable::ByOwner => 0o600,
        Readable::ByAll => 0o644,
    };
    let mut builder = tempfile::Builder::new();
    builder.prefix(".muster-").permissions(Permissions::from_mode(mode)).tempfile_in(folder_of(path))
}

/// Puts a staged file in its place, durably.
pub fn keep(staged: NamedTempFile, path: &Path) -> io::Result<()> {
    staged.as_file().sync_all()?;
    staged.persist(path).map_err(|error| error.error)?;
    sync_folder(path)
}

/// A folder that only its owner can enter.
pub fn private_folder(path: &Path) -> io::Result<()> {
    std::fs::DirBuilder::new().recursive(true).mode(0o700).create(path)
}

/// Reads at most `bytes_max`; a longer file is an error, read no further.
pub fn read_bounded(reader: impl Read, bytes_max: u64) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    reader.take(bytes_max.saturating_add(1)).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > bytes_max {
        let text = format!("longer than the limit of {bytes_max} bytes");
        return Err(io::Error::new(io::ErrorKind::FileTooLarge, text));
    }
    Ok(bytes)
}

fn folder_of(path: &Path) -> &Path {
    path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

fn sync_folder(path: &Path) -> io::Result<()> {
    std::fs::File::open(folder_of(path))?.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_private_and_never_overwritten() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("root.pem");
        create(&path, b"one", Readable::ByOwner).expect("creates");
        let mode = std::fs::metadata(&path).expect("metadata").permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        assert!(create(&path, b"two", Readable::ByOwner).is_err());
        assert_eq!(std::fs::read(&path).expect("reads"), b"one");
        replace(&path, b"three", Readable::ByOwner).expect("replaces");
        assert_eq!(std::fs::read(&path).expect("reads"), b"three");
        let left = std::fs::read_dir(folder.path()).expect("lists").count();
        assert_eq!(left, 1, "no staged file is left behind");
    }

    #[test]
    fn a_file_over_its_limit_is_refused() {
        assert_eq!(read_bounded(&b"abc"[..], 3).expect("fits"), b"abc");
        assert!(read_bounded(&b"abcd"[..], 3).is_err());
        assert!(read_bounded(std::io::repeat(0), 10).is_err());
    }
}
