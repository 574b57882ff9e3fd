"""Requests that are wrong: each is 400 with words, never worse, and the server goes on."""

import json
import random

import numpy as np
import tritonclient.grpc as grpc_client
from tritonclient.grpc import service_pb2, service_pb2_grpc

from . import base
from .base import Case, client, raw_infer


def tensor(**other):
    return {"name": "x", "shape": [1, 2], "datatype": "FP32", "data": [1, 2]} | other


def without(key):
    return {name: value for name, value in tensor().items() if name != key}


def good():
    return {"inputs": [tensor()]}


class Malformed(Case):
    def assert_bad(self, *asked, **named):
        status, headers, body = raw_infer("identity_fp32", *asked, **named)
        self.assertEqual(status, 400, (asked, body))
        self.assertEqual(headers["content-type"], "application/json")
        self.assertTrue(json.loads(body)["error"], asked)

    def setUp(self):
        self.need("identity_fp32")

    def tearDown(self):
        self.assertTrue(client("http").call("is_server_live"))

    def test_what_is_no_request(self):
        self.assertEqual(raw_infer("identity_fp32", good())[0], 200)
        texts = [b"", b"{", b"}", b"[]", b"null", b"1", b"\"a\"", b"\xff\xfe", b"{}", b"{\"inputs\"", b"{} {}", b"\0"]
        texts += [b"{\"inputs\": [" * 500, b"[" * 100_000, json.dumps(good()).encode() + b"x"]
        for text in texts:
            self.assert_bad(text)

    def test_what_is_no_input(self):
        wrong = [None, 1, "a", {}, [1], [None], ["a"], [{}], [[]], [], [tensor(), tensor()], [tensor(name="z")]]
        wrong += [[without(key)] for key in ("name", "shape", "datatype", "data")]
        wrong += [[tensor(name=name)] for name in (None, 1, "", [], "y")]
        wrong += [[tensor(shape=shape)] for shape in (None, 1, "a", {}, [-1, 2], [1.5, 2], ["1", 2], [1], [2, 1, 1])]
        wrong += [[tensor(shape=shape)] for shape in ([2**63, 2], [2**64, 2], [2**31, 2**31], [1] * 40, [1, 3], [[1, 2]])]
        wrong += [[tensor(datatype=name)] for name in (None, 1, "", "fp32", "FP64", "BYTES", "BF16", "FP8", "FLOAT" * 99)]
        wrong += [[tensor(data=data)] for data in (None, {}, 1, "a", [1], [1, 2, 3], [1, "a"], [1, True], [1, None])]
        wrong += [[tensor(data=data)] for data in ([[1], 2], [[1, 2], [3]], [1, {}], [[[[1, 2]]], 3])]
        wrong += [[tensor(parameters=given)] for given in (1, [], "a", {"binary_data_size": 8}, {"binary_data_size": "8"})]
        for inputs in wrong:
            self.assert_bad({"inputs": inputs})
        self.assert_bad(json.dumps(good()).replace("[1, 2]}", "[1, 2," + "[" * 1000).encode())

    def test_what_else_is_wrong(self):
        for outputs in (None, 1, "a", {}, [1], [{}], [{"name": 1}], [{"name": "z"}], [{"name": "x"}]):
            if outputs is not None:
                self.assert_bad(good() | {"outputs": outputs})
        parameters = [{"binary_data": 1}, {"classification": "2"}, {"classification": -1}, {"classification": 1.5}, []]
        for given in parameters + [{"shared_memory_region": "r"}]:
            self.assert_bad(good() | {"outputs": [{"name": "y", "parameters": given}]})
        for given in ({"timeout": "soon"}, {"timeout": -1}, {"binary_data_output": 1}, [], 1):
            self.assert_bad(good() | {"parameters": given})
        for given in (1, [], {}):
            self.assert_bad(good() | {"id": given})

    def test_bytes_that_do_not_fit(self):
        announced = lambda size: {"inputs": [without("data") | {"parameters": {"binary_data_size": size}}]}
        eight = np.array([1, 2], np.float32).tobytes()
        self.assertEqual(raw_infer("identity_fp32", announced(8), eight)[0], 200)
        for size, given in ((8, eight[:7]), (8, eight + b"\0"), (4, eight), (-1, eight), (2**70, eight), (7, eight[:7])):
            self.assert_bad(announced(size), given)
        self.assert_bad(good(), eight)
        length = len(json.dumps(announced(8)))
        for header in ("x", "-1", "1.5", "", "99999999999999999999", str(length + 99), str(length - 1), "0"):
            self.assert_bad(announced(8), eight, headers={"Inference-Header-Content-Length": header})
        # Its length is missing altogether.
        self.assert_bad(json.dumps(announced(8)).encode() + eight)

    def test_texts_that_are_cut(self):
        self.need("identity_bytes")
        for data in (b"\x02\0\0\0a", b"\x01\0\0", b"\xff\xff\xff\xffa", b"\x01\0\0\0ab", b"\x01\0\0\0a\x01\0\0\0b"):
            given = {"name": "x", "shape": [1, 1], "datatype": "BYTES", "parameters": {"binary_data_size": len(data)}}
            status, _, body = raw_infer("identity_bytes", {"inputs": [given]}, data)
            self.assertEqual(status, 400, (data, body))

    def test_bools_that_are_neither(self):
        self.need("identity_bool")
        given = {"name": "x", "shape": [1, 1], "datatype": "BOOL", "parameters": {"binary_data_size": 1}}
        self.assertEqual(raw_infer("identity_bool", {"inputs": [given]}, b"\x02")[0], 400)

    def test_chance(self):
        """A good request with a few bytes changed is answered or refused, never more."""
        chance, text = random.Random(7), json.dumps(good() | {"id": "a", "outputs": [{"name": "y"}]}).encode()
        for _ in range(300):
            changed = bytearray(text)
            for _ in range(chance.randint(1, 3)):
                changed[chance.randrange(len(changed))] = chance.choice(b"{}[]\",:0x\\\0\xff ")
            status, _, body = raw_infer("identity_fp32", bytes(changed))
            self.assertIn(status, (200, 400), (bytes(changed), body))

    def test_wrong_messages(self):
        def request(**other):
            given = {"name": "x", "datatype": "FP32", "shape": [1, 2]} | other
            made = service_pb2.ModelInferRequest(model_name="identity_fp32")
            made.inputs.add(**given)
            return made

        def with_raw(made, *raws):
            made.raw_input_contents.extend(raws)
            return made

        typed = service_pb2.InferTensorContents(fp32_contents=[1, 2])
        whole = service_pb2.InferTensorContents(int_contents=[1, 2])
        wrong = [
            request(),
            request(contents=whole),
            request(shape=[-1, 2], contents=typed),
            request(shape=[1, 3], contents=typed),
            request(shape=[1] * 40, contents=typed),
            request(datatype="", contents=typed),
            request(datatype="BF16", contents=typed),
            request(datatype="INT32", contents=whole),
            request(name="z", contents=typed),
            with_raw(request(), b"\0" * 7),
            with_raw(request(), b"\0" * 8, b"\0" * 8),
            with_raw(request(contents=typed), b"\0" * 8),
            service_pb2.ModelInferRequest(model_name="identity_fp32"),
            service_pb2.ModelInferRequest(model_name="identity_fp32", model_version="x"),
        ]
        output = request(contents=typed)
        output.outputs.add(name="y").parameters["classification"].string_param = "2"
        wrong.append(output)
        with grpc_client.grpc.insecure_channel(base.GRPC) as channel:
            stub = service_pb2_grpc.GRPCInferenceServiceStub(channel)
            self.assertEqual(len(stub.ModelInfer(request(contents=typed)).raw_output_contents), 1)
            for made in wrong:
                with self.assertRaises(grpc_client.grpc.RpcError) as raised:
                    stub.ModelInfer(made)
                self.assertEqual(raised.exception.code(), grpc_client.grpc.StatusCode.INVALID_ARGUMENT, made)
