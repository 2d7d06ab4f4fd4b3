"""Write the self-contained HTML page on which a person judges the review queue with the keyboard.

The page (made from page.html, .css and .js beside this file) needs no server and loads nothing. All data is JSON in
script elements that no browser runs, and is shown only as text. A content security policy allows only the page's own
script to run.
"""

import base64
import hashlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from tasks.media import ImageRef, VideoRef
from tasks.records import ReviewCase, content_digest, digest_of
from tasks.review.images import make_url, write_pictures
from tasks.review.recordings import choose_frames, link_recordings
from tasks.storage.files import replace_file
from tasks.storage.fonts import LATIN, embed_fonts
from tasks.storage.html import html_environment

PICTURES = "images"
"""Name of the folder beside the page that contains the pictures."""
_TOP = 3
"""How many of each model's most probable labels are shown, besides the given label and the candidate."""
_FOLDER = Path(__file__).parent


def write_review_page(
    cases: Sequence[ReviewCase],
    page: Path,
    *,
    title: str,
    verdicts: Mapping[str, str] = {},
    inline: bool = True,
) -> None:
    """Write the page that shows `cases` in the given order. The file is written atomically.

    `verdicts` maps sample ids to known verdicts (a label or `neither`). Small pictures of the images are written to a
    folder beside the page. With `inline`, the page contains them, one in memory at a time, and may be moved alone.
    Otherwise it links to them. An image that can't be shown is replaced by a note. A recording is shown as some of its
    frames, above which the page plays the file if a browser can (see recordings.py).
    """
    style, *scripts = (_FOLDER.joinpath(f"page.{end}").read_text("utf-8") for end in ("css", "drawing.js", "js"))
    template = html_environment(_FOLDER).get_template("page.html")
    pieces = template.generate(
        title=title,
        style=style + _embed_fonts(cases, title),
        script="".join(scripts),
        hash_source=_hash_source,
        elements=_list_elements(cases, page.parent, verdicts, inline),
    )
    with replace_file(page) as temporary, temporary.open("w", encoding="utf-8") as file:
        file.writelines(pieces)


def _embed_fonts(cases: Sequence[ReviewCase], title: str) -> str:
    """Return CSS with fonts for the characters beyond Latin, for readers whose system has none for them."""
    shown = set(title)
    for case in cases:
        texts = [part.text for part in case.parts if part.type == "text"]
        shown.update(case.sample_id, case.why, case.reason, case.given, case.candidate or "", *case.labels, *texts)
        shown.update(*(box.ref for box in case.boxes))
    foreign = "".join(sorted(c for c in shown if ord(c) > LATIN))
    return "".join(font.to_css() for font in embed_fonts(foreign)) if foreign else ""


def _hash_source(source: str) -> str:
    return "sha256-" + base64.b64encode(hashlib.sha256(source.encode()).digest()).decode()


def _list_elements(
    cases: Sequence[ReviewCase], folder: Path, verdicts: Mapping[str, str], inline: bool
) -> Iterator[tuple[str, object]]:
    """Yield (id, content) of each data element: the queue, then the cases, each after the media that it shows."""
    listed = [
        {"id": c.sample_id, "content": content_digest(c), "given": c.given, "verdict": verdicts.get(c.sample_id)}
        for c in cases
    ]
    key = digest_of([[c["id"], c["content"], c["given"]] for c in listed])
    yield "queue", {"key": key, "cases": listed}
    parts_of_all = [part for case in cases for part in case.parts]
    videos = [choose_frames(part.video) for part in parts_of_all if part.type == "video"]
    frames = (frame for video in videos for frame in video.frames)
    pictures = write_pictures((p.image for p in parts_of_all if p.type == "image"), frames, folder / PICTURES)
    links = link_recordings(videos, folder / PICTURES, inline=inline)
    numbers: dict[str, str] = {}
    for number, case in enumerate(cases):
        parts: list[dict[str, Any]] = []
        seen: list[ImageRef] = []
        for part in case.parts:
            if part.type == "text":
                parts.append({"turn": part.turn, "text": part.text})
                continue
            if part.type == "video":
                video = part.video
                if video.sha256 not in numbers:
                    numbers[video.sha256] = f"video-{len(numbers)}"
                    yield numbers[video.sha256], _show_video(video, pictures, links.get(video.sha256), inline)
                parts.append({"turn": part.turn, "video": numbers[video.sha256]})
                continue
            image = part.image
            boxes = [{"ref": b.ref, "corners": b.corners} for b in case.boxes if b.image == len(seen)]
            seen.append(image)
            shown = {"turn": part.turn, "width": image.width, "height": image.height, "boxes": boxes}
            if image.sha256 not in numbers:
                numbers[image.sha256] = f"image-{len(numbers)}"
                yield numbers[image.sha256], _show_picture(pictures[image.sha256], inline)
            parts.append(shown | {"image": numbers[image.sha256]})
        yield f"case-{number}", _describe_case(case, parts)


def _show_picture(picture: Path | OSError, inline: bool) -> dict[str, str]:
    if isinstance(picture, OSError):
        return {"note": f"This image can't be shown. {picture}"}
    return {"url": make_url(picture.read_bytes()) if inline else f"{PICTURES}/{picture.name}"}


def _show_video(
    video: VideoRef, pictures: Mapping[str, Path | OSError], link: str | None, inline: bool
) -> dict[str, Any]:
    shown = choose_frames(video)
    sizes = {"width": shown.frames[0].width, "height": shown.frames[0].height}
    frames = [
        {"time": time, **_show_picture(pictures[frame.sha256], inline)}
        for frame, time in zip(shown.frames, shown.times, strict=True)
    ]
    return {"url": link, "seconds": video.seconds, "count": len(video.frames), **sizes, "frames": frames}


def _describe_case(case: ReviewCase, parts: list[dict[str, Any]]) -> dict[str, Any]:
    shown = case.model_dump(include={"candidate", "labels", "reason", "why", "gain", "disagreed"})
    return shown | {
        "blind": case.blind,
        "choices": case.choices or (case.given, case.candidate),
        "parts": parts,
        "student": bool(case.student),
        "teacher": bool(case.teacher),
        "rows": _rank_labels(case),
    }


def _rank_labels(case: ReviewCase) -> list[dict[str, Any]]:
    """Return the labels whose probabilities are shown (given, candidate, each model's top), most probable first."""
    models = [m for m in (case.student, case.teacher) if m]
    if not models:
        return []
    names = {name for name in (case.given, case.candidate) if name is not None}
    for model in models:
        names |= set(sorted(model, key=lambda name: (-model[name], name))[:_TOP])
    ranked = sorted(names, key=lambda name: (-sum(model.get(name, 0.0) for model in models), name))
    return [{"label": n, "student": case.student.get(n, 0.0), "teacher": case.teacher.get(n, 0.0)} for n in ranked]
