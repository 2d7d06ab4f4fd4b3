import random

import pytest
from PIL import Image
from transformers import Qwen2VLImageProcessor

from tasks.budget import estimate_prompt_tokens, image_tokens
from tasks.images import open_images
from tasks.records import ImageRef, Sampling
from tests.tasks.making import image, prompter, sample

rng = random.Random(0)
# On strips of more than max_pixels / 784 to 1, qwen_vl_utils (which is asked here) and transformers disagree.
SIZES = [(28, 28), (29, 57), (42, 70), (1080, 2340), (500, 28)]
SIZES += [(rng.randint(100, 1500), rng.randint(100, 1500)) for _ in range(30)]
BOUNDS = [(56 * 56, 1280 * 784), (112 * 168, 112 * 168), (784, 100 * 784)]


@pytest.mark.parametrize(("min_pixels", "max_pixels"), BOUNDS)
def test_an_image_costs_what_the_processor_makes_of_it(min_pixels: int, max_pixels: int) -> None:
    processor = Qwen2VLImageProcessor(size={"shortest_edge": min_pixels, "longest_edge": max_pixels})
    for width, height in SIZES:
        grid = processor(images=[Image.new("RGB", (width, height))], return_tensors="np")["image_grid_thw"][0]
        # one token for each 2 × 2 patches of 14 pixels, and the two that frame an image
        expected = int(grid.prod()) // 4 + 2
        assert image_tokens(width, height, min_pixels=min_pixels, max_pixels=max_pixels) == expected, (width, height)


@pytest.mark.parametrize(("width", "height"), [(300, 700), (31, 31), (1200, 90)])
def test_an_opened_image_costs_the_same(tmp_path, width: int, height: int) -> None:  # type: ignore[no-untyped-def]
    file = tmp_path / "a.png"
    Image.new("RGB", (width, height)).save(file)
    ref = ImageRef(path=str(file), sha256="a", width=width, height=height)
    (opened,) = open_images([ref], min_pixels=56 * 56, max_pixels=200 * 784) or []
    tokens = image_tokens(width, height, min_pixels=56 * 56, max_pixels=200 * 784)
    assert opened.width * opened.height // 784 + 2 == tokens


def test_a_prompt_is_its_images_its_text_and_a_frame() -> None:
    asking = prompter()
    costs = [
        estimate_prompt_tokens(asking.classify(sample("s", *content), Sampling()))
        for content in (
            ("用户: 在",),
            ("用户: 在", image()),
            ("用户: 在", image(), image("b")),
            ("用户: 在" + "吗" * 160,),
        )
    ]
    assert costs[1] - costs[0] == costs[2] - costs[1] == 4 * 6 + 2
    assert costs[3] - costs[0] == 100
