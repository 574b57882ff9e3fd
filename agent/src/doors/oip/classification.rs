//! Triton's classification extension: instead of an output its highest elements, each as
//! `value:index`. No model here has labels for its classes.

use half::f16;
use muster_shared::manifest::Dtype;

use super::datatypes;
use crate::doors::refusal::Refusal;
use crate::tensor::{Tensor, push_string};

/// An output with more elements is not sorted.
const ELEMENTS_MAX: usize = 1_000_000;

/// The `classes` highest elements of each row, where the model takes rows; else of the whole output.
pub fn highest(output: &Tensor, classes: usize, rows: bool) -> Result<Tensor, Refusal> {
    let count = output.elements();
    let Some(size) = output.dtype.size_bytes().filter(|_| output.dtype != Dtype::Bool) else {
        let name = datatypes::name(output.dtype);
        return Err(Refusal::bad(format!("output {:?}: there are no classes of datatype {name}", output.name)));
    };
    if count > ELEMENTS_MAX {
        return Err(Refusal::bad(format!("output {:?}: {count} elements are too many for classes", output.name)));
    }
    let batch = output.shape.first().copied().filter(|_| rows);
    let row = match batch {
        Some(0) => 0,
        Some(batch) => count / batch,
        None => count,
    };
    let taken = classes.min(row);
    let mut data = vec![];
    // No row: nothing to divide into chunks, either.
    for row in output.data.chunks_exact((row * size).max(1)) {
        for (index, text) in of_row(output.dtype, row, taken) {
            push_string(&mut data, format!("{text}:{index}").as_bytes());
        }
    }
    let shape = batch.into_iter().chain([taken]).collect();
    Ok(Tensor { name: output.name.clone(), dtype: Dtype::String, shape, data: data.into() })
}

/// Index and text of the highest elements, the highest first; of equals the first one first.
fn of_row(dtype: Dtype, row: &[u8], taken: usize) -> Vec<(usize, String)> {
    macro_rules! integers {
        ($type:ty) => {
            top(elements(row, <$type>::from_le_bytes), taken, <$type>::cmp, |value| value.to_string())
        };
    }
    match dtype {
        Dtype::U8 => integers!(u8),
        Dtype::U16 => integers!(u16),
        Dtype::U32 => integers!(u32),
        Dtype::U64 => integers!(u64),
        Dtype::I8 => integers!(i8),
        Dtype::I16 => integers!(i16),
        Dtype::I32 => integers!(i32),
        Dtype::I64 => integers!(i64),
        Dtype::F16 => top(elements(row, |bytes| f16::from_le_bytes(bytes).to_f64()), taken, order, float),
        Dtype::F32 => top(elements(row, |bytes| f64::from(f32::from_le_bytes(bytes))), taken, order, float),
        Dtype::F64 => top(elements(row, f64::from_le_bytes), taken, order, float),
        // Refused before.
        Dtype::Bool | Dtype::String => vec![],
    }
}

fn elements<T, const N: usize>(row: &[u8], read: impl Fn([u8; N]) -> T) -> Vec<T> {
    let (chunks, _) = row.as_chunks::<N>();
    chunks.iter().map(|bytes| read(*bytes)).collect()
}

fn top<T>(
    values: Vec<T>,
    taken: usize,
    order: impl Fn(&T, &T) -> std::cmp::Ordering,
    text: impl Fn(&T) -> String,
) -> Vec<(usize, String)> {
    let mut indices: Vec<usize> = (0..values.len()).collect();
    indices.sort_by(|one, other| order(&values[*other], &values[*one]));
    indices.into_iter().take(taken).map(|index| (index, text(&values[index]))).collect()
}

/// What is not a number is the lowest.
fn order(one: &f64, other: &f64) -> std::cmp::Ordering {
    other.is_nan().cmp(&one.is_nan()).then_with(|| one.total_cmp(other))
}

/// With six decimals, as C++'s `std::to_string` and so Triton writes it.
fn float(value: &f64) -> String {
    if value.is_nan() { "nan".to_owned() } else { format!("{value:.6}") }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tensor::strings;

    fn floats(shape: &[usize], values: &[f32]) -> Tensor {
        let data = values.iter().flat_map(|value| value.to_le_bytes()).collect::<Vec<u8>>().into();
        Tensor { name: "y".into(), dtype: Dtype::F32, shape: shape.to_vec(), data }
    }

    fn check(output: &Tensor, classes: usize, rows: bool, shape: &[usize], texts: &[&str]) {
        let tensor = highest(output, classes, rows).expect("classes");
        let found: Vec<_> = strings(&tensor.data).map(|text| String::from_utf8_lossy(text).into_owned()).collect();
        assert_eq!((tensor.shape.as_slice(), found), (shape, texts.iter().map(|text| text.to_string()).collect()));
        assert!(tensor.is_sound());
    }

    #[test]
    fn the_highest_come_first_in_tritons_form() {
        let four = floats(&[4], &[1.1, 3.3, 0.5, 2.4]);
        check(&four, 2, false, &[2], &["3.300000:1", "2.400000:3"]);
        check(&four, 9, false, &[4], &["3.300000:1", "2.400000:3", "1.100000:0", "0.500000:2"]);
        let rows = floats(&[2, 2], &[1.0, 2.0, 4.0, 3.0]);
        check(&rows, 1, true, &[2, 1], &["2.000000:1", "4.000000:0"]);
        check(&rows, 1, false, &[1], &["4.000000:2"]);
        check(&floats(&[2], &[f32::NAN, f32::NEG_INFINITY]), 2, false, &[2], &["-inf:1", "nan:0"]);
        check(&floats(&[], &[7.0]), 3, false, &[1], &["7.000000:0"]);
        check(&floats(&[0, 3], &[]), 2, true, &[0, 0], &[]);
        let data = [5u8, 9, 9].to_vec().into();
        let bytes = Tensor { name: "y".into(), dtype: Dtype::U8, shape: vec![3], data };
        check(&bytes, 2, false, &[2], &["9:1", "9:2"]);
        let words = Tensor { dtype: Dtype::Bool, ..bytes };
        assert!(highest(&words, 1, false).is_err());
    }
}
