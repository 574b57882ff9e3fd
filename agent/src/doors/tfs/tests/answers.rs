use super::*;
use crate::doors::tfs::answer::{classification, prediction, regression};
use crate::doors::tfs::request::Form;

fn text(body: Result<Vec<u8>, String>) -> String {
    body.map_or_else(|error| format!("error: {error}"), |body| String::from_utf8(body).expect("a text"))
}

type Outputs = &'static [(&'static str, &'static str)];

fn tensors(outputs: Outputs) -> Vec<Tensor> {
    outputs.iter().map(|(port, json)| tensor(port, json)).collect()
}

#[test]
fn predictions_are_laid_out_as_tf_serving_does() {
    const INTS: (&str, &str) = ("int_tensor:i32[2,3,2]", "[[[1,2],[3,4],[5,6]],[[7,8],[9,0],[1,2]]]");
    const BYTES: (&str, &str) = ("str_tensor_bytes:string[2,2]", r#"[["hello","world"],["tf","serving"]]"#);
    const MANY: Outputs = &[
        ("double_scalar_tensor:f64[2]", "[8,9]"),
        ("float_tensor:f32[2,1]", "[[1],[2]]"),
        INTS,
        ("str_tensor:string[2,2]", r#"[["foo","bar"],["baz","bat"]]"#),
        BYTES,
    ];
    #[rustfmt::skip]
    let cases: &[(&str, Form, Outputs, &str)] = &[
        ("J.FromJsonSingleTensor", Form::Row, &[INTS], r#"{"predictions":[[[1,2],[3,4],[5,6]],[[7,8],[9,0],[1,2]]]}"#),
        ("J.FromJsonSingleTensor", Form::Column, &[INTS], r#"{"outputs":[[[1,2],[3,4],[5,6]],[[7,8],[9,0],[1,2]]]}"#),
        ("J.FromJsonSingleScalarTensor", Form::Row, &[("y:i32[5]", "[1,2,3,4,5]")], r#"{"predictions":[1,2,3,4,5]}"#),
        ("J.FromJsonSingleScalarTensor", Form::Column, &[("y:i32[5]", "[1,2,3,4,5]")], r#"{"outputs":[1,2,3,4,5]}"#),
        ("J.FromJsonSingleBytesTensor", Form::Row, &[BYTES], r#"{"predictions":[[{"b64":"aGVsbG8="},{"b64":"d29ybGQ="}],[{"b64":"dGY="},{"b64":"c2VydmluZw=="}]]}"#),
        // Theirs are 9e+06 and 3e-05: the same numbers.
        ("J.FromJsonSingleFloatTensorSixDigitPrecision", Form::Row, &[("y:f32[2,3]", "[[9000000,999999,0.5],[0.0003,0.00003,555557.5]]")], r#"{"predictions":[[9000000.0,999999.0,0.5],[0.0003,0.00003,555557.5]]}"#),
        ("J.FromJsonSingleFloatTensorNonFinite", Form::Row, &[("y:f32[2,2]", "[[NaN,Infinity],[3,-Infinity]]")], r#"{"predictions":[[NaN,Infinity],[3.0,-Infinity]]}"#),
        ("J.FromJsonSingleTensorErrors", Form::Row, &[], "error: Cannot convert empty tensor map to JSON"),
        ("J.FromJsonSingleTensorErrors", Form::Row, &[("y:i32[]", "1")], "error: Tensor name: y has no shape information "),
        ("J.FromJsonMultipleNamedTensors", Form::Row, MANY, r#"{"predictions":[{"double_scalar_tensor":8.0,"float_tensor":[1.0],"int_tensor":[[1,2],[3,4],[5,6]],"str_tensor":["foo","bar"],"str_tensor_bytes":[{"b64":"aGVsbG8="},{"b64":"d29ybGQ="}]},{"double_scalar_tensor":9.0,"float_tensor":[2.0],"int_tensor":[[7,8],[9,0],[1,2]],"str_tensor":["baz","bat"],"str_tensor_bytes":[{"b64":"dGY="},{"b64":"c2VydmluZw=="}]}]}"#),
        ("J.FromJsonMultipleNamedTensors", Form::Column, MANY, r#"{"outputs":{"double_scalar_tensor":[8.0,9.0],"float_tensor":[[1.0],[2.0]],"int_tensor":[[[1,2],[3,4],[5,6]],[[7,8],[9,0],[1,2]]],"str_tensor":[["foo","bar"],["baz","bat"]],"str_tensor_bytes":[[{"b64":"aGVsbG8="},{"b64":"d29ybGQ="}],[{"b64":"dGY="},{"b64":"c2VydmluZw=="}]]}}"#),
        ("J.FromJsonMultipleNamedTensorsErrors", Form::Row, &[("a:i32[2,3]", "[[1,2,3],[4,5,6]]"), ("b:string[1,3]", r#"[["foo","bar","baz"]]"#)], "error: Tensor name: b has inconsistent batch size: 1 expecting: 2"),
        ("J.FromJsonSingleZeroBatchTensor", Form::Row, &[("y:i32[0]", "[]")], r#"{"predictions":[]}"#),
        ("J.FromJsonMultipleZeroBatchTensors", Form::Row, &[("a:string[0]", "[]"), ("b:f32[0]", "[]")], r#"{"predictions":[]}"#),
        ("J.FromJsonMultipleZeroBatchTensorsErrors", Form::Row, &[("a:i32[0]", "[]"), ("b:string[1,2]", r#"[["foo","bar"]]"#)], "error: Tensor name: b has inconsistent batch size: 1 expecting: 0"),
        ("H.Predict", Form::Row, &[("y:f32[2,2]", "[[2.5,3.0],[3.5,4.0]]")], r#"{"predictions":[[2.5,3.0],[3.5,4.0]]}"#),
        ("H.Predict", Form::Column, &[("y:f32[2]", "[3.5,4.0]")], r#"{"outputs":[3.5,4.0]}"#),
        ("-", Form::Column, &[("y:i32[]", "1")], r#"{"outputs":1}"#),
        ("-", Form::Column, &[("y:f32[]", "1"), ("z:bool[]", "true")], r#"{"outputs":{"y":1.0,"z":true}}"#),
        ("-", Form::Column, &[("y_bytes:string[]", r#""hello""#)], r#"{"outputs":{"b64":"aGVsbG8="}}"#),
        ("-", Form::Column, &[("y_bytes:f32[1]", "[1]")], r#"{"outputs":[1.0]}"#),
        ("-", Form::Row, &[("a\"b:f32[1]", "[1]"), ("c:u64[1]", "[18446744073709551615]")], r#"{"predictions":[{"a\"b":1.0,"c":18446744073709551615}]}"#),
        ("-", Form::Row, &[("y:string[1]", r#"["a\"\n"]"#)], r#"{"predictions":["a\"\n"]}"#),
        ("-", Form::Row, &[("y:f64[2]", "[0.1,1e300]")], r#"{"predictions":[0.1,1e300]}"#),
        ("-", Form::Row, &[("y:f16[2]", "[0.1,2]")], r#"{"predictions":[0.099975586,2.0]}"#),
        ("-", Form::Row, &[("y:i8[1]", "[-1]"), ("z:u8[1]", "[255]"), ("q:bool[1]", "[false]")], r#"{"predictions":[{"y":-1,"z":255,"q":false}]}"#),
    ];
    for (test, form, outputs, expected) in cases {
        assert_eq!(text(prediction(*form, &tensors(outputs))), *expected, "{test}: {outputs:?}");
    }
}

#[test]
fn classifications_are_laid_out_as_tf_serving_does() {
    const CARS: Outputs = &[
        ("classes:string[2,3]", r#"[["car","bike","bus"],["car","bike","bus"]]"#),
        ("scores:f32[2,3]", "[[0.2,0.7,0.1],[0.7,0.1,0.2]]"),
    ];
    const PROBABILITIES: (&str, &str) = ("probabilities:f32[2,2]", "[[0.9,0.1],[0.25,0.75]]");
    #[rustfmt::skip]
    let cases: &[(&str, Outputs, &str)] = &[
        ("R.JsonFromClassificationResult", CARS, r#"{"results":[[["car",0.2],["bike",0.7],["bus",0.1]],[["car",0.7],["bike",0.1],["bus",0.2]]]}"#),
        ("H.Classify", &[("scores:f32[2,1]", "[[12],[7]]")], r#"{"results":[[["",12.0]],[["",7.0]]]}"#),
        // scikit-learn's classifiers, with numbers and with texts for labels.
        ("-", &[("label:i64[2]", "[0,1]"), PROBABILITIES], r#"{"results":[[["",0.9],["",0.1]],[["",0.25],["",0.75]]]}"#),
        ("-", &[("label:string[2]", r#"["no","yes"]"#), PROBABILITIES], r#"{"results":[[["",0.9],["",0.1]],[["",0.25],["",0.75]]]}"#),
        ("-", &[("names:string[2,2]", r#"[["no","yes"],["no","yes"]]"#), PROBABILITIES], r#"{"results":[[["no",0.9],["yes",0.1]],[["no",0.25],["yes",0.75]]]}"#),
        ("-", &[("label:string[2]", r#"["no","yes"]"#)], r#"{"results":[[["no",0.0]],[["yes",0.0]]]}"#),
        ("-", &[("classes:string[2,1]", r#"[["no"],["yes"]]"#)], r#"{"results":[[["no",0.0]],[["yes",0.0]]]}"#),
        ("-", &[("y:f64[2]", "[0.5,NaN]")], r#"{"results":[[["",0.5]],[["",NaN]]]}"#),
        ("-", &[("y:f32[2,0]", "[[],[]]")], r#"{"results":[[],[]]}"#),
        ("-", &[("label:i64[2]", "[0,1]")], "error: Expected classification signature outputs to contain at least one of \"classes\" or \"scores\". Signature was: label"),
        ("-", &[("scores:f32[3,1]", "[[1],[2],[3]]")], "error: Expected scores output batch size of 2. Got: 3"),
        ("-", &[("scores:f32[2,1,1]", "[[[1]],[[2]]]")], "error: Expected Tensor shape: [batch_size num_classes] but got [2,1,1]"),
        ("-", &[("scores:i32[2,1]", "[[1],[2]]")], "error: Expected scores Tensor of DT_FLOAT. Got: DT_INT32"),
        ("-", &[("classes:i64[2,1]", "[[1],[2]]"), PROBABILITIES], "error: Expected classes Tensor of DT_STRING. Got: DT_INT64"),
        ("-", &[("classes:string[2,1]", r#"[["a"],["b"]]"#), PROBABILITIES], "error: Tensors class and score should match in dim_size(1). Got 1 vs. 2"),
        ("-", &[("classes:string[1,2]", r#"[["a","b"]]"#), PROBABILITIES], "error: Expected classes output batch size of 2. Got: 1"),
    ];
    for (test, outputs, expected) in cases {
        assert_eq!(text(classification(&tensors(outputs), 2)), *expected, "{test}: {outputs:?}");
    }
}

#[test]
fn regressions_are_laid_out_as_tf_serving_does() {
    #[rustfmt::skip]
    let cases: &[(&str, Outputs, &str)] = &[
        ("R.JsonFromRegressionResult", &[("y:f32[3]", "[0.2,0.9,1.0]")], r#"{"results":[0.2,0.9,1.0]}"#),
        ("R.JsonFromRegressionResultWithNonFinite", &[("y:f32[3]", "[Infinity,-Infinity,NaN]")], r#"{"results":[Infinity,-Infinity,NaN]}"#),
        ("H.Regress", &[("outputs:f32[3,1]", "[[42],[42],[42]]")], r#"{"results":[42.0,42.0,42.0]}"#),
        ("-", &[("a:f32[3,2]", "[[1,2],[3,4],[5,6]]"), ("b:f64[3,1]", "[[1],[2],[3]]")], r#"{"results":[1.0,2.0,3.0]}"#),
        ("-", &[("label:i64[3]", "[1,2,3]"), ("b:f16[3]", "[1,2,3]")], r#"{"results":[1.0,2.0,3.0]}"#),
        ("-", &[("b:f32[3]", "[1,2,3]"), ("outputs:f32[3]", "[4,5,6]")], r#"{"results":[4.0,5.0,6.0]}"#),
        ("-", &[("y:f32[3,2]", "[[1,2],[3,4],[5,6]]")], "error: Expected output Tensor shape to be either [batch_size] or [batch_size, 1] but got [3,2]"),
        ("-", &[("label:i64[3]", "[1,2,3]"), ("y:f32[3,2]", "[[1,2],[3,4],[5,6]]")], "error: Expected output Tensor shape to be either [batch_size] or [batch_size, 1] but got [3,2]"),
        ("-", &[("y:f32[]", "1")], "error: Expected output Tensor shape to be either [batch_size] or [batch_size, 1] but got []"),
        ("-", &[("y:f32[2]", "[1,2]")], "error: Input batch size did not match output batch size: 3 vs. 2"),
        ("-", &[("y:i64[3]", "[1,2,3]")], "error: Expected output Tensor of DT_FLOAT.  Got: DT_INT64"),
        ("-", &[], "error: Expected one output Tensor."),
    ];
    for (test, outputs, expected) in cases {
        assert_eq!(text(regression(&tensors(outputs), 3)), *expected, "{test}: {outputs:?}");
    }
}
