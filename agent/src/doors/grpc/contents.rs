//! Tensors in gRPC messages: element by element in lists of their type, or raw.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use muster_shared::Version;
use muster_shared::limits::RANK_MAX;
use muster_shared::manifest::Dtype;

use super::generated::infer_parameter::ParameterChoice;
use super::generated::model_infer_request::{InferInputTensor, InferRequestedOutputTensor};
use super::generated::model_infer_response::InferOutputTensor;
use super::generated::{InferParameter, InferTensorContents, ModelInferRequest, ModelInferResponse};
use crate::doors::oip::datatypes;
use crate::doors::oip::infer::{Asked, Given, Wanted};
use crate::doors::refusal::Refusal;
use crate::tensor::{Tensor, push_string};

/// Reads a request for a run.
pub fn read(request: ModelInferRequest) -> Result<Asked, Refusal> {
    let raw = request.raw_input_contents;
    let inputs = if raw.is_empty() {
        request.inputs.into_iter().map(|input| tensor(input, None)).collect::<Result<_, _>>()?
    } else if raw.len() == request.inputs.len() {
        let pairs = request.inputs.into_iter().zip(raw);
        pairs.map(|(input, raw)| tensor(input, Some(raw))).collect::<Result<_, _>>()?
    } else {
        let (inputs, raws) = (request.inputs.len(), raw.len());
        return Err(Refusal::bad(format!("{inputs} inputs, but {raws} raw_input_contents")));
    };
    let outputs = request.outputs.into_iter().map(wanted).collect::<Result<_, _>>()?;
    let timeout = number(&request.parameters, "timeout")?.filter(|us| *us > 0).map(Duration::from_micros);
    Ok(Asked { id: None, inputs, outputs, binary: true, timeout })
}

/// Writes what a model gave. `name`: the model's, as it was asked for.
pub fn write(name: String, version: Version, id: String, outputs: Vec<Given>) -> ModelInferResponse {
    let mut response =
        ModelInferResponse { model_name: name, model_version: version.to_string(), id, ..Default::default() };
    for Given { tensor, .. } in outputs {
        response.outputs.push(InferOutputTensor {
            name: tensor.name,
            datatype: datatypes::name(tensor.dtype).to_owned(),
            shape: tensor.shape.iter().map(|size| *size as i64).collect(),
            ..Default::default()
        });
        response.raw_output_contents.push(tensor.data);
    }
    response
}

fn tensor(input: InferInputTensor, raw: Option<Bytes>) -> Result<Tensor, Refusal> {
    let name = input.name;
    let dtype = datatypes::dtype(&input.datatype)?;
    let bad = |text: &str| Refusal::bad(format!("input {name:?}: {text}"));
    if input.parameters.contains_key("shared_memory_region") {
        return Err(bad("this server shares no memory with its callers"));
    }
    if input.shape.len() > RANK_MAX {
        return Err(bad(&format!("a shape of more than {RANK_MAX} sizes")));
    }
    let shape = input.shape.iter().map(|size| usize::try_from(*size)).collect::<Result<Vec<_>, _>>();
    let shape = shape.map_err(|_| bad("a size in a shape is a whole number from 0"))?;
    let data = match (raw, input.contents) {
        (Some(_), Some(contents)) if contents != InferTensorContents::default() => {
            return Err(bad("it has contents, and there are raw_input_contents"));
        }
        (Some(raw), _) => raw,
        (None, Some(contents)) => elements(dtype, contents).map_err(|text| bad(&text))?.into(),
        (None, None) => Bytes::new(),
    };
    Ok(Tensor { name, dtype, shape, data })
}

