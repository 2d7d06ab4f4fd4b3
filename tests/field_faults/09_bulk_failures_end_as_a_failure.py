"""A run all of whose answers are unreadable, or whose general mix is unusable, must end with exit code 1 and the cause.

Run it in a checkout: `python tests/field_faults/09_bulk_failures_end_as_a_failure.py`. Exits 0 if that is so, else 1.
"""

import json
import os
import random
import socket
import subprocess
import sys
import tempfile
from pathlib import Path

LABELS = ["询问发货时间", "询问尺码", "询问材质", "申请退款", "反馈破损", "询问优惠", "查询物流", "询问用法"]
COMMAND = "flows.commands.main" if Path("flows/commands/main.py").exists() else "flows.cli"


def write_manifest(file: Path, count: int, *, labelled: bool) -> dict[str, str]:
    rng = random.Random(file.name)
    rows = []
    for i in range(count):
        said = "".join(chr(rng.randrange(0x4E00, 0x8000)) for _ in range(40))
        offered = json.dumps(LABELS, ensure_ascii=False)
        text = (
            "你是一个网店客服助手，请判断用户的意图。\n<用户与客服的对话 START>\n"
            f"用户: {said}\n<用户与客服的对话 END>\n分类标签:{offered}。"
        )
        row = {"id": f"{file.stem}-{i}", "instruction": text, "image": []}
        rows.append({**row, "output": LABELS[i % len(LABELS)]} if labelled else row)
    file.write_text(json.dumps(rows, ensure_ascii=False), "utf-8")
    return {"manifest": str(file), "images": str(file.parent)}


def run(folder: Path, name: str, config: dict[str, object]) -> subprocess.CompletedProcess[str]:
    file = folder / f"{name}.yaml"
    keys = {"pack": "demo", "output": str(folder / name), "ledger": str(folder / "ledger.sqlite")}
    file.write_text(json.dumps(keys | {"images": str(folder / "cache")} | config), "utf-8")
    command = [sys.executable, "-m", COMMAND, "run", str(file)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def check(folder: Path) -> str:
    """Return what is wrong, or an empty text."""
    pool = write_manifest(folder / "pool.json", 36, labelled=False)
    labelled = write_manifest(folder / "labelled.json", 40, labelled=True)
    teacher = {"engine": "scripted", "model": "scripted:hash,bad=1"}
    done = run(folder, "unreadable", {"unlabelled": pool, "teacher": teacher})
    if done.returncode != 1:
        return f"36 of 36 answers were unreadable, and the exit code is {done.returncode}: {done.stderr[-300:]}"
    if "36 of 36" not in done.stderr or "pool-" not in done.stderr or "36 of 36" not in done.stdout:
        return f"the number of failures and an example are missing: {done.stderr[-500:]} {done.stdout[-500:]}"
    general = folder / "general.jsonl"
    general.write_text("\n".join(json.dumps({"text": str(i)}) for i in range(60)), "utf-8")
    done = run(folder, "mix", {"labelled": labelled, "emit": {"mix": {"file": str(general), "share": 0.3}}})
    if done.returncode != 1 or "mix_malformed" not in done.stderr:
        return f"the mix has 0 instead of 30 %, and the exit code is {done.returncode}"
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
