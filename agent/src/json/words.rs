//! What is said of JSON that makes no tensor.

use jiter::{Jiter, JiterError, JiterErrorType, JsonErrorType, Peek};
use muster_shared::limits::RANK_MAX;
use muster_shared::manifest::Dtype;

use super::skip;

/// Why JSON is no tensor. Always the caller's mistake.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BadJson {
    /// Not JSON at all.
    #[error("JSON Parse error: {what} at offset: {offset}")]
    Syntax {
        /// RapidJSON's words.
        what: &'static str,
        /// Where.
        offset: usize,
    },
    /// Lists of different lengths or depths.
    #[error("{0}")]
    Ragged(String),
    /// Deeper than any tensor.
    #[error("more than {RANK_MAX} dimensions")]
    TooDeep,
    /// Something else than the type wanted.
    #[error("JSON Value: {found} Type: {kind} is not of expected type: {}", dtype_name(*wanted))]
    Element {
        /// The text, shortened.
        found: String,
        /// What that is in JSON.
        kind: &'static str,
        /// The type wanted.
        wanted: Dtype,
    },
    /// An object that holds something else than one text under `b64`.
    #[error("JSON Value: {0} not formatted correctly for base64 data")]
    NoBase64(String),
    /// A text that is not in base64.
    #[error("Unable to base64 decode")]
    Base64,
}

impl From<JiterError> for BadJson {
    fn from(error: JiterError) -> Self {
        let what = match &error.error_type {
            JiterErrorType::JsonError(kind) => rapidjson_words(kind),
            JiterErrorType::WrongType { .. } => INVALID_VALUE,
        };
        Self::Syntax { what, offset: error.index }
    }
}

const INVALID_VALUE: &str = "Invalid value.";
pub(super) const TOO_BIG: &str = "Number too big to be stored in double.";

/// RapidJSON's words for what jiter found; where the two tell mistakes apart differently, the nearest.
fn rapidjson_words(kind: &JsonErrorType) -> &'static str {
    match kind {
        JsonErrorType::EofWhileParsingList | JsonErrorType::ExpectedListCommaOrEnd => {
            "Missing a comma or ] after an array element."
        }
        JsonErrorType::EofWhileParsingObject | JsonErrorType::ExpectedObjectCommaOrEnd => {
            "Missing a comma or } after an object member."
        }
        JsonErrorType::EofWhileParsingString => "Missing a closing quotation mark in string.",
        JsonErrorType::ExpectedColon => "Missing a colon after a name of object member.",
        JsonErrorType::KeyMustBeAString => "Missing a name for object member.",
        JsonErrorType::InvalidEscape => "Invalid escape character in string.",
        JsonErrorType::InvalidUnicodeCodePoint | JsonErrorType::ControlCharacterWhileParsingString => {
            "Invalid encoding in string."
        }
        JsonErrorType::LoneLeadingSurrogateInHexEscape | JsonErrorType::UnexpectedEndOfHexEscape => {
            "The surrogate pair in string is invalid."
        }
        JsonErrorType::NumberOutOfRange => TOO_BIG,
        _ => INVALID_VALUE,
    }
}

/// TF Serving's name of a type.
fn dtype_name(dtype: Dtype) -> &'static str {
    match dtype {
        Dtype::Bool => "bool",
        Dtype::U8 => "uint8",
        Dtype::U16 => "uint16",
        Dtype::U32 => "uint32",
        Dtype::U64 => "uint64",
        Dtype::I8 => "int8",
        Dtype::I16 => "int16",
        Dtype::I32 => "int32",
        Dtype::I64 => "int64",
        Dtype::F16 => "half",
        Dtype::F32 => "float",
        Dtype::F64 => "double",
        Dtype::String => "string",
    }
}

/// Of what is not wanted, so much is told.
pub(super) const FOUND_BYTES_MAX: usize = 256;

/// The value that comes next, shortened.
pub fn found(json: &mut Jiter<'_>, peek: Peek) -> Result<String, BadJson> {
    let start = json.current_index();
    skip(json, peek)?;
    Ok(shortened(json.slice_to_current(start)))
}

/// The beginning of a text, for an error.
pub fn shortened(text: &[u8]) -> String {
    let text = text.trim_ascii();
    let text = String::from_utf8_lossy(&text[..text.len().min(FOUND_BYTES_MAX)]);
    // A letter cut in two.
    text.trim_end_matches('\u{fffd}').to_owned()
}

pub(super) fn not_a(json: &Jiter<'_>, peek: Peek, start: usize, wanted: Dtype) -> BadJson {
    BadJson::Element { found: shortened(json.slice_to_current(start)), kind: kind(peek), wanted }
}

/// TF Serving's name of a kind of JSON.
pub fn kind(peek: Peek) -> &'static str {
    match peek {
        Peek::Null => "Null",
        Peek::False => "False",
        Peek::True => "True",
        Peek::Object => "Object",
        Peek::Array => "Array",
        Peek::String => "String",
        _ => "Number",
    }
}
