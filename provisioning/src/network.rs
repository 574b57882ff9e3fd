//! How an appliance gets its address where there is no DHCP: a file on its FAT partition.
//!
//! ```text
//! address=192.168.7.20/24
//! gateway=192.168.7.1
//! dns=192.168.7.1 9.9.9.9
//! ```

use std::fmt;
use std::net::IpAddr;

/// Where it lies on an image's FAT partition.
pub const PATH: &str = "muster/network";
const BYTES_MAX: usize = 4096;
/// As the kernel takes it.
const INTERFACE_BYTES_MAX: usize = 15;
const DNS_MAX: usize = 3;

/// A fixed address.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Network {
    /// Only this interface; absent: every wired one.
    pub interface: Option<String>,
    /// The address.
    pub address: IpAddr,
    /// The bits of it that are the network's.
    pub prefix: u8,
    /// The way out.
    pub gateway: Option<IpAddr>,
    /// Who knows names.
    pub dns: Vec<IpAddr>,
}

/// Why a file says no address.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[allow(missing_docs)]
pub enum BadNetwork {
    #[error("the network file is larger than {BYTES_MAX} bytes")]
    TooLarge,
    #[error("line {line} of the network file: {what}")]
    Line { line: usize, what: &'static str },
    #[error("the network file has no line address=192.168.7.20/24; without the file a device asks by DHCP")]
    NoAddress,
}

impl fmt::Display for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(interface) = &self.interface {
            writeln!(f, "interface={interface}")?;
        }
        writeln!(f, "address={}/{}", self.address, self.prefix)?;
        if let Some(gateway) = self.gateway {
            writeln!(f, "gateway={gateway}")?;
        }
        if !self.dns.is_empty() {
            let servers: Vec<String> = self.dns.iter().map(ToString::to_string).collect();
            writeln!(f, "dns={}", servers.join(" "))?;
        }
        Ok(())
    }
}

impl Network {
    /// Reads a file.
    pub fn parse(text: &str) -> Result<Self, BadNetwork> {
        if text.len() > BYTES_MAX {
            return Err(BadNetwork::TooLarge);
        }
        let (mut interface, mut address, mut gateway, mut dns) = (None, None, None, vec![]);
        let lines = text.lines().zip(1..).map(|(text, line)| (text.trim(), line));
        for (text, line) in lines.filter(|(text, _)| !text.is_empty() && !text.starts_with('#')) {
            let bad = |what| BadNetwork::Line { line, what };
            let ip = |text: &str| text.parse::<IpAddr>().map_err(|_| bad("this is no address, as 192.168.7.1 is one"));
            let (key, value) = text.split_once('=').ok_or(bad("it is not `key=value`"))?;
            match key {
                "interface" => {
                    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
                    if value.is_empty() || value.len() > INTERFACE_BYTES_MAX || !value.bytes().all(plain) {
                        return Err(bad("this is no interface, as eth0 is one"));
                    }
                    interface = Some(value.to_owned());
                }
                "address" => {
                    let (one, prefix) = value.split_once('/').ok_or(bad("an address is written as 192.168.7.20/24"))?;
                    let one = ip(one)?;
                    let most = if one.is_ipv4() { 32 } else { 128 };
                    let prefix = prefix.parse().ok().filter(|prefix| *prefix <= most);
                    address = Some((one, prefix.ok_or(bad("the part behind the / is at most 32, or 128"))?));
                }
                "gateway" => gateway = Some(ip(value)?),
                "dns" => {
                    for one in value.split_whitespace() {
                        dns.push(ip(one)?);
                    }
                    if dns.len() > DNS_MAX {
                        return Err(bad("more than three servers are never asked"));
                    }
                }
                _ => return Err(bad("the keys are interface, address, gateway and dns")),
            }
        }
        let (address, prefix) = address.ok_or(BadNetwork::NoAddress)?;
        Ok(Self { interface, address, prefix, gateway, dns })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_comes_back_as_it_was_written() {
        for text in [
            "address=192.168.7.20/24\ngateway=192.168.7.1\ndns=192.168.7.1 9.9.9.9\n",
            "interface=eth0\naddress=fd00::2/64\n",
        ] {
            assert_eq!(Network::parse(text).expect("a network").to_string(), text);
        }
    }

    #[test]
    fn mistakes_name_their_line() {
        let check = |text: &str, says: &str| {
            let error = Network::parse(text).expect_err(text).to_string();
            assert!(error.contains(says), "{text:?}: {error}");
        };
        check("gateway=192.168.7.1", "no line address");
        check("address=192.168.7.20", "192.168.7.20/24");
        check("address=192.168.7.20/33", "at most 32");
        check("#\naddress=$(reboot)/24", "line 2");
        check("interface=eth0; reboot\n", "no interface");
        check("dhcp=yes", "keys are");
    }
}
