"""FastAPI and ONNX Runtime: the small app that a person writes who needs one model behind HTTP.

With --orjson the app reads and writes JSON by hand, as a person does who has seen where the time goes.
"""

import sys
from pathlib import Path

import numpy as np
import orjson
import uvicorn
from fastapi import FastAPI, HTTPException, Request, Response
from pydantic import BaseModel

sys.path.append(str(Path(__file__).parent.parent))
from common import Model, arguments

options = arguments("--orjson")
models = {model.name: model for model in map(Model, options.models)}
app = FastAPI()


class Predict(BaseModel):
    instances: list


def answer(name, instances):
    model = models.get(name)
    if model is None:
        raise HTTPException(404, f"no model {name}")
    return model.predict(np.asarray(instances, np.float32))


# Both are `async` although they compute: handing each request to a thread costs more than a small model
# does, and there is one core.
async def typed(name: str, request: Predict):
    return {"predictions": answer(name, request.instances).tolist()}


async def by_hand(name: str, request: Request):
    values = answer(name, orjson.loads(await request.body())["instances"])
    body = orjson.dumps({"predictions": values}, option=orjson.OPT_SERIALIZE_NUMPY)
    return Response(body, media_type="application/json")


app.post("/v1/models/{name}:predict")(by_hand if options.orjson else typed)

if __name__ == "__main__":
    uvicorn.run(
        app, host="127.0.0.1", port=options.port, loop="uvloop", http="httptools", access_log=False, log_level="warning"
    )
