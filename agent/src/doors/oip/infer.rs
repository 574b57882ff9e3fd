//! One run of a model: inputs find their ports, outputs are picked and perhaps classified.

use std::time::Duration;

use muster_shared::manifest::{Dtype, Port};

use super::{classification, datatypes};
use crate::doors::refusal::{Kind, Refusal};
use crate::table::{Served, Table};
use crate::tensor::{Tensor, elements, fits, is_sound, shape_text};
use crate::worker::queue::PredictError;

/// A request for a run, from whichever protocol.
#[derive(Debug, Clone, Default)]
pub struct Asked {
    /// Comes back with the answer.
    pub id: Option<String>,
    /// In any order; neither names nor sizes are checked yet.
    pub inputs: Vec<Tensor>,
    /// None: all, as [`Asked::binary`] says.
    pub outputs: Vec<Wanted>,
    /// Whether outputs shall come as bytes where they do not say themselves.
    pub binary: bool,
    /// How long the caller waits.
    pub timeout: Option<Duration>,
}

/// An output that is asked for.
#[derive(Debug, Clone, Default)]
pub struct Wanted {
    /// Its name.
    pub name: String,
    /// As bytes?
    pub binary: Option<bool>,
    /// So many classes instead of the output; 0 for the output itself.
    pub classes: usize,
}

/// An output as it shall be written.
#[derive(Debug, Clone, PartialEq)]
pub struct Given {
    /// The tensor.
    pub tensor: Tensor,
    /// As bytes?
    pub binary: bool,
}

/// Runs the model.
pub async fn infer(table: &Table, served: &Served, asked: Asked) -> Result<Vec<Given>, Refusal> {
    for wanted in &asked.outputs {
        if !served.outputs.iter().any(|port| port.name == wanted.name) {
            return Err(Refusal::bad(format!("the model has no output {:?}", shown(&wanted.name))));
        }
    }
    let inputs = for_ports(&served.inputs, asked.inputs)?;
    let predicted = table.predict_within(served, inputs, asked.timeout).await.map_err(|error| match asked.timeout {
        Some(wait) if error == PredictError::Late => {
            Refusal { kind: Kind::Late, text: format!("there was no answer within the request's timeout of {wait:?}") }
        }
        _ => error.into(),
    })?;
    pick(served, predicted.outputs, &asked.outputs, asked.binary)
}

/// The inputs in the order of the ports, each checked.
fn for_ports(ports: &[Port], mut given: Vec<Tensor>) -> Result<Vec<Tensor>, Refusal> {
    for (at, port) in ports.iter().enumerate() {
        let Some(found) = given.iter().skip(at).position(|input| input.name == port.name) else {
            return Err(Refusal::bad(format!("input {:?} is missing", port.name)));
        };
        given.swap(at, at + found);
        check(port, &given[at])?;
    }
    match given.get(ports.len()) {
        None => Ok(given),
        Some(more) if ports.iter().any(|port| port.name == more.name) => {
            Err(Refusal::bad(format!("input {:?} is there twice", more.name)))
        }
        Some(more) => Err(Refusal::bad(format!("the model has no input {:?}", shown(&more.name)))),
    }
}

fn check(port: &Port, input: &Tensor) -> Result<(), Refusal> {
    let bad = |text: String| Err(Refusal::bad(format!("input {:?}: {text}", port.name)));
    if input.dtype != port.dtype {
        let (found, wanted) = (datatypes::name(input.dtype), datatypes::name(port.dtype));
        return bad(format!("datatype {found}, where the model takes {wanted}"));
    }
    if !fits(&input.shape, &port.shape) {
        return bad(format!("shape {:?} does not fit {}", input.shape, shape_text(&port.shape)));
    }
    if !elements(&input.shape).is_some_and(|count| is_sound(input.dtype, count, &input.data)) {
        let (shape, bytes, datatype) = (&input.shape, input.data.len(), datatypes::name(input.dtype));
        return match input.dtype.size_bytes() {
            Some(size) if bytes % size == 0 => {
                bad(format!("{} elements, where shape {shape:?} takes another number", bytes / size))
            }
            _ => bad(format!("{bytes} bytes are not what shape {shape:?} of {datatype} takes")),
        };
    }
    if input.dtype == Dtype::Bool && input.data.iter().any(|byte| *byte > 1) {
        return bad("a BOOL is a byte 0 or 1".into());
    }
    Ok(())
}

