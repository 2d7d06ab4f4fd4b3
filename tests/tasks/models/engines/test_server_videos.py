"""Recordings over HTTP: what is sent, and what is done with servers that would show the model something else."""

import asyncio
import base64
import io
import json
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from tasks.media import ImagePart, ImageRef, Part, TextPart, VideoPart, VideoRef
from tasks.models.engines.engine import Workplace, open_engine
from tasks.models.engines.server.capabilities import describe_gaps
from tasks.models.engines.server.chat import Capabilities
from tasks.models.engines.server.conversation import Conversation
from tasks.models.engines.server.retries import Refused
from tasks.models.engines.server.video_probe import probe_videos
from tasks.models.engines.spec import EngineSpec
from tasks.models.image_cache import ImageCache
from tasks.models.processor import read_processor
from tasks.models.token_budget import PromptBudget
from tasks.models.unanswered import Unanswered
from tasks.prompts.recordings import compute_frame_pixels
from tasks.records import FreeText, Outcome, Request, Sampling
from tests.checkpoints import make_small_tokenizer, write_random_checkpoint
from tests.recordings import draw_video
from tests.stub_server import running
from tests.tasks.making import prompter, sample
from tests.tasks.models.engines.small_provider import completion

BOUNDS: dict[str, Any] = {"min_pixels": 64 * 64, "max_pixels": 320 * 320}


