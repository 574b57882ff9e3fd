//! HTTP proxies (`CONNECT`): where one is named, what it is asked, and what its answer means. What travels
//! through it is TLS, so it sees names and amounts, and nothing else.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::fault::{Cause, Fault};
use super::target::Target;

/// How long a proxy may take to answer: it connects to the other side first.
const ANSWER_TIME: Duration = Duration::from_secs(15);
/// An answer's head.
const ANSWER_BYTES_MAX: usize = 8 * 1024;
/// A name and a password.
const LOGIN_BYTES_MAX: usize = 1024;

/// What `agent.toml` names the environment's proxy by.
pub const ENVIRONMENT: &str = "environment";

/// A proxy.
#[derive(Clone, PartialEq, Eq)]
pub struct Proxy {
    /// Where it listens.
    pub at: Target,
    /// `name:password`.
    login: Option<String>,
}

/// Text that names no proxy.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("write a proxy as http://HOST:PORT or http://NAME:PASSWORD@HOST:PORT, or {ENVIRONMENT:?} for HTTPS_PROXY")]
pub struct BadProxy;

impl FromStr for Proxy {
    type Err = BadProxy;

    fn from_str(text: &str) -> Result<Self, BadProxy> {
        let rest = text.trim().strip_prefix("http://").ok_or(BadProxy)?;
        let rest = rest.strip_suffix('/').unwrap_or(rest);
        let (login, address) = match rest.rsplit_once('@') {
            Some((login, address)) => (Some(unescaped(login).ok_or(BadProxy)?), address),
            None => (None, rest),
        };
        if login.as_ref().is_some_and(|login| login.len() > LOGIN_BYTES_MAX || login.contains(char::is_control)) {
            return Err(BadProxy);
        }
        let at = match address.parse() {
            Ok(at) => at,
            // Without a port it is the one of HTTP.
            Err(_) => format!("{address}:80").parse().map_err(|_| BadProxy)?,
        };
        Ok(Self { at, login })
    }
}

/// Without the password: this is for logs and people.
impl fmt::Display for Proxy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "http://{}", self.at)
    }
}

impl fmt::Debug for Proxy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Proxy({self})")
    }
}

/// `%40` and the like, as a URL writes what would end a name or a password.
fn unescaped(text: &str) -> Option<String> {
    let mut bytes = vec![];
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        if byte != b'%' {
            bytes.push(byte);
            continue;
        }
        let digits = [rest.next()?, rest.next()?];
        bytes.push(u8::from_str_radix(std::str::from_utf8(&digits).ok()?, 16).ok()?);
    }
    String::from_utf8(bytes).ok()
}

/// The environment's proxy for `host`, as other programs read it: `HTTPS_PROXY`, but not for what `NO_PROXY`
/// names.
pub fn of_environment(host: &str, get: impl Fn(&str) -> Option<String>) -> Result<Option<Proxy>, BadProxy> {
    let named = |name: &str| get(name).or_else(|| get(&name.to_lowercase())).filter(|text| !text.trim().is_empty());
    let except = named("NO_PROXY").unwrap_or_default();
    let is_except = |entry: &str| {
        let entry = entry.trim().trim_start_matches('.');
        entry == "*"
            || (!entry.is_empty()
                && host.strip_suffix(entry).is_some_and(|rest| rest.is_empty() || rest.ends_with('.')))
    };
    if except.split(',').any(is_except) {
        return Ok(None);
    }
    named("HTTPS_PROXY").map(|text| text.parse()).transpose()
}

impl Proxy {
    /// Asks for a connection to `target`; what follows on the stream is the other side's.
    pub async fn connect(&self, stream: &mut TcpStream, target: &Target) -> Result<(), Fault> {
        let asked = async {
            let fault = |error: std::io::Error| Fault::new(Cause::Proxy, error.to_string());
            stream.write_all(self.request(target).as_bytes()).await.map_err(fault)?;
            let mut head = vec![];
            loop {
                let length = stream.read_buf(&mut head).await.map_err(fault)?;
                if let Some(answer) = answer(&head)? {
                    return Ok(answer);
                }
                if length == 0 {
                    return Err(Fault::new(Cause::Proxy, "it hung up instead of an answer"));
                }
            }
        };
        let outcome = timeout(ANSWER_TIME, asked).await;
        let outcome = outcome.unwrap_or_else(|_| Err(Fault::new(Cause::Proxy, "it did not answer in time")));
        outcome.map_err(|fault| fault.at(&format!("the proxy {self}")))
    }

    fn request(&self, target: &Target) -> String {
        let login = self.login.as_ref().map_or_else(String::new, |login| {
            format!("proxy-authorization: Basic {}\r\n", BASE64_STANDARD.encode(login))
        });
        format!("CONNECT {target} HTTP/1.1\r\nhost: {target}\r\n{login}\r\n")
    }
}

