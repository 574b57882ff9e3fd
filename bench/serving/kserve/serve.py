"""KServe's SDK with a model over ONNX Runtime."""

import logging
import sys
from pathlib import Path

import numpy as np
import uvicorn


class Loopback(uvicorn.Config):
    """KServe listens on every address and writes a line per request; here it shall do neither."""

    def __init__(self, *positional, **named):
        named.update(host="127.0.0.1", access_log=False)
        super().__init__(*positional, **named)


uvicorn.Config = Loopback

import kserve
from kserve import InferOutput, InferRequest, InferResponse

sys.path.append(str(Path(__file__).parent.parent))
from common import Model, arguments


class Served(kserve.Model):
    def __init__(self, model):
        super().__init__(model.name)
        self.model = model
        self.ready = True

    async def predict(self, payload, headers=None, response_headers=None):
        if not isinstance(payload, InferRequest):
            answer = self.model.predict(np.asarray(payload["instances"], np.float32))
            return {"predictions": answer.tolist()}
        answer = self.model.predict(payload.inputs[0].as_numpy())
        output = InferOutput(self.model.output, list(answer.shape), "FP32")
        output.set_data_from_numpy(answer, binary_data=payload.use_binary_outputs)
        return InferResponse(
            # Its JSON answers need one; where a request has none, it is ours to choose.
            payload.id or "0",
            self.name,
            [output],
            requested_outputs=payload.request_outputs,
            use_binary_outputs=payload.use_binary_outputs,
        )


if __name__ == "__main__":
    options = arguments()
    models = [Served(Model(path)) for path in options.models]
    # Its gRPC server can only listen on every address, too.
    server = kserve.ModelServer(http_port=options.port, workers=1, enable_grpc=False, enable_latency_logging=False)
    logging.getLogger("kserve.trace").setLevel(logging.WARNING)
    server.start(models)
