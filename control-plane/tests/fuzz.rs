//! Everything in the control plane that reads bytes from outside, on inputs that are nearly good: requests,
//! certificate requests, what devices publish, and MQTT itself at the listener of the embedded broker. See
//! [`muster_fuzz`].

#![allow(clippy::unwrap_used)]

use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::http::{HeaderName, HeaderValue, Method, Request, header};
use http_body_util::BodyExt as _;
use mqtt5::packet::{FixedHeader, Packet};
use muster_control_plane::broker::embedded::{self, BrokerEvent};
use muster_control_plane::config::{Args, Config};
use muster_control_plane::db::members::Revoked;
use muster_control_plane::http::{self, Listener};
use muster_control_plane::trust::{enrol, ledger, revocations};
use muster_control_plane::{Running, ingest, tunnel};
use muster_fuzz::{Alone, PeakAlloc, alone};
use muster_shared::api::dashboard::{Credentials, NewPassword};
use muster_shared::api::deployment::{Deployment, Scale};
use muster_shared::api::members::{FactoryKey, Revoke};
use muster_shared::api::plan::PlanRequest;
use muster_shared::api::{Enrol, Enrolled, Login, NewClaim, Renew};
use muster_shared::id::{BootId, Nonce};
use muster_shared::message::{ChunkGet, Event, EventKind, Hello, Renewal, Reply};
use muster_shared::reported::{Facts, Reported, SignedReported};
use muster_shared::root::{Publisher, Role, Root};
use muster_shared::signing::key::{KeyId, SecretKey};
use muster_shared::signing::{Envelope, Signature, payload_type};
use muster_shared::sketch::Sketch;
use muster_shared::telemetry::{Batch, HostSample, ModelSample, SignedBatch};
use muster_shared::topic::Leaf;
use muster_shared::tunnel::{SignedTunnelProof, TunnelChallenge, TunnelProof};
use muster_shared::wire;
use muster_shared::{DeviceId, Digest};
use rcgen::{CertificateParams, DnType, KeyPair, PublicKeyData as _, SigningKey as _};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use serde::de::DeserializeOwned;
use tempfile::TempDir;
use tokio::runtime::Runtime;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tower::ServiceExt as _;

#[global_allocator]
static COUNTED: PeakAlloc = PeakAlloc;

/// What a plane that runs allocates beside one input: the database, the planner, sessions.
const PLANE_BYTES: usize = 32 * 1024 * 1024;
/// How long the plane may take for what it surely does.
const PATIENCE: Duration = Duration::from_secs(20);
/// What is behind a socket or writes to a database sees so many in the long form: each takes about a
/// millisecond, and its parsers are shown their million from memory.
const SERVER_LONG_INPUTS: usize = 50_000;

fn device_key() -> KeyPair {
    KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).unwrap()
}

#[test]
fn certificate_requests_and_certificates_are_read_or_refused() {
    let alone = alone();
    let key = device_key();
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, "edge-1");
    let request = params.serialize_request(&key).unwrap();
    let public = Digest::of(key.subject_public_key_info());
    alone.parser("certificate requests, PEM", [request.pem().unwrap()]).past_permille_min(0).run(|bytes| {
        let Ok(key) = enrol::key_of_pem(&String::from_utf8_lossy(bytes)) else { return false };
        assert_eq!(key.fingerprint(), public, "a key that did not sign the request");
        true
    });
    alone.parser("certificate requests, DER", [request.der().to_vec()]).past_permille_min(0).run(|bytes| {
        let Ok(key) = enrol::key_of_der(bytes) else { return false };
        assert_eq!(key.fingerprint(), public, "a key that did not sign the request");
        true
    });
    let certificate = params.self_signed(&key).unwrap();
    alone.parser("names in certificates", [certificate.der().to_vec()]).run(|bytes| embedded::identity(bytes).is_ok());
}

