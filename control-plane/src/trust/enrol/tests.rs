//! Claims and keys: who gets in, who gets in again, who does not.

use muster_shared::signing::Signature;
use rcgen::{CertificateParams, KeyPair, SigningKey};

mod named;

use super::*;
use crate::testing;
use crate::trust::ca::tests::device_key;

fn csr(key: &KeyPair) -> String {
    let request = CertificateParams::default().serialize_request(key).expect("a request");
    request.pem().expect("PEM")
}

/// A certificate, not a word to wait.
async fn let_in(plane: &Plane, asked: &Enrol) -> Result<Enrolled, EnrolError> {
    match enrol(plane, asked).await? {
        Outcome::Enrolled(enrolled) => Ok(*enrolled),
        Outcome::Waiting(waiting) => panic!("{} waits", waiting.device),
    }
}

async fn claim_for(plane: &Plane, uses: u32) -> Claim {
    let asked = NewClaim {
        uses,
        ttl_seconds: 60,
        labels: labels(&[("site", "north")]),
        may_label: vec![],
        may_label_anything: true,
        needs_approval: false,
    };
    new_claim(plane, &asked).await.expect("a claim")
}

fn labels(pairs: &[(&str, &str)]) -> muster_shared::id::Labels {
    pairs.iter().map(|(key, value)| (key.parse().expect("a label"), value.parse().expect("a label"))).collect()
}

fn ask(claim: &Claim, key: &KeyPair, name: Option<&str>) -> Enrol {
    Enrol {
        claim: Some(claim.id.clone()),
        secret: Some(claim.secret.clone()),
        csr: csr(key),
        name: name.map(|name| name.parse().expect("an id")),
        labels: labels(&[("site", "south"), ("rack", "7")]),
    }
}

#[tokio::test]
async fn a_claim_is_spent_by_a_key_which_may_come_again() {
    let (plane, _folder) = testing::plane().await;
    let claim = claim_for(&plane, 1).await;
    let (key, public) = device_key();
    let first = let_in(&plane, &ask(&claim, &key, Some("edge-1"))).await.expect("enrolled");
    assert_eq!((first.device.as_str(), first.roots.len()), ("edge-1", 1));
    assert!(plane.live.get(&first.device).is_some_and(|live| live.fingerprint == public.fingerprint()));
    let again = let_in(&plane, &ask(&claim, &key, Some("edge-1"))).await.expect("enrolled");
    assert_eq!(again.device, first.device);
    let (other, _) = device_key();
    let refused = let_in(&plane, &ask(&claim, &other, Some("edge-2"))).await;
    assert!(matches!(refused, Err(EnrolError::Spent(1))));
    // The operator's labels win over the owner's.
    let device = db::devices::get(plane.db.read(), &first.device).await.expect("reads").expect("there");
    assert_eq!(device.labels, labels(&[("rack", "7"), ("site", "north")]));
    let views = db::claims::list(plane.db.read(), 10).await.expect("lists");
    assert_eq!((views[0].uses, views[0].used), (1, 1));
}

#[tokio::test]
async fn names_belong_to_keys() {
    let (plane, _folder) = testing::plane().await;
    let claim = claim_for(&plane, 5).await;
    let ((one, _), (two, two_public)) = (device_key(), device_key());
    let_in(&plane, &ask(&claim, &one, Some("edge-1"))).await.expect("enrolled");
    let taken = let_in(&plane, &ask(&claim, &two, Some("edge-1"))).await;
    assert!(matches!(taken, Err(EnrolError::NameTaken(_))));
    let unnamed = let_in(&plane, &ask(&claim, &two, None)).await.expect("enrolled");
    assert_eq!(unnamed.device.as_str(), format!("d-{}", two_public.fingerprint().short()));
    let second = claim_for(&plane, 5).await;
    let renamed = let_in(&plane, &ask(&second, &one, Some("edge-9"))).await;
    assert!(matches!(renamed, Err(EnrolError::AlreadyEnrolled(_))));
    assert_eq!(let_in(&plane, &ask(&second, &one, None)).await.expect("enrolled").device.as_str(), "edge-1");
}

