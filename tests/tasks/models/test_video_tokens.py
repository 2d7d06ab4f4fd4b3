"""The tokens of recordings in every generation: counted as the processor does, and shortened to fit."""

import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tasks.media import ImagePart, ImageRef, Part, TextPart, VideoPart, VideoRef
from tasks.models.image_cache import ImageCache, compute_sides
from tasks.models.processor import read_processor
from tasks.models.qwen_vl import load_processor
from tasks.models.token_budget import PromptBudget, estimate_prompt_tokens
from tasks.models.unanswered import TooLong
from tasks.prompts.recordings import compute_frame_pixels, describe_times
from tasks.prompts.turns import make_user_content
from tasks.records import FreeText, Request, Sampling
from tests.checkpoints import ROWS, make_real_tokenizer, make_small_tokenizer, write_random_checkpoint
from tests.recordings import describe_video, draw_video

BOUNDS = {"min_pixels": 4 * 32 * 32, "max_pixels": 60 * 32 * 32}


@pytest.fixture(scope="module", params=["qwen2_vl", "qwen2_5_vl", "qwen3_vl"])
def folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_random_checkpoint(tmp_path_factory.mktemp("model") / "base", make_small_tokenizer(), request.param)


@pytest.fixture(scope="module")
def processor(folder: Path) -> Any:
    return load_processor(str(folder))


def ask(*parts: Part | VideoRef, **fields: Any) -> Request:
    """Return a request as a prompter makes it."""
    content = tuple(VideoPart(video=part) if isinstance(part, VideoRef) else part for part in parts)
    videos = [part.video for part in content if isinstance(part, VideoPart)]
    values: dict[str, Any] = {"key": "k", "sample_id": "s", "purpose": "classify", **BOUNDS, **fields}
    values |= {"frame_pixels": compute_frame_pixels(videos, **BOUNDS), "prefix": "请看：", "suffix": "回答："}
    return Request(parts=content, constraint=FreeText(), sampling=Sampling(), **values)


def draw_request(rng: random.Random) -> Request:
    """Texts, images and up to three recordings, of up to 40 frames at times that need not be even."""
    parts: list[Part | VideoRef] = [
        TextPart(text=rng.choice(["", "用户: 在吗\n", "看 <video> <|video_pad|> 和 <image>"]))
    ]
    for _ in range(rng.randint(1, 3)):
        count = 2 * rng.randint(1, 20)
        width, height = rng.randint(60, 500), rng.randint(60, 500)
        times = tuple(sorted(rng.uniform(0, rng.choice([3, 80, 2000])) for _ in range(count)))
        parts.append(describe_video(count, width, height, times=times))
        if rng.random() < 0.5:
            shot = ImageRef(path="/a.png", sha256="a", width=rng.randint(60, 900), height=rng.randint(60, 900))
            parts.append(ImagePart(image=shot))
        parts.append(TextPart(text=rng.choice(["", "。\n", "<|im_end|>", "  客服: 12.5 seconds>"])))
    return ask(*parts)


def count_by_processor(processor: Any, request: Request) -> int:
    """Return the length of the processor's prompt for blank pictures of the sizes that the model sees."""
    patch = processor.image_processor.patch_size
    bounds = {"min_pixels": request.min_pixels, "max_pixels": request.max_pixels, "patch_size": patch}
    images = [Image.new("RGB", compute_sides(image, **bounds)) for image in request.images]
    bounds |= request.frame_bounds
    videos = [[Image.new("RGB", compute_sides(f, **bounds)) for f in video.frames] for video in request.videos]
    turns = [{"role": "user", "content": make_user_content(request)}]
    prompt: str = processor.apply_chat_template(turns, tokenize=False, add_generation_prompt=True)
    told = {"video_metadata": describe_times(request.videos), "do_sample_frames": False} if videos else {}
    made = processor(text=[prompt], images=images or None, videos=videos or None, do_resize=False, **told)
    return len(made["input_ids"][0])


def count_differences(processor: Any, requests: Sequence[Request]) -> int:
    budget = PromptBudget(processor)
    return sum(budget.count(request) != count_by_processor(processor, request) for request in requests)


def test_the_budget_counts_what_the_processor_makes(processor: Any) -> None:
    rng = random.Random(1)
    assert count_differences(processor, [draw_request(rng) for _ in range(20)]) == 0


@pytest.mark.slow
def test_the_budget_counts_three_hundred_items(processor: Any) -> None:
    """Of each generation."""
    rng = random.Random(2)
    requests = [draw_request(rng) for _ in range(300)]
    wrong = count_differences(processor, requests)
    print(f"{type(processor).__name__}: {wrong} of {len(requests)} prompts with recordings are counted wrongly")
    assert wrong == 0


