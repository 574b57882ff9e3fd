//! ONNX files made by hand, field by field (onnx.ai/onnx/repo-docs/IR.html): models of one purpose
//! that no training would give.

/// ONNX's numbers for element types and kinds of attributes.
pub const FLOAT: u64 = 1;
/// See [`FLOAT`].
pub const STRING: u64 = 8;
/// See [`FLOAT`].
pub const INT64: u64 = 7;
/// See [`FLOAT`].
pub const INT: u64 = 2;
/// See [`FLOAT`].
pub const INTS: u64 = 7;

/// A graph in the making.
#[derive(Debug, Default)]
pub struct Graph {
    fields: Vec<u8>,
}

impl Graph {
    /// Adds a node.
    pub fn node(mut self, operator: &str, inputs: &[&str], output: &str) -> Self {
        self.fields.extend(field(1, &node(operator, inputs, output, &[])));
        self
    }

    /// Adds a constant of floats.
    pub fn constant(mut self, name: &str, dimensions: &[u64], values: &[f32]) -> Self {
        let bytes: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
        self.fields.extend(field(5, &tensor(name, FLOAT, dimensions, &bytes)));
        self
    }

    /// Names an input of floats; a size of 0 is an open one.
    pub fn input(self, name: &str, dimensions: &[u64]) -> Self {
        self.input_of(FLOAT, name, dimensions)
    }

    /// Names an output of floats.
    pub fn output(self, name: &str, dimensions: &[u64]) -> Self {
        self.output_of(FLOAT, name, dimensions)
    }

    /// Names an input of another type.
    pub fn input_of(mut self, kind: u64, name: &str, dimensions: &[u64]) -> Self {
        self.fields.extend(field(11, &value_info(kind, name, dimensions)));
        self
    }

    /// Names an output of another type.
    pub fn output_of(mut self, kind: u64, name: &str, dimensions: &[u64]) -> Self {
        self.fields.extend(field(12, &value_info(kind, name, dimensions)));
        self
    }

    /// The whole file.
    pub fn file(self) -> Vec<u8> {
        let opset = field(8, &[field(1, b""), field_number(2, 13)].concat());
        let graph = [self.fields, field(2, b"graph")].concat();
        [field_number(1, 8), opset, field(7, &graph)].concat()
    }
}

/// A `ValueInfoProto`.
fn value_info(kind: u64, name: &str, dimensions: &[u64]) -> Vec<u8> {
    let size = |size: &u64| match size {
        0 => field(1, &field(2, b"N")),
        size => field(1, &field_number(1, *size)),
    };
    let shape: Vec<u8> = dimensions.iter().flat_map(size).collect();
    let tensor = [field_number(1, kind), field(2, &shape)].concat();
    [field(1, name.as_bytes()), field(2, &field(1, &tensor))].concat()
}

/// A `NodeProto`.
pub fn node(operator: &str, inputs: &[&str], output: &str, attribute: &[u8]) -> Vec<u8> {
    let inputs = inputs.iter().flat_map(|input| field(1, input.as_bytes())).collect();
    let name = field(3, format!("{output}_node").as_bytes());
    let attribute = if attribute.is_empty() { vec![] } else { field(5, attribute) };
    [inputs, field(2, output.as_bytes()), name, field(4, operator.as_bytes()), attribute].concat()
}

/// An `AttributeProto` with this value and kind.
pub fn attribute(name: &str, value: &[u8]) -> Vec<u8> {
    [&field(1, name.as_bytes()), value].concat()
}

/// A `TensorProto`.
pub fn tensor(name: &str, kind: u64, dimensions: &[u64], bytes: &[u8]) -> Vec<u8> {
    let dimensions = dimensions.iter().flat_map(|size| field_number(1, *size)).collect();
    [dimensions, field_number(2, kind), field(8, name.as_bytes()), field(9, bytes)].concat()
}

/// A protobuf field that holds a number.
pub fn field_number(number: u32, value: u64) -> Vec<u8> {
    [varint(u64::from(number << 3)), varint(value)].concat()
}

/// A length-delimited protobuf field.
pub fn field(number: u32, bytes: &[u8]) -> Vec<u8> {
    let mut out = varint(u64::from(number << 3 | 2));
    out.extend(varint(bytes.len() as u64));
    out.extend(bytes);
    out
}

/// A number as protobuf writes it.
pub fn varint(mut value: u64) -> Vec<u8> {
    let mut out = vec![];
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
    out
}
