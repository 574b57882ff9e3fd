"""MLServer with a runtime of its own kind over ONNX Runtime."""

import asyncio
import sys
from pathlib import Path

from mlserver import MLModel
from mlserver.codecs import NumpyCodec
from mlserver.server import MLServer
from mlserver.settings import ModelParameters, ModelSettings, Settings
from mlserver.types import InferenceRequest, InferenceResponse
from mlserver.utils import install_uvloop_event_loop

sys.path.append(str(Path(__file__).parent.parent))
from common import Model, arguments, free_port


class Runtime(MLModel):
    async def load(self):
        self.model = Model(Path(self.settings.parameters.uri))
        return True

    async def predict(self, payload: InferenceRequest) -> InferenceResponse:
        # A tensor with a datatype: no other codec is tried.
        answer = self.model.predict(NumpyCodec.decode_input(payload.inputs[0]))
        outputs = [NumpyCodec.encode_output(self.model.output, answer)]
        return InferenceResponse(model_name=self.name, outputs=outputs)


async def main():
    options = arguments()
    settings = Settings(
        host="127.0.0.1",
        http_port=options.port,
        grpc_port=free_port(),
        metrics_port=free_port(),
        # No line per request.
        debug=False,
        # In this process: a pool of one would add two queues and win nothing on one core.
        parallel_workers=0,
    )
    models = [
        ModelSettings(name=path.stem, implementation=Runtime, parameters=ModelParameters(uri=str(path)))
        for path in options.models
    ]
    await MLServer(settings).start(models)


if __name__ == "__main__":
    install_uvloop_event_loop()
    asyncio.run(main())
