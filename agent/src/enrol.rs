//! How a device joins a fleet, and how its certificate is renewed. Everything the device is to
//! believe comes from the claim token, or was baked into its image: the server must show the CA and serve
//! the root named there.
//!
//! An enrolment that waits, for an operator or since too many ask, goes on by itself; one that was cut off
//! is begun again, with the same key: it was durable before the first request.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, anyhow, bail};
use axum::http::StatusCode;
use axum::http::header::RETRY_AFTER;
use bytes::Bytes;
use http_body_util::{BodyExt as _, Full, Limited};
use hyper_util::client::legacy::Client;
use hyper_util::rt::TokioExecutor;
use muster_agent_core::backoff::delay_ms;
use muster_shared::api::{Enrol, EnrolWaiting, Enrolled, Problem, Renew};
use muster_shared::checks::{self, Check};
use muster_shared::claim::ClaimToken;
use muster_shared::id::{Labels, UnixMs};
use muster_shared::message::Renewal;
use muster_shared::root::TrustedRoot;
use muster_shared::signing::{Envelope, payload_type};
use muster_shared::{DeviceId, Digest, wire};
use muster_tls::TimeKnown;
use rustls::CertificateError;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use serde::Serialize;

use crate::config::{RawConfig, RawDoor, RawLimits, RawTrust};
use crate::identity::{self, DeviceKey, Enrolment};
use crate::mqtt::tls_cause;
use crate::outside::{Timekeeper, jitter};

/// How long the control plane may take to answer.
const ANSWER_DEADLINE: Duration = Duration::from_secs(30);
/// An answer: a certificate, a CA and every root so far.
const ANSWER_BYTES_MAX: usize = 4 * 1024 * 1024;
/// A server that says to come back later than this is asked sooner.
const RETRY_AFTER_MAX: Duration = Duration::from_secs(3600);

/// What a device must know beforehand; never learned from the server that it is to distrust.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pins {
    /// The digest of the root that it starts from.
    pub root: Digest,
    /// The digest of the CA that the server must show.
    pub ca: Digest,
    /// A time that has surely passed: when the claim or the image was made.
    pub issued_ms: UnixMs,
}

/// How to join.
#[derive(Debug)]
pub struct Enrolling {
    /// The control plane's API.
    pub url: String,
    /// What to believe.
    pub pins: Pins,
    /// The claim's id and secret, hex; none: this device's key is on the factory list.
    pub claim: Option<(String, String)>,
    /// Where the agent keeps everything.
    pub data: PathBuf,
    /// The id that it would like.
    pub name: Option<DeviceId>,
    /// What its owner calls it.
    pub labels: Labels,
    /// Whether to wait for an operator's approval, and while too many ask.
    pub wait: bool,
    /// Whether an `agent.toml` is written beside the data; not where the device's owner has one elsewhere.
    pub writes_config: bool,
}

impl Pins {
    /// From a claim, or from what an image brings: one of the two, whole.
    pub fn new(
        claim: Option<&ClaimToken>,
        root: Option<Digest>,
        ca: Option<Digest>,
        not_before_ms: Option<UnixMs>,
    ) -> anyhow::Result<Self> {
        match (claim, root, ca) {
            (Some(claim), None, None) => {
                let issued_ms = claim.issued_ms.max(not_before_ms.unwrap_or(0));
                Ok(Self { root: claim.root, ca: claim.ca, issued_ms })
            }
            (None, Some(root), Some(ca)) => Ok(Self { root, ca, issued_ms: not_before_ms.unwrap_or(0) }),
            (Some(_), ..) => bail!("a claim brings its digests along; leave --root-digest and --ca-digest out"),
            (None, None, _) => bail!(
                "without the digest of its root a device would have to believe the server it is to distrust; name a \
                 claim from `muster claim new` with --claim, or --root-digest and --ca-digest as baked into the image"
            ),
            (None, Some(_), None) => bail!(
                "without the digest of its CA a device cannot tell the control plane from another server; add \
                 --ca-digest, which the control plane prints when it starts"
            ),
        }
    }
}

