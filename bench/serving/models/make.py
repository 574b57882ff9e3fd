"""Makes the models that every server of the benchmark loads, each with one request and its answer.

    make.py FOLDER

Weights come from a fixed seed: what is measured is the time of a network, not what it knows.
"""

import json
import sys
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper, numpy_helper

SEED = 20240607
# Operators and file format that every engine of the last years reads.
OPSET = 13
IR_VERSION = 8
FEATURES = 4
PIXELS, DIGITS = 64, 10
IMAGE = (3, 224, 224)
CLASSES = 1000
# SqueezeNet 1.1: (squeezed channels, expanded channels per branch); "pool" halves the picture.
FIRES = ["pool", (16, 64), (16, 64), "pool", (32, 128), (32, 128), "pool"]
FIRES += [(48, 192), (48, 192), (64, 256), (64, 256)]


def linreg():
    """y = x·w + b; the numbers are sums of powers of two, so every engine gives exactly this answer."""
    weights = np.array([[0.5], [-1.25], [2.0], [0.75]], np.float32)
    constants = [numpy_helper.from_array(weights, "w"), numpy_helper.from_array(np.array([0.125], np.float32), "b")]
    graph = helper.make_graph(
        [helper.make_node("Gemm", ["x", "w", "b"], ["y"])],
        "linreg",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", FEATURES])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["N", 1])],
        constants,
    )
    return model(graph), np.array([[1, 2, 3, 4]], np.float32)


def logistic():
    """Scores of ten digits for 8×8 pixels: the second model where two small ones are loaded."""
    random = np.random.default_rng(SEED)
    weights = random.normal(0, 0.1, (PIXELS, DIGITS)).astype(np.float32)
    constants = [numpy_helper.from_array(weights, "w"), numpy_helper.from_array(np.zeros(DIGITS, np.float32), "b")]
    graph = helper.make_graph(
        [helper.make_node("Gemm", ["x", "w", "b"], ["z"]), helper.make_node("Softmax", ["z"], ["y"], axis=1)],
        "logistic",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", PIXELS])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["N", DIGITS])],
        constants,
    )
    return model(graph), random.integers(0, 17, (1, PIXELS)).astype(np.float32)


class SqueezeNet:
    """Collects the nodes of a network whose layers follow each other."""

    def __init__(self, random):
        self.random, self.nodes, self.constants = random, [], []

    def add(self, operator, inputs, **attributes):
        output = f"t{len(self.nodes)}"
        self.nodes.append(helper.make_node(operator, inputs, [output], **attributes))
        return output

    def conv(self, source, channels_in, channels_out, kernel, **attributes):
        # He's initialisation keeps the size of the values from layer to layer.
        spread = np.sqrt(2 / (channels_in * kernel * kernel))
        weights = self.random.normal(0, spread, (channels_out, channels_in, kernel, kernel)).astype(np.float32)
        names = [f"w{len(self.constants)}", f"b{len(self.constants)}"]
        for name, values in zip(names, [weights, np.zeros(channels_out, np.float32)]):
            self.constants.append(numpy_helper.from_array(values, name))
        output = self.add("Conv", [source, *names], kernel_shape=[kernel, kernel], **attributes)
        return self.add("Relu", [output])

    def pool(self, source):
        return self.add("MaxPool", [source], kernel_shape=[3, 3], strides=[2, 2])

    def fire(self, source, channels_in, squeezed, expanded):
        squeeze = self.conv(source, channels_in, squeezed, 1)
        narrow = self.conv(squeeze, squeezed, expanded, 1)
        wide = self.conv(squeeze, squeezed, expanded, 3, pads=[1, 1, 1, 1])
        return self.add("Concat", [narrow, wide], axis=1)


def squeezenet():
    random = np.random.default_rng(SEED)
    network = SqueezeNet(random)
    last, channels = network.conv("image", IMAGE[0], 64, 3, strides=[2, 2]), 64
    for fire in FIRES:
        if fire == "pool":
            last = network.pool(last)
        else:
            squeezed, expanded = fire
            last, channels = network.fire(last, channels, squeezed, expanded), 2 * expanded
    last = network.conv(last, channels, CLASSES, 1)
    last = network.add("GlobalAveragePool", [last])
    network.nodes.append(helper.make_node("Flatten", [last], ["scores"]))
    graph = helper.make_graph(
        network.nodes,
        "squeezenet",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, [1, *IMAGE])],
        [helper.make_tensor_value_info("scores", TensorProto.FLOAT, [1, CLASSES])],
        network.constants,
    )
    # As a normalised picture has them: three decimals make the JSON as long as a client's would be.
    return model(graph), random.normal(0, 1, (1, *IMAGE)).round(3).astype(np.float32)


def model(graph):
    opset = [helper.make_opsetid("", OPSET)]
    made = helper.make_model(graph, opset_imports=opset, ir_version=IR_VERSION, producer_name="muster-bench")
    onnx.checker.check_model(made, full_check=True)
    return made


def main(folder):
    for name, make in [("linreg", linreg), ("logistic", logistic), ("squeezenet", squeezenet)]:
        made, values = make()
        path = folder / f"{name}.onnx"
        onnx.save(made, path)
        session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
        [source], [target] = session.get_inputs(), session.get_outputs()
        [answer] = session.run(None, {source.name: values})
        sample = {
            "name": name,
            "input": {"name": source.name, "shape": values.shape, "data": decimals(values)},
            "output": {"name": target.name, "shape": answer.shape, "data": decimals(answer)},
        }
        # Last: a folder that has it has all of this model.
        (folder / f"{name}.json").write_text(json.dumps(sample))


def decimals(values):
    """The shortest decimal of each float32, not the long one of the float64 that it is made into."""
    return [float(str(value)) for value in values.ravel()]


if __name__ == "__main__":
    main(Path(sys.argv[1]))
