#!/usr/bin/env python3
"""What clients of TF Serving do, done to a running door.

    tf_serving.py http://127.0.0.1:8501 [--label NAME=VERSION ...]

The door serves the models of ../models under their names: `linear_regression` and `digits`, each in
one version or in both. --label names labels that `linear_regression` carries. Prints a line for each
check; exits with 0 if all of them hold, else with 1. Needs nothing but Python's standard library.
"""

import argparse
import gzip
import http.client
import json
import math
import pathlib
import threading
import traceback
import urllib.parse

MODELS = pathlib.Path(__file__).resolve().parent.parent / "models"
CHECKS = []


def check(function):
    CHECKS.append(function)
    return function


class Door:
    """One connection; it is kept until it breaks."""

    def __init__(self, url, labels):
        parts = urllib.parse.urlsplit(url)
        self.address, self.labels = parts.netloc, labels
        self.connection = http.client.HTTPConnection(self.address, timeout=30)

    def send(self, method, path, body=None, headers=None, **more):
        if body is not None and not isinstance(body, bytes) and not hasattr(body, "__next__"):
            body = json.dumps(body).encode()
        self.connection.request(method, path, body, headers or {}, **more)
        response = self.connection.getresponse()
        return response, response.read()

    def ask(self, method, path, body=None, headers=None, **more):
        response, text = self.send(method, path, body, headers, **more)
        assert response.getheader("Content-Type") == "application/json", response.getheaders()
        if response.getheader("Content-Encoding") == "gzip":
            text = gzip.decompress(text)
        return response.status, json.loads(text)

    def good(self, method, path, body=None, headers=None, **more):
        status, answer = self.ask(method, path, body, headers, **more)
        assert status == 200, (status, answer)
        return answer

    def versions(self, model):
        entries = self.good("GET", f"/v1/models/{model}")["model_version_status"]
        return [int(entry["version"]) for entry in entries if entry["state"] == "AVAILABLE"]


def golden(model, version):
    file = MODELS / model / f"v{version}" / "golden.json"
    cases = json.loads(file.read_text())
    return [(case["inputs"]["x"], case["outputs"]) for case in cases["cases"]]


def near(found, expected):
    """Whether numbers are alike, however they are nested."""
    if isinstance(expected, list):
        return isinstance(found, list) and len(found) == len(expected) and all(map(near, found, expected))
    return math.isclose(found, expected, rel_tol=1e-4, abs_tol=1e-4)


def agree(found, expected):
    assert near(found, expected), f"found {str(found)[:300]}, expected {str(expected)[:300]}"


@check
def the_status_names_every_version(door):
    for model in ["linear_regression", "digits"]:
        entries = door.good("GET", f"/v1/models/{model}")["model_version_status"]
        versions = [int(entry["version"]) for entry in entries]
        assert versions and versions == sorted(versions, reverse=True), versions
        for entry in entries:
            alone = door.good("GET", f"/v1/models/{model}/versions/{entry['version']}")
            assert alone == {"model_version_status": [entry]}, alone
            assert entry["state"] == "AVAILABLE", entry
            assert entry["status"] == {"error_code": "OK", "error_message": ""}, entry


@check
def metadata_tells_what_goes_in_and_out(door):
    for model, width, outputs in [("linear_regression", 10, {"y"}), ("digits", 64, {"label", "probabilities"})]:
        for version in door.versions(model):
            answer = door.good("GET", f"/v1/models/{model}/versions/{version}/metadata")
            assert answer["model_spec"] == {"name": model, "signature_name": "", "version": str(version)}, answer
            signature = answer["metadata"]["signature_def"]["signature_def"]["serving_default"]
            x = signature["inputs"]["x"]
            assert x["dtype"] == "DT_FLOAT" and x["tensor_shape"]["unknown_rank"] is False, x
            assert [size["size"] for size in x["tensor_shape"]["dim"]] == ["-1", str(width)], x
            assert set(signature["outputs"]) == outputs, signature
            assert signature["method_name"] == "tensorflow/serving/predict", signature


@check
def predict_in_every_form(door):
    for version in door.versions("linear_regression"):
        path = f"/v1/models/linear_regression/versions/{version}:predict"
        for rows, outputs in golden("linear_regression", version):
            named = [{"x": row} for row in rows]
            for body in [
                {"instances": rows},
                {"instances": named},
                {"signature_name": "serving_default", "instances": rows},
                {"instances": named, "signature_name": "serving_default"},
            ]:
                agree(door.good("POST", path, body)["predictions"], outputs["y"])
            for body in [{"inputs": rows}, {"inputs": {"x": rows}}, {"signature_name": "", "inputs": {"x": rows}}]:
                agree(door.good("POST", path, body)["outputs"], outputs["y"])


