//! A control plane that only remembers what it is told: real TLS, and the API's own types, but no
//! database, broker or device. The real one is tested with the CLI in the project's stories.

use std::collections::{BTreeMap, VecDeque};
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};

use muster_shared::Digest;
use muster_shared::manifest::Manifest;
use muster_shared::root::TrustedRoot;
use muster_shared::signing::Envelope;
use muster_shared::signing::key::SecretKey;
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use rustls::{ServerConfig, ServerConnection, StreamOwned};
use serde_json::{Value, json};

/// The code that `login` takes, as often as it comes.
pub const CODE: &str = "code-1";
const TOKEN: &str = "token-1";

/// Listens until the test's process ends.
pub struct Plane {
    pub url: String,
    pub ca: Digest,
    state: Arc<Mutex<State>>,
}

#[derive(Default)]
struct State {
    ca: String,
    roots: Vec<Envelope>,
    floors: Vec<Envelope>,
    manifests: Vec<Envelope>,
    blobs: BTreeMap<Digest, usize>,
    deployments: BTreeMap<String, Value>,
    claims: Vec<Value>,
    /// What is answered to a method and path below `/api/v1`; the last answer stays.
    scripts: BTreeMap<String, VecDeque<(u16, Value)>>,
    /// Scripted requests that came, with their bodies.
    heard: Vec<(String, Value)>,
    /// The next root finds the control plane out of order.
    is_out_of_order: bool,
}

impl Plane {
    pub fn start() -> Self {
        let (config, ca) = tls();
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let url = format!("https://{}", listener.local_addr().expect("an address"));
        let state = Arc::new(Mutex::new(State { ca: ca.to_string(), ..State::default() }));
        let shared = state.clone();
        std::thread::spawn(move || {
            for socket in listener.incoming().flatten() {
                let (config, state) = (config.clone(), shared.clone());
                std::thread::spawn(move || serve(socket, config, &state));
            }
        });
        Self { url, ca, state }
    }

    /// Blobs that came, with their lengths.
    pub fn blobs(&self) -> BTreeMap<Digest, usize> {
        self.state.lock().expect("the state").blobs.clone()
    }

    /// The next root that comes is not taken.
    pub fn break_down_once(&self) {
        self.state.lock().expect("the state").is_out_of_order = true;
    }

    /// From now on, `line` (as `GET /devices/edge-1/explain`) is answered with these, one after the other.
    pub fn script(&self, line: &str, answers: impl IntoIterator<Item = Value>) {
        self.script_status(line, answers.into_iter().map(|answer| (200, answer)));
    }

    /// From now on, `line` is refused with a problem.
    pub fn refuse(&self, line: &str, status: u16, detail: &str) {
        let body = json!({"title": "Problem", "status": status, "detail": detail});
        self.script_status(line, [(status, body)]);
    }

    fn script_status(&self, line: &str, answers: impl IntoIterator<Item = (u16, Value)>) {
        self.state.lock().expect("the state").scripts.insert(line.to_owned(), answers.into_iter().collect());
    }

    /// Scripted requests that came since the last call, with their bodies.
    pub fn heard(&self) -> Vec<(String, Value)> {
        std::mem::take(&mut self.state.lock().expect("the state").heard)
    }

    /// The roots that came, by version.
    pub fn roots(&self) -> Vec<Envelope> {
        self.state.lock().expect("the state").roots.clone()
    }

    /// The manifests that came.
    pub fn manifests(&self) -> Vec<Envelope> {
        self.state.lock().expect("the state").manifests.clone()
    }

    pub fn next_director() -> SecretKey {
        SecretKey::from_seed([6; 32])
    }

    pub fn director() -> SecretKey {
        SecretKey::from_seed([5; 32])
    }
}

fn tls() -> (Arc<ServerConfig>, Digest) {
    let ca_key = KeyPair::generate().expect("a key");
    let mut ca = CertificateParams::default();
    ca.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let ca_certificate = ca.self_signed(&ca_key).expect("a certificate").der().clone();
    let issuer = Issuer::new(ca, ca_key);
    let key = KeyPair::generate().expect("a key");
    let leaf = CertificateParams::new(["127.0.0.1".to_owned()]).expect("parameters");
    let leaf = leaf.signed_by(&key, &issuer).expect("a certificate").der().clone();
    let digest = Digest::of(&ca_certificate);
    let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der()));
    let config = ServerConfig::builder_with_provider(muster_tls::provider())
        .with_safe_default_protocol_versions()
        .expect("versions")
        .with_no_client_auth()
        .with_single_cert(vec![leaf, ca_certificate], key)
        .expect("a chain");
    (Arc::new(config), digest)
}

