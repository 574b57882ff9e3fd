//! A folder with what a batch of devices needs: a claim for each card, and labels to stick on.
//!
//! ```text
//! cards/0001-edge-1.enrol     a claim that no card has yet; secret, in the order of the table
//! taken/                      one that a card is being written with
//! flashed/                    one that a card has
//! labels.pdf, labels/edge-1.svg
//! devices.csv                 names, claims' ids and addresses; no secrets
//! ```
//!
//! A claim moves by renaming, so two flashers never take the same one. Each move is on the disk before anything
//! follows from it. One that stays in `taken` was on its way when its flasher was killed, or its card failed late:
//! the card may or may not have it.

use std::fs;
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use crate::enrolment::{BadEnrolment, Enrolment};
use crate::flash::Left;
use crate::flash::card::{CardError, Flashed};

/// Claims that wait for a card.
pub const CARDS: &str = "cards";
/// Claims on their way.
pub const TAKEN: &str = "taken";
/// Claims that are on a card.
pub const FLASHED: &str = "flashed";
/// How the files of claims end.
const ENDING: &str = ".enrol";

/// A folder of claims.
#[derive(Debug, Clone)]
pub struct Kit {
    path: PathBuf,
    disk: Disk,
}

/// Where folders are made, and files move; what it says is on the disk is there after a power cut.
#[derive(Debug, Clone, Default)]
struct Disk {
    /// What was done to it, in order.
    #[cfg(test)]
    log: std::sync::Arc<std::sync::Mutex<Vec<String>>>,
}

impl Disk {
    /// A file or a folder is on the disk as it is now.
    fn settle(&self, path: &Path) -> Result<(), KitError> {
        let settled = fs::File::open(path).and_then(|file| file.sync_all());
        #[cfg(test)]
        self.did("settle", path);
        settled.map_err(|source| KitError::Io { doing: SYNC, path: path.to_owned(), source })
    }

    fn rename(&self, from: &Path, to: &Path) -> Result<(), KitError> {
        #[cfg(test)]
        self.did("move", to);
        fs::rename(from, to).map_err(|source| KitError::Io { doing: MOVE, path: from.to_owned(), source })
    }

    #[cfg(test)]
    fn did(&self, what: &str, path: &Path) {
        let parts = path.components().rev().take(2).collect::<Vec<_>>();
        let short = parts.into_iter().rev().collect::<PathBuf>();
        self.log.lock().expect("no panic").push(format!("{what} {}", short.display()));
    }
}

/// What fails where another flasher was faster.
const MOVE: &str = "move";
/// What fails where a disk does.
const SYNC: &str = "sync";

/// Why a folder cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum KitError {
    /// Files that cannot be read, written or moved.
    #[error("cannot {doing} {}", path.display())]
    Io {
        /// "read", "make", …
        doing: &'static str,
        /// What.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// Not such a folder.
    #[error("{} has no folder {CARDS}", .0.display())]
    NoKit(PathBuf),
    /// Something is there.
    #[error("{} is there already", .0.display())]
    Exists(PathBuf),
    /// Too few.
    #[error("{} has claims for {left} more cards, and {wanted} are to be written", path.display())]
    TooFew {
        /// The folder.
        path: PathBuf,
        /// Claims that are left.
        left: usize,
        /// Claims that are needed.
        wanted: usize,
    },
    /// A claim that is none.
    #[error("{} is no claim for a card", path.display())]
    Bad {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: BadEnrolment,
    },
}

impl KitError {
    /// What a person can do.
    pub fn next_move(&self) -> Option<&'static str> {
        match self {
            Self::NoKit(_) => Some("name a folder that `muster claim new --labels-from CSV -o FOLDER` made"),
            Self::Exists(_) => Some("name a folder that is not there yet"),
            Self::TooFew { .. } => Some("write fewer cards, or make more claims with `muster claim new --count N`"),
            Self::Bad { .. } => Some("take the file out of the folder, and make a new claim for its device"),
            Self::Io { doing: MOVE, .. } => {
                Some("see that the folder has its cards, taken and flashed, and that you may write there")
            }
            Self::Io { doing: SYNC, .. } => Some("see whether its disk is full or fails"),
            Self::Io { .. } => None,
        }
    }
}

