//! Resolvers that are dead or lie, and networks of one family.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use anyhow::{Context as _, Result, ensure};
use muster_tests::network::{Answers, Dns, Gate, Network, Temper, own_address, with_resolver};
use muster_tests::programs;
use muster_world::World;
use serde_json::json;

use crate::network::{
    answers_through_the_gateway, devices_url, pulls_and_answers, until_fault, until_its_own_door_answers, until_led,
    until_via, with_led,
};

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
