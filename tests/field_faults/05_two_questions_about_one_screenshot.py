"""Different questions about one screenshot, and all rows of a dialogue with one row per turn, are taught."""

import json
import os
import socket
import subprocess
import sys
import tempfile
from pathlib import Path

import pandas as pd
from PIL import Image

SAID = "你是一个网店客服助手，请判断用户的意图。\n<用户与客服的对话 START>\n{}\n<用户与客服的对话 END>\n"
HISTORY = (
    "用户: 我昨天在你们店里买了一件外套，订单一直没有动静\n客服: 您好，请发一下订单的截图，这边帮您看看\n用户: <image>"
)
LINES = ["用户: 上周买的这件外套我穿着有点小，想换大一号的，可是页面上找不到换货的入口，请问怎么申请", "客服: 好的",
         "用户: 在吗", "客服: 在的", "用户: 在吗"]  # fmt: skip


def make_rows() -> list[dict[str, object]]:
    asked = {"refund": ("能不能退款", "申请退款"), "ship": ("什么时候发货", "询问发货时间")}
    rows: list[dict[str, object]] = [
        {"id": i, "instruction": SAID.format(f"{HISTORY}\n用户: {text}"), "image": ["screen.png"], "output": label}
        for i, (text, label) in asked.items()
    ]
    for n in (1, 3, 5):
        said = SAID.format("\n".join(LINES[:n]))
        rows.append({"id": f"turn{n}", "instruction": said, "image": [], "output": "申请退款"})
    return rows


def find_free_port() -> int:
    with socket.socket() as opened:
        opened.bind(("127.0.0.1", 0))
        return opened.getsockname()[1]


def run_labelstill(config: Path) -> None:
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "LABELSTILL_PORT": str(find_free_port()), "DO_NOT_TRACK": "1"}
    for module in ("flows.commands.main", "flows.cli"):
        command = [sys.executable, "-m", module]
        done = subprocess.run([*command, "run", str(config)], capture_output=True, text=True, env=environment)
        if "No module named" not in done.stderr:
            subprocess.run([*command, "stop"], capture_output=True, env=environment)
            break
    if done.returncode != 0:
        raise SystemExit(f"the run failed: {(done.stdout + done.stderr)[-3000:].strip()}")


def main() -> int:
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        (folder / "images").mkdir()
        Image.effect_noise((112, 168), 90).save(folder / "images" / "screen.png")
        rows = make_rows()
        (folder / "train.json").write_text(json.dumps(rows), encoding="utf-8")
        source = {"manifest": str(folder / "train.json"), "images": str(folder / "images")}
        config = {"pack": "demo", "labelled": source, "output": str(folder / "out"), "images": str(folder / "cache")}
        (folder / "run.yaml").write_text(json.dumps(config))
        run_labelstill(folder / "run.yaml")
        taught = set(pd.read_parquet(folder / "out" / "emit" / "kept.parquet").get("sample_id", []))
    lost = [row["id"] for row in rows if row["id"] not in taught]
    if lost:
        print(f"not taught: {lost}")
    return 1 if lost else 0


if __name__ == "__main__":
    raise SystemExit(main())
