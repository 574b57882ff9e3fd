//! The root that this person pinned, and what follows from it. Nothing that a control plane says
//! about trust is believed unless it follows from the pin.

use muster_shared::floor::{Floor, VerifiedFloor};
use muster_shared::limits::ROOT_BYTES_MAX;
use muster_shared::root::{RootError, TrustedRoot};
use muster_shared::signing::Envelope;

use crate::client::Client;
use crate::context::{Home, PinnedRoot};
use crate::error::{Attempt as _, Failure, Result};
use crate::files::{self, Readable};

/// Roots that are looked at where they are kept.
const ROOTS_KEPT_MAX: usize = 4096;

/// Why a control plane's roots do not lead from the pin to a root.
#[derive(Debug, thiserror::Error)]
pub enum ChainError {
    /// The pinned root is not among them.
    #[error("none of the {found} roots has the pinned digest {pinned}")]
    NoPinned {
        /// How many there are.
        found: usize,
        /// What is pinned.
        pinned: muster_shared::Digest,
    },
    /// One does not follow from the one before.
    #[error(transparent)]
    Root(#[from] RootError),
}

/// The newest root that follows from the pinned one.
pub fn follow(roots: &[Envelope], pin: PinnedRoot) -> Result<TrustedRoot, ChainError> {
    let pinned = roots.iter().position(|root| muster_shared::Digest::of(&root.payload) == pin.digest);
    let pinned = pinned.ok_or(ChainError::NoPinned { found: roots.len(), pinned: pin.digest })?;
    let anchor = TrustedRoot::pinned(&roots[pinned], pin.digest)?;
    Ok(roots[pinned + 1..].iter().try_fold(anchor, |held, next| held.follow(next))?)
}

/// Asks for the roots and follows them from the pin.
pub async fn newest_root(client: &Client, pin: PinnedRoot) -> Result<TrustedRoot> {
    let roots = roots(client).await?;
    follow(&roots, pin).attempt(|| "cannot trust the control plane's roots").map_err(|failure| {
        failure.hint(
            "this control plane is of another fleet than the pinned one, or someone tampered with it: compare \
             `muster trust show` with whoever keeps the root key",
        )
    })
}

/// Every root that the control plane holds, unverified.
pub async fn roots(client: &Client) -> Result<Vec<Envelope>> {
    client.get("/trust/roots").await.attempt(|| "cannot ask for the roots")
}

/// The version floors that count under a root.
pub async fn floors(client: &Client, root: &TrustedRoot) -> Result<Vec<Floor>> {
    let all: Vec<Envelope> = client.get("/trust/floors").await.attempt(|| "cannot ask for the version floors")?;
    let verified = all.iter().filter_map(|envelope| VerifiedFloor::verify(envelope, root).ok());
    Ok(verified.map(|floor| floor.floor().clone()).collect())
}

/// Keeps a root so that `muster inspect` can check signatures without a network.
pub fn remember(home: &Home, root: &Envelope, trusted: &TrustedRoot) -> Result<()> {
    let path = home.root(trusted.digest());
    let attempt = || format!("cannot keep the root in {}", path.display());
    let json = serde_json::to_vec(root).attempt(attempt)?;
    path.parent().map_or(Ok(()), files::private_folder).attempt(attempt)?;
    files::replace(&path, &json, Readable::ByAll).attempt(attempt)
}

/// The pinned root, if it was kept here.
pub fn remembered(home: &Home, pin: PinnedRoot) -> Option<TrustedRoot> {
    let file = std::fs::File::open(home.root(pin.digest)).ok()?;
    // Base64 and JSON make the payload longer by less than half, signatures add little.
    let bytes = files::read_bounded(file, 2 * ROOT_BYTES_MAX as u64).ok()?;
    let envelope: Envelope = serde_json::from_slice(&bytes).ok()?;
    TrustedRoot::pinned(&envelope, pin.digest).ok()
}

/// The newest root kept here that follows from the pinned one: what it takes to check signatures without
/// a network, also after keys were changed.
pub fn newest_remembered(home: &Home, pin: PinnedRoot) -> Option<TrustedRoot> {
    let mut newest = remembered(home, pin)?;
    let folder = home.root(pin.digest).parent().map(std::path::Path::to_owned)?;
    let paths = std::fs::read_dir(folder).ok()?.filter_map(|entry| entry.ok().map(|entry| entry.path()));
    let read = |path: std::path::PathBuf| {
        let bytes = files::read_bounded(std::fs::File::open(path).ok()?, 2 * ROOT_BYTES_MAX as u64).ok()?;
        serde_json::from_slice::<Envelope>(&bytes).ok()
    };
    let kept: Vec<Envelope> = paths.take(ROOTS_KEPT_MAX).filter_map(read).collect();
    while let Some(next) = kept.iter().find_map(|envelope| newest.follow(envelope).ok()) {
        newest = next;
    }
    Some(newest)
}

/// The pin that stands for a root.
pub fn pin_of(root: &TrustedRoot) -> PinnedRoot {
    PinnedRoot { version: root.root().version, digest: root.digest() }
}

/// The one among `roots` that a person may pin: the newest, which only vouches for itself so far.
pub fn newest_unverified(roots: &[Envelope]) -> Result<Option<TrustedRoot>> {
    let Some(newest) = roots.last() else { return Ok(None) };
    let root = TrustedRoot::self_signed(newest).attempt(|| "cannot read the control plane's root");
    root.map(Some)
        .map_err(|failure: Failure| failure.hint_if_none("do not trust this control plane before you know why"))
}

#[cfg(test)]
mod tests {
    use muster_shared::Digest;
    use muster_shared::root::{Role, Root};
    use muster_shared::signing::key::SecretKey;
    use muster_shared::signing::payload_type;

    use super::*;

    fn root(version: u64, seed: u8) -> Envelope {
        let key = SecretKey::from_seed([seed; 32]);
        let role = Role { threshold: 1, keys: vec![key.public()] };
        let root = Root {
            fleet: "home".parse().expect("a fleet id"),
            version,
            epoch: 1,
            expires_ms: 1,
            root: role.clone(),
            publishers: vec![],
            directors: vec![],
            release: role,
            compromised: vec![],
        };
        Envelope::sign(payload_type::ROOT, root.to_payload(), &[&key])
    }

    #[test]
    fn only_what_follows_from_the_pin_is_trusted() {
        let pin = PinnedRoot { version: 1, digest: Digest::of(&root(1, 1).payload) };
        let newest = follow(&[root(1, 1), root(2, 1)], pin).expect("follows");
        assert_eq!(newest.root().version, 2);
        assert!(matches!(follow(&[root(1, 2)], pin), Err(ChainError::NoPinned { .. })));
        assert!(matches!(follow(&[root(1, 1), root(2, 2)], pin), Err(ChainError::Root(_))));
        assert!(follow(&[], pin).is_err());
        let later = PinnedRoot { version: 2, digest: Digest::of(&root(2, 1).payload) };
        assert!(follow(&[root(1, 9), root(2, 1)], later).is_ok(), "what lies before the pin does not matter");
    }
}
