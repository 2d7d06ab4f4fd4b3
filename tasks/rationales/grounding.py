"""Judge by OCR whether a reason's boxes contain the text that it quotes.

Labels and quotations from the dialogue do not count. If a reason quotes nothing, its numbers of three digits or more
(such as prices) are used instead. With neither, its boxes cannot be judged. Otherwise at least one box must contain
some of this text, and so must every box that contains any text: icons contain none.
"""

import re
import unicodedata
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from difflib import SequenceMatcher

from tasks.items.ocr import TextLine
from tasks.media import Box, ImageRef
from tasks.prompts.boxes import measure_area
from tasks.rationales.words import BadReason
from tasks.records import Sample

FindLines = Callable[[Sequence[ImageRef]], Sequence[Sequence[TextLine]]]
"""Returns the lines of text that were read on each image."""

_SHARE = 0.75
"""A quotation is found if this share of its characters is, in order: text recognition gets one in ten screenshot's
characters wrong at worst, and a quotation of four may lose one."""
_PIECE = 3
"""A box may hold a part of a quotation only, of at least so many characters."""
_QUOTED = re.compile(
    r"「([^」]+)」|『([^』]+)』|“([^”]+)”|‘([^’]+)’|《([^》]+)》|\"([^\"]+)\"|(?<![A-Za-z])'([^']+)'(?![A-Za-z])"
)
_ELLIPSIS = re.compile(r"…+|⋯+|\.{3,}")
_NUMBER = re.compile(r"\d(?:[,.:/-]?\d){2,}")
_MOST = 0.5
"""A box larger than this share of its image is refused if the quoted text fills less than `_FILLED` of it."""
_FILLED = 0.05
"""A button's words fill about 0.3 % of a screenshot, a banner's headline 10 % of the banner."""
_NARROW = 2
"""A line that is higher than this many times its width is vertical: it is not cut where a box ends."""


def judge_words_in_boxes(reason: str, boxes: Sequence[Box], sample: Sample, find_lines: FindLines) -> BadReason | None:
    """Return BOX_ELSEWHERE if the boxes miss the text that `reason` quotes, and BOX_TOO_LARGE if one covers most of its
    image; None if nothing is wrong or the boxes cannot be judged.
    """
    wanted = _list_quoted(reason, sample)
    if not boxes or not wanted:
        return None
    lines = find_lines(sample.images)
    held = too_large = False
    for box in boxes:
        pieces = [(_squeeze(piece), line) for line in lines[box.image] for piece in _cut_line(line, box)]
        inside = {line: piece for piece, line in pieces if piece}
        ref = [_squeeze(box.ref)] if len(_squeeze(box.ref)) >= _PIECE - 1 else []
        if found := {quoted for quoted in (*wanted, *ref) if _is_inside(quoted, list(inside.values()))}:
            held = True
            too_large = too_large or _is_too_large(box, sample.images[box.image], found, inside)
        elif inside:
            return BadReason.BOX_ELSEWHERE
    if not held:
        return BadReason.BOX_ELSEWHERE
    return BadReason.BOX_TOO_LARGE if too_large else None


def _is_too_large(box: Box, image: ImageRef, found: Collection[str], inside: Mapping[TextLine, str]) -> bool:
    """Return whether a box covers most of its image although the quoted text fills little of it."""
    area = measure_area(box.corners)
    if area <= _MOST * image.width * image.height:
        return False
    share = sum(map(len, found)) / sum(map(len, inside.values()))
    return share * sum(measure_area(line.corners) for line in inside) < _FILLED * area


def _list_quoted(reason: str, sample: Sample) -> list[str]:
    """Return what a reason quotes of the images, or the long numbers in it, without spaces and punctuation."""
    dialogue = _squeeze("".join(part.text for part in sample.parts if part.type == "text"))
    known = {_squeeze(label) for label in sample.labels}
    quotes = ["".join(groups) for groups in _QUOTED.findall(reason)]
    found = quotes or _NUMBER.findall(reason)
    pieces = (_squeeze(piece) for quote in found for piece in _ELLIPSIS.split(quote))
    return [piece for piece in pieces if piece and piece not in known and piece not in dialogue]


def _cut_line(line: TextLine, box: Box) -> Iterator[str]:
    """Yield the characters of a line that are in a box, if the box covers half of the line's height or lies in it."""
    left, top, right, bottom = line.corners
    shared = min(bottom, box.corners[3]) - max(top, box.corners[1])
    if right <= left or bottom <= top or shared < 0.5 * min(bottom - top, box.corners[3] - box.corners[1]):
        return
    if bottom - top > _NARROW * (right - left):
        if box.corners[0] < (left + right) / 2 < box.corners[2]:
            yield line.text
        return
    widths = [2 if unicodedata.east_asian_width(c) in "WF" else 1 for c in line.text]
    unit = (right - left) / max(1, sum(widths))
    slack = unit  # half a wide character: letters differ in width
    place = float(left)
    kept: list[str] = []
    for character, width in zip(line.text, widths, strict=True):
        middle = place + width * unit / 2
        if box.corners[0] - slack <= middle <= box.corners[2] + slack:
            kept.append(character)
        place += width * unit
    yield "".join(kept)


def _is_inside(quoted: str, pieces: Sequence[str]) -> bool:
    if any(len(piece) >= min(_PIECE, len(quoted)) and piece in quoted for piece in pieces):
        return True
    text = "".join(pieces)
    return quoted in text or _find_share(quoted, text) >= _SHARE


def _find_share(quoted: str, text: str) -> float:
    """Return the largest share of the characters of `quoted` found in order in a part of `text` of the same length."""
    matcher = SequenceMatcher(None, autojunk=False)
    matcher.set_seq2(quoted)
    best = 0
    for start in range(max(1, len(text) - len(quoted) + 1)):
        matcher.set_seq1(text[start : start + len(quoted)])
        best = max(best, sum(block.size for block in matcher.get_matching_blocks()))
    return best / len(quoted)


def _squeeze(text: str) -> str:
    """Return the letters and digits of a text, in NFKC and lower case."""
    return "".join(c for c in unicodedata.normalize("NFKC", text).lower() if c.isalnum())
