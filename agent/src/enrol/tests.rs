//! Enrolment against servers that answer as they are told to.

use std::io::Write as _;
use std::net::TcpListener;
use std::sync::{Arc, Mutex};

use muster_shared::root::{Publisher, Role, Root};
use muster_shared::signing::key::SecretKey;
use rcgen::{BasicConstraints, CertificateParams, CertificateSigningRequestParams, IsCa, Issuer, KeyPair};
use rustls::pki_types::PrivateKeyDer;

use super::*;

fn answered(status: u16, retry_after: Option<u64>, body: &str) -> Answer {
    Answer {
        status: StatusCode::from_u16(status).expect("a status"),
        retry_after: retry_after.map(Duration::from_secs),
        body: body.to_owned().into(),
    }
}

#[test]
fn an_operator_or_a_throttle_makes_a_device_wait_and_a_refusal_ends_it() {
    let data = tempfile::tempdir().expect("a folder");
    let key = DeviceKey::open_or_make(data.path()).expect("a key");
    let check = |answer: &Answer, with_claim| step(answer, &key, with_claim).map_err(|error| format!("{error:#}"));
    let waiting = r#"{"device":"edge-1","detail":"an operator has to approve it"}"#;
    let noted = check(&answered(202, None, waiting), true);
    let Ok(Step::Wait(text, None)) = noted else { panic!("{noted:?}") };
    assert!(text.contains("edge-1") && text.contains("approve") && text.contains(&key.fingerprint().to_string()));
    let throttled = check(&answered(429, Some(7), "{}"), true);
    let Ok(Step::Wait(_, Some(after))) = throttled else { panic!("{throttled:?}") };
    assert_eq!(after, Duration::from_secs(7));
    let problem = r#"{"type":"about:blank","title":"Forbidden","status":403,"detail":"the claim has expired",
        "hint":"ask for a new claim"}"#;
    let refused = check(&answered(403, None, problem), true).expect_err("refused");
    assert!(refused.contains("expired; ask for a new claim") && !refused.contains("factory"), "{refused}");
    let refused = check(&answered(403, None, problem), false).expect_err("refused");
    assert!(refused.contains("factory list") && refused.contains(&key.fingerprint().to_string()), "{refused}");
    assert!(check(&answered(200, None, "{}"), true).expect_err("no enrolment").contains("cannot be read"));
    assert!(check(&answered(502, None, "<html>"), true).expect_err("no answer").contains("502"));
}

#[test]
fn a_device_without_a_root_and_a_ca_to_believe_in_does_not_enrol() {
    let (root, ca) = (Digest::of("root"), Digest::of("ca"));
    let claim = ClaimToken { id: [1; 8], secret: [2; 16], root, ca, issued_ms: 5 };
    let of = |claim, root, ca, not_before| Pins::new(claim, root, ca, not_before).map_err(|error| error.to_string());
    assert_eq!(of(Some(&claim), None, None, None), Ok(Pins { root, ca, issued_ms: 5 }));
    assert_eq!(of(Some(&claim), None, None, Some(9)), Ok(Pins { root, ca, issued_ms: 9 }));
    assert_eq!(of(None, Some(root), Some(ca), Some(9)), Ok(Pins { root, ca, issued_ms: 9 }));
    for (claim, root, ca, part) in [
        (None, None, None, "--root-digest"),
        (None, None, Some(ca), "--root-digest"),
        (None, Some(root), None, "--ca-digest"),
        (Some(&claim), Some(root), None, "leave"),
    ] {
        let error = of(claim, root, ca, None).expect_err("must not enrol");
        assert!(error.contains(part), "{error}");
    }
}

#[test]
fn the_broker_is_where_the_plane_is_unless_it_says_otherwise() {
    let of = |offered: &str| broker_address(offered, "https://plane.example:8443").map_err(|error| error.to_string());
    assert_eq!(of(":8883"), Ok("plane.example:8883".into()));
    assert_eq!(of("broker.example:1"), Ok("broker.example:1".into()));
    assert!(of("nothing").is_err());
}

