//! The root in force: who the publishers and the directors are. Signed offline, followed here.

use std::sync::{Arc, PoisonError, RwLock};

use muster_shared::api::TrustView;
use muster_shared::root::{RootError, TrustedRoot};
use muster_shared::signing::Envelope;
use muster_shared::signing::key::PublicKey;

use super::ca::CaError;
use super::director::Director;
use super::offline::{self, OfflineKeyHere};
use crate::db::{self, Db, DbError};
use crate::now_ms;

/// Root documents that a plane follows; nobody signs that many by hand.
const ROOTS_MAX: usize = 4096;

/// The roots, in memory as in the database.
pub struct Trust {
    director: Arc<Director>,
    held: RwLock<Held>,
    /// Makes reading the newest root and adding the next one step.
    adding: tokio::sync::Mutex<()>,
}

#[derive(Default)]
struct Held {
    newest: Option<Arc<TrustedRoot>>,
    envelopes: Vec<Envelope>,
}

/// Why a root is not taken.
#[derive(Debug, thiserror::Error)]
pub enum TrustError {
    /// It does not follow, or is not signed as it must be.
    #[error("the root is not accepted")]
    Root(#[from] RootError),
    /// It was taken before, with other content, or a later one is here.
    #[error("root version {found} does not follow version {held}")]
    NotTheNext {
        /// The newest version here.
        held: u64,
        /// The version that came.
        found: u64,
    },
    /// The first root is not version 1.
    #[error("the first root has version {0}, wanted 1")]
    NotTheFirst(u64),
    /// This plane could sign nothing under it.
    #[error("the root does not name this control plane's director key {0}")]
    OtherDirector(PublicKey),
    /// What signs here must sign nothing else.
    #[error("the root names this control plane's director key {key} also as a {role} key")]
    DirectorIsOffline {
        /// The role that signs off line.
        role: &'static str,
        /// The key.
        key: PublicKey,
    },
    /// A key that it names lies here.
    #[error(transparent)]
    OfflineKey(#[from] OfflineKeyHere),
    /// The director's key cannot be changed.
    #[error(transparent)]
    Ca(#[from] CaError),
    /// Too many.
    #[error("this control plane holds {ROOTS_MAX} roots and takes no more")]
    TooMany,
    /// It could not be stored.
    #[error(transparent)]
    Db(#[from] DbError),
}

impl Trust {
    /// Reads the roots and follows them from the first on. Refuses to go on where a key lies that the
    /// newest one wants off line.
    pub async fn open(db: &Db, director: Arc<Director>) -> Result<Self, TrustError> {
        let envelopes = db::trust::roots(db.read()).await?;
        let mut newest: Option<TrustedRoot> = None;
        for envelope in &envelopes {
            newest = Some(follow(newest.as_ref(), envelope)?);
        }
        if let Some(newest) = &newest {
            offline::look_for_offline_keys(director.folder(), newest.root())?;
            director.obey(newest)?;
        }
        let held = Held { newest: newest.map(Arc::new), envelopes };
        Ok(Self { director, held: RwLock::new(held), adding: tokio::sync::Mutex::default() })
    }

    /// The newest root.
    pub fn newest(&self) -> Option<Arc<TrustedRoot>> {
        self.read(|held| held.newest.clone())
    }

    /// Every root by version.
    pub fn all(&self) -> Vec<Envelope> {
        self.read(|held| held.envelopes.clone())
    }

    /// The roots after a version, in order.
    pub fn after(&self, version: u64) -> Vec<Envelope> {
        let known = version.try_into().unwrap_or(usize::MAX);
        self.read(|held| held.envelopes.iter().skip(known).cloned().collect())
    }

    /// Takes the first or the next root. The newest one again changes nothing.
    pub async fn add(&self, db: &Db, envelope: &Envelope) -> Result<Arc<TrustedRoot>, TrustError> {
        let _adding = self.adding.lock().await;
        let held = self.newest();
        if let Some(held) = &held
            && self.read(|roots| roots.envelopes.last().is_some_and(|last| last.payload == envelope.payload))
        {
            return Ok(held.clone());
        }
        let next = Arc::new(follow(held.as_deref(), envelope)?);
        self.check_keys_here(&next)?;
        if self.read(|held| held.envelopes.len()) >= ROOTS_MAX {
            return Err(TrustError::TooMany);
        }
        db::trust::insert(db.write(), next.root().version, envelope, now_ms()).await?;
        // Durable first: after a crash here the next start does it.
        self.director.obey(&next)?;
        let mut held = self.held.write().unwrap_or_else(PoisonError::into_inner);
        held.newest = Some(next.clone());
        held.envelopes.push(envelope.clone());
        Ok(next)
    }

    /// This plane must be able to sign under a root with a key that signs nothing else, and must not have
    /// a key of those who sign off line.
    fn check_keys_here(&self, next: &TrustedRoot) -> Result<(), TrustError> {
        if !self.director.could_sign_under(next)? {
            return Err(TrustError::OtherDirector(self.director.public()));
        }
        for key in next.directors() {
            if let Some(role) = offline::role_of(next.root(), &key) {
                return Err(TrustError::DirectorIsOffline { role, key });
            }
        }
        Ok(offline::look_for_offline_keys(self.director.folder(), next.root())?)
    }

    fn read<T>(&self, look: impl FnOnce(&Held) -> T) -> T {
        look(&self.held.read().unwrap_or_else(PoisonError::into_inner))
    }
}

/// The root that follows `held`; where none is held, a first one that vouches for itself: it comes
/// from whoever holds the admin code.
fn follow(held: Option<&TrustedRoot>, envelope: &Envelope) -> Result<TrustedRoot, TrustError> {
    let Some(held) = held else {
        let first = TrustedRoot::self_signed(envelope)?;
        let version = first.root().version;
        return if version == 1 { Ok(first) } else { Err(TrustError::NotTheFirst(version)) };
    };
    match held.follow(envelope) {
        Err(RootError::NotTheNext { held, found }) => Err(TrustError::NotTheNext { held, found }),
        followed => Ok(followed?),
    }
}

/// The trust in force, for people.
pub fn view(root: &TrustedRoot) -> TrustView {
    TrustView {
        fleet: root.root().fleet.clone(),
        version: root.root().version,
        digest: root.digest(),
        expires_ms: root.root().expires_ms,
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use muster_shared::root::{Publisher, Role, Root};
    use muster_shared::signing::key::SecretKey;
    use muster_shared::signing::payload_type;

    use super::*;
    use crate::db::tests::state;

    pub(crate) fn key(seed: u8) -> SecretKey {
        SecretKey::from_seed([seed; 32])
    }

    /// A root signed by key 1, with publisher key 10.
    pub(crate) fn signed_root(version: u64, epoch: u64, director: PublicKey) -> Envelope {
        sign_root(&root(version, epoch, director))
    }

    /// Signs a root with key 1.
    pub(crate) fn sign_root(root: &Root) -> Envelope {
        Envelope::sign(payload_type::ROOT, root.to_payload(), &[&key(1)])
    }

    /// The document of [`signed_root`].
    pub(crate) fn root(version: u64, epoch: u64, director: PublicKey) -> Root {
        Root {
            fleet: "home".parse().expect("a fleet id"),
            version,
            epoch,
            expires_ms: i64::MAX as u64,
            root: Role { threshold: 1, keys: vec![key(1).public()] },
            publishers: vec![Publisher { key: key(10).public(), models: None }],
            directors: vec![director],
            release: Role { threshold: 1, keys: vec![key(30).public()] },
            compromised: vec![],
        }
    }

    #[tokio::test]
    async fn roots_are_followed_one_by_one_and_again_after_a_restart() {
        let (db, folder) = state().await;
        let held = Arc::new(Director::open(folder.path()).expect("a director"));
        let director = held.public();
        let trust = Trust::open(&db, held.clone()).await.expect("no roots yet");
        assert!(trust.newest().is_none());
        let (one, two) = (signed_root(1, 1, director), signed_root(2, 1, director));
        assert!(matches!(trust.add(&db, &two).await, Err(TrustError::NotTheFirst(2))));
        let other = signed_root(1, 1, key(21).public());
        assert!(matches!(trust.add(&db, &other).await, Err(TrustError::OtherDirector(_))));
        for root in [&one, &one, &two, &two] {
            trust.add(&db, root).await.expect("follows");
        }
        assert!(matches!(trust.add(&db, &one).await, Err(TrustError::NotTheNext { held: 2, found: 1 })));
        let unsigned = Envelope { signatures: vec![], ..signed_root(3, 1, director) };
        assert!(matches!(trust.add(&db, &unsigned).await, Err(TrustError::Root(_))));
        let again = Trust::open(&db, held.clone()).await.expect("reads them");
        assert_eq!(again.newest().map(|root| root.root().version), Some(2));
        assert_eq!((again.after(1), again.after(2).len(), again.all().len()), (vec![two], 0, 2));
    }

    #[tokio::test]
    async fn a_key_that_signs_off_line_keeps_the_plane_from_starting() {
        let (db, folder) = state().await;
        let director = Arc::new(Director::open(folder.path()).expect("a director"));
        let trust = Trust::open(&db, director.clone()).await.expect("no roots yet");
        let mut both = root(1, 1, director.public());
        both.publishers.push(Publisher { key: director.public(), models: None });
        let taken = trust.add(&db, &sign_root(&both)).await;
        assert!(matches!(taken, Err(TrustError::DirectorIsOffline { role: "publisher", .. })));
        let path = folder.path().join("publisher.pem");
        std::fs::write(&path, key(10).to_pem().expect("PEM")).expect("writes");
        let one = signed_root(1, 1, director.public());
        assert!(matches!(trust.add(&db, &one).await, Err(TrustError::OfflineKey(_))));
        std::fs::remove_file(&path).expect("removes");
        trust.add(&db, &one).await.expect("taken");
        std::fs::write(&path, key(10).to_pem().expect("PEM")).expect("writes");
        let refused = Trust::open(&db, director.clone()).await.err().map(|error| error.to_string()).unwrap_or_default();
        assert!(refused.contains("publisher.pem") && refused.contains("muster keys rotate publisher"), "{refused}");
    }

    #[tokio::test]
    async fn the_next_director_takes_over_when_a_root_names_it_and_not_the_present_one() {
        let (db, folder) = state().await;
        let director = Arc::new(Director::open(folder.path()).expect("a director"));
        let trust = Trust::open(&db, director.clone()).await.expect("no roots yet");
        let first = director.public();
        trust.add(&db, &signed_root(1, 1, first)).await.expect("a root");
        assert!(matches!(
            trust.add(&db, &signed_root(2, 2, key(21).public())).await,
            Err(TrustError::OtherDirector(_))
        ));
        let next = director.prepare_next().expect("made");
        assert_eq!((director.prepare_next().ok(), director.next().ok()), (Some(next), Some(Some(next))));
        let mut both = root(2, 1, first);
        both.directors.push(next);
        trust.add(&db, &sign_root(&both)).await.expect("a root");
        assert_eq!(director.public(), first);
        trust.add(&db, &signed_root(3, 2, next)).await.expect("a root");
        assert_eq!((director.public(), director.next().ok()), (next, Some(None)));
        assert_eq!(Director::open(folder.path()).expect("the same").public(), next);

        // The power went between the root and the key.
        let last = director.prepare_next().expect("made");
        db::trust::insert(db.write(), 4, &signed_root(4, 2, last), 1).await.expect("stored");
        let director = Arc::new(Director::open(folder.path()).expect("a director"));
        Trust::open(&db, director.clone()).await.expect("reads them");
        assert_eq!(director.public(), last);
    }
}