/// What an answer to an enrolment means.
#[derive(Debug)]
enum Step {
    /// It is done.
    Done(Box<Enrolled>),
    /// Ask again after a while, and why; not sooner than this, where the server says so.
    Wait(String, Option<Duration>),
}

/// Enrols the device whose data lies in `data`. Doing it again with the same key is harmless. `tell` hears
/// why it waits.
pub async fn enrol(asked: &Enrolling, tell: &(dyn Fn(&str) + Sync)) -> anyhow::Result<Enrolment> {
    let Enrolling { url, pins, data, .. } = asked;
    std::fs::create_dir_all(data).with_context(|| format!("cannot make {}", data.display()))?;
    if let Some(enrolment) = identity::enrolment(data)? {
        bail!("this device is enrolled already, as {}; `muster-agent run` starts it", enrolment.device);
    }
    let key = DeviceKey::open_or_make(data)?;
    let (claim, secret) = asked.claim.clone().unzip();
    let request = Enrol {
        claim,
        secret,
        csr: key.request(asked.name.as_ref())?.pem()?,
        name: asked.name.clone(),
        labels: asked.labels.clone(),
    };
    let time = Timekeeper::unconfirmed(pins.issued_ms);
    let (mut attempt, mut told) = (0, String::new());
    let enrolled = loop {
        let answer = ask(url, "enrol", pins.ca, time.known(), &request).await;
        let step = match answer.and_then(|answer| step(&answer, &key, asked.claim.is_some())) {
            // It was noted, or told to come back: a server that is away meanwhile changes nothing.
            Err(error) if !told.is_empty() && error.downcast_ref::<CannotReach>().is_some() => {
                Step::Wait(format!("{error:#}"), None)
            }
            step => step?,
        };
        let (text, after) = match step {
            Step::Done(enrolled) => break *enrolled,
            Step::Wait(text, after) => (text, after),
        };
        if !asked.wait {
            bail!("{text}; run the same command again later: the key is kept");
        }
        if text != told {
            tell(&format!("{text}; asking again until then (this command may be stopped and run again)"));
            told = text;
        }
        let pause = Duration::from_millis(delay_ms(attempt, jitter()));
        tokio::time::sleep(pause.max(after.unwrap_or_default())).await;
        attempt += 1;
    };
    let root = follow_roots(&enrolled.roots, pins.root)?;
    check_certificates(&enrolled, pins.ca, &key)?;

    identity::save_certificate(data, &enrolled.certificate)?;
    if asked.writes_config {
        write_config(data, asked.labels.clone())?;
    }
    let mqtt = broker_address(&enrolled.mqtt, url)?;
    let enrolment = Enrolment {
        device: enrolled.device,
        url: url.to_owned(),
        mqtt,
        ca: pins.ca,
        root: pins.root,
        roots: enrolled.roots,
        issued_ms: pins.issued_ms,
    };
    identity::save_enrolment(data, &enrolment)?;
    tracing::info!(device = %enrolment.device, fleet = %root.root().fleet, "enrolled");
    Ok(enrolment)
}

fn step(answer: &Answer, key: &DeviceKey, with_claim: bool) -> anyhow::Result<Step> {
    match answer.status {
        StatusCode::ACCEPTED => {
            let waiting: EnrolWaiting = answer.read()?;
            let fingerprint = key.fingerprint();
            Ok(Step::Wait(
                format!("noted as {}, which waits: {} (its key is {fingerprint})", waiting.device, waiting.detail),
                None,
            ))
        }
        StatusCode::TOO_MANY_REQUESTS => {
            Ok(Step::Wait("the control plane takes no more enrolments for the moment".to_owned(), answer.retry_after))
        }
        status if status.is_success() => Ok(Step::Done(Box::new(answer.read()?))),
        StatusCode::FORBIDDEN | StatusCode::UNAUTHORIZED if !with_claim => {
            let refusal = answer.refusal("enrol");
            bail!("{refusal}; the operator puts this device's key on the factory list: {}", key.fingerprint())
        }
        _ => Err(answer.refusal("enrol")),
    }
}

