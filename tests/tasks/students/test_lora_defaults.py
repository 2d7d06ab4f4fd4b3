"""Training with the default settings: gradient checkpointing, accumulation, a frozen vision tower, cached images."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForImageTextToText

from tasks.demo.dataset import write_demo
from tasks.items.samples import read_samples
from tasks.models.image_cache import ImageCache
from tasks.packs.pack import load_pack
from tasks.prompts.prompter import Prompter
from tasks.records import Split
from tasks.students import lora_training
from tasks.students.lora import LoraRecipe
from tasks.students.settings import StudentSpec
from tasks.students.student_folder import read_facts

PIXELS = 112 * 168


class VisionWatch:
    """Notes, at each call of a vision block, whether its output would be backpropagated through."""

    def __init__(self) -> None:
        self.needs_gradient: list[bool] = []

    def __call__(self, module: Any, inputs: Any, output: torch.Tensor) -> None:
        self.needs_gradient.append(output.requires_grad)


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


@pytest.mark.parametrize("name", ["qwen2_vl", "qwen2_5_vl", "qwen3_vl"])
def test_no_gradient_enters_the_vision_tower(
    name: str, random_checkpoints: Mapping[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    paths = write_demo(tmp_path / "d", labelled=24, unlabelled=1, test=1, broken=0)
    kept = read_samples(paths.labelled.manifest, paths.labelled.images, load_pack("demo"), Split.LABELLED).kept
    samples = [s for s in kept if s.task == "image"][:5] + [s for s in kept if s.task == "dialogue"][:1]
    spec = StudentSpec(base=str(random_checkpoints[name]), steps=2, max_pixels=PIXELS)
    assert spec.gradient_checkpointing and spec.gradient_accumulation > 1
    prompter = Prompter(load_pack("demo"), "base", min_pixels=56 * 56, max_pixels=PIXELS)
    watch, models = VisionWatch(), list[Any]()
    monkeypatch.setattr(lora_training, "AutoModelForImageTextToText", _Watched(watch, models.append))
    recipe = LoraRecipe(spec, prompter, images=ImageCache(tmp_path / "images"))
    folder = recipe.train(samples, 0, tmp_path / "student", lambda *_: None)

    assert watch.needs_gradient and not any(watch.needs_gradient)
    assert all(weight.grad is None for weight in models[0].get_encoder(modality="image").parameters())
    assert 0 < read_facts(folder)["waiting_share"] < 1
    shown = {image.sha256 for sample in samples for image in sample.images}
    assert len(list((tmp_path / "images").rglob("*.png"))) == len(shown)
