//! Amounts as people write them: `500m` cores, `64Mi` bytes, `60s`. Kubernetes' spelling.

use serde::{Deserialize, Serialize};

/// A text that is not an amount of the asked kind.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is no {what}: {rule}")]
pub struct BadQuantity {
    what: &'static str,
    rule: &'static str,
    text: String,
}

fn bad(what: &'static str, rule: &'static str, text: &str) -> BadQuantity {
    BadQuantity { what, rule, text: text.chars().take(80).collect() }
}

macro_rules! quantity_type {
    ($(#[$doc:meta])* $name:ident, $inner:ty, $parse:ident, $print:ident) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        #[cfg_attr(feature = "openapi", derive(utoipa::ToSchema), schema(value_type = String))]
        pub struct $name(pub $inner);

        impl std::str::FromStr for $name {
            type Err = BadQuantity;

            fn from_str(text: &str) -> Result<Self, BadQuantity> {
                $parse(text).map(Self)
            }
        }

        impl TryFrom<String> for $name {
            type Error = BadQuantity;

            fn try_from(text: String) -> Result<Self, BadQuantity> {
                text.parse()
            }
        }

        impl From<$name> for String {
            fn from(amount: $name) -> String {
                $print(amount.0)
            }
        }

        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str(&$print(self.0))
            }
        }
    };
}

quantity_type! {
    /// Thousandths of a core: `500m` or `2`.
    MilliCpu, u32, parse_cpu, print_cpu
}
quantity_type! {
    /// Bytes: `64Mi`, `1Gi`, `500M`, `4096`.
    Bytes, u64, parse_bytes, print_bytes
}
quantity_type! {
    /// Milliseconds: `60s`, `5m`, `1h`, `7d`, `250ms`.
    Millis, u64, parse_duration, print_duration
}

/// A number of things, or a share of all of them: `1` or `25%`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "CountOrPercentText", into = "CountOrPercentText")]
pub enum CountOrPercent {
    /// So many.
    Count(u32),
    /// So many of a hundred; 0 to 100.
    Percent(u8),
}

#[derive(Serialize, Deserialize)]
#[serde(untagged)]
enum CountOrPercentText {
    Count(u32),
    Text(String),
}

impl CountOrPercent {
    /// How many of `all` that is, at most all; a share is rounded up.
    pub fn of(self, all: u32) -> u32 {
        match self {
            Self::Count(count) => count.min(all),
            Self::Percent(percent) => {
                let share = (u64::from(all) * u64::from(percent)).div_ceil(100);
                share.try_into().unwrap_or(all).min(all)
            }
        }
    }
}

impl std::str::FromStr for CountOrPercent {
    type Err = BadQuantity;

    fn from_str(text: &str) -> Result<Self, BadQuantity> {
        let fail = || bad("number or share", "write it as 3 or as 25%, at most 100%", text);
        match text.strip_suffix('%') {
            Some(percent) => percent.parse().ok().filter(|percent| *percent <= 100).map(Self::Percent).ok_or_else(fail),
            None => text.parse().map(Self::Count).map_err(|_| fail()),
        }
    }
}

impl TryFrom<CountOrPercentText> for CountOrPercent {
    type Error = BadQuantity;

    fn try_from(text: CountOrPercentText) -> Result<Self, BadQuantity> {
        match text {
            CountOrPercentText::Count(count) => Ok(Self::Count(count)),
            CountOrPercentText::Text(text) => text.parse(),
        }
    }
}

impl From<CountOrPercent> for CountOrPercentText {
    fn from(amount: CountOrPercent) -> Self {
        match amount {
            CountOrPercent::Count(count) => Self::Count(count),
            CountOrPercent::Percent(_) => Self::Text(amount.to_string()),
        }
    }
}

impl std::fmt::Display for CountOrPercent {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Count(count) => write!(f, "{count}"),
            Self::Percent(percent) => write!(f, "{percent}%"),
        }
    }
}

fn parse_cpu(text: &str) -> Result<u32, BadQuantity> {
    let fail = || bad("amount of CPU", "write thousandths of a core as 500m, or whole cores as 2", text);
    match text.strip_suffix('m') {
        Some(milli) => milli.parse().map_err(|_| fail()),
        None => text.parse::<u32>().ok().and_then(|cores| cores.checked_mul(1000)).ok_or_else(fail),
    }
}

