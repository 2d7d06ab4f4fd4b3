"""Items that break naive pipelines in `labelstill run`: they are shortened, or dropped with a reason."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
from PIL import Image
from transformers import AutoProcessor

from tasks.demo.checkpoint import write_checkpoint
from tasks.models.token_budget import PromptBudget
from tasks.records import Dropped, Prediction, Sample, Sampling
from tasks.storage.rows import read_rows
from tests.conftest import PrefectServer
from tests.tasks.making import prompter

LABELS = ["申请退款", "查询物流", "催发货"]


def make_dialogue(turns: int, images: int, words: int) -> str:
    lines: list[str] = []
    for turn in range(turns):
        who = "客服" if turn % 2 else "用户"
        picture = "<image>" if turn < images else ""
        lines.append(f"{who}: {picture}第{turn}句" + "这个包裹什么时候能到呢" * words)
    body = "\n".join(lines)
    return (
        f"你是一个网店客服助手\n<用户与客服的对话 START>\n{body}\n<用户与客服的对话 END>\n"
        "请直接只输出分类标签结果，不需要其他多余的话。以下是可以参考的分类标签为："
        + json.dumps(LABELS, ensure_ascii=False)
    )


def write_items(folder: Path) -> tuple[Path, Path]:
    images = folder / "images"
    images.mkdir()
    noise = np.random.default_rng(0)
    names = [f"{i}.png" for i in range(60)]
    for name in names:
        Image.fromarray(noise.integers(0, 255, (168, 112, 3), dtype=np.uint8)).save(images / name)
    Image.new("RGB", (1, 20_000)).save(images / "thin.png")
    items = [
        {"id": "plain", "instruction": make_dialogue(3, 1, 1), "image": names[:1]},
        {"id": "long", "instruction": make_dialogue(60, 60, 280), "image": names},
        {"id": "thin", "instruction": make_dialogue(3, 1, 1), "image": ["thin.png"]},
        {"id": "hopeless", "instruction": make_dialogue(1, 0, 9000), "image": []},
    ]
    manifest = folder / "pool.json"
    manifest.write_text(json.dumps(items, ensure_ascii=False), encoding="utf-8")
    return manifest, images


def test_a_huge_dialogue_is_shortened_and_a_thin_image_dropped(prefect_server: PrefectServer, tmp_path: Path) -> None:
    manifest, images = write_items(tmp_path)
    base = write_checkpoint(tmp_path / "base", [make_dialogue(4, 0, 1)])
    out, ledger = tmp_path / "run", tmp_path / "ledger.sqlite"
    config = tmp_path / "config.yaml"
    config.write_text(
        json.dumps(
            {
                "pack": "demo",
                "unlabelled": {"manifest": str(manifest), "images": str(images)},
                "teacher": {
                    "engine": "local",
                    "model": str(base),
                    "dtype": "float32",
                    "context_length": 4096,
                },
                "max_pixels": 112 * 168,
                "ask": {"votes": 1, "max_tokens": 16},
                "output": str(out),
                "ledger": str(ledger),
                "images": str(tmp_path / "cache"),
            }
        ),
        encoding="utf-8",
    )
    done = subprocess.run(
        [sys.executable, "-m", "flows.commands.main", "run", str(config)], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr[-2000:]

    refused = {d.sample_id: d for d in read_rows(out / "samples" / "unlabelled" / "dropped.parquet", Dropped)}
    assert set(refused) == {"thin"}, "the thin image never reaches a model"
    print(refused["thin"].reason, refused["thin"].detail)
    assert "20000" in refused["thin"].detail

    samples = {s.id: s for s in read_rows(out / "samples" / "unlabelled" / "kept.parquet", Sample)}
    assert len(samples["long"].images) == 60
    tokens = PromptBudget(AutoProcessor.from_pretrained(base)).count(prompter().classify(samples["long"], Sampling()))
    print("tokens of the long dialogue", tokens)
    assert tokens > 50_000

    predictions = {p.sample_id: p for p in read_rows(out / "pseudo_labels" / "predictions.parquet", Prediction)}
    assert set(predictions) == {"plain", "long", "hopeless"}
    assert predictions["long"].label in LABELS
    assert predictions["hopeless"].outcome == "too_long"
    print(predictions["long"].detail)
    assert "turns" not in predictions["plain"].detail
    assert "turns" in predictions["long"].detail
    record = json.loads((out / "pseudo_labels" / "record.json").read_bytes())
    assert record["costs"]["shortened"] == 1
    dropped = {d.sample_id: d for d in read_rows(out / "pseudo_labels" / "dropped.parquet", Dropped)}
    assert dropped["hopeless"].reason == "too_long"
    assert "tokens" in dropped["hopeless"].detail
    print(dropped["hopeless"].detail)