#[tokio::test]
async fn without_a_root_or_a_right_nobody_gets_in() {
    let (bare, _folder) = testing::bare_plane().await;
    let claim = claim_for(&bare, 1).await;
    let (key, _) = device_key();
    assert!(matches!(let_in(&bare, &ask(&claim, &key, None)).await, Err(EnrolError::NoRoot)));
    let (plane, _folder) = testing::plane().await;
    let claim = claim_for(&plane, 1).await;
    for (id, secret) in [
        (claim.id.as_str(), "00".repeat(16)),
        ("0000000000000000", claim.secret.clone()),
        ("0000000000000000", "00".repeat(16)),
        ("not hex", claim.secret.clone()),
        (claim.id.as_str(), String::new()),
    ] {
        let asked = Enrol { claim: Some(id.to_owned()), secret: Some(secret), ..ask(&claim, &key, None) };
        assert!(matches!(let_in(&plane, &asked).await, Err(EnrolError::NoClaim)), "{id}");
    }
    for csr in [String::new(), "no PEM".into(), key.public_key_pem(), "x".repeat(CSR_BYTES_MAX + 1)] {
        let asked = Enrol { csr, ..ask(&claim, &key, None) };
        assert!(matches!(let_in(&plane, &asked).await, Err(EnrolError::Csr(_))));
    }
    let ed25519 = KeyPair::generate_for(&rcgen::PKCS_ED25519).expect("a key");
    assert!(matches!(let_in(&plane, &ask(&claim, &ed25519, None)).await, Err(EnrolError::Key(_))));
    let expired = ClaimRecord {
        id: [7; 8],
        secret: Digest::of([7; 16]),
        uses: 1,
        labels: Default::default(),
        expires_ms: now_ms() - 1,
        terms: Terms { anything: true, ..Terms::default() },
        name: None,
        void: false,
    };
    db::claims::insert(plane.db.write(), &expired, 1).await.expect("stores");
    let asked = Enrol { claim: Some("07".repeat(8)), secret: Some("07".repeat(16)), ..ask(&claim, &key, None) };
    assert!(matches!(let_in(&plane, &asked).await, Err(EnrolError::Expired)));
    for (uses, ttl_seconds) in [(0, 60), (CLAIM_USES_MAX + 1, 60), (1, 0), (1, CLAIM_TTL_SECONDS_MAX + 1)] {
        let asked = NewClaim {
            uses,
            ttl_seconds,
            labels: Default::default(),
            may_label: vec![],
            may_label_anything: true,
            needs_approval: false,
        };
        assert!(matches!(new_claim(&plane, &asked).await, Err(EnrolError::BadClaim)));
    }
}

#[test]
fn a_request_changed_after_it_was_signed_is_not_believed() {
    let (key, public) = device_key();
    let request = CertificateParams::default().serialize_request(&key).expect("a request");
    let der = request.der().to_vec();
    assert_eq!(key_of_der(&der).expect("good"), public);
    for at in 0..der.len() {
        let mut changed = der.clone();
        changed[at] ^= 1;
        // Bytes that no signature covers may change; the key may not.
        if let Ok(key) = key_of_der(&changed) {
            assert_eq!(key, public, "byte {at}");
        }
    }
}

#[tokio::test]
async fn a_renewal_needs_the_enrolled_key_twice() {
    let (plane, _folder) = testing::plane().await;
    let claim = claim_for(&plane, 1).await;
    let ((key, public), (other, _)) = (device_key(), device_key());
    let device = let_in(&plane, &ask(&claim, &key, Some("edge-1"))).await.expect("enrolled").device;
    let renewal = |signer: &KeyPair, requested: &KeyPair, device: &DeviceId| {
        let csr = CertificateParams::default().serialize_request(requested).expect("a request").der().to_vec();
        let payload = wire::encode(&Renewal { device: device.clone(), csr }).expect("encodes");
        let message = Envelope::message_to_sign(payload_type::RENEWAL, &payload);
        let sig = SigningKey::sign(signer, &message).expect("signs");
        Envelope::with_signature(payload_type::RENEWAL, payload, Signature { keyid: public.id(), sig })
    };
    let renewed = renew(&plane, &renewal(&key, &key, &device)).await.expect("renewed");
    assert_eq!(renewed.device, device);
    assert!(matches!(renew(&plane, &renewal(&other, &key, &device)).await, Err(EnrolError::NotTheDevice)));
    assert!(matches!(renew(&plane, &renewal(&key, &other, &device)).await, Err(EnrolError::Csr(_))));
    let stranger = "edge-2".parse().expect("an id");
    assert!(matches!(renew(&plane, &renewal(&key, &key, &stranger)).await, Err(EnrolError::NotTheDevice)));
}

fn new(claim: NewClaim) -> NewClaim {
    NewClaim { uses: 5, ttl_seconds: 60, ..claim }
}

fn bare_claim() -> NewClaim {
    new(NewClaim {
        uses: 1,
        ttl_seconds: 1,
        labels: labels(&[("site", "north")]),
        may_label: vec!["rack".parse().expect("a label")],
        may_label_anything: false,
        needs_approval: false,
    })
}

#[tokio::test]
async fn a_device_sets_only_the_labels_that_its_claim_allows() {
    let (plane, _folder) = testing::plane().await;
    let claim = new_claim(&plane, &bare_claim()).await.expect("a claim");
    for (asked, refused) in [
        (&[("rack", "7")][..], None),
        (&[("site", "north"), ("rack", "7")], None),
        (&[("site", "south")], Some("site")),
        (&[("gpu", "1")], Some("gpu")),
        (&[], None),
    ] {
        let (key, _) = device_key();
        let outcome = let_in(&plane, &Enrol { labels: labels(asked), ..ask(&claim, &key, None) }).await;
        match (outcome, refused) {
            (Ok(_), None) => {}
            (Err(EnrolError::Label(label)), Some(refused)) => assert_eq!(label.as_str(), refused),
            (other, _) => panic!("{asked:?}: {other:?}"),
        }
    }
}

