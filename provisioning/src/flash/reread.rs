//! After a drive was written, the kernel still has its old partitions. What makes it look again is an `ioctl`, which
//! this crate has no safe way to; so a program of the system is asked, where there is one.

use std::os::unix::fs::{FileTypeExt as _, PermissionsExt as _};
use std::path::Path;
use std::process::{Command, Stdio};

/// Where programs of the system lie. `PATH` is not asked: this runs as root.
const FOLDERS: [&str; 4] = ["/usr/sbin", "/sbin", "/usr/bin", "/bin"];
/// Programs that do it, and what they are told before the drive.
const PROGRAMS: [(&str, &[&str]); 2] = [("blockdev", &["--rereadpt"]), ("partprobe", &[])];

/// Has the kernel read a block device's new partition table. Says whether it did; nothing depends on that.
/// Nobody may have the drive open alone.
pub fn reread(device: &Path) -> bool {
    let is_block = std::fs::metadata(device).is_ok_and(|meta| meta.file_type().is_block_device());
    is_block && FOLDERS.iter().any(|folder| ask(Path::new(folder), device))
}

/// Asks the programs of one folder, until one did it.
fn ask(folder: &Path, device: &Path) -> bool {
    let mut commands = PROGRAMS.iter().filter_map(|(name, words)| command(folder, name, words, device));
    commands.any(|mut command| command.status().is_ok_and(|status| status.success()))
}

/// What is run, if it is there.
fn command(folder: &Path, name: &str, words: &[&str], device: &Path) -> Option<Command> {
    let path = folder.join(name);
    let meta = std::fs::metadata(&path).ok()?;
    if !meta.is_file() || meta.permissions().mode() & 0o111 == 0 {
        return None;
    }
    let mut command = Command::new(path);
    command.args(words).arg(device).env_clear();
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    Some(command)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A folder with programs that do nothing, well or badly.
    fn folder(programs: &[(&str, &str)]) -> tempfile::TempDir {
        let folder = tempfile::tempdir().expect("a folder");
        for (name, does) in programs {
            let does = ["/usr/bin", "/bin"].map(|folder| Path::new(folder).join(does));
            let does = does.iter().find(|path| path.exists()).expect("every system has it");
            std::os::unix::fs::symlink(does, folder.path().join(name)).expect("a link");
        }
        folder
    }

    #[test]
    fn the_old_partitions_are_forgotten_by_the_first_program_that_can() {
        let device = Path::new("/dev/sdb");
        let asked = |programs: &[(&str, &str)]| ask(folder(programs).path(), device);
        assert!(!asked(&[]));
        assert!(asked(&[("blockdev", "true")]));
        assert!(!asked(&[("blockdev", "false")]));
        assert!(asked(&[("blockdev", "false"), ("partprobe", "true")]));
        assert!(!asked(&[("other", "true")]));
        let folder = folder(&[("blockdev", "true")]);
        let command = command(folder.path(), "blockdev", PROGRAMS[0].1, device).expect("is there");
        assert_eq!(command.get_args().collect::<Vec<_>>(), ["--rereadpt", "/dev/sdb"]);
    }

    #[test]
    fn no_program_is_asked_for_what_is_no_block_device() {
        let file = tempfile::NamedTempFile::new().expect("a file");
        assert!(!reread(file.path()) && !reread(Path::new("/dev/null")) && !reread(Path::new("/no/such")));
        let folder = tempfile::tempdir().expect("a folder");
        std::fs::write(folder.path().join("blockdev"), "").expect("writes");
        assert!(command(folder.path(), "blockdev", &[], Path::new("/dev/sdb")).is_none(), "it cannot be run");
    }
}
