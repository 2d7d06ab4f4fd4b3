"""A reviewer sees neither the given label of an audited item nor what the models say about it before judging."""

import json
import os
import random
import re
import socket
import subprocess
import sys
import tempfile
from pathlib import Path

LABELS = ("询问尺码", "申请退款", "查询物流")
WORDS = ("尺码 大小 合身", "退款 退钱 不要了", "快递 包裹 到哪")
ASK = "你是一个网店客服助手，请判断用户的意图。\n<用户与客服的对话 START>\n用户: {}\n<用户与客服的对话 END>\n"


def run_labelstill(*words):
    """Run `labelstill` from this checkout, or from an old one whose command is another module."""
    for module in ("flows.commands.main", "flows.cli"):
        if Path(*module.split(".")).with_suffix(".py").exists():
            program = f"from {module} import main; main()"
            return subprocess.run([sys.executable, "-c", program, *map(str, words)], capture_output=True, text=True)
    sys.exit("run this script in a checkout of labelstill")


def write_run(folder):
    """Write 45 dialogues, every ninth with a wrong label, and the configuration of a run that corrects them."""
    random.seed(0)
    items = [
        {
            "id": f"i{n}",
            "instruction": ASK.format(WORDS[n % 3] + "".join(chr(random.randrange(0x4E00, 0x9FA5)) for _ in range(30))),
            "image": [],
            "output": LABELS[(n + (n % 9 == 0)) % 3],
        }
        for n in range(45)
    ]
    (folder / "images").mkdir()
    (folder / "train.json").write_text(json.dumps(items), encoding="utf-8")
    config = {
        "pack": "demo",
        "labelled": {"manifest": str(folder / "train.json"), "images": str(folder / "images")},
        "teacher": {"engine": "scripted", "model": "scripted:hash"},
        "student": {"kind": "probe", "folds": 3, "images": "none"},
        "ask": {"votes": 1},
        "correction": {"review_budget": 8, "audit": 8},
        "output": str(folder / "out"),
        "ledger": str(folder / "ledger.sqlite"),
        "images": str(folder / "cache"),
        "texts": str(folder / "texts"),
    }
    (folder / "run.yaml").write_text(json.dumps(config))


with socket.create_server(("127.0.0.1", 0)) as probe:
    port = probe.getsockname()[1]
os.environ |= {"LABELSTILL_PORT": str(port), "HF_HUB_OFFLINE": "1", "DO_NOT_TRACK": "1"}
os.environ["LABELSTILL_SCRIPTED_STANDS_IN_FOR_A_MODEL"] = "1"
with tempfile.TemporaryDirectory() as name:
    folder = Path(name)
    write_run(folder)
    done = run_labelstill("run", folder / "run.yaml")
    run_labelstill("stop")
    if done.returncode:
        sys.exit(f"the run failed: {done.stderr[-400:]}")
    queue = [json.loads(line) for line in (folder / "out" / "review" / "cases.jsonl").open(encoding="utf-8")]
    page = (folder / "out" / "review" / "review.html").read_text(encoding="utf-8")
    elements = re.findall(r'<script type="application/json" id="case-\d+">(.*?)</script', page, re.S)
    run_labelstill("review", "export", folder / "out", "--to", folder / "tasks.json")
    tasks = json.loads((folder / "tasks.json").read_text(encoding="utf-8"))
shown = [key for case in queue for key in ("given", "candidate", "student", "teacher", "reason", "why") if case[key]]
shown += [key for text in elements for key in ("candidate", "rows", "reason", "why") if json.loads(text)[key]]
shown += ["prediction" for task in tasks if task["predictions"]]
shown += ["given" for task in tasks if task["data"]["given"] in LABELS]
if len(queue) != 8 or shown:
    sys.exit(f"{len(queue)} audited items show {sorted(set(shown))}")
