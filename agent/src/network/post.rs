//! One question to the control plane's API, over a connection of its own.

use std::time::Duration;

use axum::http::header::{CONTENT_TYPE, HOST, RETRY_AFTER};
use axum::http::{Request, StatusCode};
use bytes::Bytes;
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::client::TlsStream;
use tokio_util::task::AbortOnDropHandle;

use super::fault::{Cause, Fault};
use super::target::Target;

/// How long the control plane may take to answer.
const ANSWER_TIME: Duration = Duration::from_secs(30);
/// An answer: a certificate, a CA and every root so far.
const ANSWER_BYTES_MAX: usize = 4 * 1024 * 1024;
/// The head of an answer.
const HEAD_BYTES_MAX: usize = 64 * 1024;
/// A server that says to come back later than this is asked sooner.
const RETRY_AFTER_MAX: Duration = Duration::from_secs(3600);

/// What was answered.
#[derive(Debug)]
pub struct Answer {
    /// The status.
    pub status: StatusCode,
    /// When to come back, where it says so.
    pub retry_after: Option<Duration>,
    /// The body.
    pub body: Bytes,
}

/// Asks with a body of JSON.
pub async fn post(stream: TlsStream<TcpStream>, target: &Target, path: &str, body: Vec<u8>) -> Result<Answer, Fault> {
    let asked = async {
        let broken = |error: hyper::Error| Fault::new(Cause::Refused, text(&error));
        let (mut sender, connection) =
            http1::Builder::new().max_buf_size(HEAD_BYTES_MAX).handshake(TokioIo::new(stream)).await.map_err(broken)?;
        // It moves the bytes; it ends with this question.
        let _connection = AbortOnDropHandle::new(tokio::spawn(connection));
        let request = Request::post(path)
            .header(HOST, target.to_string())
            .header(CONTENT_TYPE, "application/json")
            .body(Full::new(Bytes::from(body)))
            .map_err(|error| Fault::new(Cause::Refused, error.to_string()))?;
        let response = sender.send_request(request).await.map_err(broken)?;
        let retry_after = response.headers().get(RETRY_AFTER).and_then(|value| value.to_str().ok()?.parse().ok());
        let retry_after = retry_after.map(|seconds| RETRY_AFTER_MAX.min(Duration::from_secs(seconds)));
        let (status, body) = (response.status(), Limited::new(response.into_body(), ANSWER_BYTES_MAX));
        let body = body.collect().await.map_err(|error| Fault::new(Cause::Refused, error.to_string()))?;
        Ok(Answer { status, retry_after, body: body.to_bytes() })
    };
    let late = || Fault::new(Cause::Timeout, format!("it did not answer within {ANSWER_TIME:?}"));
    timeout(ANSWER_TIME, asked).await.unwrap_or_else(|_| Err(late()))
}

/// An error of hyper's and what it is made of.
fn text(error: &hyper::Error) -> String {
    let mut text = error.to_string();
    let mut cause = std::error::Error::source(error);
    while let Some(error) = cause {
        text.push_str(": ");
        text.push_str(&error.to_string());
        cause = error.source();
    }
    text
}
