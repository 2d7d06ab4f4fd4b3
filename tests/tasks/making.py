"""Small records for tests: every field that a test does not name has a harmless value."""

import hashlib
from pathlib import Path
from typing import Any

from tasks.media import ImagePart, ImageRef, Part, TextPart, VideoPart, VideoRef
from tasks.packs.pack import load_pack
from tasks.prompts.prompter import Prompter
from tasks.records import Action, Correction, Generation, Outcome, Prediction, Sample, Split
from tests.recordings import draw_numbered_frame


def image(sha: str = "a", path: str = "") -> ImageRef:
    return ImageRef(path=path or f"/images/{sha}.png", sha256=sha, width=112, height=168)


def draw_numbered_video(
    folder: Path, first: int = 0, frames: int = 4, *, fps: float = 2.0, width: int = 112
) -> VideoRef:
    """A recording of pictures that show `first` and the following numbers."""
    folder.mkdir(parents=True, exist_ok=True)
    shown: list[ImageRef] = []
    for number in range(first, first + frames):
        file = folder / f"{number}-{width}.png"
        draw_numbered_frame(number, (width, 168)).save(file)
        digest = hashlib.sha256(file.read_bytes()).hexdigest()
        shown.append(ImageRef(path=str(file), sha256=digest, width=width, height=168))
    digest = hashlib.sha256(str((first, frames, fps, width)).encode()).hexdigest()
    times = tuple(i / fps for i in range(frames))
    file = folder / f"{first}.mp4"
    return VideoRef(path=str(file), sha256=digest, frames=tuple(shown), times=times, seconds=frames / fps)


def parts(*content: str | ImageRef | VideoRef) -> tuple[Part, ...]:
    return tuple(map(_make_part, content))


def _make_part(content: str | ImageRef | VideoRef) -> Part:
    if isinstance(content, str):
        return TextPart(text=content)
    return ImagePart(image=content) if isinstance(content, ImageRef) else VideoPart(video=content)


def sample(id: str = "s", *content: str | ImageRef | VideoRef, **fields: Any) -> Sample:
    values: dict[str, Any] = {
        "task": "dialogue",
        "parts": parts(*(content or (f"用户: {id}",))),
        "labels": ("申请退款", "查询物流", "反馈破损"),
        "given": "申请退款",
        "split": Split.LABELLED,
        "source": "train.json",
    }
    return Sample(id=id, **values | fields)


def prediction(id: str = "s", label: str | None = "申请退款", **fields: Any) -> Prediction:
    outcome = Outcome.OK if label else Outcome.MALFORMED
    values: dict[str, Any] = {"source": "teacher", "outcome": outcome, "label": label}
    return Prediction(sample_id=id, **values | fields)


def correction(id: str = "s", **fields: Any) -> Correction:
    values: dict[str, Any] = {
        "given": "申请退款",
        "predicted": "申请退款",
        "adjudicated": None,
        "candidate": None,
        "action": Action.KEEP,
        "label": "申请退款",
        "fold": 0,
        "model": "student",
        "p_given": 0.5,
        "p_candidate": 0.4,
        "p_neither": 0.1,
        "why": "because",
    }
    return Correction(sample_id=id, **values | fields)


def proposal(id: str = "s", **fields: Any) -> Correction:
    values: dict[str, Any] = {
        "predicted": "查询物流",
        "adjudicated": "查询物流",
        "candidate": "查询物流",
        "action": Action.REVIEW,
        "flagged": True,
        "p_given": 0.1,
        "p_candidate": 0.8,
        "student_given": 0.1,
        "student_candidate": 0.8,
        "teacher_given": 0.1,
        "teacher_candidate": 0.8,
    }
    return correction(id, **values | fields)


def generation(key: str = "k", **fields: Any) -> Generation:
    values: dict[str, Any] = {"outcome": Outcome.OK, "texts": ("回答",)}
    return Generation(key=key, **values | fields)


def prompter(pack: str = "demo", model: str = "m") -> Prompter:
    return Prompter(load_pack(pack), model, max_pixels=112 * 168, min_pixels=56 * 56, texts={})