@check
def several_outputs_stand_under_their_names(door):
    for version in door.versions("digits"):
        path = f"/v1/models/digits/versions/{version}:predict"
        for rows, outputs in golden("digits", version):
            answer = door.good("POST", path, {"instances": rows})["predictions"]
            assert [row["label"] for row in answer] == outputs["label"], answer
            agree([row["probabilities"] for row in answer], outputs["probabilities"])
            answer = door.good("POST", path, {"inputs": {"x": rows}})["outputs"]
            assert answer["label"] == outputs["label"], answer
            agree(answer["probabilities"], outputs["probabilities"])


@check
def without_a_version_the_newest_answers(door):
    newest = max(door.versions("linear_regression"))
    rows, outputs = golden("linear_regression", newest)[0]
    agree(door.good("POST", "/v1/models/linear_regression:predict", {"instances": rows})["predictions"], outputs["y"])


@check
def a_label_names_a_version(door):
    for label, version in door.labels:
        rows, outputs = golden("linear_regression", version)[0]
        path = f"/v1/models/linear_regression/labels/{label}"
        agree(door.good("POST", f"{path}:predict", {"instances": rows})["predictions"], outputs["y"])
        assert door.good("GET", f"{path}/metadata")["model_spec"]["version"] == str(version)
    status, answer = door.ask("POST", "/v1/models/linear_regression/labels/no-such:predict", {"instances": [[0] * 10]})
    assert (status, answer) == (400, {"error": "Unrecognized servable version label: no-such"}), (status, answer)


@check
def regress_gives_a_number_for_each_example(door):
    version = max(door.versions("linear_regression"))
    for rows, outputs in golden("linear_regression", version):
        body = {"examples": [{"x": row} for row in rows]}
        answer = door.good("POST", "/v1/models/linear_regression:regress", body)
        agree(answer["results"], [value for [value] in outputs["y"]])
    body = {"context": {"x": rows[0]}, "examples": [{}, {"unknown": 1}]}
    assert len(door.good("POST", "/v1/models/linear_regression:regress", body)["results"]) == 2


@check
def classify_gives_a_score_for_each_class(door):
    version = max(door.versions("digits"))
    for rows, outputs in golden("digits", version):
        answer = door.good("POST", "/v1/models/digits:classify", {"examples": [{"x": row} for row in rows]})
        assert all(label == "" for classes in answer["results"] for label, _ in classes), answer
        agree([[score for _, score in classes] for classes in answer["results"]], outputs["probabilities"])


@check
def numbers_that_are_none_go_in_and_out(door):
    rows = [[math.nan] + [0] * 9, [math.inf] + [0] * 9]
    answer = door.good("POST", "/v1/models/linear_regression:predict", {"instances": rows})["predictions"]
    assert math.isnan(answer[0][0]) and math.isinf(answer[1][0]), answer


@check
def bodies_may_be_packed_both_ways(door):
    version = max(door.versions("digits"))
    rows, outputs = golden("digits", version)[-1]
    packed = gzip.compress(json.dumps({"instances": rows * 20}).encode())
    headers = {"Content-Encoding": "gzip", "Content-Type": "application/json"}
    answer = door.good("POST", "/v1/models/digits:predict", packed, headers)["predictions"]
    agree([row["probabilities"] for row in answer], outputs["probabilities"] * 20)
    response, text = door.send("POST", "/v1/models/digits:predict", packed, headers | {"Accept-Encoding": "gzip"})
    assert response.getheader("Content-Encoding") == "gzip", response.getheaders()
    assert len(json.loads(gzip.decompress(text))["predictions"]) == len(rows) * 20


@check
def a_body_may_come_in_pieces(door):
    rows, outputs = golden("linear_regression", max(door.versions("linear_regression")))[-1]
    text = json.dumps({"instances": rows}).encode()
    pieces = (text[at : at + 100] for at in range(0, len(text), 100))
    answer = door.good("POST", "/v1/models/linear_regression:predict", pieces, encode_chunked=True,
                       headers={"Transfer-Encoding": "chunked"})
    agree(answer["predictions"], outputs["y"])


@check
def one_connection_serves_many_requests(door):
    rows, outputs = golden("linear_regression", max(door.versions("linear_regression")))[0]
    door.good("GET", "/v1/models/linear_regression")
    socket = door.connection.sock
    for _ in range(500):
        answer = door.good("POST", "/v1/models/linear_regression:predict", {"instances": rows})
        agree(answer["predictions"], outputs["y"])
    # An error does not end the connection either.
    assert door.ask("POST", "/v1/models/linear_regression:predict", b"{")[0] == 400
    door.good("POST", "/v1/models/linear_regression:predict", {"instances": rows})
    assert socket is not None and door.connection.sock is socket, "the connection was closed in between"


