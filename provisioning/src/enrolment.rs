//! The enrolment file: what lets a device in, as it lies on a partition that any computer can write. Lines of
//! `key=value`; `#` begins a comment.
//!
//! ```text
//! url=https://fleet.example:8443
//! claim=muster1_…
//! name=edge-1
//! label=site=north
//! ```

use std::fmt::{self, Write as _};
use std::str::FromStr;

use muster_shared::claim::ClaimToken;
use muster_shared::id::{LabelText, Labels, UnixMs};
use muster_shared::{DeviceId, Digest};

/// Where it lies on an image's FAT partition.
pub const PATH: &str = "muster/enrol";
/// A file is far shorter.
const BYTES_MAX: usize = 16 * 1024;
/// A URL is shorter.
const URL_BYTES_MAX: usize = 1024;

/// How a device comes into a fleet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Enrolment {
    /// The control plane's API.
    pub url: Url,
    /// What lets it in.
    pub by: By,
    /// The id that it would like.
    pub name: Option<DeviceId>,
    /// What its owner calls it.
    pub labels: Labels,
}

/// What lets a device in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum By {
    /// A claim.
    Claim(ClaimToken),
    /// The factory list; the image says whom to believe.
    Factory {
        /// The digest of the root that it starts from.
        root: Digest,
        /// The digest of the CA that the control plane must show.
        ca: Digest,
        /// When the image was made: the time has surely passed it.
        not_before_ms: UnixMs,
    },
}

/// An address that a device can call, and that a shell may be shown.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Url(String);

impl Url {
    /// Its text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for Url {
    type Err = BadEnrolment;

    fn from_str(text: &str) -> Result<Self, BadEnrolment> {
        let plain = |byte: u8| byte.is_ascii_graphic() && !b"\"'`$\\<>;&|*?(){}!#".contains(&byte);
        let rest = text.strip_prefix("https://").unwrap_or_default();
        if rest.is_empty() || text.len() > URL_BYTES_MAX || !text.bytes().all(plain) {
            return Err(BadEnrolment::Url(text.chars().take(80).collect()));
        }
        Ok(Self(text.to_owned()))
    }
}

/// Why a file is no enrolment.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[allow(missing_docs)]
pub enum BadEnrolment {
    #[error("the enrolment file is larger than {BYTES_MAX} bytes")]
    TooLarge,
    #[error("line {0} of the enrolment file is not `key=value`")]
    Line(usize),
    #[error("line {line} of the enrolment file: {what}")]
    Value { line: usize, what: String },
    #[error(
        "line {line} of the enrolment file has the key {key:?}; known are url, claim, root-digest, ca-digest, not-before, name and label"
    )]
    Key { line: usize, key: String },
    #[error("{0:?} is not the address of a control plane: it begins with https:// and has no blanks or quotes")]
    Url(String),
    #[error("the enrolment file has no line url=https://HOST:PORT")]
    NoUrl,
    #[error(
        "the enrolment file has neither a claim from `muster claim new` nor the two lines root-digest and ca-digest"
    )]
    NothingToBelieve,
}

impl fmt::Display for Enrolment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut text = format!("url={}\n", self.url.0);
        match &self.by {
            By::Claim(claim) => writeln!(text, "claim={claim}")?,
            By::Factory { root, ca, not_before_ms } => {
                write!(text, "root-digest={root}\nca-digest={ca}\nnot-before={not_before_ms}\n")?;
            }
        }
        if let Some(name) = &self.name {
            writeln!(text, "name={name}")?;
        }
        for (key, value) in &self.labels {
            writeln!(text, "label={key}={value}")?;
        }
        f.write_str(&text)
    }
}

