//! TF Serving's own tests as tables: where a case is one of theirs, the test's name stands before it
//! (`J` is `JsontensorTest` in `util/json_tensor_test.cc`, `R` `ClassifyRegressRequestTest` and
//! `ClassifyRegressnResultTest` there, `H` `HttpRestApiHandlerTest` in
//! `model_servers/http_rest_api_handler_test.cc`); `-` marks what their code says beside their tests.

mod answers;
mod examples;
mod handler;
mod random;
mod requests;

use muster_shared::manifest::{Dtype, Port};

use crate::json;
use crate::tensor::Tensor;

/// Ports as they are written in the tables: `x:f32[?,2] y:string[]`.
fn ports(text: &str) -> Vec<Port> {
    text.split_whitespace().map(port).collect()
}

fn port(text: &str) -> Port {
    let (name, rest) = text.split_once(':').expect("a name");
    let (dtype, shape) = rest.trim_end_matches(']').split_once('[').expect("a shape");
    let dtype: Dtype = serde_json::from_value(dtype.into()).expect("a type");
    let size = |size: &str| size.parse().ok();
    let shape = shape.split(',').filter(|size| !size.is_empty()).map(size).collect();
    Port { name: name.into(), dtype, shape }
}

/// A tensor from its port and its JSON, `NaN` included.
fn tensor(port: &str, json: &str) -> Tensor {
    let port = self::port(port);
    let mut reader = json::reader(json.as_bytes());
    let first = reader.peek().expect("a value");
    let read = json::read_elements(&mut reader, first, port.dtype).expect("elements");
    Tensor::for_port(&port, read.shape, read.data.into()).expect("a tensor")
}

/// A tensor as it is written in the tables: `x f32[1,2] [[1.0,2.0]]`.
fn written(tensor: &Tensor) -> String {
    assert!(tensor.is_sound(), "{tensor:?}");
    let mut json = vec![];
    tensor.write_json(&mut json);
    let json = String::from_utf8(json).expect("a text");
    format!("{} {}{} {json}", tensor.name, tensor.dtype.name(), super::request::list(&tensor.shape))
}

fn all_written(tensors: &[Tensor]) -> String {
    tensors.iter().map(written).collect::<Vec<_>>().join("; ")
}