/// Reads what came of an answer so far; nothing yet: more is to come.
pub fn answer(head: &[u8]) -> Result<Option<()>, Fault> {
    let bad = |text: String| Err(Fault::new(Cause::Proxy, text));
    let Some(end) = head.windows(4).position(|four| four == b"\r\n\r\n") else {
        if head.len() > ANSWER_BYTES_MAX {
            return bad("its answer has no end".to_owned());
        }
        return Ok(None);
    };
    let line = head.split(|byte| *byte == b'\r').next().unwrap_or_default();
    let line = String::from_utf8_lossy(line);
    let mut words = line.splitn(3, ' ');
    let (version, status) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
    if !version.starts_with("HTTP/1.") || status.len() != 3 || !status.bytes().all(|byte| byte.is_ascii_digit()) {
        return bad("what answers there is no HTTP proxy".to_owned());
    }
    let what: String = words.next().unwrap_or_default().chars().filter(|c| !c.is_control()).take(80).collect();
    match status {
        // The other side of TLS never speaks first.
        "200" if head.len() > end + 4 => bad("something follows its answer".to_owned()),
        "200" => Ok(Some(())),
        "407" => bad("it asks for a name and a password: http://NAME:PASSWORD@HOST:PORT".to_owned()),
        "403" | "405" => {
            bad(format!("it does not let connections to that address through ({status} {what}): ask whoever runs it"))
        }
        status => bad(format!("it cannot connect to that address ({status} {what})")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_proxy_is_read_and_its_password_is_not_shown() {
        for (text, at, login) in [
            ("http://proxy:3128", "proxy:3128", None),
            ("http://proxy:3128/", "proxy:3128", None),
            ("http://proxy", "proxy:80", None),
            ("http://[fd00::1]:3128", "[fd00::1]:3128", None),
            ("http://me:secret@proxy:3128", "proxy:3128", Some("me:secret")),
            ("http://me:p%40ss%3A@proxy:3128", "proxy:3128", Some("me:p@ss:")),
        ] {
            let proxy: Proxy = text.parse().expect(text);
            assert_eq!((proxy.at.to_string().as_str(), proxy.login.as_deref()), (at, login), "{text}");
            assert!(!format!("{proxy} {proxy:?}").contains("secret"));
        }
        for bad in [
            "",
            "proxy:3128",
            "https://proxy:3128",
            "socks5://proxy:1",
            "http://",
            "http://a%0d:b@proxy:1",
            "http://proxy:x",
        ] {
            assert!(bad.parse::<Proxy>().is_err(), "{bad}");
        }
    }

    #[test]
    fn the_environment_is_read_as_other_programs_do() {
        let with = |pairs: &'static [(&'static str, &'static str)]| {
            move |name: &str| pairs.iter().find(|(known, _)| *known == name).map(|(_, value)| (*value).to_owned())
        };
        let proxy =
            |pairs, host| of_environment(host, with(pairs)).map(|proxy| proxy.map(|proxy| proxy.at.to_string()));
        assert_eq!(proxy(&[], "plane"), Ok(None));
        assert_eq!(proxy(&[("HTTPS_PROXY", "")], "plane"), Ok(None));
        assert_eq!(proxy(&[("https_proxy", "http://p:1")], "plane"), Ok(Some("p:1".into())));
        assert_eq!(proxy(&[("HTTPS_PROXY", "ftp://p:1")], "plane"), Err(BadProxy));
        const EXCEPT: &[(&str, &str)] =
            &[("HTTPS_PROXY", "http://p:1"), ("NO_PROXY", "a.example, .example.org,10.0.0.1")];
        for (host, expected) in [
            ("a.example", None),
            ("b.a.example", None),
            ("ba.example", Some("p:1")),
            ("x.example.org", None),
            ("example.org", None),
            ("10.0.0.1", None),
            ("110.0.0.1", Some("p:1")),
            ("plane", Some("p:1")),
        ] {
            assert_eq!(proxy(EXCEPT, host), Ok(expected.map(str::to_owned)), "{host}");
        }
    }

    #[test]
    fn answers_are_bounded_and_named() {
        assert_eq!(answer(b"HTTP/1.1 200 OK\r\n"), Ok(None));
        assert_eq!(answer(b"HTTP/1.1 200 Connection established\r\nvia: x\r\n\r\n"), Ok(Some(())));
        for (head, part) in [
            (&b"HTTP/1.1 200 OK\r\n\r\nmore"[..], "follows"),
            (b"HTTP/1.1 407 Proxy Authentication Required\r\n\r\n", "password"),
            (b"HTTP/1.0 403 Forbidden\r\n\r\n", "does not let"),
            (b"HTTP/1.1 502 Bad Gateway\r\n\r\n", "502 Bad Gateway"),
            (b"SSH-2.0-x\r\n\r\n", "no HTTP proxy"),
            (b"HTTP/1.1 407\n\x7f\n\x7f\r\n\r\n", "no HTTP proxy"),
            (&vec![b'x'; ANSWER_BYTES_MAX + 1], "no end"),
        ] {
            let fault = answer(head).expect_err(part);
            assert!(fault.cause == Cause::Proxy && fault.text.contains(part), "{fault:?}");
        }
    }

    proptest::proptest! {
        #[test]
        fn any_answer_and_any_text_are_read_or_refused(bytes: Vec<u8>, text: String) {
            let _ = (answer(&bytes), text.parse::<Proxy>(), unescaped(&text));
        }
    }
}
