//! TF Serving's REST API as far as it needs no model: which path asks for what, and the words in which
//! it says that something cannot be had. The facts are from TF Serving's sources: the paths from
//! `model_servers/http_rest_api_util.cc`, what is refused from `http_rest_api_handler.cc`, the texts
//! for what is not there from `core/basic_manager.cc`, `server_core.cc` and `get_model_status_impl.cc`.

use std::borrow::Cow;

use super::VersionChoice;
use crate::id::Version;

/// A request, as method and path tell it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TfsRequest<'a> {
    /// The model's name; anything, not only what can name a model.
    pub model: Cow<'a, str>,
    /// Which version.
    pub choice: VersionChoice,
    /// What is asked.
    pub verb: TfsVerb,
}

/// What can be asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum TfsVerb {
    /// How the versions fare.
    Status,
    /// What the model takes and gives.
    Metadata,
    /// Run it on tensors.
    Predict,
    /// Run it on examples: classes and scores.
    Classify,
    /// Run it on examples: a number for each.
    Regress,
}

/// What TF Serving answers instead.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{text}")]
pub struct TfsError {
    /// The HTTP status.
    pub status: u16,
    /// What stands under `error`.
    pub text: String,
}

impl TfsError {
    /// Its `INVALID_ARGUMENT`.
    pub fn invalid(text: impl Into<String>) -> Self {
        Self { status: 400, text: text.into() }
    }

    /// Its `NOT_FOUND`.
    pub fn not_found(text: impl Into<String>) -> Self {
        Self { status: 404, text: text.into() }
    }

    /// The body, down to the white space.
    pub fn body(&self) -> String {
        format!("{{\n    \"error\": {}\n}}", serde_json::Value::from(self.text.as_str()))
    }
}

impl<'a> TfsRequest<'a> {
    /// Reads method and path; the path as it was sent, still percent-encoded. Words in it may be
    /// written in capitals as in small letters, except that verbs then mean nothing.
    pub fn parse(method: &str, path: &'a str) -> Result<Self, TfsError> {
        let path = path.split_once('?').map_or(path, |(path, _)| path);
        if after(path, "/v1/").is_none() {
            return Err(TfsError::not_found(format!("Not found: {method} {path}")));
        }
        let parsed = match method {
            "GET" => get(path),
            "POST" => post(path),
            _ => None,
        };
        let malformed = || TfsError::invalid(format!("Malformed request: {method} {path}"));
        let parsed = parsed.ok_or_else(malformed)?;
        let number = |digits: &str| {
            let error = || TfsError::invalid(format!("Failed to convert version: {digits} to numeric."));
            digits.parse::<i64>().map_err(|_| error())
        };
        // TF Serving looks at these in this order.
        let version = parsed.version.map(number).transpose()?;
        let verb = parsed.verb.ok_or_else(malformed)?;
        if parsed.model.is_empty() {
            return Err(TfsError::invalid("Missing model name in request."));
        }
        let model = decoded(parsed.model);
        let choice = match (version, parsed.label) {
            (Some(number), _) => match u64::try_from(number).ok().and_then(Version::new) {
                Some(version) => VersionChoice::Version(version),
                None => return Err(no_version(verb, &model, number)),
            },
            (None, Some(label)) => VersionChoice::Label(decoded(label).into_owned()),
            (None, None) => VersionChoice::Latest,
        };
        Ok(Self { model, choice, verb })
    }

    /// What is said where nobody answers to this request. Whoever knows that the label stands for a
    /// version that does not answer should ask for that version instead.
    pub fn not_served(&self) -> TfsError {
        let model = &self.model;
        match (&self.choice, self.verb) {
            (VersionChoice::Version(version), verb) => no_version(verb, model, *version),
            (_, TfsVerb::Status) => TfsError::not_found(format!("Could not find any versions of model {model}")),
            (VersionChoice::Latest, _) => {
                TfsError::not_found(format!("Servable not found for request: Latest({model})"))
            }
            (VersionChoice::Label(label), _) => {
                TfsError::invalid(format!("Unrecognized servable version label: {label}"))
            }
        }
    }
}

