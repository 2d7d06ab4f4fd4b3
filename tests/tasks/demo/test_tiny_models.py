import os
from pathlib import Path

import pytest
import torch
from PIL import Image

os.environ["HF_HUB_OFFLINE"] = "1"

from transformers import AutoModelForImageTextToText, AutoProcessor, AutoTokenizer

from tasks.demo.checkpoint import write_checkpoint
from tasks.demo.dataset import draw_items
from tasks.demo.lessons import School, convert_to_sample
from tasks.demo.tiny_models import TinyModels, make_models
from tasks.demo.training import Collator, compute_rate_factor
from tasks.packs.pack import load_pack

Step = tuple[str, int, int, float]
"""A model's name, steps done, total steps and loss."""

Made = tuple[Path, TinyModels, list[Step]]

CORPUS = ['{"理由": "图中有商品大图", "所属类别": "商品详情页截图"}', "反馈密封性不好"] * 20


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_checkpoint(tmp_path_factory.mktemp("checkpoint"), CORPUS, seed=3)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Made:
    folder = tmp_path_factory.mktemp("models")
    steps: list[Step] = []
    models = make_models(folder, scale=0.004, processes=1, progress=lambda *step: steps.append(step))
    return folder, models, steps


def test_the_template_renders_as_qwen2_vl_instruct_does(checkpoint: Path):
    turns = [
        {
            "role": "user",
            "content": [
                {"type": "text", "text": "第一张："},
                {"type": "image", "image": "a.jpg"},
                {"type": "text", "text": "第二张：\n"},
                {"type": "image", "image": "b.jpg"},
            ],
        },
        {"role": "assistant", "content": [{"type": "text", "text": "好"}]},
        {"role": "user", "content": "再看"},
    ]
    seen = "<|vision_start|><|image_pad|><|vision_end|>"
    expected = (
        "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n"
        f"<|im_start|>user\n第一张：{seen}第二张：\n{seen}<|im_end|>\n"
        "<|im_start|>assistant\n好<|im_end|>\n"
        "<|im_start|>user\n再看<|im_end|>\n"
        "<|im_start|>assistant\n"
    )
    for reader in (AutoProcessor, AutoTokenizer):
        loaded = reader.from_pretrained(checkpoint)
        assert loaded.apply_chat_template(turns, tokenize=False, add_generation_prompt=True) == expected
        own_system = [{"role": "system", "content": "简短"}, *turns[2:]]
        assert loaded.apply_chat_template(own_system, tokenize=False) == (
            "<|im_start|>system\n简短<|im_end|>\n<|im_start|>user\n再看<|im_end|>\n"
        )


def test_a_checkpoint_is_small_loads_and_answers(checkpoint: Path):
    processor = AutoProcessor.from_pretrained(checkpoint)
    model = AutoModelForImageTextToText.from_pretrained(checkpoint)
    assert type(model).__name__ == "Qwen2VLForConditionalGeneration"
    assert sum(p.numel() for p in model.parameters()) < 1_600_000
    assert len(processor.tokenizer) <= 3000
    inputs = processor(
        text=["<|vision_start|><|image_pad|><|vision_end|>图"],
        images=[Image.new("RGB", (112, 168))],
        do_resize=False,
        return_tensors="pt",
    )
    assert (inputs["input_ids"] == model.config.image_token_id).sum() == 4 * 6
    assert model.generate(**inputs, max_new_tokens=2, min_new_tokens=2).shape[1] == inputs["input_ids"].shape[1] + 2


def test_same_corpus_and_seed_give_the_same_files(checkpoint: Path, tmp_path: Path):
    again = write_checkpoint(tmp_path, CORPUS, seed=3)
    for name in ("model.safetensors", "tokenizer.json", "config.json"):
        assert (again / name).read_bytes() == (checkpoint / name).read_bytes()


def test_labels_are_single_tokens_of_a_trained_model(made: Made):
    tokenizer = AutoTokenizer.from_pretrained(made[1].teacher)
    for task in load_pack("demo").tasks.values():
        for label in task.labels:
            assert len(tokenizer.tokenize(label)) == 1


