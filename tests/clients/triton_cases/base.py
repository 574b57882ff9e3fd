"""The ways to ask: tritonclient's HTTP and gRPC clients, blocking and asyncio, behind one face."""

import asyncio
import http.client
import json
import unittest

import numpy as np
import tritonclient.grpc as grpc_sync
import tritonclient.grpc.aio as grpc_aio
import tritonclient.http as http_sync
import tritonclient.http.aio as http_aio
from tritonclient.utils import InferenceServerException, np_to_triton_dtype

# Set by `configure`.
HTTP = GRPC = None
PRESENT = {}
LOOP = None
CLIENTS = []

# The models of tests/models/shapes that give back what they take, by type.
IDENTITIES = {
    "bool": np.bool_,
    "uint8": np.uint8,
    "uint16": np.uint16,
    "uint32": np.uint32,
    "uint64": np.uint64,
    "int8": np.int8,
    "int16": np.int16,
    "int32": np.int32,
    "int64": np.int64,
    "fp16": np.float16,
    "fp32": np.float32,
    "fp64": np.float64,
    "bytes": np.object_,
}


class Client:
    """One way to ask. `module` has InferInput and InferRequestedOutput."""

    def __init__(self, name, module, client, is_http, is_async):
        self.name, self.module, self.client = name, module, client
        self.is_http, self.is_async = is_http, is_async

    def call(self, method, *arguments, **named):
        """Calls a method of the client, whether it waits or not."""
        answer = getattr(self.client, method)(*arguments, **named)
        return LOOP.run_until_complete(answer) if self.is_async else answer

    def inputs(self, arrays, binary=True):
        """Inputs of named arrays; `binary` counts over HTTP only."""
        made = []
        for name, array in arrays.items():
            one = self.module.InferInput(name, list(array.shape), np_to_triton_dtype(array.dtype))
            if self.is_http:
                one.set_data_from_numpy(array, binary_data=binary)
            else:
                one.set_data_from_numpy(array)
            made.append(one)
        return made

    def outputs(self, names, binary=True, classes=0):
        if self.is_http:
            return [self.module.InferRequestedOutput(name, binary_data=binary, class_count=classes) for name in names]
        return [self.module.InferRequestedOutput(name, class_count=classes) for name in names]

    def infer(self, model, arrays, names=None, binary=True, binary_out=True, classes=0, **named):
        """Runs a model on named arrays. `names` None: no outputs are named."""
        outputs = None if names is None else self.outputs(names, binary_out, classes)
        return self.call("infer", model, self.inputs(arrays, binary), outputs=outputs, **named)

    def told(self, method, *arguments, **named):
        """What a method tells, as JSON whichever protocol."""
        if not self.is_http:
            named["as_json"] = True
        return self.call(method, *arguments, **named)

    def status(self, http_status, grpc_status):
        """What an error's `status()` is."""
        return str(http_status) if self.is_http else f"StatusCode.{grpc_status}"


def configure(http_address, grpc_address, present):
    global HTTP, GRPC, LOOP
    HTTP, GRPC = http_address, grpc_address
    PRESENT.update(present)
    LOOP = asyncio.new_event_loop()
    asyncio.set_event_loop(LOOP)

    async def connect():
        return http_aio.InferenceServerClient(HTTP), grpc_aio.InferenceServerClient(GRPC)

    async_http, async_grpc = LOOP.run_until_complete(connect())
    CLIENTS.extend([
        Client("http", http_sync, http_sync.InferenceServerClient(HTTP, concurrency=8), True, False),
        Client("http_aio", http_aio, async_http, True, True),
        Client("grpc", grpc_sync, grpc_sync.InferenceServerClient(GRPC), False, False),
        Client("grpc_aio", grpc_aio, async_grpc, False, True),
    ])


def close():
    for client in CLIENTS:
        client.call("close")
    CLIENTS.clear()
    LOOP.close()


def client(name):
    return next(client for client in CLIENTS if client.name == name)


def for_each_client(test):
    """Runs a test with each client, as a subtest of its own."""

    def run(self):
        for one in CLIENTS:
            with self.subTest(client=one.name):
                test(self, one)

    run.__name__ = test.__name__
    return run


class Case(unittest.TestCase):
    maxDiff = None

    def need(self, *models):
        missing = [model for model in models if model not in PRESENT["models"]]
        if missing:
            self.skipTest(f"no model {', '.join(missing)}")

    def assert_refused(self, client, http_status, grpc_status, words, ask):
        """`ask` fails with this status, and the words say why."""
        with self.assertRaises(InferenceServerException) as raised:
            ask()
        error = raised.exception
        self.assertEqual(error.status(), client.status(http_status, grpc_status), error.message())
        self.assertIn(words, error.message())

    def assert_same(self, found, wanted):
        self.assertEqual(found.shape, wanted.shape)
        self.assertEqual(found.dtype, wanted.dtype)
        np.testing.assert_array_equal(found, wanted)


def raw(method, path, body=b"", headers=None):
    """One request, as it is: status, headers, body."""
    host, port = HTTP.rsplit(":", 1)
    connection = http.client.HTTPConnection(host, int(port), timeout=30)
    try:
        connection.request(method, path, body, headers or {})
        answer = connection.getresponse()
        return answer.status, dict((name.lower(), value) for name, value in answer.getheaders()), answer.read()
    finally:
        connection.close()


def raw_infer(model, request, binary=b"", headers=None):
    """A request for a run: JSON, or text as it is, with bytes behind it."""
    text = request if isinstance(request, bytes) else json.dumps(request).encode()
    given = {"Content-Type": "application/json"}
    if binary:
        given["Inference-Header-Content-Length"] = str(len(text))
    return raw("POST", f"/v2/models/{model}/infer", text + binary, given | (headers or {}))
