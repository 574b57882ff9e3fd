"""Loading and unloading models, where it is allowed and where it is not."""

import numpy as np

from . import base
from .base import Case, for_each_client, raw


class Control(Case):
    @for_each_client
    def test_refused_where_it_is_not_allowed(self, client):
        if base.PRESENT.get("control"):
            self.skipTest("this agent lets callers load and unload models")
        model = next(iter(base.PRESENT["models"]))
        for method in ("load_model", "unload_model"):
            self.assert_refused(client, 403, "PERMISSION_DENIED", "", lambda: client.call(method, model))
        self.assertTrue(client.call("is_model_ready", model))

    @for_each_client
    def test_a_model_goes_and_comes(self, client):
        model = base.PRESENT.get("loadable")
        if not base.PRESENT.get("control") or not model:
            self.skipTest("this agent loads and unloads nothing for callers")
        client.call("load_model", model)
        self.assertTrue(client.call("is_model_ready", model))
        client.call("unload_model", model)
        self.assertFalse(client.call("is_model_ready", model))
        told = client.told("get_model_repository_index")
        entries = told if client.is_http else told.get("models", [])
        states = [entry.get("state") for entry in entries if entry["name"] == model]
        self.assertNotIn("READY", states)
        client.call("load_model", model)
        self.assertTrue(client.call("is_model_ready", model))
        # Loading what is loaded loads what has changed of it: nothing.
        client.call("load_model", model)
        self.assertTrue(client.call("is_server_ready"))

    @for_each_client
    def test_what_cannot_be_loaded(self, client):
        if not base.PRESENT.get("control"):
            self.skipTest("this agent loads nothing for callers")
        for method in ("load_model", "unload_model"):
            refused = lambda: client.call(method, "nobody")
            self.assert_refused(client, 404, "NOT_FOUND", "nobody", refused)
        model = next(iter(base.PRESENT["models"]))
        refused = lambda: client.call("load_model", model, config='{"backend": "x"}')
        self.assert_refused(client, 400, "INVALID_ARGUMENT", "config", refused)

    def test_bodies_that_are_wrong(self):
        model = next(iter(base.PRESENT["models"]))
        for body in (b"{", b"[]", b'{"parameters": 1}', b'{"parameters": {"a": [1]}}'):
            status, _, _ = raw("POST", f"/v2/repository/models/{model}/load", body)
            self.assertEqual(status, 400, body)