/// Asks for a new certificate for the same key and keeps it.
pub async fn renew(enrolment: &Enrolment, key: &DeviceKey, data: &Path, known: TimeKnown) -> anyhow::Result<()> {
    let csr = key.request(Some(&enrolment.device))?.der().to_vec();
    let renewal = wire::encode(&Renewal { device: enrolment.device.clone(), csr })?;
    let request = Renew { renewal: key.sign(payload_type::RENEWAL, renewal)? };
    let answer = ask(&enrolment.url, "renew", enrolment.ca, known, &request).await?;
    if !answer.status.is_success() {
        return Err(answer.refusal("renew"));
    }
    let enrolled: Enrolled = answer.read()?;
    check_certificates(&enrolled, enrolment.ca, key)?;
    Ok(identity::save_certificate(data, &enrolled.certificate)?)
}

/// Follows the roots from the pinned one to the newest.
pub fn follow_roots(roots: &[Envelope], pinned: Digest) -> anyhow::Result<TrustedRoot> {
    let is_pinned = |root: &&Envelope| !checks::on(Check::PinnedRoot) || Digest::of(&root.payload) == pinned;
    let mut roots = roots.iter().skip_while(|root| !is_pinned(root));
    let first = roots.next().with_context(|| {
        format!(
            "the control plane does not have the root {} that the claim names: it is of another fleet, or began anew; \
             compare with `muster keys show`, and make a new claim with `muster claim new`",
            pinned.short()
        )
    })?;
    let mut trusted = match checks::on(Check::PinnedRoot) {
        true => TrustedRoot::pinned(first, pinned)?,
        false => TrustedRoot::self_signed(first)?,
    };
    for next in roots {
        trusted = trusted.follow(next).context("the control plane's roots do not follow one another")?;
    }
    Ok(trusted)
}

/// Follows the roots that came after a trusted one; earlier ones among them are passed over.
pub fn follow_later(mut trusted: TrustedRoot, roots: &[Envelope]) -> anyhow::Result<TrustedRoot> {
    for next in roots {
        let version = TrustedRoot::self_signed(next)?.root().version;
        if version > trusted.root().version {
            trusted = trusted.follow(next)?;
        }
    }
    Ok(trusted)
}

/// Whether what came with an enrolment or a renewal is of the pinned CA and for this device's key.
pub fn check_certificates(enrolled: &Enrolled, ca: Digest, key: &DeviceKey) -> anyhow::Result<()> {
    let shown =
        CertificateDer::from_pem_slice(enrolled.ca.as_bytes()).context("the CA's certificate cannot be read")?;
    if checks::on(Check::PinnedCa) && Digest::of(&shown) != ca {
        bail!("the control plane's CA is not the one that the claim names; make a new claim with `muster claim new`");
    }
    let own = CertificateDer::from_pem_slice(enrolled.certificate.as_bytes())
        .context("the client certificate cannot be read")?;
    if !identity::is_for(&own, key) {
        bail!("the client certificate is for another key than this device's");
    }
    Ok(())
}

/// Where the broker is, from what the control plane says and how it was reached.
pub fn broker_address(offered: &str, url: &str) -> anyhow::Result<String> {
    let (host, port) = offered.rsplit_once(':').context("the control plane names no broker")?;
    if !host.is_empty() {
        return Ok(offered.to_owned());
    }
    let uri: axum::http::Uri = url.parse().context("the URL cannot be read")?;
    let host = uri.host().context("the URL has no host")?;
    Ok(format!("{host}:{port}"))
}

fn write_config(data: &Path, labels: Labels) -> anyhow::Result<()> {
    let path = data.join("agent.toml");
    if path.exists() {
        // The owner's file stays as it is.
        return Ok(());
    }
    let raw = RawConfig {
        data: ".".into(),
        door: RawDoor::default(),
        limits: RawLimits::default(),
        trust: RawTrust::default(),
        telemetry_every: muster_shared::quantity::Millis(10_000),
        labels,
        local_mqtt: None,
    };
    identity::write_durably(&path, toml::to_string_pretty(&raw)?.as_bytes(), 0o644)?;
    Ok(())
}

