"""The stub server in vLLM's place on a Ray node: `python -m … --port P --name N --key K`; ends with its guard."""

import argparse
import asyncio

from tests.stub_handler import Options, serve

parser = argparse.ArgumentParser()
parser.add_argument("--port", type=int, required=True)
parser.add_argument("--name", required=True)
parser.add_argument("--key", required=True)
parser.add_argument("--seconds", type=float, default=0.0)
options = parser.parse_args()
asyncio.run(
    serve(options.port, Options(model=options.name, api_key=options.key, median_seconds=options.seconds, sigma=0.1))
)