/// Elements of a type as bytes.
fn elements(dtype: Dtype, contents: InferTensorContents) -> Result<Vec<u8>, String> {
    fn whole<L>(values: Vec<L>, narrow: impl Fn(L, &mut Vec<u8>) -> Option<()>, dtype: Dtype) -> Result<Vec<u8>, String>
    where
        L: Copy + std::fmt::Display,
    {
        let mut data = Vec::with_capacity(values.len() * dtype.size_bytes().unwrap_or(8));
        for value in values {
            narrow(value, &mut data).ok_or_else(|| format!("{value} is no {}", datatypes::name(dtype)))?;
        }
        Ok(data)
    }
    macro_rules! narrow {
        ($list:expr, $type:ty) => {
            whole(
                $list,
                |value, data| {
                    data.extend(<$type>::try_from(value).ok()?.to_le_bytes());
                    Some(())
                },
                dtype,
            )
        };
    }
    match dtype {
        Dtype::Bool => Ok(contents.bool_contents.into_iter().map(u8::from).collect()),
        Dtype::I8 => narrow!(contents.int_contents, i8),
        Dtype::I16 => narrow!(contents.int_contents, i16),
        Dtype::I32 => narrow!(contents.int_contents, i32),
        Dtype::I64 => narrow!(contents.int64_contents, i64),
        Dtype::U8 => narrow!(contents.uint_contents, u8),
        Dtype::U16 => narrow!(contents.uint_contents, u16),
        Dtype::U32 => narrow!(contents.uint_contents, u32),
        Dtype::U64 => narrow!(contents.uint64_contents, u64),
        Dtype::F32 => Ok(contents.fp32_contents.iter().flat_map(|value| value.to_le_bytes()).collect()),
        Dtype::F64 => Ok(contents.fp64_contents.iter().flat_map(|value| value.to_le_bytes()).collect()),
        Dtype::F16 => Err("FP16 travels in raw_input_contents only".to_owned()),
        Dtype::String => {
            let mut data = vec![];
            contents.bytes_contents.iter().for_each(|text| push_string(&mut data, text));
            Ok(data)
        }
    }
}

fn wanted(output: InferRequestedOutputTensor) -> Result<Wanted, Refusal> {
    if output.parameters.contains_key("shared_memory_region") {
        let name = output.name;
        return Err(Refusal::bad(format!("output {name:?}: this server shares no memory with its callers")));
    }
    let classes = number(&output.parameters, "classification")?.unwrap_or(0);
    Ok(Wanted { name: output.name, binary: None, classes: usize::try_from(classes).unwrap_or(usize::MAX) })
}

fn number(parameters: &BTreeMap<String, InferParameter>, name: &str) -> Result<Option<u64>, Refusal> {
    let Some(value) = parameters.get(name) else { return Ok(None) };
    let number = match value.parameter_choice {
        Some(ParameterChoice::Int64Param(number)) => u64::try_from(number).ok(),
        Some(ParameterChoice::Uint64Param(number)) => Some(number),
        _ => None,
    };
    number.map(Some).ok_or_else(|| Refusal::bad(format!("{name:?} is a whole number from 0")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn input(datatype: &str, shape: &[i64], contents: Option<InferTensorContents>) -> InferInputTensor {
        InferInputTensor {
            name: "x".into(),
            datatype: datatype.into(),
            shape: shape.to_vec(),
            contents,
            ..Default::default()
        }
    }

    fn with(change: impl Fn(&mut InferTensorContents)) -> Option<InferTensorContents> {
        let mut contents = InferTensorContents::default();
        change(&mut contents);
        Some(contents)
    }

    fn ask(input: InferInputTensor, raw: &[&'static [u8]]) -> Result<Tensor, String> {
        let raw_input_contents = raw.iter().map(|raw| Bytes::from_static(raw)).collect();
        let request = ModelInferRequest { inputs: vec![input], raw_input_contents, ..Default::default() };
        read(request).map(|mut asked| asked.inputs.remove(0)).map_err(|refusal| refusal.text)
    }

    #[test]
    fn elements_come_typed_or_raw() {
        let typed = |datatype, contents| ask(input(datatype, &[1], contents), &[]).map(|tensor| tensor.data.to_vec());
        assert_eq!(typed("INT8", with(|c| c.int_contents = vec![-1])), Ok(vec![255]));
        assert_eq!(typed("INT8", with(|c| c.int_contents = vec![128])), Err("input \"x\": 128 is no INT8".into()));
        assert_eq!(typed("UINT16", with(|c| c.uint_contents = vec![258])), Ok(vec![2, 1]));
        assert_eq!(typed("BOOL", with(|c| c.bool_contents = vec![true])), Ok(vec![1]));
        assert_eq!(typed("FP32", with(|c| c.fp32_contents = vec![1.0])), Ok(vec![0, 0, 128, 63]));
        assert_eq!(typed("BYTES", with(|c| c.bytes_contents = vec!["a".into()])), Ok(vec![1, 0, 0, 0, b'a']));
        assert!(typed("FP16", with(|c| c.fp32_contents = vec![1.0])).is_err());
        assert!(typed("BF16", None).is_err());
        assert_eq!(ask(input("FP16", &[1], None), &[&[0, 60]]).map(|tensor| tensor.data.to_vec()), Ok(vec![0, 60]));
        assert!(ask(input("UINT8", &[1], None), &[&[1], &[2]]).is_err());
        assert!(ask(input("UINT8", &[-1], None), &[&[1]]).is_err());
        assert!(ask(input("UINT8", &[1], with(|c| c.uint_contents = vec![1])), &[&[1]]).is_err());
    }
}
