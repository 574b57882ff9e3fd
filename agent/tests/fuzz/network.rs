//! What stands between a device and its control plane speaks, too: proxies, login pages, resolvers; and what the
//! agent leaves on disk of it.

use std::net::IpAddr;
use std::path::Path;

use muster_agent::identity::DeviceKey;
use muster_agent::network::target::Target;
use muster_agent::network::{RawNetwork, Settings, fault, line, proxy, resolve, tunnel};
use muster_agent::{enrol, status};
use muster_fuzz::alone;
use muster_shared::id::Nonce;
use muster_shared::tunnel::{MESSAGE_BYTES_MAX, TunnelChallenge};
use muster_shared::{Digest, wire};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, duplex};
use tokio::net::UnixStream;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::protocol::Role;

/// Both ends' buffers of a tunnel: what is read, what waits to be written, and a message.
const TUNNEL_BYTES: usize = 16 * MESSAGE_BYTES_MAX;

#[test]
fn answers_of_a_proxy_are_read_or_refused() {
    let alone = alone();
    let good = [
        "HTTP/1.1 200 Connection established\r\nvia: 1.1 proxy\r\n\r\n",
        "HTTP/1.1 407 Proxy Authentication Required\r\nproxy-authenticate: Basic realm=\"x\"\r\n\r\n",
        "HTTP/1.0 403 Forbidden\r\ncontent-length: 0\r\n\r\n",
    ];
    alone.parser("answers of a proxy", good).inputs(100_000).run(|bytes| match proxy::answer(bytes) {
        Ok(answer) => answer.is_some(),
        Err(fault) => {
            assert!(fault.cause == fault::Cause::Proxy && fault.text.len() < 512, "{fault:?}");
            assert!(!fault.text.contains(char::is_control), "{fault:?}");
            fault.text.contains("403") || fault.text.contains("password")
        }
    });
}

#[test]
fn what_an_owner_says_of_the_network_is_read_or_refused() {
    let alone = alone();
    let good = ["http://me:p%40ss@proxy.example.org:3128", "http://[fd00::1]:80/"];
    alone.parser("a proxy's URL", good).run(|bytes| {
        let Ok(proxy) = String::from_utf8_lossy(bytes).parse::<proxy::Proxy>() else { return false };
        assert!(!proxy.to_string().contains("p@ss") || proxy.at.host.contains("p@ss"), "{proxy:?}");
        true
    });
    alone.parser("HTTPS_PROXY and NO_PROXY", ["http://proxy:1\na.example,.example.org,*"]).run(|bytes| {
        let text = String::from_utf8_lossy(bytes).into_owned();
        let (named, except) = text.split_once('\n').unwrap_or((&text, ""));
        let get = |name: &str| Some(if name == "HTTPS_PROXY" { named } else { except }.to_owned());
        proxy::of_environment("plane.example.org", get).is_ok()
    });
    let good =
        "tunnel = \"auto\"\nproxy = \"http://a:b@proxy:3128\"\nproxy-ca = \"ca.pem\"\ntry-direct-every = \"5s\"\n";
    alone.parser("[network]", [good]).memory(1024, 512 * 1024).run(|bytes| {
        let Ok(text) = std::str::from_utf8(bytes) else { return false };
        toml::from_str::<RawNetwork>(text).is_ok_and(|raw| Settings::ready(raw, Path::new("/etc/muster")).is_ok())
    });
    let asked: Target = "plane:8443".parse().unwrap();
    alone.parser("the address of a tunnel", [":443", "devices.example.org:443", "[fd00::1]:443"]).run(|bytes| {
        let text = String::from_utf8_lossy(bytes);
        let Ok(address) = enrol::tunnel_address(&text, &asked) else { return false };
        assert!(address.parse::<Target>().is_ok(), "{address}");
        true
    });
}

#[test]
fn what_is_kept_of_the_network_is_read_or_refused() {
    let alone = alone();
    let good = r#"{"atMs":1,"state":"offline","since":1,"via":"proxy","broker":"plane:443","error":"refused",
        "errorKind":"notLetIn","addresses":["10.0.0.1:443"],"clockConfirmed":true,"boundMs":7}"#;
    alone.parser("status.json", [good]).run(|bytes| status::of_bytes(bytes).is_ok());
    let good = r#"{"plane.example.org":"203.0.113.7","devices.example.org":"2001:db8::7"}"#;
    alone.parser("addresses.json", [good]).run(|bytes| {
        let Ok(remembered) = resolve::remembered(bytes) else { return false };
        assert!(remembered.len() <= 8 && remembered.values().all(|ip: &IpAddr| !ip.to_string().is_empty()));
        true
    });
}