#[tokio::test]
async fn a_claim_that_was_revoked_lets_nobody_new_in() {
    let (plane, _folder) = testing::plane().await;
    let claim = claim_for(&plane, 5).await;
    let ((one, _), (two, _)) = (device_key(), device_key());
    let_in(&plane, &ask(&claim, &one, None)).await.expect("enrolled");
    let id: [u8; 8] = hex::decode(&claim.id).expect("hex").try_into().expect("8 bytes");
    assert!(db::claims::end(plane.db.write(), id, 1).await.expect("ends"));
    assert!(matches!(let_in(&plane, &ask(&claim, &two, None)).await, Err(EnrolError::Void)));
    let_in(&plane, &ask(&claim, &one, None)).await.expect("a lost answer is given again");
    assert!(db::claims::list(plane.db.read(), 10).await.expect("lists")[0].void);
}

#[tokio::test]
async fn a_device_waits_until_an_operator_lets_it_in() {
    let (plane, _folder) = testing::plane().await;
    let claim = new_claim(&plane, &NewClaim { needs_approval: true, ..bare_claim() }).await.expect("a claim");
    let (key, public) = device_key();
    let asked = Enrol { labels: Labels::new(), ..ask(&claim, &key, Some("edge-1")) };
    for _ in 0..2 {
        assert!(matches!(enrol(&plane, &asked).await, Ok(Outcome::Waiting(_))));
    }
    let id: DeviceId = "edge-1".parse().expect("an id");
    let admitted = |plane: &Plane| crate::broker::Access::admit(&*plane.live, "edge-1", public.fingerprint().0);
    assert!(!admitted(&plane));
    members::approve(&plane, &id).await.expect("approved");
    assert_eq!(let_in(&plane, &asked).await.expect("enrolled").device, id);
    assert!(admitted(&plane));
    assert!(matches!(members::approve(&plane, &id).await, Err(members::MemberError::NothingToApprove(_))));
}

#[tokio::test]
async fn a_key_on_the_factory_list_needs_no_claim() {
    let (plane, _folder) = testing::plane().await;
    let ((listed, public), (other, _)) = (device_key(), device_key());
    let name = Some("edge-7".parse().expect("an id"));
    let entry = FactoryKey { fingerprint: public.fingerprint(), name, labels: labels(&[("site", "north")]) };
    add_to_factory_list(&plane, &[entry]).await.expect("added");
    let ask = |key: &KeyPair, name: Option<&str>| Enrol {
        claim: None,
        secret: None,
        csr: csr(key),
        name: name.map(|name| name.parse().expect("an id")),
        labels: Labels::new(),
    };
    assert!(matches!(let_in(&plane, &ask(&other, None)).await, Err(EnrolError::NotListed)));
    assert!(matches!(let_in(&plane, &ask(&listed, Some("edge-8"))).await, Err(EnrolError::OtherName(_))));
    for _ in 0..2 {
        assert_eq!(let_in(&plane, &ask(&listed, None)).await.expect("enrolled").device.as_str(), "edge-7");
    }
    let list = db::members::factory_list(plane.db.read(), 10).await.expect("lists");
    assert!(list[0].spent_ms.is_some());
    let device = db::devices::get(plane.db.read(), &"edge-7".parse().expect("an id")).await.expect("reads");
    assert_eq!(device.expect("there").labels, labels(&[("site", "north")]));
}

#[tokio::test]
async fn a_revoked_key_never_comes_back_and_its_name_may() {
    let (plane, _folder) = testing::plane().await;
    let claim = claim_for(&plane, 5).await;
    let ((key, public), (other, _)) = (device_key(), device_key());
    let id = let_in(&plane, &ask(&claim, &key, Some("edge-1"))).await.expect("enrolled").device;
    assert!(matches!(members::forget(&plane, &id).await, Err(members::MemberError::NotRevoked(_))));
    members::revoke(&plane, &id, "lost").await.expect("revoked");
    assert!(!plane.live.is_heard(&id));
    assert!(matches!(let_in(&plane, &ask(&claim, &key, Some("edge-1"))).await, Err(EnrolError::Revoked)));
    assert!(matches!(let_in(&plane, &ask(&claim, &other, Some("edge-1"))).await, Err(EnrolError::NameTaken(_))));
    assert!(matches!(members::approve(&plane, &id).await, Err(members::MemberError::IsRevoked(_))));
    members::forget(&plane, &id).await.expect("forgotten");
    let_in(&plane, &ask(&claim, &other, Some("edge-1"))).await.expect("another key under the name");
    assert!(matches!(let_in(&plane, &ask(&claim, &key, Some("edge-2"))).await, Err(EnrolError::Revoked)));
    assert!(plane.revocations.has(&public.fingerprint()));
}
