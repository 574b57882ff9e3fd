//! The control plane's HTTP API, as the commands use it.
//!
//! TLS trusts only the pinned CA; plain HTTP goes to loopback alone. Redirects are not followed:
//! the token goes to the URL of the context and nowhere else.

use std::error::Error as StdError;
use std::io;
use std::time::Duration;

use muster_shared::api::Problem;
use muster_shared::{DeploymentName, Digest};
use reqwest::{Method, RequestBuilder, Response, StatusCode, header};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::value::RawValue;

use crate::url;

/// How long to wait for a connection.
const CONNECT_SECONDS: u64 = 10;
/// How long a request may take; an upload takes as long as it takes, and `push` watches it.
const REQUEST_SECONDS: u64 = 60;
/// Longer than the largest file takes on a slow uplink.
const UPLOAD_TIME_MAX: Duration = Duration::from_secs(7 * 24 * 3600);
/// The longest answer that is read.
const ANSWER_BYTES_MAX: usize = 64 * 1024 * 1024;
/// Where the API's paths start.
const API: &str = "/api/v1";

/// A control plane, and who asks.
pub struct Client {
    http: reqwest::Client,
    url: String,
    token: Option<String>,
}

/// Why there is no answer, or not the one that was asked for.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// Not a URL that a token may be sent to.
    #[error("{text:?} is no URL of a control plane: {why}")]
    BadUrl {
        /// As typed.
        text: String,
        /// What is wrong.
        why: &'static str,
    },
    /// Over https, without the digest of the CA to believe in.
    #[error("no CA is pinned for {url}")]
    NoCa {
        /// Where.
        url: String,
    },
    /// Nobody listens there.
    #[error("{url} refused the connection")]
    Refused {
        /// Where.
        url: String,
    },
    /// The certificate is not the pinned CA's.
    #[error("the certificate of {url} is not from the pinned CA ({cause})")]
    NotPinned {
        /// Where.
        url: String,
        /// What rustls says.
        cause: rustls::CertificateError,
    },
    /// No answer in time.
    #[error("{url} did not answer in time")]
    TimedOut {
        /// Where.
        url: String,
    },
    /// The network or the protocol failed otherwise.
    #[error("cannot talk to {url}")]
    Transport {
        /// Where.
        url: String,
        #[source]
        source: reqwest::Error,
    },
    /// An error that the control plane explains.
    #[error("{detail}")]
    Answered {
        /// The HTTP status.
        status: StatusCode,
        /// The control plane's words.
        detail: String,
        /// The control plane's advice.
        hint: Option<String>,
    },
    /// An answer that this program does not understand.
    #[error("the answer of {url} cannot be understood: {why}")]
    Malformed {
        /// Where.
        url: String,
        /// What is wrong.
        why: String,
    },
}

impl ClientError {
    /// Whether the control plane says that there is no such thing.
    pub fn is_not_found(&self) -> bool {
        matches!(self, Self::Answered { status: StatusCode::NOT_FOUND, .. })
    }

    /// Whether nobody answers for a deployment: there is none, or no device serves it now.
    pub fn is_unserved(&self) -> bool {
        self.is_not_found() || matches!(self, Self::Answered { status: StatusCode::SERVICE_UNAVAILABLE, .. })
    }

    /// Whether asking again may help.
    pub fn is_passing(&self) -> bool {
        match self {
            Self::Refused { .. } | Self::TimedOut { .. } | Self::Transport { .. } => true,
            Self::Answered { status, .. } => status.is_server_error() || *status == StatusCode::TOO_MANY_REQUESTS,
            Self::BadUrl { .. } | Self::NoCa { .. } | Self::NotPinned { .. } | Self::Malformed { .. } => false,
        }
    }

    /// The next move.
    pub fn hint(&self) -> Option<String> {
        let hint = match self {
            Self::BadUrl { .. } => "write it as https://HOST:PORT, the way the control plane printed it",
            Self::NoCa { .. } => "pass --ca-fingerprint: the control plane printed it at its first start",
            Self::Refused { .. } => "is the control plane running? Start it with `muster-control-plane --data DIR`",
            Self::NotPinned { cause: rustls::CertificateError::UnknownIssuer, .. } => {
                "another server answers there, or the control plane has a new CA: compare the fingerprint that it \
                 printed, then log in again with it as `--ca-fingerprint`"
            }
            Self::NotPinned { .. } => {
                "check the name in the URL and this machine's clock against the control plane's certificate"
            }
            Self::TimedOut { .. } => "check the network between here and the control plane, then try again",
            Self::Transport { .. } => {
                "check host and port in the URL, and that the scheme is right: https, or http on loopback only"
            }
            Self::Answered { hint: Some(hint), .. } => hint,
            Self::Answered { status: StatusCode::UNAUTHORIZED, .. } => {
                "the token is not valid here (any more): log in again with `muster login`"
            }
            Self::Answered { status, .. } if status.is_server_error() => {
                "try again; if it stays so, read the control plane's log"
            }
            Self::Answered { .. } => return None,
            Self::Malformed { .. } => "is this URL a Muster control plane, of the same version as this program?",
        };
        Some(hint.to_owned())
    }
}