#[test]
fn the_configuration_is_read_or_refused() {
    let alone = alone();
    let path = Path::new("/etc/muster/plane.toml");
    let good = "data = '/a'\nhttp = '127.0.0.1:1'\nmqtt = '[::1]:2'\nnames = ['plane.example.org', '10.0.0.1']\n\
                gateway = '127.0.0.1:3'\nopen-gateway = true\nadvertise-mqtt = 'plane:8883'\n";
    alone.parser("the plane's configuration", [good]).memory(1024, 1 << 20).run(|bytes| {
        let Ok(text) = std::str::from_utf8(bytes) else { return false };
        Args::default().with_text(text, path).is_ok_and(|config| {
            assert!(config.gateway.is_none_or(|gateway| !gateway.open || gateway.address.ip().is_loopback()));
            true
        })
    });
}

#[test]
fn what_lies_beside_the_database_is_read_or_refused() {
    let alone = alone();
    let revoked = |number: u8| Revoked {
        fingerprint: Digest([number; 32]),
        device: "edge-1".parse().unwrap(),
        at_ms: 1,
        reason: "lost\nat \"sea\"".to_owned(),
    };
    let line = |number| serde_json::to_string(&revoked(number)).unwrap();
    let good = format!("{}\n\n{}\n{}\n", line(1), line(2), line(3));
    alone.parser("revocations", [good]).run(|bytes| {
        let Ok(text) = std::str::from_utf8(bytes) else { return false };
        let Ok(keys) = revocations::parse(text) else { return false };
        // A key is never passed over, but for a last line that was torn.
        let whole = text.rsplit_once('\n').map_or("", |(whole, _)| whole);
        let fingerprints = whole.lines().filter_map(|line| serde_json::from_str::<Revoked>(line).ok());
        assert!(fingerprints.into_iter().all(|revoked| keys.contains_key(&revoked.fingerprint)));
        true
    });
    alone
        .parser("ledger", ["17\n", "18446744073709551615"])
        .inputs(100_000)
        .run(|bytes| std::str::from_utf8(bytes).is_ok_and(|text| ledger::parse(text).is_ok()));
}

const DEPLOYMENT: &str = r#"{"apiVersion":"muster.dev/v1","kind":"Deployment","metadata":{"name":"digits"},
    "spec":{"model":"digits","version":7,"resources":{"cpu":"500m","memory":"64Mi"},"replicas":3}}"#;

fn body<T: DeserializeOwned>(alone: &Alone, name: &'static str, good: impl Into<Vec<u8>>) {
    alone.parser(name, [good.into()]).run(|bytes| serde_json::from_slice::<T>(bytes).is_ok());
}

