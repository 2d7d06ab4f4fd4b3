"""With the default `image_paths`, trainers load images as models saw them: upright, on white, 16 bits scaled."""

import json
import os
import socket
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
from PIL import Image

SHOWN = "<image>你是一个网店识图助手,请判断图片属于哪一类。"
RAMP = Image.linear_gradient("L").resize((56, 84))
PHOTO = Image.merge("RGB", (RAMP, RAMP.rotate(180), RAMP))


def write_images(folder: Path) -> dict[str, np.ndarray]:
    """Write images of several kinds; return what each shows in a viewer."""
    exif = Image.Exif()
    exif[0x0112] = 6
    PHOTO.save(folder / "turned.jpg", exif=exif, quality=95)
    clear = PHOTO.convert("RGBA")
    clear.putalpha(RAMP)
    clear.save(folder / "clear.png")
    clear.save(folder / "clear.webp", lossless=True)
    Image.fromarray(np.asarray(RAMP).astype(np.uint16) * 257).save(folder / "deep.png")
    white = Image.new("RGB", PHOTO.size, "white")
    white.paste(PHOTO, mask=RAMP)
    seen = {"turned.jpg": PHOTO.transpose(Image.Transpose.ROTATE_270), "clear.png": white, "clear.webp": white,
            "deep.png": RAMP.convert("RGB")}  # fmt: skip
    return {name: np.asarray(picture, np.float32) for name, picture in seen.items()}


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
        seen = write_images(folder / "images")
        labels = ("商品页", "支付页", "物流页", "评价页")
        rows = [
            {"id": name, "instruction": SHOWN, "image": [name], "output": label}
            for name, label in zip(seen, labels, strict=True)
        ]
        (folder / "train.json").write_text(json.dumps(rows), encoding="utf-8")
        source = {"manifest": str(folder / "train.json"), "images": str(folder / "images")}
        config = {"pack": "demo", "labelled": source, "output": str(folder / "out"), "images": str(folder / "cache"),
                  "emit": {"near_duplicates": "keep", "export": {"formats": ["swift"]}}}  # fmt: skip
        (folder / "run.yaml").write_text(json.dumps(config))
        run_labelstill(folder / "run.yaml")
        export = folder / "out" / "emit" / "swift"
        lines = [json.loads(line) for line in (export / "labelstill.jsonl").read_text("utf-8").splitlines()]
        ids = [json.loads(line)["id"] for line in (export / "provenance.jsonl").read_text("utf-8").splitlines()]
        wrong = []
        for name, line in zip(ids, lines, strict=True):
            loaded = np.asarray(Image.open(export / line["images"][0]).convert("RGB"), np.float32)
            if loaded.shape != seen[name].shape or np.abs(loaded - seen[name]).mean() > 3:
                wrong.append(name)
    if wrong or len(ids) != len(seen):
        print(f"{len(ids)} of {len(seen)} images exported; a trainer loads others than models saw: {wrong}")
        return 1
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
