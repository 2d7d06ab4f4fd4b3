"""A chat server in this process that gives every request the same answer and keeps the bodies it was sent."""

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


@dataclass
class Provider:
    """What the server answers (it may be changed at any time) and what it was sent."""

    status: int = 200
    answer: Any = None
    url: str = ""
    bodies: list[dict[str, Any]] = field(default_factory=list[dict[str, Any]])


def completion(**choice: Any) -> dict[str, Any]:
    """Return a chat completion with one choice."""
    return {"choices": [{"index": 0, "finish_reason": "stop", **choice}]}


@contextmanager
def serving(status: int, answer: Any) -> Iterator[Provider]:
    """Context manager: serve `answer` to every chat request, and no list of models."""
    provider = Provider(status, answer)

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            self._send(404, {})

        def do_POST(self) -> None:
            provider.bodies.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            self._send(provider.status, provider.answer)

        def _send(self, status: int, answer: Any) -> None:
            content = json.dumps(answer).encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, format: str, *args: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        provider.url = f"http://127.0.0.1:{server.server_port}/v1"
        threading.Thread(target=server.serve_forever, daemon=True).start()
        try:
            yield provider
        finally:
            server.shutdown()
