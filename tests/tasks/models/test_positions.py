"""Positions of recordings' tokens, worked out by hand, and the same as transformers' where that is right."""

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from transformers.models.qwen2_5_vl.modeling_qwen2_5_vl import Qwen2_5_VLModel

from tasks.models.positions import correct_positions

TEXT, IMAGE, VIDEO = 0, 1, 2


def make_model(model_type: str = "qwen2_5_vl", **vision: Any) -> Any:
    config = SimpleNamespace(
        model_type=model_type, vision_config=SimpleNamespace(spatial_merge_size=2, **vision), get_text_config=None
    )
    inner = SimpleNamespace(config=config, get_rope_index=None)
    model = SimpleNamespace(config=config, model=inner)
    correct_positions(model)
    return inner


def run(model: Any, kinds: list[int], **grids: Any) -> tuple[list[list[int]], int]:
    row = torch.tensor([kinds])
    positions, ahead = model.get_rope_index(torch.zeros_like(row), mm_token_type_ids=row, **grids)
    return positions[:, 0].tolist(), int(ahead)


def test_text_continues_after_the_last_moment_of_a_recording() -> None:
    """Three pairs of frames of one by two tokens, two seconds apart, at two positions per second."""
    model = make_model(tokens_per_second=2)
    kinds = [TEXT, *[VIDEO] * 6, TEXT, TEXT]
    grid, seconds = torch.tensor([[3, 2, 4]]), torch.tensor([2.0])
    (time, row, column), ahead = run(model, kinds, video_grid_thw=grid, second_per_grid_ts=seconds)
    assert time == [0, 1, 1, 5, 5, 9, 9, 10, 11]
    assert row == [0, 1, 1, 1, 1, 1, 1, 10, 11]
    assert column == [0, 1, 2, 1, 2, 1, 2, 10, 11]
    assert ahead == 12 - len(kinds)


def test_qwen2_counts_pairs() -> None:
    (time, _, _), _ = run(make_model("qwen2_vl"), [*[VIDEO] * 8, TEXT], video_grid_thw=torch.tensor([[4, 2, 4]]))
    assert time == [0, 0, 1, 1, 2, 2, 3, 3, 4]


def test_padding_is_skipped_and_images_are_as_in_transformers() -> None:
    model = make_model(tokens_per_second=4)
    kinds = torch.tensor([[TEXT] * 3 + [IMAGE] * 6 + [TEXT] * 3, [TEXT] * 12])
    mask = torch.tensor([[0] * 2 + [1] * 10, [1] * 12])
    given: dict[str, Any] = {"mm_token_type_ids": kinds, "attention_mask": mask}
    given |= {"image_grid_thw": torch.tensor([[1, 4, 6]])}
    ours, ahead = model.get_rope_index(torch.zeros_like(kinds), **given)
    theirs = SimpleNamespace(config=model.config)
    theirs.get_vision_position_ids = Qwen2_5_VLModel.get_vision_position_ids.__get__(theirs)
    expected, _ = Qwen2_5_VLModel.get_rope_index(theirs, torch.zeros_like(kinds), **given)  # type: ignore[arg-type]
    assert (ours == expected)[:, mask.bool()].all()
    assert ahead[:, 0].tolist() == [int(ours[:, 0].max()) + 1 - 12, 0]


def test_qwen3_is_left_alone() -> None:
    assert make_model("qwen3_vl").get_rope_index is None


@pytest.mark.parametrize("step", [0.7, 1.4, 1 / 3])
def test_moments_are_rounded_down_as_vllm_does(step: float) -> None:
    """vLLM 0.32 multiplies in float64, with the seconds in float32."""
    model = make_model(tokens_per_second=2)
    grids = {"video_grid_thw": torch.tensor([[30, 2, 2]]), "second_per_grid_ts": torch.tensor([step])}
    (time, _, _), _ = run(model, [VIDEO] * 30, **grids)
    assert time == [int(i * torch.tensor([step]).item() * 2) for i in range(30)]
