use super::*;
use crate::doctor::addresses::Family;
use crate::doctor::finding::Level;
use crate::doctor::probe::Reached;

const V4: &str = "198.51.100.7";
const V6: &str = "2001:db8::7";

fn place(name: &str, addresses: &[&str]) -> Probed {
    let target: crate::network::target::Target = name.parse().expect("a target");
    let at = |address: &&str| SocketAddr::new(address.parse().expect("an address"), target.port);
    let addresses: Vec<SocketAddr> = addresses.iter().map(at).collect();
    let address = addresses.first().copied().unwrap_or(SocketAddr::from(([127, 0, 0, 1], 1)));
    let reached = Ok(Reached { address, server_ms: None });
    Probed { target, by_proxy: false, addresses, unresolved: None, reached, page: None }
}

fn fails(place: Probed, cause: Cause) -> Probed {
    Probed { reached: Err(Fault::new(cause, "so it is")), ..place }
}

fn unresolved(name: &str) -> Probed {
    let place = fails(place(name, &[]), Cause::Dns);
    Probed { unresolved: Some("no answer".to_owned()), ..place }
}

fn dual() -> Networks {
    let family = Family { any: true, default_route: true };
    Networks { v4: family, v6: family, nameservers: vec![] }
}

/// All is well.
fn way() -> Way {
    Way {
        networks: dual(),
        api: place("plane.example:8443", &[V4]),
        broker: place("plane.example:8883", &[V4]),
        tunnel: None,
        proxy: None,
        resolvers: vec![],
    }
}

/// What is wrong, check by check.
fn ills(way: &Way) -> Vec<(&'static str, Level, Ill)> {
    checks(way).into_iter().filter_map(|it| Some((it.check, it.level, it.fault?))).collect()
}

#[test]
fn where_all_is_well_nothing_is_wrong() {
    assert_eq!(ills(&way()), []);
    let through = Way { tunnel: Some(place("plane.example:443", &[V4])), ..way() };
    assert_eq!(ills(&through), []);
    let by_address = Way { api: place("198.51.100.7:8443", &[V4]), broker: place("198.51.100.7:8883", &[V4]), ..way() };
    assert!(names(&by_address).text.contains("none is needed"));
}

#[test]
fn a_closed_port_says_whether_there_is_another_way() {
    for cause in [Cause::Refused, Cause::Timeout] {
        let closed = || Way { broker: fails(way().broker, cause), ..way() };
        let tunnel = place("plane.example:443", &[V4]);
        assert_eq!(ills(&closed()), [("broker", Level::Fault, Ill::PortClosed)]);
        let text = broker(&closed()).text;
        assert!(text.contains("port 8883 is closed") && text.contains("named no tunnel"), "{text}");
        let open = Way { tunnel: Some(tunnel.clone()), ..closed() };
        assert_eq!(ills(&open), [("broker", Level::Warning, Ill::PortClosed)]);
        assert!(broker(&open).text.contains("tunnel at plane.example:443 is open"));
        let shut = Way { tunnel: Some(fails(tunnel, cause)), ..closed() };
        let both = [("broker", Level::Fault, Ill::PortClosed), ("tunnel", Level::Warning, Ill::PortClosed)];
        assert_eq!(ills(&shut), both);
        let away = Way { api: fails(way().api, cause), ..closed() };
        assert_eq!(ills(&away), [("API", Level::Fault, Ill::Unreachable), ("broker", Level::Fault, Ill::PortClosed)]);
    }
}

