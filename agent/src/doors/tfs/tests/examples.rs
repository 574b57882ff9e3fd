use super::*;
use crate::doors::tfs::examples::read;

fn check(inputs: &str, body: &str) -> String {
    match read(&ports(inputs), body.as_bytes()) {
        Ok((tensors, examples)) => format!("{examples}: {}", all_written(&tensors)),
        Err(error) => error,
    }
}

#[test]
fn examples_become_tensors() {
    const RATED: &str = "names:string[?,2] ratings:f32[?,2] age:i64[?]";
    const MIXED: &str = "query:string[?] location:string[?,1] names:string[?,2] ratings:f32[?] mix:i64[?,3]";
    #[rustfmt::skip]
    let cases: &[(&str, &str, &str, &str)] = &[
        ("R.RequestNoContext", RATED,
            r#"{"examples": [{"names": ["foo", "bar"], "ratings": [8.0, 9.0], "age": 20}, {"names": ["baz", "bat"], "ratings": [6.0, 7.0], "age": [21]}]}"#,
            r#"2: names string[2,2] [["foo","bar"],["baz","bat"]]; ratings f32[2,2] [[8.0,9.0],[6.0,7.0]]; age i64[2] [20,21]"#),
        ("R.RequestWithContextAndSignature", MIXED,
            r#"{"signature_name": "serving_default", "context": {"query": "pizza", "location": ["sfo"]}, "examples": [{"names": ["baz", {"b64": "aGVsbG8="}], "ratings": 6.0, "mix": [1, true, false]}, {"names": ["a", "b"], "ratings": -Infinity, "mix": [0, 0, 0], "query": "soup"}, {"names": ["a", "b"], "ratings": NaN, "mix": [0, 0, 0]}]}"#,
            r#"3: query string[3] ["pizza","soup","pizza"]; location string[3,1] [["sfo"],["sfo"],["sfo"]]; names string[3,2] [["baz","hello"],["a","b"],["a","b"]]; ratings f32[3] [6.0,-Infinity,NaN]; mix i64[3,3] [[1,1,0],[0,0,0],[0,0,0]]"#),
        ("R.RequestWithContextAndSignature", "x:f32[?]", r#"{"signature_name": "custom_signture", "examples": [{"x": 1}]}"#, "No signature was found with the name: custom_signture"),
        ("R.JsonErrors", "names:string[?]", r#"{"signature_name": ["hello"], "examples": [{"names": ["foo", "bar"]}]}"#, r#"JSON Value: {"signature_name": ["hello"], "examples": [{"names": ["foo", "bar"]}]} not formatted correctly. 'signature_name' key must be a string value."#),
        ("R.JsonErrors", "names:string[?]", r#"{"context": [{"names": ["foo", "bar"]}]}"#, "Example must be JSON object but got JSON Array"),
        ("R.JsonErrors", "names:string[?]", r#"{"examples": {"names": ["foo", "bar"]}}"#, r#"JSON Value: {"examples": {"names": ["foo", "bar"]}} Expecting 'examples' value to be an list/array"#),
        ("R.JsonErrors", "names:string[?]", r#"{"examples": [[{"names": ["foo", "bar"]}]]}"#, "Example must be JSON object but got JSON Array"),
        ("R.JsonErrors", "names:i64[?]", r#"{"examples": [{"names": [10, null]}]}"#, "Feature: names has element with unexpected JSON type: Null"),
        ("R.JsonErrors", "names:i64[?]", r#"{"examples": [{"names": [10, 10.0]}]}"#, "Unexpected element type in feature: names expecting type: int64"),
        ("R.JsonErrors", "names:i64[?]", r#"{"examples": [{"names": [10, {"test": 10}]}]}"#, "Feature: names has element with unexpected JSON type: Object"),
        ("R.JsonErrors", "names:i64[?]", r#"{"examples": [{"names": [[10], 20]}]}"#, "Feature: names has element with unexpected JSON type: Array"),
        ("R.JsonErrors", "names:i64[?]", r#"{"examples": [{"names": [20, 18446744073709551603]}]}"#, "Feature: names has uint64_t element. Only int64_t is supported."),
        ("H.Regress", "x:f32[?]", r#"{"signature_name": "serving_default", "examples": [{"x": 80.0}]}"#, "1: x f32[1] [80.0]"),
        ("H.Classify", "x:f32[?,1]", r#"{"examples": [{"x": 20.0}]}"#, "1: x f32[1,1] [[20.0]]"),
        ("-", "x:f32[?]", r#"{"signature_name": ""}"#, r#"JSON Value: {"signature_name": ""} When method is classify, key 'examples' is expected and was not found"#),
        ("-", "x:f32[?]", r#"{"examples": []}"#, r#"JSON Value: {"examples": []} 'examples' value is an empty array"#),
        ("-", "x:f32[?]", "", "JSON Parse error: The document is empty"),
        ("-", "x:f32[?]", "[]", "JSON Value: [] Is not object"),
        ("-", "x:f32[?]", r#"{"examples": [3]}"#, "Example must be JSON object but got JSON Number"),
        // Types.
        ("-", "x:f32[?,2]", r#"{"examples": [{"x": [1, 2.5]}]}"#, "1: x f32[1,2] [[1.0,2.5]]"),
        ("-", "x:i8[?] y:u16[?] z:bool[?]", r#"{"examples": [{"x": true, "y": true, "z": true}, {"x": -1, "y": 2, "z": false}]}"#, "2: x i8[2] [1,-1]; y u16[2] [1,2]; z bool[2] [true,false]"),
        ("-", "x:f32[?]", r#"{"examples": [{"x": true}]}"#, "Unexpected element type in feature: x expecting type: float"),
        ("-", "x:f32[?]", r#"{"examples": [{"x": {"b64": "aGVsbG8="}}]}"#, "Unexpected element type in feature: x expecting type: float"),
        ("-", "x:string[?]", r#"{"examples": [{"x": 1}]}"#, "Unexpected element type in feature: x expecting type: bytes"),
        ("-", "x:string[?]", r#"{"examples": [{"x": {"b64": "?"}}]}"#, "Unable to base64 decode"),
        ("-", "x:u64[?]", r#"{"examples": [{"x": 18446744073709551615}]}"#, "1: x u64[1] [18446744073709551615]"),
        // Shapes.
        ("-", "x:f32[?,2,2]", r#"{"examples": [{"x": [1, 2, 3, 4]}]}"#, "1: x f32[1,2,2] [[[1.0,2.0],[3.0,4.0]]]"),
        ("-", "x:f32[?,?]", r#"{"examples": [{"x": [1, 2, 3]}, {"x": [4, 5, 6]}]}"#, "2: x f32[2,3] [[1.0,2.0,3.0],[4.0,5.0,6.0]]"),
        ("-", "x:f32[?,?,2]", r#"{"examples": [{"x": [1, 2, 3, 4]}]}"#, "1: x f32[1,2,2] [[[1.0,2.0],[3.0,4.0]]]"),
        ("-", "x:f32[?,?]", r#"{"examples": [{"x": [1, 2, 3]}, {"x": [4]}]}"#, "Name: <unknown>, Key: x, Index: 1.  Number of float values != expected.  values size: 1 but output shape: [3]"),
        ("-", "x:f32[?,10]", r#"{"examples": [{"x": [1, 2, 3]}]}"#, "Name: <unknown>, Key: x, Index: 0.  Number of float values != expected.  values size: 3 but output shape: [10]"),
        ("-", "x:f32[?,?,2]", r#"{"examples": [{"x": [1, 2, 3]}]}"#, "Name: <unknown>, Key: x, Index: 0.  Number of float values != expected.  values size: 3 but output shape: [1,2]"),
        ("-", "x:f32[]", r#"{"examples": [{"x": 1}]}"#, r#"input "x": shape [1] does not fit []"#),
        ("-", "x:f32[1,1]", r#"{"examples": [{"x": 1}, {"x": 2}]}"#, r#"input "x": shape [2, 1] does not fit [1, 1]"#),
        // Names.
        ("-", "x:f32[?]", r#"{"examples": [{"x": 1, "more": [[null]]}]}"#, "1: x f32[1] [1.0]"),
        ("-", "x:f32[?]", r#"{"examples": [{"x": 1, "x": 2}]}"#, "1: x f32[1] [2.0]"),
        ("-", "x:f32[?]", r#"{"examples": [{"X": 1}]}"#, "Name: <unknown>, Feature: x (data type: float) is required but could not be found."),
        ("-", "x:f32[?]", r#"{"examples": [{"x": []}]}"#, "Name: <unknown>, Feature: x (data type: float) is required but could not be found."),
    ];
    for (test, inputs, body, expected) in cases {
        assert_eq!(check(inputs, body), *expected, "{test}: {body} for {inputs}");
    }
}