/// A prediction, and who made it.
#[derive(Debug, Serialize)]
pub struct Prediction {
    /// The device, as the header `Muster-Device` names it.
    pub device: Option<String>,
    /// The model's version, as the header `Muster-Version` names it.
    pub version: Option<u64>,
    /// TF Serving's answer, each number as it was written.
    pub answer: Box<RawValue>,
}

impl Client {
    /// Prepares to talk to `url`; over https, only a server of the CA `ca` is believed.
    pub fn open(url: &str, ca: Option<Digest>, token: Option<String>) -> Result<Self, ClientError> {
        let parsed = url::parse(url)?;
        let url = url::origin(&parsed);
        let builder = reqwest::Client::builder()
            .user_agent(concat!("muster/", env!("CARGO_PKG_VERSION")))
            .redirect(reqwest::redirect::Policy::none())
            .connect_timeout(Duration::from_secs(CONNECT_SECONDS))
            .timeout(Duration::from_secs(REQUEST_SECONDS));
        let builder = if parsed.scheme() == "http" {
            // A proxy from the environment must not see what is meant for loopback.
            builder.no_proxy()
        } else {
            let ca = ca.ok_or_else(|| ClientError::NoCa { url: url.clone() })?;
            let tls = muster_tls::client(ca, None)
                .map_err(|error| ClientError::Malformed { url: url.clone(), why: error.to_string() })?;
            builder.tls_backend_preconfigured(tls)
        };
        let http = builder.build().map_err(|source| ClientError::Transport { url: url.clone(), source })?;
        Ok(Self { http, url, token })
    }

    /// The control plane's URL, as contexts store it.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// Asks for a resource below `/api/v1`.
    pub async fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T, ClientError> {
        self.ask(self.api(Method::GET, path)).await
    }

    /// Sends `body` as JSON and reads a JSON answer.
    pub async fn send_json<T: DeserializeOwned>(
        &self,
        method: Method,
        path: &str,
        body: &impl Serialize,
    ) -> Result<T, ClientError> {
        self.ask(self.api(method, path).json(body)).await
    }

    /// Asks for something to be done that needs no more words than its path.
    pub async fn post<T: DeserializeOwned>(&self, path: &str) -> Result<T, ClientError> {
        self.ask(self.api(Method::POST, path)).await
    }

    /// Asks for something to be done, where nothing is answered.
    pub async fn command(&self, method: Method, path: &str) -> Result<(), ClientError> {
        self.send(self.api(method, path)).await.map(drop)
    }

    /// Sends `body` as JSON, where nothing is answered.
    pub async fn command_json(&self, method: Method, path: &str, body: &impl Serialize) -> Result<(), ClientError> {
        self.send(self.api(method, path).json(body)).await.map(drop)
    }

    /// Deletes a resource.
    pub async fn delete(&self, path: &str) -> Result<(), ClientError> {
        self.send(self.api(Method::DELETE, path)).await.map(drop)
    }

    /// Uploads a blob of `bytes` bytes as it is read.
    pub async fn upload(&self, sha256: Digest, bytes: u64, body: reqwest::Body) -> Result<(), ClientError> {
        self.upload_to(&format!("/blobs/{sha256}"), bytes, body).await
    }

    /// Uploads `bytes` bytes to a place below `/api/v1`, as they are read.
    pub async fn upload_to(&self, path: &str, bytes: u64, body: reqwest::Body) -> Result<(), ClientError> {
        let request = self
            .api(Method::PUT, path)
            .header(header::CONTENT_TYPE, "application/octet-stream")
            .header(header::CONTENT_LENGTH, bytes)
            .timeout(UPLOAD_TIME_MAX)
            .body(body);
        self.send(request).await.map(drop)
    }

    /// Asks the gateway's TF Serving door.
    pub async fn predict(&self, name: &DeploymentName, body: String) -> Result<Prediction, ClientError> {
        let request = self.http.post(format!("{}/v1/models/{name}:predict", self.url));
        let request = self.authorised(request).header(header::CONTENT_TYPE, "application/json").body(body);
        let response = self.send(request).await?;
        let header = |name: &str| response.headers().get(name)?.to_str().ok().map(str::to_owned);
        let (device, version) = (header("Muster-Device"), header("Muster-Version"));
        let answer = self.parse(&self.body(response).await?)?;
        Ok(Prediction { device, version: version.and_then(|text| text.parse().ok()), answer })
    }