#[test]
fn a_missing_family_is_named_once_and_no_network_is_something_else() {
    let none = Family::default();
    let needs = |address: &'static str, networks| Way {
        networks,
        api: fails(place("plane.example:8443", &[address]), Cause::Refused),
        broker: fails(place("plane.example:8883", &[address]), Cause::Refused),
        ..way()
    };
    let only_v6 = Networks { v4: none, ..dual() };
    let only_v4 = Networks { v6: none, ..dual() };
    assert_eq!(ills(&needs(V4, only_v6.clone())), [("addresses", Level::Fault, Ill::NoIpv4)]);
    assert_eq!(ills(&needs(V6, only_v4)), [("addresses", Level::Fault, Ill::NoIpv6)]);
    assert_eq!(ills(&needs(V4, Networks::default())), [("addresses", Level::Fault, Ill::NoNetwork)]);
    // One that has both families is reached by the other one.
    let both = Way { networks: only_v6.clone(), api: place("plane.example:8443", &[V4, V6]), ..way() };
    assert_eq!(ills(&both), []);
    // A control plane on this machine needs no network.
    let here = Way { networks: Networks::default(), ..needs("127.0.0.1", only_v6) };
    assert!(ills(&here).iter().all(|(check, ..)| *check != "addresses"));
}

#[test]
fn a_dead_resolver_and_a_name_that_nobody_has_are_told_apart() {
    let at = |text: &str| text.parse::<IpAddr>().expect("an address");
    let asked = |said: &[Said]| Way {
        api: unresolved("plane.example:8443"),
        broker: unresolved("plane.example:8883"),
        resolvers: said.iter().map(|said| (at("10.0.0.53"), said.clone())).collect(),
        ..way()
    };
    for (said, expected) in [
        (&[][..], Ill::ResolverDead),
        (&[Said::Nothing], Ill::ResolverDead),
        (&[Said::Closed("refused".to_owned()), Said::Cannot(2)], Ill::ResolverDead),
        (&[Said::NoSuchName], Ill::NameUnknown),
        (&[Said::Nothing, Said::Records(0)], Ill::NameUnknown),
    ] {
        assert_eq!(ills(&asked(said)), [("names", Level::Fault, expected)], "{said:?}");
    }
    assert!(names(&asked(&[Said::Nothing])).text.contains("10.0.0.53 does not answer"));
    // With the last good address the agent goes on, and the resolver is named all the same.
    let remembered = |place: Probed| Probed { unresolved: Some("no answer".to_owned()), ..place };
    let goes_on = Way { api: remembered(way().api), broker: remembered(way().broker), ..way() };
    assert_eq!(ills(&goes_on), [("names", Level::Fault, Ill::ResolverDead)]);
}

#[test]
fn a_proxy_that_refuses_is_named_once() {
    let refused = |place: Probed| Probed { by_proxy: true, ..fails(place, Cause::Proxy) };
    let way = Way {
        proxy: Some("http://proxy:3128".to_owned()),
        api: refused(way().api),
        tunnel: Some(refused(place("plane.example:443", &[V4]))),
        ..way()
    };
    assert_eq!(ills(&way), [("proxy", Level::Fault, Ill::ProxyRefuses)]);
    let lets = Way { api: Probed { by_proxy: true, ..place("plane.example:8443", &[V4]) }, tunnel: None, ..way };
    assert_eq!(ills(&lets), []);
}

#[test]
fn what_answers_in_the_control_planes_place_is_named_with_its_page() {
    let captive = Way {
        api: Probed {
            page: Some("302 Found, which leads to http://login/".to_owned()),
            ..fails(way().api, Cause::Captive)
        },
        broker: fails(way().broker, Cause::Timeout),
        ..way()
    };
    let both = [("API", Level::Fault, Ill::CaptivePortal), ("broker", Level::Fault, Ill::PortClosed)];
    assert_eq!(ills(&captive), both);
    assert!(api(&captive).text.contains("http://login/"));
}

#[test]
fn a_certificate_that_is_not_taken_is_no_closed_port() {
    let refused = Way { broker: fails(way().broker, Cause::Certificate), ..way() };
    assert_eq!(ills(&refused), [("broker", Level::Fault, Ill::NotLetIn)]);
    let strange = Way { broker: fails(way().broker, Cause::Tls), ..way() };
    assert_eq!(ills(&strange), [("broker", Level::Fault, Ill::Tls)]);
}
