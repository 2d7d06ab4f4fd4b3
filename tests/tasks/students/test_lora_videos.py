"""Items with recordings: trained on with the very tensors that they are asked with, and learned."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from trl.trainer.sft_trainer import DataCollatorForVisionLanguageModeling

from tasks.models.engines.engine import Workplace
from tasks.models.engines.local.engine import LocalEngine
from tasks.models.image_cache import ImageCache
from tasks.models.qwen_vl import load_processor, read_qwen_vl
from tasks.prompts.prompter import Prompter
from tasks.records import Outcome, Sample
from tasks.students.asking import choose_base_engine, choose_student_engine, make_label_requests
from tasks.students.lora import LoraRecipe
from tasks.students.lora_collator import VideoCollator
from tasks.students.lora_dataset import make_dataset
from tasks.students.settings import StudentSpec
from tests.checkpoints import GENERATIONS
from tests.tasks.making import draw_numbered_video, image, prompter, sample


@pytest.fixture(scope="module")
def asking() -> Prompter:
    return prompter()


@pytest.fixture(scope="module")
def items(tmp_path_factory: pytest.TempPathFactory) -> list[Sample]:
    """A recording, text, a picture between two recordings of different rates, a long recording."""
    folder = tmp_path_factory.mktemp("frames")
    first, slow, long = (
        draw_numbered_video(folder),
        draw_numbered_video(folder, 20, fps=0.5),
        draw_numbered_video(folder, 40, frames=12),
    )
    still = image("still", first.frames[2].path).model_copy(update={"sha256": first.frames[2].sha256})
    contents: list[tuple[Any, ...]] = [("看", first), ("文字",), (slow, "和", still, "和", first), (long, "长")]
    labels = ("申请退款", "查询物流", "反馈破损", "查询物流")
    return [
        sample(f"i{i}", *content, given=label) for i, (content, label) in enumerate(zip(contents, labels, strict=True))
    ]


@pytest.mark.parametrize("generation", GENERATIONS)
def test_a_batch_has_the_tensors_that_the_engine_asks_with(
    generation: str,
    asking: Prompter,
    items: list[Sample],
    random_checkpoints: Mapping[str, Path],
    tmp_path: Path,
) -> None:
    base = str(random_checkpoints[generation])
    cache = ImageCache(tmp_path / "images")
    engine = LocalEngine(choose_base_engine(StudentSpec(base=base)), Workplace(cache, tmp_path))
    processor = load_processor(base)
    processor.image_processor.do_resize = False
    collate = VideoCollator(DataCollatorForVisionLanguageModeling(processor, completion_only_loss=True))
    rows = make_dataset(asking, [(item, "") for item in items], read_qwen_vl(base).patch_size, cache)
    requests = make_label_requests(asking, items, with_reason=False)
    prompts = [engine._build_prompt(engine._fit(r), o) for r, o in zip(requests, _open(engine, requests), strict=True)]
    whole = collate(list(rows))
    for name in ("pixel_values", "image_grid_thw", "pixel_values_videos", "video_grid_thw", "second_per_grid_ts"):
        asked = [prompt.media[name] for prompt in prompts if name in prompt.media]
        assert (name in whole) == bool(asked)
        if asked:
            assert torch.equal(torch.as_tensor(whole[name]), torch.cat(asked)), name
    for prompt, ids in zip(prompts, whole["input_ids"].tolist(), strict=True):
        assert ids[: len(prompt.ids)] == prompt.ids
    engine.close()


def _open(engine: LocalEngine, requests: list[Any]) -> Any:
    return engine._submit_images([engine._fit(request) for request in requests])


def test_a_student_is_trained_on_recordings_and_asked_about_them(
    asking: Prompter, items: list[Sample], random_checkpoints: Mapping[str, Path], tmp_path: Path
) -> None:
    """A random vision tower hardly tells recordings apart, but every item has the same label here."""
    cache = ImageCache(tmp_path / "images")
    spec = StudentSpec(base=str(random_checkpoints["qwen2_5_vl"]), epochs=10, learning_rate=2e-2)
    taught = [item.model_copy(update={"given": "反馈破损"}) for item in items]
    folder = LoraRecipe(spec, asking, images=cache).train(taught, 0, tmp_path / "student", lambda *_: None)
    losses = json.loads((folder / "student.json").read_text("utf-8"))["losses"]
    assert losses[-1] < 0.8 * losses[0]
    means: list[float] = []
    for engine_spec in (choose_base_engine(spec), choose_student_engine(spec, folder, [folder])):
        engine = LocalEngine(engine_spec, Workplace(cache, tmp_path))
        answers = list(engine.generate(make_label_requests(asking, items, with_reason=False)))
        assert [a.outcome for a in answers] == [Outcome.OK] * len(items)
        means.append(sum((a.label_logprobs or {})["反馈破损"] for a in answers) / len(items))
        engine.close()
    assert means[1] > 0.9 * means[0]
