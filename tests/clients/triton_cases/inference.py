"""Runs of models: every type, every way that elements travel, one and many at once."""

import asyncio
import json
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import tritonclient.grpc as grpc_client
from tritonclient.grpc import service_pb2, service_pb2_grpc

from . import base
from .base import IDENTITIES, LOOP, Case, client, for_each_client, raw, raw_infer

WORDS = ["", "a", "zwölf Boxkämpfer", "\n\t\"\\/", "日本語", "🙂"]


def values(kind, shape):
    """Elements that show what a type can hold."""
    dtype, size = IDENTITIES[kind], int(np.prod(shape))
    if kind == "bytes":
        words = [WORDS[at % len(WORDS)].encode() for at in range(size)]
        return np.array(words, dtype=np.object_).reshape(shape)
    if kind == "bool":
        return (np.arange(size) % 3 == 0).reshape(shape)
    if kind.startswith("fp"):
        numbers = np.array([0.1, -2.5, 1e-3, 3.0, float(np.finfo(dtype).max), float(np.finfo(dtype).tiny), -0.0])
    else:
        limits = np.iinfo(dtype)
        numbers = np.array([0, 1, 7, limits.min, limits.max], dtype=dtype)
    return np.resize(numbers, size).astype(dtype).reshape(shape)


class Types(Case):
    @for_each_client
    def test_every_type_comes_back(self, client):
        settings = [(True, True), (True, False), (False, True), (False, False)] if client.is_http else [(True, True)]
        for kind in IDENTITIES:
            model = f"identity_{kind}"
            if model not in base.PRESENT["models"]:
                print(f"no model {model}: passed over")
                continue
            for shape in ((1, 1), (2, 5), (1, 300), (0, 3), (2, 0)):
                x = values(kind, shape)
                for binary, binary_out in settings:
                    with self.subTest(client=client.name, kind=kind, shape=shape, binary=(binary, binary_out)):
                        result = client.infer(model, {"x": x}, ["y"], binary, binary_out)
                        self.assert_same(encoded(result.as_numpy("y")), x)

    @for_each_client
    def test_numbers_that_are_none(self, client):
        self.need("identity_fp32")
        x = np.array([[np.nan, np.inf, -np.inf]], np.float32)
        for binary in (True, False):
            result = client.infer("identity_fp32", {"x": x}, ["y"], binary, binary)
            self.assert_same(result.as_numpy("y"), x)

    @for_each_client
    def test_bytes_that_are_no_text(self, client):
        self.need("identity_bytes")
        x = np.array([[b"\x00", b"a\x00b"]], np.object_)
        self.assert_same(client.infer("identity_bytes", {"x": x}, ["y"]).as_numpy("y"), x)
        # The protocol takes any bytes; tract takes texts in UTF-8, and says so.
        x = np.array([[b"\xff\xfe"]], np.object_)
        asked = lambda: client.infer("identity_bytes", {"x": x}, ["y"])
        self.assert_refused(client, 400, "INVALID_ARGUMENT", "UTF-8", asked)

    @for_each_client
    def test_large(self, client):
        self.need("identity_fp32")
        x = np.arange(1_500_000, dtype=np.float32).reshape(3, -1)
        self.assert_same(client.infer("identity_fp32", {"x": x}, ["y"]).as_numpy("y"), x)

    @for_each_client
    def test_no_dimension_and_fixed_ones(self, client):
        self.need("scalar", "fixed")
        for binary in (True, False):
            y = client.infer("scalar", {"x": np.array(1.25, np.float32)}, ["y"], binary, binary).as_numpy("y")
            self.assert_same(y, np.array(2.5, np.float32))
            x = np.arange(6, dtype=np.int32).reshape(2, 3)
            self.assert_same(client.infer("fixed", {"x": x}, ["y"], binary, binary).as_numpy("y"), x * x)

    @for_each_client
    def test_inputs_of_different_types(self, client):
        self.need("mixed")
        given = {
            "half": np.array([0.5, -2.0], np.float16),
            "count": np.array([[1, 2], [3, 4]], np.int64),
            "flag": np.array([True, False]),
        }
        for binary in (True, False):
            result = client.infer("mixed", given, None, binary)
            self.assert_same(result.as_numpy("flag_as_fp32"), np.array([1, 0], np.float32))
            self.assert_same(result.as_numpy("count_as_fp64"), np.array([[1, 2], [3, 4]], np.float64))
            self.assert_same(result.as_numpy("half_as_fp32"), np.array([0.5, -2], np.float32))

    def test_typed_contents(self):
        """gRPC's lists of elements, which tritonclient itself never writes."""
        fields = {
            "bool": ("bool_contents", [True, False]),
            "int8": ("int_contents", [-128, 127]),
            "int16": ("int_contents", [-32768, 32767]),
            "int32": ("int_contents", [-1, 2**31 - 1]),
            "int64": ("int64_contents", [-(2**63), 2**63 - 1]),
            "uint8": ("uint_contents", [0, 255]),
            "uint16": ("uint_contents", [0, 65535]),
            "uint32": ("uint_contents", [0, 2**32 - 1]),
            "uint64": ("uint64_contents", [0, 2**64 - 1]),
            "fp32": ("fp32_contents", [0.5, -1e30]),
            "fp64": ("fp64_contents", [0.1, 1e300]),
            "bytes": ("bytes_contents", [b"", b"a\0b"]),
        }
        names = {"bool": "BOOL", "bytes": "BYTES"}
        with grpc_client.grpc.insecure_channel(base.GRPC) as channel:
            stub = service_pb2_grpc.GRPCInferenceServiceStub(channel)
            for kind, (field, elements) in fields.items():
                if f"identity_{kind}" not in base.PRESENT["models"]:
                    continue
                request = service_pb2.ModelInferRequest(model_name=f"identity_{kind}")
                datatype = names.get(kind, kind.upper())
                tensor = request.inputs.add(name="x", datatype=datatype, shape=[1, 2])
                getattr(tensor.contents, field).extend(elements)
                result = grpc_client.InferResult(stub.ModelInfer(request))
                self.assert_same(result.as_numpy("y"), np.array([elements], IDENTITIES[kind]))


