"""Training with the default settings: gradient checkpointing, accumulation, a frozen vision tower."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel
from transformers import AutoModelForImageTextToText, AutoProcessor

from tasks.demo.checkpoint import write_checkpoint
from tasks.demo.dataset import draw_items, write_demo
from tasks.items.samples import read_samples
from tasks.models.image_cache import ImageCache
from tasks.packs.pack import load_pack
from tasks.prompts.prompter import Prompter
from tasks.records import Sample, Split
from tasks.students import lora_training
from tasks.students.lora import LoraRecipe, choose_taught_items
from tasks.students.lora_dataset import make_dataset
from tasks.students.settings import StudentSpec
from tasks.students.student_folder import read_facts

PIXELS = 112 * 168


def write_qwen2_vl(folder: Path) -> Path:
    return write_checkpoint(folder, [item.instruction for item in draw_items(60, seed=3)])


GENERATIONS = {"Qwen2-VL": write_qwen2_vl}


@pytest.fixture(scope="module", params=GENERATIONS)
def base(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return GENERATIONS[request.param](tmp_path_factory.mktemp("base") / request.param)


@pytest.fixture(scope="module")
def samples(tmp_path_factory: pytest.TempPathFactory) -> list[Sample]:
    paths = write_demo(tmp_path_factory.mktemp("data") / "d", labelled=40, unlabelled=4, test=4)
    kept = read_samples(paths.labelled.manifest, paths.labelled.images, load_pack("demo"), Split.LABELLED).kept
    return [s for s in kept if s.task == "image"][:6] + [s for s in kept if s.task == "dialogue"][:2]


class VisionWatch:
    """Notes, at each call of a vision block, whether its output would be backpropagated through."""

    def __init__(self) -> None:
        self.needs_gradient: list[bool] = []

    def __call__(self, module: Any, inputs: Any, output: torch.Tensor) -> None:
        self.needs_gradient.append(output.requires_grad)


def test_the_default_settings_train_and_no_gradient_enters_the_vision_tower(
    base: Path, samples: list[Sample], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = StudentSpec(base=str(base), epochs=4, learning_rate=1e-2, min_pixels=PIXELS, max_pixels=PIXELS)
    assert spec.gradient_checkpointing and spec.gradient_accumulation > 1
    prompter = Prompter(load_pack("demo"), "base", max_pixels=PIXELS, min_pixels=PIXELS)
    recipe = LoraRecipe(spec, prompter, images=ImageCache(tmp_path / "images"))
    watch = VisionWatch()
    frozen: list[Any] = []
    monkeypatch.setattr(lora_training, "AutoModelForImageTextToText", _Watched(watch, frozen.append))
    folder = recipe.train(samples, 0, tmp_path / "student", lambda *_: None)

    facts = read_facts(folder)
    assert facts["losses"][-1] < 0.9 * facts["losses"][0]
    assert 0 < facts["waiting_share"] < 1
    assert watch.needs_gradient and not any(watch.needs_gradient)
    (model,) = frozen
    assert all(weight.grad is None for weight in model.get_encoder(modality="image").parameters())
    assert list((tmp_path / "images").rglob("*.png"))

    batch = _make_batch(base, prompter, samples, spec)
    plain = AutoModelForImageTextToText.from_pretrained(base, dtype="float32").eval()
    with torch.inference_mode():
        bare = plain(**batch).logits
        adapted = PeftModel.from_pretrained(plain, folder).eval()
        unmerged = adapted(**batch).logits
        merged = adapted.merge_and_unload()(**batch).logits
    assert (unmerged - bare).abs().max() > 1e-2
    torch.testing.assert_close(merged, unmerged, rtol=1e-4, atol=1e-4)


class _Watched:
    """Loads a model as transformers does, and watches the blocks of its vision tower."""

    def __init__(self, watch: VisionWatch, keep: Callable[[Any], None]) -> None:
        self._watch, self._keep = watch, keep

    def from_pretrained(self, *names: Any, **options: Any) -> Any:
        model = AutoModelForImageTextToText.from_pretrained(*names, **options)
        for block in model.get_encoder(modality="image").blocks:
            block.register_forward_hook(self._watch)
        self._keep(model)
        return model


def _make_batch(base: Path, prompter: Prompter, samples: list[Sample], spec: StudentSpec) -> Any:
    """One item with an image as tensors."""
    processor = AutoProcessor.from_pretrained(base)
    taught = choose_taught_items(spec, samples[:1], {})
    (row,) = make_dataset(prompter, taught, processor.image_processor.patch_size)
    text = processor.apply_chat_template(row["prompt"], tokenize=False, add_generation_prompt=True)
    return processor(text=[text], images=row["images"], do_resize=False, return_tensors="pt")