#[test]
fn challenges_of_a_control_plane_are_answered_or_refused() {
    let alone = alone();
    let pem = rcgen::KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).unwrap().serialize_pem();
    let key = DeviceKey::from_pem(&pem).unwrap();
    let (device, ca) = ("edge-1".parse().unwrap(), Digest::of("ca"));
    let good = wire::encode(&TunnelChallenge { nonce: Nonce([6; 16]) }).unwrap();
    alone.parser("challenges", [good]).inputs(10_000).run(|bytes| line::proof(bytes, &device, ca, &key).is_ok());
}

/// A server's frames are not masked: two bytes of head, and more for a length of more than 125 bytes.
fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
    match u8::try_from(payload.len()).ok().filter(|length| *length < 126) {
        Some(length) => [&[first, length][..], payload].concat(),
        None => [&[first, 126][..], &(payload.len() as u16).to_be_bytes(), payload].concat(),
    }
}

#[test]
fn frames_of_a_control_plane_are_carried_or_refused() {
    let alone = alone();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let good = [
        [frame(0x82, &[0x20, 2, 0, 0]), frame(0x89, b"ping"), frame(0x82, &[7; 300])].concat(),
        // A message in pieces, with a ping between, and a goodbye.
        [frame(0x02, b"\x20\x02"), frame(0x89, b""), frame(0x80, b"\0\0"), frame(0x88, b"\x03\xe8")].concat(),
    ];
    let carried = alone.parser("WebSocket frames", good).inputs(20_000).memory(64, TUNNEL_BYTES);
    carried.run(|bytes| {
        runtime.block_on(async {
            let (mut far, near) = duplex(muster_fuzz::CHANGED_BYTES_MAX);
            let tunnel = WebSocketStream::from_raw_socket(near, Role::Client, Some(tunnel::bounds())).await;
            let (local, mut client) = UnixStream::pair().unwrap();
            far.write_all(bytes).await.unwrap();
            // Nothing more comes; what the tunnel says goes on being taken.
            let (mut from_tunnel, mut to_tunnel) = tokio::io::split(far);
            to_tunnel.shutdown().await.unwrap();
            let mut said = vec![];
            let heard = async {
                let mut told = vec![];
                let _ = client.read_to_end(&mut told).await;
                told
            };
            let (ended, told, _) = tokio::join!(tunnel::pump(tunnel, local), heard, from_tunnel.read_to_end(&mut said));
            assert!(ended.is_err(), "the far side ended it, and that has a reason");
            !told.is_empty()
        })
    });
}

#[test]
fn answers_to_the_opening_of_a_tunnel_are_read_or_refused() {
    let alone = alone();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let target: Target = "plane:443".parse().unwrap();
    let problem = r#"{"type":"about:blank","title":"Forbidden","status":403,"detail":"not let in","hint":"ask"}"#;
    let good = [
        format!("HTTP/1.1 403 Forbidden\r\ncontent-length: {}\r\n\r\n{problem}", problem.len()),
        "HTTP/1.1 302 Found\r\nlocation: http://login.example/\r\ncontent-length: 0\r\n\r\n".to_owned(),
        // The right answer to another key than the one that is drawn.
        "HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: websocket\r\n\
         sec-websocket-accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\nsec-websocket-protocol: mqtt\r\n\r\n"
            .to_owned(),
    ];
    let answers = alone.parser("answers to a WebSocket's opening", good).inputs(20_000).memory(64, TUNNEL_BYTES);
    answers.run(|bytes| {
        runtime.block_on(async {
            let (mut far, near) = duplex(muster_fuzz::CHANGED_BYTES_MAX);
            far.write_all(bytes).await.unwrap();
            let (_from_tunnel, mut to_tunnel) = tokio::io::split(far);
            to_tunnel.shutdown().await.unwrap();
            let opened = tunnel::open(near, false, &target, &|_| Ok(vec![])).await;
            let fault = opened.map(drop).expect_err("nobody knows the key that was drawn");
            assert!(fault.text.len() < 2048, "{} bytes", fault.text.len());
            fault.cause == fault::Cause::NotLetIn || ["302", "Accept"].iter().any(|part| fault.text.contains(part))
        })
    });
}
