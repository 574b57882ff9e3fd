//! The generated code says what the `.proto` file says.

use std::collections::BTreeSet;

/// A field: its message, name and number, whether there may be many, and its type (`other` for
/// messages, enumerations and maps).
type Field = (String, String, u32, bool, &'static str);

const SCALARS: [&str; 9] = ["bool", "bytes", "double", "float", "int32", "int64", "string", "uint32", "uint64"];

fn scalar(name: &str) -> &'static str {
    SCALARS.iter().find(|scalar| **scalar == name).copied().unwrap_or("other")
}

/// The fields of a `.proto` file; nested messages by their own names.
fn of_proto(text: &str) -> BTreeSet<Field> {
    let mut fields = BTreeSet::new();
    let mut open: Vec<(&str, &str)> = vec![];
    for line in text.lines().map(str::trim).filter(|line| !line.starts_with("//")) {
        let words: Vec<&str> = line.split_whitespace().collect();
        match words.as_slice() {
            [kind @ ("message" | "enum" | "oneof" | "service"), name, "{"] => open.push((*kind, *name)),
            ["}"] => {
                open.pop();
            }
            [.., name, "=", number] if open.last().is_some_and(|(kind, _)| matches!(*kind, "message" | "oneof")) => {
                let message = open.iter().rev().find(|(kind, _)| *kind == "message").expect("a message").1;
                let number = number.trim_end_matches(';').parse().expect("a number");
                let many = words[0] == "repeated" || words[0].starts_with("map<");
                let of_type = words.iter().rev().nth(3).copied().unwrap_or_default();
                let of_type = if words[0].starts_with("map<") { "other" } else { scalar(of_type) };
                fields.insert((message.to_owned(), name.to_string(), number, many, of_type));
            }
            _ => {}
        }
    }
    fields
}

/// The fields of the generated code; those of a `oneof` under the message that it belongs to.
fn of_code(text: &str) -> BTreeSet<Field> {
    let mut fields = BTreeSet::new();
    let (mut message, mut outer, mut choice) = (String::new(), String::new(), false);
    let mut attribute = String::new();
    for line in text.lines().map(str::trim) {
        if let Some(name) = line.strip_prefix("pub struct ").and_then(|rest| rest.split([' ', '{']).next()) {
            (message, choice) = (name.to_owned(), false);
        } else if line.starts_with("pub enum ParameterChoice") || line.starts_with("pub enum PolicyChoice") {
            (message, choice) = (outer.clone(), true);
        } else if let Some(module) = line.strip_prefix("/// Nested message and enum types in `") {
            outer = module.trim_end_matches("`.").to_owned();
        } else if line.starts_with("#[prost(") && !line.contains("oneof") && !line.contains("enumeration = ")
            || line.starts_with("#[prost(enumeration = ")
        {
            attribute = line.to_owned();
        } else if !attribute.is_empty() {
            let name =
                line.trim_start_matches("pub ").trim_start_matches("r#").split([':', '(']).next().expect("a name");
            let number = attribute.split("tag = \"").nth(1).and_then(|rest| rest.split('"').next());
            let number = number.and_then(|number| number.parse().ok()).expect("a number");
            let many = attribute.contains("repeated") || attribute.contains("btree_map");
            let name = if choice { snake(name) } else { name.to_owned() };
            let of_type = attribute.trim_start_matches("#[prost(").split([',', ' ']).next().map_or("", scalar);
            fields.insert((message.clone(), name, number, many, of_type));
            attribute.clear();
        }
    }
    fields
}

fn snake(name: &str) -> String {
    let mut out = String::new();
    for (at, letter) in name.char_indices() {
        if letter.is_uppercase() && at > 0 {
            out.push('_');
        }
        out.extend(letter.to_lowercase());
    }
    out
}

#[test]
fn the_generated_code_has_the_fields_of_the_proto_file() {
    let proto = of_proto(include_str!("../../../../proto/open_inference.proto"));
    let code = of_code(include_str!("generated.rs"));
    assert!(proto.len() > 100, "{} fields", proto.len());
    let lost: Vec<_> = proto.difference(&code).collect();
    let more: Vec<_> = code.difference(&proto).collect();
    assert!(lost.is_empty() && more.is_empty(), "only in the .proto file: {lost:?}; only in the code: {more:?}");
}

#[test]
fn the_generated_code_has_the_methods_of_the_proto_file() {
    let proto = include_str!("../../../../proto/open_inference.proto");
    let code = include_str!("generated.rs");
    let methods = proto.lines().filter_map(|line| line.trim().strip_prefix("rpc ")?.split('(').next());
    let missing: Vec<_> =
        methods.filter(|name| !code.contains(&format!("/inference.GRPCInferenceService/{name}\""))).collect();
    assert_eq!(missing, Vec::<&str>::new());
}
