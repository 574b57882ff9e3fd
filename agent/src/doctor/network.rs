//! Checks of the way to the control plane. Pure: each fault is named once, where it begins; what fails because of
//! it says so.

use std::net::{IpAddr, SocketAddr};

use super::addresses::Networks;
use super::dns::Said;
use super::finding::{Finding, Ill};
use super::probe::Probed;
use crate::network::fault::{Cause, Fault};

const ADDRESSES: &str = "addresses";
const NAMES: &str = "names";
const PROXY: &str = "proxy";
const API: &str = "API";
const BROKER: &str = "broker";
const TUNNEL: &str = "tunnel";

/// What was found on the way.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Way {
    /// This machine's networks.
    pub networks: Networks,
    /// The control plane's API, through the proxy where there is one.
    pub api: Probed,
    /// The broker.
    pub broker: Probed,
    /// The listener for devices, where the control plane named one.
    pub tunnel: Option<Probed>,
    /// The proxy that the owner named, if there is one.
    pub proxy: Option<String>,
    /// What resolvers said when they were asked one by one, as they are where a name was not found.
    pub resolvers: Vec<(IpAddr, Said)>,
}

/// All checks of the way.
pub fn checks(way: &Way) -> Vec<Finding> {
    vec![addresses(way), names(way), proxy(way), api(way), broker(way), tunnel(way)]
}

fn places(way: &Way) -> impl Iterator<Item = &Probed> {
    [Some(&way.api), Some(&way.broker), way.tunnel.as_ref()].into_iter().flatten()
}

/// The family that a place needs and this machine lacks.
fn lacks(way: &Way, place: &Probed) -> Option<Ill> {
    let beyond: Vec<SocketAddr> = place.addresses.iter().copied().filter(|at| !at.ip().is_loopback()).collect();
    if beyond.is_empty() || place.reached.is_ok() {
        return None;
    }
    let has = |at: &SocketAddr| if at.is_ipv4() { way.networks.v4.any } else { way.networks.v6.any };
    match () {
        () if beyond.iter().any(has) => None,
        () if !way.networks.v4.any && !way.networks.v6.any => Some(Ill::NoNetwork),
        () if beyond.iter().all(SocketAddr::is_ipv4) => Some(Ill::NoIpv4),
        () => Some(Ill::NoIpv6),
    }
}

/// Whether there is a network of the family that is needed.
pub fn addresses(way: &Way) -> Finding {
    let has = [(way.networks.v4, "IPv4"), (way.networks.v6, "IPv6")].into_iter().filter(|(family, _)| family.any);
    let has: Vec<String> = has
        .map(
            |(family, name)| {
                if family.default_route { name.to_owned() } else { format!("{name} without a default route") }
            },
        )
        .collect();
    let has = if has.is_empty() { "no network beyond this machine".to_owned() } else { has.join(", ") };
    let lacking = places(way).find_map(|place| Some((lacks(way, place)?, place)));
    let Some((ill, place)) = lacking else { return Finding::good(ADDRESSES, has) };
    let at = place.addresses.iter().map(SocketAddr::to_string).collect::<Vec<_>>().join(", ");
    let target = &place.target;
    match ill {
        Ill::NoIpv4 => Finding::fault(
            ADDRESSES,
            ill,
            format!("IPv6 only: there is no IPv4 here, and {target} is reached by IPv4 only ({at})"),
            "let the network give IPv4 or NAT64, or give the control plane an IPv6 address and its name an AAAA record",
        ),
        Ill::NoIpv6 => Finding::fault(
            ADDRESSES,
            ill,
            format!("IPv4 only: there is no IPv6 here, and {target} is reached by IPv6 only ({at})"),
            "let the network give IPv6, or give the control plane an IPv4 address and its name an A record",
        ),
        _ => Finding::fault(
            ADDRESSES,
            ill,
            format!("there is no network beyond this machine, so no way to {target} ({at})"),
            "plug the cable in or join the Wi-Fi; `ip address` shows what there is",
        ),
    }
}

/// Whether names are found.
pub fn names(way: &Way) -> Finding {
    let unresolved: Vec<_> =
        places(way).filter_map(|place| Some((&place.target.host, place.unresolved.as_ref()?))).collect();
    let Some((host, why)) = unresolved.first() else {
        let mut named: Vec<&str> = places(way).map(|place| place.target.host.as_str()).collect();
        named.retain(|host| host.parse::<IpAddr>().is_err());
        named.dedup();
        return match named.is_empty() {
            true => Finding::good(NAMES, "none is needed: the control plane is known by its address"),
            false => Finding::good(NAMES, format!("{} found", named.join(", "))),
        };
    };
    let said: Vec<String> = way.resolvers.iter().map(|(at, said)| format!("{at} {}", said.words())).collect();
    if way.resolvers.iter().any(|(_, said)| said.works()) {
        return Finding::fault(
            NAMES,
            Ill::NameUnknown,
            format!("{host} has no address here: {}", said.join("; ")),
            "check the name that the device was enrolled with; a name of an inner network is known only by that \
             network's resolver",
        );
    }
    let said = match said.is_empty() {
        true => format!("/etc/resolv.conf names no resolver ({why})"),
        false => said.join("; "),
    };
    Finding::fault(
        NAMES,
        Ill::ResolverDead,
        format!("nobody answers for names, so {host} is not found: {said}"),
        "check the resolver that the network's DHCP gives, and /etc/resolv.conf; where the agent was connected before, \
         it goes on at the last good address",
    )
}

