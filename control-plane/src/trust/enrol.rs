//! How a device becomes one of the fleet: a claim, spent by its key, gets it a certificate; later
//! the key alone gets it the next one.
//!
//! A lost reply or a power cut costs nothing: the same key with the same claim gets its certificate
//! again. Another key does not.

use std::hint::black_box;

use muster_shared::api::{Claim, Enrol, Enrolled, NewClaim};
use muster_shared::id::UnixMs;
use muster_shared::message::Renewal;
use muster_shared::signing::device::{DevicePublicKey, NotADeviceKey};
use muster_shared::signing::{Envelope, payload_type};
use muster_shared::{DeviceId, Digest, wire};
use sea_orm::ConnectionTrait;
use x509_parser::certification_request::X509CertificationRequest;
use x509_parser::prelude::FromDer;

use super::ca::CaError;
use crate::db::claims::ClaimRecord;
use crate::db::devices::Source;
use crate::db::{self, DbError};
use crate::now_ms;
use crate::plane::Plane;

/// Devices that one claim may enrol.
pub const CLAIM_USES_MAX: u32 = 10_000;
/// How long a claim may live.
pub const CLAIM_TTL_SECONDS_MAX: u64 = 90 * 86_400;
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
    /// Other keys have spent it.
    #[error("the claim was spent by {0} other devices, as many as it allows")]
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
    if asked.labels.len() > muster_shared::limits::LABELS_MAX {
        return Err(EnrolError::TooManyLabels);
    }
    let (mut id, mut secret) = ([0; 8], [0; 16]);
    getrandom::fill(&mut id).and_then(|()| getrandom::fill(&mut secret)).map_err(|_| CaError::Random)?;
    let now = now_ms();
    let claim = ClaimRecord {
        id,
        secret: Digest::of(secret),
        uses: asked.uses.into(),
        labels: asked.labels.clone(),
        expires_ms: now + asked.ttl_seconds * 1000,
    };
    db::claims::insert(plane.db.write(), &claim, now).await?;
    Ok(Claim { id: hex::encode(id), secret: hex::encode(secret), expires_ms: claim.expires_ms })
}

/// Enrols a device, or gives an enrolled one its certificate again.
pub async fn enrol(plane: &Plane, asked: &Enrol) -> Result<Enrolled, EnrolError> {
    if plane.trust.newest().is_none() {
        return Err(EnrolError::NoRoot);
    }
    if asked.labels.len() > muster_shared::limits::LABELS_MAX {
        return Err(EnrolError::TooManyLabels);
    }
    let key = key_of_pem(&asked.csr)?;
    let now = now_ms();
    // Before the one writer is asked for: who has no claim must not keep it busy.
    let claim =
        claim(plane.db.read(), asked.claim.as_deref().unwrap_or_default(), asked.secret.as_deref().unwrap_or_default())
            .await?;
    let transaction = plane.db.begin().await?;
    let device = admit(&transaction, &claim, asked, &key, now).await?;
    db::commit(transaction).await?;
    plane.live.enrolled(&device, &key);
    plane.nudges.planner.notify_one();
    tracing::info!(%device, "device enrolled");
    enrolled(plane, device, &key)
}

/// Gives an enrolled device its next certificate, for the same key.
pub async fn renew(plane: &Plane, envelope: &Envelope) -> Result<Enrolled, EnrolError> {
    // Who it says it is decides only whose key must have signed.
    let claimed: Renewal = wire::decode(&envelope.payload).map_err(|_| EnrolError::NotTheDevice)?;
    let device = db::devices::get(plane.db.read(), &claimed.device).await?.ok_or(EnrolError::NotTheDevice)?;
    let payload = envelope.verify_device(payload_type::RENEWAL, &device.key).map_err(|_| EnrolError::NotTheDevice)?;
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
    let good = same(&wanted, &Digest::of(secret_bytes)) & readable;
    claim.filter(|_| good).ok_or(EnrolError::NoClaim)
}

/// Compares in a time that tells nothing of where two digests differ.
fn same(a: &Digest, b: &Digest) -> bool {
    black_box(a.0.iter().zip(b.0).fold(0, |difference, (a, b)| difference | (a ^ b))) == 0
}

/// Decides who the device is, and notes it.
async fn admit(
    db: &impl ConnectionTrait,
    claim: &ClaimRecord,
    asked: &Enrol,
    key: &DevicePublicKey,
    now: UnixMs,
) -> Result<DeviceId, EnrolError> {
    let fingerprint = key.fingerprint();
    let known = db::devices::by_key(db, fingerprint).await?;
    let spenders = db::claims::keys(db, claim.id).await?;
    if let Some(known) = &known
        && spenders.contains(&fingerprint)
    {
        return Ok(known.clone());
    }
    if claim.expires_ms <= now {
        return Err(EnrolError::Expired);
    }
    if spenders.len() as u64 >= claim.uses {
        return Err(EnrolError::Spent(claim.uses));
    }
    let device = match (known, &asked.name) {
        (Some(known), Some(name)) if known != *name => return Err(EnrolError::AlreadyEnrolled(known)),
        (Some(known), _) => known,
        (None, name) => {
            let name = match name {
                Some(name) => name.clone(),
                None => name_of_key(fingerprint)?,
            };
            if db::devices::exists(db, &name).await? {
                return Err(EnrolError::NameTaken(name));
            }
            db::devices::insert(db, &name, key, now).await?;
            name
        }
    };
    db::devices::set_labels(db, &device, Source::Owner, &asked.labels).await?;
    db::devices::set_labels(db, &device, Source::Claim, &claim.labels).await?;
    db::claims::spend(db, claim.id, fingerprint, now).await?;
    Ok(device)
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
