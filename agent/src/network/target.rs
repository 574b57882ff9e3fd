//! A host and a port, as they are typed and dialled.

use std::fmt;
use std::str::FromStr;

use rustls::pki_types::ServerName;

/// Where to connect to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target {
    /// A name or an address, without brackets.
    pub host: String,
    /// The port.
    pub port: u16,
}

/// Text that is no `host:port`.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no host:port")]
pub struct BadTarget(String);

impl FromStr for Target {
    type Err = BadTarget;

    fn from_str(text: &str) -> Result<Self, BadTarget> {
        let bad = || BadTarget(text.chars().take(300).collect());
        let (host, port) = text.rsplit_once(':').ok_or_else(bad)?;
        let host = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
        let port = port.parse().ok().filter(|port| *port > 0).ok_or_else(bad)?;
        ServerName::try_from(host).map_err(|_| bad())?;
        Ok(Self { host: host.to_owned(), port })
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.host.contains(':') {
            true => write!(f, "[{}]:{}", self.host, self.port),
            false => write!(f, "{}:{}", self.host, self.port),
        }
    }
}

impl Target {
    /// Of an `https://` URL; 443 where it names no port.
    pub fn of_url(url: &str) -> Result<Self, BadTarget> {
        let bad = || BadTarget(url.chars().take(300).collect());
        let rest = url.strip_prefix("https://").ok_or_else(bad)?;
        let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
        if authority.contains('@') {
            return Err(bad());
        }
        authority.parse().or_else(|_| format!("{authority}:443").parse()).map_err(|_: BadTarget| bad())
    }

    /// From what a control plane says of itself: an empty host is the host that it was asked at.
    pub fn offered(offered: &str, asked: &Self) -> Result<Self, BadTarget> {
        match offered.strip_prefix(':') {
            Some(port) => {
                let port = port.parse().ok().filter(|port| *port > 0).ok_or_else(|| BadTarget(offered.to_owned()))?;
                Ok(Self { host: asked.host.clone(), port })
            }
            None => offered.parse(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn targets_are_read_and_written() {
        for (text, host, port) in
            [("plane:8883", "plane", 8883), ("[::1]:443", "::1", 443), ("10.0.0.1:1", "10.0.0.1", 1)]
        {
            let target: Target = text.parse().expect(text);
            assert_eq!((target.host.as_str(), target.port, target.to_string().as_str()), (host, port, text));
        }
        for bad in ["plane", ":8883", "plane:x", "plane:99999", "plane:0", "a b:1", ""] {
            assert!(bad.parse::<Target>().is_err(), "{bad}");
        }
        for (url, expected) in [
            ("https://plane:8443", Some("plane:8443")),
            ("https://plane", Some("plane:443")),
            ("https://plane/", Some("plane:443")),
            ("https://[::1]:8443/x", Some("[::1]:8443")),
            ("https://me@plane:1", None),
            ("http://plane:1", None),
            ("plane:1", None),
        ] {
            assert_eq!(Target::of_url(url).ok().map(|target| target.to_string()).as_deref(), expected, "{url}");
        }
        let asked = Target { host: "plane".into(), port: 1 };
        assert_eq!(Target::offered(":443", &asked), Ok(Target { port: 443, ..asked.clone() }));
        assert_eq!(Target::offered("other:443", &asked).map(|target| target.host), Ok("other".into()));
        assert!(Target::offered(":0", &asked).is_err() && Target::offered("", &asked).is_err());
    }
}
