//! The default engine: tract. It gives wrong answers on some graphs and panics on bad ones, which
//! is why golden vectors are checked first and every model has a process of its own.

use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use muster_shared::limits::{PORTS_MAX, RANK_MAX};
use muster_shared::manifest::{Dtype, Port};
use tract_onnx::prelude::{
    DatumType, Framework as _, InferenceFact, InferenceModel, InferenceModelExt as _, IntoRunnable as _,
    IntoTValue as _, Symbol, TDim, TVec, Tensor as TractTensor, ToDim as _, TractError, TypedModel, TypedRunnableModel,
};

use tract_onnx::tract_hir::infer::Factoid as _;

use super::{EngineError, Model, Ports};
use crate::tensor::{self, Tensor};

/// A model that tract runs.
pub struct TractModel {
    plan: Arc<TypedRunnableModel>,
    inputs: Vec<Port>,
    outputs: Vec<Port>,
    /// For each port, which output of the graph it is.
    output_order: Vec<usize>,
    /// For each input of the graph, which port it takes.
    input_order: Vec<usize>,
    has_rows: bool,
}

impl TractModel {
    /// Loads an ONNX file. Input shapes are set from the ports, a free first dimension as a symbol:
    /// exporters leave the batch unnamed, and tract wants every input determined.
    pub fn load(file: &Path, ports: Option<Ports<'_>>) -> Result<Self, EngineError> {
        let failed = |error: TractError| EngineError::Load(format!("{error:#}"));
        let mut model = tract_onnx::onnx().model_for_path(file).map_err(failed)?;
        let input_names: Vec<String> =
            model.input_outlets().map_err(failed)?.iter().map(|outlet| model.node(outlet.node).name.clone()).collect();
        let output_names: Vec<String> = model
            .output_outlets()
            .map_err(failed)?
            .iter()
            .map(|outlet| model.outlet_label(*outlet).unwrap_or_default().to_owned())
            .collect();
        let (inputs, input_order) = match ports {
            Some(ports) => (ports.inputs.to_vec(), order(&input_names, ports.inputs, "inputs")?),
            None => (input_ports(&model, &input_names)?, (0..input_names.len()).collect()),
        };
        let batch = model.symbols.sym("N");
        for (index, port) in input_order.iter().enumerate() {
            let port = &inputs[*port];
            let known = ports.is_none().then(|| dims(&model, index)).transpose()?;
            let shape = symbolic_shape(port, known.as_deref(), &batch, &model)?;
            let fact = InferenceFact::dt_shape(datum_type(port.dtype), shape);
            model.set_input_fact(index, fact).map_err(failed)?;
        }
        let typed: TypedModel = model.into_optimized().map_err(failed)?;
        let (outputs, output_order) = match ports {
            Some(ports) => (ports.outputs.to_vec(), order_of_ports(&output_names, ports.outputs)?),
            None => (output_ports(&typed, &output_names)?, (0..output_names.len()).collect()),
        };
        let has_rows = has_rows(&typed).map_err(failed)?;
        let plan = typed.into_runnable().map_err(failed)?;
        Ok(Self { plan, inputs, outputs, output_order, input_order, has_rows })
    }
}

impl Model for TractModel {
    fn inputs(&self) -> &[Port] {
        &self.inputs
    }

    fn outputs(&self) -> &[Port] {
        &self.outputs
    }

    fn has_rows(&self) -> bool {
        self.has_rows
    }

    fn run(&self, inputs: &[Tensor]) -> Result<Vec<Tensor>, EngineError> {
        let mut values = TVec::new();
        for port in &self.input_order {
            let input = inputs.get(*port).ok_or_else(|| EngineError::Run(format!("input {port} is missing")))?;
            values.push(to_tract(input)?.into_tvalue());
        }
        let results = self.plan.run(values).map_err(|error| EngineError::Run(format!("{error:#}")))?;
        self.outputs
            .iter()
            .zip(&self.output_order)
            .map(|(port, at)| {
                let value = results.get(*at).ok_or_else(|| EngineError::Run(format!("output {at} is missing")))?;
                from_tract(port, value)
            })
            .collect()
    }
}

/// Whether a panic of the engine means that an allocation failed. tract allocates its tensors itself and
/// asserts that it got them, instead of aborting as the standard library does.
pub fn is_out_of_memory(panic: &str) -> bool {
    ["failed to allocate", "is_null()"].iter().any(|words| panic.contains(words))
}

