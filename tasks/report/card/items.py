"""Items on the card: thumbnails, what was said, which label and why. All text is escaped by `Markup.format`."""

import base64
import io
from collections.abc import Iterable, Sequence

from markupsafe import Markup
from PIL import Image, ImageOps
from pydantic import TypeAdapter

from tasks.items.images import FORMATS
from tasks.prompts.turns import IMAGE_TOKEN
from tasks.records import ImagePart, ImageRef, Message, Part, TextPart
from tasks.report.card.facts import Row

_BOX = (220, 330)
"""Pixels at most: about 10 kB, so that a hundred of them fit into a page one likes to send."""
_QUALITY = 68
_PICTURES = 3
_CHARACTERS = 1200
_CONVERSATION = 6000
_NOTHING = Markup("")
_IMAGES: TypeAdapter[tuple[ImageRef, ...]] = TypeAdapter(tuple[ImageRef, ...])
_MESSAGES: TypeAdapter[tuple[Message, ...]] = TypeAdapter(tuple[Message, ...])


def thumbnail(image: ImageRef) -> Markup:
    """The image as an element with a data: URL (WebP), upright and small; a note where the file can't be shown."""
    try:
        with Image.open(image.path, formats=FORMATS) as file:
            file.draft("RGB", _BOX)  # a JPEG is unpacked no larger than needed
            picture = ImageOps.exif_transpose(file).convert("RGBA")
            picture.thumbnail(_BOX, Image.Resampling.LANCZOS)
            opaque = Image.new("RGBA", picture.size, "white")
            opaque.alpha_composite(picture)
    except Exception as error:  # a decoder raises whatever its arithmetic runs into on broken bytes
        return Markup('<span class="no-picture" title="{}">no picture</span>').format(f"{image.path}: {error}")
    buffer = io.BytesIO()
    opaque.convert("RGB").save(buffer, "WEBP", quality=_QUALITY)
    url = "data:image/webp;base64," + base64.b64encode(buffer.getvalue()).decode()
    size = f"{image.width} × {image.height} pixels"
    shape = Markup('<img src="{}" width="{}" height="{}" alt="picture of the item, {}" title="{}">')
    return shape.format(url, *opaque.size, size, size)


def example_item(row: Row, parts: Sequence[Part]) -> Markup:
    """An emitted example: its content, label, reason, why it is taught, and the conversation as trained."""
    messages = _MESSAGES.validate_json(row["messages"] or "[]")
    images = tuple(p.image for p in parts if isinstance(p, ImagePart)) or _IMAGES.validate_json(row["images"] or "[]")
    text = _text(parts) if parts else "\n\n".join(f"{m.role}: {m.content}" for m in messages)
    tags = [row["task"], row["subset"], None if row["weight"] in (None, 1.0) else f"weight {row['weight']:.2g}"]
    body = [_said(text, bool(images)), _label(Markup("<b>{}</b>").format(row["label"])) if row["label"] else _NOTHING]
    if row["reason"]:
        body.append(Markup('<p class="reason">{}</p>').format(row["reason"]))
    body.append(Markup('<p class="why">{}</p>').format(row["why"]))
    if parts and messages:
        turns = _NOTHING.join(
            Markup('<div class="turn"><span>{}</span><pre>{}</pre></div>').format(m.role, cut(m.content, _CONVERSATION))
            for m in messages
        )
        body.append(Markup("<details><summary>as trained</summary>{}</details>").format(turns))
    return _item(row["sample_id"], images, body, tags)


def change_item(row: Row, parts: Sequence[Part]) -> Markup:
    """A given label that was changed: what the item shows, the label before and after, and the evidence."""
    new = Markup("<b>{}</b>").format(row["label"]) if row["label"] else Markup("<b class='none'>dropped</b>")
    change = _label(Markup("<del>{}</del><i>→</i>{}").format(row["given"], new))
    body = [_said(_text(parts), _pictured(parts)), change, Markup('<p class="why">{}</p>').format(row["why"])]
    return _item(row["sample_id"], _images(parts), body, ["by a person" if row["reviewed"] else "by the gate"])


def dropped_item(row: Row, parts: Sequence[Part]) -> Markup:
    """An item that was left out: what it shows, if that could be read, and what was found."""
    body = [_said(_text(parts), _pictured(parts)), Markup('<p class="why">{}</p>').format(row["detail"] or "")]
    return _item(row["sample_id"], _images(parts), body, [])


def grid(items: Iterable[Markup]) -> Markup:
    """Items side by side."""
    return Markup('<div class="items">{}</div>').format(_NOTHING.join(items))


def cut(text: str, characters: int) -> str:
    """The text, or its beginning with a note of what is missing."""
    return text if len(text) <= characters else f"{text[:characters]} … ({len(text) - characters:,} more characters)"


def _item(identity: str, images: Sequence[ImageRef], body: Sequence[Markup], tags: Iterable[str | None]) -> Markup:
    pictures = _NOTHING.join(thumbnail(i) for i in images[:_PICTURES])
    if len(images) > _PICTURES:
        pictures += Markup('<span class="more">+ {}</span>').format(len(images) - _PICTURES)
    shown = Markup('<div class="pictures">{}</div>').format(pictures) if images else _NOTHING
    foot = _NOTHING.join(Markup('<span class="tag">{}</span>').format(tag) for tag in tags if tag)
    shape = Markup('<article class="item">{}<div class="words">{}<p class="foot">{}<code>{}</code></p></div></article>')
    return shape.format(shown, _NOTHING.join(body), foot, identity)


def _label(content: Markup) -> Markup:
    return Markup('<p class="label">{}</p>').format(content)


def _said(text: str, pictured: bool) -> Markup:
    """The text, each image in it as a mark; nothing where there is no word in it beside pictures that are shown."""
    pieces = cut(text.strip(), _CHARACTERS).split(IMAGE_TOKEN)
    if not any(piece.strip() for piece in pieces) and (pictured or len(pieces) == 1):
        return _NOTHING
    return Markup('<div class="said">{}</div>').format(Markup('<span class="mark">picture</span>').join(pieces))


def _text(parts: Sequence[Part]) -> str:
    return "".join(p.text if isinstance(p, TextPart) else IMAGE_TOKEN for p in parts)


def _images(parts: Sequence[Part]) -> tuple[ImageRef, ...]:
    return tuple(p.image for p in parts if isinstance(p, ImagePart))


def _pictured(parts: Sequence[Part]) -> bool:
    return any(isinstance(p, ImagePart) for p in parts)