fn pick(served: &Served, given: Vec<Tensor>, wanted: &[Wanted], binary: bool) -> Result<Vec<Given>, Refusal> {
    if wanted.is_empty() {
        return Ok(given.into_iter().map(|tensor| Given { tensor, binary }).collect());
    }
    let rows = served.takes_rows();
    let pick = |wanted: &Wanted| {
        let output = given.iter().find(|output| output.name == wanted.name);
        let output = output.ok_or_else(|| Refusal::failed(format!("the model did not give {:?}", wanted.name)))?;
        let tensor = match wanted.classes {
            0 => output.clone(),
            classes => classification::highest(output, classes, rows)?,
        };
        Ok(Given { tensor, binary: wanted.binary.unwrap_or(binary) })
    };
    wanted.iter().map(pick).collect()
}

/// Of a name that nobody knows, so much is told.
fn shown(name: &str) -> String {
    name.chars().take(80).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn port(name: &str, dtype: Dtype, shape: &[Option<u32>]) -> Port {
        Port { name: name.into(), dtype, shape: shape.to_vec() }
    }

    fn tensor(name: &str, dtype: Dtype, shape: &[usize], data: &'static [u8]) -> Tensor {
        Tensor { name: name.into(), dtype, shape: shape.to_vec(), data: data.into() }
    }

    #[test]
    fn inputs_find_their_ports_in_any_order() {
        let ports = [port("a", Dtype::U8, &[None]), port("b", Dtype::Bool, &[Some(1)])];
        let (a, b) = (tensor("a", Dtype::U8, &[2], &[1, 2]), tensor("b", Dtype::Bool, &[1], &[1]));
        for given in [vec![a.clone(), b.clone()], vec![b.clone(), a.clone()]] {
            assert_eq!(for_ports(&ports, given), Ok(vec![a.clone(), b.clone()]));
        }
        let check = |given: Vec<Tensor>, text: &str| {
            let refused = for_ports(&ports, given).expect_err("a refusal");
            assert_eq!((refused.kind, refused.text.as_str()), (Kind::Bad, text));
        };
        check(vec![a.clone()], "input \"b\" is missing");
        check(vec![a.clone(), b.clone(), a.clone()], "input \"a\" is there twice");
        check(vec![a.clone(), b.clone(), tensor("c", Dtype::U8, &[], &[1])], "the model has no input \"c\"");
        let wrong = |dtype, shape: &[usize], data| vec![tensor("a", dtype, shape, data), b.clone()];
        check(wrong(Dtype::I8, &[2], &[1, 2]), "input \"a\": datatype INT8, where the model takes UINT8");
        check(wrong(Dtype::U8, &[1, 2], &[1, 2]), "input \"a\": shape [1, 2] does not fit [?]");
        check(wrong(Dtype::U8, &[3], &[1, 2]), "input \"a\": 2 elements, where shape [3] takes another number");
        check(
            wrong(Dtype::U8, &[usize::MAX], &[1]),
            &format!("input \"a\": 1 elements, where shape [{}] takes another number", usize::MAX),
        );
        check(vec![a.clone(), tensor("b", Dtype::Bool, &[1], &[2])], "input \"b\": a BOOL is a byte 0 or 1");
        let texts = [port("t", Dtype::String, &[None])];
        let refused = for_ports(&texts, vec![tensor("t", Dtype::String, &[1], &[9, 0, 0, 0, b'x'])]);
        assert!(refused.is_err_and(|refusal| refusal.text.contains("5 bytes are not what shape [1] of BYTES takes")));
    }
}