@check
def many_ask_at_once(door):
    rows, outputs = golden("digits", max(door.versions("digits")))[0]
    wrong = []

    def ask():
        try:
            own = Door(f"http://{door.address}", [])
            for _ in range(25):
                answer = own.good("POST", "/v1/models/digits:predict", {"inputs": rows})["outputs"]
                agree(answer["probabilities"], outputs["probabilities"])
        except Exception as error:  # noqa: BLE001
            wrong.append(error)

    threads = [threading.Thread(target=ask) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong, wrong[0]


@check
def a_body_may_be_large(door):
    rows, outputs = golden("digits", max(door.versions("digits")))[-1]
    times = 20_000 // len(rows)
    body = json.dumps({"instances": rows * times}).encode()
    assert len(body) > 4_000_000
    answer = door.good("POST", "/v1/models/digits:predict", body)["predictions"]
    assert [row["label"] for row in answer] == outputs["label"] * times


@check
def what_is_wrong_is_said(door):
    path = "/v1/models/linear_regression:predict"
    row = [0] * 10
    for method, path, body, status, part in [
        ("POST", path, b"", 400, "JSON Parse error: The document is empty"),
        ("POST", path, b"instances = [1, 2]", 400, "JSON Parse error: Invalid value. at offset: 0"),
        ("POST", path, b"[1]", 400, "Is not object"),
        ("POST", path, {}, 400, "Missing 'inputs' or 'instances' key"),
        ("POST", path, {"instances": []}, 400, "No values in 'instances' array"),
        ("POST", path, {"instances": [row], "inputs": [row]}, 400, "expecting only one of"),
        ("POST", path, {"instances": [row, row[:9]]}, 400, "Expecting tensor size: 10 but got: 9"),
        ("POST", path, {"instances": [row[:9]]}, 400, "shape [1, 9]"),
        ("POST", path, {"instances": [["a"] * 10]}, 400, 'JSON Value: "a" Type: String is not of expected type: float'),
        ("POST", path, {"instances": [{"b64": "aGVsbG8="}]}, 400, "Type: Object is not of expected type: float"),
        ("POST", path, {"instances": [{"z": row}]}, 400, "does not have named input: z"),
        ("POST", path, {"inputs": {"z": [row]}}, 400, "Missing named input: x"),
        ("POST", path, {"instances": [row], "signature_name": "other"}, 400, 'Serving signature name: "other" not found'),
        ("POST", path, {"instances": [row], "signature_name": 1}, 400, "'signature_name' key must be a string value."),
        ("POST", "/v1/models/linear_regression:regress", {"examples": [{}]}, 400, "Feature: x (data type: float)"),
        ("POST", "/v1/models/digits:classify", {"examples": []}, 400, "'examples' value is an empty array"),
        ("POST", "/v1/models/digits:regress", {"examples": [{"x": [0] * 64}]}, 400, "Expected output Tensor shape"),
        ("POST", "/v1/models/nobody:predict", {"instances": [row]}, 404, "Servable not found for request: Latest(nobody)"),
        ("POST", "/v1/models/digits/versions/99:predict", {"instances": [row]}, 404, "Specific(digits, 99)"),
        ("POST", "/v1/models/digits/versions/99999999999999999999:predict", {}, 400, "Failed to convert version"),
        ("POST", "/v1/models/digits:explain", {}, 400, "Malformed request: POST /v1/models/digits:explain"),
        ("GET", path, None, 400, f"Malformed request: GET {path}"),
        ("GET", "/v1/models", None, 400, "Missing model name in request."),
        ("GET", "/v1/models/nobody", None, 404, "Could not find any versions of model nobody"),
        ("GET", "/v1/models/digits/versions/99", None, 404, "Could not find version 99 of model digits"),
        ("GET", "/v1/models/nobody/metadata", None, 404, "Servable not found for request: Latest(nobody)"),
        ("DELETE", "/v1/models/digits", None, 400, "Malformed request: DELETE /v1/models/digits"),
    ]:
        found, answer = door.ask(method, path, body)
        assert found == status and set(answer) == {"error"} and part in answer["error"], (method, path, body, found, answer)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("url", help="where the door is, such as http://127.0.0.1:8501")
    parser.add_argument("--label", action="append", default=[], metavar="NAME=VERSION")
    arguments = parser.parse_args()
    labels = [(name, int(version)) for name, _, version in (label.partition("=") for label in arguments.label)]
    failed = 0
    for function in CHECKS:
        name = function.__name__.replace("_", " ")
        try:
            function(Door(arguments.url, labels))
            print(f"ok      {name}")
        except Exception as error:  # noqa: BLE001
            failed += 1
            line = traceback.extract_tb(error.__traceback__)[-1].lineno
            print(f"FAILED  {name}: {type(error).__name__} {str(error)[:1000]} (line {line})")
    print(f"{len(CHECKS) - failed} of {len(CHECKS)} checks hold")
    raise SystemExit(1 if failed else 0)


if __name__ == "__main__":
    main()
