"""A hub model without `revision` stays at the commit of the first run, and `check` names a newer one on the hub."""

import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

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


def write_run(folder: Path, teacher: dict[str, object], output: str = "run", max_pixels: int = 12544) -> Path:
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
        "min_pixels": 12544,
        "max_pixels": max_pixels,
        "output": str(folder / output),
        "ledger": str(folder / "ledger.sqlite"),
        **places,
    }
    path = folder / f"{output}.yaml"
    path.write_text(json.dumps(config), encoding="utf-8")
    return path


MODEL = "shop/teacher"
OLD, NEW = "a" * 40, "b" * 40
CHECKPOINT = """
import sys
from pathlib import Path
from tasks.demo import checkpoint
make = getattr(checkpoint, "write_checkpoint", None) or checkpoint.new_checkpoint
make(Path(sys.argv[1]), ["你是一个网店识图助手 商品页 支付页 物流页 理由 所属类别"] * 50)
"""


class Hub(BaseHTTPRequestHandler):
    """A hub on which NEW is the newest commit of every model."""

    def do_GET(self) -> None:
        content = json.dumps({"id": MODEL, "sha": NEW}).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, format: str, *args: object) -> None:
        pass


with tempfile.TemporaryDirectory() as temporary:
    folder = Path(temporary)
    os.environ |= {"HF_HOME": str(folder / "hf"), "HF_HUB_CACHE": str(folder / "hf" / "hub")}
    repository = folder / "hf" / "hub" / "models--shop--teacher"
    snapshots = repository / "snapshots"
    subprocess.run([sys.executable, "-c", CHECKPOINT, str(snapshots / OLD)], check=True)
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text(OLD)
    teacher = {"engine": "local", "model": MODEL, "dtype": "float32"}
    try:
        first = labelstill("run", write_run(folder, teacher))
        # somebody pushes another model of that name: here one that cannot even be loaded
        shutil.copytree(snapshots / OLD, snapshots / NEW)
        for weights in (snapshots / NEW).glob("*.safetensors"):
            weights.unlink()
        (repository / "refs" / "main").write_text(NEW)
        second = labelstill("run", write_run(folder, teacher, "again", max_pixels=25088))
    finally:
        labelstill("stop")
    if first.returncode != 0:
        sys.exit(f"the first run failed: {first.stderr[-500:]}")
    if second.returncode != 0:
        sys.exit(f"the second run does not use the commit of the first: {second.stderr[-300:]}")
    hub = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    threading.Thread(target=hub.serve_forever, daemon=True).start()
    os.environ |= {"HF_HUB_OFFLINE": "0", "HF_ENDPOINT": f"http://127.0.0.1:{hub.server_port}"}
    told = labelstill("check", folder / "again.yaml")
    if NEW not in told.stdout or OLD not in told.stdout:
        sys.exit(f"`check` does not name the newer commit: {told.stdout[-300:]}")
    hub.shutdown()
    if labelstill("check", folder / "again.yaml").returncode != 0:
        sys.exit("`check` fails without a network")
