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
//! A claim moves by renaming, so two flashers never take the same one. One that stays in `taken` was on its way
//! when its flasher was killed: its card may or may not have it.

use std::fs;
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use crate::enrolment::{BadEnrolment, Enrolment};

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
pub struct Kit(PathBuf);

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
            Self::Io { .. } => None,
        }
    }
}

/// A claim that was taken for one card. It goes back unless it is [kept](Taken::keep).
#[derive(Debug)]
pub struct Taken {
    kit: Kit,
    file: String,
    /// What it says.
    pub enrolment: Enrolment,
    /// Its bytes, as they go onto the card.
    pub text: String,
    kept: bool,
}

impl Taken {
    /// The card has it.
    pub fn keep(mut self) -> Result<(), KitError> {
        self.kept = true;
        self.kit.go(&self.file, TAKEN, FLASHED)
    }

    /// The card may have it: it stays where it is, for a person to decide.
    pub fn leave(mut self) {
        self.kept = true;
    }

    /// How people call it.
    pub fn name(&self) -> &str {
        self.file.strip_suffix(ENDING).unwrap_or(&self.file)
    }
}

impl Drop for Taken {
    fn drop(&mut self) {
        if !self.kept {
            // What fails here stays in `taken`, which the next flasher tells of.
            let _ = self.kit.go(&self.file, TAKEN, CARDS);
        }
    }
}

impl Kit {
    /// Makes the folder, which must not be there.
    pub fn make(path: &Path) -> Result<Self, KitError> {
        let failed = |source: io::Error| match source.kind() {
            io::ErrorKind::AlreadyExists => KitError::Exists(path.to_owned()),
            _ => KitError::Io { doing: "make", path: path.to_owned(), source },
        };
        fs::DirBuilder::new().mode(0o700).create(path).map_err(failed)?;
        for folder in [CARDS, TAKEN, FLASHED] {
            let path = path.join(folder);
            let made = fs::DirBuilder::new().mode(0o700).create(&path);
            made.map_err(|source| KitError::Io { doing: "make", path, source })?;
        }
        Ok(Self(path.to_owned()))
    }

    /// A folder that was made.
    pub fn open(path: &Path) -> Result<Self, KitError> {
        if !path.join(CARDS).is_dir() {
            return Err(KitError::NoKit(path.to_owned()));
        }
        Ok(Self(path.to_owned()))
    }

    /// Adds the claim of the device with this number in the batch.
    pub fn add(&self, number: usize, enrolment: &Enrolment) -> Result<(), KitError> {
        let name = enrolment.name.as_ref().map_or("device", |name| name.as_str());
        let path = self.0.join(CARDS).join(format!("{number:05}-{name}{ENDING}"));
        let mut open = fs::OpenOptions::new();
        let made = open.write(true).create_new(true).mode(0o600).open(&path);
        let written = made.and_then(|mut file| {
            io::Write::write_all(&mut file, enrolment.to_string().as_bytes())?;
            file.sync_all()
        });
        written.map_err(|source| KitError::Io { doing: "write", path, source })
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
                return Err(KitError::TooFew { path: self.0.clone(), left, wanted });
            }
            for file in files.into_iter().take(wanted - taken.len()) {
                match self.go(&file, CARDS, TAKEN) {
                    // Another flasher was faster.
                    Err(KitError::Io { source, .. }) if source.kind() == io::ErrorKind::NotFound => {}
                    moved => {
                        moved?;
                        taken.push(self.read(file)?);
                    }
                }
            }
        }
        Ok(taken)
    }

    fn read(&self, file: String) -> Result<Taken, KitError> {
        let path = self.0.join(TAKEN).join(&file);
        let text = fs::read_to_string(&path);
        let text = text.map_err(|source| KitError::Io { doing: "read", path: path.clone(), source });
        let read = text.and_then(|text| {
            let enrolment = Enrolment::parse(&text).map_err(|source| KitError::Bad { path, source })?;
            Ok((enrolment, text))
        });
        match read {
            Ok((enrolment, text)) => Ok(Taken { kit: self.clone(), file, enrolment, text, kept: false }),
            Err(error) => {
                let _ = self.go(&file, TAKEN, CARDS);
                Err(error)
            }
        }
    }

    fn go(&self, file: &str, from: &str, to: &str) -> Result<(), KitError> {
        let path = self.0.join(from).join(file);
        let moved = fs::rename(&path, self.0.join(to).join(file));
        moved.map_err(|source| KitError::Io { doing: "move", path, source })
    }

    /// The files of claims in a folder, in their order.
    fn files(&self, folder: &str) -> Result<Vec<String>, KitError> {
        let path = self.0.join(folder);
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

    #[test]
    fn too_few_claims_are_told_and_none_is_taken() {
        let (_folder, kit) = kit(2);
        let refused = kit.take(3).expect_err("too few");
        assert!(refused.to_string().ends_with("has claims for 2 more cards, and 3 are to be written"), "{refused}");
        assert_eq!(kit.left().expect("reads"), 2);
        fs::write(kit.0.join(CARDS).join("00000-x.enrol"), "no").expect("writes");
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
        assert_eq!((mode(&path), mode(&kit.0.join(CARDS).join("00001-edge-1.enrol"))), (0o700, 0o600));
        assert!(matches!(Kit::make(&path), Err(KitError::Exists(_))));
        assert!(matches!(Kit::open(folder.path()), Err(KitError::NoKit(_))));
        assert!(Kit::open(&path).is_ok());
    }
}
