"""Pruned answers are asked again by the next run, although nothing else has changed."""

import json
import os
import socket
import subprocess
import sys
import tempfile
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


def read_asked(folder: Path) -> int:
    return json.loads((folder / "run" / "pseudo_labels" / "record.json").read_text())["costs"]["asked"]


with tempfile.TemporaryDirectory() as temporary:
    folder = Path(temporary)
    config = write_run(folder, {"engine": "scripted", "model": "scripted:hash"})
    try:
        labelstill("run", config)
        first = read_asked(folder)
        labelstill("ledger", "prune", "--ledger", folder / "ledger.sqlite", "--outcome", "ok", "--yes")
        record = (folder / "run" / "pseudo_labels" / "record.json").read_text()
        labelstill("run", config)
        again = (folder / "run" / "pseudo_labels" / "record.json").read_text() != record
        second = read_asked(folder)
    finally:
        labelstill("stop")
if not again or second != first:
    sys.exit(f"asked {first} times before the answers were pruned, {second if again else 0} times after")
