//! How a model's versions fare and what the model takes and gives: TF Serving's
//! `GetModelStatusResponse` and `GetModelMetadataResponse` in protobuf's JSON form, in which numbers of
//! 64 bits are texts and fields without a value are written, too (`ToJsonString` in
//! `model_servers/http_rest_api_util.cc`).

use muster_shared::Version;
use muster_shared::manifest::{Dtype, Port};
use serde::Serialize;
use serde_json::ser::PrettyFormatter;

use super::request::SIGNATURE;
use crate::table::{Served, VersionEntry, VersionState};

/// The name of a type in TensorFlow's protobuf.
pub fn dtype_name(dtype: Dtype) -> &'static str {
    match dtype {
        Dtype::Bool => "DT_BOOL",
        Dtype::U8 => "DT_UINT8",
        Dtype::U16 => "DT_UINT16",
        Dtype::U32 => "DT_UINT32",
        Dtype::U64 => "DT_UINT64",
        Dtype::I8 => "DT_INT8",
        Dtype::I16 => "DT_INT16",
        Dtype::I32 => "DT_INT32",
        Dtype::I64 => "DT_INT64",
        Dtype::F16 => "DT_HALF",
        Dtype::F32 => "DT_FLOAT",
        Dtype::F64 => "DT_DOUBLE",
        Dtype::String => "DT_STRING",
    }
}

#[derive(Serialize)]
struct Statuses<'a> {
    model_version_status: Vec<VersionStatus<'a>>,
}

#[derive(Serialize)]
struct VersionStatus<'a> {
    version: Text<Version>,
    state: &'static str,
    status: Status<'a>,
}

#[derive(Serialize)]
struct Status<'a> {
    error_code: &'static str,
    error_message: &'a str,
}

/// The body for these versions.
pub fn status(versions: &[VersionEntry]) -> Vec<u8> {
    pretty(&Statuses { model_version_status: versions.iter().map(VersionStatus::of).collect() })
}

impl<'a> VersionStatus<'a> {
    fn of(entry: &'a VersionEntry) -> Self {
        // Why a version is not there is known in words only.
        let status = match &entry.error {
            Some(error) => Status { error_code: "UNKNOWN", error_message: error },
            None => Status { error_code: "OK", error_message: "" },
        };
        Self { version: Text(entry.version), state: state_name(entry.state), status }
    }
}

fn state_name(state: VersionState) -> &'static str {
    match state {
        VersionState::Start => "START",
        VersionState::Loading => "LOADING",
        VersionState::Available => "AVAILABLE",
        VersionState::Unloading => "UNLOADING",
        VersionState::End => "END",
    }
}

#[derive(Serialize)]
struct Metadata<'a> {
    model_spec: ModelSpec<'a>,
    metadata: SignatureMap<SignatureMap<Signatures<'a>>>,
}

#[derive(Serialize)]
struct ModelSpec<'a> {
    name: &'a str,
    signature_name: &'static str,
    version: Text<Version>,
}

#[derive(Serialize)]
struct SignatureMap<T> {
    signature_def: T,
}

struct Signatures<'a>(SignatureDef<'a>);

impl Serialize for Signatures<'_> {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map([(SIGNATURE, &self.0)])
    }
}

#[derive(Serialize)]
struct SignatureDef<'a> {
    inputs: Ports<'a>,
    outputs: Ports<'a>,
    method_name: &'static str,
    defaults: Ports<'a>,
}

struct Ports<'a>(&'a [Port]);

impl Serialize for Ports<'_> {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.0.iter().map(|port| (&port.name, TensorInfo::of(port))))
    }
}

#[derive(Serialize)]
struct TensorInfo<'a> {
    dtype: &'static str,
    tensor_shape: TensorShape,
    name: &'a str,
}

#[derive(Serialize)]
struct TensorShape {
    dim: Vec<Dim>,
    unknown_rank: bool,
}

#[derive(Serialize)]
struct Dim {
    size: Text<i64>,
    name: &'static str,
}