/// A claim that was taken for one card. It goes back by itself only before it was [begun](Taken::begin).
#[derive(Debug)]
pub struct Taken {
    kit: Kit,
    file: String,
    /// What it says.
    pub enrolment: Enrolment,
    /// Its bytes, as they go onto the card.
    pub text: String,
    /// Nothing of it was written anywhere, so that it goes back by itself.
    is_unused: bool,
}

impl Taken {
    /// From now on it is being written: unless somebody says what became of it, it stays in `taken`.
    pub fn begin(&mut self) {
        self.is_unused = false;
    }

    /// The card has it.
    pub fn keep(mut self) -> Result<(), KitError> {
        self.begin();
        self.kit.go(&self.file, TAKEN, FLASHED)
    }

    /// The card may have it: it stays where it is, for a person to decide.
    pub fn leave(mut self) {
        self.begin();
    }

    /// The card was never given it: it is for the next one.
    pub fn give_back(mut self) -> Result<(), KitError> {
        self.begin();
        self.kit.go(&self.file, TAKEN, CARDS)
    }

    /// How people call it.
    pub fn name(&self) -> &str {
        self.file.strip_suffix(ENDING).unwrap_or(&self.file)
    }
}

impl Drop for Taken {
    fn drop(&mut self) {
        if self.is_unused {
            // What fails here stays in `taken`, which the next flasher tells of.
            let _ = self.kit.go(&self.file, TAKEN, CARDS);
        }
    }
}

/// Where a card's claim is now.
#[derive(Debug)]
pub struct Settled {
    /// How people call the claim.
    pub claim: String,
    /// Whether its card has it.
    pub fate: Fate,
    /// Why it could not be moved to where it belongs.
    pub failed: Option<KitError>,
}

/// What became of a claim.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fate {
    /// Its card has it.
    OnCard,
    /// Its card may have it.
    Unsure,
    /// Its card was never given it.
    Unused,
}

/// Settles every card's claim, whatever becomes of another's. Comes before anything is told: that may fail, too.
pub fn settle(taken: Vec<Taken>, cards: &[Result<Flashed, (CardError, Left)>]) -> Vec<Settled> {
    let settle = |(number, taken): (usize, Taken)| {
        let claim = taken.name().to_owned();
        let (fate, moved) = match cards.get(number) {
            Some(Ok(_)) => (Fate::OnCard, taken.keep()),
            Some(Err((_, left))) if !left.may_hold_files() => (Fate::Unused, taken.give_back()),
            _ => {
                taken.leave();
                (Fate::Unsure, Ok(()))
            }
        };
        Settled { claim, fate, failed: moved.err() }
    };
    taken.into_iter().enumerate().map(settle).collect()
}

impl Kit {
    /// Makes the folder, which must not be there.
    pub fn make(path: &Path) -> Result<Self, KitError> {
        let failed = |source: io::Error| match source.kind() {
            io::ErrorKind::AlreadyExists => KitError::Exists(path.to_owned()),
            _ => KitError::Io { doing: "make", path: path.to_owned(), source },
        };
        fs::DirBuilder::new().mode(0o700).create(path).map_err(failed)?;
        let kit = Self::at(path);
        for folder in [CARDS, TAKEN, FLASHED] {
            let path = path.join(folder);
            let made = fs::DirBuilder::new().mode(0o700).create(&path);
            made.map_err(|source| KitError::Io { doing: "make", path: path.clone(), source })?;
            kit.disk.settle(&path)?;
        }
        kit.disk.settle(path)?;
        let above = path.parent().filter(|above| !above.as_os_str().is_empty()).unwrap_or(Path::new("."));
        kit.disk.settle(above)?;
        Ok(kit)
    }

    /// Takes the folder away again, where nothing came into it: what lies in it stays.
    pub fn discard(self) {
        for folder in [CARDS, TAKEN, FLASHED].map(|folder| self.path.join(folder)).iter().chain([&self.path]) {
            let _ = fs::remove_dir(folder);
        }
    }