/// The server cannot be reached, or is not the one that is meant.
#[derive(Debug, thiserror::Error)]
#[error("cannot reach {0}")]
struct CannotReach(String);

/// What the control plane answered.
#[derive(Debug)]
struct Answer {
    status: StatusCode,
    retry_after: Option<Duration>,
    body: Bytes,
}

impl Answer {
    fn read<A: serde::de::DeserializeOwned>(&self) -> anyhow::Result<A> {
        serde_json::from_slice(&self.body).context("the control plane's answer cannot be read")
    }

    /// The refusal in its own words, with its own next move.
    fn refusal(&self, what: &str) -> anyhow::Error {
        let problem: Option<Problem> = serde_json::from_slice(&self.body).ok();
        let text = problem.map_or_else(
            || self.status.to_string(),
            |problem| {
                let hint = problem.hint.map_or_else(String::new, |hint| format!("; {hint}"));
                format!("{}{hint}", problem.detail)
            },
        );
        anyhow!("the control plane refused to {what} this device: {text}")
    }
}

async fn ask(url: &str, what: &str, ca: Digest, known: TimeKnown, request: &impl Serialize) -> anyhow::Result<Answer> {
    let uri = format!("{}/api/v1/{what}", url.trim_end_matches('/'));
    if !uri.starts_with("https://") {
        bail!("{url:?}: the control plane is reached by https:// only");
    }
    // However unsure the server's time is: what it answers is checked against the pinned CA and root, and a
    // certificate for this key that is of no use is replaced by the next renewal.
    let (tls, _) = muster_tls::device_client(ca, None, known)?;
    let connector = hyper_rustls::HttpsConnectorBuilder::new().with_tls_config(tls).https_only().enable_http1().build();
    let client: Client<_, Full<Bytes>> = Client::builder(TokioExecutor::new()).build(connector);
    let body = serde_json::to_vec(request)?;
    let request = axum::http::Request::post(&uri).header("content-type", "application/json").body(body.into())?;
    let asked = async {
        let response = client.request(request).await?;
        let retry_after = response.headers().get(RETRY_AFTER).and_then(|value| value.to_str().ok()?.parse().ok());
        let retry_after = retry_after.map(|seconds| RETRY_AFTER_MAX.min(Duration::from_secs(seconds)));
        let (status, body) = (response.status(), Limited::new(response.into_body(), ANSWER_BYTES_MAX));
        let body = body.collect().await.map_err(|error| anyhow!("{error}"))?.to_bytes();
        anyhow::Ok(Answer { status, retry_after, body })
    };
    let answer = tokio::time::timeout(ANSWER_DEADLINE, asked)
        .await
        .map_err(|_| anyhow!("it did not answer within {ANSWER_DEADLINE:?}"))
        .flatten();
    answer.map_err(|error| {
        let next_move = tls_cause(error.as_ref()).and_then(next_move);
        let error = next_move.map_or(error, |text| anyhow!(text));
        error.context(CannotReach(uri))
    })
}

/// What to do about a server whose certificate is not good.
fn next_move(error: &rustls::Error) -> Option<&'static str> {
    let rustls::Error::InvalidCertificate(why) = error else { return None };
    match why {
        CertificateError::UnknownIssuer | CertificateError::BadSignature => Some(
            "it does not show the CA that this device pins: check the URL; if the control plane has a new CA, make a \
             new claim with `muster claim new`",
        ),
        CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => {
            Some("its certificate is not for this name: start the control plane with `--name` and the name in the URL")
        }
        CertificateError::Expired | CertificateError::ExpiredContext { .. } => Some(
            "its certificate ran out before the time that this device is sure of: restart the control plane, which \
             makes a new one",
        ),
        _ => None,
    }
}

#[cfg(test)]
mod tests;
