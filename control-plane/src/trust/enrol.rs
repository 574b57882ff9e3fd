//! How a device becomes one of the fleet: a claim, spent by its key, gets it a certificate; later
//! the key alone gets it the next one.
//!
//! A lost reply or a power cut costs nothing: the same key with the same claim gets its certificate
//! again. Another key does not.

use std::collections::BTreeSet;
use std::hint::black_box;

use muster_shared::api::fleet::Happening;
use muster_shared::api::members::{FactoryKey, Standing};
use muster_shared::api::{Claim, Enrol, EnrolWaiting, Enrolled, NewClaim, NewClaims};
use muster_shared::checks::{self, Check};
use muster_shared::id::{LabelText, Labels, UnixMs};
use muster_shared::message::Renewal;
use muster_shared::signing::device::{DevicePublicKey, NotADeviceKey};
use muster_shared::signing::{Envelope, payload_type};
use muster_shared::{DeviceId, Digest, wire};
use sea_orm::ConnectionTrait;
use x509_parser::certification_request::X509CertificationRequest;
use x509_parser::prelude::FromDer;

use super::ca::CaError;
use super::ledger::count_change;
use super::members::{self, event};
use crate::db::claims::{ClaimRecord, Terms};
use crate::db::devices::Source;
use crate::db::{self, DbError};
use crate::now_ms;
use crate::plane::Plane;

/// Devices that one claim may enrol.
pub const CLAIM_USES_MAX: u32 = 10_000;
/// How long a claim may live.
pub const CLAIM_TTL_SECONDS_MAX: u64 = 90 * 86_400;
/// Keys on the factory list.
pub const FACTORY_KEYS_MAX: u64 = 1_000_000;
/// A certificate request, PEM.
pub const CSR_BYTES_MAX: usize = 8 * 1024;

