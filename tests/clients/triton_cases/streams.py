"""Streams over gRPC: one answer for each request, in order."""

import queue
import time

import numpy as np
import tritonclient.grpc as grpc_sync
from tritonclient.utils import InferenceServerException

from . import base
from .base import Case, client


def arrays(number):
    a = np.full((1, 4), number, np.float32)
    return {"a": a, "b": np.ones_like(a)}


class Streams(Case):
    COUNT = 100

    def test_answers_in_order_and_errors_between_them(self):
        self.need("add_sub")
        answers, one = queue.Queue(), client("grpc")
        with grpc_sync.InferenceServerClient(base.GRPC) as stream:
            stream.start_stream(callback=lambda result, error: answers.put((result, error)))
            for number in range(self.COUNT):
                model = "nobody" if number % 10 == 3 else "add_sub"
                stream.async_stream_infer(model, one.inputs(arrays(number)), request_id=str(number))
            found = [answers.get(timeout=30) for _ in range(self.COUNT)]
            stream.stop_stream()
        for number, (result, error) in enumerate(found):
            if number % 10 == 3:
                self.assertIsInstance(error, InferenceServerException)
                self.assertIn("no model", error.message())
            else:
                self.assertIsNone(error)
                self.assertEqual(result.get_response().id, str(number))
                self.assert_same(result.as_numpy("sum"), arrays(number)["a"] + 1)
        self.assertTrue(answers.empty())

    def test_a_stream_can_be_given_up(self):
        self.need("add_sub")
        answers, one = queue.Queue(), client("grpc")
        with grpc_sync.InferenceServerClient(base.GRPC) as stream:
            stream.start_stream(callback=lambda result, error: answers.put((result, error)))
            stream.async_stream_infer("add_sub", one.inputs(arrays(1)))
            self.assertIsNone(answers.get(timeout=30)[1])
            stream.stop_stream(cancel_requests=True)
        # The door is as it was.
        time.sleep(0.1)
        self.assertTrue(one.call("is_server_live"))

    def test_asyncio(self):
        self.need("add_sub")
        one = client("grpc_aio")

        async def ask_all():
            async def requests():
                for number in range(self.COUNT):
                    yield {
                        "model_name": "add_sub",
                        "inputs": one.inputs(arrays(number)),
                        "outputs": one.outputs(["sum"]),
                        "request_id": str(number),
                    }

            found = []
            async for result, error in one.client.stream_infer(requests()):
                self.assertIsNone(error)
                found.append(result)
            return found

        found = base.LOOP.run_until_complete(ask_all())
        self.assertEqual([result.get_response().id for result in found], [str(number) for number in range(self.COUNT)])
        for number, result in enumerate(found):
            self.assert_same(result.as_numpy("sum"), arrays(number)["a"] + 1)