    /// A folder that was made.
    pub fn open(path: &Path) -> Result<Self, KitError> {
        if !path.join(CARDS).is_dir() {
            return Err(KitError::NoKit(path.to_owned()));
        }
        Ok(Self::at(path))
    }

    fn at(path: &Path) -> Self {
        Self { path: path.to_owned(), disk: Disk::default() }
    }

    /// Adds the claim of the device with this number in the batch.
    pub fn add(&self, number: usize, enrolment: &Enrolment) -> Result<(), KitError> {
        let name = enrolment.name.as_ref().map_or("device", |name| name.as_str());
        let folder = self.path.join(CARDS);
        let path = folder.join(format!("{number:05}-{name}{ENDING}"));
        let mut open = fs::OpenOptions::new();
        let made = open.write(true).create_new(true).mode(0o600).open(&path);
        let written = made.and_then(|mut file| io::Write::write_all(&mut file, enrolment.to_string().as_bytes()));
        written.map_err(|source| KitError::Io { doing: "write", path: path.clone(), source })?;
        self.disk.settle(&path)?;
        self.disk.settle(&folder)
    }

    /// Claims that a killed flasher had.
    pub fn stranded(&self) -> Result<Vec<String>, KitError> {
        self.files(TAKEN)
    }

    /// How many are left.
    pub fn left(&self) -> Result<usize, KitError> {
        self.files(CARDS).map(|files| files.len())
    }

    /// Takes the next claims, as many or none.
    pub fn take(&self, wanted: usize) -> Result<Vec<Taken>, KitError> {
        let mut taken = Vec::new();
        while taken.len() < wanted {
            let files = self.files(CARDS)?;
            if files.len() + taken.len() < wanted {
                // Those that were taken go back.
                let left = files.len() + taken.len();
                return Err(KitError::TooFew { path: self.path.clone(), left, wanted });
            }
            for file in files.into_iter().take(wanted - taken.len()) {
                match self.go(&file, CARDS, TAKEN) {
                    Ok(()) => taken.push(self.read(file)?),
                    // Another flasher was faster.
                    Err(KitError::Io { doing: MOVE, source, .. }) if source.kind() == io::ErrorKind::NotFound => {}
                    Err(error) => {
                        // Where it did move, it goes back.
                        let _ = self.go(&file, TAKEN, CARDS);
                        return Err(error);
                    }
                }
            }
        }
        Ok(taken)
    }

    fn read(&self, file: String) -> Result<Taken, KitError> {
        let path = self.path.join(TAKEN).join(&file);
        let text = fs::read_to_string(&path);
        let text = text.map_err(|source| KitError::Io { doing: "read", path: path.clone(), source });
        let read = text.and_then(|text| {
            let enrolment = Enrolment::parse(&text).map_err(|source| KitError::Bad { path, source })?;
            Ok((enrolment, text))
        });
        match read {
            Ok((enrolment, text)) => Ok(Taken { kit: self.clone(), file, enrolment, text, is_unused: true }),
            Err(error) => {
                let _ = self.go(&file, TAKEN, CARDS);
                Err(error)
            }
        }
    }

    /// Moves a claim. The new place is on the disk before the old one is gone from it.
    fn go(&self, file: &str, from: &str, to: &str) -> Result<(), KitError> {
        let (from, to) = (self.path.join(from), self.path.join(to));
        self.disk.rename(&from.join(file), &to.join(file))?;
        self.disk.settle(&to.join(file))?;
        self.disk.settle(&to)?;
        self.disk.settle(&from)
    }