/// Whether the proxy does what it is asked to.
pub fn proxy(way: &Way) -> Finding {
    let Some(named) = &way.proxy else { return Finding::skipped(PROXY, "none is named") };
    let refused = places(way).filter(|place| place.by_proxy).find_map(|place| match &place.reached {
        Err(fault) if fault.cause == Cause::Proxy => Some(fault),
        _ => None,
    });
    match refused {
        None => Finding::good(PROXY, format!("{named} lets connections through")),
        Some(fault) => Finding::fault(
            PROXY,
            Ill::ProxyRefuses,
            fault.text.clone(),
            "ask whoever runs it to let CONNECT to the control plane through, correct `[network] proxy` in agent.toml, \
             or take it out where there is a direct way",
        ),
    }
}

/// A fault that another check names already.
fn named_elsewhere(way: &Way, place: &Probed) -> Option<String> {
    let Err(fault) = &place.reached else { return None };
    let because = match fault.cause {
        _ if lacks(way, place).is_some() => ADDRESSES,
        _ if place.addresses.is_empty() => NAMES,
        Cause::Dns => NAMES,
        Cause::Proxy => PROXY,
        _ => return None,
    };
    Some(format!("{} is not reached: see `{because}`", place.target))
}

/// Faults of TLS and what stands behind it, the same wherever they happen.
fn behind_the_port(check: &'static str, place: &Probed, fault: &Fault) -> Option<Finding> {
    let at = |text: &str| format!("{}: {text}", place.target);
    Some(match fault.cause {
        Cause::Captive => {
            let page = place.page.as_ref();
            let text = page.map_or_else(
                || at(&fault.text),
                |page| at(&format!("a login page of this network answers in the control plane's place ({page})")),
            );
            let next = "log in to the network with a browser, or ask whoever runs it to let this device through; if \
                        it is your own proxy, name its CA in agent.toml: `[network] proxy-ca`";
            Finding::fault(check, Ill::CaptivePortal, text, next)
        }
        Cause::Certificate | Cause::NotLetIn => Finding::fault(
            check,
            Ill::NotLetIn,
            at(&fault.text),
            "where `certificate` says that it ran out, let the agent renew it; else `muster get devices` says whether \
             this device was revoked",
        ),
        Cause::Tls | Cause::ServerTime => Finding::fault(
            check,
            Ill::Tls,
            at(&fault.text),
            "compare the CA that the control plane prints when it starts with the one in the claim",
        ),
        _ => return None,
    })
}

/// Whether the API is reached.
pub fn api(way: &Way) -> Finding {
    let place = &way.api;
    if let Some(text) = named_elsewhere(way, place) {
        return Finding::skipped(API, text);
    }
    match &place.reached {
        Ok(_) => Finding::good(API, format!("{} answers, with the CA that this device pins", place.target)),
        Err(fault) => behind_the_port(API, place, fault).unwrap_or_else(|| {
            // Only renewals need it; with the broker it is the control plane that is away.
            Finding::fault(
                API,
                Ill::Unreachable,
                format!("{} is not reached: {}", place.target, fault.text),
                "see whether the control plane runs, and whether a firewall lets this device out to that port",
            )
        }),
    }
}

/// Whether the broker is reached, and if not, whether there is another way.
pub fn broker(way: &Way) -> Finding {
    let place = &way.broker;
    if let Some(text) = named_elsewhere(way, place) {
        return Finding::skipped(BROKER, text);
    }
    let fault = match &place.reached {
        Ok(_) => {
            return Finding::good(BROKER, format!("{} is open, and takes this device's certificate", place.target));
        }
        Err(fault) => fault,
    };
    if let Some(finding) = behind_the_port(BROKER, place, fault) {
        return finding;
    }
    let port = place.target.port;
    let closed = format!("port {port} is closed: {}", fault.text);
    match (&way.tunnel, &way.api.reached) {
        (Some(tunnel), _) if tunnel.reached.is_ok() => Finding::warning(
            BROKER,
            Ill::PortClosed,
            format!("{closed}; the tunnel at {} is open, so the agent goes that way", tunnel.target),
            format!("none is needed; the direct way is a little faster: let this device out to port {port}"),
        ),
        (Some(tunnel), _) => Finding::fault(
            BROKER,
            Ill::PortClosed,
            format!("{closed}; the tunnel at {} is not open either", tunnel.target),
            format!("let this device out to port {port} or to port {}", tunnel.target.port),
        ),
        (None, Ok(_)) => Finding::fault(
            BROKER,
            Ill::PortClosed,
            format!("{closed}; the API at {} is open, but the control plane named no tunnel", way.api.target),
            format!(
                "let this device out to port {port}, or start the control plane with `--devices 0.0.0.0:443`, which \
                 lets devices in where only HTTPS gets out"
            ),
        ),
        (None, Err(_)) => Finding::fault(
            BROKER,
            Ill::PortClosed,
            format!("{closed}; the API is not reached either"),
            "see whether the control plane runs, and whether a firewall lets this device out",
        ),
    }
}

/// Whether the other way is open.
pub fn tunnel(way: &Way) -> Finding {
    let Some(place) = &way.tunnel else {
        return Finding::skipped(TUNNEL, "the control plane named no listener for devices");
    };
    if let Some(text) = named_elsewhere(way, place) {
        return Finding::skipped(TUNNEL, text);
    }
    match &place.reached {
        Ok(_) => Finding::good(TUNNEL, format!("{} is open", place.target)),
        Err(fault) => behind_the_port(TUNNEL, place, fault).unwrap_or_else(|| {
            let text = format!("{} is closed: {}", place.target, fault.text);
            Finding::warning(TUNNEL, Ill::PortClosed, text, "needed only where the broker's port is closed")
        }),
    }
}

#[cfg(test)]
mod tests;