fn print_cpu(milli: u32) -> String {
    if milli.is_multiple_of(1000) { (milli / 1000).to_string() } else { format!("{milli}m") }
}

const BYTE_UNITS: [(&str, u64); 6] =
    [("Gi", 1 << 30), ("Mi", 1 << 20), ("Ki", 1 << 10), ("G", 1_000_000_000), ("M", 1_000_000), ("k", 1_000)];

fn parse_bytes(text: &str) -> Result<u64, BadQuantity> {
    let fail = || bad("amount of memory", "write it as 64Mi, 1Gi, 500M or plain bytes", text);
    let (number, unit) = BYTE_UNITS
        .iter()
        .find_map(|(suffix, unit)| text.strip_suffix(suffix).map(|number| (number, *unit)))
        .unwrap_or((text, 1));
    number.parse::<u64>().ok().and_then(|count| count.checked_mul(unit)).ok_or_else(fail)
}

fn print_bytes(bytes: u64) -> String {
    for (suffix, unit) in &BYTE_UNITS[..3] {
        if bytes > 0 && bytes.is_multiple_of(*unit) {
            return format!("{}{suffix}", bytes / unit);
        }
    }
    bytes.to_string()
}

const TIME_UNITS: [(&str, u64); 5] = [("ms", 1), ("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1_000)];

fn parse_duration(text: &str) -> Result<u64, BadQuantity> {
    let fail = || bad("duration", "write it as 250ms, 60s, 5m, 1h or 7d", text);
    let (number, unit) = TIME_UNITS
        .iter()
        .find_map(|(suffix, unit)| text.strip_suffix(suffix).map(|number| (number, *unit)))
        .ok_or_else(fail)?;
    number.parse::<u64>().ok().and_then(|count| count.checked_mul(unit)).ok_or_else(fail)
}

fn print_duration(millis: u64) -> String {
    for (suffix, unit) in &TIME_UNITS[1..] {
        if millis > 0 && millis.is_multiple_of(*unit) {
            return format!("{}{suffix}", millis / unit);
        }
    }
    format!("{millis}ms")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn amounts_print_as_they_are_read() {
        for text in ["500m", "2", "1500m"] {
            assert_eq!(text.parse::<MilliCpu>().map(String::from), Ok(text.to_owned()));
        }
        for text in ["64Mi", "1Gi", "1000", "0"] {
            assert_eq!(text.parse::<Bytes>().map(String::from), Ok(text.to_owned()));
        }
        for text in ["60s", "250ms", "2h", "7d", "0ms"] {
            let read = text.parse::<Millis>().map(String::from);
            assert_eq!(read, Ok(if text == "60s" { "1m".to_owned() } else { text.to_owned() }));
        }
        assert_eq!("500M".parse(), Ok(Bytes(500_000_000)));
    }

    #[test]
    fn a_share_is_rounded_up_and_never_more_than_all() {
        for (text, all, count) in
            [("1", 4, 1), ("9", 4, 4), ("25%", 4, 1), ("25%", 5, 2), ("1%", 3, 1), ("0%", 3, 0), ("100%", 7, 7)]
        {
            assert_eq!(text.parse::<CountOrPercent>().map(|amount| amount.of(all)), Ok(count), "{text} of {all}");
        }
        for text in ["101%", "-1", "x%", "", "%"] {
            assert!(text.parse::<CountOrPercent>().is_err(), "{text}");
        }
        assert_eq!(serde_json::from_str::<CountOrPercent>("2").ok(), Some(CountOrPercent::Count(2)));
        assert_eq!(serde_json::to_string(&CountOrPercent::Percent(25)).ok().as_deref(), Some("\"25%\""));
    }

    #[test]
    fn nonsense_and_overflow_are_errors() {
        for text in ["", "m", "-1", "1.5", "99999999999999999999Gi", "18446744073709551615Gi"] {
            assert!(text.parse::<Bytes>().is_err(), "{text}");
            assert!(text.parse::<Millis>().is_err(), "{text}");
        }
        assert!("4294967295".parse::<MilliCpu>().is_err());
    }
}