impl<'a> TensorInfo<'a> {
    fn of(port: &'a Port) -> Self {
        let dim = |size: &Option<u32>| Dim { size: Text(size.map_or(-1, i64::from)), name: "" };
        let tensor_shape = TensorShape { dim: port.shape.iter().map(dim).collect(), unknown_rank: false };
        Self { dtype: dtype_name(port.dtype), tensor_shape, name: &port.name }
    }
}

/// The body for this model.
pub fn metadata(name: &str, served: &Served) -> Vec<u8> {
    of_ports(name, served.version, &served.inputs, &served.outputs)
}

fn of_ports(name: &str, version: Version, inputs: &[Port], outputs: &[Port]) -> Vec<u8> {
    let signature = SignatureDef {
        inputs: Ports(inputs),
        outputs: Ports(outputs),
        method_name: "tensorflow/serving/predict",
        defaults: Ports(&[]),
    };
    pretty(&Metadata {
        model_spec: ModelSpec { name, signature_name: "", version: Text(version) },
        metadata: SignatureMap { signature_def: SignatureMap { signature_def: Signatures(signature) } },
    })
}

/// A number that protobuf writes as a text.
struct Text<T>(T);

impl<T: std::fmt::Display> Serialize for Text<T> {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&self.0)
    }
}

fn pretty(value: &impl Serialize) -> Vec<u8> {
    let mut out = vec![];
    let mut serializer = serde_json::Serializer::with_formatter(&mut out, PrettyFormatter::with_indent(b" "));
    // Texts and lists always become JSON.
    let _ = value.serialize(&mut serializer);
    out.push(b'\n');
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The layout of `testdata/saved_model_half_plus_two_2_versions_metadata.json`, which
    /// `HttpRestApiHandlerTest.GetModelMetadata` compares with; the names are ours.
    #[test]
    fn metadata_is_laid_out_as_protobuf_prints_it() {
        let inputs = [Port { name: "x".into(), dtype: Dtype::F32, shape: vec![None, Some(1)] }];
        let outputs = [Port { name: "label".into(), dtype: Dtype::I64, shape: vec![] }];
        let body = of_ports("half", Version::new(123).expect("a version"), &inputs, &outputs);
        let expected = r#"{
 "model_spec": {
  "name": "half",
  "signature_name": "",
  "version": "123"
 },
 "metadata": {
  "signature_def": {
   "signature_def": {
    "serving_default": {
     "inputs": {
      "x": {
       "dtype": "DT_FLOAT",
       "tensor_shape": {
        "dim": [
         {
          "size": "-1",
          "name": ""
         },
         {
          "size": "1",
          "name": ""
         }
        ],
        "unknown_rank": false
       },
       "name": "x"
      }
     },
     "outputs": {
      "label": {
       "dtype": "DT_INT64",
       "tensor_shape": {
        "dim": [],
        "unknown_rank": false
       },
       "name": "label"
      }
     },
     "method_name": "tensorflow/serving/predict",
     "defaults": {}
    }
   }
  }
 }
}
"#;
        assert_eq!(String::from_utf8(body).expect("a text"), expected);
    }

    #[test]
    fn a_version_that_could_not_be_loaded_says_why() {
        let version = |number| Version::new(number).expect("a version");
        let entry = |number, state, error: Option<&str>| VersionEntry {
            version: version(number),
            state,
            error: error.map(str::to_owned),
            labels: vec![],
            served: None,
        };
        let body = status(&[entry(2, VersionState::End, Some("no room")), entry(1, VersionState::Available, None)]);
        let expected = r#"{
 "model_version_status": [
  {
   "version": "2",
   "state": "END",
   "status": {
    "error_code": "UNKNOWN",
    "error_message": "no room"
   }
  },
  {
   "version": "1",
   "state": "AVAILABLE",
   "status": {
    "error_code": "OK",
    "error_message": ""
   }
  }
 ]
}
"#;
        assert_eq!(String::from_utf8(body).expect("a text"), expected);
    }
}
