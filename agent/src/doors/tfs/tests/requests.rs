use super::*;
use crate::doors::tfs::request::{Form, read};

fn check(inputs: &str, body: &str) -> String {
    match read(&ports(inputs), body.as_bytes()) {
        Ok((Form::Row, tensors)) => format!("rows: {}", all_written(&tensors)),
        Ok((Form::Column, tensors)) => format!("columns: {}", all_written(&tensors)),
        Err(error) => error,
    }
}

/// The test of TF Serving's, the ports, the body, what comes of it.
type Case = (&'static str, &'static str, &'static str, &'static str);

fn hold(cases: &[Case], holds: impl Fn(&str, &str) -> bool) {
    for (test, inputs, body, expected) in cases {
        let found = check(inputs, body);
        assert!(holds(&found, expected), "{test}: {body} for {inputs}\n   found: {found}\nexpected: {expected}");
    }
}

#[test]
fn what_tf_serving_takes() {
    const I: &str = "default:i32[?,2]";
    const MANY: &str = "int_tensor:i32[?,3,2] str_tensor:string[?,2] float_tensor:f32[?,2] dbl_tensor:f64[?,1]";
    #[rustfmt::skip]
    let cases: &[Case] = &[
        ("J.SingleUnnamedTensor", I, r#"{"instances": [[1,2],[3,4],[5,6]]}"#, "rows: default i32[3,2] [[1,2],[3,4],[5,6]]"),
        ("J.MixedInputForFloatTensor", "d:f32[?]", r#"{"instances": [1, 2.0, 3, 4, 5.003, 0.007, 0.0]}"#, "rows: d f32[7] [1.0,2.0,3.0,4.0,5.003,0.007,0.0]"),
        ("J.MixedInputForDoubleTensor", "d:f64[?]", r#"{"instances": [1.0, 2, 3, 4, 0.662, 0, 0.0]}"#, "rows: d f64[7] [1.0,2.0,3.0,4.0,0.662,0.0,0.0]"),
        ("J.FloatTensorWithPrecisionLoss", "d:f32[?]", r#"{"instances": [1435774380]}"#, "rows: d f32[1] [1435774300.0]"),
        ("J.FloatTensorWithPrecisionLoss", "d:f32[?]", r#"{"instances": [1435774380.0]}"#, "rows: d f32[1] [1435774300.0]"),
        ("J.FloatTensorThatExceedsMaxReturnsInf", "d:f32[?]", r#"{"instances": [1.7976931348623157e+308]}"#, "rows: d f32[1] [Infinity]"),
        ("J.FloatTensorThatExceedsMaxReturnsInf", "d:f32[?]", r#"{"instances": [-1.7976931348623157e+308]}"#, "rows: d f32[1] [-Infinity]"),
        ("J.FloatTensorThatExceedsMinReturnsZero", "d:f32[?]", r#"{"instances": [2.2250738585072014e-308]}"#, "rows: d f32[1] [0.0]"),
        ("J.FloatTensorThatExceedsMinReturnsZero", "d:f32[?]", r#"{"instances": [-2.2250738585072014e-308]}"#, "rows: d f32[1] [-0.0]"),
        ("J.SingleUnnamedTensorWithSignature", I, r#"{"signature_name": "serving_default", "instances": [[1,2]]}"#, "rows: default i32[1,2] [[1,2]]"),
        ("J.TensorFromNonNullTerminatedBuffer", I, r#"{"instances": [[1,2],[3,4],[5,6]]}X"#, "rows: default i32[3,2] [[1,2],[3,4],[5,6]]"),
        ("J.SingleUnnamedTensorBase64Scalars", "d:string[?]", r#"{"instances": [{"b64": "aGVsbG8="}, {"b64": "d29ybGQ="}]}"#, r#"rows: d string[2] ["hello","world"]"#),
        ("J.SingleUnnamedTensorBase64Lists", "d:string[?,1]", r#"{"instances": [[{"b64": "aGVsbG8="}], [{"b64": "d29ybGQ="}]]}"#, r#"rows: d string[2,1] [["hello"],["world"]]"#),
        ("J.SingleNamedTensorBase64", "d:string[?,2,1]", r#"{"instances": [{"d": [[{"b64": "aGVsbG8="}], [{"b64": "d29ybGQ="}]]}]}"#, r#"rows: d string[1,2,1] [[["hello"],["world"]]]"#),
        ("J.MultipleNamedTensor", MANY,
            r#"{"instances": [
                {"int_tensor": [[1,2],[3,4],[5,6]], "str_tensor": ["foo", "bar"], "float_tensor": [1.0, NaN], "dbl_tensor": [NaN]},
                {"int_tensor": [[7,8],[9,0],[1,2]], "str_tensor": ["baz", "bat"], "float_tensor": [2.0, Infinity], "dbl_tensor": [2.0]}
            ]}"#,
            r#"rows: int_tensor i32[2,3,2] [[[1,2],[3,4],[5,6]],[[7,8],[9,0],[1,2]]]; str_tensor string[2,2] [["foo","bar"],["baz","bat"]]; float_tensor f32[2,2] [[1.0,NaN],[2.0,Infinity]]; dbl_tensor f64[2,1] [[NaN],[2.0]]"#),
        ("J.SingleUnnamedTensorColumnarFormat", "t:i32[?,3,2]", r#"{"inputs": {"t": [[[1,2],[3,4],[5,6]]]}}"#, "columns: t i32[1,3,2] [[[1,2],[3,4],[5,6]]]"),
        ("J.SingleUnnamedTensorColumnarFormat", "t:i32[?,3,2]", r#"{"inputs": [[[1,2],[3,4],[5,6]]]}"#, "columns: t i32[1,3,2] [[[1,2],[3,4],[5,6]]]"),
        ("J.MultipleNamedTensorColumnarFormat", "int_tensor:i32[1,3,2] str_tensor:string[?] bin_tensor:string[]",
            r#"{"inputs": {"int_tensor": [[[1,2],[3,4],[5,6]]], "str_tensor": ["foo", "bar"], "bin_tensor": {"b64": "aGVsbG8="}}}"#,
            r#"columns: int_tensor i32[1,3,2] [[[1,2],[3,4],[5,6]]]; str_tensor string[2] ["foo","bar"]; bin_tensor string[] "hello""#),
        ("H.Predict", "x:f32[?,2]", r#"{"instances": [[1.0, 2.0], [3.0, 4.0]]}"#, "rows: x f32[2,2] [[1.0,2.0],[3.0,4.0]]"),
        ("H.Predict", "x:f32[?]", r#"{"signature_name": "serving_default", "inputs": [3.0, 4.0]}"#, "columns: x f32[2] [3.0,4.0]"),
        // Where the keys stand, and which ones.
        ("-", "x:f32[?]", r#"{"instances": [1], "signature_name": "serving_default"}"#, "rows: x f32[1] [1.0]"),
        ("-", "x:f32[?]", r#"{"signature_name": "", "instances": [1]}"#, "rows: x f32[1] [1.0]"),
        ("-", "x:f32[?]", r#"{"ids": {"a": [{}]}, "instances": [1], "more": "]"}"#, "rows: x f32[1] [1.0]"),
        ("-", "x:f32[?]", r#"{"instances": [1], "instances": ["second"]}"#, "rows: x f32[1] [1.0]"),
        ("-", "x:f32[?]", r#"{"inst\u0061nces": [1]}"#, "rows: x f32[1] [1.0]"),
        ("-", "x:f32[?] y:f32[?]", r#"{"instances": [{"y": 1, "x": 2}, {"x": 3, "y": 4}]}"#, "rows: x f32[2] [2.0,3.0]; y f32[2] [1.0,4.0]"),
        ("-", "x:f32[?] y:f32[?]", r#"{"inputs": {"z": null, "y": [1], "x": [2], "x": "second"}}"#, "columns: x f32[1] [2.0]; y f32[1] [1.0]"),
        // Which JSON is which element.
        ("-", "x:f32[?]", r#"{"instances": [NaN, Infinity, -Infinity]}"#, "rows: x f32[3] [NaN,Infinity,-Infinity]"),
        ("-", "x:f32[?]", r#"{"instances": [-NaN, Inf, -Inf, 1e-400, 123456789012345678901234567890]}"#, "rows: x f32[5] [NaN,Infinity,-Infinity,0.0,1.2345679e29]"),
        ("-", "x:string[?]", r#"{"instances": ["-NaN, Inf \"Inf\" \\", "ü\n\u00fc\ud83d\ude00"]}"#, r#"rows: x string[2] ["-NaN, Inf \"Inf\" \\","ü\nü😀"]"#),
        ("-", "x:bool[?]", r#"{"instances": [true, false]}"#, "rows: x bool[2] [true,false]"),
        ("-", "x:i8[?]", r#"{"instances": [-128, 127, -0]}"#, "rows: x i8[3] [-128,127,0]"),
        ("-", "x:u8[?]", r#"{"instances": [0, 255]}"#, "rows: x u8[2] [0,255]"),
        ("-", "x:u16[?]", r#"{"instances": [65535]}"#, "rows: x u16[1] [65535]"),
        ("-", "x:u32[?]", r#"{"instances": [4294967295]}"#, "rows: x u32[1] [4294967295]"),
        ("-", "x:i64[?]", r#"{"instances": [9223372036854775807, -9223372036854775808]}"#, "rows: x i64[2] [9223372036854775807,-9223372036854775808]"),
        ("-", "x:u64[?]", r#"{"instances": [18446744073709551615]}"#, "rows: x u64[1] [18446744073709551615]"),
        ("-", "x:f16[?]", r#"{"instances": [0.5, 65504, 1e9]}"#, "rows: x f16[3] [0.5,65504.0,Infinity]"),
        ("-", "x:string[?]", r#"{"instances": [{"b64": "aGVs\nbG8"}, "", {"b64": ""}]}"#, r#"rows: x string[3] ["hello","",""]"#),
        ("-", "b64:string[?]", r#"{"instances": [{"b64": "aGVsbG8="}]}"#, r#"rows: b64 string[1] ["hello"]"#),
        ("-", "b64:f32[?]", r#"{"instances": [{"b64": 1.5}]}"#, "rows: b64 f32[1] [1.5]"),
        ("-", "b64:string[?] x:f32[?]", r#"{"instances": [{"b64": "aGVsbG8=", "x": 1}]}"#, r#"rows: b64 string[1] ["aGVsbG8="]; x f32[1] [1.0]"#),
        // Shapes from none to many dimensions.
        ("-", "x:f32[]", r#"{"inputs": 1.5}"#, "columns: x f32[] 1.5"),
        ("-", "x:f32[]", r#"{"inputs": {"x": 1.5}}"#, "columns: x f32[] 1.5"),
        ("-", "x:f32[?,2]", r#"{"inputs": [[1, 2]]}"#, "columns: x f32[1,2] [[1.0,2.0]]"),
        ("-", "x:f32[?]", r#"{"inputs": []}"#, "columns: x f32[0] []"),
        ("-", "x:f32[?,0]", r#"{"instances": [[], []]}"#, "rows: x f32[2,0] [[],[]]"),
        ("-", "x:f32[1,1,1,1,1,1,1,1]", r#"{"inputs": [[[[[[[[1]]]]]]]]}"#, "columns: x f32[1,1,1,1,1,1,1,1] [[[[[[[[1.0]]]]]]]]"),
        ("-", "x:f32[?] sr:i64[]", r#"{"inputs": {"x": [1, 2], "sr": 16000}}"#, "columns: x f32[2] [1.0,2.0]; sr i64[] 16000"),
    ];
    hold(cases, |found, expected| found == expected);
}

#[test]
fn what_tf_serving_refuses() {
    const I: &str = "default:i32[?,2]";
    const TWO: &str = "int_tensor:i32[?,3,2] str_tensor:string[?,2]";
    #[rustfmt::skip]
    let cases: &[Case] = &[
        ("J.SingleUnnamedTensorErrors", I, "", "JSON Parse error: The document is empty"),
        ("J.SingleUnnamedTensorErrors", I, r#"{"signature_name": 5, "instances": [[1,2],[3,4],[5,6,7]]}"#, r#"JSON Value: {"signature_name": 5, "instances": [[1,2],[3,4],[5,6,7]]} not formatted correctly. 'signature_name' key must be a string value."#),
        ("J.SingleUnnamedTensorErrors", I, r#"{"instances": [[1,2],[3,4],[5,6,7]], "inputs": [[1,2],[3,4],[5,6,7]]}"#, "Not formatted correctly expecting only one of 'inputs' or 'instances' keys to exist "),
        ("J.SingleUnnamedTensorErrors", I, r#"{"instances": [[1,2],[3,4],[5,6,7]]}"#, "Failed to process element: 2 of 'instances' list. Error: INVALID_ARGUMENT: Expecting tensor size: 2 but got: 3"),
        ("J.SingleUnnamedTensorErrors", I, r#"{"instances": [[1,2],[3,4],[[5,6]]]}"#, "Expecting shape [2] but got: [1,2]"),
        ("J.SingleUnnamedTensorErrors", "d:i32[?]", r#"{"instances": [1, [1]]}"#, "Expecting shape [] but got: [1]"),
        ("J.SingleUnnamedTensorErrors", I, r#"{"instances": [[1,2],["a", "b"]]}"#, r#"JSON Value: "a" Type: String is not of expected type: int32"#),
        ("J.MultipleNamedTensorErrors", TWO, r#"{"instances": [{"int_tensor": [[1,2],[3,4],[5,6]], "str_tensor": ["foo", "bar"]}, {"int_tensor": [[[7,8],[9,0],[1,2]]], "str_tensor": ["baz", "bat"]}]}"#, "Failed to process element: 1 key: int_tensor of 'instances' list. Error: INVALID_ARGUMENT: Expecting shape [3,2] but got: [1,3,2]"),
        ("J.MultipleNamedTensorErrors", TWO, r#"{"instances": [{"int_tensor": [[1,2],[3,4],[5,6],[7,8]], "str_tensor": ["foo", "bar"]}, {"int_tensor": [[7,8],[9,0],[1,2]], "str_tensor": ["baz", "bat"]}]}"#, "Expecting tensor size: 8 but got: 6"),
        ("J.MultipleNamedTensorErrors", TWO, r#"{"instances": [{"int_tensor": [[1,2],[3,4],[5,6]], "str_tensor": ["foo", "bar"]}, [1, 20, 30]]}"#, "Expecting object but got list at item 1 of input list"),
        ("J.MultipleNamedTensorErrors", "str_tensor:string[?,2]", r#"{"instances": [["baz", "bar"], {"str_tensor": ["baz", "bat"]}]}"#, "Expecting value/list but got object at item 1 of input list"),
        ("H.PredictRequestErrors", "x:f32[?]", "instances = [1, 2]", "JSON Parse error: Invalid value. at offset: 0"),
        ("H.PredictRequestErrors", "x:f32[?]", r#"{"instances": ["x", "y"]}"#, r#"Failed to process element: 0 of 'instances' list. Error: INVALID_ARGUMENT: JSON Value: "x" Type: String is not of expected type: float"#),
        ("H.PredictRequestErrors", "x:f32[?]", r#"{"signature_name": 100}"#, "'signature_name' key must be a string value."),
        // The whole.
        ("-", I, "  \n", "JSON Parse error: The document is empty. at offset: 3"),
        ("-", I, "[1, 2]", "JSON Value: [1, 2] Is not object"),
        ("-", I, "3", "JSON Value: 3 Is not object"),
        ("-", I, "{}", "Missing 'inputs' or 'instances' key"),
        ("-", I, r#"{"Instances": [[1,2]]}"#, "Missing 'inputs' or 'instances' key"),
        ("-", I, r#"{"signature_name": "other", "instances": [[1,2]]}"#, r#"Serving signature name: "other" not found in signature def"#),
        ("-", I, r#"{"instances": 0, "signature_name": "other"}"#, r#"Serving signature name: "other" not found in signature def"#),
        ("-", "", r#"{"instances": [1]}"#, "Failed to get input map for signature: DEFAULT"),
        ("-", I, r#"{"instances": []}"#, r#"JSON Value: {"instances": []} No values in 'instances' array"#),
        ("-", I, r#"{"instances": {"default": [1,2]}}"#, r#"JSON Value: {"instances": {"default": [1,2]}} Expecting 'instances' to be an list/array"#),
        // What is no JSON.
        ("-", I, "{", "JSON Parse error: Missing a comma or } after an object member. at offset: 1"),
        ("-", I, "{1: 2}", "JSON Parse error: Missing a name for object member. at offset: 1"),
        ("-", I, r#"{"instances" [1]}"#, "JSON Parse error: Missing a colon after a name of object member. at offset: 13"),
        ("-", I, r#"{"instances": [[1,2] [3,4]]}"#, "JSON Parse error: Missing a comma or ] after an array element. at offset: 21"),
        ("-", I, r#"{"instances": [[1,2]"#, "JSON Parse error: Missing a comma or ] after an array element. at offset: 20"),
        ("-", I, r#"{"instances": [[1,2,]]}"#, "JSON Parse error: Invalid value. at offset: 20"),
        ("-", I, r#"{"instances": [[01,2]]}"#, "JSON Parse error: Invalid value. at offset: "),
        ("-", I, r#"{"instances": [[nil]]}"#, "JSON Parse error: Invalid value. at offset: "),
        ("-", "x:string[?]", r#"{"instances": ["a]}"#, "JSON Parse error: Missing a closing quotation mark in string. at offset: "),
        ("-", "x:string[?]", r#"{"instances": ["\x"]}"#, "JSON Parse error: Invalid escape character in string. at offset: "),
        ("-", "x:f32[?]", r#"{"instances": [1e999]}"#, "JSON Parse error: Number too big to be stored in double. at offset: "),
        // Elements.
        ("-", "x:f32[?]", r#"{"instances": [true]}"#, "JSON Value: true Type: True is not of expected type: float"),
        ("-", "x:f32[?]", r#"{"instances": [null]}"#, "JSON Value: null Type: Null is not of expected type: float"),
        ("-", "x:f32[?,1]", r#"{"instances": [[{"a": 1}]]}"#, r#"JSON Value: {"a": 1} Type: Object is not of expected type: float"#),
        ("-", "x:f32[?]", r#"{"instances": [{"b64": "aGVsbG8="}]}"#, r#"JSON Value: {"b64": "aGVsbG8="} Type: Object is not of expected type: float"#),
        ("-", "x:i32[?]", r#"{"instances": [1.0]}"#, "JSON Value: 1.0 Type: Number is not of expected type: int32"),
        ("-", "x:i32[?]", r#"{"instances": [1e2]}"#, "JSON Value: 1e2 Type: Number is not of expected type: int32"),
        ("-", "x:i32[?]", r#"{"instances": [NaN]}"#, "JSON Value: NaN Type: Number is not of expected type: int32"),
        ("-", "x:i32[?]", r#"{"instances": [2147483648]}"#, "JSON Value: 2147483648 Type: Number is not of expected type: int32"),
        ("-", "x:i64[?]", r#"{"instances": [9223372036854775808]}"#, "JSON Value: 9223372036854775808 Type: Number is not of expected type: int64"),
        ("-", "x:u64[?]", r#"{"instances": [-1]}"#, "JSON Value: -1 Type: Number is not of expected type: uint64"),
        ("-", "x:u8[?]", r#"{"instances": [256]}"#, "JSON Value: 256 Type: Number is not of expected type: uint8"),
        ("-", "x:bool[?]", r#"{"instances": [1]}"#, "JSON Value: 1 Type: Number is not of expected type: bool"),
        ("-", "x:string[?]", r#"{"instances": [1]}"#, "JSON Value: 1 Type: Number is not of expected type: string"),
        ("-", "x:string[?,1]", r#"{"instances": [[{"b64": 1}]]}"#, r#"JSON Value: {"b64": 1} not formatted correctly for base64 data"#),
        ("-", "x:string[?]", r#"{"instances": [{"b64": "!"}]}"#, "Unable to base64 decode"),
        // Lists.
        ("-", "x:f32[?,2]", r#"{"inputs": [[1,2],[3]]}"#, "Encountered list at unexpected size: 1 at level: 1 expected size: 2"),
        ("-", "x:f32[?,2]", r#"{"inputs": [[1,2],[3,4,5]]}"#, "Encountered list at unexpected size: 3 at level: 1 expected size: 2"),
        ("-", "x:f32[?,2]", r#"{"inputs": [[1,2],3]}"#, "JSON Value: 3 found at incorrect level: 2 in the JSON DOM. Expected at level: 2"),
        ("-", "x:f32[?,2]", r#"{"inputs": [[1,[2]]]}"#, "Encountered list at unexpected level: 2 expected < 2"),
        ("-", "x:f32[?,2]", r#"{"inputs": [[],[3]]}"#, "Encountered list at unexpected size: 1 at level: 1 expected size: 0"),
        ("-", "x:f32[?,2]", r#"{"inputs": [[1,2,3]]}"#, r#"input "x": shape [1, 3] does not fit [?, 2]"#),
        ("-", "x:f32[?,2]", r#"{"inputs": [1,2]}"#, r#"input "x": shape [2] does not fit [?, 2]"#),
        ("-", "x:f32[?,2]", r#"{"inputs": [[[[[[[[[[[[[[[[[1]]]]]]]]]]]]]]]]]}"#, "more than 16 dimensions"),
        // Names.
        ("-", TWO, r#"{"instances": [[1,2]]}"#, "instances is a plain list, but expecting list of objects as multiple input tensors required as per tensorinfo_map"),
        ("-", TWO, r#"{"inputs": [[1,2]]}"#, "inputs is a plain value/list, but expecting an object as multiple input tensors required as per tensorinfo_map"),
        ("-", "a:f32[?] b:f32[?]", r#"{"instances": [{"a": 1, "c": 2}]}"#, "Failed to process element: 0 key: c of 'instances' list. Error: INVALID_ARGUMENT: JSON object: does not have named input: c"),
        ("-", "b:f32[?] a:f32[?]", r#"{"instances": [{"a": 1, "b": 2}, {"a": 1}]}"#, r#"Failed to process element: 1 of 'instances' list. JSON object: {"a": 1} keys must be equal to: a,b"#),
        ("-", "a:f32[?]", r#"{"instances": [{"a": 1, "a": 2}]}"#, r#"JSON object: {"a": 1, "a": 2} keys must be equal to: a"#),
        ("-", "a:f32[?] b:f32[?]", r#"{"inputs": {"a": [1]}}"#, "Missing named input: b in 'inputs' object."),
        ("-", "a:f32[?] b:f32[?]", r#"{"inputs": {"a": [1], "b": [1, 2]}}"#, "input tensors must have equal 0th-dimension size"),
    ];
    hold(cases, |found, expected| found.contains(expected));
}

/// `J.DeeplyNestedWellFormed` and `J.DeeplyNestedMalformed`.
#[test]
fn depth_does_not_matter_where_nobody_looks() {
    let deep = "[".repeat(500_000) + &"]".repeat(500_000);
    let passed_over = format!(r#"{{"instances":[1], "nested":{deep}}}"#);
    assert_eq!(check("x:i32[?]", &passed_over), "rows: x i32[1] [1]");
    let signature = check("x:i32[?]", &format!(r#"{{"signature_name":{deep}}}"#));
    assert!(signature.contains("key must be a string value"), "{signature}");
    let input = check("x:i32[?]", &format!(r#"{{"inputs":{deep}}}"#));
    assert_eq!(input, "more than 16 dimensions");
}

#[test]
fn a_long_value_is_told_shortened() {
    let body = format!(r#"{{"instances": ["{}"]}}"#, "ü".repeat(1000));
    let error = check("x:f32[?]", &body);
    assert!(error.len() < 400 && error.ends_with("ü Type: String is not of expected type: float"), "{error}");
}
