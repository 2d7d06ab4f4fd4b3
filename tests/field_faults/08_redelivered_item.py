"""A broken row does not block the good re-delivery of the same id."""

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

SAID = "你是一个网店客服助手，请判断用户的意图。\n<用户与客服的对话 START>\n用户: 在吗\n<用户与客服的对话 END>\n"


def main() -> int:
    broken = {"id": "a", "instruction": SAID, "image": ["lost.png"], "output": "询问尺码"}
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        (folder / "images").mkdir()
        (folder / "train.json").write_text(json.dumps([broken, broken | {"image": []}]), encoding="utf-8")
        source = {"manifest": str(folder / "train.json"), "images": str(folder / "images")}
        config = {"pack": "demo", "labelled": source, "output": str(folder / "out"), "images": str(folder / "cache")}
        (folder / "run.yaml").write_text(json.dumps(config))
        for module in ("flows.commands.main", "flows.cli"):
            command = [sys.executable, "-m", module, "check", str(folder / "run.yaml")]
            environment = {**os.environ, "HF_HUB_OFFLINE": "1"}
            done = subprocess.run(command, capture_output=True, text=True, env=environment)
            if "No module named" not in done.stderr:
                break
    if "2 read, 1 kept, 1 dropped" not in done.stdout:
        print(f"the good row was not kept: {done.stdout.splitlines()[:1]}")
        return 1
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