/// A server for one scripted answer after another, under a CA of its own.
struct Server {
    url: String,
    ca: Digest,
    /// The bodies that it was sent.
    asked: Arc<Mutex<Vec<Enrol>>>,
}

/// An answer: its status, a further header, its body.
enum Scripted {
    Plain(u16, &'static str, &'static str),
    /// A certificate for the key that asks, and the root.
    Enrolled,
}

fn root() -> Envelope {
    let key = SecretKey::from_seed([1; 32]);
    let role = Role { threshold: 1, keys: vec![key.public()] };
    let root = Root {
        fleet: "home".parse().expect("an id"),
        version: 1,
        epoch: 1,
        expires_ms: u64::MAX >> 1,
        root: role.clone(),
        publishers: vec![Publisher { key: key.public(), models: None }],
        directors: vec![key.public()],
        release: role,
        compromised: vec![],
    };
    Envelope::sign(payload_type::ROOT, root.to_payload(), &[&key])
}

impl Server {
    fn start(script: Vec<Scripted>) -> Self {
        muster_tls::install_provider();
        let ca_key = KeyPair::generate().expect("a key");
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let ca = params.self_signed(&ca_key).expect("a CA");
        let issuer = Issuer::new(params, ca_key);
        let key = KeyPair::generate().expect("a key");
        let leaf = CertificateParams::new(["127.0.0.1".to_owned()]).expect("params");
        let leaf = leaf.signed_by(&key, &issuer).expect("a certificate");
        let chain = vec![leaf.der().clone(), ca.der().clone()];
        let key = PrivateKeyDer::try_from(key.serialize_der()).expect("a key");
        let tls = rustls::ServerConfig::builder().with_no_client_auth().with_single_cert(chain, key).expect("TLS");
        let tls = Arc::new(tls);
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let url = format!("https://{}", listener.local_addr().expect("an address"));
        let (digest, asked) = (Digest::of(ca.der()), Arc::<Mutex<Vec<Enrol>>>::default());
        let heard = Arc::clone(&asked);
        std::thread::spawn(move || {
            for answer in script {
                let Ok((stream, _)) = listener.accept() else { return };
                let connection = rustls::ServerConnection::new(tls.clone()).expect("a connection");
                let mut stream = rustls::StreamOwned::new(connection, stream);
                // A client that does not like the certificate is gone by now.
                let Some(request) = read_request(&mut stream) else { continue };
                let (status, header, body) = match answer {
                    Scripted::Plain(status, header, body) => (status, header, body.to_owned()),
                    Scripted::Enrolled => {
                        let csr = CertificateSigningRequestParams::from_pem(&request.csr).expect("a request");
                        let enrolled = Enrolled {
                            device: "edge-1".parse().expect("an id"),
                            certificate: csr.signed_by(&issuer).expect("a certificate").pem(),
                            ca: ca.pem(),
                            roots: vec![root()],
                            mqtt: ":8883".into(),
                            tunnel: None,
                        };
                        (200, "", serde_json::to_string(&enrolled).expect("JSON"))
                    }
                };
                heard.lock().expect("no panic").push(request);
                let length = body.len();
                let answer = format!(
                    "HTTP/1.1 {status} X\r\n{header}content-length: {length}\r\nconnection: close\r\n\r\n{body}"
                );
                stream.write_all(answer.as_bytes()).expect("answers");
                stream.conn.send_close_notify();
                let _ = stream.flush();
            }
        });
        Self { url, ca: digest, asked }
    }

    fn enrolling(&self, data: &Path, wait: bool) -> Enrolling {
        Enrolling {
            url: self.url.clone(),
            pins: Pins { root: Digest::of(&root().payload), ca: self.ca, issued_ms: 0 },
            claim: Some(("01".repeat(8), "02".repeat(16))),
            data: data.to_owned(),
            name: None,
            labels: Labels::new(),
            wait,
            network: RawNetwork::default(),
            writes_config: true,
        }
    }
}

