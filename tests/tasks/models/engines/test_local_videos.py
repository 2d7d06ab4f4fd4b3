"""Recordings in the local engine, in every generation, against plain passes of its model."""

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from tasks.media import TextPart, VideoPart, VideoRef
from tasks.models.engines.engine import Workplace
from tasks.models.engines.local.engine import LocalEngine
from tasks.models.engines.spec import EngineSpec
from tasks.models.image_cache import ImageCache
from tasks.prompts.recordings import compute_frame_pixels, describe_times
from tasks.prompts.turns import make_user_content
from tasks.records import LabelAnswer, Outcome, Request
from tasks.storage.json_lines import escape_json
from tests.checkpoints import make_small_tokenizer, write_random_checkpoint
from tests.recordings import draw_video
from tests.tasks.models.engines.local_requests import LABELS, answers, logprobs_after, request, tokenised


@pytest.fixture(scope="module", params=["qwen2_vl", "qwen2_5_vl", "qwen3_vl"])
def engine(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalEngine]:
    folder = tmp_path_factory.mktemp("local")
    labels = (f'"所属类别": "{label}"' for label in LABELS * 30)
    model = write_random_checkpoint(folder / "base", make_small_tokenizer(labels), request.param)
    place = Workplace(ImageCache(folder / "images"), folder / "logs")
    opened = LocalEngine(EngineSpec(engine="local", model=str(model), dtype="float32", batch_size=4), place)
    yield opened
    opened.close()


def show(asked: Request, *videos: VideoRef) -> Request:
    """Return the request with recordings before its images, and a text between them."""
    parts = [part for video in videos for part in (VideoPart(video=video), TextPart(text="然后"))]
    pixels = compute_frame_pixels(videos, min_pixels=asked.min_pixels, max_pixels=asked.max_pixels)
    return asked.model_copy(update={"parts": (*parts, *asked.parts), "frame_pixels": pixels})


def inputs_of(engine: LocalEngine, asked: Request) -> Any:
    """Return the processor's tensors, which the model turns into positions itself."""
    patch = engine._processor.image_processor.patch_size
    turns = [{"role": "user", "content": make_user_content(asked)}]
    prompt = engine._processor.apply_chat_template(turns, tokenize=False, add_generation_prompt=True)
    bounds = {"min_pixels": asked.min_pixels, "max_pixels": asked.max_pixels, "patch_size": patch}
    made = engine._processor(
        text=[prompt],
        images=engine._images.open(asked.images, **bounds),
        videos=engine._images.open_frames(asked.videos, **bounds | asked.frame_bounds),
        video_metadata=describe_times(asked.videos),
        do_sample_frames=False,
        do_resize=False,
        cap_pixels_per_frame=False,
        return_tensors="pt",
    )
    made.pop("video_metadata", None)
    return made


def test_label_probabilities_are_those_of_a_plain_pass(engine: LocalEngine, images: Any, tmp_path: Path) -> None:
    """In a batch of a text, a recording, a recording with images and two recordings."""
    clips = [draw_video(tmp_path, f"clip{i}", 6 + 4 * i, 70 + 30 * i, 140, seconds=3.0 + 9 * i) for i in range(3)]
    asked = [
        request("text", []),
        show(request("one", []), clips[0]),
        show(request("mixed", images[:2]), clips[1]),
        show(request("two", images[:1]), clips[2], clips[0]),
    ]
    found = answers(engine, asked)
    for one in asked[1:]:
        answer, inputs = one.constraint, inputs_of(engine, one)
        assert isinstance(answer, LabelAnswer) and found[one.key].outcome is Outcome.OK
        assert found[one.key].tokens_in == inputs["input_ids"].shape[1]
        totals: list[float] = []
        for label in answer.labels:
            tokens = tokenised(engine, answer.opening + escape_json(label) + answer.closing)
            logps = logprobs_after(engine, inputs, tokens)
            totals.append(sum(float(logps[i, token]) for i, token in enumerate(tokens)))
        expected = torch.tensor(totals).log_softmax(0).tolist()
        chances = found[one.key].label_logprobs or {}
        for label, chance in zip(answer.labels, expected, strict=True):
            assert math.exp(chances[label]) == pytest.approx(math.exp(chance), abs=2e-3)


def test_frames_matter_and_votes_are_drawn(engine: LocalEngine, tmp_path: Path) -> None:
    first, other = draw_video(tmp_path, "first"), draw_video(tmp_path, "other")
    backwards = first.model_copy(update={"frames": first.frames[::-1]})
    asked = [
        show(request(name, [], kind="label"), video)
        for name, video in zip("abc", (first, other, backwards), strict=True)
    ]
    votes = show(request("v", [], kind="reason", n=3, temperature=1.0), first)
    found = answers(engine, [*asked, votes])
    assert len({str(found[key].label_logprobs) for key in "abc"}) == 3
    assert len(found["v"].texts) == 3


def test_a_missing_frame_fails_its_item_alone_and_is_named(engine: LocalEngine, tmp_path: Path) -> None:
    lost, kept = draw_video(tmp_path, "lost"), draw_video(tmp_path, "kept")
    Path(lost.frames[3].path).unlink()
    found = answers(engine, [show(request("lost", []), lost), show(request("kept", []), kept)])
    assert found["kept"].outcome is Outcome.OK
    assert found["lost"].outcome is Outcome.FAILED
    assert f"{lost.path}, frame at 1.5 s: {lost.frames[3].path}: cannot be read" in found["lost"].detail
    Path(lost.frames[3].path).write_bytes(Path(lost.frames[2].path).read_bytes())
    (changed,) = engine.generate([show(request("changed", []), lost)])
    assert changed.outcome is Outcome.BAD_MEDIA and "has changed" in changed.detail


def test_a_long_recording_is_shortened(engine: LocalEngine, tmp_path: Path) -> None:
    asked = show(request("long", []), draw_video(tmp_path, "long", 40))
    whole = answers(engine, [asked])["long"].tokens_in
    engine._context, context = whole - 20, engine._context
    try:
        fitted = answers(engine, [asked])["long"]
    finally:
        engine._context = context
    assert fitted.outcome is Outcome.OK and fitted.tokens_in < whole
    assert fitted.shortened.startswith("kept ") and fitted.shortened.endswith(" of 40 frames")