class Requests(Case):
    @for_each_client
    def test_several_inputs_and_outputs(self, client):
        self.need("add_sub")
        a, b = np.arange(8, dtype=np.float32).reshape(2, 4), np.full((2, 4), 0.5, np.float32)
        for given in ({"a": a, "b": b}, {"b": b, "a": a}):
            for names in (None, ["sum", "difference"], ["difference"], ["difference", "sum"]):
                result = client.infer("add_sub", given, names)
                for name, wanted in (("sum", a + b), ("difference", a - b)):
                    if names is None or name in names:
                        self.assert_same(result.as_numpy(name), wanted)
                    else:
                        self.assertIsNone(result.as_numpy(name))

    def test_each_output_its_own_way(self):
        self.need("add_sub")
        one, x = client("http"), np.ones((1, 4), np.float32)
        output = one.module.InferRequestedOutput
        outputs = [output("sum", binary_data=False), output("difference", binary_data=True)]
        given = one.inputs({"a": x}, binary=True) + one.inputs({"b": x}, binary=False)
        result = one.client.infer("add_sub", given, outputs=outputs)
        self.assert_same(result.as_numpy("sum"), x + x)
        self.assert_same(result.as_numpy("difference"), x - x)
        self.assertIn("data", result.get_output("sum"))
        self.assertEqual(result.get_output("difference")["parameters"], {"binary_data_size": 16})

    @for_each_client
    def test_ids_and_versions(self, client):
        self.need("add_sub")
        x = np.ones((1, 4), np.float32)
        for version in ["", *base.PRESENT["models"]["add_sub"]]:
            result = client.infer("add_sub", {"a": x, "b": x}, model_version=version, request_id="an id: ü \"7\"")
            told = result.get_response()
            get = told.get if client.is_http else lambda name: getattr(told, name)
            self.assertEqual(get("id"), "an id: ü \"7\"")
            self.assertEqual(get("model_name"), "add_sub")
            self.assertEqual(get("model_version"), version or base.PRESENT["models"]["add_sub"][-1])

    @for_each_client
    def test_parameters(self, client):
        self.need("add_sub")
        x = np.ones((1, 4), np.float32)
        named = {"timeout": 20_000_000, "priority": 1, "sequence_id": 5, "sequence_start": True}
        named["parameters"] = {"mine": "anything", "other": 3, "truth": True}
        result = client.infer("add_sub", {"a": x, "b": x}, **named)
        self.assert_same(result.as_numpy("sum"), x + x)

    @for_each_client
    def test_a_timeout_that_is_too_short(self, client):
        self.need("identity_fp32")
        x = np.zeros((1, 1_000_000), np.float32)
        asked = lambda: client.infer("identity_fp32", {"x": x}, timeout=1)
        self.assert_refused(client, 504, "DEADLINE_EXCEEDED", "timeout", asked)

    @for_each_client
    def test_packed(self, client):
        self.need("add_sub")
        x = np.ones((500, 4), np.float32)
        if client.is_http:
            named = {"request_compression_algorithm": "gzip", "response_compression_algorithm": "gzip"}
        else:
            named = {"compression_algorithm": "gzip" if not client.is_async else "gzip"}
        for binary in (True, False):
            result = client.infer("add_sub", {"a": x, "b": x}, ["sum"], binary, binary, **named)
            self.assert_same(result.as_numpy("sum"), x + x)

    @for_each_client
    def test_classes(self, client):
        self.need("add_sub", "fixed", "identity_bytes")
        a = np.array([[1.5, 3, 0.25, 2], [9, 8, 7, 6]], np.float32)
        b = np.zeros((2, 4), np.float32)
        for binary in (True, False):
            result = client.infer("add_sub", {"a": a, "b": b}, ["sum"], True, binary, classes=2)
            wanted = [[b"3.000000:1", b"2.000000:3"], [b"9.000000:0", b"8.000000:1"]]
            found = result.as_numpy("sum")
            self.assertEqual([[bytes_of(one) for one in row] for row in found], wanted)
        x = np.array([[1, 5, 2], [0, -7, 3]], np.int32)
        result = client.infer("fixed", {"x": x}, ["y"], classes=3).as_numpy("y")
        self.assertEqual([bytes_of(one) for one in result], [b"49:4", b"25:1", b"9:5"])
        x = np.array([[b"a"]], np.object_)
        refused = lambda: client.infer("identity_bytes", {"x": x}, ["y"], classes=1)
        self.assert_refused(client, 400, "INVALID_ARGUMENT", "no classes", refused)

    @for_each_client
    def test_refused(self, client):
        self.need("add_sub", "identity_fp32")
        x = np.ones((1, 4), np.float32)
        ask = lambda model, arrays, names=None, **named: lambda: client.infer(model, arrays, names, **named)
        both = {"a": x, "b": x}
        bad = lambda words, ask: self.assert_refused(client, 400, "INVALID_ARGUMENT", words, ask)
        self.assert_refused(client, 404, "NOT_FOUND", "no model", ask("nobody", both))
        self.assert_refused(client, 404, "NOT_FOUND", "no version 99", ask("add_sub", both, model_version="99"))
        bad("no input \"c\"", ask("add_sub", both | {"c": x}))
        bad("input \"b\" is missing", ask("add_sub", {"a": x}))
        bad("no output \"product\"", ask("add_sub", both, ["product"]))
        bad("shape [1, 3] does not fit", ask("add_sub", {"a": x, "b": x[:, :3]}))
        bad("shape [4] does not fit", ask("add_sub", {"a": x, "b": x[0]}))
        bad("datatype FP64, where the model takes FP32", ask("add_sub", {"a": x, "b": x.astype(np.float64)}))
        # Sizes that only differ between the inputs are the model's own matter; it refuses them.
        with self.assertRaises(Exception):
            client.infer("add_sub", {"a": np.ones((2, 4), np.float32), "b": np.ones((3, 4), np.float32)})
        twice = client.inputs({"a": x}) + client.inputs(both)
        bad("input \"a\" is there twice", lambda: client.call("infer", "add_sub", twice))
        halves = client.module.InferInput("x", [1, 2], "BF16")
        if not client.is_http:
            halves._raw_content = b"\0\0\0\0"
        else:
            halves._raw_data = b"\0\0\0\0"
            halves._parameters["binary_data_size"] = 4
        bad("BF16 is not supported", lambda: client.call("infer", "identity_fp32", [halves]))
        shared = client.module.InferInput("x", [1, 1], "FP32")
        shared.set_shared_memory("region", 4)
        bad("shares no memory", lambda: client.call("infer", "identity_fp32", [shared]))

    def test_who_answered(self):
        self.need("add_sub")
        tensor = lambda name: {"name": name, "datatype": "FP32", "shape": [1, 4], "data": [0, 1, 2, 3]}
        status, headers, _ = raw_infer("add_sub", {"inputs": [tensor("a"), tensor("b")]})
        self.assertEqual(status, 200)
        self.assertTrue(headers["muster-device"])
        self.assertEqual(headers["muster-version"], base.PRESENT["models"]["add_sub"][-1])
        with grpc_client.grpc.insecure_channel(base.GRPC) as channel:
            stub = service_pb2_grpc.GRPCInferenceServiceStub(channel)
            request = service_pb2.ModelInferRequest(model_name="add_sub")
            for name in ("a", "b"):
                one = request.inputs.add(name=name, datatype="FP32", shape=[1, 4])
                one.contents.fp32_contents.extend([0, 1, 2, 3])
            _, call = stub.ModelInfer.with_call(request)
            told = dict(call.initial_metadata())
        self.assertEqual(told["muster-device"], headers["muster-device"])
        self.assertEqual(told["muster-version"], headers["muster-version"])

    def test_bytes_alone(self):
        self.need("identity_bytes", "scalar")
        status, headers, body = raw(
            "POST", "/v2/models/scalar/infer", np.float32(1.5).tobytes(), {"Inference-Header-Content-Length": "0"}
        )
        length = int(headers["inference-header-content-length"])
        self.assertEqual((status, body[length:]), (200, np.float32(3).tobytes()))
        self.assertEqual(json.loads(body[:length])["outputs"][0]["parameters"], {"binary_data_size": 4})

    def test_elements_may_be_nested_and_come_first(self):
        self.need("add_sub")
        a = {"data": [[1, 2, 3, 4]], "shape": [1, 4], "name": "a", "datatype": "FP32"}
        b = {"name": "b", "data": [[1], [1], [1], [1]], "datatype": "FP32", "shape": [1, 4]}
        status, _, body = raw_infer("add_sub", {"outputs": [{"name": "sum"}], "inputs": [a, b]})
        self.assertEqual((status, json.loads(body)["outputs"][0]["data"]), (200, [2, 3, 4, 5]))


