"""Write the self-contained HTML page on which a person judges the review queue with the keyboard.

The page (made from page.html, .css and .js beside this file) needs no server and loads nothing. All data is JSON in
script elements that no browser runs, and is shown only as text. A content security policy allows only the page's own
script to run.
"""

import base64
import hashlib
import io
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote

from PIL import Image

from tasks.items.images import FORMATS
from tasks.items.pixels import render_pixels
from tasks.records import ImageRef, ReviewCase, content_digest, digest_of
from tasks.storage.files import replace_file
from tasks.storage.html import html_environment

SHOWN_PIXELS = 1_200_000
"""Maximum area of an image on the page, in pixels. A phone's screenshot of 1080×2400 is then shown at 735×1633, which
is legible and takes about 0.1 MB."""
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

    `verdicts` maps sample ids to known verdicts (a label or `neither`). With `inline`, the page contains the images, of
    which only one is in memory at a time. Otherwise it links to them by relative paths, so the page and
    the images may only be moved together. An image that can't be shown is replaced by a note.
    """
    style, *scripts = (_FOLDER.joinpath(f"page.{end}").read_text("utf-8") for end in ("css", "drawing.js", "js"))
    template = html_environment(_FOLDER).get_template("page.html")
    pieces = template.generate(
        title=title,
        style=style,
        script="".join(scripts),
        hash_source=_hash_source,
        elements=_list_elements(cases, page.parent, verdicts, inline),
    )
    with replace_file(page) as temporary, temporary.open("w", encoding="utf-8") as file:
        file.writelines(pieces)


def encode_image(image: ImageRef) -> str:
    """Return the image as a data: URL with a JPEG.

    The JPEG is upright, has at most SHOWN_PIXELS, and is white where the image is transparent. Raises OSError, naming
    the file, if it can't be read or decoded.
    """
    try:
        with Image.open(image.path, formats=FORMATS) as file:
            size = _compute_size(image)
            # Decode a JPEG no larger than needed; by the longer side, as EXIF may rotate it.
            file.draft(None, (max(size), max(size)))
            picture = render_pixels(file).resize(size, Image.Resampling.LANCZOS)
    except Exception as error:  # on broken bytes, decoders raise errors of any kind
        raise OSError(f"{Path(image.path).name}: {error}") from error
    buffer = io.BytesIO()
    picture.save(buffer, "JPEG", quality=80, optimize=True)
    return "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode()


def _compute_size(image: ImageRef) -> tuple[int, int]:
    scale = min(1.0, (SHOWN_PIXELS / (image.width * image.height)) ** 0.5)
    return max(1, round(image.width * scale)), max(1, round(image.height * scale))


def _hash_source(source: str) -> str:
    return "sha256-" + base64.b64encode(hashlib.sha256(source.encode()).digest()).decode()


def _list_elements(
    cases: Sequence[ReviewCase], folder: Path, verdicts: Mapping[str, str], inline: bool
) -> Iterator[tuple[str, object]]:
    """Yield (id, content) of each data element: the queue, then the cases, each after the images that it shows."""
    listed = [
        {"id": c.sample_id, "content": content_digest(c), "given": c.given, "verdict": verdicts.get(c.sample_id)}
        for c in cases
    ]
    key = digest_of([[c["id"], c["content"], c["given"]] for c in listed])
    yield "queue", {"key": key, "cases": listed}
    numbers: dict[str, str] = {}
    for number, case in enumerate(cases):
        parts: list[dict[str, Any]] = []
        for part in case.parts:
            if part.type == "text":
                parts.append({"turn": part.turn, "text": part.text})
                continue
            image = part.image
            shown = {"turn": part.turn, "width": image.width, "height": image.height}
            if not inline:
                parts.append(shown | {"link": quote(os.path.relpath(image.path, folder).replace(os.sep, "/"))})
                continue
            if image.sha256 not in numbers:
                numbers[image.sha256] = f"image-{len(numbers)}"
                yield numbers[image.sha256], _encode_or_note(image)
            parts.append(shown | {"image": numbers[image.sha256]})
        yield f"case-{number}", _describe_case(case, parts)


def _encode_or_note(image: ImageRef) -> dict[str, str]:
    try:
        return {"url": encode_image(image)}
    except OSError as error:
        return {"note": f"This image can't be shown. {error}"}


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
