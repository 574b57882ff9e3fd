"""FastAPI and ONNX Runtime: the small app that a person writes who needs one model behind HTTP."""

import sys
from pathlib import Path

import numpy as np
import uvicorn
from fastapi import FastAPI, HTTPException
from pydantic import BaseModel

sys.path.append(str(Path(__file__).parent.parent))
from common import MODELS, Model, arguments

options = arguments()
models = {name: Model(options.models, name) for name in MODELS}
app = FastAPI()


class Predict(BaseModel):
    instances: list


# `async` although it computes: handing each request to a thread costs more than a small model does, and
# there is one core.
@app.post("/v1/models/{name}:predict")
async def predict(name: str, request: Predict):
    model = models.get(name)
    if model is None:
        raise HTTPException(404, f"no model {name}")
    return {"predictions": model.predict(np.asarray(request.instances, np.float32)).tolist()}


if __name__ == "__main__":
    uvicorn.run(
        app, host="127.0.0.1", port=options.port, loop="uvloop", http="httptools", access_log=False, log_level="warning"
    )
