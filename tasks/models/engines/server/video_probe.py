"""Find out whether a server shows its model all frames of a recording, at our size, and tells it their times.

Servers that do not know a way to send frames answer all the same: vLLM without `--trust-request-mm-kwargs` takes 32
frames at most, and one with other bounds resizes them. The number of prompt tokens tells all of this.
"""

from pathlib import Path
from typing import Any

from PIL import Image

from tasks.errors import EngineError
from tasks.media import ImageRef, TextPart, VideoPart, VideoRef
from tasks.models.engines.server.chat import (
    Capabilities,
    Thinking,
    build_chat_body,
    get_path,
    make_video_url,
    read_usage,
)
from tasks.models.engines.server.client import Client
from tasks.models.engines.spec import EngineSpec
from tasks.models.image_cache import compute_sides
from tasks.models.token_budget import PromptBudget
from tasks.models.unanswered import Unanswered
from tasks.records import FreeText, Request, Sampling

_FRAMES = 36
"""More than the 32 that vLLM takes if it is told nothing."""
_SECONDS = 0.4


async def probe_videos(
    client: Client, model: str, spec: EngineSpec, processor: Any, patch_size: int, folder: Path
) -> int | None:
    """Return how many prompt tokens the server reports beyond ours if it shows recordings as they are; else None.

    There are some more or less if the server's chat template begins the answer in another way. A picture for the probe
    is written to `folder`.
    """
    budget = PromptBudget(processor)
    video = _draw_video(spec, patch_size, folder)
    can = Capabilities(videos=True, thinking=Thinking.WITH_SCHEMA if spec.thinking_tokens else Thinking.NOT_ASKED)
    surplus: set[int] = set()
    for part in (TextPart(text="Hello"), VideoPart(video=video)):
        request = Request(
            key="probe",
            sample_id="probe",
            purpose="probe",
            prefix="",
            parts=(part,),
            suffix="",
            constraint=FreeText(),
            sampling=Sampling(max_tokens=1),
            min_pixels=spec.min_pixels,
            max_pixels=spec.max_pixels,
        )
        media = [make_video_url([Path(frame.path) for frame in video.frames])] if request.videos else []
        reported = await _count_by_server(client, build_chat_body(request, model, media, can, n=1, seed=0))
        if not reported:
            return None
        surplus.add(reported - budget.count(request))
    return surplus.pop() if len(surplus) == 1 else None


async def _count_by_server(client: Client, body: bytes) -> int:
    """Return the number of prompt tokens; 0 when the request fails or none is reported."""
    try:
        answer = await client.post(body)
    except (Unanswered, EngineError):
        return 0
    return read_usage(answer)[0] if get_path(answer, "choices") else 0


def _draw_video(spec: EngineSpec, patch_size: int, folder: Path) -> VideoRef:
    """Return a recording of frames of the smallest size."""
    small = ImageRef(path="probe", sha256="probe", width=1, height=1)
    width, height = compute_sides(small, min_pixels=spec.min_pixels, max_pixels=spec.max_pixels, patch_size=patch_size)
    file = folder.resolve() / f"probe-{width}x{height}.png"
    if not file.exists():
        folder.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (width, height), "white").save(file)
    frame = ImageRef(path=str(file), sha256="probe", width=width, height=height)
    times = tuple(_SECONDS * number for number in range(_FRAMES))
    return VideoRef(path=str(file), sha256="probe", frames=(frame,) * _FRAMES, times=times, seconds=times[-1])