    /// The files of claims in a folder, in their order.
    fn files(&self, folder: &str) -> Result<Vec<String>, KitError> {
        let path = self.path.join(folder);
        let failed = |source| KitError::Io { doing: "read", path: path.clone(), source };
        let mut names = Vec::new();
        for entry in fs::read_dir(&path).map_err(failed)? {
            let name = entry.map_err(failed)?.file_name().to_string_lossy().into_owned();
            if name.ends_with(ENDING) {
                names.push(name);
            }
        }
        names.sort_unstable();
        Ok(names)
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use muster_shared::Digest;
    use muster_shared::claim::ClaimToken;

    use super::*;
    use crate::enrolment::By;

    fn enrolment(number: u8) -> Enrolment {
        let claim =
            ClaimToken { id: [number; 8], secret: [2; 16], root: Digest::of("r"), ca: Digest::of("c"), issued_ms: 1 };
        Enrolment {
            url: "https://plane:8443".parse().expect("a URL"),
            by: By::Claim(claim),
            name: Some(format!("edge-{number}").parse().expect("a name")),
            labels: Default::default(),
        }
    }

    fn kit(count: u8) -> (tempfile::TempDir, Kit) {
        let folder = tempfile::tempdir().expect("a folder");
        let kit = Kit::make(&folder.path().join("batch")).expect("makes");
        (1..=count).for_each(|number| kit.add(number.into(), &enrolment(number)).expect("adds"));
        (folder, kit)
    }

    fn names(taken: &[Taken]) -> Vec<&str> {
        taken.iter().map(Taken::name).collect()
    }

    #[test]
    fn each_card_gets_the_next_claim_and_what_fails_gives_it_back() {
        let (_folder, kit) = kit(4);
        let first = kit.take(2).expect("takes");
        assert_eq!(names(&first), ["00001-edge-1", "00002-edge-2"]);
        assert_eq!(first[0].enrolment, enrolment(1));
        let second = kit.take(1).expect("takes");
        assert_eq!(names(&second), ["00003-edge-3"]);
        assert_eq!(kit.stranded().expect("reads").len(), 3);
        let mut first = first.into_iter();
        first.next().expect("one").keep().expect("moves");
        drop(first);
        drop(second);
        assert_eq!(kit.left().expect("reads"), 3);
        assert_eq!(kit.files(FLASHED).expect("reads"), ["00001-edge-1.enrol"]);
        assert_eq!(names(&kit.take(3).expect("takes")), ["00002-edge-2", "00003-edge-3", "00004-edge-4"]);
        kit.take(1).expect("takes").into_iter().for_each(Taken::leave);
        assert_eq!((kit.left().expect("reads"), kit.stranded().expect("reads").len()), (2, 1));
    }

    /// A card that is done, and cards that failed so.
    fn done() -> Result<Flashed, (CardError, Left)> {
        Ok(Flashed { bytes: 1, verified: true })
    }

    fn failed(left: Left) -> Result<Flashed, (CardError, Left)> {
        Err((CardError::Stopped, left))
    }

    #[test]
    fn a_claim_on_its_way_that_nobody_settles_is_not_for_the_next_card() {
        let (_folder, kit) = kit(3);
        let mut taken = kit.take(3).expect("takes");
        taken.iter_mut().for_each(Taken::begin);
        taken.pop().expect("one").give_back().expect("moves");
        // What told of them failed, or the writing panicked.
        drop(taken);
        assert_eq!(kit.files(CARDS).expect("reads"), ["00003-edge-3.enrol"]);
        assert_eq!(kit.stranded().expect("reads"), ["00001-edge-1.enrol", "00002-edge-2.enrol"]);
    }

    #[test]
    fn a_claim_that_cannot_be_kept_holds_no_other_up_and_is_not_for_the_next_card() {
        let (_folder, kit) = kit(6);
        let mut taken = kit.take(6).expect("takes");
        taken.iter_mut().for_each(Taken::begin);
        // The second one cannot be moved.
        let place = kit.path.join(FLASHED).join("00002-edge-2.enrol");
        fs::create_dir(&place).expect("a folder");
        let (left, cards) = ([Left::Untouched, Left::Erased, Left::MayHold, Left::Unsure], vec![done(), done()]);
        let cards: Vec<_> = cards.into_iter().chain(left.map(failed)).collect();
        let settled = settle(taken, &cards);
        let fates: Vec<_> = settled.iter().map(|settled| settled.fate).collect();
        let expected = [Fate::OnCard, Fate::OnCard, Fate::Unused, Fate::Unused, Fate::Unsure, Fate::Unsure];
        assert_eq!(fates, expected);
        let told: Vec<_> = settled.iter().filter(|one| one.failed.is_some()).map(|one| one.claim.as_str()).collect();
        assert_eq!(told, ["00002-edge-2"]);
        fs::remove_dir(&place).expect("removes");
        assert_eq!(kit.files(FLASHED).expect("reads"), ["00001-edge-1.enrol"]);
        assert_eq!(kit.files(CARDS).expect("reads"), ["00003-edge-3.enrol", "00004-edge-4.enrol"]);
        let stranded = kit.stranded().expect("reads");
        assert_eq!(stranded, ["00002-edge-2.enrol", "00005-edge-5.enrol", "00006-edge-6.enrol"]);
    }

    #[test]
    fn a_power_cut_after_a_move_or_a_new_file_does_not_undo_it() {
        let (_folder, kit) = kit(1);
        let log = |kit: &Kit| std::mem::take(&mut *kit.disk.log.lock().expect("no panic"));
        let done = log(&kit);
        let (made, added) = done.split_at(done.len() - 2);
        assert_eq!(made[..4], ["settle batch/cards", "settle batch/taken", "settle batch/flashed", &made[3]]);
        assert!(made[3].ends_with("/batch") && made.len() == 5, "the folder, and the one above it: {made:?}");
        assert_eq!(added, ["settle cards/00001-edge-1.enrol", "settle batch/cards"]);
        let moved = |from: &str, to: &str| {
            let file = format!("{to}/00001-edge-1.enrol");
            [
                format!("move {file}"),
                format!("settle {file}"),
                format!("settle batch/{to}"),
                format!("settle batch/{from}"),
            ]
        };
        let taken = kit.take(1).expect("takes").remove(0);
        assert_eq!(log(&kit), moved(CARDS, TAKEN));
        taken.give_back().expect("moves");
        assert_eq!(log(&kit), moved(TAKEN, CARDS));
        drop(kit.take(1).expect("takes"));
        assert_eq!(log(&kit)[4..], moved(TAKEN, CARDS));
        kit.take(1).expect("takes").remove(0).keep().expect("moves");
        assert_eq!(log(&kit)[4..], moved(TAKEN, FLASHED));
    }

    #[test]
    fn too_few_claims_are_told_and_none_is_taken() {
        let (_folder, kit) = kit(2);
        let refused = kit.take(3).expect_err("too few");
        assert!(refused.to_string().ends_with("has claims for 2 more cards, and 3 are to be written"), "{refused}");
        assert_eq!(kit.left().expect("reads"), 2);
        fs::write(kit.path.join(CARDS).join("00000-x.enrol"), "no").expect("writes");
        assert!(matches!(kit.take(1), Err(KitError::Bad { .. })));
        assert_eq!(kit.left().expect("reads"), 3);
    }

    #[test]
    fn two_flashers_never_take_the_same_claim() {
        let (_folder, kit) = kit(40);
        let all = std::thread::scope(|scope| {
            let flashers: Vec<_> = (0..4).map(|_| scope.spawn(|| kit.take(10).expect("takes"))).collect();
            flashers.into_iter().flat_map(|flasher| flasher.join().expect("ends")).collect::<Vec<_>>()
        });
        let different: std::collections::BTreeSet<_> = names(&all).into_iter().collect();
        assert_eq!(different.len(), 40);
    }

    #[test]
    fn claims_are_secret_and_a_folder_is_made_once() {
        let (folder, kit) = kit(1);
        let path = folder.path().join("batch");
        let mode = |path: &Path| fs::metadata(path).expect("is there").permissions().mode() & 0o777;
        assert_eq!((mode(&path), mode(&kit.path.join(CARDS).join("00001-edge-1.enrol"))), (0o700, 0o600));
        assert!(matches!(Kit::make(&path), Err(KitError::Exists(_))));
        assert!(matches!(Kit::open(folder.path()), Err(KitError::NoKit(_))));
        assert!(Kit::open(&path).is_ok());
    }
}
