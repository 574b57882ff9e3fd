"""Asks a running agent with Triton's own client, tritonclient: HTTP and gRPC, one after the other
and many at once.

    python triton.py --http HOST:PORT --grpc HOST:PORT --models models.json [-k PART]

`models.json` says which models are there, from tests/models/shapes and beside:

    {"models": {"identity_fp32": ["1"], "add_sub": ["1", "2"]},
     "control": true, "loadable": "fixed"}

`control`: the agent lets callers load and unload models; `loadable` is one to try it with. What needs
a model that is not there is passed over, and said.
"""

import argparse
import json
import sys
import unittest

from triton_cases import base


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--http", required=True, help="HOST:PORT of the HTTP door")
    parser.add_argument("--grpc", required=True, help="HOST:PORT of the gRPC door")
    parser.add_argument("--models", required=True, help="a JSON file that says which models are there")
    parser.add_argument("-k", dest="part", help="only tests with this in their name")
    arguments = parser.parse_args()
    with open(arguments.models) as file:
        base.configure(arguments.http, arguments.grpc, json.load(file))

    from triton_cases import control, inference, malformed, protocol, streams, told

    loader = unittest.TestLoader()
    if arguments.part:
        loader.testNamePatterns = [f"*{arguments.part}*"]
    # Loading and unloading comes last: it takes models away from the others.
    modules = [protocol, told, inference, streams, malformed, control]
    suite = unittest.TestSuite(loader.loadTestsFromModule(module) for module in modules)
    result = unittest.TextTestRunner(verbosity=1).run(suite)
    base.close()
    return 0 if result.wasSuccessful() and result.testsRun > 0 else 1


if __name__ == "__main__":
    sys.exit(main())
