import json
from pathlib import Path

import pytest

from tasks.demo.checkpoint import write_checkpoint
from tasks.media import ImagePart, VideoPart
from tasks.models.gpu_hours import (
    CARDS,
    Work,
    count_cards,
    describe_hours,
    estimate_asking,
    estimate_training,
    measure_work,
)
from tasks.models.model_sizes import ModelSize, find_model_size
from tasks.records import Sampling
from tests.recordings import describe_video
from tests.tasks.making import prompter, sample

CARD = {card.name: card for card in CARDS}


def size_of(model: str) -> ModelSize:
    size = find_model_size(model)
    assert size is not None
    return size


def work(width: int, height: int, words: int, answer: int, images: int = 1) -> Work:
    tokens = (width // 28) * (height // 28)
    return Work(1, words + images * tokens, images, 4 * images * tokens, answer)


LARGE, SMALL = work(1680, 2240, 64, 128), work(640, 480, 128, 128)
BIG, AWQ, SEVEN = "Qwen/Qwen2.5-VL-72B-Instruct", "Qwen/Qwen2-VL-72B-Instruct-AWQ", "Qwen/Qwen2.5-VL-7B-Instruct"
PUBLISHED = [
    (BIG, "H100", 4, 4, LARGE, 0.5),
    (BIG, "H100", 4, 4, SMALL, 1.2),
    ("RedHatAI/Qwen2.5-VL-72B-Instruct-quantized.w4a16", "H100", 4, 1, LARGE, 1.3),
    ("RedHatAI/Qwen2.5-VL-72B-Instruct-quantized.w4a16", "H100", 4, 1, SMALL, 3.3),
    (SEVEN, "H100", 1, 1, LARGE, 0.9),
    (SEVEN, "H100", 1, 1, SMALL, 3.1),
    (AWQ, "A100", 2, 2, work(1120, 896, 64, 96, images=4), 256 / 680),
]
"""Model, card, all cards, cards per copy, one request, requests per second (the RedHatAI model cards, vLLM 0.7.2)."""


@pytest.mark.parametrize(("model", "card", "cards", "per_copy", "one", "rate"), PUBLISHED)
def test_estimates_are_within_a_factor_of_two_of_published_rates(
    model: str, card: str, cards: int, per_copy: int, one: Work, rate: float
) -> None:
    seconds = estimate_asking(size_of(model), one * 256, CARD[card], per_copy, cards // per_copy)
    assert 0.5 < 256 / seconds / rate < 2


@pytest.mark.parametrize(
    ("model", "billions"),
    [
        ("Qwen/Qwen2-VL-2B-Instruct", 2.2),
        ("Qwen/Qwen2-VL-7B-Instruct", 8.3),
        ("Qwen/Qwen2-VL-72B-Instruct", 73.4),
        ("Qwen/Qwen2.5-VL-3B-Instruct", 3.75),
        ("Qwen/Qwen2.5-VL-32B-Instruct", 33.5),
        ("Qwen/Qwen3-VL-8B-Thinking-FP8", 8.8),
        ("Qwen/Qwen3-VL-30B-A3B-Instruct", 31.1),
        ("Qwen/Qwen3-VL-235B-A22B-Instruct", 236),
    ],
)
def test_known_models_have_their_published_sizes(model: str, billions: float) -> None:
    assert size_of(model).parameters / 1e9 == pytest.approx(billions, rel=0.05)


def test_a_checkpoint_on_disk_tells_its_size(tmp_path: Path) -> None:
    write_checkpoint(tmp_path, ["甲", "乙"])
    size = size_of(str(tmp_path))
    assert 5e5 < size.parameters < 3e6 and size.bits == 16
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(config | {"quantization_config": {"bits": 4}}))
    assert size_of(str(tmp_path)).bits == 4
    assert find_model_size("someone/model") is None


def test_cards_that_hold_weights_and_cache() -> None:
    cards = {model: [count_cards(size_of(model), card, 32_768) for card in CARDS] for model in (BIG, AWQ, SEVEN)}
    assert cards == {BIG: [2, 4, 4, 4, 16], AWQ: [1, 1, 1, 2, 4], SEVEN: [1, 1, 1, 1, 1]}


def test_training_takes_longer_with_checkpoints() -> None:
    items = work(700, 1400, 300, 0) * 800
    size, card = size_of(SEVEN), CARD["H100"]
    with_checkpoints, without = (estimate_training(size, items, card, recompute=r) for r in (True, False))
    assert 1.3 < with_checkpoints / without < 1.5
    # an update of 16 such items takes 3 to 4 s of an H100
    assert 800 / 16 * 2 < with_checkpoints < 800 / 16 * 6


def test_the_work_of_a_request_counts_its_votes() -> None:
    votes = measure_work(prompter().classify(sample(), Sampling(n=3, temperature=0.7, max_tokens=100)), 14)
    bare = measure_work(prompter().classify(sample(), Sampling(), with_reason=False), 14)
    assert votes.answer_tokens == 3 * 62 and bare.answer_tokens == 12
    thinking = prompter().classify(sample(), Sampling(max_tokens=100)).model_copy(update={"thinking": 1000})
    assert measure_work(thinking, 14).answer_tokens == 62 + 500
    assert (votes + bare).requests == 2


def test_the_work_of_a_recording_is_that_of_an_image_per_pair_of_frames() -> None:
    clip, shot = describe_video(6), describe_video(2).frames[0]
    asked = [
        prompter().classify(sample().model_copy(update={"parts": parts}), Sampling())
        for parts in ((VideoPart(video=clip),), (ImagePart(image=shot),) * 3)
    ]
    recording, images = (measure_work(request, 14) for request in asked)
    assert (recording.images, recording.patches) == (images.images, images.patches) == (3, 3 * 4 * 24)
    # two tokens frame a recording, and each image
    assert recording.prompt_tokens == images.prompt_tokens - 4


@pytest.mark.parametrize(("seconds", "text"), [(5, "1 min"), (300, "5 min"), (5400, "1.5 h"), (7e6, "1,944 h")])
def test_hours_have_two_digits(seconds: float, text: str) -> None:
    assert describe_hours(seconds) == text
