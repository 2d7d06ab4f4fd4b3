"""A small real server for tests of the process around vLLM: quick to start, and with a child of its own.

Serves /health and /v1/models. Its child sleeps; their pids are left in the folder `--pids`. With `--stubborn` the child
ignores SIGTERM, with `--escape` it has a session of its own, where no signal to a group reaches. Standard library only.
"""

import argparse
import json
import os
import signal
import subprocess
import sys
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

parser = argparse.ArgumentParser()
parser.add_argument("--port", type=int, required=True)
parser.add_argument("--name", required=True)
parser.add_argument("--pids", type=Path, required=True)
parser.add_argument("--say", default="Loading the model")
parser.add_argument("--fail", type=int, help="exit with this code instead of serving")
parser.add_argument("--slow", type=float, default=0.0, help="seconds before it serves")
parser.add_argument("--escape", action="store_true")
parser.add_argument("--stubborn", action="store_true")
options = parser.parse_args()


class Answers(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        models = [{"id": "base", "max_model_len": 4096}, {"id": options.name, "max_model_len": None}]
        content = json.dumps({"data": models}).encode() if self.path == "/v1/models" else b""
        self.send_response(200)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, format: str, *args: object) -> None:
        pass


print(f"(Small pid={os.getpid()}) INFO 11-21 11:52:39 [small.py:1] {options.say}", flush=True)
# an ignored signal stays ignored over exec
signal.signal(signal.SIGTERM, signal.SIG_IGN if options.stubborn else signal.SIG_DFL)
child = subprocess.Popen(["sleep", "600"], start_new_session=options.escape)
(options.pids / f"{os.getpid()}.{child.pid}").touch()
if options.fail is not None:
    sys.exit(options.fail)
signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
time.sleep(options.slow)
ThreadingHTTPServer(("127.0.0.1", options.port), Answers).serve_forever()