/// What the file says that the model takes.
fn input_ports(model: &InferenceModel, names: &[String]) -> Result<Vec<Port>, EngineError> {
    if names.len() > PORTS_MAX {
        return Err(EngineError::Unservable(format!("it has {} inputs, at most {PORTS_MAX} go", names.len())));
    }
    names
        .iter()
        .enumerate()
        .map(|(index, name)| {
            let fact = model.input_fact(index).map_err(|error| EngineError::Load(format!("{error:#}")))?;
            let dtype = fact.datum_type.concretize().and_then(dtype);
            let dtype = dtype.ok_or_else(|| {
                EngineError::Unservable(format!("input {name:?} has elements of a type that cannot be served"))
            })?;
            let shape = dims(model, index)?.iter().map(|dim| dim.as_ref().and_then(size)).collect();
            Ok(Port { name: name.clone(), dtype, shape })
        })
        .collect()
}

/// An input's sizes as the file has them; none where it says nothing of one.
fn dims(model: &InferenceModel, index: usize) -> Result<Vec<Option<TDim>>, EngineError> {
    let fact = model.input_fact(index).map_err(|error| EngineError::Load(format!("{error:#}")))?;
    if fact.shape.is_open() {
        return Err(EngineError::Unservable(format!("input {index} has no shape; run shape inference on the file")));
    }
    let dims: Vec<Option<TDim>> = fact.shape.dims().map(|dim| dim.concretize()).collect();
    if dims.len() > RANK_MAX {
        return Err(EngineError::Unservable(format!("input {index} has more than {RANK_MAX} dimensions")));
    }
    // Exporters write an open size as 0 or -1, too.
    Ok(dims.into_iter().map(|dim| dim.filter(|dim| dim.to_i64().map_or(true, |size| size > 0))).collect())
}

fn output_ports(model: &TypedModel, names: &[String]) -> Result<Vec<Port>, EngineError> {
    if names.len() > PORTS_MAX {
        return Err(EngineError::Unservable(format!("it has {} outputs, at most {PORTS_MAX} go", names.len())));
    }
    names
        .iter()
        .enumerate()
        .map(|(index, name)| {
            let fact = model.output_fact(index).map_err(|error| EngineError::Load(format!("{error:#}")))?;
            let dtype = dtype(fact.datum_type).ok_or_else(|| {
                EngineError::Unservable(format!("output {name:?} has elements of a type that cannot be served"))
            })?;
            if fact.rank() > RANK_MAX {
                return Err(EngineError::Unservable(format!("output {name:?} has more than {RANK_MAX} dimensions")));
            }
            Ok(Port { name: name.clone(), dtype, shape: fact.shape.iter().map(size).collect() })
        })
        .collect()
}

fn size(dim: &TDim) -> Option<u32> {
    dim.to_i64().ok().and_then(|size| u32::try_from(size).ok())
}

/// Whether one symbol, and nothing else, is the first size of every input and output.
fn has_rows(model: &TypedModel) -> Result<bool, TractError> {
    let mut firsts = vec![];
    for index in 0..model.inputs.len() {
        firsts.push(model.input_fact(index)?.shape.first().cloned());
    }
    for index in 0..model.outputs.len() {
        firsts.push(model.output_fact(index)?.shape.first().cloned());
    }
    let Some(Some(first @ TDim::Sym(_))) = firsts.first().cloned() else { return Ok(false) };
    Ok(firsts.iter().all(|dim| dim.as_ref() == Some(&first)))
}

/// For each of the graph's inputs, the port of that name.
fn order(names: &[String], ports: &[Port], what: &str) -> Result<Vec<usize>, EngineError> {
    let find = |name: &String| ports.iter().position(|port| &port.name == name);
    let order: Option<Vec<usize>> = names.iter().map(find).collect();
    order.filter(|order| order.len() == ports.len()).ok_or_else(|| EngineError::Ports {
        what: format!("{what} {:?}", ports.iter().map(|port| &port.name).collect::<Vec<_>>()),
        found: format!("{names:?}"),
    })
}

/// For each port, the graph's output of that name.
fn order_of_ports(names: &[String], ports: &[Port]) -> Result<Vec<usize>, EngineError> {
    let find = |port: &Port| names.iter().position(|name| name == &port.name);
    let order: Option<Vec<usize>> = ports.iter().map(find).collect();
    order.ok_or_else(|| EngineError::Ports {
        what: format!("outputs {:?}", ports.iter().map(|port| &port.name).collect::<Vec<_>>()),
        found: format!("{names:?}"),
    })
}

/// The first free dimension is the batch, shared by all inputs, every other free one is its own; but a
/// file that names its sizes knows better which are the same.
fn symbolic_shape(
    port: &Port,
    known: Option<&[Option<TDim>]>,
    batch: &Symbol,
    model: &InferenceModel,
) -> Result<TVec<TDim>, EngineError> {
    let dims = port.shape.iter().enumerate().map(|(at, size)| {
        let known = known.and_then(|known| known.get(at)).cloned().flatten();
        match (known, size) {
            (Some(known), _) => known,
            (None, Some(size)) => (*size as usize).to_dim(),
            (None, None) if at == 0 => batch.to_dim(),
            (None, None) => model.symbols.new_with_prefix("D").to_dim(),
        }
    });
    Ok(dims.collect())
}

