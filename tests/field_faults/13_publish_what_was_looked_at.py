"""`labelstill relabel --publish` must publish exactly the version that was held back, and it can be undone.

Run it in a checkout: `python tests/field_faults/13_publish_what_was_looked_at.py`. Exits 0 if that is so, else 1.
"""

import json
import os
import random
import socket
import subprocess
import sys
import tempfile
from pathlib import Path

import pandas as pd

LABELS = ["询问发货时间", "询问尺码", "询问材质", "申请退款", "反馈破损", "询问优惠", "查询物流", "询问用法"]
COMMAND = "flows.commands.main" if Path("flows/commands/main.py").exists() else "flows.cli"


def write_pool(file: Path, count: int) -> None:
    rng = random.Random(7)
    rows = []
    for i in range(count):
        said = "".join(chr(rng.randrange(0x4E00, 0x8000)) for _ in range(40))
        offered = json.dumps(LABELS, ensure_ascii=False)
        text = (
            "你是一个网店客服助手，请判断用户的意图。\n<用户与客服的对话 START>\n"
            f"用户: {said}\n<用户与客服的对话 END>\n分类标签:{offered}。"
        )
        rows.append({"id": f"pool-{i}", "instruction": text, "image": []})
    file.write_text(json.dumps(rows, ensure_ascii=False), "utf-8")


def relabel(folder: Path, rule: str, *options: str) -> int:
    config = {
        "pack": "demo",
        "unlabelled": {"manifest": str(folder / "pool.json"), "images": str(folder)},
        "teacher": {"engine": "scripted", "model": f"scripted:{rule}"},
        "ask": {"votes": 1},
        "pseudo_labels": {"target_precision": 0.01},
        "emit": {"export": {"formats": ["llamafactory"]}},
        "output": str(folder / "run"),
        "ledger": str(folder / "ledger.sqlite"),
        "images": str(folder / "cache"),
    }
    (folder / "c.yaml").write_text(json.dumps(config), "utf-8")
    command = [sys.executable, "-m", COMMAND, "relabel", str(folder / "c.yaml"), *options]
    return subprocess.run(command, capture_output=True, text=True, check=False).returncode


def read_set(folder: Path) -> dict[str, str]:
    rows = pd.read_parquet(folder / "kept.parquet")
    return dict(zip(rows["sample_id"], rows["label"], strict=True))


def check(folder: Path) -> str:
    """Return what is wrong, or an empty text."""
    output = folder / "run"
    write_pool(folder / "pool.json", 30)
    assert relabel(folder, "hash") == 0
    first = read_set(output / "emit")
    assert relabel(folder, "first") == 3, "the second version is not held back"
    looked_at = read_set(output / "candidate")
    write_pool(folder / "pool.json", 45)  # more arrives before the person decides
    code = relabel(folder, "first", "--publish")
    published = read_set(output / "emit")
    if code == 0 and published != looked_at:
        return f"{len(looked_at)} items were looked at, and another set of {len(published)} was published"
    if relabel(folder, "first", "--undo") != 0 or read_set(output / "emit") != first:
        return "publishing cannot be undone"
    return ""


with socket.socket() as probe:
    probe.bind(("127.0.0.1", 0))
    os.environ["LABELSTILL_PORT"] = str(probe.getsockname()[1])
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["LABELSTILL_SCRIPTED_STANDS_IN_FOR_A_MODEL"] = "1"
with tempfile.TemporaryDirectory() as scratch:
    try:
        wrong = check(Path(scratch))
    finally:
        subprocess.run([sys.executable, "-m", COMMAND, "stop"], capture_output=True, check=False)
print(wrong or "ok")
sys.exit(bool(wrong))
