"""Trains the small models that Muster's end-to-end tests run, and exports them to ONNX.

    python train.py            write every model into this folder
    python train.py --check    train again in a temporary folder and compare with this folder

Each version of each model becomes a folder `<model>/<version>/` with three files:

    model.onnx     the model; its input is "x", float32 [N, features]
    golden.json    batches and the outputs that a device must give for them
    heldout.json   rows that were kept out of training, with the predictions for them

Every number in golden.json and heldout.json is computed by scikit-learn itself, in float64, and
never by an ONNX runtime. See README.md.
"""

import argparse
import json
import sys
import tempfile
from pathlib import Path

import numpy as np
import onnx
from onnx.reference import ReferenceEvaluator
from skl2onnx import convert_sklearn
from skl2onnx.common.data_types import FloatTensorType
from sklearn.base import is_classifier
from sklearn.datasets import load_diabetes, load_digits
from sklearn.linear_model import LinearRegression, Ridge
from sklearn.model_selection import train_test_split
from sklearn.neural_network import MLPClassifier
from threadpoolctl import threadpool_limits

HERE = Path(__file__).resolve().parent

# The newest operator set that a model may use.
OPSET = 17

# How far an output of the exported float32 model may lie from scikit-learn's own.
TOLERANCE = {"absolute": 1e-4, "relative": 1e-4}

# How far a second training may lie from the first: the same computation, but perhaps on another
# processor, whose linear algebra rounds differently.
RETRAIN_TOLERANCE = {"absolute": 1e-5, "relative": 1e-5}

# Held-out rows: these batches go to golden.json, and the rows after them to heldout.json.
GOLDEN_BATCHES = [1, 3, 8]
HELDOUT_ROWS = 60

DATA_SETS = {
    "linear_regression": load_diabetes,
    "digits": load_digits,
}

# The lowest score on the held-out rows that is accepted: R^2, or the share of right classes.
LOWEST_SCORE = {
    "linear_regression": 0.3,
    "digits": 0.95,
}


def estimators():
    """The untrained estimator of every (model, version)."""
    return {
        ("linear_regression", "v1"): LinearRegression(),
        ("linear_regression", "v2"): Ridge(alpha=1.0),
        ("digits", "v1"): MLPClassifier(
            hidden_layer_sizes=(32,), activation="relu", alpha=0.01, max_iter=500, random_state=0
        ),
        ("digits", "v2"): MLPClassifier(
            hidden_layer_sizes=(48,), activation="tanh", alpha=1.0, max_iter=500, random_state=2
        ),
    }


def load_split(model):
    """The rows of a model's data set, split in the same way for every version of the model.

    The features are rounded to float32 first, so that scikit-learn and the exported model see
    exactly the same numbers.
    """
    features, targets = DATA_SETS[model](return_X_y=True)
    features = features.astype(np.float32).astype(np.float64)
    stratify = targets if model == "digits" else None
    return train_test_split(features, targets, test_size=0.2, random_state=0, stratify=stratify)


def predict(estimator, rows):
    """scikit-learn's own outputs for a batch of rows, under the names of the ONNX outputs."""
    if is_classifier(estimator):
        return {"label": estimator.predict(rows), "probabilities": estimator.predict_proba(rows)}
    return {"y": estimator.predict(rows).reshape(-1, 1)}


def export(estimator, model, features):
    """The trained estimator as an ONNX model with friendly names and a batch dimension "N"."""
    options = {id(estimator): {"zipmap": False}} if is_classifier(estimator) else None
    exported = convert_sklearn(
        estimator,
        name=model,
        initial_types=[("x", FloatTensorType([None, features]))],
        options=options,
        target_opset=OPSET,
    )
    graph = exported.graph
    if not is_classifier(estimator):
        rename_output(graph, "variable", "y")
    for value in [*graph.input, *graph.output]:
        value.type.tensor_type.shape.dim[0].dim_param = "N"
    keep_used_opsets(exported)
    onnx.checker.check_model(exported, full_check=True)
    return exported


def rename_output(graph, old, new):
    """Gives an output of the graph another name."""
    for node in graph.node:
        node.output[:] = [new if name == old else name for name in node.output]
    for value in graph.output:
        if value.name == old:
            value.name = new


def keep_used_opsets(exported):
    """Leaves one opset import for each domain that a node uses, and no other.

    skl2onnx imports the default domain twice, and for a linear model without using it.
    """
    versions = {opset.domain: opset.version for opset in exported.opset_import}
    used = sorted({node.domain for node in exported.graph.node})
    del exported.opset_import[:]
    exported.opset_import.extend(
        onnx.helper.make_opsetid(domain, versions[domain]) for domain in used
    )


def golden_document(estimator, rows):
    """golden.json: consecutive batches of `rows` with the outputs for them."""
    cases = []
    start = 0
    for size in GOLDEN_BATCHES:
        batch = rows[start : start + size]
        start += size
        outputs = {name: values.tolist() for name, values in predict(estimator, batch).items()}
        cases.append({"inputs": {"x": batch.tolist()}, "outputs": outputs})
    return {"cases": cases, "tolerance": TOLERANCE}


def heldout_document(estimator, model, rows):
    """heldout.json: rows with one prediction each."""
    outputs = predict(estimator, rows)
    if is_classifier(estimator):
        predictions = [
            {"label": label, "probabilities": probabilities}
            for label, probabilities in zip(
                outputs["label"].tolist(), outputs["probabilities"].tolist(), strict=True
            )
        ]
    else:
        predictions = outputs["y"].ravel().tolist()
    return {"model": model, "instances": rows.tolist(), "predictions": predictions}


