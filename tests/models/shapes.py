"""Writes small models that compute next to nothing: one for each type and shape that travels.

    python shapes.py            write every model into shapes/
    python shapes.py --check    compare with the files that are there

The files are a function of this script and of the version of the `onnx` package: no training, no
chance. What each model takes and gives stands in MODELS.
"""

import argparse
import sys
from pathlib import Path

import onnx
from onnx import TensorProto, checker, helper

HERE = Path(__file__).resolve().parent

# The operator set and the file format, fixed so that a newer `onnx` writes the same files.
OPSET = 17
IR_VERSION = 8

DTYPES = {
    "bool": TensorProto.BOOL,
    "uint8": TensorProto.UINT8,
    "uint16": TensorProto.UINT16,
    "uint32": TensorProto.UINT32,
    "uint64": TensorProto.UINT64,
    "int8": TensorProto.INT8,
    "int16": TensorProto.INT16,
    "int32": TensorProto.INT32,
    "int64": TensorProto.INT64,
    "fp16": TensorProto.FLOAT16,
    "fp32": TensorProto.FLOAT,
    "fp64": TensorProto.DOUBLE,
    "bytes": TensorProto.STRING,
}


def model(name, nodes, inputs, outputs):
    """A model of these nodes. A port is (name, ONNX type, shape); a size that is a text is free."""
    ports = [[helper.make_tensor_value_info(*port) for port in side] for side in (inputs, outputs)]
    graph = helper.make_graph(nodes, name, *ports)
    made = helper.make_model(
        graph,
        opset_imports=[helper.make_opsetid("", OPSET)],
        ir_version=IR_VERSION,
        producer_name="muster-shapes",
    )
    checker.check_model(made, full_check=True)
    return made


def identity(dtype):
    """y = x, rows of any length."""
    x, y = ("x", DTYPES[dtype], ["N", "M"]), ("y", DTYPES[dtype], ["N", "M"])
    return model(f"identity_{dtype}", [helper.make_node("Identity", ["x"], ["y"])], [x], [y])


def add_sub():
    """sum = a + b, difference = a - b: two inputs, two outputs, both with rows."""
    nodes = [
        helper.make_node("Add", ["a", "b"], ["sum"]),
        helper.make_node("Sub", ["a", "b"], ["difference"]),
    ]
    port = lambda name: (name, TensorProto.FLOAT, ["N", 4])
    return model("add_sub", nodes, [port("a"), port("b")], [port("sum"), port("difference")])


def scalar():
    """y = x + x, without any dimension."""
    port = lambda name: (name, TensorProto.FLOAT, [])
    return model("scalar", [helper.make_node("Add", ["x", "x"], ["y"])], [port("x")], [port("y")])


def fixed():
    """y = x * x, of one fixed shape and without rows."""
    port = lambda name: (name, TensorProto.INT32, [2, 3])
    return model("fixed", [helper.make_node("Mul", ["x", "x"], ["y"])], [port("x")], [port("y")])


def mixed():
    """Three inputs of different types, each cast to another."""
    nodes = [
        helper.make_node("Cast", ["flag"], ["flag_as_fp32"], to=TensorProto.FLOAT),
        helper.make_node("Cast", ["count"], ["count_as_fp64"], to=TensorProto.DOUBLE),
        helper.make_node("Cast", ["half"], ["half_as_fp32"], to=TensorProto.FLOAT),
    ]
    inputs = [
        ("flag", TensorProto.BOOL, ["N"]),
        ("count", TensorProto.INT64, ["N", 2]),
        ("half", TensorProto.FLOAT16, ["N"]),
    ]
    outputs = [
        ("flag_as_fp32", TensorProto.FLOAT, ["N"]),
        ("count_as_fp64", TensorProto.DOUBLE, ["N", 2]),
        ("half_as_fp32", TensorProto.FLOAT, ["N"]),
    ]
    return model("mixed", nodes, inputs, outputs)


MODELS = {f"identity_{dtype}": (lambda dtype=dtype: identity(dtype)) for dtype in DTYPES}
MODELS |= {"add_sub": add_sub, "scalar": scalar, "fixed": fixed, "mixed": mixed}


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--check", action="store_true", help="compare, write nothing")
    check = parser.parse_args().check
    folder = HERE / "shapes"
    different = []
    for name, make in MODELS.items():
        path, made = folder / f"{name}.onnx", make().SerializeToString(deterministic=True)
        if check:
            if not path.exists() or path.read_bytes() != made:
                different.append(name)
        else:
            folder.mkdir(exist_ok=True)
            path.write_bytes(made)
    for name in different:
        print(f"{name}: the file is not what this script writes")
    return 1 if different else 0


if __name__ == "__main__":
    sys.exit(main())
