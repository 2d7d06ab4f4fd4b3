"""The card of a set with given labels only does not call them expert-generated."""

import json
import os
import socket
import subprocess
import sys
import tempfile
from pathlib import Path

ASK = "你是一个网店客服助手，请判断用户的意图。\n<用户与客服的对话 START>\n用户: {}\n<用户与客服的对话 END>\n"


def run_labelstill(*words):
    """Run `labelstill` from this checkout, or from an old one whose command is another module."""
    for module in ("flows.commands.main", "flows.cli"):
        if Path(*module.split(".")).with_suffix(".py").exists():
            program = f"from {module} import main; main()"
            return subprocess.run([sys.executable, "-c", program, *map(str, words)], capture_output=True, text=True)
    sys.exit("run this script in a checkout of labelstill")


with socket.create_server(("127.0.0.1", 0)) as probe:
    port = probe.getsockname()[1]
os.environ |= {"LABELSTILL_PORT": str(port), "HF_HUB_OFFLINE": "1", "DO_NOT_TRACK": "1"}
with tempfile.TemporaryDirectory() as name:
    folder = Path(name)
    (folder / "images").mkdir()
    items = [{"id": i, "instruction": ASK.format(f"{i}怎么退"), "image": [], "output": "申请退款"} for i in "甲乙丙"]
    (folder / "train.json").write_text(json.dumps(items), encoding="utf-8")
    config = {
        "pack": "demo",
        "labelled": {"manifest": str(folder / "train.json"), "images": str(folder / "images")},
        "output": str(folder / "out"),
        "ledger": str(folder / "ledger.sqlite"),
        "images": str(folder / "cache"),
        "texts": str(folder / "texts"),
    }
    (folder / "run.yaml").write_text(json.dumps(config))
    done = run_labelstill("run", folder / "run.yaml")
    run_labelstill("stop")
    if done.returncode:
        sys.exit(f"the run failed: {done.stderr[-400:]}")
    card = (folder / "out" / "card" / "README.md").read_text(encoding="utf-8")
if "expert-generated" in card or "- found" not in card:
    sys.exit(f"annotations_creators: {card[card.index('annotations_creators') :].splitlines()[1]}")
