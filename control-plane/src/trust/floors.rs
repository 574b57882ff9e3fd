//! Version floors: what publishers never want to run again. Verified here, passed on to devices, which
//! verify them for themselves.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use muster_shared::floor::{Floor, FloorError, VerifiedFloor};
use muster_shared::root::TrustedRoot;
use muster_shared::signing::Envelope;
use muster_shared::{Digest, ModelName, Version};

use crate::db::{self, Db, DbError};
use crate::now_ms;

/// Models that may have a floor.
const FLOORS_MAX: usize = 4096;

/// The floors, in memory as in the database.
pub struct Floors {
    held: RwLock<Arc<Vec<Envelope>>>,
    /// Those that count, with the root under which they do.
    in_force: Mutex<Option<(Digest, Arc<ByModel>)>>,
    /// Makes comparing with the one before and storing the next one step.
    raising: tokio::sync::Mutex<()>,
}

/// Why a floor is not taken.
#[derive(Debug, thiserror::Error)]
pub enum CannotRaise {
    /// There is no fleet yet.
    #[error("this control plane has no root yet, so it knows no publisher")]
    NoRoot,
    /// It is not believed.
    #[error("the version floor is not accepted")]
    Floor(#[from] FloorError),
    /// Floors only rise.
    #[error("the version floor of {model} is {held} already, and a floor only rises")]
    Lower {
        /// The model.
        model: ModelName,
        /// Its floor.
        held: Version,
    },
    /// Too many.
    #[error("{FLOORS_MAX} models have a version floor, and no more can")]
    TooMany,
    /// It could not be stored.
    #[error(transparent)]
    Db(#[from] DbError),
}

/// Floors in force, by model.
pub type ByModel = BTreeMap<ModelName, InForce>;

/// A floor in force, with what proves it.
#[derive(Debug, Clone)]
pub struct InForce {
    /// The floor.
    pub floor: Floor,
    /// Its envelope.
    pub envelope: Envelope,
}

impl Floors {
    /// Reads the floors.
    pub async fn open(db: &Db) -> Result<Self, DbError> {
        let held = RwLock::new(Arc::new(db::floors::list(db.read()).await?));
        Ok(Self { held, in_force: Mutex::default(), raising: tokio::sync::Mutex::default() })
    }

    /// Every floor in its envelope, also those that count no more.
    pub fn all(&self) -> Arc<Vec<Envelope>> {
        self.held.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The floors that count under a root: it names their signers, for their models.
    pub fn in_force(&self, root: &TrustedRoot) -> Arc<ByModel> {
        let mut known = self.in_force.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((of, floors)) = &*known
            && *of == root.digest()
        {
            return floors.clone();
        }
        let verified = |envelope: &Envelope| {
            let floor = VerifiedFloor::verify(envelope, root).ok()?.floor().clone();
            Some((floor.model.clone(), InForce { floor, envelope: envelope.clone() }))
        };
        let floors: Arc<ByModel> = Arc::new(self.all().iter().filter_map(verified).collect());
        *known = Some((root.digest(), floors.clone()));
        floors
    }

    /// Takes a floor. One that counts no more, since its signer is gone, stands in nobody's way.
    pub async fn raise(&self, db: &Db, root: Option<&TrustedRoot>, envelope: &Envelope) -> Result<Floor, CannotRaise> {
        let root = root.ok_or(CannotRaise::NoRoot)?;
        let floor = VerifiedFloor::verify(envelope, root)?.floor().clone();
        let _raising = self.raising.lock().await;
        let in_force = self.in_force(root);
        match in_force.get(&floor.model) {
            Some(held) if held.floor.version == floor.version => return Ok(held.floor.clone()),
            Some(held) if held.floor.version > floor.version => {
                return Err(CannotRaise::Lower { model: floor.model, held: held.floor.version });
            }
            None if self.all().len() >= FLOORS_MAX => return Err(CannotRaise::TooMany),
            _ => {}
        }
        db::floors::put(db.write(), &floor, envelope, now_ms()).await?;
        let all = db::floors::list(db.read()).await?;
        *self.held.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(all);
        *self.in_force.lock().unwrap_or_else(PoisonError::into_inner) = None;
        Ok(floor)
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use muster_shared::signing::key::SecretKey;
    use muster_shared::signing::payload_type;

    use super::*;
    use crate::db::tests::state;
    use crate::trust::roles::tests::{key, root, sign_root, signed_root};

    /// A floor of `digits`, signed by this key.
    pub(crate) fn signed_floor(version: u64, signer: &SecretKey) -> Envelope {
        let floor = Floor {
            fleet: "home".parse().expect("a fleet id"),
            model: "digits".parse().expect("a name"),
            version: Version::new(version).expect("positive"),
            issued_ms: 1,
        };
        Envelope::sign(payload_type::FLOOR, floor.to_payload(), &[signer])
    }

    #[tokio::test]
    async fn a_floor_only_rises_until_its_signer_is_gone() {
        let (db, _folder) = state().await;
        let director = key(20).public();
        let first = TrustedRoot::self_signed(&signed_root(1, 1, director)).expect("a root");
        let floors = Floors::open(&db).await.expect("none yet");
        let raise = async |floors: &Floors, root: &TrustedRoot, version: u64, signer: u8| {
            floors.raise(&db, Some(root), &signed_floor(version, &key(signer))).await.map(|floor| floor.version.get())
        };
        assert!(matches!(floors.raise(&db, None, &signed_floor(1, &key(10))).await, Err(CannotRaise::NoRoot)));
        assert!(matches!(raise(&floors, &first, 3, 11).await, Err(CannotRaise::Floor(_))));
        assert_eq!(raise(&floors, &first, 3, 10).await.ok(), Some(3));
        assert_eq!(raise(&floors, &first, 3, 10).await.ok(), Some(3));
        assert!(matches!(raise(&floors, &first, 2, 10).await, Err(CannotRaise::Lower { .. })));
        let again = Floors::open(&db).await.expect("reads them");
        let model = "digits".parse().expect("a name");
        assert_eq!(again.in_force(&first)[&model].floor.version.get(), 3);
        // A thief set it; the root is the way back.
        let mut next = root(2, 1, director);
        next.publishers[0].key = key(11).public();
        let next = TrustedRoot::self_signed(&sign_root(&next)).expect("a root");
        assert!(again.in_force(&next).is_empty());
        assert_eq!(raise(&again, &next, 2, 11).await.ok(), Some(2));
        assert_eq!(again.in_force(&next)[&model].floor.version.get(), 2);
    }
}