    fn api(&self, method: Method, path: &str) -> RequestBuilder {
        self.authorised(self.http.request(method, format!("{}{API}{path}", self.url)))
    }

    fn authorised(&self, request: RequestBuilder) -> RequestBuilder {
        match &self.token {
            Some(token) => request.bearer_auth(token),
            None => request,
        }
    }

    async fn ask<T: DeserializeOwned>(&self, request: RequestBuilder) -> Result<T, ClientError> {
        let response = self.send(request).await?;
        self.parse(&self.body(response).await?)
    }

    async fn send(&self, request: RequestBuilder) -> Result<Response, ClientError> {
        let response = request.send().await.map_err(|error| self.transport_error(error))?;
        let status = response.status();
        if status.is_success() {
            return Ok(response);
        }
        let body = self.body(response).await.unwrap_or_default();
        Err(explain(status, &body))
    }

    async fn body(&self, mut response: Response) -> Result<Vec<u8>, ClientError> {
        let mut body = Vec::new();
        while let Some(piece) = response.chunk().await.map_err(|error| self.transport_error(error))? {
            if body.len() + piece.len() > ANSWER_BYTES_MAX {
                return Err(self.malformed(format!("longer than {ANSWER_BYTES_MAX} bytes")));
            }
            body.extend_from_slice(&piece);
        }
        Ok(body)
    }

    fn parse<T: DeserializeOwned>(&self, body: &[u8]) -> Result<T, ClientError> {
        serde_json::from_slice(body).map_err(|error| self.malformed(error.to_string()))
    }

    fn malformed(&self, why: String) -> ClientError {
        ClientError::Malformed { url: self.url.clone(), why }
    }

    fn transport_error(&self, error: reqwest::Error) -> ClientError {
        let url = self.url.clone();
        if let Some(cause) = certificate_error(&error) {
            return ClientError::NotPinned { url, cause };
        }
        if find::<io::Error>(&error).is_some_and(|error| error.kind() == io::ErrorKind::ConnectionRefused) {
            return ClientError::Refused { url };
        }
        if error.is_timeout() {
            return ClientError::TimedOut { url };
        }
        ClientError::Transport { url, source: error.without_url() }
    }
}

/// What the control plane said about a failure: a `Problem`, TF Serving's `{"error": …}`, or only
/// a status.
fn explain(status: StatusCode, body: &[u8]) -> ClientError {
    if let Ok(problem) = serde_json::from_slice::<Problem>(body) {
        return ClientError::Answered { status, detail: problem.detail, hint: problem.hint };
    }
    let error = serde_json::from_slice::<serde_json::Value>(body).ok();
    let error = error.as_ref().and_then(|body| body.get("error")).and_then(|error| error.as_str());
    let detail = error.map_or_else(|| format!("the server answered {status}"), str::to_owned);
    ClientError::Answered { status, detail, hint: None }
}

fn certificate_error(error: &reqwest::Error) -> Option<rustls::CertificateError> {
    match find::<rustls::Error>(error)? {
        rustls::Error::InvalidCertificate(cause) => Some(cause.clone()),
        _ => None,
    }
}

/// The first `E` among the causes of an error. An `io::Error` hides what it wraps from `source`.
fn find<'a, E: StdError + 'static>(error: &'a (dyn StdError + 'static)) -> Option<&'a E> {
    let mut next = Some(error);
    while let Some(cause) = next {
        if let Some(found) = cause.downcast_ref::<E>() {
            return Some(found);
        }
        let wrapped = cause.downcast_ref::<io::Error>().and_then(io::Error::get_ref);
        if let Some(found) = wrapped.and_then(|inner| find::<E>(inner)) {
            return Some(found);
        }
        next = cause.source();
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_problem_s_own_hint_is_shown() {
        let body =
            br#"{"title":"Conflict","status":409,"detail":"version 1 is another bundle","hint":"pack version 2"}"#;
        let error = explain(StatusCode::CONFLICT, body);
        assert_eq!(error.to_string(), "version 1 is another bundle");
        assert_eq!(error.hint().as_deref(), Some("pack version 2"));
        let serving = explain(StatusCode::NOT_FOUND, br#"{"error":"no such model"}"#);
        assert!(serving.is_not_found());
        assert_eq!(serving.to_string(), "no such model");
        assert!(explain(StatusCode::BAD_GATEWAY, b"<html>").to_string().contains("502"));
    }

    #[test]
    fn an_error_inside_an_io_error_is_found() {
        let inner = rustls::Error::InvalidCertificate(rustls::CertificateError::Expired);
        let outer = io::Error::other(io::Error::other(inner));
        assert!(find::<rustls::Error>(&outer).is_some());
        assert!(find::<serde_json::Error>(&outer).is_none());
    }
}
