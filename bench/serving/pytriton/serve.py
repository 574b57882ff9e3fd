"""PyTriton: a real tritonserver that calls back into this process, where ONNX Runtime computes.

Each call brings one request, or with --batching as many as wait.
"""

import os
import signal
import sys
import sysconfig
from pathlib import Path

import numpy as np
from pytriton.decorators import batch
from pytriton.model_config import ModelConfig, Tensor
from pytriton.triton import Triton, TritonConfig

sys.path.append(str(Path(__file__).parent.parent))
from common import Model, arguments, free_port

BATCH_MAX = 64


def bind(triton, model, batch_max):
    @batch
    def infer(**inputs):
        return {model.output: model.predict(inputs[model.input])}

    # The first dimension is the batch, which Triton adds itself.
    triton.bind(
        model_name=model.name,
        infer_func=infer,
        inputs=[Tensor(name=model.input, dtype=np.float32, shape=tuple(model.input_shape[1:]))],
        outputs=[Tensor(name=model.output, dtype=np.float32, shape=tuple(model.output_shape[1:]))],
        config=ModelConfig(max_batch_size=batch_max),
    )


def main():
    options = arguments("--batching")
    config = TritonConfig(
        http_address="127.0.0.1",
        http_port=options.port,
        grpc_address="127.0.0.1",
        grpc_port=free_port(),
        metrics_address="127.0.0.1",
        metrics_port=free_port(),
        log_verbose=0,
    )
    # tritonserver's Python is a shared library: this Python's, not an older one of the system.
    os.environ["LD_LIBRARY_PATH"] = sysconfig.get_config_var("LIBDIR")
    # So that tritonserver is stopped with it, too.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    with Triton(config=config) as triton:
        for path in options.models:
            bind(triton, Model(path), BATCH_MAX if options.batching else 1)
        triton.serve()


if __name__ == "__main__":
    main()