class ManyAtOnce(Case):
    COUNT = 200

    def arrays(self, number):
        a = np.full((1 + number % 3, 4), number, np.float32)
        return {"a": a, "b": np.ones_like(a)}

    def check(self, number, result):
        arrays = self.arrays(number)
        self.assert_same(result.as_numpy("sum"), arrays["a"] + arrays["b"])
        self.assert_same(result.as_numpy("difference"), arrays["a"] - arrays["b"])

    def test_threads_over_grpc(self):
        self.need("add_sub")
        one = client("grpc")
        ask = lambda number: self.check(number, one.infer("add_sub", self.arrays(number)))
        with ThreadPoolExecutor(16) as pool:
            list(pool.map(ask, range(self.COUNT)))

    def test_async_infer_over_http(self):
        self.need("add_sub")
        one = client("http")
        asked = [one.client.async_infer("add_sub", one.inputs(self.arrays(number))) for number in range(self.COUNT)]
        for number, answer in enumerate(asked):
            self.check(number, answer.get_result())

    def test_gathered(self):
        self.need("add_sub")
        for one in (client("http_aio"), client("grpc_aio")):
            async def ask(number):
                binary = number % 2 == 0
                return await one.client.infer("add_sub", one.inputs(self.arrays(number), binary))

            async def ask_all():
                return await asyncio.gather(*(ask(number) for number in range(self.COUNT)))

            for number, result in enumerate(base.LOOP.run_until_complete(ask_all())):
                self.check(number, result)


def encoded(array):
    """Texts that came as JSON, as bytes."""
    if array.dtype != np.object_:
        return array
    words = [bytes_of(word) for word in array.flatten()]
    return np.array(words, dtype=np.object_).reshape(array.shape)


def bytes_of(word):
    return word if isinstance(word, bytes) else word.encode()