struct Request {
    line: String,
    token: Option<String>,
    body: Vec<u8>,
}

fn serve(socket: TcpStream, config: Arc<ServerConfig>, state: &Mutex<State>) {
    let Ok(connection) = ServerConnection::new(config) else { return };
    let mut stream = BufReader::new(StreamOwned::new(connection, socket));
    while let Some(request) = read(&mut stream) {
        let (status, headers, body) = answer(&request, &mut state.lock().expect("the state"));
        let length = body.len();
        let head = format!("HTTP/1.1 {status} X\r\ncontent-length: {length}\r\n{headers}\r\n");
        let out = stream.get_mut();
        if out.write_all(&[head.as_bytes(), body.as_bytes()].concat()).and_then(|()| out.flush()).is_err() {
            return;
        }
    }
}

fn read(stream: &mut BufReader<StreamOwned<ServerConnection, TcpStream>>) -> Option<Request> {
    let mut next = || {
        let mut line = String::new();
        stream.read_line(&mut line).ok().filter(|read| *read > 0)?;
        Some(line.trim_end().to_owned())
    };
    let line = next()?;
    let (mut token, mut length) = (None, 0);
    loop {
        let header = next()?;
        match header.split_once(": ") {
            None => break,
            Some((name, value)) if name.eq_ignore_ascii_case("authorization") => {
                token = value.strip_prefix("Bearer ").map(str::to_owned);
            }
            Some((name, value)) if name.eq_ignore_ascii_case("content-length") => length = value.parse().ok()?,
            Some(_) => {}
        }
    }
    let mut body = vec![0; length];
    stream.read_exact(&mut body).ok()?;
    let line = line.strip_suffix(" HTTP/1.1")?.to_owned();
    Some(Request { line, token, body })
}