fn no_version(verb: TfsVerb, model: &str, version: impl std::fmt::Display) -> TfsError {
    TfsError::not_found(match verb {
        TfsVerb::Status => format!("Could not find version {version} of model {model}"),
        _ => format!("Servable not found for request: Specific({model}, {version})"),
    })
}

/// A path whose form is right.
struct Parsed<'a> {
    /// Empty where there is none.
    model: &'a str,
    version: Option<&'a str>,
    label: Option<&'a str>,
    /// None where the form is right and the word still means nothing.
    verb: Option<TfsVerb>,
}

/// `/v1/models/M:predict`, `/v1/models/M/versions/V:predict`, `/v1/models/M/labels/L:predict`.
fn post(path: &str) -> Option<Parsed<'_>> {
    let (model, rest) = word(after(path, "/v1/models/")?)?;
    let (version, label, rest) = choice(rest);
    let verb = rest.strip_prefix(':')?;
    let known = ["classify", "regress", "predict"].iter().any(|known| verb.eq_ignore_ascii_case(known));
    known.then_some(())?;
    let verb = match verb {
        "classify" => Some(TfsVerb::Classify),
        "regress" => Some(TfsVerb::Regress),
        "predict" => Some(TfsVerb::Predict),
        _ => None,
    };
    Some(Parsed { model, version, label, verb })
}

/// `/v1/models/M`, and the same with `/versions/V` or `/labels/L` and with `/metadata` behind it. A path
/// without a name has the right form, too.
fn get(path: &str) -> Option<Parsed<'_>> {
    let rest = after(path, "/v1/models")?;
    let named = rest.strip_prefix('/').and_then(word);
    let with_name = named.and_then(|(model, rest)| get_after_name(model, rest));
    with_name.or_else(|| get_after_name("", rest))
}

fn get_after_name<'a>(model: &'a str, rest: &'a str) -> Option<Parsed<'a>> {
    let (version, label, rest) = choice(rest);
    let verb = match rest {
        "/metadata" => TfsVerb::Metadata,
        // TF Serving takes `/METADATA` for nothing, and tells the status.
        rest if rest.is_empty() || rest.eq_ignore_ascii_case("/metadata") => TfsVerb::Status,
        _ => return None,
    };
    Some(Parsed { model, version, label, verb: Some(verb) })
}

/// The version, or else the label, and what follows.
fn choice(rest: &str) -> (Option<&str>, Option<&str>, &str) {
    if let Some(rest) = after(rest, "/versions/") {
        let end = rest.find(|letter: char| !letter.is_ascii_digit()).unwrap_or(rest.len());
        let (version, rest) = rest.split_at(end);
        if !version.is_empty() {
            return (Some(version), None, rest);
        }
    } else if let Some((label, rest)) = after(rest, "/labels/").and_then(word) {
        return (None, Some(label), rest);
    }
    (None, None, rest)
}

/// What follows `start`.
fn after<'a>(path: &'a str, start: &str) -> Option<&'a str> {
    let (head, rest) = path.split_at_checked(start.len())?;
    head.eq_ignore_ascii_case(start).then_some(rest)
}

/// Everything up to the next `/` or `:`, at least one letter.
fn word(rest: &str) -> Option<(&str, &str)> {
    let end = rest.find(['/', ':']).unwrap_or(rest.len());
    (end > 0).then(|| rest.split_at(end))
}

/// Percent-encoded bytes decoded; what is no such code stands for itself.
fn decoded(text: &str) -> Cow<'_, str> {
    if !text.contains('%') {
        return Cow::Borrowed(text);
    }
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let [first, after @ ..] = rest {
        let code = match after {
            [high, low, ..] if *first == b'%' => digit(*high).zip(digit(*low)),
            _ => None,
        };
        match code {
            Some((high, low)) => {
                bytes.push(high << 4 | low);
                rest = &rest[3..];
            }
            None => {
                bytes.push(*first);
                rest = after;
            }
        }
    }
    Cow::Owned(String::from_utf8(bytes).unwrap_or_else(|error| String::from_utf8_lossy(error.as_bytes()).into_owned()))
}

fn digit(letter: u8) -> Option<u8> {
    char::from(letter).to_digit(16).and_then(|digit| u8::try_from(digit).ok())
}

#[cfg(test)]
#[path = "tfs_tests.rs"]
mod tests;
