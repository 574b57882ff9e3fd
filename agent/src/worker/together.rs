//! Runs several requests as rows of one, where the model allows it, and gives each its own rows back.
//!
//! Whether it does is not believed from the shapes alone: a free first size may be a time or a set,
//! over which the model looks. So made-up rows, small and large, are run alone and together first, and
//! requests run together only if that makes no difference.

use std::ops::Range;

use bytes::{Bytes, BytesMut};
use muster_shared::manifest::{Dtype, Port};

use super::golden;
use crate::engine::Model;
use crate::tensor::{Tensor, push_string};

/// Elements' bytes of requests that run as one: beyond, running them together gains little and costs memory.
pub const TOGETHER_BYTES_MAX: usize = 256 * 1024;
/// Rows of requests that run as one.
pub const TOGETHER_ROWS_MAX: usize = 1024;

/// How many rows a request has: the first size, where all its inputs agree on it.
pub fn rows(inputs: &[Tensor]) -> Option<usize> {
    let rows = *inputs.first()?.shape.first()?;
    inputs.iter().all(|input| input.shape.first() == Some(&rows)).then_some(rows)
}

/// Which of these requests run together: ranges of neighbours, in order, that cover all.
pub fn groups(requests: &[Vec<Tensor>], batches: bool, together_max: usize) -> Vec<Range<usize>> {
    let mut groups: Vec<Range<usize>> = vec![];
    let (mut bytes, mut all_rows) = (0, 0);
    for (at, request) in requests.iter().enumerate() {
        let size: usize = request.iter().map(|input| input.data.len()).sum();
        let joins = groups.last().is_some_and(|group| {
            batches
                && group.len() < together_max
                && bytes + size <= TOGETHER_BYTES_MAX
                && rows(request).is_some_and(|rows| rows > 0 && all_rows + rows <= TOGETHER_ROWS_MAX)
                && rows(&requests[group.start]).is_some_and(|rows| rows > 0)
                && alike(&requests[group.start], request)
        });
        match groups.last_mut() {
            Some(group) if joins => group.end = at + 1,
            _ => {
                groups.push(at..at + 1);
                (bytes, all_rows) = (0, 0);
            }
        }
        bytes += size;
        all_rows += rows(request).unwrap_or(0);
    }
    groups
}

/// Whether two requests differ in nothing but their number of rows.
fn alike(one: &[Tensor], other: &[Tensor]) -> bool {
    one.len() == other.len()
        && one.iter().zip(other).all(|(one, other)| one.dtype == other.dtype && one.shape[1..] == other.shape[1..])
}

/// Runs requests that [`groups`] put together. None: the outputs do not come apart into rows.
pub fn run(model: &dyn Model, requests: &[Vec<Tensor>]) -> Result<Option<Vec<Vec<Tensor>>>, String> {
    let outputs = model.run(&joined(requests)).map_err(|error| error.to_string())?;
    let counts: Vec<usize> = requests.iter().map(|request| rows(request).unwrap_or(0)).collect();
    let all = counts.iter().sum();
    if outputs.iter().any(|output| output.shape.first() != Some(&all)) {
        return Ok(None);
    }
    let mut answers: Vec<Vec<Tensor>> = counts.iter().map(|_| Vec::with_capacity(outputs.len())).collect();
    for output in outputs {
        let mut rest = output.data.clone();
        for (answer, rows) in answers.iter_mut().zip(&counts) {
            let mut shape = output.shape.clone();
            shape[0] = *rows;
            let data = rest.split_to(length(output.dtype, &shape, &rest));
            answer.push(Tensor { name: output.name.clone(), dtype: output.dtype, shape, data });
        }
    }
    Ok(Some(answers))
}

/// How many of these bytes are the first tensor of that shape.
fn length(dtype: Dtype, shape: &[usize], bytes: &[u8]) -> usize {
    let elements: usize = shape.iter().product();
    let length = match dtype.size_bytes() {
        Some(size) => elements * size,
        None => crate::tensor::strings(bytes).take(elements).map(|text| text.len() + 4).sum(),
    };
    length.min(bytes.len())
}