impl Enrolment {
    /// Reads a file.
    pub fn parse(text: &str) -> Result<Self, BadEnrolment> {
        if text.len() > BYTES_MAX {
            return Err(BadEnrolment::TooLarge);
        }
        let (mut url, mut claim, mut root, mut ca, mut not_before_ms, mut name) = (None, None, None, None, 0, None);
        let mut labels = Labels::new();
        let lines = text.lines().zip(1..).map(|(text, line)| (text.trim(), line));
        for (text, line) in lines.filter(|(text, _)| !text.is_empty() && !text.starts_with('#')) {
            let (key, value) = text.split_once('=').ok_or(BadEnrolment::Line(line))?;
            match key.trim() {
                "url" => url = Some(value.trim().parse()?),
                "claim" => claim = Some(read(value, line)?),
                "root-digest" => root = Some(read_digest(value, line)?),
                "ca-digest" => ca = Some(read_digest(value, line)?),
                "not-before" => not_before_ms = read(value, line)?,
                "name" => name = Some(read(value, line)?),
                "label" => {
                    let (key, value) = value.split_once('=').ok_or(BadEnrolment::Line(line))?;
                    labels.insert(read::<LabelText>(key, line)?, read::<LabelText>(value, line)?);
                }
                key => return Err(BadEnrolment::Key { line, key: key.chars().take(40).collect() }),
            }
        }
        let by = match (claim, root, ca) {
            (Some(claim), _, _) => By::Claim(claim),
            (None, Some(root), Some(ca)) => By::Factory { root, ca, not_before_ms },
            _ => return Err(BadEnrolment::NothingToBelieve),
        };
        Ok(Self { url: url.ok_or(BadEnrolment::NoUrl)?, by, name, labels })
    }
}

fn read<T: FromStr<Err: fmt::Display>>(value: &str, line: usize) -> Result<T, BadEnrolment> {
    value.trim().parse().map_err(|error: T::Err| BadEnrolment::Value { line, what: error.to_string() })
}

fn read_digest(value: &str, line: usize) -> Result<Digest, BadEnrolment> {
    Digest::typed(value.trim()).map_err(|error| BadEnrolment::Value { line, what: error.to_string() })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn claim() -> ClaimToken {
        ClaimToken { id: [1; 8], secret: [2; 16], root: Digest::of("root"), ca: Digest::of("ca"), issued_ms: 17 }
    }

    #[test]
    fn a_file_comes_back_as_it_was_written() {
        let labels = [("site", "north"), ("rack", "7")]
            .map(|(key, value)| (key.parse().expect("a label"), value.parse().expect("a label")));
        let factory = By::Factory { root: Digest::of("r"), ca: Digest::of("c"), not_before_ms: 5 };
        for by in [By::Claim(claim()), factory] {
            let whole = Enrolment {
                url: "https://[::1]:8443".parse().expect("a URL"),
                by,
                name: Some("edge-1".parse().expect("a name")),
                labels: labels.clone().into_iter().collect(),
            };
            assert_eq!(Enrolment::parse(&whole.to_string()), Ok(whole));
        }
    }

    proptest::proptest! {
        /// What is taken comes out as it went in; nothing ends the reader.
        #[test]
        fn any_text_is_taken_or_refused(text in "(url=https://[!-~]{0,20}\n|name=[a-z-]{0,9}\n|label=[ -~]{0,9}\n|\\PC{0,20}\n){0,6}") {
            let text = format!("claim={}\n{text}", claim());
            if let Ok(read) = Enrolment::parse(&text) {
                proptest::prop_assert_eq!(Enrolment::parse(&read.to_string()), Ok(read));
            }
        }
    }

    #[test]
    fn mistakes_name_their_line() {
        let check = |text: &str, says: &str| {
            let error = Enrolment::parse(text).expect_err(text).to_string();
            assert!(error.contains(says), "{text:?}: {error}");
        };
        check("# nothing\n", "neither a claim");
        check(&format!("claim={}\n", claim()), "no line url");
        check("url=http://x\n", "https://");
        check("url=https://x'; reboot\n", "https://");
        check("url=https://x\nclaim=muster1_%\n", "line 2");
        check("wifi\n", "line 1");
        check("\nwifi=yes\n", "line 2");
        check(&"#".repeat(BYTES_MAX + 1), "larger");
    }
}
