//! What this machine knows of networks, from the kernel's tables and the resolver's file. Pure readers of text.

use std::net::IpAddr;

use crate::facts::roots::Roots;
use crate::facts::roots::table;

/// Lines of one table that are looked at.
const LINES_MAX: usize = 4096;
/// Resolvers that are asked: as many as the C library asks.
const NAMESERVERS_MAX: usize = 3;
/// A route that is up.
const UP: u32 = 1;
/// A route that says that there is no way.
const REJECT: u32 = 0x200;

/// Which families of addresses lead anywhere beyond this machine, and who is asked for names.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Networks {
    /// IPv4.
    pub v4: Family,
    /// IPv6.
    pub v6: Family,
    /// Resolvers, in the order in which they are asked.
    pub nameservers: Vec<IpAddr>,
}

/// One family.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Family {
    /// Whether there is any network beyond this machine.
    pub any: bool,
    /// Whether there is a way to everywhere.
    pub default_route: bool,
}

impl Networks {
    /// Reads them; `resolv_conf` is the text of the resolver's file.
    pub fn read(roots: &Roots, resolv_conf: &str) -> Self {
        let net = |name: &str| table(&roots.proc.join("net").join(name)).unwrap_or_default();
        Self {
            v4: routes_v4(&net("route")),
            v6: routes_v6(&net("ipv6_route"), &net("if_inet6")),
            nameservers: nameservers(resolv_conf),
        }
    }
}

/// `/proc/net/route`.
pub fn routes_v4(text: &str) -> Family {
    let mut family = Family::default();
    for line in text.lines().skip(1).take(LINES_MAX) {
        let fields: Vec<&str> = line.split_whitespace().collect();
        let [interface, destination, _, flags, _, _, _, mask, ..] = fields[..] else { continue };
        let flags = u32::from_str_radix(flags, 16).unwrap_or(0);
        if interface == "lo" || flags & UP == 0 || flags & REJECT != 0 {
            continue;
        }
        family.any = true;
        family.default_route |= is_zero(destination) && is_zero(mask);
    }
    family
}

/// `/proc/net/ipv6_route` and `/proc/net/if_inet6`. Addresses of the link alone lead nowhere.
pub fn routes_v6(routes: &str, addresses: &str) -> Family {
    let beyond_link = addresses.lines().take(LINES_MAX).any(|line| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        matches!(fields[..], [_, _, _, "00", _, interface] if interface != "lo")
    });
    let is_default = |line: &str| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        let [destination, length, _, _, _, _, _, _, flags, interface] = fields[..] else { return false };
        let flags = u32::from_str_radix(flags, 16).unwrap_or(0);
        interface != "lo" && is_zero(destination) && is_zero(length) && flags & UP != 0 && flags & REJECT == 0
    };
    let default_route = beyond_link && routes.lines().take(LINES_MAX).any(is_default);
    Family { any: beyond_link, default_route }
}

fn is_zero(hex: &str) -> bool {
    !hex.is_empty() && hex.bytes().all(|digit| digit == b'0')
}

/// The resolvers that `resolv.conf` names.
pub fn nameservers(text: &str) -> Vec<IpAddr> {
    let named = text.lines().take(LINES_MAX).filter_map(|line| {
        let mut words = line.split_whitespace();
        let address = words.next().filter(|word| *word == "nameserver").and(words.next())?;
        // `fe80::1%eth0`: the link is the kernel's business.
        address.split('%').next()?.parse().ok()
    });
    named.take(NAMESERVERS_MAX).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const V4: &str = "Iface\tDestination\tGateway \tFlags\tRefCnt\tUse\tMetric\tMask\t\tMTU\tWindow\tIRTT\n\
        eth0\t00000000\t0101A8C0\t0003\t0\t0\t100\t00000000\t0\t0\t0\n\
        eth0\t0001A8C0\t00000000\t0001\t0\t0\t100\t00FFFFFF\t0\t0\t0\n";
    const V6_ROUTES: &str = "fd000000000000000000000000000000 40 00000000000000000000000000000000 00 00000000000000000000000000000000 00000100 00000001 00000000 00000001     eth0\n\
        00000000000000000000000000000000 00 00000000000000000000000000000000 00 fe800000000000000000000000000001 00000400 00000001 00000000 00000003     eth0\n\
        00000000000000000000000000000000 00 00000000000000000000000000000000 00 00000000000000000000000000000000 ffffffff 00000001 00000000 00200200       lo\n";
    const V6_ADDRESSES: &str = "00000000000000000000000000000001 01 80 10 80       lo\n\
        fe80000000000000020c29fffe000001 02 40 20 80     eth0\n\
        fd000000000000000000000000000002 02 40 00 80     eth0\n";

    fn family(any: bool, default_route: bool) -> Family {
        Family { any, default_route }
    }

    #[test]
    fn families_that_lead_somewhere() {
        assert_eq!(routes_v4(V4), family(true, true));
        let no_default: String =
            V4.lines().filter(|line| !line.contains("0101A8C0")).map(|line| format!("{line}\n")).collect();
        assert_eq!(routes_v4(&no_default), family(true, false));
        assert_eq!(routes_v4(&V4.replace("eth0", "lo")), family(false, false));
        assert_eq!(
            routes_v4(&V4.replace("\t0003\t", "\t0203\t").replace("\t0001\t", "\t0000\t")),
            family(false, false)
        );
        assert_eq!(routes_v4(""), Family::default());
        assert_eq!(routes_v6(V6_ROUTES, V6_ADDRESSES), family(true, true));
        let link_only: String = V6_ADDRESSES.lines().take(2).map(|line| format!("{line}\n")).collect();
        assert_eq!(routes_v6(V6_ROUTES, &link_only), family(false, false));
        let only_reject: String = V6_ROUTES.lines().skip(2).map(|line| format!("{line}\n")).collect();
        assert_eq!(routes_v6(&only_reject, V6_ADDRESSES), family(true, false));
    }

    #[test]
    fn resolvers_are_read_as_the_c_library_reads_them() {
        let text = "# from DHCP\nsearch example.org\nnameserver 10.0.0.53\nnameserver fe80::1%eth0\nnameserver nonsense\n\
                    options timeout:1\nnameserver 1.1.1.1\nnameserver 8.8.8.8\n";
        let expected = ["10.0.0.53", "fe80::1", "1.1.1.1"].map(|address| address.parse::<IpAddr>().expect("one"));
        assert_eq!(nameservers(text), expected);
        assert_eq!(nameservers("nameserver\n nameserverx 10.0.0.1"), Vec::<IpAddr>::new());
    }
}
