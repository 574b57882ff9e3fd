"""Health, metadata, configuration, index, statistics; and what Triton has and we do not."""

import json

import numpy as np
from tritonclient.utils import InferenceServerException

from . import base
from .base import Case, for_each_client, raw


class Told(Case):
    @for_each_client
    def test_health(self, client):
        self.assertTrue(client.call("is_server_live"))
        self.assertTrue(client.call("is_server_ready"))
        for model, versions in base.PRESENT["models"].items():
            self.assertTrue(client.call("is_model_ready", model))
            for version in versions:
                self.assertTrue(client.call("is_model_ready", model, version))
        self.assertFalse(client.call("is_model_ready", "nobody"))
        self.assertFalse(client.call("is_model_ready", next(iter(base.PRESENT["models"])), "987"))

    @for_each_client
    def test_server_metadata(self, client):
        told = client.told("get_server_metadata")
        self.assertEqual(told["name"], "muster-agent")
        self.assertTrue(told["version"])
        for extension in ("binary_tensor_data", "classification", "model_repository", "statistics"):
            self.assertIn(extension, told["extensions"])

    @for_each_client
    def test_model_metadata(self, client):
        self.need("add_sub", "fixed", "scalar", "identity_bytes")

        def ports(told, side):
            # Protocol Buffers write 64-bit numbers as texts, and no list where there is nothing in it.
            shape = lambda port: [int(size) for size in port.get("shape", [])]
            return [(port["name"], port["datatype"], shape(port)) for port in told[side]]

        told = client.told("get_model_metadata", "add_sub")
        self.assertEqual(told["name"], "add_sub")
        self.assertEqual(told["platform"], "tract_onnx")
        self.assertEqual(told["versions"], base.PRESENT["models"]["add_sub"])
        self.assertEqual(ports(told, "inputs"), [("a", "FP32", [-1, 4]), ("b", "FP32", [-1, 4])])
        self.assertEqual(ports(told, "outputs"), [("sum", "FP32", [-1, 4]), ("difference", "FP32", [-1, 4])])
        self.assertEqual(ports(client.told("get_model_metadata", "fixed"), "inputs"), [("x", "INT32", [2, 3])])
        self.assertEqual(ports(client.told("get_model_metadata", "scalar"), "outputs"), [("y", "FP32", [])])
        told = client.told("get_model_metadata", "identity_bytes", "1")
        self.assertEqual(ports(told, "inputs"), [("x", "BYTES", [-1, -1])])
        refused = lambda model, version="": lambda: client.call("get_model_metadata", model, version)
        self.assert_refused(client, 404, "NOT_FOUND", "no model", refused("nobody"))
        self.assert_refused(client, 404, "NOT_FOUND", "no version 987", refused("add_sub", "987"))
        self.assert_refused(client, 400, "INVALID_ARGUMENT", "no version", refused("add_sub", "x"))

    @for_each_client
    def test_model_config(self, client):
        self.need("add_sub", "fixed")
        config = lambda model: client.told("get_model_config", model)
        told = config("add_sub")
        told = told if client.is_http else told["config"]
        self.assertEqual((told["name"], told["backend"]), ("add_sub", "tract"))
        self.assertGreater(told["max_batch_size"], 0)
        first = told["input"][0]
        dims = [int(size) for size in first["dims"]]
        self.assertEqual((first["name"], first["data_type"], dims), ("a", "TYPE_FP32", [4]))
        told = config("fixed")
        told = told if client.is_http else told["config"]
        self.assertEqual([int(size) for size in told["output"][0]["dims"]], [2, 3])
        self.assertEqual(told.get("max_batch_size", 0), 0)
        self.assert_refused(client, 404, "NOT_FOUND", "no model", lambda: config("nobody"))

    @for_each_client
    def test_repository_index(self, client):
        told = client.told("get_model_repository_index")
        entries = told if client.is_http else told["models"]
        ready = {(entry["name"], entry["version"]) for entry in entries if entry.get("state") == "READY"}
        present = {(model, version) for model, of in base.PRESENT["models"].items() for version in of}
        self.assertLessEqual(present, ready)

    def test_repository_index_of_what_is_ready(self):
        for body, wanted in ((b"", 200), (b"{}", 200), (b'{"ready": true}', 200), (b'{"ready": 1}', 400), (b"{", 400)):
            status, _, answer = raw("POST", "/v2/repository/index", body)
            self.assertEqual(status, wanted, body)
        _, _, answer = raw("POST", "/v2/repository/index", b'{"ready": true}')
        self.assertEqual({entry["state"] for entry in json.loads(answer)}, {"READY"})

    @for_each_client
    def test_statistics(self, client):
        self.need("add_sub")
        x = np.ones((3, 4), np.float32)

        def counted():
            told = client.told("get_inference_statistics", "add_sub", "1")["model_stats"]
            self.assertEqual(len(told), 1)
            return told[0]

        client.infer("add_sub", {"a": x, "b": x}, model_version="1")
        before = counted()
        for _ in range(2):
            client.infer("add_sub", {"a": x, "b": x}, model_version="1")
        after = counted()
        grown = lambda *path: int(look(after, path)) - int(look(before, path))
        self.assertEqual((after["name"], after["version"]), ("add_sub", "1"))
        self.assertEqual(grown("inference_count"), 6)
        self.assertEqual(grown("execution_count"), 2)
        self.assertEqual(grown("inference_stats", "success", "count"), 2)
        self.assertGreater(grown("inference_stats", "success", "ns"), 0)
        self.assertEqual(grown("inference_stats", "compute_infer", "count"), 2)
        self.assertGreater(int(after["last_inference"]), 1_600_000_000_000)
        self.assertIn(3, [int(batch["batch_size"]) for batch in after["batch_stats"]])
        everyone = client.told("get_inference_statistics")["model_stats"]
        self.assertEqual({one["name"] for one in everyone}, set(base.PRESENT["models"]))
        refused = lambda: client.call("get_inference_statistics", "nobody")
        self.assert_refused(client, 404, "NOT_FOUND", "no model", refused)

    @for_each_client
    def test_what_triton_has_and_we_do_not(self, client):
        for method in ("get_trace_settings", "get_log_settings"):
            self.assert_refused(client, 501, "UNIMPLEMENTED", "", lambda: client.call(method))
        status = ("get_system_shared_memory_status", "get_cuda_shared_memory_status")
        for method in status:
            if client.is_http:
                self.assertEqual(client.call(method), [])
            else:
                self.assert_refused(client, 0, "UNIMPLEMENTED", "", lambda: client.call(method))
        with self.assertRaises(InferenceServerException):
            client.call("register_system_shared_memory", "region", "/key", 16)

    def test_methods_and_paths(self):
        for method, path, wanted in (
            ("GET", "/v2/", 200),
            ("HEAD", "/v2/health/live", 200),
            ("POST", "/v2/health/live", 405),
            ("GET", "/v2/repository/index", 405),
            ("GET", "/v2/models/nobody/infer", 405),
            ("GET", "/v2/nothing", 404),
            ("POST", "/v2/models//infer", 404),
            ("POST", "/v2/models/nobody/infer", 404),
            ("POST", "/v2/models/nobody/generate", 501),
            ("POST", "/v2/models/nobody/versions/0/infer", 400),
        ):
            status, headers, body = raw(method, path)
            self.assertEqual(status, wanted, path)
            if wanted != 200:
                self.assertEqual(headers["content-type"], "application/json")
                self.assertTrue(json.loads(body)["error"], path)


def look(told, path):
    for part in path:
        told = told.get(part, 0) if isinstance(told, dict) else told
    return told