#[test]
fn json_bodies_are_read_or_refused() {
    let alone = alone();
    body::<Login>(&alone, "login", r#"{"code":"abcde-fghij"}"#);
    body::<Credentials>(&alone, "credentials", r#"{"user":"admin","password":"secret"}"#);
    body::<NewPassword>(&alone, "new password", r#"{"current":"secret","next":"another one"}"#);
    body::<NewClaim>(
        &alone,
        "new claim",
        r#"{"uses":3,"ttlSeconds":60,"labels":{"site":"north"},"mayLabel":["rack"]}"#,
    );
    let enrol = r#"{"claim":"0102030405060708","secret":"00","csr":"x","name":"edge-1","labels":{"a":"b"}}"#;
    body::<Enrol>(&alone, "enrolment", enrol);
    body::<Enrol>(&alone, "enrolment from the factory", r#"{"csr":"x","labels":{}}"#);
    let factory = format!(r#"[{{"fingerprint":"{}","name":"edge-1","labels":{{"site":"north"}}}}]"#, Digest::of("x"));
    body::<Vec<FactoryKey>>(&alone, "factory list", factory);
    body::<Revoke>(&alone, "revocation", r#"{"reason":"lost"}"#);
    let renewal = Envelope::sign(payload_type::RENEWAL, b"x".to_vec(), &[&SecretKey::from_seed([1; 32])]);
    body::<Renew>(&alone, "renewal", serde_json::to_vec(&Renew { renewal: renewal.clone() }).unwrap());
    body::<Envelope>(&alone, "envelopes", renewal.to_json());
    body::<Deployment>(&alone, "deployment", DEPLOYMENT);
    body::<Scale>(&alone, "scale", r#"{"replicas":3}"#);
    body::<PlanRequest>(&alone, "plan", format!("{{\"deployments\":[{DEPLOYMENT}]}}"));
}

/// A plane that runs, with a root, a token and an enrolled device.
struct Plane {
    runtime: Runtime,
    running: Running,
    token: String,
    key: KeyPair,
    enrolled: Enrolled,
    stop: CancellationToken,
    _folder: TempDir,
}

impl Plane {
    fn start() -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        let folder = tempfile::tempdir().unwrap();
        let stop = CancellationToken::new();
        let any = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        let config = Config {
            data: folder.path().to_owned(),
            http: any,
            plain_http: Some(any),
            mqtt: any,
            devices: Some(any),
            advertise_devices: None,
            gateway: None,
            names: vec![],
            advertise_mqtt: None,
            ready_file: None,
            new_admin_password: false,
            new_admin_code: false,
            device_certificate_life: muster_control_plane::trust::ca::DEVICE_LIFE,
            revocations: None,
            restored: false,
        };
        let (running, enrolled, key, token) = runtime.block_on(async {
            let running = muster_control_plane::start(config, stop.clone()).await.unwrap();
            let plane = running.plane();
            let key = SecretKey::from_seed([1; 32]);
            let role = Role { threshold: 1, keys: vec![key.public()] };
            let root = Root {
                fleet: "home".parse().unwrap(),
                version: 1,
                epoch: 1,
                expires_ms: i64::MAX as u64,
                root: role.clone(),
                publishers: vec![Publisher { key: key.public(), models: None }],
                directors: vec![plane.director.public()],
                release: role,
                compromised: vec![],
            };
            let root = Envelope::sign(payload_type::ROOT, root.to_payload(), &[&key]);
            plane.trust.add(&plane.db, &root).await.unwrap();
            let asked: NewClaim =
                serde_json::from_str(r#"{"uses":1,"ttlSeconds":60,"mayLabelAnything":true}"#).unwrap();
            let claim = enrol::new_claim(plane, &asked).await.unwrap();
            let key = device_key();
            let csr = CertificateParams::default().serialize_request(&key).unwrap().pem().unwrap();
            let asked = Enrol {
                claim: Some(claim.id),
                secret: Some(claim.secret),
                csr,
                name: Some("edge-1".parse().unwrap()),
                labels: Default::default(),
            };
            let enrol::Outcome::Enrolled(enrolled) = enrol::enrol(plane, &asked).await.unwrap() else {
                panic!("it is let in at once")
            };
            let code = running.ready().admin_code.clone().unwrap();
            let router = http::api(plane.clone(), Listener::Tls);
            let login = Request::post("/api/v1/login").header(header::CONTENT_TYPE, "application/json");
            let login = login.body(Body::from(format!(r#"{{"code":"{code}"}}"#))).unwrap();
            let answer = router.oneshot(login).await.unwrap();
            let answer = answer.into_body().collect().await.unwrap().to_bytes();
            let answer: serde_json::Value = serde_json::from_slice(&answer).unwrap();
            (running, *enrolled, key, answer["token"].as_str().unwrap().to_owned())
        });
        Self { runtime, running, token, key, enrolled, stop, _folder: folder }
    }

    fn sign(&self, payload_type: &str, payload: Vec<u8>) -> Envelope {
        let message = Envelope::message_to_sign(payload_type, &payload);
        let keyid = KeyId(Digest::of(self.key.subject_public_key_info()));
        let sig = self.key.sign(&message).unwrap();
        Envelope::with_signature(payload_type, payload, Signature { keyid, sig })
    }

    fn plain(&self) -> SocketAddr {
        let address = self.running.ready().plain_http.as_ref().unwrap();
        address.trim_start_matches("http://").parse().unwrap()
    }

    /// Whether it still answers.
    fn assert_alive(&self) {
        let request = format!("GET /api/v1/info HTTP/1.1\r\nHost: {}\r\nConnection: close\r\n\r\n", self.plain());
        let answer = talk(self.plain(), request.as_bytes(), PATIENCE);
        assert!(answer.starts_with(b"HTTP/1.1 200"), "{}", String::from_utf8_lossy(&answer));
    }

    fn end(self) {
        self.assert_alive();
        self.stop.cancel();
        self.runtime.block_on(self.running.finished());
    }
}

/// Asks with the first line of the input as `METHOD path`, the next up to an empty one as headers, and the
/// rest as body.
fn ask(runtime: &Runtime, router: &Router, token: Option<&str>, input: &[u8]) -> bool {
    let end = input.windows(2).position(|end| end == b"\n\n").unwrap_or(input.len());
    let mut lines = input[..end].split(|byte| *byte == b'\n');
    let first = String::from_utf8_lossy(lines.next().unwrap_or_default()).into_owned();
    let (method, path) = first.split_once(' ').unwrap_or(("GET", &first));
    let Ok(method) = Method::from_bytes(method.as_bytes()) else { return false };
    let mut request = Request::builder().method(method).uri(path);
    for line in lines {
        let Some(at) = line.iter().position(|byte| *byte == b':') else { continue };
        let name = HeaderName::from_bytes(&line[..at]);
        let value = HeaderValue::from_bytes(line[at + 1..].trim_ascii());
        if let (Ok(name), Ok(value)) = (name, value) {
            request = request.header(name, value);
        }
    }
    if let Some(token) = token {
        request = request.header(header::AUTHORIZATION, format!("Bearer {token}"));
    }
    let Ok(mut request) = request.body(Body::from(input.get(end + 2..).unwrap_or_default().to_vec())) else {
        return false;
    };
    let from = SocketAddr::from(([127, 0, 0, 1], 5));
    request.extensions_mut().insert(axum::extract::ConnectInfo(from));
    let answer = runtime.block_on(router.clone().oneshot(request)).unwrap();
    // A panic in a handler is caught, and this is what it answers.
    assert!(answer.status() != 500, "a request failed");
    answer.status().is_success()
}

#[test]
fn a_plane_survives_what_anyone_can_send_it() {
    let alone = alone();
    let plane = Plane::start();
    requests(&alone, &plane);
    what_devices_publish(&alone, &plane);
    raw_requests(&alone, &plane);
    raw_packets(&alone, &plane);
    tunnels(&alone, &plane);
    proofs(&alone, &plane);
    plane.end();
}

fn requests(alone: &Alone, plane: &Plane) {
    let router = http::api(plane.running.plane().clone(), Listener::Tls);
    let json = "\nContent-Type: application/json\n\n";
    let name = plane.enrolled.device.clone();
    let csr = CertificateParams::default().serialize_request(&plane.key).unwrap();
    let asked = |claim: Option<(String, String)>| {
        let (claim, secret) = claim.unzip();
        let csr = csr.pem().unwrap();
        let enrol = Enrol { claim, secret, csr, name: Some(name.clone()), labels: Default::default() };
        serde_json::to_string(&enrol).unwrap()
    };
    let claim = plane.runtime.block_on(async {
        let asked: NewClaim = serde_json::from_str(r#"{"uses":1000,"ttlSeconds":3600}"#).unwrap();
        enrol::new_claim(plane.running.plane(), &asked).await.unwrap()
    });
    let renewal = wire::encode(&Renewal { device: name.clone(), csr: csr.der().to_vec() }).unwrap();
    let renewal = Renew { renewal: plane.sign(payload_type::RENEWAL, renewal) };
    let good = [
        format!("PUT /api/v1/deployments/digits{json}{DEPLOYMENT}"),
        format!("PUT /api/v1/deployments/digits/scale{json}{{\"replicas\":2}}"),
        format!("POST /api/v1/claims{json}{{\"uses\":1,\"ttlSeconds\":60}}"),
        format!("POST /api/v1/plan{json}{{\"deployments\":[{DEPLOYMENT}]}}"),
        "GET /api/v1/devices/edge-1/history\n\n".to_owned(),
        "GET /api/v1/events?limit=5\n\n".to_owned(),
        "GET /api/v1/devices/edge-1/explain\n\n".to_owned(),
        format!("POST /api/v1/factory{json}[{{\"fingerprint\":\"{}\"}}]", Digest::of("x")),
        "GET /api/v1/factory\n\n".to_owned(),
    ];
    let joining = [
        format!("POST /api/v1/enrol{json}{}", asked(Some((claim.id, claim.secret)))),
        format!("POST /api/v1/renew{json}{}", serde_json::to_string(&renewal).unwrap()),
    ];
    // They write to the database and make certificates, so there are fewer; bodies and certificate requests
    // are read from memory above.
    let join = alone.parser("enrolments and renewals", joining).inputs(5_000).long_inputs(SERVER_LONG_INPUTS);
    join.memory(1024, PLANE_BYTES).past_permille_min(1).run(|input| ask(&plane.runtime, &router, None, input));
    let requests = alone.parser("requests with a token", good).inputs(10_000).long_inputs(SERVER_LONG_INPUTS);
    requests.memory(1024, PLANE_BYTES).run(|input| ask(&plane.runtime, &router, Some(&plane.token), input));
    let own = plane.plain();
    let loopback = http::api(plane.running.plane().clone(), Listener::Loopback(own));
    let good = [format!("GET /api/v1/info\nHost: {own}\nOrigin: http://{own}\nCookie: muster=1; a=b\n\n")];
    let headers = alone.parser("Host, Origin and cookies", good).inputs(10_000);
    headers.memory(1024, PLANE_BYTES).run(|input| ask(&plane.runtime, &loopback, None, input));
}

fn what_devices_publish(alone: &Alone, plane: &Plane) {
    let device: DeviceId = plane.enrolled.device.clone();
    let hello = Hello { boot: BootId([1; 16]), nonce: Nonce([2; 16]), root_version: 1, holds: None, wants_time: true };
    let facts = Facts {
        agent: "0.1.0".into(),
        arch: "aarch64".into(),
        os: "Debian".into(),
        cpu_model: None,
        cpu_milli: 4000,
        memory_bytes: 4 << 30,
        disk_free_bytes: None,
        engines: vec![],
        isolation: vec![],
        hardware: Default::default(),
        labels: Default::default(),
    };
    let reported = Reported {
        device: device.clone(),
        boot: BootId([1; 16]),
        sequence: 1,
        at_ms: 1,
        root_version: 1,
        applied: None,
        desired_refused: None,
        facts,
        slots: vec![],
        refusals: vec![],
        floors: vec![],
        health: Default::default(),
        notes: vec![],
    };
    let event = Event {
        boot: BootId([1; 16]),
        at_ms: 1,
        kind: EventKind::ChunkDiscarded,
        deployment: None,
        text: "chunk".into(),
    };
    let reply = Reply { id: Nonce([5; 16]), status: 200, version: None, json_bytes: None, body: vec![] };
    let get = ChunkGet { blob: Digest::of("blob"), first_frame: 0, frames: 1 };
    let reply_to = Leaf::Reply("cp-1".parse().unwrap());
    let payload = wire::encode(&reported).unwrap();
    let mut latency = Sketch::default();
    latency.record(1_500);
    let batch = Batch {
        device: device.clone(),
        boot: BootId([1; 16]),
        sequence: 1,
        from_ms: 1,
        until_ms: 2,
        host: HostSample { cpu_permille: 5, memory_used_bytes: 6, memory_bytes: 7, ..HostSample::default() },
        models: vec![ModelSample {
            deployment: "digits".parse().unwrap(),
            model: "digits".parse().unwrap(),
            version: muster_shared::Version::new(3).unwrap(),
            requests: 10,
            errors: 1,
            cpu_us: 5,
            latency,
        }],
    };
    let signed = |payload: Vec<u8>| wire::encode(&SignedReported(plane.sign(payload_type::REPORTED, payload)));
    let signed_batch = |payload: Vec<u8>| wire::encode(&SignedBatch(plane.sign(payload_type::TELEMETRY, payload)));
    let telemetry = wire::encode(&batch).unwrap();
    // The first byte of an input says which topic; the last two kinds are signed by the device before they are
    // sent.
    let leaves = [Leaf::Hello, Leaf::Reported, Leaf::Event, Leaf::ChunkGet, Leaf::Telemetry, reply_to];
    let seeds = [
        wire::encode(&hello).unwrap(),
        signed(payload.clone()).unwrap(),
        wire::encode(&event).unwrap(),
        wire::encode(&get).unwrap(),
        signed_batch(telemetry.clone()).unwrap(),
        wire::encode(&reply).unwrap(),
        payload,
        telemetry,
    ];
    let seeds: Vec<Vec<u8>> = seeds.iter().enumerate().map(|(at, seed)| [&[at as u8][..], seed].concat()).collect();
    let (sender, receiver) = mpsc::channel(4);
    let ingest = plane.runtime.spawn(ingest::run(plane.running.plane().clone(), receiver));
    let send = |event| {
        let sent = plane.runtime.block_on(async { tokio::time::timeout(PATIENCE, sender.send(event)).await });
        sent.expect("the ingest is stuck").expect("the ingest has ended");
    };
    let name = device.to_string();
    send(BrokerEvent::Connected { device: name.clone() });
    let published = alone.parser("what devices publish", seeds).inputs(20_000).long_inputs(SERVER_LONG_INPUTS);
    published.memory(1024, PLANE_BYTES).run(|input| {
        let Some((which, payload)) = input.split_first() else { return false };
        let which = usize::from(*which) % (leaves.len() + 2);
        let (leaf, payload) = match leaves.get(which) {
            Some(leaf) => (leaf.clone(), Ok(payload.to_vec())),
            None if which == leaves.len() => (Leaf::Reported, signed(payload.to_vec())),
            None => (Leaf::Telemetry, signed_batch(payload.to_vec())),
        };
        let Ok(payload) = payload else { return false };
        let topic = leaf.of(&device).to_string();
        send(BrokerEvent::Message { device: name.clone(), topic, payload: payload.into() });
        true
    });
    assert!(!ingest.is_finished(), "the ingest has ended");
    plane.assert_alive();
}

/// Sends everything over a connection of its own; what came back within the time.
fn talk(address: SocketAddr, bytes: &[u8], patience: Duration) -> Vec<u8> {
    let mut stream = TcpStream::connect(address).unwrap();
    let (mut answer, mut piece) = (vec![], [0; 4096]);
    // A head that never ends gets no answer.
    if stream.write_all(bytes).is_ok() && bytes.windows(4).any(|end| end == b"\r\n\r\n") {
        stream.set_read_timeout(Some(patience)).unwrap();
        if let Ok(count) = stream.read(&mut piece) {
            answer.extend_from_slice(&piece[..count]);
        }
    }
    let _ = stream.shutdown(std::net::Shutdown::Write);
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let _ = stream.read_to_end(&mut answer);
    answer
}

fn raw_requests(alone: &Alone, plane: &Plane) {
    let (own, token) = (plane.plain(), &plane.token);
    let head = |first: &str| format!("{first}\r\nHost: {own}\r\nAuthorization: Bearer {token}\r\n");
    let good = [
        format!("{}\r\n", head("GET /api/v1/devices HTTP/1.1")),
        format!(
            "{}Content-Type: application/json\r\nContent-Length: 27\r\n\r\n{{\"uses\":1,\"ttlSeconds\":60}} ",
            head("POST /api/v1/claims HTTP/1.1")
        ),
        format!("{}Range: bytes=0-5\r\nConnection: close\r\n\r\n", head("GET /api/v1/openapi.json HTTP/1.1")),
    ];
    let mut tries = 0;
    let raw = alone.parser("HTTP at the plane", good.clone()).inputs(4_000).long_inputs(SERVER_LONG_INPUTS);
    raw.memory(1024, PLANE_BYTES).run(|bytes| {
        tries += 1;
        if tries % 500 == 0 {
            plane.assert_alive();
        }
        let is_good = good.iter().any(|good| good.as_bytes() == bytes);
        let patience = if is_good { PATIENCE } else { Duration::from_millis(5) };
        talk(own, bytes, patience).starts_with(b"HTTP/1.1 2")
    });
}

/// MQTT 3.1.1 of the device `edge-1`: a CONNECT, a SUBSCRIBE, a PUBLISH, a PINGREQ, a DISCONNECT.
fn packets() -> Vec<u8> {
    fn packet(kind: u8, body: &[u8]) -> Vec<u8> {
        assert!(body.len() < 128);
        [&[kind, body.len() as u8][..], body].concat()
    }
    fn text(text: &str) -> Vec<u8> {
        [&(text.len() as u16).to_be_bytes()[..], text.as_bytes()].concat()
    }
    let connect = [&text("MQTT")[..], &[4, 2, 0, 60], &text("edge-1")].concat();
    let subscribe = [&[0, 7][..], &text("muster/v1/edge-1/desired"), &[1]].concat();
    let publish = [&text("muster/v1/edge-1/hello")[..], &[0, 8], b"hello"].concat();
    [packet(0x10, &connect), packet(0x82, &subscribe), packet(0x32, &publish), packet(0xc0, &[]), packet(0xe0, &[])]
        .concat()
}

/// The parser of the broker's library from memory, with the broker's bound on a packet.
#[test]
fn packets_of_a_device_are_read_or_refused() {
    let alone = alone();
    alone.parser("MQTT packets", [packets()]).inputs(100_000).run(|bytes| {
        let mut stream = bytes::Bytes::copy_from_slice(bytes);
        let mut read = 0;
        while let Ok(header) = FixedHeader::decode(&mut stream) {
            let length = header.remaining_length as usize;
            if length > embedded::PACKET_BYTES_MAX || length > stream.len() {
                break;
            }
            let body = stream.split_to(length);
            // Devices speak 3.1.1; the library decides by the CONNECT packet, and knows 5 as well.
            for version in [4, 5] {
                let packet =
                    Packet::decode_from_body_with_version(header.packet_type, &header, &mut body.clone(), version);
                read += usize::from(packet.is_ok());
            }
        }
        read > 0
    });
}

/// Talks to a listener with the device's certificate, over connections of their own.
struct Teller {
    tls: Arc<rustls::ClientConfig>,
    address: SocketAddr,
}

impl Teller {
    fn new(plane: &Plane, address: SocketAddr) -> Self {
        let chain = vec![CertificateDer::from_pem_slice(plane.enrolled.certificate.as_bytes()).unwrap()];
        let key = PrivateKeyDer::try_from(plane.key.serialize_der()).unwrap();
        let ca = CertificateDer::from_pem_slice(plane.enrolled.ca.as_bytes()).unwrap();
        let tls = muster_tls::client(Digest::of(&ca), Some(muster_tls::ClientIdentity { chain, key })).unwrap();
        Self { tls: Arc::new(tls), address }
    }

    /// What came back within the time.
    fn say(&self, bytes: &[u8], patience: Duration) -> Vec<u8> {
        let mut tcp = TcpStream::connect(self.address).unwrap();
        tcp.set_read_timeout(Some(PATIENCE)).unwrap();
        let name = ServerName::try_from("127.0.0.1").unwrap();
        let mut session = rustls::ClientConnection::new(self.tls.clone(), name).unwrap();
        let mut stream = rustls::Stream::new(&mut session, &mut tcp);
        let mut answer = vec![];
        if stream.write_all(bytes).is_ok() {
            let _ = stream.sock.set_read_timeout(Some(patience));
            let mut piece = [0; 256];
            while let Ok(count) = stream.read(&mut piece) {
                answer.extend_from_slice(&piece[..count]);
                if count == 0 || answer.len() > 1024 {
                    break;
                }
            }
        }
        answer
    }
}

fn raw_packets(alone: &Alone, plane: &Plane) {
    let teller = Teller::new(plane, plane.running.ready().mqtt);
    let (good, say) = (packets(), |bytes: &[u8], patience: Duration| teller.say(bytes, patience));
    let admitted = [0x20, 2, 0, 0];
    let mut tries = 0;
    let broker = alone.parser("MQTT at the broker", [good.clone()]).inputs(2_000).long_inputs(SERVER_LONG_INPUTS);
    broker.memory(1024, PLANE_BYTES).run(|bytes| {
        tries += 1;
        if tries % 200 == 0 {
            assert!(say(&good, PATIENCE).starts_with(&admitted), "the broker is gone");
        }
        let patience = if bytes == good { PATIENCE } else { Duration::from_millis(10) };
        // It was let in: the CONNACK says so.
        say(bytes, patience).starts_with(&admitted)
    });
    assert!(say(&good, PATIENCE).starts_with(&admitted), "the broker is gone");
}

/// A client's frame: masked, by a mask that changes nothing.
fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
    assert!(payload.len() < 126);
    [&[first, 0x80 | payload.len() as u8, 0, 0, 0, 0][..], payload].concat()
}

fn tunnels(alone: &Alone, plane: &Plane) {
    let address = plane.running.ready().devices.clone().unwrap();
    let address = address.trim_start_matches("https://").to_owned();
    let teller = Teller::new(plane, address.parse().unwrap());
    let head = format!(
        "GET /mqtt HTTP/1.1\r\nHost: {address}\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\
         Sec-WebSocket-Protocol: mqtt\r\n\r\n"
    );
    let packets = packets();
    // Where a packet begins means nothing: the second one comes in pieces, with a ping between.
    let (connect, rest) = packets.split_at(20);
    let (first, second) = rest.split_at(9);
    let pieces = [frame(0x82, connect), frame(0x02, first), frame(0x89, b"ping"), frame(0x80, second)].concat();
    let good = [frame(0x82, &packets), pieces].map(|frames| [head.as_bytes(), &frames].concat());
    // What the broker says next may stand in the same message.
    let is_admitted = |answer: &[u8]| answer.windows(4).any(|four| four == [0x20, 2, 0, 0]);
    let mut tries = 0;
    let tunnels = alone.parser("MQTT in a WebSocket", good.clone()).inputs(2_000).long_inputs(SERVER_LONG_INPUTS);
    tunnels.memory(1024, PLANE_BYTES).run(|bytes| {
        tries += 1;
        if tries % 200 == 0 {
            assert!(is_admitted(&teller.say(&good[0], PATIENCE)), "the tunnel is gone");
        }
        let patience = if good.iter().any(|good| good == bytes) { PATIENCE } else { Duration::from_millis(10) };
        is_admitted(&teller.say(bytes, patience))
    });
    assert!(is_admitted(&teller.say(&good[0], PATIENCE)), "the tunnel is gone");
}

/// The input is the payload, which the device's key signs; and once more the whole of what it sends.
fn proofs(alone: &Alone, plane: &Plane) {
    let running = plane.running.plane();
    let challenge = TunnelChallenge { nonce: Nonce([6; 16]) };
    let ca = running.authority.fingerprint();
    let proof = TunnelProof { device: plane.enrolled.device.clone(), nonce: challenge.nonce, ca };
    let payload = wire::encode(&proof).unwrap();
    let sent = |payload: Vec<u8>| {
        wire::encode(&SignedTunnelProof(plane.sign(payload_type::TUNNEL_PROOF, payload))).unwrap_or_default()
    };
    let good = sent(payload.clone());
    alone.parser("proofs that are signed", [payload.clone()]).inputs(10_000).past_permille_min(0).run(|bytes| {
        let proven = tunnel::proven(running, challenge, &sent(bytes.to_vec()));
        assert!(proven.is_err() || bytes == payload, "a proof of something else counts");
        proven.is_ok()
    });
    alone
        .parser("proofs of a tunnel", [good])
        .inputs(20_000)
        .past_permille_min(0)
        .run(|bytes| tunnel::proven(running, challenge, bytes).is_ok());
}
