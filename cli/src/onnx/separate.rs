//! Takes θ out of a model, tensor by tensor, so that f is left.
//!
//! θ is every initialiser, and every tensor, sparse tensor and list of floats among the nodes'
//! attributes (a `LinearRegressor` keeps its coefficients there), also in subgraphs and functions.
//! Lists of integers and texts belong to f: they say how a tree branches, not by how much.

use std::collections::BTreeMap;

use muster_shared::Digest;
use muster_shared::manifest::TensorDigest;

use super::proto::{AttributeProto, GraphProto, ModelProto, NodeProto, SparseTensorProto};
use super::{OnnxError, tensor};

/// θ, sorted by name. `model` is f afterwards: what has no part in y = f(x; θ) is gone too.
pub fn separate(model: &mut ModelProto) -> Result<Vec<TensorDigest>, OnnxError> {
    let mut weights = Weights::default();
    if let Some(graph) = &mut model.graph {
        weights.take_from_graph(graph, "")?;
    }
    for function in &mut model.functions {
        let name = function.name.clone().unwrap_or_default();
        weights.take_from_nodes(&mut function.node, &format!("{name}/"))?;
        for attribute in &mut function.attribute_proto {
            weights.take_from_attribute(attribute, &format!("{name}/"))?;
        }
    }
    let named = weights.found.into_iter();
    Ok(named.map(|(name, sha256)| TensorDigest { name, sha256 }).collect())
}

#[derive(Default)]
struct Weights {
    found: BTreeMap<String, Digest>,
    /// How often a name came already, for names that come more than once.
    repeated: BTreeMap<String, usize>,
}

impl Weights {
    fn take_from_graph(&mut self, graph: &mut GraphProto, prefix: &str) -> Result<(), OnnxError> {
        for initializer in &mut graph.initializer {
            let name = format!("{prefix}{}", initializer.name());
            let digest = tensor::take(initializer, &name)?;
            self.add(name, digest);
        }
        for sparse in &mut graph.sparse_initializer {
            let name = format!("{prefix}{}", sparse.values.as_ref().map_or("", |values| values.name()));
            self.take_sparse(sparse, name)?;
        }
        // Their order means nothing: they are found by name.
        graph.initializer.sort_by(|left, right| left.name.cmp(&right.name));
        self.take_from_nodes(&mut graph.node, prefix)
    }

    fn take_from_nodes(&mut self, nodes: &mut [NodeProto], prefix: &str) -> Result<(), OnnxError> {
        for (at, node) in nodes.iter_mut().enumerate() {
            let node_name = match node.name() {
                "" => format!("{prefix}node-{at}/"),
                name => format!("{prefix}{name}/"),
            };
            for attribute in &mut node.attribute {
                self.take_from_attribute(attribute, &node_name)?;
            }
        }
        Ok(())
    }

    fn take_from_attribute(&mut self, attribute: &mut AttributeProto, prefix: &str) -> Result<(), OnnxError> {
        let name = format!("{prefix}{}", attribute.name());
        if !attribute.floats.is_empty() {
            let digest = tensor::take_floats(&mut attribute.floats);
            self.add(name.clone(), digest);
        }
        if let Some(tensor) = &mut attribute.t {
            let digest = tensor::take(tensor, &name)?;
            self.add(name.clone(), digest);
        }
        for (at, tensor) in attribute.tensors.iter_mut().enumerate() {
            let name = format!("{name}/{at}");
            let digest = tensor::take(tensor, &name)?;
            self.add(name, digest);
        }
        if let Some(sparse) = &mut attribute.sparse_tensor {
            self.take_sparse(sparse, name.clone())?;
        }
        for (at, sparse) in attribute.sparse_tensors.iter_mut().enumerate() {
            self.take_sparse(sparse, format!("{name}/{at}"))?;
        }
        if let Some(graph) = &mut attribute.g {
            self.take_from_graph(graph, &format!("{name}/"))?;
        }
        for (at, graph) in attribute.graphs.iter_mut().enumerate() {
            self.take_from_graph(graph, &format!("{name}/{at}/"))?;
        }
        Ok(())
    }

