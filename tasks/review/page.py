"""Write the self-contained HTML page on which a person judges the review queue by keyboard.

The page (page.html, .css and .js beside this file) needs no server and loads nothing. All data is JSON in script
elements that no browser runs, and is shown as text only; a content security policy lets only the page's own script run.
"""

import base64
import hashlib
import io
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote

from PIL import Image, ImageOps

from tasks.items.images import FORMATS
from tasks.records import ImageRef, ReviewCase, content_digest, digest_of
from tasks.storage.files import replacing
from tasks.storage.html import html_environment

SHOWN_PIXELS = 1_200_000
"""Area of an image on the page: a phone's screenshot of 1080×2400 stays legible at 735×1633, and takes about 0.1 MB."""
_TOP = 3
"""So many labels of highest probability are shown of each model, besides the given label and the candidate."""
_FOLDER = Path(__file__).parent


def write_review_page(
    cases: Sequence[ReviewCase],
    page: Path,
    *,
    title: str,
    verdicts: Mapping[str, str] = {},
    inline: bool = True,
) -> None:
    """Write the page that asks `cases` in the order given; atomically, one image in memory at a time.

    `verdicts` (sample id → label or `neither`) are those known already. With `inline` off, images are links relative
    to the page, which then works only beside its images. A file that can't be shown becomes a note in its place.
    """
    style, *scripts = (_FOLDER.joinpath(f"page.{end}").read_text("utf-8") for end in ("css", "drawing.js", "js"))
    template = html_environment(_FOLDER).get_template("page.html")
    pieces = template.generate(
        title=title,
        style=style,
        script="".join(scripts),
        policy_hash=_policy_hash,
        elements=_list_elements(cases, page.parent, verdicts, inline),
    )
    with replacing(page) as temporary, temporary.open("w", encoding="utf-8") as file:
        file.writelines(pieces)


def image_url(image: ImageRef) -> str:
    """The image as a data: URL (JPEG): upright, at most SHOWN_PIXELS, on white where it is transparent.

    Raises OSError, naming the file, when it can't be read or decoded.
    """
    try:
        with Image.open(image.path, formats=FORMATS) as file:
            size = _shown_size(image)
            file.draft(None, (max(size), max(size)))  # a JPEG is unpacked no larger than needed, turned or not
            picture = ImageOps.exif_transpose(file)
            if picture.has_transparency_data:
                layer = picture.convert("RGBA")
                picture = Image.new("RGBA", layer.size, "white")
                picture.alpha_composite(layer)
            picture = picture.convert("RGB").resize(size, Image.Resampling.LANCZOS)
    except Exception as error:  # a decoder raises whatever its arithmetic runs into on broken bytes
        raise OSError(f"{Path(image.path).name}: {error}") from error
    buffer = io.BytesIO()
    picture.save(buffer, "JPEG", quality=80, optimize=True)
    return "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode()


def _shown_size(image: ImageRef) -> tuple[int, int]:
    scale = min(1.0, (SHOWN_PIXELS / (image.width * image.height)) ** 0.5)
    return max(1, round(image.width * scale)), max(1, round(image.height * scale))


def _policy_hash(source: str) -> str:
    return "sha256-" + base64.b64encode(hashlib.sha256(source.encode()).digest()).decode()


def _list_elements(
    cases: Sequence[ReviewCase], folder: Path, verdicts: Mapping[str, str], inline: bool
) -> Iterator[tuple[str, object]]:
    """Yield (id, content) of the data elements: the queue, then each case, an image before the first that shows it."""
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
            image, shown = part.image, {"turn": part.turn, "width": part.image.width, "height": part.image.height}
            if not inline:
                parts.append(shown | {"link": quote(os.path.relpath(image.path, folder).replace(os.sep, "/"))})
                continue
            if image.sha256 not in numbers:
                numbers[image.sha256] = f"image-{len(numbers)}"
                yield numbers[image.sha256], _url_or_note(image)
            parts.append(shown | {"image": numbers[image.sha256]})
        yield f"case-{number}", _facts(case, parts)


def _url_or_note(image: ImageRef) -> dict[str, str]:
    try:
        return {"url": image_url(image)}
    except OSError as error:
        return {"note": f"This image can't be shown. {error}"}


def _facts(case: ReviewCase, parts: list[dict[str, Any]]) -> dict[str, Any]:
    shown = case.model_dump(include={"candidate", "labels", "reason", "why", "gain"})
    return shown | {
        "parts": parts,
        "student": bool(case.student),
        "teacher": bool(case.teacher),
        "rows": _rows(case),
    }


def _rows(case: ReviewCase) -> list[dict[str, Any]]:
    """The labels whose probabilities are shown: given, candidate and each model's highest, the likeliest first."""
    models = [m for m in (case.student, case.teacher) if m]
    if not models:
        return []
    names = {name for name in (case.given, case.candidate) if name is not None}
    for model in models:
        names |= set(sorted(model, key=lambda name: (-model[name], name))[:_TOP])
    ranked = sorted(names, key=lambda name: (-sum(model.get(name, 0.0) for model in models), name))
    return [{"label": n, "student": case.student.get(n, 0.0), "teacher": case.teacher.get(n, 0.0)} for n in ranked]
