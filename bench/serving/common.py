"""What the peers' servers share: their arguments, the models, and stopping with the benchmark."""

import argparse
import os
import signal
import socket
import threading
from pathlib import Path

import onnxruntime


def arguments(*flags):
    """--port P --model PATH.onnx... [--stop-with-stdin], and a server's own flags"""
    parser = argparse.ArgumentParser()
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--model", type=Path, action="append", dest="models")
    for flag in flags:
        parser.add_argument(flag, action="store_true")
    parser.add_argument("--stop-with-stdin", action="store_true")
    options = parser.parse_args()
    if options.stop_with_stdin:
        stop_with_stdin()
    return options


def stop_with_stdin():
    """Standard input closes when the benchmark ends, however it ends; then this process stops."""

    def wait():
        # Not sys.stdin: closing a reader that another thread waits in makes Python abort at its exit.
        while os.read(0, 4096):
            pass
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=wait, daemon=True).start()


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class Model:
    """One network in ONNX Runtime on one thread, as each server gets one core."""

    def __init__(self, path):
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        options.inter_op_num_threads = 1
        self.session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        [source], [target] = self.session.get_inputs(), self.session.get_outputs()
        self.name, self.input, self.output = path.stem, source.name, target.name
        self.input_shape, self.output_shape = source.shape, target.shape

    def predict(self, values):
        return self.session.run([self.output], {self.input: values})[0]
