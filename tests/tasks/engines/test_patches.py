from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import AutoProcessor, Qwen2VLImageProcessor

from tasks.engines.patches import Cut, Films, cut, spread

SIZES = [(112, 168), (56, 560), (224, 112)]


def pictures(patch_size: int) -> list[Image.Image]:
    noise = np.random.default_rng(0)
    sides = [(width // 14 * patch_size, height // 14 * patch_size) for width, height in SIZES]
    return [Image.fromarray(noise.integers(0, 255, (h, w, 3), dtype=np.uint8)) for w, h in sides]


@pytest.mark.parametrize("patch_size", [14, 16])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_patches_are_the_processors_own_to_the_last_bit(patch_size: int, dtype: torch.dtype):
    # Qwen3-VL has means of its own
    own = {} if patch_size == 14 else {"image_mean": [0.5] * 3, "image_std": [0.5] * 3}
    processor = Qwen2VLImageProcessor(patch_size=patch_size, **own)
    shown = pictures(patch_size)
    expected = processor(images=shown, do_resize=False, return_tensors="pt")
    first, rest = cut(shown[:1], processor), cut(shown[1:], processor)
    assert first.patches.dtype is torch.uint8
    eye = Films(processor, torch.device("cpu"), dtype)
    eye.of([rest, rest])  # whatever stood in the memory that it keeps
    films, grid = eye.of([first, rest])
    assert films is not None
    assert grid is not None
    assert torch.equal(grid, expected["image_grid_thw"])
    assert torch.equal(films, expected["pixel_values"].to(dtype))
    assert eye.of([]) == (None, None)


def test_places_are_the_processors_own(checkpoint: Path):
    processor = AutoProcessor.from_pretrained(checkpoint)
    shown = pictures(14)
    token = processor.image_token
    text = f"请看图<|vision_start|>{token}<|vision_end|>和<|vision_start|>{token}<|vision_end|>{token}。"
    expected = processor(text=[text], images=shown, do_resize=False)["input_ids"][0]
    images = cut(shown, processor.image_processor)
    ids = processor.tokenizer(text)["input_ids"]
    assert spread(ids, processor.image_token_id, images, 2) == expected
    assert spread([1, 2], processor.image_token_id, None, 2) == [1, 2]


@pytest.mark.parametrize("ids", [[7, 1], [7, 7, 7]])
def test_a_place_too_many_or_too_few_is_told(ids: list[int]):
    with pytest.raises(ValueError, match=f"{ids.count(7)} image tokens in the prompt, 2 images"):
        spread(ids, 7, Cut(torch.zeros(12, 3, 14, 14), torch.tensor([[1, 2, 2], [1, 4, 2]])), 2)
