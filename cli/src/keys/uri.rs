//! PKCS#11 URIs (RFC 7512), as far as they name one key in one token.

use std::path::PathBuf;

/// Names a key in a token.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Uri {
    /// The token's label.
    pub token: Option<String>,
    /// The token's serial number.
    pub serial: Option<String>,
    /// The key's label.
    pub object: Option<String>,
    /// The key's id.
    pub id: Option<Vec<u8>>,
    /// The module that speaks to the token.
    pub module: Option<PathBuf>,
    /// A file whose first line is the PIN.
    pub pin_source: Option<PathBuf>,
}

/// Why a text names no key in a token.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BadUri {
    /// Not `name=value`.
    #[error("{0:?} is no name=value")]
    NoPair(String),
    /// Percent signs that are none.
    #[error("{0:?} is not percent-encoded")]
    Percent(String),
    /// Nothing of ours.
    #[error("the attribute {0:?} is not known here")]
    Unknown(String),
    /// The same twice.
    #[error("the attribute {0:?} stands twice")]
    Twice(String),
    /// Others could read it.
    #[error("a PIN on the command line can be read by others: use pin-source, or set MUSTER_PIN")]
    PinValue,
    /// Too little said.
    #[error("it names no key: object or id is missing")]
    NoObject,
}

const SCHEME: &str = "pkcs11:";

impl Uri {
    /// Whether a text is meant as one.
    pub fn is_one(text: &str) -> bool {
        text.starts_with(SCHEME)
    }
}

impl std::str::FromStr for Uri {
    type Err = BadUri;

    fn from_str(text: &str) -> Result<Self, BadUri> {
        let rest = text.strip_prefix(SCHEME).unwrap_or(text);
        let (path, query) = rest.split_once('?').unwrap_or((rest, ""));
        let mut uri = Self::default();
        let attributes = path.split(';').chain(query.split('&')).filter(|attribute| !attribute.is_empty());
        for attribute in attributes {
            let (name, value) = attribute.split_once('=').ok_or_else(|| BadUri::NoPair(attribute.to_owned()))?;
            let bytes = decode(value)?;
            let text = || String::from_utf8(bytes.clone()).map_err(|_| BadUri::Percent(value.to_owned()));
            let path = || text().map(|text| PathBuf::from(text.strip_prefix("file:").unwrap_or(&text)));
            let twice = match name {
                "token" => uri.token.replace(text()?).is_some(),
                "serial" => uri.serial.replace(text()?).is_some(),
                "object" => uri.object.replace(text()?).is_some(),
                "id" => uri.id.replace(bytes).is_some(),
                "module-path" => uri.module.replace(path()?).is_some(),
                "pin-source" => uri.pin_source.replace(path()?).is_some(),
                // It is always the private key that signs.
                "type" if value == "private" => false,
                "pin-value" => return Err(BadUri::PinValue),
                _ => return Err(BadUri::Unknown(name.to_owned())),
            };
            if twice {
                return Err(BadUri::Twice(name.to_owned()));
            }
        }
        if uri.object.is_none() && uri.id.is_none() {
            return Err(BadUri::NoObject);
        }
        Ok(uri)
    }
}

fn decode(value: &str) -> Result<Vec<u8>, BadUri> {
    let mut bytes = Vec::new();
    let mut rest = value.bytes();
    while let Some(byte) = rest.next() {
        if byte != b'%' {
            bytes.push(byte);
            continue;
        }
        let digits: Vec<u8> = rest.by_ref().take(2).collect();
        let decoded = hex::decode(digits).ok().filter(|decoded| decoded.len() == 1);
        bytes.extend(decoded.ok_or_else(|| BadUri::Percent(value.to_owned()))?);
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_uri_names_one_key_in_one_token() {
        let uri: Uri = "pkcs11:token=My%20token;object=publisher;id=%01%ff;type=private?module-path=/lib/p.so&pin-source=file:/pin"
            .parse()
            .expect("a URI");
        let expected = Uri {
            token: Some("My token".into()),
            serial: None,
            object: Some("publisher".into()),
            id: Some(vec![1, 255]),
            module: Some("/lib/p.so".into()),
            pin_source: Some("/pin".into()),
        };
        assert_eq!(uri, expected);
        for (text, error) in [
            ("pkcs11:", BadUri::NoObject),
            ("pkcs11:token=a", BadUri::NoObject),
            ("pkcs11:object", BadUri::NoPair("object".into())),
            ("pkcs11:object=a;object=b", BadUri::Twice("object".into())),
            ("pkcs11:object=%4", BadUri::Percent("%4".into())),
            ("pkcs11:object=a?pin-value=1234", BadUri::PinValue),
            ("pkcs11:object=a;slot-id=3", BadUri::Unknown("slot-id".into())),
        ] {
            assert_eq!(text.parse::<Uri>(), Err(error), "{text}");
        }
    }

    proptest! {
        #[test]
        fn no_text_panics(text in "(pkcs11:)?[a-z=;?&%0-9 -]{0,40}") {
            let _ = text.parse::<Uri>();
        }
    }
}
