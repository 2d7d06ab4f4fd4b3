"""`labelstill check` reports what nothing reads: unread and repeated keys, videos, rounded ids, two labels."""

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

SAID = "你是一个网店客服助手，请判断用户的意图。\n<用户与客服的对话 START>\n用户: {}\n<用户与客服的对话 END>\n"


def make_item(identity: object, text: str = "在吗", **more: object) -> dict[str, object]:
    return {"id": identity, "instruction": SAID.format(text), "image": [], "output": "询问尺码"} | more


def run_check(folder: Path) -> str:
    (folder / "images").mkdir()
    config = folder / "run.yaml"
    source = {"manifest": str(folder / "train.jsonl"), "images": str(folder / "images")}
    config.write_text(json.dumps({"pack": "demo", "labelled": source, "output": str(folder / "out"),
                                  "images": str(folder / "cache")}))  # fmt: skip
    environment = {**os.environ, "COLUMNS": "300", "HF_HUB_OFFLINE": "1"}
    for module in ("flows.commands.main", "flows.cli"):
        command = [sys.executable, "-m", module, "check", str(config)]
        done = subprocess.run(command, capture_output=True, text=True, env=environment)
        if "No module named" not in done.stderr:
            break
    return done.stdout + done.stderr


def main() -> int:
    lines = [json.dumps(make_item(f"good{n}", input="用户: 衣服有多大", videos=["a.mp4"])) for n in range(3)]
    lines.append(json.dumps(make_item("twice")).replace("}", ', "image": ["b.png"]}'))
    lines.append(json.dumps(make_item("video", "看这个 <video>")))
    lines.append(json.dumps(make_item(1727340000000000001.0)))
    lines += [json.dumps(make_item("two", output=label)) for label in ("询问尺码", "查询物流")]
    with tempfile.TemporaryDirectory() as scratch:
        (Path(scratch) / "train.jsonl").write_text("\n".join(lines), encoding="utf-8")
        output = run_check(Path(scratch))
    wanted = ("`input` (3 items)", "`videos` (3 items)", "duplicate_key 1", "unsupported_media 1", "rounded_id 1",
              "conflicting_labels 2")  # fmt: skip
    missing = [text for text in wanted if text not in output]
    if missing:
        print(f"not reported: {', '.join(missing)}")
    return 1 if missing else 0


if __name__ == "__main__":
    raise SystemExit(main())
