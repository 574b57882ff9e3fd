//! What a person named, opened so that nobody else writes to it: a whole drive, or a plain file in place of one.

use std::fs::OpenOptions;
use std::io;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, OFlags, flock};

use super::drives::judge::same_medium;
use super::drives::{Drive, LookError, Machine, Objection, Wish, look, look_by_number, objections};
use super::medium::DiskFile;
use super::reread::reread;
use crate::disk::is_same_file;

/// What is to be written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Target {
    /// A drive, as it was when it was looked at.
    Drive(Box<Drive>),
    /// A plain file.
    File {
        /// The file.
        path: PathBuf,
        /// Its size, or the one that it is to get.
        bytes: u64,
        /// It is not there yet.
        is_new: bool,
    },
}

/// Why something cannot be written to.
#[derive(Debug, thiserror::Error)]
pub enum TargetError {
    /// It could not be looked at.
    #[error(transparent)]
    Look(#[from] LookError),
    /// Something speaks against it.
    #[error("{name} is not written to: {}", objection(.objections))]
    Refused {
        /// The drive.
        name: String,
        /// What speaks against it, the gravest first.
        objections: Vec<Objection>,
    },
    /// Neither a drive nor a file.
    #[error("{} is neither a drive nor a plain file", .0.display())]
    Neither(PathBuf),
    /// Nothing of that name.
    #[error("there is no drive and no file {}", .0.display())]
    Nothing(PathBuf),
    /// A file that is to be made is there.
    #[error("{} is there already, with {bytes} bytes", path.display())]
    Exists {
        /// The file.
        path: PathBuf,
        /// Its size.
        bytes: u64,
    },
    /// The file is too small.
    #[error("{} holds {bytes} bytes, and {needs} are needed", path.display())]
    SmallFile {
        /// The file.
        path: PathBuf,
        /// Its size.
        bytes: u64,
        /// What is needed.
        needs: u64,
    },
    /// The image itself.
    #[error("{} is the image itself", .0.display())]
    Image(PathBuf),
    /// Held by someone.
    #[error("{} is in use: something mounted it, or writes to it", .0.display())]
    Busy(PathBuf),
    /// Not ours to write.
    #[error("cannot open {} for writing", path.display())]
    Open {
        /// What.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// Another medium is there now.
    #[error("{0} was changed for another medium while it was being opened")]
    Changed(String),
}

impl TargetError {
    /// What a person can do.
    pub fn next_move(&self) -> Option<String> {
        match self {
            Self::Look(LookError::Part { whole, .. }) => Some(format!("name the whole drive: /dev/{whole}")),
            Self::Look(LookError::NoDrive(_)) => Some("`muster flash` lists the drives of this machine".to_owned()),
            Self::Look(LookError::Read { .. }) => None,
            Self::Refused { name, objections } => objections.first().map(|first| first.next_move(name)),
            Self::Neither(_) => Some("`muster flash` lists the drives of this machine".to_owned()),
            Self::Nothing(_) => Some("`muster flash` lists drives; --size 4G makes a file of that size".to_owned()),
            Self::Exists { .. } => Some("leave --size out to write over it, or name another".to_owned()),
            Self::SmallFile { .. } => {
                Some("make it larger with `truncate -s`, or name one that is not there, with --size".to_owned())
            }
            Self::Image(_) => Some("name the drive, or another file".to_owned()),
            Self::Busy(_) => Some("unmount what is on it, and close whatever else has it open".to_owned()),
            Self::Open { source, .. } if source.kind() == io::ErrorKind::PermissionDenied => Some(
                "drives are written by root, or by members of the group that owns the device file: try with sudo"
                    .to_owned(),
            ),
            Self::Open { .. } => None,
            Self::Changed(_) => Some("leave the medium in, and try again".to_owned()),
        }
    }
}

fn objection(objections: &[Objection]) -> String {
    objections.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ")
}

/// Finds what a person named: `sdb`, `/dev/sdb`, a link to it, or a file. `size` makes a new file.
pub fn find(machine: &Machine, named: &Path, size: Option<u64>) -> Result<Target, TargetError> {
    let meta = match std::fs::metadata(named) {
        Ok(meta) => Some(meta),
        Err(error) if error.kind() == io::ErrorKind::NotFound => None,
        Err(source) => return Err(TargetError::Open { path: named.to_owned(), source }),
    };
    let Some(meta) = meta else {
        let is_bare = named.components().count() == 1;
        return match (size, named.to_str()) {
            (Some(bytes), _) => Ok(Target::File { path: named.to_owned(), bytes, is_new: true }),
            (None, Some(name)) if is_bare => match look(machine, name) {
                Err(LookError::NoDrive(_)) => Err(TargetError::Nothing(named.to_owned())),
                other => Ok(Target::Drive(Box::new(other?))),
            },
            _ => Err(TargetError::Nothing(named.to_owned())),
        };
    };
    if meta.file_type().is_block_device() {
        return by_number(machine, meta.rdev());
    }
    if is_made_drive(machine, named) {
        let open = |source| TargetError::Open { path: named.to_owned(), source };
        let real = named.canonicalize().map_err(open)?;
        let name = real.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        return Ok(Target::Drive(Box::new(look(machine, &name)?)));
    }
    if !meta.is_file() {
        return Err(TargetError::Neither(named.to_owned()));
    }
    if size.is_some() {
        return Err(TargetError::Exists { path: named.to_owned(), bytes: meta.len() });
    }
    Ok(Target::File { path: named.to_owned(), bytes: meta.len(), is_new: false })
}

/// The drive that a device file is of. Its name says nothing: it may be a node or a link of any name, anywhere.
fn by_number(machine: &Machine, rdev: u64) -> Result<Target, TargetError> {
    let drive = look_by_number(machine, rustix::fs::major(rdev), rustix::fs::minor(rdev))?;
    Ok(Target::Drive(Box::new(drive)))
}

/// Whether this is the device file of a machine in a folder, where device files are plain files.
fn is_made_drive(machine: &Machine, named: &Path) -> bool {
    *machine != Machine::this()
        && named
            .canonicalize()
            .is_ok_and(|real| machine.device_file("").canonicalize().is_ok_and(|dev| real.parent() == Some(&dev)))
}

impl Target {
    /// How people call it.
    pub fn name(&self) -> String {
        match self {
            Self::Drive(drive) => drive.name.clone(),
            Self::File { path, .. } => path.display().to_string(),
        }
    }

    /// What it holds.
    pub fn bytes(&self) -> u64 {
        match self {
            Self::Drive(drive) => drive.bytes,
            Self::File { bytes, .. } => *bytes,
        }
    }

    /// Nothing, if it may be written.
    pub fn judge(&self, image: &Path, wish: Wish) -> Result<(), TargetError> {
        match self {
            Self::Drive(drive) => {
                let objections = objections(drive, wish);
                let refused = || TargetError::Refused { name: drive.name.clone(), objections: objections.clone() };
                if objections.is_empty() { Ok(()) } else { Err(refused()) }
            }
            Self::File { path, .. } if is_same_file(path, image) => Err(TargetError::Image(path.clone())),
            Self::File { path, bytes, .. } if *bytes < wish.bytes => {
                Err(TargetError::SmallFile { path: path.clone(), bytes: *bytes, needs: wish.bytes })
            }
            Self::File { .. } => Ok(()),
        }
    }

    /// Looks once more, right before the first byte is written, whether it is what was judged and may be written.
    pub fn look_again(&self, machine: &Machine, wish: Wish) -> Result<(), TargetError> {
        match self {
            Self::Drive(drive) => look_again(machine, drive, wish).map(drop),
            Self::File { .. } => Ok(()),
        }
    }

    /// Has the kernel forget the partitions that a drive had, once it is written and closed. Best effort.
    pub fn reread(&self, machine: &Machine) -> bool {
        match self {
            Self::Drive(drive) => reread(&machine.device_file(&drive.name)),
            Self::File { .. } => false,
        }
    }

    /// Opens it for nobody else, and looks again whether it is still what was judged.
    pub fn open(&self, machine: &Machine, wish: Wish) -> Result<DiskFile, TargetError> {
        match self {
            Self::Drive(drive) => open_drive(machine, drive, wish),
            Self::File { path, bytes, is_new } => open_file(path, *bytes, *is_new),
        }
    }
}

fn open_drive(machine: &Machine, drive: &Drive, wish: Wish) -> Result<DiskFile, TargetError> {
    let path = machine.device_file(&drive.name);
    let mut options = OpenOptions::new();
    // On a block device this asks for it alone: whatever mounts or stacks on it holds it in the same way.
    let alone = i32::try_from(OFlags::EXCL.bits()).unwrap_or(0);
    let file =
        options.read(true).write(true).custom_flags(alone).open(&path).map_err(|source| opening(&path, source))?;
    let now = look_again(machine, drive, wish)?;
    let meta = file.metadata().map_err(|source| opening(&path, source))?;
    if *machine == Machine::this() {
        // The device file could be anything; the kernel's number is what was judged.
        let (major, minor) = (rustix::fs::major(meta.rdev()), rustix::fs::minor(meta.rdev()));
        if !meta.file_type().is_block_device() || format!("{major}:{minor}") != drive.number {
            return Err(TargetError::Changed(drive.name.clone()));
        }
    }
    Ok(DiskFile::device(file, now.bytes, now.sector_bytes))
}

/// The drive as it is now, if it still is the one that was judged.
fn look_again(machine: &Machine, drive: &Drive, wish: Wish) -> Result<Drive, TargetError> {
    let now = look(machine, &drive.name)?;
    if !same_medium(drive, &now) {
        return Err(TargetError::Changed(drive.name.clone()));
    }
    let objections = objections(&now, wish);
    if !objections.is_empty() {
        return Err(TargetError::Refused { name: drive.name.clone(), objections });
    }
    Ok(now)
}

fn open_file(path: &Path, bytes: u64, is_new: bool) -> Result<DiskFile, TargetError> {
    let mut options = OpenOptions::new();
    // A claim may come to lie in it.
    let options = options.read(true).write(true).create_new(is_new).mode(0o600);
    let file = options.open(path).map_err(|source| opening(path, source))?;
    flock(&file, FlockOperation::NonBlockingLockExclusive).map_err(|_| TargetError::Busy(path.to_owned()))?;
    if is_new {
        file.set_len(bytes).map_err(|source| opening(path, source))?;
    }
    let now = file.metadata().map_err(|source| opening(path, source))?;
    if !now.is_file() || now.len() != bytes {
        return Err(TargetError::Changed(path.display().to_string()));
    }
    Ok(DiskFile::plain(file, bytes, is_new))
}

fn opening(path: &Path, source: io::Error) -> TargetError {
    match source.kind() {
        io::ErrorKind::ResourceBusy => TargetError::Busy(path.to_owned()),
        _ => TargetError::Open { path: path.to_owned(), source },
    }
}

#[cfg(test)]
mod tests {
    use super::super::drives::testing::{Block, Made};
    use super::super::medium::Medium as _;
    use super::*;

    const SECTORS: u64 = 64;

    /// A machine that runs from `sda` and has a stick and a card.
    fn made() -> Made {
        let made = Made::new();
        made.add(&Block::new("sda", "8:0", "pci/ata1").size(SECTORS).part("sda1"));
        made.add(&Block::new("sdb", "8:16", "pci/usb1").size(SECTORS).removable().part("sdb1"));
        made.mounts(&["1:1 /dev/sda1 /"]);
        made.write(&made.path().join("dev/sdb"), &"x".repeat(512 * SECTORS as usize));
        made
    }

    fn told(result: Result<impl Sized, TargetError>) -> String {
        match result {
            Ok(_) => "ok".to_owned(),
            Err(error) => error.to_string().replace(&std::env::temp_dir().display().to_string(), ""),
        }
    }

    #[test]
    fn drives_are_found_by_each_of_their_names() {
        let made = made();
        made.link("dev/by-id", "sdb");
        for named in ["sdb", "PATH/dev/sdb", "PATH/dev/by-id"] {
            let named = named.replace("PATH", &made.path().display().to_string());
            let found = find(&made.machine(), Path::new(&named), None).expect("finds");
            assert_eq!(found.name(), "sdb", "{named}");
        }
        let part = find(&made.machine(), Path::new("sdb1"), None);
        assert_eq!(
            part.as_ref().err().and_then(TargetError::next_move).as_deref(),
            Some("name the whole drive: /dev/sdb")
        );
        assert_eq!(told(part), "sdb1 is a part of the drive sdb");
        assert_eq!(told(find(&made.machine(), Path::new("sdz"), None)), "there is no drive and no file sdz");
        assert_eq!(told(find(&made.machine(), Path::new("/no/such"), None)), "there is no drive and no file /no/such");
        let folder = find(&made.machine(), made.path(), None);
        assert!(matches!(folder, Err(TargetError::Neither(_))));
    }

    #[test]
    fn a_device_file_means_the_drive_of_its_number_not_the_one_of_its_name() {
        let made = made();
        let named = |major: u32, minor: u32| by_number(&made.machine(), rustix::fs::makedev(major, minor));
        assert_eq!(named(8, 16).expect("finds").name(), "sdb");
        assert_eq!(named(8, 0).expect("finds").name(), "sda");
        assert_eq!(told(named(8, 100)), "sdb1 is a part of the drive sdb");
        assert_eq!(told(named(259, 7)), "this machine has no drive 259:7");
        // A node of this name that is the card, where the kernel may make one.
        let node = made.path().join("sda");
        let kind = rustix::fs::FileType::BlockDevice;
        let mode = rustix::fs::Mode::RUSR | rustix::fs::Mode::WUSR;
        if rustix::fs::mknodat(rustix::fs::CWD, &node, kind, mode, rustix::fs::makedev(8, 16)).is_ok() {
            assert_eq!(find(&made.machine(), &node, None).expect("finds").name(), "sdb");
        }
    }

    #[test]
    fn a_wrong_target_is_refused_before_it_is_opened() {
        let made = made();
        let image = Path::new("/no/such/image");
        let judged = |name: &str, bytes: u64| {
            let target = find(&made.machine(), Path::new(name), None).expect("finds");
            told(target.judge(image, Wish { named: true, bytes, ..Wish::default() }))
        };
        assert_eq!(
            judged("sda", 1),
            "sda is not written to: this machine runs from it (mounted at /); it cannot be taken out of this machine"
        );
        assert_eq!(judged("sdb", 512 * SECTORS), "ok");
        assert_eq!(
            judged("sdb", 512 * SECTORS + 1),
            "sdb is not written to: it holds 32768 bytes, and at least 32769 are needed"
        );
        made.mounts(&["1:1 /dev/sda1 /", "1:2 /dev/sdb1 /media/me/my\\040card"]);
        assert_eq!(judged("sdb", 1), "sdb is not written to: sdb1 is mounted at /media/me/my card");
    }

    #[test]
    fn what_changed_between_looking_and_opening_is_not_opened() {
        let made = made();
        let wish = Wish { named: true, ..Wish::default() };
        let target = find(&made.machine(), Path::new("sdb"), None).expect("finds");
        assert_eq!(told(target.open(&made.machine(), wish)), "ok");
        made.mounts(&["1:2 /dev/sdb1 /media/card"]);
        assert_eq!(told(target.open(&made.machine(), wish)), "sdb is not written to: sdb1 is mounted at /media/card");
        made.mounts(&[]);
        made.add(&Block::new("sdb", "8:16", "pci/usb1").size(SECTORS).removable().attribute("diskseq", "2"));
        let text = "sdb was changed for another medium while it was being opened";
        assert_eq!(told(target.open(&made.machine(), wish)), text);
        made.add(&Block::new("sdb", "8:16", "pci/usb1").size(SECTORS * 2).removable());
        assert_eq!(told(target.open(&made.machine(), wish)), text);
        std::fs::remove_file(made.path().join("dev/sdb")).expect("removes");
        assert!(matches!(target.open(&made.machine(), wish), Err(TargetError::Open { .. })));
    }

    #[test]
    fn a_medium_that_was_swapped_after_it_was_opened_is_not_written() {
        let made = made();
        let wish = Wish { named: true, ..Wish::default() };
        let stick = |serial: &str| {
            let stick = Block::new("sdb", "8:16", "pci/usb1").size(SECTORS).removable();
            // An old kernel.
            stick.attribute("diskseq", "").attribute("device/serial", serial)
        };
        made.add(&stick("A7"));
        let target = find(&made.machine(), Path::new("sdb"), None).expect("finds");
        let _opened = target.open(&made.machine(), wish).expect("opens");
        assert_eq!(told(target.look_again(&made.machine(), wish)), "ok");
        made.mounts(&["1:2 /dev/sdb1 /media/card"]);
        let again = told(target.look_again(&made.machine(), wish));
        assert_eq!(again, "sdb is not written to: sdb1 is mounted at /media/card");
        made.mounts(&[]);
        made.add(&stick("A8"));
        let again = told(target.look_again(&made.machine(), wish));
        assert_eq!(again, "sdb was changed for another medium while it was being opened");
    }

    #[test]
    fn a_plain_file_stands_for_a_drive() {
        let folder = tempfile::tempdir().expect("a folder");
        let (image, card) = (folder.path().join("image"), folder.path().join("card"));
        std::fs::write(&image, [1; 4096]).expect("writes");
        let machine = Machine::this();
        let wish = Wish { named: true, bytes: 4096, ..Wish::default() };
        assert!(matches!(find(&machine, &card, None), Err(TargetError::Nothing(_))));
        let target = find(&machine, &card, Some(8192)).expect("a new one");
        target.judge(&image, wish).expect("large enough");
        let opened = target.open(&machine, wish).expect("opens");
        assert!(opened.is_blank() && opened.bytes() == 8192);
        // Somebody writes to it.
        let again = find(&machine, &card, None).expect("is there");
        assert!(matches!(again.open(&machine, wish), Err(TargetError::Busy(_))));
        drop(opened);
        assert!(again.open(&machine, wish).is_ok_and(|opened| !opened.is_blank()));
        assert!(matches!(find(&machine, &card, Some(1)), Err(TargetError::Exists { bytes: 8192, .. })));
        let small = again.judge(&image, Wish { bytes: 8193, ..wish });
        assert!(matches!(small, Err(TargetError::SmallFile { bytes: 8192, needs: 8193, .. })));
        let itself = find(&machine, &image, None).expect("is there").judge(&image, wish);
        assert!(matches!(itself, Err(TargetError::Image(_))));
    }
}
