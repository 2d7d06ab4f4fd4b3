"""A key that a server quotes in its errors reaches no log, ledger, artifact or file; image bytes reach no log."""

import base64
import json
import logging
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import httpx
import pytest
from prefect.blocks.system import Secret

from flows.config import PseudoLabelsConfig
from tasks.demo.dataset import write_demo
from tasks.errors import EngineError
from tasks.items.settings import SourceConfig
from tasks.models.engines.spec import EngineSpec
from tasks.records import Dropped, Outcome, Prediction
from tasks.storage.rows import read_rows
from tests.conftest import PrefectServer

KEY = "sk-geheim-4711-abcdef-0123456789"


class Quoting(BaseHTTPRequestHandler):
    """An OpenAI-compatible server that quotes the request's headers wherever it complains."""

    protocol_version = "HTTP/1.1"
    status = 400

    def do_GET(self) -> None:
        self._say(200, {"object": "list", "data": [{"id": "quoting", "object": "model"}]})

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        text = json.dumps(body, ensure_ascii=False)
        if "顾客" in text or "用户" in text or "image" in text:
            padding = "x" * 466  # the key where a complaint is cut
            message = f"{padding} {self.headers['Authorization']} is not entitled: {self.headers['Authorization']}"
            self._say(self.status, {"error": {"message": message, "type": "x", "param": None, "code": 400}})
        else:
            choices = [{"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": "ok"}}]
            self._say(200, {"choices": choices, "usage": {"prompt_tokens": 1, "completion_tokens": 1}})

    def _say(self, status: int, answer: object) -> None:
        body = json.dumps(answer).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def quoting() -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), Quoting) as server:
        threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/v1"
        server.shutdown()


def write_config(folder: Path, url: str) -> PseudoLabelsConfig:
    paths = write_demo(folder / "data", labelled=40, unlabelled=40, test=20)
    return PseudoLabelsConfig(
        pack="demo",
        unlabelled=SourceConfig(manifest=paths.unlabelled.manifest, images=paths.unlabelled.images),
        teacher=EngineSpec(engine="server", model="quoting", base_urls=(url,), api_key_env="QUOTED_KEY"),
        output=folder / "run",
        ledger=folder / "ledger.sqlite",
        max_failed_share=1.0,  # the server refuses every question
        images=folder / "images",
        texts=folder / "texts",
    )


def read_server_texts(server: PrefectServer) -> str:
    """All that the server holds of runs: their log lines, states, parameters, artifacts."""
    said: list[str] = []
    for what in ("logs", "flow_runs", "task_runs", "artifacts", "flow_run_states"):
        for offset in range(0, 2000, 200):
            body = {"limit": 200, "offset": offset}
            answer = httpx.post(f"{server.api_url}/{what}/filter", json=body, timeout=30)
            if answer.status_code != 200 or not answer.json():
                break
            said.append(answer.text)
    return "\n".join(said)


def find_files_with(folder: Path, words: tuple[bytes, ...]) -> list[Path]:
    return [f for f in sorted(folder.rglob("*")) if f.is_file() and any(w in f.read_bytes() for w in words)]


@pytest.mark.parametrize("place", ["environment", "block"])
def test_a_key_quoted_by_a_server_is_stored_nowhere(
    prefect_server: PrefectServer, quoting: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture, place: str,
) -> None:  # fmt: skip
    from flows.pseudo_labels import pseudo_labels

    if place == "environment":
        monkeypatch.setenv("QUOTED_KEY", KEY)
    else:
        monkeypatch.setenv("QUOTED_KEY", "")
        Secret(value=KEY).save("quoted-key", overwrite=True)  # pyright: ignore
    config = write_config(tmp_path, quoting)
    with caplog.at_level(logging.DEBUG):
        record = pseudo_labels(config)
    answers = read_rows(config.output / "pseudo_labels" / "predictions.parquet", Prediction)
    assert record.kept == 0 and {a.outcome for a in answers} == {Outcome.FAILED}
    assert all("(key) is not" in a.detail for a in answers)  # the complaint itself is kept
    dropped = read_rows(config.output / "pseudo_labels" / "dropped.parquet", Dropped)
    assert {d.sample_id for d in dropped} == {a.sample_id for a in answers}  # who wants to know which, looks there
    words = tuple(part.encode() for part in (KEY, KEY[:16], base64.b64encode(KEY.encode()).decode()))
    assert find_files_with(tmp_path, words) == []
    everything = caplog.text + read_server_texts(prefect_server)
    assert "pseudo_labels" in everything
    assert not [word for word in words if word.decode() in everything]
    assert "data:image" not in everything and "/9j/" not in everything and "iVBOR" not in everything


def test_a_key_in_neither_place_is_asked_for_by_both_names(prefect_server: PrefectServer, tmp_path: Path) -> None:
    from flows.pseudo_labels import pseudo_labels

    config = write_config(tmp_path, "http://127.0.0.1:9/v1")
    missing = config.teacher.model_copy(update={"api_key_env": "NO_SUCH_KEY"})
    with pytest.raises(EngineError, match=r"NO_SUCH_KEY .* is not set.*Secret block: no-such-key"):
        pseudo_labels(config.model_copy(update={"teacher": missing}))


def test_a_server_that_refuses_the_key_is_quoted_without_it(
    prefect_server: PrefectServer, quoting: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:  # fmt: skip
    from flows.pseudo_labels import pseudo_labels

    monkeypatch.setenv("QUOTED_KEY", KEY)
    monkeypatch.setattr(Quoting, "status", 403)
    with pytest.raises(EngineError, match=r"check the key in \$QUOTED_KEY") as raised:
        pseudo_labels(write_config(tmp_path, quoting))
    assert KEY[:16] not in f"{raised.value}{caplog.text}{read_server_texts(prefect_server)}"
    assert find_files_with(tmp_path, (KEY[:16].encode(),)) == []