fn read_request(stream: &mut impl std::io::Read) -> Option<Enrol> {
    let mut bytes = vec![];
    loop {
        let mut more = [0; 4096];
        let length = stream.read(&mut more).ok().filter(|length| *length > 0)?;
        bytes.extend(&more[..length]);
        let text = String::from_utf8_lossy(&bytes);
        if let Some((_, body)) = text.split_once("\r\n\r\n")
            && let Ok(request) = serde_json::from_str(body)
        {
            return Some(request);
        }
    }
}

const NOTED: &str = r#"{"device":"edge-1","detail":"an operator has to approve it"}"#;

#[tokio::test]
async fn a_device_that_waits_for_approval_gets_in_with_the_same_key_also_after_it_was_stopped() {
    let data = tempfile::tempdir().expect("a folder");
    let server = Server::start(vec![
        Scripted::Plain(202, "", NOTED),
        Scripted::Plain(429, "retry-after: 0\r\n", "{}"),
        Scripted::Plain(202, "", NOTED),
        Scripted::Enrolled,
    ]);
    let error = enrol(&server.enrolling(data.path(), false), &|_| {}).await.expect_err("nobody approved it yet");
    let text = format!("{error:#}");
    assert!(text.contains("edge-1") && text.contains("run the same command again"), "{text}");

    let told = Mutex::new(vec![]);
    let tell = |text: &str| told.lock().expect("no panic").push(text.to_owned());
    let enrolment = enrol(&server.enrolling(data.path(), true), &tell).await.expect("approved");
    assert_eq!((enrolment.device.as_str(), enrolment.root), ("edge-1", Digest::of(&root().payload)));
    let told = told.into_inner().expect("no panic");
    assert!(told.len() == 2 && told[0].contains("no more enrolments") && told[1].contains("approve"), "{told:?}");
    // A request is made anew each time; the key in it is the one that was noted.
    let asked = server.asked.lock().expect("no panic");
    let key = |csr: &str| CertificateSigningRequestParams::from_pem(csr).expect("a request").public_key;
    assert_eq!(asked.len(), 4);
    assert!(asked.iter().all(|each| key(&each.csr) == key(&asked[0].csr)));
}

#[tokio::test]
async fn another_ca_another_root_and_another_keys_certificate_are_refused_with_the_next_move() {
    let data = tempfile::tempdir().expect("a folder");
    let server = Server::start(vec![Scripted::Enrolled, Scripted::Enrolled]);
    let mut wrong = server.enrolling(data.path(), true);
    wrong.pins.ca = Digest::of("another");
    let text = format!("{:#}", enrol(&wrong, &|_| {}).await.expect_err("another CA"));
    assert!(text.contains("cannot reach") && text.contains("check the URL") && text.contains("claim new"), "{text}");
    let mut wrong = server.enrolling(data.path(), true);
    wrong.pins.root = Digest::of("another");
    let text = format!("{:#}", enrol(&wrong, &|_| {}).await.expect_err("another root"));
    assert!(text.contains("does not have the root") && text.contains("claim new"), "{text}");
    assert!(identity::enrolment(data.path()).expect("readable").is_none(), "it is not enrolled");
}

#[tokio::test]
async fn a_server_whose_certificate_ended_before_the_claim_was_made_is_refused() {
    let data = tempfile::tempdir().expect("a folder");
    // Its certificate ends in the year 4096; so does the claim's time begin after that.
    let server = Server::start(vec![Scripted::Enrolled]);
    let mut asked = server.enrolling(data.path(), true);
    asked.pins.issued_ms = 67_090_000_000_000 + 86_400_000 * 366;
    let text = format!("{:#}", enrol(&asked, &|_| {}).await.expect_err("it ended"));
    assert!(text.contains("ran out") && text.contains("restart the control plane"), "{text}");
}
