"""A server that refuses all images at first: once it is repaired, the items are asked again."""

import json
import os
import socket
import subprocess
import sys
import tempfile
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pyarrow.parquet as pq
from PIL import Image

COMMAND = "flows.commands.main" if Path("flows/commands").is_dir() else "flows.cli"


def labelstill(*arguments: object) -> subprocess.CompletedProcess[str]:
    """Run the command in this folder's checkout."""
    command = [sys.executable, "-m", COMMAND, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=300)


def choose_port() -> str:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return str(probe.getsockname()[1])


os.environ |= {"LABELSTILL_PORT": choose_port(), "HF_HUB_OFFLINE": "1", "COLUMNS": "400"}


def write_run(folder: Path, teacher: dict[str, object], output: str = "run") -> Path:
    """Write a pool of six screenshots and a configuration; return the configuration's path."""
    rows = []
    for number in range(6):
        picture = Image.effect_noise((224, 336), 60 + number).convert("RGB")
        picture.save(folder / f"{number}.png")
        text = (
            'Picture 1: <image>\n你是一个网店识图助手,请判断图片属于哪一类。分类标签:["商品页", "支付页", "物流页"]。'
        )
        rows.append({"id": str(number), "instruction": text, "image": [f"{number}.png"]})
    (folder / "pool.json").write_text(json.dumps(rows, ensure_ascii=False), encoding="utf-8")
    places = {name: str(folder / name) for name in ("images", "texts")}
    config = {
        "pack": "demo",
        "unlabelled": {"manifest": str(folder / "pool.json"), "images": str(folder)},
        "teacher": teacher,
        "output": str(folder / output),
        "ledger": str(folder / "ledger.sqlite"),
        **places,
    }
    path = folder / f"{output}.yaml"
    path.write_text(json.dumps(config), encoding="utf-8")
    return path


ASKED: list[str] = []


class Provider(BaseHTTPRequestHandler):
    """Answers chat requests with `Provider.answer(body)`, which returns a status and JSON."""

    protocol_version = "HTTP/1.1"
    broken = True

    def do_GET(self) -> None:
        self._send(200, {"data": [{"id": "m"}]})

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"])).decode()
        if "data:image" in body:
            ASKED.append(body)
        self._send(*answer(body))

    def _send(self, status: int, reply: object) -> None:
        content = json.dumps(reply).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, format: str, *args: object) -> None:
        pass


def start_provider() -> str:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Provider)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return f"http://127.0.0.1:{server.server_port}/v1"


LABEL = {
    "choices": [{"index": 0, "finish_reason": "stop", "message": {"content": '{"理由": "见图", "所属类别": "支付页"}'}}]
}


def answer(body: str) -> tuple[int, object]:
    if Provider.broken and "data:image" in body:
        return 400, {"error": {"message": "At most 0 image(s) may be provided in one request.", "code": 400}}
    return 200, LABEL


with tempfile.TemporaryDirectory() as temporary:
    folder = Path(temporary)
    config = write_run(folder, {"engine": "server", "model": "m", "base_urls": [start_provider()]})
    try:
        labelstill("run", config)
        first = len(ASKED)
        Provider.broken = False
        labelstill("ledger", "prune", "--ledger", folder / "ledger.sqlite", "--outcome", "bad_media", "--yes")
        second = labelstill("run", config)
    finally:
        labelstill("stop")
    dropped = folder / "run" / "pseudo_labels" / "dropped.parquet"
    rows = pq.read_table(dropped).to_pylist() if dropped.exists() else [{"reason": "no result"}]
    reasons = [row["reason"] for row in rows]
if not first or "bad_media" in reasons or "no result" in reasons:
    sys.exit(f"the repaired server's items are left out as {sorted(set(reasons))}\n{second.stdout[-300:]}")
