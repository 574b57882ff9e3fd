//! Plain HTTP to doors and gateways on loopback.

use std::time::Duration;

use anyhow::Context as _;
use serde_json::Value;

/// How long an answer may take.
const ANSWER_DEADLINE: Duration = Duration::from_secs(30);

/// An answer, whatever its status.
#[derive(Debug, Clone, PartialEq)]
pub struct Answer {
    /// The HTTP status.
    pub status: u16,
    /// Which device answered.
    pub device: Option<String>,
    /// Which version answered.
    pub version: Option<u64>,
    /// The body; null if it is no JSON.
    pub body: Value,
}

/// Asks.
pub fn get(url: &str) -> anyhow::Result<Answer> {
    read(agent().get(url).call().with_context(|| format!("cannot ask {url}"))?)
}

/// Asks with an API token.
pub fn get_as(url: &str, token: &str) -> anyhow::Result<Answer> {
    let request = agent().get(url).header("authorization", format!("Bearer {token}"));
    read(request.call().with_context(|| format!("cannot ask {url}"))?)
}

/// Asks for a text.
pub fn text(url: &str) -> anyhow::Result<String> {
    let mut response = agent().get(url).call().with_context(|| format!("cannot ask {url}"))?;
    anyhow::ensure!(response.status() == 200, "{url} answered {}", response.status());
    Ok(response.body_mut().read_to_string()?)
}

/// Asks with an API token for a text.
pub fn text_as(url: &str, token: &str) -> anyhow::Result<String> {
    let request = agent().get(url).header("authorization", format!("Bearer {token}"));
    let mut response = request.call().with_context(|| format!("cannot ask {url}"))?;
    anyhow::ensure!(response.status() == 200, "{url} answered {}", response.status());
    Ok(response.body_mut().read_to_string()?)
}

/// Asks with a body.
pub fn post(url: &str, body: &str) -> anyhow::Result<Answer> {
    let request = agent().post(url).header("content-type", "application/json");
    read(request.send(body).with_context(|| format!("cannot ask {url}"))?)
}

fn agent() -> ureq::Agent {
    let config =
        ureq::Agent::config_builder().http_status_as_error(false).timeout_global(Some(ANSWER_DEADLINE)).build();
    config.into()
}

fn read(mut response: ureq::http::Response<ureq::Body>) -> anyhow::Result<Answer> {
    let header = |name: &str| response.headers().get(name).and_then(|value| value.to_str().ok()).map(str::to_owned);
    let (device, version) =
        (header("muster-device"), header("muster-version").and_then(|version| version.parse().ok()));
    let status = response.status().as_u16();
    let body = serde_json::from_str(&response.body_mut().read_to_string()?).unwrap_or_default();
    Ok(Answer { status, device, version, body })
}