/// Why a device does not get a certificate.
#[derive(Debug, thiserror::Error)]
pub enum EnrolError {
    /// There is no fleet yet.
    #[error("this control plane has no root yet, so it takes no devices")]
    NoRoot,
    /// No such claim, or another secret: which of the two is nobody's business.
    #[error("no claim has this id and this secret")]
    NoClaim,
    /// Its time is over.
    #[error("the claim has expired")]
    Expired,
    /// It was revoked, or is older than the state of the database.
    #[error("the claim counts no more: it was revoked, or made before this control plane was restored")]
    Void,
    /// Neither a claim nor a key on the list.
    #[error("the request names no claim, and its key is not on the factory list")]
    NotListed,
    /// A label that only the operator gives.
    #[error("the claim does not let a device set the label {0}")]
    Label(LabelText),
    /// The claim or the factory list gives another name.
    #[error("this device's name is {0}, as its claim or the factory list says")]
    OtherName(DeviceId),
    /// The key is one of the fleet no more.
    #[error("this device's key is revoked")]
    Revoked,
    /// An operator has yet to let it in.
    #[error("device {0} waits for an operator to let it in")]
    Waiting(DeviceId),
    /// Too long a list.
    #[error("the factory list holds at most {FACTORY_KEYS_MAX} keys")]
    FactoryFull,
    /// Other keys have spent it.
    #[error("the claim was spent before: it is good for {0} in all")]
    Spent(u64),
    /// The certificate request proves nothing.
    #[error("the certificate request is not usable: {0}")]
    Csr(&'static str),
    /// Not a device's key.
    #[error("the certificate request is not usable")]
    Key(#[from] NotADeviceKey),
    /// Someone else has the name.
    #[error("the name {0} belongs to a device with another key")]
    NameTaken(DeviceId),
    /// The key has another name.
    #[error("this key is already enrolled as {0}")]
    AlreadyEnrolled(DeviceId),
    /// Somebody else is to have the name.
    #[error("a claim for the name {0} is open")]
    NameReserved(DeviceId),
    /// Twice in one list.
    #[error("the name {0} stands in the list twice")]
    NameTwice(DeviceId),
    /// Too long a list, or an empty one.
    #[error("1 to {} claims are made at once", muster_shared::limits::CLAIMS_AT_A_TIME_MAX)]
    HowMany,
    /// Too many labels.
    #[error("more than {} labels", muster_shared::limits::LABELS_MAX)]
    TooManyLabels,
    /// A claim with impossible numbers.
    #[error("a claim has 1 to {CLAIM_USES_MAX} uses and lives 1 to {CLAIM_TTL_SECONDS_MAX} seconds")]
    BadClaim,
    /// The renewal is not by an enrolled key.
    #[error("the renewal is not signed by the device's enrolled key")]
    NotTheDevice,
    /// No certificate could be made.
    #[error(transparent)]
    Ca(#[from] CaError),
    /// The database failed.
    #[error(transparent)]
    Db(#[from] DbError),
}

/// Makes a claim. Its secret is shown once; only its digest is stored.
pub async fn new_claim(plane: &Plane, asked: &NewClaim) -> Result<Claim, EnrolError> {
    let in_range =
        (1..=CLAIM_USES_MAX).contains(&asked.uses) && (1..=CLAIM_TTL_SECONDS_MAX).contains(&asked.ttl_seconds);
    if !in_range {
        return Err(EnrolError::BadClaim);
    }
    if asked.labels.len().max(asked.may_label.len()) > muster_shared::limits::LABELS_MAX {
        return Err(EnrolError::TooManyLabels);
    }
    let now = now_ms();
    let terms = Terms {
        may_label: asked.may_label.clone(),
        anything: asked.may_label_anything,
        needs_approval: asked.needs_approval,
    };
    let (record, claim) = drawn(asked.uses.into(), asked.labels.clone(), terms, now + asked.ttl_seconds * 1000)?;
    let transaction = plane.db.begin().await?;
    db::claims::insert(&transaction, &record, now).await?;
    db::commit(transaction).await?;
    count_change(plane).await?;
    Ok(claim)
}

/// A claim with a new id and secret; the record has only the secret's digest.
fn drawn(uses: u64, labels: Labels, terms: Terms, expires_ms: UnixMs) -> Result<(ClaimRecord, Claim), EnrolError> {
    let (mut id, mut secret) = ([0; 8], [0; 16]);
    getrandom::fill(&mut id).and_then(|()| getrandom::fill(&mut secret)).map_err(|_| CaError::Random)?;
    let record =
        ClaimRecord { id, secret: Digest::of(secret), uses, labels, expires_ms, terms, name: None, void: false };
    Ok((record, Claim { id: hex::encode(id), secret: hex::encode(secret), expires_ms }))
}

/// Makes a claim for each of many devices whose names are known: all of them, or none. Until it is spent or
/// ends, nobody else gets that name.
pub async fn new_claims(plane: &Plane, asked: &NewClaims) -> Result<Vec<Claim>, EnrolError> {
    if !(1..=muster_shared::limits::CLAIMS_AT_A_TIME_MAX).contains(&asked.devices.len()) {
        return Err(EnrolError::HowMany);
    }
    if !(1..=CLAIM_TTL_SECONDS_MAX).contains(&asked.ttl_seconds) {
        return Err(EnrolError::BadClaim);
    }
    let now = now_ms();
    let mut names = BTreeSet::new();
    let mut claims = Vec::with_capacity(asked.devices.len());
    let transaction = plane.db.begin().await?;
    for device in &asked.devices {
        if device.labels.len() > muster_shared::limits::LABELS_MAX {
            return Err(EnrolError::TooManyLabels);
        }
        if !names.insert(&device.name) {
            return Err(EnrolError::NameTwice(device.name.clone()));
        }
        if db::devices::exists(&transaction, &device.name).await? {
            return Err(EnrolError::NameTaken(device.name.clone()));
        }
        for open in db::claims::open_for(&transaction, &device.name, now).await? {
            if !asked.replace {
                return Err(EnrolError::NameReserved(device.name.clone()));
            }
            db::claims::end(&transaction, open, now).await?;
        }
        let terms = Terms { needs_approval: asked.needs_approval, ..Terms::default() };
        let (record, claim) = drawn(1, device.labels.clone(), terms, now + asked.ttl_seconds * 1000)?;
        let record = ClaimRecord { name: Some(device.name.clone()), ..record };
        db::claims::insert(&transaction, &record, now).await?;
        claims.push(claim);
    }
    db::commit(transaction).await?;
    count_change(plane).await?;
    Ok(claims)
}

/// Puts keys on the factory list.
pub async fn add_to_factory_list(plane: &Plane, keys: &[FactoryKey]) -> Result<(), EnrolError> {
    if keys.iter().any(|key| key.labels.len() > muster_shared::limits::LABELS_MAX) {
        return Err(EnrolError::TooManyLabels);
    }
    let now = now_ms();
    let transaction = plane.db.begin().await?;
    for key in keys {
        db::members::factory_add(&transaction, key, now).await?;
    }
    if db::members::factory_count(&transaction).await? > FACTORY_KEYS_MAX {
        return Err(EnrolError::FactoryFull);
    }
    db::commit(transaction).await?;
    Ok(count_change(plane).await?)
}

/// What comes of asking to enrol.
#[derive(Debug, Clone, PartialEq)]
pub enum Outcome {
    /// A certificate.
    Enrolled(Box<Enrolled>),
    /// An operator has yet to let it in.
    Waiting(EnrolWaiting),
}

/// By what a device may enrol.
struct Right {
    /// What is spent: a claim, or an entry of the factory list.
    claim: Option<ClaimRecord>,
    /// Labels that the operator gives.
    labels: Labels,
    /// What the device may ask for.
    terms: Terms,
    /// The name that the operator gives.
    name: Option<DeviceId>,
}

/// Enrols a device, or gives an enrolled one its certificate again.
pub async fn enrol(plane: &Plane, asked: &Enrol) -> Result<Outcome, EnrolError> {
    if plane.trust.newest().is_none() {
        return Err(EnrolError::NoRoot);
    }
    if asked.labels.len() > muster_shared::limits::LABELS_MAX {
        return Err(EnrolError::TooManyLabels);
    }
    let now = now_ms();
    // Before a signature is checked and the one writer is asked for: who has no right must not keep us busy.
    let claim = match (&asked.claim, &asked.secret) {
        (None, None) => None,
        (id, secret) => {
            let (id, secret) = (id.as_deref().unwrap_or_default(), secret.as_deref().unwrap_or_default());
            Some(claim(plane.db.read(), id, secret).await?)
        }
    };
    let key = key_of_pem(&asked.csr)?;
    let right = right(plane, claim, &key).await?;
    if !members::may_come(plane, &key.fingerprint()) {
        return Err(EnrolError::Revoked);
    }
    let transaction = plane.db.begin().await?;
    // It may have been revoked while this waited.
    if !members::may_come(plane, &key.fingerprint()) {
        return Err(EnrolError::Revoked);
    }
    let (device, is_new) = admit(&transaction, &right, asked, &key, now).await?;
    let standing = match (is_new, right.terms.needs_approval) {
        (true, true) => {
            let why = "it asked to enrol; `muster approve` lets it in";
            db::members::set_standing(&transaction, &device, (Standing::Waiting, why), now).await?;
            db::events::insert(&transaction, &event(Some(&device), Happening::DeviceHeld, why.to_owned())).await?;
            Standing::Waiting
        }
        (true, false) => {
            let text = "enrolled".to_owned();
            db::events::insert(&transaction, &event(Some(&device), Happening::DeviceEnrolled, text)).await?;
            Standing::Member
        }
        (false, _) => db::members::standing(&transaction, &device).await?.standing,
    };
    db::commit(transaction).await?;
    if is_new {
        count_change(plane).await?;
    }
    plane.live.enrolled(&device, &key);
    match standing {
        Standing::Waiting => {
            if is_new {
                plane.live.stands(&device, Standing::Waiting, "it asked to enrol; `muster approve` lets it in");
            }
            let detail = EnrolError::Waiting(device.clone()).to_string();
            Ok(Outcome::Waiting(EnrolWaiting { device, detail }))
        }
        Standing::Revoked if checks::on(Check::EnrolledKey) => Err(EnrolError::Revoked),
        _ => {
            plane.nudges.planner.notify_one();
            tracing::info!(%device, "device enrolled");
            Ok(Outcome::Enrolled(Box::new(enrolled(plane, device, &key)?)))
        }
    }
}

/// By what a key may enrol: the claim that it shows, or its place on the factory list.
async fn right(plane: &Plane, claim: Option<ClaimRecord>, key: &DevicePublicKey) -> Result<Right, EnrolError> {
    if let Some(claim) = claim {
        let (labels, terms, name) = (claim.labels.clone(), claim.terms.clone(), claim.name.clone());
        return Ok(Right { claim: Some(claim), labels, terms, name });
    }
    let entry = db::members::factory_get(plane.db.read(), key.fingerprint()).await?.ok_or(EnrolError::NotListed)?;
    Ok(Right { claim: None, labels: entry.labels, terms: Terms::default(), name: entry.name })
}

/// Gives an enrolled device its next certificate, for the same key.
pub async fn renew(plane: &Plane, envelope: &Envelope) -> Result<Enrolled, EnrolError> {
    // Who it says it is decides only whose key must have signed.
    let claimed: Renewal = wire::decode(&envelope.payload).map_err(|_| EnrolError::NotTheDevice)?;
    let device = db::devices::get(plane.db.read(), &claimed.device).await?.ok_or(EnrolError::NotTheDevice)?;
    let verified = envelope.verify_device(payload_type::RENEWAL, &device.key);
    let payload = match verified {
        Err(_) if checks::on(Check::DeviceSignature) => return Err(EnrolError::NotTheDevice),
        Err(_) => &envelope.payload,
        Ok(payload) => payload,
    };
    let standing = db::members::standing(plane.db.read(), &device.id).await?.standing;
    if !members::may_come(plane, &device.key.fingerprint()) {
        return Err(EnrolError::Revoked);
    }
    if checks::on(Check::EnrolledKey) {
        match standing {
            Standing::Member | Standing::Cloned | Standing::Leaving => {}
            Standing::Revoked => return Err(EnrolError::Revoked),
            Standing::Waiting | Standing::Held => return Err(EnrolError::Waiting(device.id)),
        }
    }
    let renewal: Renewal = wire::decode(payload).map_err(|_| EnrolError::NotTheDevice)?;
    if key_of_der(&renewal.csr)? != device.key {
        return Err(EnrolError::Csr("it is for another key than the enrolled one"));
    }
    enrolled(plane, device.id, &device.key)
}

fn enrolled(plane: &Plane, device: DeviceId, key: &DevicePublicKey) -> Result<Enrolled, EnrolError> {
    Ok(Enrolled {
        certificate: plane.authority.device_certificate(&device, key)?,
        ca: plane.authority.certificate_pem().to_owned(),
        roots: plane.trust.all(),
        mqtt: plane.mqtt_address(),
        tunnel: plane.tunnel_address(),
        device,
    })
}

/// The claim with this id, if the secret is its secret. The work is the same whatever is wrong.
async fn claim(db: &impl ConnectionTrait, id: &str, secret: &str) -> Result<ClaimRecord, EnrolError> {
    let (mut id_bytes, mut secret_bytes) = ([0; 8], [0; 16]);
    let readable =
        hex::decode_to_slice(id, &mut id_bytes).is_ok() & hex::decode_to_slice(secret, &mut secret_bytes).is_ok();
    let claim = db::claims::get(db, id_bytes).await?;
    let wanted = claim.as_ref().map_or(Digest([0; 32]), |claim| claim.secret);
    let good = (same(&wanted, &Digest::of(secret_bytes)) & readable) || !checks::on(Check::ClaimSecret);
    claim.filter(|_| good).ok_or(EnrolError::NoClaim)
}

/// Compares in a time that tells nothing of where two digests differ.
fn same(a: &Digest, b: &Digest) -> bool {
    black_box(a.0.iter().zip(b.0).fold(0, |difference, (a, b)| difference | (a ^ b))) == 0
}

/// Decides who the device is, and notes it. Says whether it is new.
async fn admit(
    db: &impl ConnectionTrait,
    right: &Right,
    asked: &Enrol,
    key: &DevicePublicKey,
    now: UnixMs,
) -> Result<(DeviceId, bool), EnrolError> {
    let fingerprint = key.fingerprint();
    let known = db::devices::by_key(db, fingerprint).await?;
    match &right.claim {
        Some(claim) => {
            let spenders = db::claims::keys(db, claim.id).await?;
            if let Some(known) = &known
                && spenders.contains(&fingerprint)
            {
                return Ok((known.clone(), false));
            }
            if claim.void {
                return Err(EnrolError::Void);
            }
            if checks::on(Check::ClaimExpiry) && claim.expires_ms <= now {
                return Err(EnrolError::Expired);
            }
            if checks::on(Check::ClaimUses) && spenders.len() as u64 >= claim.uses {
                return Err(EnrolError::Spent(claim.uses));
            }
        }
        None => {
            if let Some(known) = &known {
                return Ok((known.clone(), false));
            }
        }
    }
    if let Some(label) = not_allowed(right, &asked.labels).filter(|_| checks::on(Check::ClaimLabels)) {
        return Err(EnrolError::Label(label.clone()));
    }
    let name = match (&right.name, &asked.name) {
        (Some(given), Some(asked)) if given != asked => return Err(EnrolError::OtherName(given.clone())),
        (given, asked) => given.as_ref().or(asked.as_ref()).cloned(),
    };
    let is_new = known.is_none();
    let device = match (known, name) {
        (Some(known), Some(name)) if known != name => return Err(EnrolError::AlreadyEnrolled(known)),
        (Some(known), _) => known,
        (None, name) => {
            let name = name.map_or_else(|| name_of_key(fingerprint), Ok)?;
            if db::devices::exists(db, &name).await? {
                return Err(EnrolError::NameTaken(name));
            }
            let own = right.claim.as_ref().map(|claim| claim.id);
            if db::claims::open_for(db, &name, now).await?.iter().any(|open| Some(*open) != own) {
                return Err(EnrolError::NameReserved(name));
            }
            db::devices::insert(db, &name, key, now).await?;
            name
        }
    };
    db::devices::set_labels(db, &device, Source::Owner, &asked.labels).await?;
    db::devices::set_labels(db, &device, Source::Claim, &right.labels).await?;
    match &right.claim {
        Some(claim) => db::claims::spend(db, claim.id, fingerprint, now).await?,
        None => db::members::factory_spend(db, fingerprint, now).await?,
    }
    Ok((device, is_new))
}

/// A label that the device asks for and may not set. One that it gets anyway is no wish of its own.
fn not_allowed<'a>(right: &Right, asked: &'a Labels) -> Option<&'a LabelText> {
    let is_allowed = |key: &LabelText, value: &LabelText| {
        right.terms.anything || right.terms.may_label.contains(key) || right.labels.get(key) == Some(value)
    };
    asked.iter().find(|(key, value)| !is_allowed(key, value)).map(|(key, _)| key)
}

/// The name of a device that asked for none: `d-` and the first eight hex digits of its fingerprint.
fn name_of_key(fingerprint: Digest) -> Result<DeviceId, EnrolError> {
    format!("d-{}", fingerprint.short()).parse().map_err(|_| EnrolError::Csr("its key gives no name"))
}

/// The key that a certificate request in PEM is for.
pub fn key_of_pem(pem: &str) -> Result<DevicePublicKey, EnrolError> {
    if pem.len() > CSR_BYTES_MAX {
        return Err(EnrolError::Csr("it is longer than any request for a P-256 key"));
    }
    let (_, pem) = x509_parser::pem::parse_x509_pem(pem.as_bytes()).map_err(|_| EnrolError::Csr("it is no PEM"))?;
    key_of_der(&pem.contents)
}

/// The key that a certificate request is for, once its holder has proven to have it. All else that
/// a request can ask for is ignored: the certificate says what we say.
pub fn key_of_der(der: &[u8]) -> Result<DevicePublicKey, EnrolError> {
    if der.len() > CSR_BYTES_MAX {
        return Err(EnrolError::Csr("it is longer than any request for a P-256 key"));
    }
    let (rest, csr) = X509CertificationRequest::from_der(der).map_err(|_| EnrolError::Csr("it is malformed"))?;
    if !rest.is_empty() {
        return Err(EnrolError::Csr("something follows it"));
    }
    let info = &csr.certification_request_info;
    let key = DevicePublicKey::from_spki(info.subject_pki.raw)?;
    if !key.verify(info.raw, &csr.signature_value.data) {
        return Err(EnrolError::Csr("it is not signed by its own key"));
    }
    Ok(key)
}

#[cfg(test)]
mod tests;