@pytest.fixture(scope="module")
def processor(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Of Qwen3-VL, whose prompts name the times of frames."""
    folder = tmp_path_factory.mktemp("model") / "base"
    return read_processor(str(write_random_checkpoint(folder, make_small_tokenizer(), "qwen3_vl")))


class CountingClient:
    """Counts the tokens of what it gets, as vLLM does, and shows the model what its options say."""

    def __init__(
        self,
        processor: Any,
        *,
        most: int = 1000,
        refuses: bool = False,
        told: bool = True,
        side: int = 0,
        more: int = 0,
    ) -> None:
        self.processor, self.most, self.refuses, self.told = processor, most, refuses, told
        self.side, self.more = side, more
        self.bodies: list[dict[str, Any]] = []
        self.frames: list[Image.Image] = []

    async def post(self, body: bytes, tokens: int = 0) -> dict[str, Any]:
        asked = json.loads(body)
        self.bodies.append(asked)
        told = asked.get("media_io_kwargs", {}).get("video", {})
        if told and self.refuses:
            raise Refused(400, "Per-request media_io_kwargs are disabled", "media_io_kwargs")
        parts = [self._read(part, told if self.told else {}) for part in asked["messages"][-1]["content"]]
        request = ask(*parts, min_pixels=1, max_pixels=10**8)
        count = PromptBudget(self.processor).count(request) + self.more
        return completion(message={"content": "好"}, finish_reason="stop") | {"usage": {"prompt_tokens": count}}

    def _read(self, part: dict[str, Any], told: dict[str, Any]) -> Part:
        if part["type"] == "text":
            return TextPart(text=part["text"])
        head, data = part[part["type"]]["url"].split(",", 1)
        frames = [Image.open(io.BytesIO(base64.b64decode(frame))) for frame in data.split(",")][: self.most]
        self.frames += frames
        refs = tuple(
            ImageRef(path="f", sha256="f", width=self.side or f.width, height=self.side or f.height) for f in frames
        )
        if part["type"] == "image_url":
            return ImagePart(image=refs[0])
        assert head == "data:video/jpeg;base64"
        numbers, fps = told.get("frames_indices", range(len(refs))), told.get("fps", 1.0)
        times = tuple(number / fps for number in numbers)
        return VideoPart(video=VideoRef(path="v", sha256="v", frames=refs, times=times[: len(refs)], seconds=times[-1]))


def ask(*parts: Part, **fields: Any) -> Request:
    videos = [part.video for part in parts if isinstance(part, VideoPart)]
    values: dict[str, Any] = {"key": "k", "sample_id": "s", "purpose": "write", "prefix": "", "suffix": "", **BOUNDS}
    pixels = compute_frame_pixels(videos, **BOUNDS) if not fields else None
    return Request(
        **values | fields, parts=parts, frame_pixels=pixels, constraint=FreeText(), sampling=Sampling(max_tokens=4)
    )


def probe(client: CountingClient, folder: Path) -> int | None:
    spec = EngineSpec(engine="server", model="m", base_urls=("http://h/v1",), **BOUNDS)
    return asyncio.run(probe_videos(client, "m", spec, client.processor, 16, folder))  # type: ignore[arg-type]


def make_conversation(client: CountingClient, can: Capabilities, folder: Path) -> Conversation:
    return Conversation(client, "m", can, client.processor, 16, ImageCache(folder))  # type: ignore[arg-type]


@pytest.mark.parametrize("more", [0, 3])
def test_a_server_that_shows_recordings_as_they_are_is_found(processor: Any, more: int, tmp_path: Path) -> None:
    """Also when its chat template begins answers in another way."""
    assert probe(CountingClient(processor, more=more), tmp_path) == more


@pytest.mark.parametrize(
    "options", [{"most": 32}, {"refuses": True}, {"told": False}, {"side": 320}], ids=lambda o: next(iter(o))
)
def test_a_server_that_shows_them_otherwise_is_found(processor: Any, options: Any, tmp_path: Path) -> None:
    assert probe(CountingClient(processor, **options), tmp_path) is None


def test_all_frames_are_sent_as_they_are_with_their_times(processor: Any, tmp_path: Path) -> None:
    video = draw_video(tmp_path, "a", 40, 100, 150, seconds=50.0)
    client = CountingClient(processor)
    conversation = make_conversation(client, Capabilities(videos=True), tmp_path / "cache")
    request = ask(TextPart(text="看"), VideoPart(video=video))
    reply = asyncio.run(conversation.answer(conversation.prepare(request)))
    assert reply.outcome is Outcome.OK and reply.tokens_in == PromptBudget(processor).count(request)
    (frames,) = conversation.cache.open_frames([video], **request.frame_bounds, patch_size=16) or []
    assert [sent.tobytes() for sent in client.frames] == [frame.tobytes() for frame in frames]
    assert client.bodies[0]["media_io_kwargs"]["video"] == {
        "num_frames": -1,
        "fps": 1000.0,
        "frames_indices": [1250 * i for i in range(40)],
        "total_num_frames": 50_000,
        "duration": 50.0,
    }


def test_several_recordings_are_told_one_rate(processor: Any, tmp_path: Path) -> None:
    clips = [draw_video(tmp_path, "a", 8, seconds=8.0), draw_video(tmp_path, "b", 4, seconds=2.0)]
    client = CountingClient(processor)
    conversation = make_conversation(client, Capabilities(videos=True), tmp_path / "cache")
    request = ask(*(VideoPart(video=clip) for clip in clips))
    assert asyncio.run(conversation.answer(conversation.prepare(request))).outcome is Outcome.OK
    # 7 and 3 steps in 7 and 1.5 seconds
    assert client.bodies[0]["media_io_kwargs"]["video"] == {"num_frames": -1, "fps": 10 / 8.5}


def test_an_answer_to_other_frames_is_no_answer(processor: Any, tmp_path: Path) -> None:
    request = ask(VideoPart(video=draw_video(tmp_path, "a", 16)))
    conversation = make_conversation(CountingClient(processor, most=8), Capabilities(videos=True), tmp_path / "cache")
    with pytest.raises(Unanswered, match=r"the server read \d+ prompt tokens instead of \d+"):
        asyncio.run(conversation.answer(conversation.prepare(request)))


def test_else_each_frame_is_an_image_and_counted_as_one(processor: Any, tmp_path: Path) -> None:
    request = ask(TextPart(text="看"), VideoPart(video=draw_video(tmp_path, "a", 16)))
    client = CountingClient(processor)
    whole = PromptBudget(processor, frames_as_images=True).count(request)
    can = Capabilities(context_length=whole + 4 + 64 - 1)
    conversation = make_conversation(client, can, tmp_path / "cache")
    reply = asyncio.run(conversation.answer(conversation.prepare(request)))
    assert reply.shortened == "kept 14 of 16 frames"
    assert [part["type"] for part in client.bodies[0]["messages"][-1]["content"]] == ["text", *["image_url"] * 14]
    assert "media_io_kwargs" not in client.bodies[0]
    assert reply.tokens_in < whole


def test_it_is_said_that_frames_are_sent_as_images(tmp_path: Path) -> None:
    with running() as stub:
        spec = EngineSpec(engine="server", model="stub", base_urls=(stub.url,), context_length=9000)
        note, *_ = describe_gaps(Capabilities(local_files=True, context_length=9), spec, tokenizer=True, videos=True)
        assert note.startswith("the server's model does not see recordings as they are sent: each of their frames")
        engine = open_engine(spec, Workplace(ImageCache(tmp_path / "images"), tmp_path, most_videos=1))
        assert engine.capabilities.context_length == 9000 and not engine.capabilities.videos
        assert any("set `tokenizer`" in note and "recordings" in note for note in engine.notes)
        part = VideoPart(video=draw_video(tmp_path, "a"))
        asked = prompter().classify(sample().model_copy(update={"parts": (part,)}), Sampling())
        assert [g.outcome for g in engine.generate([asked])] == [Outcome.OK]
        engine.close()