def largest_difference(estimator, exported, rows):
    """The largest distance between the exported model's outputs and scikit-learn's.

    Runs the exported model with the reference evaluator of the `onnx` package. Fails if a class
    differs, or if a number differs by more than the absolute tolerance alone.
    """
    evaluator = ReferenceEvaluator(exported)
    outputs = evaluator.run(None, {"x": rows.astype(np.float32)})
    actual = dict(zip(evaluator.output_names, outputs, strict=True))
    largest = 0.0
    for name, expected in predict(estimator, rows).items():
        if actual[name].shape != expected.shape:
            raise SystemExit(f"{name}: shape {actual[name].shape}, expected {expected.shape}")
        difference = float(np.abs(actual[name] - expected).max())
        limit = 0 if name == "label" else TOLERANCE["absolute"]
        if difference > limit:
            raise SystemExit(f"{name}: the exported model is {difference} from scikit-learn")
        largest = max(largest, difference)
    return largest


def train_all(folder):
    """Trains every version of every model and writes its files below `folder`."""
    for (model, version), estimator in estimators().items():
        train_rows, test_rows, train_targets, test_targets = load_split(model)
        estimator.fit(train_rows, train_targets)
        score = estimator.score(test_rows, test_targets)
        if score < LOWEST_SCORE[model]:
            raise SystemExit(f"{model} {version}: the held-out score is only {score:.4f}")

        exported = export(estimator, model, test_rows.shape[1])
        difference = largest_difference(estimator, exported, test_rows)

        golden_rows = sum(GOLDEN_BATCHES)
        heldout_rows = test_rows[golden_rows : golden_rows + HELDOUT_ROWS]
        target = folder / model / version
        target.mkdir(parents=True, exist_ok=True)
        (target / "model.onnx").write_bytes(exported.SerializeToString(deterministic=True))
        write_json(target / "golden.json", golden_document(estimator, test_rows[:golden_rows]))
        write_json(target / "heldout.json", heldout_document(estimator, model, heldout_rows))
        print(f"{model} {version}: held-out score {score:.4f}, largest difference {difference:.1e}")


def write_json(path, document):
    """Writes floats with `repr`, which a reader gets back exactly."""
    path.write_text(json.dumps(document, allow_nan=False) + "\n", encoding="utf-8")


def check():
    """Trains again and compares with the files in this folder. True if they agree."""
    with tempfile.TemporaryDirectory() as name:
        fresh = Path(name)
        train_all(fresh)
        problems = []
        for model, version in estimators():
            for file in ["model.onnx", "golden.json", "heldout.json"]:
                path = Path(model, version, file)
                if not (HERE / path).is_file():
                    problems.append(f"{path}: missing")
                    continue
                committed, trained = read(HERE / path), read(fresh / path)
                problems.extend(f"{path}{where}" for where in differences(committed, trained))
    for problem in problems:
        print(problem, file=sys.stderr)
    print("the committed files differ" if problems else "the committed files agree")
    return not problems


def read(path):
    """A file as nested dictionaries, lists and plain values, ready to be compared."""
    if path.suffix == ".json":
        return json.loads(path.read_text(encoding="utf-8"))
    exported = onnx.load(path)
    onnx.checker.check_model(exported, full_check=True)
    graph = exported.graph
    return {
        "opsets": {opset.domain: opset.version for opset in exported.opset_import},
        "inputs": [str(value) for value in graph.input],
        "outputs": [str(value) for value in graph.output],
        "initializers": {
            tensor.name: onnx.numpy_helper.to_array(tensor).tolist() for tensor in graph.initializer
        },
        "nodes": [
            {
                "operator": [node.domain, node.op_type],
                "inputs": list(node.input),
                "outputs": list(node.output),
                "attributes": {
                    attribute.name: plain(onnx.helper.get_attribute_value(attribute))
                    for attribute in node.attribute
                },
            }
            for node in graph.node
        ],
    }


def plain(value):
    """An ONNX attribute's value as a plain value."""
    if isinstance(value, bytes):
        return value.decode()
    if isinstance(value, onnx.TensorProto):
        return onnx.numpy_helper.to_array(value).tolist()
    if isinstance(value, (int, float, str)):
        return value
    return [plain(item) for item in value]


def differences(committed, trained, where=""):
    """Each place where two nested values differ: floats by more than the retraining tolerance,
    anything else at all."""
    if type(committed) is not type(trained):
        yield f"{where}: differs"
    elif isinstance(committed, dict) and committed.keys() == trained.keys():
        for key in committed:
            yield from differences(committed[key], trained[key], f"{where}: {key}")
    elif isinstance(committed, list) and len(committed) == len(trained):
        for index, (left, right) in enumerate(zip(committed, trained, strict=True)):
            yield from differences(left, right, f"{where}[{index}]")
    elif isinstance(committed, float):
        limit = RETRAIN_TOLERANCE["absolute"] + RETRAIN_TOLERANCE["relative"] * abs(committed)
        # Written so that a NaN, too, is a difference.
        if not abs(committed - trained) <= limit:
            yield f"{where}: {committed}, trained again {trained}"
    elif committed != trained:
        yield f"{where}: differs"


def main():
    parser = argparse.ArgumentParser(description="Trains the models of Muster's tests.")
    parser.add_argument(
        "--check",
        action="store_true",
        help="compare a fresh training with the files here, and write nothing",
    )
    arguments = parser.parse_args()
    # More threads would change the order of the sums, and with it the last bits of the weights.
    with threadpool_limits(limits=1):
        if arguments.check:
            return 0 if check() else 1
        train_all(HERE)
        return 0


if __name__ == "__main__":
    sys.exit(main())
