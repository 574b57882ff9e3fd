//! The digest of one tensor: over its type, shape and values, wherever the file keeps the values.
//!
//! Digested are the element type (i32), the rank (u64), each dimension (i64), all little-endian,
//! then the values as `raw_data` has them: little-endian, row by row. A tensor of strings has each
//! string's length (u64) before it.

use muster_shared::Digest;
use muster_shared::digest::Hasher;

use super::proto::{SparseTensorProto, TensorProto};
use super::{OnnxError, elem_type};

/// Values that are turned into bytes at once.
const VALUES_AT_ONCE: usize = 4096;
/// `TensorProto.DataLocation.EXTERNAL`.
const EXTERNAL: i32 = 1;

/// Takes the values out of a tensor, and gives the digest of what it was.
pub fn take(tensor: &mut TensorProto, name: &str) -> Result<Digest, OnnxError> {
    if tensor.data_location == Some(EXTERNAL) || !tensor.external_data.is_empty() {
        return Err(OnnxError::ExternalData { tensor: name.to_owned() });
    }
    let digest = digest(tensor, name)?;
    let (dims, data_type) = (std::mem::take(&mut tensor.dims), tensor.data_type);
    *tensor = TensorProto { dims, data_type, name: tensor.name.take(), ..TensorProto::default() };
    Ok(digest)
}

/// Takes the values and their places out of a sparse tensor, and gives the digest of what it was.
pub fn take_sparse(sparse: &mut SparseTensorProto, name: &str) -> Result<Digest, OnnxError> {
    let mut hasher = Hasher::new();
    hasher.update("sparse");
    shape(&mut hasher, &sparse.dims);
    for part in [&mut sparse.values, &mut sparse.indices] {
        let tensor = part.as_mut().ok_or_else(|| bad(name, "a sparse tensor lacks its values or indices"))?;
        hasher.update(take(tensor, name)?.0);
        // How many values are not zero is a matter of θ.
        tensor.dims.clear();
    }
    Ok(hasher.finish())
}

/// The digest of numbers that a node keeps in a list of floats: the same as of a tensor of rank 1.
pub fn take_floats(floats: &mut Vec<f32>) -> Digest {
    let mut hasher = Hasher::new();
    hasher.update(elem_type::FLOAT.to_le_bytes());
    shape(&mut hasher, &[i64::try_from(floats.len()).unwrap_or(i64::MAX)]);
    numbers(&mut hasher, &std::mem::take(floats), f32::to_le_bytes);
    hasher.finish()
}

fn digest(tensor: &TensorProto, name: &str) -> Result<Digest, OnnxError> {
    let data_type = tensor.data_type.unwrap_or(elem_type::UNDEFINED);
    let mut hasher = Hasher::new();
    hasher.update(data_type.to_le_bytes());
    shape(&mut hasher, &tensor.dims);
    let count = count(&tensor.dims).ok_or_else(|| bad(name, "its shape is negative or too large"))?;
    let found = match &tensor.raw_data {
        Some(raw) if data_type != elem_type::STRING => {
            hasher.update(raw);
            raw.len() as u64
        }
        _ => typed_values(&mut hasher, tensor, data_type, name)?,
    };
    let wanted = match elem_type::bytes(data_type) {
        Some(width) => count.checked_mul(width),
        // Values smaller than a byte are packed in more than one way.
        None => Some(found),
    };
    if wanted != Some(found) {
        return Err(bad(name, "its data does not fill its shape"));
    }
    Ok(hasher.finish())
}

/// Feeds the values from the field of the tensor's element type; the number of bytes they stand
/// for. Strings count as one byte each.
fn typed_values(hasher: &mut Hasher, tensor: &TensorProto, data_type: i32, name: &str) -> Result<u64, OnnxError> {
    let bytes = match data_type {
        elem_type::FLOAT | elem_type::COMPLEX64 => numbers(hasher, &tensor.float_data, f32::to_le_bytes),
        elem_type::DOUBLE | elem_type::COMPLEX128 => numbers(hasher, &tensor.double_data, f64::to_le_bytes),
        elem_type::INT64 => numbers(hasher, &tensor.int64_data, i64::to_le_bytes),
        elem_type::UINT64 => numbers(hasher, &tensor.uint64_data, u64::to_le_bytes),
        // Narrower types stand in wider fields; the low bytes are theirs.
        elem_type::UINT32 => numbers(hasher, &tensor.uint64_data, |value| low::<8, 4>(value.to_le_bytes())),
        elem_type::INT32 => numbers(hasher, &tensor.int32_data, i32::to_le_bytes),
        elem_type::INT16 | elem_type::UINT16 | elem_type::FLOAT16 | elem_type::BFLOAT16 => {
            numbers(hasher, &tensor.int32_data, |value| low::<4, 2>(value.to_le_bytes()))
        }
        elem_type::STRING => {
            for text in &tensor.string_data {
                hasher.update((text.len() as u64).to_le_bytes());
                hasher.update(text);
            }
            tensor.string_data.len() as u64
        }
        known if elem_type::is_known(known) => {
            numbers(hasher, &tensor.int32_data, |value| low::<4, 1>(value.to_le_bytes()))
        }
        _ => return Err(bad(name, "its element type is unknown")),
    };
    Ok(bytes)
}

