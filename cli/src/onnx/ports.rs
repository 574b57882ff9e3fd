//! What a model takes and gives, as the manifest declares it.

use std::collections::BTreeSet;

use muster_shared::limits::{PORTS_MAX, RANK_MAX};
use muster_shared::manifest::{Dtype, Port};

use super::proto::{GraphProto, TensorTypeProto, ValueInfoProto};
use super::{OnnxError, elem_type};

/// Inputs (without those that have an initialiser: they are weights) and outputs, in order.
pub fn ports(graph: &GraphProto) -> Result<(Vec<Port>, Vec<Port>), OnnxError> {
    let dense = graph.initializer.iter().map(|tensor| tensor.name());
    let sparse = graph.sparse_initializer.iter().filter_map(|sparse| Some(sparse.values.as_ref()?.name()));
    let initialised: BTreeSet<&str> = dense.chain(sparse).collect();
    let inputs = graph.input.iter().filter(|value| !initialised.contains(value.name()));
    Ok((all("input", inputs)?, all("output", graph.output.iter())?))
}

fn all<'a>(what: &'static str, values: impl Iterator<Item = &'a ValueInfoProto>) -> Result<Vec<Port>, OnnxError> {
    let ports = values.map(|value| port(what, value)).collect::<Result<Vec<_>, _>>()?;
    let names: BTreeSet<&str> = ports.iter().map(|port| port.name.as_str()).collect();
    if ports.is_empty() || ports.len() > PORTS_MAX || names.len() < ports.len() {
        return Err(OnnxError::BadPorts { what, found: ports.len() });
    }
    Ok(ports)
}

fn port(what: &'static str, value: &ValueInfoProto) -> Result<Port, OnnxError> {
    let name = value.name().to_owned();
    let bad = |why: &str| OnnxError::BadPort { what, name: name.clone(), why: why.to_owned() };
    let kind = value.r#type.as_ref().ok_or_else(|| bad("has no type"))?;
    let tensor = match &kind.tensor_type {
        Some(tensor) => tensor,
        None if kind.sequence_type.is_some() || kind.map_type.is_some() => {
            return Err(bad("is a sequence or a map; export with plain tensors (scikit-learn: zipmap=False)"));
        }
        None => return Err(bad("is no tensor")),
    };
    let number = tensor.elem_type.unwrap_or(elem_type::UNDEFINED);
    let dtype = dtype(number)
        .ok_or_else(|| bad(&format!("has elements of type {}, which cannot be served", elem_type::name(number))))?;
    Ok(Port { dtype, shape: shape(tensor).map_err(bad)?, name })
}

fn shape(tensor: &TensorTypeProto) -> Result<Vec<Option<u32>>, &'static str> {
    let shape = tensor.shape.as_ref().ok_or("has no shape; run shape inference on the model first")?;
    if shape.dim.len() > RANK_MAX {
        return Err("has more than 16 dimensions");
    }
    let size = |value: Option<i64>| match value {
        // Exporters write open sizes as names, as nothing, or as 0 and -1.
        None | Some(i64::MIN..=0) => Ok(None),
        Some(size) => u32::try_from(size).map(Some).map_err(|_| "has a dimension of more than 32 bits"),
    };
    shape.dim.iter().map(|dim| size(dim.dim_value)).collect()
}

fn dtype(number: i32) -> Option<Dtype> {
    Some(match number {
        elem_type::BOOL => Dtype::Bool,
        elem_type::UINT8 => Dtype::U8,
        elem_type::UINT16 => Dtype::U16,
        elem_type::UINT32 => Dtype::U32,
        elem_type::UINT64 => Dtype::U64,
        elem_type::INT8 => Dtype::I8,
        elem_type::INT16 => Dtype::I16,
        elem_type::INT32 => Dtype::I32,
        elem_type::INT64 => Dtype::I64,
        elem_type::FLOAT16 => Dtype::F16,
        elem_type::FLOAT => Dtype::F32,
        elem_type::DOUBLE => Dtype::F64,
        elem_type::STRING => Dtype::String,
        _ => return None,
    })
}

/// A port as people write it: `x f32[?, 64]`.
pub fn describe(port: &Port) -> String {
    let sizes: Vec<String> =
        port.shape.iter().map(|size| size.map_or_else(|| "?".to_owned(), |size| size.to_string())).collect();
    format!("{} {}[{}]", port.name, port.dtype.name(), sizes.join(", "))
}
