//! Small files that must not be lost or read by others: keys, and what scripts wait for.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::Path;

/// Creates a folder that only its owner can enter; an existing one stays as it is.
pub fn create_private_folder(path: &Path) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(0o700).create(path)
}

/// Writes a file that only its owner can read. Afterwards it is there as a whole, on the disk, or not
/// at all.
pub fn write_private(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut temporary = path.to_owned().into_os_string();
    temporary.push(".new");
    // A left-over of a crash may be in the way, with other permissions.
    match fs::remove_file(&temporary) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&temporary)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    fs::rename(&temporary, path)?;
    sync_folder_of(path)
}

/// Makes a rename or a new name in the folder of `path` durable.
pub fn sync_folder_of(path: &Path) -> io::Result<()> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    File::open(folder)?.sync_all()
}

/// Reads a text file of at most `bytes_max`; nothing if there is none.
pub fn read_text(path: &Path, bytes_max: u64) -> io::Result<Option<String>> {
    match fs::metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
        Ok(metadata) if metadata.len() > bytes_max => {
            Err(io::Error::new(io::ErrorKind::InvalidData, format!("more than {bytes_max} bytes")))
        }
        Ok(_) => fs::read_to_string(path).map(Some),
    }
}

/// Whether an error says that nothing more fits on the disk.
pub fn is_disk_full(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn a_private_file_is_whole_and_private_also_over_a_left_over() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("key.pem");
        fs::write(folder.path().join("key.pem.new"), "half of an older o").expect("a left-over");
        for text in ["first", "second"] {
            write_private(&path, text.as_bytes()).expect("writes");
            assert_eq!(read_text(&path, 100).expect("reads").as_deref(), Some(text));
        }
        assert_eq!(fs::metadata(&path).expect("a file").permissions().mode() & 0o777, 0o600);
        assert_eq!(read_text(&folder.path().join("none"), 100).expect("reads"), None);
        assert!(read_text(&path, 3).is_err());
    }
}
