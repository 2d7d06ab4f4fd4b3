"""Three damaged rows of the ledger are asked again, and all other answers are used."""

import json
import os
import socket
import sqlite3
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
os.environ["LABELSTILL_SCRIPTED_STANDS_IN_FOR_A_MODEL"] = "1"


def write_run(folder: Path, teacher: dict[str, object], output: str = "run") -> Path:
    """Write a pool of six screenshots and a configuration; return the configuration's path."""
    rows = []
    for number in range(6):
        file = folder / f"{number}.png"
        if not file.exists():  # the noise is another each time
            Image.effect_noise((224, 336), 60 + number).convert("RGB").save(file)
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


DAMAGE = (
    "replace(generation, '判断', '判断断')",
    "replace(generation, ':-0.1053', ':2.1053')",
    "CAST(replace(CAST(generation AS BLOB), '依据', x'e4bd9d00') AS TEXT)",
)

with tempfile.TemporaryDirectory() as temporary:
    folder = Path(temporary)
    teacher = {"engine": "scripted", "model": "scripted:hash"}
    try:
        labelstill("run", write_run(folder, teacher))
        ledger = sqlite3.connect(folder / "ledger.sqlite")
        for number, damage in enumerate(DAMAGE, start=1):
            ledger.execute(f"UPDATE answers SET generation = {damage} WHERE id = {number}")
        ledger.commit()
        ledger.close()
        second = labelstill("run", write_run(folder, teacher, "again"))
    finally:
        labelstill("stop")
    record = folder / "again" / "pseudo_labels" / "record.json"
    if not record.exists():
        sys.exit(f"the run stopped: {second.stderr[-300:]}")
    costs = json.loads(record.read_text())["costs"]
    if (costs["asked"], costs["reused"]) != (3, 3):
        sys.exit(f"{costs['asked']} answers asked again and {costs['reused']} reused, not 3 and 3")
    if "damaged answers" not in second.stdout + second.stderr:
        sys.exit("the run does not say how many answers were damaged")