type Answer = (u16, &'static str, String);

fn good(body: Value) -> Answer {
    (200, "", body.to_string())
}

fn problem(status: u16, detail: &str, hint: &str) -> Answer {
    let body = json!({"title": "Problem", "status": status, "detail": detail, "hint": hint});
    (status, "content-type: application/problem+json\r\n", body.to_string())
}

fn answer(request: &Request, state: &mut State) -> Answer {
    let line = request.line.replace("/api/v1", "");
    let json = || serde_json::from_slice::<Value>(&request.body).unwrap_or_default();
    let envelope = || serde_json::from_slice::<Envelope>(&request.body).expect("an envelope");
    let open = ["GET /info", "POST /login", "GET /trust/roots", "GET /trust/floors"];
    if !open.contains(&line.as_str()) && request.token.as_deref() != Some(TOKEN) {
        return (401, "", String::new());
    }
    if let Some(answers) = state.scripts.get_mut(&line) {
        let last = answers.len() == 1;
        let answer = if last { answers.front().cloned() } else { answers.pop_front() };
        state.heard.push((line, json()));
        let (status, body) = answer.expect("an answer");
        return (status, "", body.to_string());
    }
    match line.split_once(' ').expect("a method") {
        ("GET", "/info") => {
            good(json!({"version": "0", "fleet": null, "rootVersion": null, "caFingerprint": state.ca}))
        }
        ("POST", "/login") if json()["code"] == CODE => good(json!({"token": TOKEN, "user": "admin"})),
        ("POST", "/login") => problem(401, "the code is wrong or spent", "restart with --new-code"),
        ("GET", "/whoami") => good(json!({"user": "admin"})),
        ("POST", "/trust/director/next") => {
            good(json!({"key": Plane::director().public(), "next": Plane::next_director().public()}))
        }
        ("GET", "/trust/floors") => good(json!(state.floors)),
        ("POST", "/trust/floors") => {
            let envelope = envelope();
            let floor: Value = serde_json::from_slice(&envelope.payload).expect("a floor");
            state.floors.push(envelope);
            good(json!({"model": floor["model"], "version": floor["version"], "newest": null}))
        }
        ("GET", "/devices/edge-1/diagnosis") => good(json!({"clock": "trusted"})),
        ("GET", "/trust/director") => good(json!({"key": Plane::director().public()})),
        ("GET", "/trust/roots") => good(json!(state.roots)),
        ("POST", "/trust/roots") if std::mem::take(&mut state.is_out_of_order) => (503, "", String::new()),
        ("POST", "/trust/roots") => {
            let trusted = TrustedRoot::self_signed(&envelope()).expect("a root");
            state.roots.push(envelope());
            let root = trusted.root();
            let digest = trusted.digest();
            good(json!({"fleet": root.fleet, "version": root.version, "digest": digest, "expiresMs": root.expires_ms}))
        }
        ("POST", "/claims") => {
            let asked = json();
            let claim = json!({"id": "0102030405060708", "uses": asked["uses"], "used": 0, "expiresMs": u64::MAX / 2});
            state.claims.push(claim);
            good(json!({"id": "0102030405060708", "secret": "0f".repeat(16), "expiresMs": 1_800_000_000_000u64}))
        }
        ("GET", "/claims") => good(json!(state.claims)),
        ("POST", "/bundles") => {
            let envelope = envelope();
            let manifest = Manifest::parse(&envelope.payload).expect("a manifest");
            let missing: Vec<_> = manifest.files().filter(|file| !state.blobs.contains_key(&file.sha256)).collect();
            let answer = json!({"manifest": Digest::of(&envelope.payload), "missing": missing});
            if !state.manifests.contains(&envelope) {
                state.manifests.push(envelope);
            }
            good(answer)
        }
        ("GET", "/bundles") => good(state.manifests.iter().map(bundle).collect()),
        ("PUT", path) if path.starts_with("/blobs/") => {
            let digest = Digest::of(&request.body);
            assert_eq!(path, format!("/blobs/{digest}"));
            state.blobs.insert(digest, request.body.len());
            (204, "", String::new())
        }
        ("GET", "/deployments") => good(state.deployments.values().cloned().collect()),
        (method, path) if path.starts_with("/deployments/") => deployment(method, &path[13..], json(), state),
        ("GET", "/devices") => good(json!([device()])),
        ("GET", "/devices/edge-1") => good(device()),
        ("GET", "/events?limit=200") => good(json!([
            {"atMs": 2000, "device": "edge-1", "kind": "serving", "deployment": "digits", "text": "digits 1 serves"},
            {"atMs": 1000, "device": "edge-1", "kind": "started", "deployment": null, "text": "agent 0.1.0"},
        ])),
        ("POST", "/v1/models/digits:predict") => {
            let count = json()["instances"].as_array().map_or(0, Vec::len);
            let headers = "Muster-Device: edge-1\r\nMuster-Version: 3\r\n";
            (200, headers, json!({"predictions": vec![7; count]}).to_string())
        }
        ("POST", path) if path.ends_with(":predict") => (404, "", json!({"error": "Servable not found"}).to_string()),
        _ => problem(404, "there is no such thing", "look again"),
    }
}

fn deployment(method: &str, name: &str, body: Value, state: &mut State) -> Answer {
    match (method, state.deployments.contains_key(name)) {
        ("PUT", _) => {
            let mut body = body;
            body["metadata"]["generation"] = 1.into();
            body["status"] = json!({"wanted": 1, "ready": 1, "version": 1, "replicas": [], "conditions": []});
            state.deployments.insert(name.to_owned(), body.clone());
            good(body)
        }
        (_, false) => problem(404, "there is no such deployment", "look again"),
        ("DELETE", true) => {
            state.deployments.remove(name);
            (204, "", String::new())
        }
        _ => good(state.deployments[name].clone()),
    }
}

fn bundle(envelope: &Envelope) -> Value {
    let manifest = Manifest::parse(&envelope.payload).expect("a manifest");
    json!({
        "model": manifest.model, "version": manifest.version, "manifest": Digest::of(&envelope.payload),
        "complete": true, "bytes": manifest.files().map(|file| file.bytes).sum::<u64>(),
        "variants": ["fp32"], "graph": manifest.variants[0].graph, "weights": manifest.variants[0].weights,
        "inputs": manifest.inputs, "outputs": manifest.outputs, "pushedMs": 1000
    })
}

pub fn device() -> Value {
    json!({
        "id": "edge-1", "connected": true, "schedule": "open", "lastSeenMs": 1000, "enrolledMs": 1000, "fingerprint": Digest::of("key"),
        "labels": {"site": "north"}, "desired": {"epoch": 1, "number": 4}, "applied": {"epoch": 1, "number": 4},
        "facts": null, "refusals": [], "desiredRefused": null, "host": null,
        "slots": [{"deployment": "digits", "phase": "serving", "wanted": null, "running": null, "waiting": null,
                   "restarts": 2, "measured": {"memoryPeakBytes": 1048576, "latencyUs": 1500}}],
        "models": [{"deployment": "digits", "version": 1, "requests": 5, "errors": 0, "cpuUs": 500, "p50Us": 100.0, "p99Us": null}]
    })
}
