//! The default engine: tract. It gives wrong answers on some graphs and panics on bad ones, which
//! is why golden vectors are checked first and every model has a process of its own.

use std::path::Path;
use std::sync::Arc;

use muster_shared::manifest::{Dtype, Port};
use tract_onnx::prelude::{
    DatumType, Framework as _, InferenceFact, InferenceModelExt as _, IntoRunnable as _, IntoTValue as _, Symbol, TDim,
    TVec, Tensor as TractTensor, ToDim as _, TypedModel, TypedRunnableModel,
};

use super::{EngineError, Model};
use crate::tensor::Tensor;

/// A model that tract runs.
pub struct TractModel {
    plan: Arc<TypedRunnableModel>,
    outputs: Vec<Port>,
    /// For each port of the manifest, which output of the graph it is.
    output_order: Vec<usize>,
    /// For each input of the graph, which port of the manifest it takes.
    input_order: Vec<usize>,
}

impl TractModel {
    /// Loads an ONNX file. Input shapes are set from the ports, a free first dimension as a symbol:
    /// exporters leave the batch unnamed, and tract wants every input determined.
    pub fn load(file: &Path, inputs: &[Port], outputs: &[Port]) -> Result<Self, EngineError> {
        let failed = |error: tract_onnx::prelude::TractError| EngineError::Load(format!("{error:#}"));
        let mut model = tract_onnx::onnx().model_for_path(file).map_err(failed)?;
        let input_names: Vec<String> =
            model.input_outlets().map_err(failed)?.iter().map(|outlet| model.node(outlet.node).name.clone()).collect();
        let output_names: Vec<String> = model
            .output_outlets()
            .map_err(failed)?
            .iter()
            .map(|outlet| model.outlet_label(*outlet).unwrap_or_default().to_owned())
            .collect();
        let input_order = order(&input_names, inputs, "inputs")?;
        let output_order = order_of_ports(&output_names, outputs)?;
        let batch = model.symbols.sym("N");
        for (index, port) in input_order.iter().enumerate() {
            let port = &inputs[*port];
            let shape: TVec<TDim> = symbolic_shape(port, &batch, &model.symbols)?;
            let fact = InferenceFact::dt_shape(datum_type(port.dtype), shape);
            model.set_input_fact(index, fact).map_err(failed)?;
        }
        let typed: TypedModel = model.into_optimized().map_err(failed)?;
        let plan = typed.into_runnable().map_err(failed)?;
        Ok(Self { plan, outputs: outputs.to_vec(), output_order, input_order })
    }
}

impl Model for TractModel {
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

/// The first free dimension is the batch, shared by all inputs; every other free one is its own.
fn symbolic_shape(
    port: &Port,
    batch: &Symbol,
    scope: &tract_onnx::prelude::SymbolScope,
) -> Result<TVec<TDim>, EngineError> {
    let dims = port.shape.iter().enumerate().map(|(at, size)| match size {
        Some(size) => (*size as usize).to_dim(),
        None if at == 0 => batch.to_dim(),
        None => scope.new_with_prefix("D").to_dim(),
    });
    Ok(dims.collect())
}

fn datum_type(dtype: Dtype) -> DatumType {
    match dtype {
        Dtype::Bool => DatumType::Bool,
        Dtype::U8 => DatumType::U8,
        Dtype::I8 => DatumType::I8,
        Dtype::I16 => DatumType::I16,
        Dtype::I32 => DatumType::I32,
        Dtype::I64 => DatumType::I64,
        Dtype::F32 => DatumType::F32,
        Dtype::F64 => DatumType::F64,
    }
}

fn to_tract(tensor: &Tensor) -> Result<TractTensor, EngineError> {
    let failed = |error: tract_onnx::prelude::TractError| EngineError::Run(format!("{error:#}"));
    macro_rules! numbers {
        ($type:ty) => {{
            let (numbers, _) = tensor.data.as_chunks::<{ size_of::<$type>() }>();
            let numbers: Vec<$type> = numbers.iter().map(|bytes| <$type>::from_le_bytes(*bytes)).collect();
            TractTensor::from_shape(&tensor.shape, &numbers).map_err(failed)
        }};
    }
    match tensor.dtype {
        Dtype::Bool => {
            let values: Vec<bool> = tensor.data.iter().map(|byte| *byte != 0).collect();
            TractTensor::from_shape(&tensor.shape, &values).map_err(failed)
        }
        Dtype::U8 => numbers!(u8),
        Dtype::I8 => numbers!(i8),
        Dtype::I16 => numbers!(i16),
        Dtype::I32 => numbers!(i32),
        Dtype::I64 => numbers!(i64),
        Dtype::F32 => numbers!(f32),
        Dtype::F64 => numbers!(f64),
    }
}

fn from_tract(port: &Port, value: &TractTensor) -> Result<Tensor, EngineError> {
    let failed = |error: tract_onnx::prelude::TractError| EngineError::Run(format!("{error:#}"));
    // An int64 output of the file arrives as a symbolic dimension; the port says what it is.
    let value = value.cast_to_dt(datum_type(port.dtype)).map_err(failed)?;
    macro_rules! bytes {
        ($type:ty) => {{
            let view = value.to_plain_array_view::<$type>().map_err(failed)?;
            view.iter().flat_map(|number| number.to_le_bytes()).collect()
        }};
    }
    let data: Vec<u8> = match port.dtype {
        Dtype::Bool => {
            let view = value.to_plain_array_view::<bool>().map_err(failed)?;
            view.iter().map(|value| u8::from(*value)).collect()
        }
        Dtype::U8 => bytes!(u8),
        Dtype::I8 => bytes!(i8),
        Dtype::I16 => bytes!(i16),
        Dtype::I32 => bytes!(i32),
        Dtype::I64 => bytes!(i64),
        Dtype::F32 => bytes!(f32),
        Dtype::F64 => bytes!(f64),
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
