//! Networks that are in the way: closed ports, proxies, resolvers that are dead or lie, networks of one family,
//! wrong clocks. What a device does about each stands in docs/guides/network.md; here it does it.

use std::io::{Read as _, Write as _};
use std::net::{IpAddr, SocketAddr};
use std::os::unix::net::UnixStream;
use std::process::Command;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use muster_shared::Digest;
use muster_tests::hostile::open_bundle;
use muster_tests::impostor::Impostor;
use muster_tests::network::{Answers, Dns, Gate, Network, Proxy, Temper, own_address, with_resolver};
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

fn devices_url(world: &World) -> Result<String> {
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

fn until_via(world: &mut World, via: &str) -> Result<Value> {
    until_connection(world, via, |status| status["state"] == "connected" && status["via"] == via)
}

fn until_fault(world: &mut World, state: &str, kind: &str) -> Result<Value> {
    until_connection(world, kind, |status| status["state"] == state && status["errorKind"] == kind)
}

fn led(world: &World) -> std::path::PathBuf {
    world.folder().join("led")
}

/// The agent shows how it stands in a file, too.
fn with_led(world: &World) -> Result<()> {
    let led = led(world);
    world.configure("edge-1", |text| format!("{text}\n[status]\nled = \"{}\"\n", led.display()))
}

/// Waits until the LED's file says so.
fn until_led(world: &mut World, text: &str) -> Result<()> {
    world.until(&format!("the LED to show {text:?}"), |world| {
        Ok((std::fs::read_to_string(led(world)).unwrap_or_default().trim() == text).then_some(()))
    })
}

/// Pulls version 1 of a model onto edge-1, and asks it through the gateway.
fn pulls_and_answers(world: &mut World) -> Result<()> {
    world.publish(&Bundle::fixture("digits", 1))?;
    world.deploy("digits", "1")?;
    world.until_serves("edge-1", "digits", 1)?;
    answers_through_the_gateway(world)
}

/// What serves goes on beside every fault; after a start it is loaded first.
fn until_its_own_door_answers(world: &mut World) -> Result<()> {
    let body = json!({ "instances": [fixtures::held_out("digits", 1)?.instances[0]] }).to_string();
    world.until("the device's own door to answer", |world| {
        let answer = post(&format!("{}/v1/models/digits:predict", world.door("edge-1")?), &body)?;
        Ok((answer.status == 200).then_some(()))
    })
}

fn answers_through_the_gateway(world: &mut World) -> Result<()> {
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
    let key = told.split_whitespace().last().context("the key's fingerprint")?.to_owned();
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

/// A world that is reached by name, with the resolver that says where it is.
struct Named {
    world: World,
    dns: Dns,
    url: String,
}

const NAME: &str = "plane.test";

/// None where this machine does not let a test have a resolver of its own.
fn named() -> Result<Option<Named>> {
    let at = own_address();
    let arguments = ["--devices", "127.0.0.1:0", "--name", NAME];
    let mut world = World::start_with(programs()?, &arguments, &|_| {})?;
    let Some(by) = with_resolver(&world, at)? else { return Ok(None) };
    let dns = match Dns::start(at, Answers::Addresses(vec![IpAddr::from([127, 0, 0, 1])])) {
        Ok(dns) => dns,
        Err(error) => {
            println!("skipped: no resolver of an own can run here: {error:#}");
            return Ok(None);
        }
    };
    world.start_agents_by(&by.iter().map(String::as_str).collect::<Vec<_>>());
    let port = port(&world.plane().http)?;
    Ok(Some(Named { world, dns, url: format!("https://{NAME}:{port}") }))
}

fn port(url: &str) -> Result<u16> {
    Ok(url.rsplit_once(':').context("a port")?.1.parse()?)
}

#[test]
fn a_dead_resolver_costs_a_device_that_was_connected_before_nothing() -> Result<()> {
    let Some(Named { mut world, dns, url }) = named()? else { return Ok(()) };
    world.enrol_at("edge-1", &url, &[])?;
    with_led(&world)?;
    world.start_agent("edge-1")?;
    until_via(&mut world, "mqtt")?;
    pulls_and_answers(&mut world)?;
    for dead in [Answers::Nothing, Answers::NoSuchName, Answers::Failure] {
        dns.set(dead.clone());
        world.stop_agent("edge-1")?;
        world.start_agent("edge-1")?;
        let status = until_via(&mut world, "mqtt")?;
        ensure!(status["addresses"] == json!([world.plane().mqtt]), "{dead:?}: {status}");
        answers_through_the_gateway(&mut world)?;
    }

    // One that remembers nothing is offline, says why, serves on, and comes back by itself.
    world.stop_agent("edge-1")?;
    std::fs::remove_file(world.device_folder("edge-1").join("addresses.json"))?;
    world.start_agent("edge-1")?;
    let status = until_fault(&mut world, "offline", "dns")?;
    let text = status["error"].as_str().unwrap_or_default().to_owned();
    ensure!(text.contains(NAME) && text.contains("/etc/resolv.conf"), "{text}");
    until_led(&mut world, "offline timer 100 1900")?;
    ensure!(world.log("edge-1")?.contains("has no address here"), "the console says nothing");
    until_its_own_door_answers(&mut world)?;
    let refused = world.enrol_at("edge-2", &url, &[]).expect_err("nobody knows where the plane is");
    ensure!(format!("{refused:#}").contains("has no address here"), "{refused:#}");
    dns.set(Answers::Addresses(vec![IpAddr::from([127, 0, 0, 1])]));
    until_via(&mut world, "mqtt")?;
    until_led(&mut world, "connected on")
}

#[test]
fn a_resolver_that_sends_everybody_to_a_login_page_is_not_believed() -> Result<()> {
    let Some(Named { mut world, dns, url }) = named()? else { return Ok(()) };
    world.enrol_at("edge-1", &url, &[])?;
    world.start_agent("edge-1")?;
    until_via(&mut world, "mqtt")?;
    // The page answers at every port of its own address.
    let page = own_address();
    let ports = [&world.plane().mqtt, &world.plane().http, &devices_url(&world)?].map(|url| port(url));
    let _pages: Vec<Gate> = ports
        .into_iter()
        .map(|port| Gate::at(SocketAddr::new(page, port?), Arc::default(), Temper::LoginPage))
        .collect::<Result<_>>()?;
    dns.set(Answers::Addresses(vec![page]));
    world.stop_agent("edge-1")?;
    world.start_agent("edge-1")?;
    // The last address at which the control plane was proven to be is tried beside it.
    until_via(&mut world, "mqtt")?;
    world.stop_agent("edge-1")?;
    std::fs::remove_file(world.device_folder("edge-1").join("addresses.json"))?;
    world.start_agent("edge-1")?;
    let status = until_fault(&mut world, "offline", "captive")?;
    ensure!(status["error"].as_str().unwrap_or_default().contains("login page"), "{status}");
    let remembered = std::fs::read_to_string(world.device_folder("edge-1").join("addresses.json")).unwrap_or_default();
    ensure!(!remembered.contains(&page.to_string()), "the page's address is taken for the plane's: {remembered}");
    dns.set(Answers::Addresses(vec![IpAddr::from([127, 0, 0, 1])]));
    until_via(&mut world, "mqtt")?;
    Ok(())
}

/// A device in a network of its own that has one family only, while names have addresses of both.
fn one_family(here: &str, there: &str, of_both: [&str; 2]) -> Result<()> {
    let address: IpAddr = here.split('/').next().unwrap_or_default().parse()?;
    let Some(network) = Network::make(&[here], &[there], address)? else { return Ok(()) };
    let (listen, own) = (SocketAddr::new(address, 0).to_string(), address.to_string());
    let arguments = ["--devices", &listen, "--http", &listen, "--mqtt", &listen, "--name", NAME, "--name", &own];
    let mut world = World::start_with(programs()?, &arguments, &|_| {})?;
    let addresses = of_both.map(|text| text.parse()).into_iter().collect::<Result<_, _>>()?;
    let _dns = Dns::start(address, Answers::Addresses(addresses))?;
    world.start_agents_by(&network.command());
    let url = format!("https://{NAME}:{}", port(&world.plane().http)?);
    world.enrol_at("edge-1", &url, &[])?;
    world.start_agent("edge-1")?;
    let status = until_via(&mut world, "mqtt")?;
    ensure!(status["addresses"].as_array().is_some_and(|tried| tried.len() == 2), "both are known: {status}");
    pulls_and_answers(&mut world)?;
    // By address, too, without a resolver.
    world.stop_agent("edge-1")?;
    world.configure("edge-1", |text| format!("{text}\n[network]\ntunnel = \"always\"\n"))?;
    world.start_agent("edge-1")?;
    until_via(&mut world, "tunnel")?;
    answers_through_the_gateway(&mut world)
}

#[test]
fn a_network_with_ipv6_only_does() -> Result<()> {
    one_family("fd6d:7573::1/64", "fd6d:7573::2/64", ["fd6d:7573::1", "192.0.2.7"])
}

#[test]
fn a_network_with_ipv4_only_does() -> Result<()> {
    one_family("10.109.117.1/30", "10.109.117.2/30", ["10.109.117.1", "2001:db8::7"])
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
