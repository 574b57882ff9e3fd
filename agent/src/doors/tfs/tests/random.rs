use proptest::prelude::*;

use super::*;
use crate::doors::tfs::answer::prediction;
use crate::doors::tfs::request::{Form, read};
use crate::doors::tfs::{answer, examples};

const DTYPES: [&str; 13] =
    ["bool", "u8", "u16", "u32", "u64", "i8", "i16", "i32", "i64", "f16", "f32", "f64", "string"];

/// Tensors of one batch, of any types and shapes, with the ports that take them. No list is empty: JSON
/// does not tell what would be in it.
fn batch() -> impl Strategy<Value = (Vec<Port>, Vec<Tensor>)> {
    let output = (0..DTYPES.len(), prop::collection::vec(1usize..4, 0..4), any::<[u8; 32]>());
    (1usize..4, prop::collection::vec(output, 1..4)).prop_map(|(rows, outputs)| {
        let tensor = |(at, (dtype, inner, seed)): (usize, (usize, Vec<usize>, [u8; 32]))| {
            let mut port = port(&format!("input {at}:{}[?]", DTYPES[dtype]).replace(' ', "_"));
            port.shape.extend(inner.iter().map(|_| None));
            let shape: Vec<usize> = std::iter::once(rows).chain(inner).collect();
            let mut bytes = seed.iter().copied().cycle();
            let mut data = vec![];
            for _ in 0..shape.iter().product() {
                element(port.dtype, &mut bytes, &mut data);
            }
            let tensor = Tensor::for_port(&port, shape, data.into()).expect("a tensor");
            (port, tensor)
        };
        outputs.into_iter().enumerate().map(tensor).unzip()
    })
}

fn element(dtype: Dtype, bytes: &mut impl Iterator<Item = u8>, data: &mut Vec<u8>) {
    let mut next = |count: usize| bytes.by_ref().take(count).collect::<Vec<u8>>();
    match dtype {
        Dtype::Bool => data.push(next(1)[0] & 1),
        Dtype::String => {
            let text: String = next(3).into_iter().map(char::from).collect();
            crate::tensor::push_string(data, text.as_bytes());
        }
        Dtype::F16 | Dtype::F32 | Dtype::F64 => {
            let mut float = next(dtype.size_bytes().unwrap_or(1));
            // With one bit of the exponent cleared, this is a number.
            *float.last_mut().expect("bytes") &= 0xbf;
            data.extend(float);
        }
        other => data.extend(next(other.size_bytes().unwrap_or(1))),
    }
}

proptest! {
    #[test]
    fn what_is_written_as_columns_is_read_as_inputs((ports, tensors) in batch()) {
        let body = prediction(Form::Column, &tensors).expect("a body");
        let body = [&b"{\"inputs\""[..], &body[b"{\"outputs\"".len()..]].concat();
        let (form, read) = read(&ports, &body).expect("tensors");
        prop_assert_eq!(form, Form::Column);
        prop_assert_eq!(read, tensors);
    }

    #[test]
    fn what_is_written_as_rows_is_read_as_instances((ports, tensors) in batch()) {
        let body = prediction(Form::Row, &tensors).expect("a body");
        let body = [&b"{\"instances\""[..], &body[b"{\"predictions\"".len()..]].concat();
        let (form, read) = read(&ports, &body).expect("tensors");
        prop_assert_eq!(form, Form::Row);
        prop_assert_eq!(read, tensors);
    }

    #[test]
    fn no_bytes_do_harm(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        harmless(&bytes);
    }

    /// Bytes that are nearly requests.
    #[test]
    fn no_mistake_does_harm(
        parts in prop::collection::vec(prop::sample::select(PARTS), 0..40),
        cut in 0usize..200,
    ) {
        let text = parts.concat();
        harmless(text.as_bytes());
        harmless(&text.as_bytes()[..cut.min(text.len())]);
        harmless(format!("{{\"instances\":[{text}").as_bytes());
        harmless(format!("{{\"inputs\":{{\"x\":[{text}").as_bytes());
        harmless(format!("{{\"examples\":[{{\"x\":{text}").as_bytes());
    }
}

const PARTS: &[&str] = &[
    "{",
    "}",
    "[",
    "]",
    ",",
    ":",
    "\"",
    "\"instances\":",
    "\"inputs\":",
    "\"examples\":",
    "\"context\":",
    "\"signature_name\":",
    "\"x\":",
    "\"y\":",
    "\"b64\":",
    "\"aGk=\"",
    "1",
    "-",
    "0",
    "1.5",
    ".",
    "e9",
    "1e999",
    "NaN",
    "Inf",
    "-Inf",
    "-NaN",
    "Infinity",
    "null",
    "true",
    "\\u00",
    "\\ud83d",
    "\u{0}",
    "ü",
    " ",
    "\n",
    "[[1,2],[3,4]]",
];

fn harmless(body: &[u8]) {
    for inputs in ["x:f32[?]", "x:i64[?,2]", "x:string[?]", "x:f32[?,2] y:string[?]", "x:f64[]", "x:bool[1] y:f16[?,?]"]
    {
        let ports = ports(inputs);
        for tensor in read(&ports, body).map(|(_, tensors)| tensors).unwrap_or_default() {
            assert!(tensor.is_sound(), "{tensor:?}");
        }
        if let Ok((tensors, count)) = examples::read(&ports, body) {
            assert!(tensors.iter().all(Tensor::is_sound), "{tensors:?}");
            let _ = (answer::classification(&tensors, count), answer::regression(&tensors, count));
        }
    }
}
