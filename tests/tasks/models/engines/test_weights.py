"""A hub model's missing files are fetched from a small hub on this machine."""

import json
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from os import environ
from pathlib import Path

FILES = {"config.json": b"{}", "model.safetensors": b"w" * 1000, "pytorch_model.bin": b"w" * 2000}
COMMIT = "c" * 40
FETCH = """
import logging
from tasks.models.engines.vllm.weights import fetch_weights
logging.basicConfig(level=logging.INFO, format="%(message)s")
fetch_weights("someone/model", None)
"""


class SmallHub(BaseHTTPRequestHandler):
    """Serves one model's files as the Hugging Face hub does, and keeps the paths of what was downloaded."""

    downloads: list[str] = []  # noqa: RUF012
    broken = False

    def do_HEAD(self) -> None:
        self._send_file(self.path.rsplit("/", 1)[-1])

    def do_GET(self) -> None:
        name = self.path.rsplit("/", 1)[-1]
        if "/resolve/" in self.path:
            self.downloads.append(name)
            self._send_file(name)
        elif "/tree/" in self.path:
            self._send_json([{"type": "file", "path": p, "size": len(c), "oid": p} for p, c in FILES.items()])
        else:
            self._send_json({"id": "someone/model", "sha": COMMIT, "siblings": [], "tags": []})

    def _send_json(self, value: object) -> None:
        self._send(json.dumps(value).encode(), {"Content-Type": "application/json"})

    def _send_file(self, name: str) -> None:
        if self.broken and name == "model.safetensors":
            self.send_error(404)
        else:
            self._send(FILES[name], {"ETag": f'"{name}"', "X-Repo-Commit": COMMIT})

    def _send(self, content: bytes, headers: dict[str, str]) -> None:
        self.send_response(200)
        for name, value in {**headers, "Content-Length": str(len(content))}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(content)

    def log_message(self, format: str, *args: object) -> None:
        pass


def fetch(home: Path, **fields: str) -> "subprocess.CompletedProcess[str]":
    with ThreadingHTTPServer(("127.0.0.1", 0), SmallHub) as hub:
        threading.Thread(target=hub.serve_forever, daemon=True).start()
        hub_is_here = {"HF_ENDPOINT": f"http://127.0.0.1:{hub.server_port}", "HF_HUB_OFFLINE": "0"}
        environment = {**environ, **hub_is_here, "HF_HOME": str(home), "NO_PROXY": "127.0.0.1", **fields}
        done = subprocess.run([sys.executable, "-c", FETCH], env=environment, capture_output=True, text=True)
        hub.shutdown()
    return done


def test_missing_files_are_fetched_once_with_progress(tmp_path: Path) -> None:
    SmallHub.downloads = []
    assert fetch(tmp_path, HF_HUB_OFFLINE="1").returncode == 0
    assert SmallHub.downloads == [], "nothing is fetched in offline mode"
    done = fetch(tmp_path)
    assert done.returncode == 0, done.stderr
    assert "fetching someone/model: 0.0 of 0.0 GB" in done.stderr
    assert sorted(SmallHub.downloads) == ["config.json", "model.safetensors"], "vLLM reads no other format"
    fetch(tmp_path)
    assert len(SmallHub.downloads) == 2
    assert len(list(tmp_path.rglob("snapshots/*/model.safetensors"))) == 1


def test_a_file_that_cannot_be_fetched_is_named(tmp_path: Path) -> None:
    SmallHub.broken = True
    done = fetch(tmp_path)
    SmallHub.broken = False
    assert "EngineError: cannot fetch model.safetensors of someone/model" in done.stderr
