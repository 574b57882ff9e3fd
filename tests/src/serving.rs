//! What the stories of `muster-agent serve` share: models whose answers tell them apart, and a client
//! that keeps its connection.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::time::Duration;

use anyhow::{Context as _, bail};
use muster_load::Incoming;
pub use muster_world::handmade::{COLUMNS, endless, hungry, identity_of_texts, times};
use serde_json::{Value, json};

/// How long an answer may take.
const ANSWER_DEADLINE: Duration = Duration::from_secs(60);

/// A row of a [`times`] request that no other has.
pub fn row(number: usize) -> [f32; COLUMNS] {
    // Whole numbers below 2^24 are floats, exactly.
    std::array::from_fn(|column| (number * COLUMNS + column) as f32)
}

/// TF Serving's request for one row.
pub fn request(row: &[f32]) -> String {
    json!({ "instances": [row] }).to_string()
}

/// Whether an answer is the row times a factor. The text of a float is the shortest that reads back as the
/// same float, not as the same number of more digits.
pub fn is_times(factor: f32, row: &[f32], body: &Value) -> bool {
    let got: Option<Vec<f64>> =
        body["predictions"][0].as_array().map(|row| row.iter().filter_map(Value::as_f64).collect());
    got.is_some_and(|got| got.len() == row.len() && row.iter().zip(got).all(|(x, y)| x * factor == y as f32))
}

/// One connection that is kept, and made again where the server closed it.
pub struct Client {
    address: String,
    stream: Option<TcpStream>,
}

/// An answer as it came.
#[derive(Debug, Clone, PartialEq)]
pub struct Raw {
    /// The status.
    pub status: u16,
    /// The header `Muster-Version`.
    pub version: Option<u64>,
    /// The body.
    pub body: Vec<u8>,
}

impl Raw {
    /// The body as JSON; null if it is none.
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_default()
    }
}

impl Client {
    /// A client of a door, `http://host:port`.
    pub fn new(door: &str) -> Self {
        Self { address: door.trim_start_matches("http://").to_owned(), stream: None }
    }

    /// Asks with a JSON body.
    pub fn post(&mut self, path: &str, body: &[u8]) -> anyhow::Result<Raw> {
        let head = format!(
            "POST {path} HTTP/1.1\r\nHost: {}\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n",
            self.address,
            body.len()
        );
        self.send(&[head.as_bytes(), body].concat())
    }

    /// Asks for a path.
    pub fn get(&mut self, path: &str) -> anyhow::Result<Raw> {
        let head = format!("GET {path} HTTP/1.1\r\nHost: {}\r\n\r\n", self.address);
        self.send(head.as_bytes())
    }

    /// Sends bytes as they are and reads one answer. An error: none came.
    pub fn send(&mut self, bytes: &[u8]) -> anyhow::Result<Raw> {
        let fresh = self.stream.is_none();
        let outcome = self.try_send(bytes);
        if outcome.is_err() {
            self.stream = None;
            // A server may close a kept connection at any time: that is no answer to this request.
            return if fresh { outcome } else { self.try_send(bytes).inspect_err(|_| self.stream = None) };
        }
        outcome
    }

    fn try_send(&mut self, bytes: &[u8]) -> anyhow::Result<Raw> {
        if self.stream.is_none() {
            let stream = TcpStream::connect(&self.address)?;
            stream.set_nodelay(true)?;
            stream.set_read_timeout(Some(ANSWER_DEADLINE))?;
            self.stream = Some(stream);
        }
        let stream = self.stream.as_mut().context("a connection")?;
        stream.write_all(bytes)?;
        let (mut incoming, mut piece) = (Incoming::default(), [0; 16 * 1024]);
        let answer = loop {
            match stream.read(&mut piece)? {
                0 => bail!("the server closed the connection before the whole answer"),
                length if incoming.take(&piece[..length])? => break incoming.answer()?,
                _ => {}
            }
        };
        if answer.header("connection") == Some("close") {
            self.stream = None;
        }
        let version = answer.header("muster-version").and_then(|version| version.parse().ok());
        Ok(Raw { status: answer.status, version, body: answer.body })
    }
}

/// What `/metrics` of a door says of a model that is served in version 1; not a number where it says nothing.
pub fn metric(door: &str, name: &str, model: &str) -> anyhow::Result<f64> {
    let text = String::from_utf8(Client::new(door).get("/metrics")?.body)?;
    let series = format!("{name}{{model=\"{model}\",version=\"1\"}} ");
    let value = text.lines().find_map(|line| line.strip_prefix(&series));
    Ok(value.and_then(|value| value.parse().ok()).unwrap_or(f64::NAN))
}

/// How many requests ran together, as each of them sees it.
pub fn together(door: &str, model: &str) -> anyhow::Result<f64> {
    Ok(metric(door, "muster_batch_requests_sum", model)? / metric(door, "muster_batch_requests_count", model)?)
}
