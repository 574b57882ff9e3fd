//! How a device joins a fleet, and how its certificate is renewed. Everything the device is to
//! believe comes from the claim token: the server must show the CA and serve the root named there.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, bail};
use bytes::Bytes;
use http_body_util::{BodyExt as _, Full, Limited};
use hyper_util::client::legacy::Client;
use hyper_util::rt::TokioExecutor;
use muster_shared::DeviceId;
use muster_shared::Digest;
use muster_shared::api::{Enrol, Enrolled, Problem, Renew};
use muster_shared::claim::ClaimToken;
use muster_shared::id::Labels;
use muster_shared::message::Renewal;
use muster_shared::root::TrustedRoot;
use muster_shared::signing::{Envelope, payload_type};
use muster_shared::wire;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::config::{RawConfig, RawDoor, RawLimits};
use crate::identity::{self, DeviceKey, Enrolment};

/// How long the control plane may take to answer.
const ANSWER_DEADLINE: Duration = Duration::from_secs(30);
/// An answer: a certificate, a CA and every root so far.
const ANSWER_BYTES_MAX: usize = 4 * 1024 * 1024;

/// Enrols the device whose data lies in `data`. Doing it again with the same key is harmless.
pub async fn enrol(
    url: &str,
    claim: &ClaimToken,
    data: &Path,
    name: Option<DeviceId>,
    labels: Labels,
) -> anyhow::Result<Enrolment> {
    std::fs::create_dir_all(data).with_context(|| format!("cannot make {}", data.display()))?;
    if let Some(enrolment) = identity::enrolment(data)? {
        bail!("this device is enrolled already, as {}; `muster-agent run` starts it", enrolment.device);
    }
    let key = DeviceKey::open_or_make(data)?;
    let request = Enrol {
        claim: Some(claim.id_hex()),
        secret: Some(claim.secret_hex()),
        csr: key.request(name.as_ref())?.pem()?,
        name,
        labels: labels.clone(),
    };
    let enrolled: Enrolled = post(url, "enrol", claim.ca, &request).await?;
    let root = follow_roots(&enrolled.roots, claim.root)?;
    check_certificates(&enrolled, claim.ca)?;

    identity::save_certificate(data, &enrolled.certificate)?;
    write_config(data, labels)?;
    let mqtt = broker_address(&enrolled.mqtt, url)?;
    let enrolment = Enrolment {
        device: enrolled.device,
        url: url.to_owned(),
        mqtt,
        ca: claim.ca,
        root: claim.root,
        roots: enrolled.roots,
    };
    identity::save_enrolment(data, &enrolment)?;
    tracing::info!(device = %enrolment.device, fleet = %root.root().fleet, "enrolled");
    Ok(enrolment)
}

/// Asks for a new certificate for the same key and keeps it.
pub async fn renew(enrolment: &Enrolment, key: &DeviceKey, data: &Path) -> anyhow::Result<()> {
    let csr = key.request(Some(&enrolment.device))?.der().to_vec();
    let renewal = wire::encode(&Renewal { device: enrolment.device.clone(), csr })?;
    let request = Renew { renewal: key.sign(payload_type::RENEWAL, renewal)? };
    let enrolled: Enrolled = post(&enrolment.url, "renew", enrolment.ca, &request).await?;
    check_certificates(&enrolled, enrolment.ca)?;
    Ok(identity::save_certificate(data, &enrolled.certificate)?)
}

/// Follows the roots from the pinned one to the newest.
pub fn follow_roots(roots: &[Envelope], pinned: Digest) -> anyhow::Result<TrustedRoot> {
    let mut roots = roots.iter().skip_while(|root| Digest::of(&root.payload) != pinned);
    let first = roots.next().context("the control plane does not have the root that the claim names")?;
    let mut trusted = TrustedRoot::pinned(first, pinned)?;
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

fn check_certificates(enrolled: &Enrolled, ca: Digest) -> anyhow::Result<()> {
    let shown =
        CertificateDer::from_pem_slice(enrolled.ca.as_bytes()).context("the CA's certificate cannot be read")?;
    if Digest::of(&shown) != ca {
        bail!("the control plane's CA is not the one that the claim names");
    }
    CertificateDer::from_pem_slice(enrolled.certificate.as_bytes()).context("the client certificate cannot be read")?;
    Ok(())
}

fn broker_address(offered: &str, url: &str) -> anyhow::Result<String> {
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
        telemetry_every: muster_shared::quantity::Millis(10_000),
        labels,
        local_mqtt: None,
    };
    identity::write_durably(&path, toml::to_string_pretty(&raw)?.as_bytes(), 0o644)?;
    Ok(())
}

async fn post<A: DeserializeOwned>(url: &str, what: &str, ca: Digest, request: &impl Serialize) -> anyhow::Result<A> {
    let uri = format!("{}/api/v1/{what}", url.trim_end_matches('/'));
    if !uri.starts_with("https://") {
        bail!("{url:?}: the control plane is reached by https:// only");
    }
    let tls = muster_tls::client(ca, None)?;
    let connector = hyper_rustls::HttpsConnectorBuilder::new().with_tls_config(tls).https_only().enable_http1().build();
    let client: Client<_, Full<Bytes>> = Client::builder(TokioExecutor::new()).build(connector);
    let body = serde_json::to_vec(request)?;
    let request = axum::http::Request::post(&uri).header("content-type", "application/json").body(body.into())?;
    let asked = async {
        let response = client.request(request).await?;
        let (status, body) = (response.status(), Limited::new(response.into_body(), ANSWER_BYTES_MAX));
        let body = body.collect().await.map_err(|error| anyhow::anyhow!("{error}"))?.to_bytes();
        anyhow::Ok((status, body))
    };
    let (status, body) = tokio::time::timeout(ANSWER_DEADLINE, asked)
        .await
        .with_context(|| format!("{uri} did not answer within {ANSWER_DEADLINE:?}"))?
        .with_context(|| format!("cannot reach {uri}"))?;
    if !status.is_success() {
        let problem: Option<Problem> = serde_json::from_slice(&body).ok();
        let text = problem.map_or_else(
            || status.to_string(),
            |problem| {
                let hint = problem.hint.map_or_else(String::new, |hint| format!("; {hint}"));
                format!("{}{hint}", problem.detail)
            },
        );
        bail!("the control plane refused to {what} this device: {text}");
    }
    serde_json::from_slice(&body).context("the control plane's answer cannot be read")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_broker_is_where_the_plane_is_unless_it_says_otherwise() {
        let of =
            |offered: &str| broker_address(offered, "https://plane.example:8443").map_err(|error| error.to_string());
        assert_eq!(of(":8883"), Ok("plane.example:8883".into()));
        assert_eq!(of("broker.example:1"), Ok("broker.example:1".into()));
        assert!(of("nothing").is_err());
    }
}
