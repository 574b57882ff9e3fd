//! Networks that are in the way: closed ports, login pages, proxies, wrong clocks; resolvers and families are in
//! [`crate::names`]. What a device does about each stands in docs/guides/network.md; here it does it.

use std::io::{Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::process::Command;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use muster_shared::Digest;
use muster_tests::hostile::open_bundle;
use muster_tests::impostor::Impostor;
use muster_tests::network::{Gate, Proxy, Temper};
use muster_tests::programs;
use muster_world::{Bundle, World, fixtures, output, post};
use serde_json::{Value, json};

use crate::membership::only_its_own;

/// A revoked device is cut off within so long, as the issue has it; a test machine may be ten times as slow.
const CUT_MAX: Duration = Duration::from_secs(20);
/// A port of this machine that nobody listens at.
const CLOSED: &str = "127.0.0.1:1";
/// Looks for the direct way often enough for a story.
const NETWORK: &str = "\n[network]\ntry-direct-every = \"1s\"\n";

/// A world with a listener for devices, whose broker is told to be at `broker`.
fn world_with_tunnel(broker: &str) -> Result<World> {
    World::start_with(programs()?, &["--devices", "127.0.0.1:0", "--advertise-mqtt", broker], &|_| {})
}

pub(crate) fn devices_url(world: &World) -> Result<String> {
    world.plane().devices.clone().context("the listener for devices")
}

/// A gate before a broker that is not there yet; `open` says what it is.
struct Gated {
    world: World,
    gate: Gate,
}

impl Gated {
    /// A world whose devices are told that the broker is at the gate. Its port is not closed, it is in the way.
    fn start(temper: Temper) -> Result<Self> {
        let behind = Arc::new(Mutex::new(String::new()));
        let gate = Gate::before(behind.clone(), temper)?;
        let world = world_with_tunnel(&gate.address().to_string())?;
        *behind.lock().expect("no panic") = world.plane().mqtt.clone();
        Ok(Self { world, gate })
    }
}

/// Waits until `status.json` says so.
fn until_connection(world: &mut World, what: &str, holds: impl Fn(&Value) -> bool) -> Result<Value> {
    world.until(&format!("edge-1's connection to be {what}"), |world| {
        let status = world.connection("edge-1");
        Ok(holds(&status).then_some(status))
    })
}

pub(crate) fn until_via(world: &mut World, via: &str) -> Result<Value> {
    until_connection(world, via, |status| status["state"] == "connected" && status["via"] == via)
}

pub(crate) fn until_fault(world: &mut World, state: &str, kind: &str) -> Result<Value> {
    until_connection(world, kind, |status| status["state"] == state && status["errorKind"] == kind)
}

fn led(world: &World) -> std::path::PathBuf {
    world.folder().join("led")
}

/// The agent shows how it stands in a file, too.
pub(crate) fn with_led(world: &World) -> Result<()> {
    let led = led(world);
    world.configure("edge-1", |text| format!("{text}\n[status]\nled = \"{}\"\n", led.display()))
}

/// Waits until the LED's file says so.
pub(crate) fn until_led(world: &mut World, text: &str) -> Result<()> {
    world.until(&format!("the LED to show {text:?}"), |world| {
        Ok((std::fs::read_to_string(led(world)).unwrap_or_default().trim() == text).then_some(()))
    })
}

/// Pulls version 1 of a model onto edge-1, and asks it through the gateway.
pub(crate) fn pulls_and_answers(world: &mut World) -> Result<()> {
    world.publish(&Bundle::fixture("digits", 1))?;
    world.deploy("digits", "1")?;
    world.until_serves("edge-1", "digits", 1)?;
    answers_through_the_gateway(world)
}

/// What serves goes on beside every fault; after a start it is loaded first.
pub(crate) fn until_its_own_door_answers(world: &mut World) -> Result<()> {
    let body = json!({ "instances": [fixtures::held_out("digits", 1)?.instances[0]] }).to_string();
    world.until("the device's own door to answer", |world| {
        let answer = post(&format!("{}/v1/models/digits:predict", world.door("edge-1")?), &body)?;
        Ok((answer.status == 200).then_some(()))
    })
}

pub(crate) fn answers_through_the_gateway(world: &mut World) -> Result<()> {
    let held_out = fixtures::held_out("digits", 1)?;
    let body = json!({ "instances": [held_out.instances[0]] }).to_string();
    let url = format!("{}/v1/models/digits:predict", world.plane().gateway);
    world.until("the gateway to answer", |_| {
        let answer = post(&url, &body)?;
        let right =
            answer.body["predictions"].get(0).is_some_and(|got| fixtures::agrees(&held_out.predictions[0], got));
        Ok((answer.status == 200 && answer.device.as_deref() == Some("edge-1") && right).then_some(()))
    })
}

#[test]
fn with_the_brokers_port_closed_a_device_enrols_pulls_a_model_and_answers() -> Result<()> {
    let mut world = world_with_tunnel(CLOSED)?;
    let url = devices_url(&world)?;
    world.enrol_at("edge-1", &url, &[])?;
    with_led(&world)?;
    world.start_agent("edge-1")?;
    let status = until_via(&mut world, "tunnel")?;
    ensure!(format!("https://{}", status["broker"].as_str().unwrap_or_default()) == url, "{status}");
    pulls_and_answers(&mut world)?;
    until_led(&mut world, "connected on")?;
    let log = world.log("edge-1")?;
    ensure!(log.contains("the other way is blocked") && log.contains("Connection refused"), "{log}");
    // When it goes, the gateway knows at once: the tunnel ends with it.
    world.stop_agent("edge-1")?;
    world.until("the plane to know", |world| Ok((world.device("edge-1")?["connected"] == false).then_some(())))?;
    let status = world.connection("edge-1");
    ensure!(status["state"] == "offline" && status["error"] == "the agent does not run", "{status}");
    Ok(())
}

#[test]
fn the_same_goes_through_a_proxy_that_asks_for_a_name_and_a_password() -> Result<()> {
    let mut world = world_with_tunnel(CLOSED)?;
    let proxy = Proxy::start()?;
    let url = devices_url(&world)?;
    world.enrol_at("edge-1", &url, &["--proxy", &proxy.url("me:p%40ss@")])?;
    with_led(&world)?;
    let (target, login) = (url.trim_start_matches("https://").to_owned(), Some("bWU6cEBzcw==".to_owned()));
    ensure!(proxy.asked() == [(target.clone(), login.clone())], "the claim went another way: {:?}", proxy.asked());
    world.start_agent("edge-1")?;
    until_via(&mut world, "proxy")?;
    pulls_and_answers(&mut world)?;
    ensure!(proxy.asked().iter().all(|asked| *asked == (target.clone(), login.clone())), "{:?}", proxy.asked());
    ensure!(proxy.asked().len() >= 2, "the tunnel went another way");
    let log = world.log("edge-1")?;
    ensure!(!log.contains("p@ss") && !log.contains("p%40ss"), "the password stands in the log: {log}");

    // A proxy that refuses is named as what it is, and the device comes back by itself.
    proxy.refuse(true);
    world.stop_agent("edge-1")?;
    world.start_agent("edge-1")?;
    let status = until_fault(&mut world, "offline", "proxy")?;
    let text = status["error"].as_str().unwrap_or_default().to_owned();
    ensure!(text.contains("does not let connections to that address through (403"), "{text}");
    until_led(&mut world, "offline timer 100 1900")?;
    until_its_own_door_answers(&mut world)?;
    proxy.refuse(false);
    until_via(&mut world, "proxy")?;
    answers_through_the_gateway(&mut world)
}

#[test]
fn a_port_that_closes_sends_a_device_through_the_tunnel_and_it_comes_back_when_it_opens() -> Result<()> {
    let Gated { mut world, gate } = Gated::start(Temper::Open)?;
    world.add_device("edge-1")?;
    world.stop_agent("edge-1")?;
    world.configure("edge-1", |text| format!("{text}{NETWORK}"))?;
    world.start_agent("edge-1")?;
    until_via(&mut world, "mqtt")?;
    pulls_and_answers(&mut world)?;
    gate.set(Temper::Resets);
    world.stop_plane();
    world.start_plane()?;
    until_via(&mut world, "tunnel")?;
    answers_through_the_gateway(&mut world)?;
    gate.set(Temper::Open);
    until_via(&mut world, "mqtt")?;
    answers_through_the_gateway(&mut world)?;
    ensure!(world.log("edge-1")?.contains("the direct way is open again"), "{}", world.log("edge-1")?);

    // What the owner says is done: only directly, and only through the tunnel.
    gate.set(Temper::Resets);
    world.stop_agent("edge-1")?;
    world.configure("edge-1", |text| text.replace("[network]", "[network]\ntunnel = \"never\""))?;
    world.start_agent("edge-1")?;
    let status = until_fault(&mut world, "offline", "refused")?;
    ensure!(status["via"] == "mqtt", "{status}");
    gate.set(Temper::Open);
    until_via(&mut world, "mqtt")?;
    world.stop_agent("edge-1")?;
    world.configure("edge-1", |text| text.replace("\"never\"", "\"always\""))?;
    world.start_agent("edge-1")?;
    until_via(&mut world, "tunnel")?;
    Ok(())
}

#[test]
fn a_login_page_in_the_way_is_named_and_the_device_is_back_after_it() -> Result<()> {
    let Gated { mut world, gate } = Gated::start(Temper::Open)?;
    world.add_device("edge-1")?;
    with_led(&world)?;
    pulls_and_answers(&mut world)?;
    // The whole network shows the page: there is no tunnel beside it.
    gate.set(Temper::LoginPage);
    world.stop_agent("edge-1")?;
    world.configure("edge-1", |text| format!("{text}\n[network]\ntunnel = \"never\"\n"))?;
    world.start_agent("edge-1")?;
    let status = until_fault(&mut world, "offline", "captive")?;
    let text = status["error"].as_str().unwrap_or_default().to_owned();
    ensure!(text.contains("login page") && text.contains("log in"), "{text}");
    until_led(&mut world, "offline timer 100 1900")?;
    ensure!(world.log("edge-1")?.contains("login page"), "the console says nothing");
    gate.set(Temper::Open);
    until_via(&mut world, "mqtt")?;
    until_led(&mut world, "connected on")
}

#[test]
fn a_proxy_that_ends_tls_passes_a_proven_key_on_and_gets_no_secret_to_see() -> Result<()> {
    let mut world = world_with_tunnel(CLOSED)?;
    let proxy = Proxy::that_ends_tls()?;
    let (url, ca) = (devices_url(&world)?, world.folder().join("proxy-ca.pem"));
    std::fs::write(&ca, &proxy.ca)?;
    let (proxy_url, ca) = (proxy.url(""), ca.to_string_lossy().into_owned());
    // Without its owner's word a device takes such a proxy for what it may be.
    let refused = world.enrol_at("edge-1", &url, &["--proxy", &proxy_url]).expect_err("its CA is nobody's");
    ensure!(format!("{refused:#}").contains("does not show the CA"), "{refused:#}");
    // With it a claim's secret still does not go there.
    let behind = ["--proxy", &proxy_url, "--proxy-ca", &ca];
    let refused = world.enrol_at("edge-1", &url, &behind).expect_err("it would see the claim");
    ensure!(format!("{refused:#}").contains("factory list"), "{refused:#}");

    let trust = world.json(&["trust", "show"])?;
    let root = trust["pinned"]["digest"].as_str().context("the pinned root")?.to_owned();
    let enrol = |world: &World| -> Result<String> {
        let mut enrol = Command::new(&world.programs().agent);
        enrol.args(["enrol", "--no-wait", "--url", &url, "--root-digest", &root, "--ca-digest"]);
        enrol.arg(&world.plane().ca_fingerprint).args(behind).arg("--data").arg(world.device_folder("edge-1"));
        output(&mut enrol)
    };
    let told = format!("{:#}", enrol(&world).expect_err("it is not on the list yet"));
    // Whatever follows it: an environment may ask for backtraces.
    let is_digest = |word: &&str| word.len() == 64 && word.bytes().all(|byte| byte.is_ascii_hexdigit());
    let key = told.split_whitespace().rfind(is_digest).context("the key's fingerprint")?.to_owned();
    let list = world.folder().join("made.csv");
    std::fs::write(&list, format!("{key},edge-1,site=demo\n"))?;
    world.muster(&["claim", "factory", "add", &list.to_string_lossy()])?;
    enrol(&world)?;
    world.enrolled("edge-1")?;
    world.start_agent("edge-1")?;
    until_via(&mut world, "proxy")?;
    pulls_and_answers(&mut world)?;
    // The proof opens nothing once the key is revoked.
    world.muster(&["revoke", "edge-1"])?;
    let status = until_connection(&mut world, "refused for good", |status| status["state"] != "connected")?;
    ensure!(world.device("edge-1")?["connected"] == false, "{status}");
    Ok(())
}

#[test]
fn through_the_tunnel_a_device_has_its_own_topics_and_nothing_of_anothers() -> Result<()> {
    let mut world = World::start_with(programs()?, &["--devices", "127.0.0.1:0"], &|_| {})?;
    for device in ["edge-1", "edge-2"] {
        world.add_device(device)?;
    }
    let mut digests = vec![];
    for (model, device) in [("digits", "edge-1"), ("linear_regression", "edge-2")] {
        let bundle = world.publish(&Bundle::fixture(model, 1))?;
        world.muster(&["cordon", if device == "edge-1" { "edge-2" } else { "edge-1" }])?;
        world.deploy(model, "1")?;
        world.until_serves(device, model, 1)?;
        world.muster(&["uncordon", if device == "edge-1" { "edge-2" } else { "edge-1" }])?;
        digests.push(Digest::of(open_bundle(&bundle)?.blobs.last().context("the model's file")?));
    }
    world.stop_agent("edge-1")?;
    only_its_own(&world, digests[0], digests[1], Impostor::through_tunnel)
}

#[test]
fn a_revoked_device_is_cut_off_at_once_in_the_tunnel_and_does_not_get_in_again() -> Result<()> {
    let mut world = world_with_tunnel(CLOSED)?;
    world.add_device("edge-1")?;
    until_via(&mut world, "tunnel")?;
    world.stop_agent("edge-1")?;
    let mut impostor = Impostor::through_tunnel(&world, "edge-1")?;
    let began = Instant::now();
    world.muster(&["revoke", "edge-1", "--reason", "left in a train"])?;
    impostor.until_cut()?;
    println!("cut off {:?} after `muster revoke` was begun", began.elapsed());
    ensure!(began.elapsed() < CUT_MAX, "it was cut off after {:?}", began.elapsed());
    ensure!(Impostor::through_tunnel(&world, "edge-1").is_err(), "the tunnel lets it in");
    world.start_agent("edge-1")?;
    let status = until_fault(&mut world, "held", "notLetIn")?;
    ensure!(status["error"].as_str().unwrap_or_default().contains("not let in"), "{status}");
    Ok(())
}

#[test]
fn another_process_cannot_use_the_way_to_the_broker() -> Result<()> {
    let Gated { mut world, gate } = Gated::start(Temper::Resets)?;
    world.add_device("edge-1")?;
    until_via(&mut world, "tunnel")?;
    let socket = world.device_folder("edge-1").join("network/mqtt.sock");
    ensure!(!socket.exists() && UnixStream::connect(&socket).is_err(), "there is a way in beside the agent");

    // While it connects the socket is there for moments: this process, of the same user, is always at it.
    let (stop, came, served) = (AtomicBool::new(false), AtomicUsize::new(0), AtomicUsize::new(0));
    std::thread::scope(|scope| -> Result<()> {
        scope.spawn(|| {
            while !stop.load(Ordering::SeqCst) {
                let Ok(mut stream) = UnixStream::connect(&socket) else { continue };
                came.fetch_add(1, Ordering::SeqCst);
                let mut answer = [0; 1];
                let asked = stream.write_all(b"\x10\x12\0\x04MQTT\x04\x02\0\x3c\0\x06edge-1");
                if asked.is_ok() && stream.read(&mut answer).is_ok_and(|length| length > 0) {
                    served.fetch_add(1, Ordering::SeqCst);
                }
            }
        });
        let reconnects = (0..5).try_for_each(|round| {
            world.stop_plane();
            world.start_plane()?;
            gate.set(if round % 2 == 0 { Temper::Open } else { Temper::Resets });
            world
                .until("the agent to be back", |world| Ok((world.device("edge-1")?["connected"] == true).then_some(())))
        });
        stop.store(true, Ordering::SeqCst);
        reconnects
    })?;
    println!("{} connections of another process were accepted by the kernel, none was served", came.into_inner());
    ensure!(served.into_inner() == 0, "another process was served");
    Ok(())
}

#[test]
fn a_wrong_clock_is_shown_until_a_director_tells_the_time() -> Result<()> {
    let mut world = world_with_tunnel(CLOSED)?;
    world.add_device("edge-1")?;
    pulls_and_answers(&mut world)?;
    with_led(&world)?;
    for (clock, unsure) in [("-1y", false), ("@2099-06-01 12:00:00", true)] {
        world.stop_agent("edge-1")?;
        world.start_agent_at("edge-1", clock)?;
        let status = until_connection(&mut world, "sure of the time", |status| {
            status["state"] == "connected" && status["clockConfirmed"] == true
        })?;
        ensure!(status["via"] == "tunnel" && status["boundMs"].as_u64() > Some(0), "{status}");
        ensure!(status["errorKind"].is_null(), "{status}");
        let log = world.log("edge-1")?;
        ensure!(log.contains("the time is not known") == unsure, "{clock}: {log}");
        until_led(&mut world, "connected on")?;
        answers_through_the_gateway(&mut world)?;
    }
    Ok(())
}

/// What the listener for devices answers to a request without a body, status line and all.
fn asked(world: &World, path: &str, headers: &str) -> Result<String> {
    let ca = world.plane().ca_fingerprint.parse()?;
    let address = devices_url(world)?.trim_start_matches("https://").to_owned();
    let client = rustls::ClientConnection::new(Arc::new(muster_tls::client(ca, None)?), "127.0.0.1".try_into()?)?;
    let mut stream = rustls::StreamOwned::new(client, std::net::TcpStream::connect(&address)?);
    write!(stream, "GET {path} HTTP/1.1\r\nhost: {address}\r\nconnection: close, upgrade\r\n{headers}\r\n")?;
    let mut answer = String::new();
    // Whether it says goodbye in TLS does not matter.
    let _ = stream.read_to_string(&mut answer);
    Ok(answer)
}

#[test]
fn the_listener_for_devices_has_what_devices_need_and_nothing_else() -> Result<()> {
    let world = world_with_tunnel(CLOSED)?;
    const UPGRADE: &str = "upgrade: websocket\r\nsec-websocket-version: 13\r\n\
                           sec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n";
    let mqtt = format!("{UPGRADE}sec-websocket-protocol: mqtt\r\n");
    for (path, headers, status, part) in [
        ("/", "", 404, "listener for devices"),
        ("/api/v1/devices", "", 404, "listener for devices"),
        ("/v1/models/digits", "", 404, "listener for devices"),
        ("/metrics", "", 404, "listener for devices"),
        ("/mqtt", "", 426, "tunnel"),
        ("/mqtt", UPGRADE, 401, "certificate of an enrolled device"),
        ("/mqtt", &mqtt, 401, "certificate of an enrolled device"),
        ("/mqtt", &format!("{mqtt}origin: https://example.org\r\n"), 403, "not for pages"),
    ] {
        let answer = asked(&world, path, headers)?;
        ensure!(answer.starts_with(&format!("HTTP/1.1 {status} ")) && answer.contains(part), "{path}: {answer}");
    }
    let elsewhere = muster_world::get(&format!("{}/mqtt", world.plane().plain_http))?;
    ensure!(elsewhere.status == 404, "the API has a tunnel, too: {elsewhere:?}");
    Ok(())
}
