//! The protocol's names of element types.

use muster_shared::manifest::Dtype;

use crate::doors::refusal::Refusal;

/// What the protocol calls a type.
pub fn name(dtype: Dtype) -> &'static str {
    match dtype {
        Dtype::Bool => "BOOL",
        Dtype::U8 => "UINT8",
        Dtype::U16 => "UINT16",
        Dtype::U32 => "UINT32",
        Dtype::U64 => "UINT64",
        Dtype::I8 => "INT8",
        Dtype::I16 => "INT16",
        Dtype::I32 => "INT32",
        Dtype::I64 => "INT64",
        Dtype::F16 => "FP16",
        Dtype::F32 => "FP32",
        Dtype::F64 => "FP64",
        Dtype::String => "BYTES",
    }
}

/// The type that the protocol calls so.
pub fn dtype(name: &str) -> Result<Dtype, Refusal> {
    Ok(match name {
        "FP32" => Dtype::F32,
        "INT64" => Dtype::I64,
        "INT32" => Dtype::I32,
        "UINT8" => Dtype::U8,
        "BYTES" => Dtype::String,
        "BOOL" => Dtype::Bool,
        "FP16" => Dtype::F16,
        "FP64" => Dtype::F64,
        "INT8" => Dtype::I8,
        "INT16" => Dtype::I16,
        "UINT16" => Dtype::U16,
        "UINT32" => Dtype::U32,
        "UINT64" => Dtype::U64,
        "BF16" => {
            return Err(Refusal::bad("datatype BF16 is not supported: no model here takes or gives it; use FP32"));
        }
        other => {
            let shown: String = other.chars().take(40).collect();
            return Err(Refusal::bad(format!("{shown:?} is no datatype of the Open Inference Protocol")));
        }
    })
}

/// Its name and number in Triton's model configuration (`model_config.proto`).
pub fn in_config(dtype: Dtype) -> (&'static str, i32) {
    match dtype {
        Dtype::Bool => ("TYPE_BOOL", 1),
        Dtype::U8 => ("TYPE_UINT8", 2),
        Dtype::U16 => ("TYPE_UINT16", 3),
        Dtype::U32 => ("TYPE_UINT32", 4),
        Dtype::U64 => ("TYPE_UINT64", 5),
        Dtype::I8 => ("TYPE_INT8", 6),
        Dtype::I16 => ("TYPE_INT16", 7),
        Dtype::I32 => ("TYPE_INT32", 8),
        Dtype::I64 => ("TYPE_INT64", 9),
        Dtype::F16 => ("TYPE_FP16", 10),
        Dtype::F32 => ("TYPE_FP32", 11),
        Dtype::F64 => ("TYPE_FP64", 12),
        Dtype::String => ("TYPE_STRING", 13),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_type_has_a_name_and_comes_back() {
        let all = [
            Dtype::Bool,
            Dtype::U8,
            Dtype::U16,
            Dtype::U32,
            Dtype::U64,
            Dtype::I8,
            Dtype::I16,
            Dtype::I32,
            Dtype::I64,
            Dtype::F16,
            Dtype::F32,
            Dtype::F64,
            Dtype::String,
        ];
        for one in all {
            assert_eq!(dtype(name(one)), Ok(one));
        }
        for other in ["BF16", "FP8", "", "fp32", "STRING"] {
            assert!(dtype(other).is_err(), "{other}");
        }
    }
}