@pytest.mark.parametrize("generation", ["qwen2_vl", "qwen3_vl"])
def test_the_real_vocabulary_is_counted_too(generation: str, tmp_path: Path) -> None:
    folder = write_random_checkpoint(tmp_path / "real", make_real_tokenizer(), generation, rows=ROWS)
    rng = random.Random(3)
    assert count_differences(load_processor(str(folder)), [draw_request(rng) for _ in range(15)]) == 0


def test_a_server_is_asked_with_the_same_count_without_torch(folder: Path, processor: Any) -> None:
    light, rng = PromptBudget(read_processor(str(folder))), random.Random(4)
    for request in [draw_request(rng) for _ in range(10)]:
        assert light.count(request) == PromptBudget(processor).count(request)


def test_the_processor_sees_our_frames_as_they_are(processor: Any, tmp_path: Path) -> None:
    """Frames at the size in the cache pass unchanged, although the checkpoint's own bounds for videos are larger."""
    request = ask(draw_video(tmp_path, "a", 4, 90, 120))
    patch = processor.image_processor.patch_size
    cache = ImageCache(tmp_path / "cache")
    (frames,) = cache.open_frames(request.videos, **request.frame_bounds, patch_size=patch) or []
    told = {"video_metadata": describe_times(request.videos), "do_sample_frames": False}
    made = processor.video_processor([frames], do_resize=False, do_rescale=False, do_normalize=False, **told)
    pairs, rows, columns = made["video_grid_thw"][0].tolist()
    assert (pairs, rows * patch, columns * patch) == (2, frames[0].height, frames[0].width)
    values = made["pixel_values_videos"].reshape(pairs, rows // 2, columns // 2, 2, 2, 3, 2, patch, patch)
    # pair, row, column, row and column in the token, colour, frame, y, x
    pixels = values.permute(0, 6, 1, 3, 7, 2, 4, 8, 5).reshape(4, frames[0].height, frames[0].width, 3)
    assert np.array_equal(pixels.numpy(), np.stack([np.asarray(frame) for frame in frames]))


def test_frames_are_left_out_first_evenly_and_no_more_than_needed(processor: Any) -> None:
    budget = PromptBudget(processor)
    request = ask(TextPart(text="用户: 在吗", turn=1), describe_video(16, seconds=8.0), keep_from_turn=2)
    whole = budget.count(request)
    fitted = budget.fit(request, whole - 1)
    (video,) = fitted.request.videos
    assert fitted.note == "kept 14 of 16 frames"
    assert fitted.tokens == budget.count(fitted.request) < whole
    assert (video.times[0], video.times[-1]) == (0.0, 7.5)
    steps = [after - before for before, after in zip(video.times, video.times[1:], strict=False)]
    assert set(steps) == {0.5, 1.0}
    (same,) = budget.fit(ask(describe_video(16)), whole).request.videos
    assert len(same.frames) == 16


def test_then_turns_go_and_then_pixels(processor: Any) -> None:
    budget = PromptBudget(processor)
    long = TextPart(text="用户: 一二三四五六七八" * 9, turn=1)
    request = ask(long, VideoPart(video=describe_video(16, 120, 120), turn=2), keep_from_turn=2)
    least = budget.count(ask(VideoPart(video=describe_video(4, 120, 120), turn=2)))
    fitted = budget.fit(request, budget.count(ask(long, describe_video(4, 120, 120))))
    assert fitted.note == "kept 4 of 16 frames"
    six = budget.count(ask(VideoPart(video=describe_video(6, 120, 120), turn=2)))
    fitted = budget.fit(request, six)  # there is room for more frames once the turn is gone
    assert fitted.note == "kept 6 of 16 frames; dropped turn 1"
    fitted = budget.fit(request, least - 10)
    assert fitted.note.startswith("kept 4 of 16 frames; dropped turn 1; max_pixels 61440 → ")
    assert fitted.tokens == count_by_processor(processor, fitted.request) <= least - 10
    with pytest.raises(TooLong, match="kept 4 of 16 frames"):
        budget.fit(request, 30)


def test_frames_as_images_are_counted_as_images(processor: Any) -> None:
    request = ask(TextPart(text="看"), describe_video(6), ImagePart(image=describe_video(2).frames[0]))
    images = [ImagePart(image=frame) for frame in request.videos[0].frames]
    same = request.model_copy(update={"parts": (request.parts[0], *images, request.parts[2])})
    budget = PromptBudget(processor, frames_as_images=True)
    assert budget.count(request) == budget.count(same) == PromptBudget(processor).count(same)


def test_an_estimate_counts_frames(processor: Any) -> None:
    patch = processor.image_processor.patch_size
    costs = [estimate_prompt_tokens(ask(describe_video(count)), patch) for count in (2, 4, 6)]
    assert costs[2] - costs[1] == costs[1] - costs[0] > 4