    fn take_sparse(&mut self, sparse: &mut SparseTensorProto, name: String) -> Result<(), OnnxError> {
        let digest = tensor::take_sparse(sparse, &name)?;
        self.add(name, digest);
        Ok(())
    }

    /// Names must be unique, but nothing in ONNX makes node names so: the second `a` is `a#2`.
    fn add(&mut self, name: String, digest: Digest) {
        let mut unique = name.clone();
        while self.found.contains_key(&unique) {
            let times = self.repeated.entry(name.clone()).or_insert(1);
            *times += 1;
            unique = format!("{name}#{times}");
        }
        self.found.insert(unique, digest);
    }
}

#[cfg(test)]
mod tests {
    use prost::Message as _;

    use super::super::proto::TensorProto;
    use super::*;

    fn float(name: &str, value: f32) -> TensorProto {
        let name = (!name.is_empty()).then(|| name.to_owned());
        TensorProto { data_type: Some(1), dims: vec![1], float_data: vec![value], name, ..TensorProto::default() }
    }

    fn attribute(name: &str) -> AttributeProto {
        AttributeProto { name: Some(name.into()), ..AttributeProto::default() }
    }

    fn model(value: f32) -> ModelProto {
        let inner = GraphProto { initializer: vec![float("w", value)], ..GraphProto::default() };
        let constant = NodeProto {
            op_type: Some("Constant".into()),
            attribute: vec![AttributeProto { t: Some(float("", value)), ..attribute("value") }],
            ..NodeProto::default()
        };
        let branch = NodeProto {
            name: Some("if".into()),
            attribute: vec![AttributeProto { g: Some(inner), ..attribute("then") }],
            ..NodeProto::default()
        };
        let regressor = NodeProto {
            name: Some("if".into()),
            attribute: vec![
                AttributeProto { floats: vec![value], ..attribute("coefficients") },
                AttributeProto { ints: vec![3], ..attribute("targets") },
                AttributeProto { tensors: vec![float("", value), float("", 2.0)], ..attribute("list") },
            ],
            ..NodeProto::default()
        };
        let sparse = SparseTensorProto {
            values: Some(float("sparse", value)),
            indices: Some(TensorProto {
                data_type: Some(7),
                dims: vec![1],
                int64_data: vec![4],
                ..TensorProto::default()
            }),
            dims: vec![9],
        };
        let graph = GraphProto {
            node: vec![constant, branch, regressor],
            initializer: vec![float("w", value), float("b", 1.0), float("w", 0.0)],
            sparse_initializer: vec![sparse],
            ..GraphProto::default()
        };
        ModelProto { ir_version: Some(8), graph: Some(graph), ..ModelProto::default() }
    }

    #[test]
    fn every_place_of_a_weight_is_found_and_named_once() {
        let mut f = model(1.0);
        let names: Vec<String> = separate(&mut f).expect("separates").into_iter().map(|tensor| tensor.name).collect();
        let wanted =
            ["b", "if/coefficients", "if/list/0", "if/list/1", "if/then/w", "node-0/value", "sparse", "w", "w#2"];
        assert_eq!(names, wanted);
    }

    #[test]
    fn other_weights_leave_the_same_f() {
        let (mut one, mut two) = (model(1.0), model(2.0));
        let (old, new) = (separate(&mut one).expect("one"), separate(&mut two).expect("two"));
        assert_eq!(one.encode_to_vec(), two.encode_to_vec());
        let changed: Vec<&str> =
            old.iter().zip(&new).filter(|(old, new)| old != new).map(|(old, _)| old.name.as_str()).collect();
        assert_eq!(changed, ["if/coefficients", "if/list/0", "if/then/w", "node-0/value", "sparse", "w"]);
        let mut other = model(1.0);
        if let Some(graph) = &mut other.graph {
            graph.node[2].attribute[1].ints = vec![4];
        }
        separate(&mut other).expect("other");
        assert_ne!(one.encode_to_vec(), other.encode_to_vec(), "integers belong to f");
    }
}