def test_three_models_are_written_and_load(made: Made):
    folder, models, steps = made
    weights = {}
    for name in ("base", "generator", "teacher"):
        path = getattr(models, name)
        assert path.parent == folder
        weights[name] = AutoModelForImageTextToText.from_pretrained(path).model.language_model.embed_tokens.weight
        AutoProcessor.from_pretrained(path)
        assert [s for s in steps if s[0] == name][-1][1:3] == (len([s for s in steps if s[0] == name]),) * 2
    assert not torch.equal(weights["base"], weights["teacher"])
    assert not torch.equal(weights["base"], weights["generator"])
    assert not list(folder.glob(".*-*")), "temporary folders left behind"


def test_made_models_are_reused_and_half_written_ones_are_not(made: Made, tmp_path: Path):
    folder, models, _ = made
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*.safetensors")}
    trained: set[str] = set()
    assert make_models(folder, scale=0.004, processes=1, progress=lambda name, *_: trained.add(name)) == models
    assert {path: path.stat().st_mtime_ns for path in folder.rglob("*.safetensors")} == before
    assert not trained

    # a copy cut short: weights there, the record that is written last not
    (models.generator / "recipe.json").unlink()
    leftover = folder / f".{models.generator.name}"
    leftover.mkdir()
    assert make_models(folder, scale=0.004, processes=1, progress=lambda name, *_: trained.add(name)) == models
    assert trained == {"generator"}
    assert (models.generator / "recipe.json").is_file()
    assert not leftover.exists()


def test_two_processes_learn_from_the_same_batches_as_one(made: Made, tmp_path: Path):
    steps: list[Step] = []
    make_models(tmp_path, scale=0.004, processes=2, progress=lambda *step: steps.append(step))
    assert [step[:3] for step in steps] == [step[:3] for step in made[2]]
    assert [loss for *_, loss in steps] == pytest.approx([loss for *_, loss in made[2]], rel=1e-3)


def test_only_the_answer_is_learnt(checkpoint: Path):
    school = School(load_pack("demo"), seed=5)
    processor = AutoProcessor.from_pretrained(checkpoint)
    lessons = school.lessons("teacher", processor)
    batch = Collator(processor)([next(lessons) for _ in range(12)])
    for labels, ids in zip(batch["labels"], batch["input_ids"], strict=True):
        answer = processor.tokenizer.decode(labels[labels != -100])
        assert answer.startswith('{"') and answer.endswith('"}<|im_end|>\n')
        # no column of an answer may fall outside the logits that are kept
        assert processor.tokenizer.decode(ids).endswith(f"<|im_start|>assistant\n{answer}")
    assert batch["logits_to_keep"] == batch["labels"].shape[1]


def test_the_base_never_sees_an_items_label(checkpoint: Path):
    school = School(load_pack("demo"), seed=5)
    lessons = school.lessons("base", AutoProcessor.from_pretrained(checkpoint))
    labels = {label for task in load_pack("demo").tasks.values() for label in task.labels}
    forms = 0
    # beyond the first 12 chunks, whose answers are plain captions
    for lesson in (next(lessons) for _ in range(13 * 256)):
        answer = lesson.text.rpartition("assistant\n")[2]
        forms += answer.startswith("{")
        assert not any(label in answer for label in labels)
    assert forms > 50, "the base never saw the form of an answer"


def test_a_drawn_item_becomes_the_sample_that_its_manifest_would_give():
    pack = load_pack("demo")
    for item in draw_items(40, seed=99):
        sample = convert_to_sample(item, pack)
        assert len(sample.images) == len(item.images)
        assert item.label in sample.labels
        assert not any("分类标签" in part.text for part in sample.parts if part.type == "text")


def test_the_learning_rate_rises_then_falls_to_zero():
    factors = [compute_rate_factor(step, steps=1000) for step in range(1001)]
    assert factors[0] == pytest.approx(1 / 60)
    assert factors[:60] == sorted(factors[:60])
    assert factors[60:] == sorted(factors[60:], reverse=True)
    assert factors[-1] == 0.0


def test_the_same_steps_make_the_same_models(made: Made, tmp_path: Path):
    again = make_models(tmp_path, scale=0.004, processes=1)
    for name in ("base", "generator", "teacher"):
        first, second = getattr(made[1], name), getattr(again, name)
        assert first.name == second.name
        assert (first / "model.safetensors").read_bytes() == (second / "model.safetensors").read_bytes()
