"""Pairs of reasons and soft labels in the formats of their readers."""

import json
from pathlib import Path

import pyarrow.parquet as pq
import yaml

from tasks.dataset.export.exports import write_exports
from tasks.dataset.settings import ExportSpec, Format
from tasks.records import Example, Message, Origin, Pair, Subset
from tests.checkpoints import make_small_tokenizer, write_random_checkpoint
from tests.tasks.dataset.export.making import ask

CHOSEN, REJECTED = '{"理由": "好", "类别": "甲"}', '{"理由": "坏<image>", "类别": "乙"}'
QUESTION = "看<image>为什么"
PAIR = Pair(
    messages=(Message(role="user", content=QUESTION), Message(role="assistant", content=CHOSEN)), rejected=REJECTED
)


def export(folder: Path, format: Format, *examples: Example) -> Path:
    base = write_random_checkpoint(folder / "base", make_small_tokenizer(["甲乙"]), "qwen2_vl")
    written = write_exports(folder / "out", "d", examples, ExportSpec(formats=(format,), base=str(base)))
    assert not written.left_out
    return folder / "out" / format


def read_lines(file: Path) -> list[dict]:
    return [json.loads(line) for line in file.read_text("utf-8").splitlines()]


def disputed(folder: Path, **fields: object) -> Example:
    from PIL import Image

    from tasks.items.images import MAX_PIXELS, check_image

    folder.mkdir(exist_ok=True)
    Image.new("RGB", (56, 56), "red").save(folder / "a.png")
    seen = check_image(folder / "a.png", MAX_PIXELS)
    return ask("<image>", '{"类别": "甲"}', images=(seen,), label="甲", pairs=(PAIR,), **fields)


def test_a_pair_is_one_row_and_an_example_without_pairs_is_none(tmp_path: Path) -> None:
    example = disputed(tmp_path)
    home = export(tmp_path, Format.SWIFT_PAIRS, ask("问", "答"), example)
    (row,) = read_lines(home / "d.jsonl")
    assert [turn["content"] for turn in row["messages"]] == [QUESTION, CHOSEN]
    assert row["images"] == [example.images[0].path]
    assert row["rejected_response"] != CHOSEN and "<image>" not in row["rejected_response"]
    assert [line["id"] for line in read_lines(home / "provenance.jsonl")] == ["item-7"]
    config = yaml.safe_load((home / "train_lora.yaml").read_text("utf-8"))
    assert config["rlhf_type"] == "dpo"
    assert not (home / "train_full.yaml").exists()


def test_llamafactory_reads_the_two_answers_beside_the_question(tmp_path: Path) -> None:
    home = export(tmp_path, Format.LLAMAFACTORY_PAIRS, disputed(tmp_path))
    (row,) = json.loads((home / "d.json").read_text("utf-8"))
    assert row["messages"] == [{"role": "user", "content": QUESTION}]
    assert row["chosen"] == {"role": "assistant", "content": CHOSEN}
    assert row["rejected"]["content"].count("<image>") == 0
    info = json.loads((home / "dataset_info.json").read_text("utf-8"))["d"]
    assert info["ranking"] is True
    assert info["columns"] == {name: name for name in ("messages", "images", "chosen", "rejected")}
    assert yaml.safe_load((home / "train_lora.yaml").read_text("utf-8"))["stage"] == "dpo"


def test_trl_gets_prompt_chosen_rejected_and_the_image_once(tmp_path: Path) -> None:
    home = export(tmp_path, Format.TRL_PAIRS, disputed(tmp_path, subset=Subset.VALIDATION))
    assert pq.read_table(home / "d.parquet").num_rows == 0
    (row,) = pq.read_table(home / "d_validation.parquet").to_pylist()
    assert [e["type"] for e in row["prompt"][0]["content"]] == ["text", "image", "text"]
    assert row["chosen"][0]["content"][0]["text"] == CHOSEN
    assert row["rejected"][0]["content"][0]["text"].startswith('{"理由": "坏')
    assert len(row["images"]) == 1


def test_a_soft_label_is_a_weighted_row_per_possible_label(tmp_path: Path) -> None:
    shares = {"甲": 0.6, "乙": 0.39, "丙": 0.01}
    unsure = ask("问", '{"类别": "甲"}', label="甲", origin=Origin.PSEUDO, probabilities=shares)
    home = export(tmp_path, Format.SWIFT_SOFT, unsure, ask("问", '{"类别": "丁"}', label="丁"))
    rows = read_lines(home / "d.jsonl")
    answers = [row["messages"][-1] for row in rows]
    assert [a["content"] for a in answers] == ['{"类别": "甲"}', '{"类别": "乙"}', '{"类别": "丁"}']
    assert [a.get("loss_scale") for a in answers] == [0.6 / 0.99, 0.39 / 0.99, None]
    assert [line["label"] for line in read_lines(home / "provenance.jsonl")] == ["甲", "乙", "丁"]
    assert yaml.safe_load((home / "train_lora.yaml").read_text("utf-8"))["is_binary_loss_scale"] is False


def test_trls_rows_have_the_probabilities_beside_the_answer(tmp_path: Path) -> None:
    unsure = ask("问", "甲", label="甲", origin=Origin.PSEUDO, probabilities={"甲": 0.6, "乙": 0.4})
    home = export(tmp_path, Format.TRL, unsure, ask("问", "丁"))
    soft, hard = pq.read_table(home / "d.parquet")["label_probabilities"].to_pylist()
    assert soft == [{"label": "甲", "probability": 0.6}, {"label": "乙", "probability": 0.4}]
    assert hard == []
