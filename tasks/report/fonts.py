# pyright: reportMissingTypeStubs=false, reportUnknownVariableType=false, reportUnknownMemberType=false
# pyright: reportUnknownArgumentType=false
# (fontTools has types for some of its modules only)
"""Fonts for pages and charts that must show Chinese, Japanese and Korean where no such font is installed.

A bare machine's browser has no CJK font at all, and matplotlib ships none. Noto Sans CJK (SIL Open Font License 1.1)
comes in a wheel; DejaVu Sans, which matplotlib brings along, has the symbols and scripts that Noto's lacks. A page gets
subsets of both, of the very characters that stand on it.
"""

import base64
import io
import unicodedata
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import NamedTuple

import matplotlib
from fontTools import subset
from fontTools.ttLib import TTFont
from matplotlib.font_manager import FontEntry, fontManager

CHART_FONTS = ("Card Sans", "DejaVu Sans")
"""The fonts' names for matplotlib. Pages call the second one Card Symbols, as they embed only a part of it."""
_FACES = {"ja": 0, "ko": 1, "zh": 2}
"""Faces of Noto's collection: the same characters, drawn as each language's readers are used to."""
_FEATURES = ["ccmp", "kern", "mark"]
_NEEDLESS = ["BASE", "FFTM", "VORG", "VVAR", "vhea", "vmtx"]
"""Tables for vertical text, a third of what is left of the font; and FontForge's time stamp."""
_DRAWN_BY_READERS = ("L", "M")
"""Letters of scripts that neither font has are left to the reader's own fonts: their names would be unreadable."""
_UNSEEN = ("Cc", "Cf", "Cs", "Zl", "Zp")
_BROKEN = "\ufffd"
"""Stands in data for bytes that are no text; drawn as it is, it would look like a glyph that is missing here."""
_KEPT = frozenset("\n\t\u200c\u200d")


def register_chart_fonts() -> None:
    """Make `CHART_FONTS` known to matplotlib; does nothing the second time.

    Text is measured by the collection's default weight, which is the thinnest: some 6 % narrower than what is shown.
    """
    if all(entry.name != CHART_FONTS[0] for entry in fontManager.ttflist):
        fontManager.ttflist.append(FontEntry(str(_noto()), index=_FACES["zh"], name=CHART_FONTS[0], weight=400))


def make_legible(text: str) -> str:
    """`text` with each symbol that no embedded font can draw as its name in brackets, and without invisible characters.

    Line breaks and tabs stay, and so do the joiners that some scripts need; letters of scripts that the fonts lack are
    left to the reader's own. What turns the direction of text goes: it makes text look like another.
    """
    for character in sorted(set(text) - _KEPT):
        category = unicodedata.category(character)
        if category in _UNSEEN:
            text = text.replace(character, "")
        elif character == _BROKEN or (character not in _drawable() and not category.startswith(_DRAWN_BY_READERS)):
            name = unicodedata.name(character, "")
            text = text.replace(character, f"[{name.lower() or f'U+{ord(character):04X}'}]")
    return text


class EmbeddedFont(NamedTuple):
    """A font as a page's CSS embeds it."""

    family: str
    weights: str
    data: str
    """WOFF in base64."""


def embed_fonts(text: str, language: str = "zh") -> list[EmbeddedFont]:
    """Return both fonts, cut down to the characters of `text`, with all weights of Noto's.

    About 0.4 kB per Chinese character. WOFF, since WOFF2 would need one more package.
    """
    wanted = {ord(c) for c in text}
    face = _FACES.get(language[:2].lower(), _FACES["zh"])
    rest = wanted - _characters_of(_noto(), face)
    with TTFont(_noto(), fontNumber=face, lazy=True, recalcTimestamp=False, recalcBBoxes=False) as noto:
        faces = [_face("Card Sans", "100 900", noto, wanted)]
    if rest & _characters_of(_dejavu(), 0):
        with TTFont(_dejavu(), lazy=True, recalcTimestamp=False, recalcBBoxes=False) as dejavu:
            faces.append(_face("Card Symbols", "400", dejavu, rest))
    return faces


def _face(family: str, weights: str, font: TTFont, wanted: set[int]) -> EmbeddedFont:
    options = subset.Options(flavor="woff", layout_features=_FEATURES, name_IDs=[0, 1, 2, 13, 14])
    options.drop_tables += _NEEDLESS
    subsetter = subset.Subsetter(options)
    subsetter.populate(unicodes=wanted)
    subsetter.subset(font)
    buffer = io.BytesIO()
    font.flavor = "woff"
    font.save(buffer)
    return EmbeddedFont(family, weights, base64.b64encode(buffer.getvalue()).decode())


@cache
def _drawable() -> frozenset[str]:
    return frozenset(map(chr, _characters_of(_noto(), _FACES["zh"]) | _characters_of(_dejavu(), 0)))


@cache
def _characters_of(font: Path, face: int) -> frozenset[int]:
    with TTFont(font, fontNumber=face, lazy=True) as opened:
        return frozenset(opened.getBestCmap() or ())


def _noto() -> Path:
    return Path(str(files("manimgx_fonts_cjk"))) / "NotoSansCJK-VF.otf.ttc"


def _dejavu() -> Path:
    return Path(matplotlib.get_data_path()) / "fonts" / "ttf" / "DejaVuSans.ttf"
