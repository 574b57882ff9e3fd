//! Models that scikit-learn trained, and files that are no models.

use muster_shared::manifest::Dtype;
use proptest::prelude::*;

use super::*;

fn fixture(model: &str, version: &str) -> Vec<u8> {
    let path = format!("{}/../tests/models/{model}/{version}/model.onnx", env!("CARGO_MANIFEST_DIR"));
    std::fs::read(&path).unwrap_or_else(|error| panic!("{path}: {error}"))
}

fn read(model: &str, version: &str) -> Model {
    Model::read(fixture(model, version)).expect("a model")
}

fn names(model: &Model) -> Vec<&str> {
    model.tensors.iter().map(|tensor| tensor.name.as_str()).collect()
}

#[test]
fn a_linear_regression_keeps_its_weights_in_attributes() {
    let model = read("linear_regression", "v1");
    assert_eq!(model.inputs, [Port { name: "x".into(), dtype: Dtype::F32, shape: vec![None, Some(10)] }]);
    assert_eq!(model.outputs, [Port { name: "y".into(), dtype: Dtype::F32, shape: vec![None, Some(1)] }]);
    assert_eq!(names(&model), ["LinearRegressor/coefficients", "LinearRegressor/intercepts"]);
    assert_eq!(describe(&model.inputs[0]), "x f32[?, 10]");
}

#[test]
fn two_trainings_of_one_network_share_f_and_differ_in_theta() {
    let (one, two) = (read("linear_regression", "v1"), read("linear_regression", "v2"));
    assert_eq!(one.graph, two.graph);
    assert_ne!(one.weights, two.weights);
    let (one, two) = (read("digits", "v1"), read("digits", "v2"));
    assert_ne!(one.graph, two.graph, "another width and another activation are another f");
    let sha256 = |model: &Model, name: &str| model.tensors.iter().find(|tensor| tensor.name == name).map(|t| t.sha256);
    assert_eq!(sha256(&one, "classes"), sha256(&two, "classes"));
    assert_ne!(sha256(&one, "coefficient"), sha256(&two, "coefficient"));
}

#[test]
fn a_network_keeps_its_weights_in_initialisers() {
    let model = read("digits", "v1");
    let wanted = ["classes", "coefficient", "coefficient1", "intercepts", "intercepts1", "shape_tensor"];
    assert_eq!(names(&model), wanted);
    let outputs: Vec<String> = model.outputs.iter().map(describe).collect();
    assert_eq!(outputs, ["label i64[?]", "probabilities f32[?, 10]"]);
}

/// These digests stand in signed manifests: another encoding of f or θ would make every old bundle
/// look changed.
#[test]
fn the_digests_of_f_and_theta_stay_what_they_are() {
    let graph = read("digits", "v1").graph;
    assert_eq!(graph.to_string(), "ca39fd461b0dc66429fd93ad371677f4900c1c5145b3bf1475379bf8382f48da");
    let floats = tensor::take_floats(&mut vec![1.0, 2.0]);
    let by_hand = [&1i32.to_le_bytes()[..], &1u64.to_le_bytes(), &2i64.to_le_bytes(), &[0, 0, 128, 63, 0, 0, 0, 64]];
    assert_eq!(floats, Digest::of(by_hand.concat()));
}

#[test]
fn who_exported_the_model_is_no_part_of_f() {
    let file = fixture("linear_regression", "v1");
    let at = file.windows(8).position(|window| window == b"skl2onnx").expect("the producer's name");
    let mut other = file.clone();
    other[at] = b'S';
    let graph_name = file.windows(17).rposition(|window| window == b"linear_regression").expect("the graph's name");
    other[graph_name] = b'L';
    assert_ne!(file, other);
    assert_eq!(Model::read(file), Model::read(other));
}

#[test]
fn what_is_no_model_is_refused() {
    for file in [&b""[..], b"PK\x03\x04 a zip", b"{\"json\": true}", &[0x08, 0x08], &[0xff; 100]] {
        assert!(matches!(Model::read(file.to_vec()), Err(OnnxError::NotOnnx(_))), "{file:?}");
    }
    let model = fixture("digits", "v1");
    assert!(Model::read(model[..model.len() / 2].to_vec()).is_err());
}

#[test]
fn many_tensors_are_folded_into_the_last() {
    let tensors: Vec<TensorDigest> =
        (0..10).map(|at| TensorDigest { name: format!("t{at}"), sha256: Digest::of([at]) }).collect();
    assert_eq!(fold(tensors.clone(), 10, 10_000), tensors);
    let folded = fold(tensors.clone(), 4, 10_000);
    assert_eq!(folded[..3], tensors[..3]);
    assert_eq!(folded[3], TensorDigest { name: "t3 and 6 more".into(), sha256: weights_digest(&tensors[3..]) });
    assert!(folded.is_sorted());
    let bounded = fold(tensors, 10, 5 * (TENSOR_ENTRY_BYTES + 2));
    assert_eq!(bounded.len(), 6);
}

proptest! {
    #[test]
    fn arbitrary_bytes_return(bytes in proptest::collection::vec(any::<u8>(), 0..512)) {
        let _ = Model::read(bytes);
    }

    #[test]
    fn a_damaged_model_returns(at in 0usize..10_000, bit in 0u8..8, keep in 0usize..10_692) {
        let mut file = fixture("digits", "v1");
        let at = at % file.len();
        file[at] ^= 1 << bit;
        file.truncate(keep.max(1));
        let _ = Model::read(file);
    }
}
