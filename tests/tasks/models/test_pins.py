"""A hub model without a revision stays at the commit that answered first."""

import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

from tasks.models import pins
from tasks.models.engines.identity import identify_model
from tasks.models.engines.spec import EngineSpec
from tasks.models.ledger.ledger import Ledger

MODEL = "shop/teacher"
OLD, NEW = "a" * 40, "b" * 40
SPEC = EngineSpec(engine="local", model=MODEL)


def push(cache: Path, commit: str) -> None:
    """Make `commit` the newest one in the local cache of the hub."""
    folder = cache / f"models--{MODEL.replace('/', '--')}"
    (folder / "snapshots" / commit).mkdir(parents=True)
    (folder / "snapshots" / commit / "config.json").write_text("{}")
    (folder / "refs").mkdir(exist_ok=True)
    (folder / "refs" / "main").write_text(commit)


@contextmanager
def serve_hub(commit: str) -> Iterator[str]:
    """Context manager: serve a hub on which `commit` is the newest of every model."""

    class Hub(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            content = json.dumps({"id": MODEL, "sha": commit}).encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, format: str, *args: object) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Hub) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    return tmp_path / "hub"


@pytest.fixture
def ledger(tmp_path: Path) -> Path:
    path = tmp_path / "ledger.sqlite"
    Ledger(path).close()
    return path


def test_a_model_stays_at_the_commit_first_used(cache: Path, ledger: Path) -> None:
    push(cache, OLD)
    assert pins.pin_model(SPEC, ledger).revision == OLD
    push(cache, NEW)
    assert pins.pin_model(SPEC, ledger).revision == OLD
    assert identify_model(pins.name_commit(SPEC, ledger)) == f"{MODEL}@{OLD}"


def test_a_chosen_revision_or_a_folder_is_left_alone(ledger: Path, tmp_path: Path) -> None:
    for model, revision in ((MODEL, "v2"), (str(tmp_path), None)):
        spec = EngineSpec(engine="local", model=model, revision=revision)
        assert pins.pin_model(spec, ledger) == spec


def test_without_hub_and_cache_no_commit_is_known(cache: Path, ledger: Path) -> None:
    assert pins.pin_model(SPEC, ledger).revision is None
    assert pins.describe_newer_commit(MODEL, ledger) == ""


def test_a_newer_commit_on_the_hub_is_named_and_not_used(ledger: Path) -> None:
    script = (
        "import sys; from pathlib import Path; from tasks.models.pins import *; ledger = Path(sys.argv[1])\n"
        f"print(choose_revision({MODEL!r}, None, ledger)); print(describe_newer_commit({MODEL!r}, ledger))"
    )
    found: list[str] = []
    for commit in (OLD, NEW):
        with serve_hub(commit) as address:
            settings = {**os.environ, "HF_HUB_OFFLINE": "0", "HF_ENDPOINT": address, "HF_HOME": str(ledger.parent)}
            command = [sys.executable, "-c", script, str(ledger)]
            found += subprocess.run(command, env=settings, capture_output=True, text=True, check=True).stdout.split(
                "\n"
            )
    assert found[:2] == [OLD, ""] and found[3] == OLD
    assert NEW in found[4] and "asked again" in found[4]