fn datum_type(dtype: Dtype) -> DatumType {
    match dtype {
        Dtype::Bool => DatumType::Bool,
        Dtype::U8 => DatumType::U8,
        Dtype::U16 => DatumType::U16,
        Dtype::U32 => DatumType::U32,
        Dtype::U64 => DatumType::U64,
        Dtype::I8 => DatumType::I8,
        Dtype::I16 => DatumType::I16,
        Dtype::I32 => DatumType::I32,
        Dtype::I64 => DatumType::I64,
        Dtype::F16 => DatumType::F16,
        Dtype::F32 => DatumType::F32,
        Dtype::F64 => DatumType::F64,
        Dtype::String => DatumType::String,
    }
}

fn dtype(datum_type: DatumType) -> Option<Dtype> {
    Some(match datum_type {
        DatumType::Bool => Dtype::Bool,
        DatumType::U8 => Dtype::U8,
        DatumType::U16 => Dtype::U16,
        DatumType::U32 => Dtype::U32,
        DatumType::U64 => Dtype::U64,
        DatumType::I8 => Dtype::I8,
        DatumType::I16 => Dtype::I16,
        DatumType::I32 => Dtype::I32,
        // An int64 output of the file arrives as a symbolic dimension.
        DatumType::I64 | DatumType::TDim => Dtype::I64,
        DatumType::F16 => Dtype::F16,
        DatumType::F32 => Dtype::F32,
        DatumType::F64 => Dtype::F64,
        DatumType::String => Dtype::String,
        _ => return None,
    })
}

fn to_tract(tensor: &Tensor) -> Result<TractTensor, EngineError> {
    let failed = |error: TractError| EngineError::Run(format!("{error:#}"));
    if !tensor.is_sound() {
        return Err(EngineError::Run(format!("{} bytes do not fill shape {:?}", tensor.data.len(), tensor.shape)));
    }
    if tensor.dtype == Dtype::String {
        let texts: Result<Vec<String>, _> =
            tensor::strings(&tensor.data).map(|text| String::from_utf8(text.to_vec())).collect();
        let texts = texts.map_err(|_| EngineError::Run("tract takes strings of UTF-8 only".to_owned()))?;
        let array = tract_onnx::tract_hir::internal::tract_ndarray::ArrayD::from_shape_vec(&tensor.shape[..], texts);
        return array.map(TractTensor::from).map_err(|error| EngineError::Run(error.to_string()));
    }
    let mut value = TractTensor::zero_dt(datum_type(tensor.dtype), &tensor.shape).map_err(failed)?;
    let bytes = value.as_bytes_mut();
    bytes.copy_from_slice(&tensor.data);
    if tensor.dtype == Dtype::Bool {
        // Any other byte is no bool.
        bytes.iter_mut().for_each(|byte| *byte = u8::from(*byte != 0));
    }
    Ok(value)
}

fn from_tract(port: &Port, value: &TractTensor) -> Result<Tensor, EngineError> {
    let failed = |error: TractError| EngineError::Run(format!("{error:#}"));
    // An int64 output of the file arrives as a symbolic dimension; the port says what it is.
    let value = value.cast_to_dt(datum_type(port.dtype)).map_err(failed)?;
    let data = if port.dtype == Dtype::String {
        let mut data = vec![];
        for text in &value.to_plain_array_view::<String>().map_err(failed)? {
            tensor::push_string(&mut data, text.as_bytes());
        }
        Bytes::from(data)
    } else {
        Bytes::copy_from_slice(value.as_bytes())
    };
    Ok(Tensor { name: port.name.clone(), dtype: port.dtype, shape: value.shape().to_vec(), data })
}

#[cfg(test)]
mod tests {
    use std::panic::catch_unwind;

    use super::*;

    /// The words are tract's own: a new release may choose others.
    #[test]
    fn a_tensor_that_does_not_fit_is_known_by_the_engines_words() {
        let more_than_any_machine_has = isize::MAX as usize / 2;
        let panic = catch_unwind(|| TractTensor::zero::<u8>(&[more_than_any_machine_has]).map(drop));
        let panic = panic.expect_err("no machine has so much");
        let text = panic.downcast_ref::<String>().expect("a text");
        assert!(is_out_of_memory(text), "{text}");
        assert!(!is_out_of_memory("index out of bounds: the len is 3 but the index is 7"));
    }
}