fn joined(requests: &[Vec<Tensor>]) -> Vec<Tensor> {
    let Some(first) = requests.first() else { return vec![] };
    (0..first.len())
        .map(|port| {
            let mut tensor = first[port].clone();
            let parts = requests.iter().map(|request| &request[port]);
            tensor.shape[0] = parts.clone().map(|part| part.shape[0]).sum();
            let mut data = BytesMut::with_capacity(parts.clone().map(|part| part.data.len()).sum());
            parts.for_each(|part| data.extend_from_slice(&part.data));
            tensor.data = data.freeze();
            tensor
        })
        .collect()
}

/// How far rows that ran together may be from the same rows alone, as a share of the number itself: the
/// order of sums differs.
const SAME_SHARE: f64 = 1e-3;
/// The same, as a share of the largest number of the output: where terms cancel out, little is left of them.
const SAME_SHARE_OF_LARGEST: f64 = 1e-6;
/// How large the numbers of the made-up rows are: models that see each other's rows only when those are
/// large, or unlike, are to be found out.
const MAGNITUDES: [f64; 4] = [1.0, 1000.0, 0.01, 30.0];

/// Whether requests may run together: different rows give the same alone as in pairs, in either order. More
/// than two would take memory that a model may not have been granted.
pub fn may_batch(model: &dyn Model) -> bool {
    let rows: Vec<Vec<Tensor>> = match model.has_rows() {
        true => (1..).zip(MAGNITUDES).map(|(seed, magnitude)| made_up(model.inputs(), seed, magnitude)).collect(),
        false => return false,
    };
    let bytes = |row: &Vec<Tensor>| row.iter().map(|input| input.data.len()).sum::<usize>();
    if rows.iter().any(|row| 2 * bytes(row) > TOGETHER_BYTES_MAX) {
        // Two never fit together.
        return false;
    }
    let mut alone = vec![];
    for row in &rows {
        let Ok(outputs) = model.run(row) else { return false };
        alone.push(outputs);
    }
    PAIRS.iter().all(|&(first, second)| {
        let Ok(Some(together)) = run(model, &[rows[first].clone(), rows[second].clone()]) else { return false };
        [first, second].iter().zip(&together).all(|(row, together)| {
            let alone = &alone[*row];
            alone.len() == together.len() && alone.iter().zip(together).all(|(one, other)| is_same(one, other))
        })
    })
}

/// Of the made-up rows, which run together.
const PAIRS: [(usize, usize); 5] = [(0, 1), (1, 0), (2, 3), (3, 2), (0, 2)];

fn is_same(alone: &Tensor, together: &Tensor) -> bool {
    if alone.shape != together.shape {
        return false;
    }
    if !matches!(alone.dtype, Dtype::F16 | Dtype::F32 | Dtype::F64) {
        return alone.data == together.data;
    }
    let largest = golden::numbers(alone).filter(|number| number.is_finite()).map(f64::abs).fold(0.0, f64::max);
    golden::numbers(alone).zip(golden::numbers(together)).all(|(one, other)| {
        let allowed = SAME_SHARE * one.abs() + SAME_SHARE_OF_LARGEST * largest;
        one == other || (one.is_nan() && other.is_nan()) || (one - other).abs() <= allowed
    })
}