fn shape(hasher: &mut Hasher, dims: &[i64]) {
    hasher.update((dims.len() as u64).to_le_bytes());
    dims.iter().for_each(|dim| hasher.update(dim.to_le_bytes()));
}

fn numbers<T: Copy, const N: usize>(hasher: &mut Hasher, values: &[T], to_bytes: impl Fn(T) -> [u8; N]) -> u64 {
    for some in values.chunks(VALUES_AT_ONCE) {
        hasher.update(some.iter().flat_map(|value| to_bytes(*value)).collect::<Vec<u8>>());
    }
    (values.len() * N) as u64
}

fn low<const N: usize, const M: usize>(bytes: [u8; N]) -> [u8; M] {
    std::array::from_fn(|at| bytes[at])
}

fn count(dims: &[i64]) -> Option<u64> {
    dims.iter().try_fold(1u64, |count, dim| count.checked_mul(u64::try_from(*dim).ok()?))
}

fn bad(name: &str, why: &'static str) -> OnnxError {
    OnnxError::BadTensor { tensor: name.to_owned(), why }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tensor(data_type: i32, dims: &[i64]) -> TensorProto {
        TensorProto { dims: dims.to_vec(), data_type: Some(data_type), ..TensorProto::default() }
    }

    fn raw(data_type: i32, dims: &[i64], bytes: &[u8]) -> TensorProto {
        TensorProto { raw_data: Some(bytes.to_vec().into()), ..tensor(data_type, dims) }
    }

    fn check(typed: TensorProto, bytes: &[u8]) {
        let (data_type, dims) = (typed.data_type.expect("a type"), typed.dims.clone());
        let mut typed = typed;
        let mut raw = raw(data_type, &dims, bytes);
        let digest = take(&mut typed, "w").expect("typed");
        assert_eq!(Ok(digest), take(&mut raw, "w"), "type {data_type}");
        assert_eq!(typed, raw, "the same is left of both");
        assert_eq!(typed, tensor(data_type, &dims));
    }

    #[test]
    fn the_same_values_have_one_digest_wherever_they_stand() {
        check(TensorProto { float_data: vec![1.0, -0.0], ..tensor(1, &[2]) }, &[0, 0, 128, 63, 0, 0, 0, 128]);
        check(TensorProto { int32_data: vec![-1, 2], ..tensor(5, &[2, 1]) }, &[255, 255, 2, 0]);
        check(TensorProto { int32_data: vec![1, 0], ..tensor(9, &[2]) }, &[1, 0]);
        check(TensorProto { int32_data: vec![0x3c00], ..tensor(10, &[]) }, &[0, 0x3c]);
        check(TensorProto { int64_data: vec![-2], ..tensor(7, &[1]) }, &(-2i64).to_le_bytes());
        check(TensorProto { uint64_data: vec![7], ..tensor(12, &[1]) }, &[7, 0, 0, 0]);
        check(TensorProto { double_data: vec![0.5], ..tensor(11, &[1]) }, &0.5f64.to_le_bytes());
        check(TensorProto { int32_data: vec![0x21], ..tensor(22, &[2]) }, &[0x21]);
    }

    #[test]
    fn another_type_shape_or_value_is_another_digest() {
        let digest = |data_type, dims: &[i64], bytes: &[u8]| take(&mut raw(data_type, dims, bytes), "w");
        let base = digest(1, &[2], &[0; 8]).expect("a digest");
        assert_ne!(Ok(base), digest(6, &[2], &[0; 8]));
        assert_ne!(Ok(base), digest(1, &[1, 2], &[0; 8]));
        assert_ne!(Ok(base), digest(1, &[2], &[0, 0, 0, 0, 0, 0, 0, 1]));
        let mut floats = vec![0.0, 0.0];
        assert_eq!(base, take_floats(&mut floats));
        assert!(floats.is_empty());
    }

    #[test]
    fn a_tensor_that_lacks_data_or_keeps_it_elsewhere_is_refused() {
        for dims in [&[3][..], &[-1], &[i64::MAX, i64::MAX]] {
            assert!(matches!(take(&mut raw(1, dims, &[0; 8]), "w"), Err(OnnxError::BadTensor { .. })), "{dims:?}");
        }
        assert!(take(&mut tensor(99, &[0]), "w").is_err());
        let mut external = TensorProto { data_location: Some(EXTERNAL), ..tensor(1, &[2]) };
        assert_eq!(take(&mut external, "w"), Err(OnnxError::ExternalData { tensor: "w".into() }));
    }
}
