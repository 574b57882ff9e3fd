use proptest::prelude::*;

use super::words::FOUND_BYTES_MAX;
use super::*;

#[test]
fn only_what_jiter_does_not_take_is_spelled_out() {
    for (text, expected) in [
        ("[NaN, Infinity, -Infinity]", None),
        (r#"["Inf", "\"Inf", "-NaN"]"#, None),
        ("[Inf]", Some("[Infinity]")),
        ("[-Inf,Infinity,-NaN,\"Inf\"]", Some("[-Infinity,Infinity,NaN,\"Inf\"]")),
        ("", None),
        ("\"\\", None),
    ] {
        let found = with_infinity_spelled_out(text.as_bytes());
        assert_eq!(found.as_deref(), expected.map(str::as_bytes), "{text}");
    }
}

#[test]
fn a_letter_cut_in_two_is_left_out() {
    let text = format!(" {}ü", "x".repeat(FOUND_BYTES_MAX - 1));
    assert_eq!(shortened(text.as_bytes()), "x".repeat(FOUND_BYTES_MAX - 1));
}

proptest! {
    /// What is passed over is what another reader takes for JSON.
    #[test]
    fn passing_over_is_as_strict_as_reading(text in r#"[\[\]{}:,"a1 .e\\-]{0,24}"#) {
        let mut json = reader(text.as_bytes());
        let skipped = skip_range(&mut json).is_ok_and(|_| json.finish().is_ok());
        prop_assert_eq!(skipped, serde_json::from_str::<serde::de::IgnoredAny>(&text).is_ok(), "{}", text);
    }
}