/// A row of numbers of this size that differ with the seed and from element to element.
fn made_up(ports: &[Port], seed: u64, magnitude: f64) -> Vec<Tensor> {
    let mut state = seed;
    let mut next = move || {
        // A step of a linear congruential generator (Knuth's MMIX); any sequence without a pattern would do.
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) % 8
    };
    ports
        .iter()
        .map(|port| {
            let shape: Vec<usize> = port.shape.iter().map(|size| size.map_or(1, |size| size as usize)).collect();
            let mut data = vec![];
            for _ in 0..shape.iter().product::<usize>() {
                let value = next();
                let float = (value as f64 / 4.0 - 0.8) * magnitude;
                // Whole numbers are often indices: only small ones are in range.
                match port.dtype {
                    Dtype::Bool | Dtype::U8 | Dtype::I8 => data.push((value % 2) as u8),
                    Dtype::U16 | Dtype::I16 => data.extend((value as u16 % 2).to_le_bytes()),
                    Dtype::U32 | Dtype::I32 => data.extend((value as u32 % 2).to_le_bytes()),
                    Dtype::U64 | Dtype::I64 => data.extend((value % 2).to_le_bytes()),
                    Dtype::F16 => data.extend(half::f16::from_f64(float).to_le_bytes()),
                    Dtype::F32 => data.extend((float as f32).to_le_bytes()),
                    Dtype::F64 => data.extend(float.to_le_bytes()),
                    Dtype::String => push_string(&mut data, value.to_string().as_bytes()),
                }
            }
            Tensor { name: port.name.clone(), dtype: port.dtype, shape, data: Bytes::from(data) }
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::engine::EngineError;

    /// What a model does with all rows at once.
    struct Rows {
        ports: Vec<Port>,
        f: fn(&[f32]) -> Vec<f32>,
    }

    fn rows_model(f: fn(&[f32]) -> Vec<f32>) -> Rows {
        Rows { ports: vec![Port { name: "x".into(), dtype: Dtype::F32, shape: vec![None, Some(1)] }], f }
    }

    fn floats(tensor: &Tensor) -> Vec<f32> {
        tensor.data.as_chunks::<4>().0.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect()
    }

    fn tensor(values: &[f32]) -> Tensor {
        let data: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
        Tensor { name: "x".into(), dtype: Dtype::F32, shape: vec![values.len(), 1], data: data.into() }
    }

    impl Model for Rows {
        fn inputs(&self) -> &[Port] {
            &self.ports
        }

        fn outputs(&self) -> &[Port] {
            &self.ports
        }

        fn has_rows(&self) -> bool {
            true
        }

        fn run(&self, inputs: &[Tensor]) -> Result<Vec<Tensor>, EngineError> {
            Ok(vec![tensor(&(self.f)(&floats(&inputs[0])))])
        }
    }

    fn doubled(x: &[f32]) -> Vec<f32> {
        x.iter().map(|x| x * 2.0).collect()
    }

    #[test]
    fn a_model_that_looks_over_its_rows_does_not_batch() {
        assert!(may_batch(&rows_model(doubled)));
        let cumulative = |x: &[f32]| {
            x.iter()
                .scan(0.0, |sum, x| {
                    *sum += x;
                    Some(*sum)
                })
                .collect()
        };
        assert!(!may_batch(&rows_model(cumulative)), "a sum over time");
        let mean = |x: &[f32]| x.iter().map(|value| value - x.iter().sum::<f32>() / x.len() as f32).collect();
        assert!(!may_batch(&rows_model(mean)), "a mean over the set");
        assert!(!may_batch(&rows_model(|x| vec![x.iter().sum()])), "one row for all");
        let small = |x: &[f32]| (1..=x.len()).map(|end| x[..end].iter().sum::<f32>() * 1e-5).collect();
        assert!(!may_batch(&rows_model(small)), "a sum over time, in small units");
        let far = |x: &[f32]| {
            let mean = x.iter().sum::<f32>() / x.len() as f32;
            x.iter().map(|value| f32::from(u8::from(value - mean > 5.0))).collect()
        };
        assert!(!may_batch(&rows_model(far)), "whether a row is far from the others");
    }

    #[test]
    fn neighbours_that_are_alike_run_together_within_the_bounds() {
        let request = |rows: usize| vec![tensor(&vec![1.0; rows])];
        let requests = [request(1), request(2), request(1020), request(5), request(0), request(1)];
        assert_eq!(groups(&requests, true, 64), [0..3, 3..4, 4..5, 5..6]);
        assert_eq!(groups(&requests[..3], true, 2), [0..2, 2..3]);
        assert_eq!(groups(&requests[..2], false, 64), [0..1, 1..2]);
        let mut other = request(1);
        other[0].shape = vec![1, 1, 1];
        assert_eq!(groups(&[request(1), other], true, 64), [0..1, 1..2]);
        assert_eq!(groups(&[], true, 64), []);
    }

    proptest! {
        #[test]
        fn every_request_gets_its_own_rows(counts in prop::collection::vec(1usize..5, 1..20)) {
            let mut next = 0.0f32;
            let requests: Vec<Vec<Tensor>> = counts
                .iter()
                .map(|rows| vec![tensor(&(0..*rows).map(|_| { next += 1.0; next }).collect::<Vec<_>>())])
                .collect();
            let answers = run(&rows_model(doubled), &requests).expect("it runs").expect("rows");
            for (request, answer) in requests.iter().zip(answers) {
                prop_assert_eq!(doubled(&floats(&request[0])), floats(&answer[0]));
            }
        }
    }
}
