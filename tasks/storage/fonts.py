"""Embed fonts, so that pages and charts show Chinese, Japanese and Korean text where no such font is installed.

A new machine may have no CJK font, and matplotlib contains none. Noto Sans CJK (SIL Open Font License 1.1) is installed
as a wheel. DejaVu Sans, which comes with matplotlib, has symbols and scripts that Noto Sans CJK lacks. A page embeds
subsets of both fonts, with only the characters that it shows.
"""

import base64
import io
import unicodedata
from functools import cache, lru_cache
from importlib.resources import files
from pathlib import Path
from typing import NamedTuple

import matplotlib
from fontTools import subset
from fontTools.ttLib import TTFont
from matplotlib.font_manager import FontEntry, fontManager

CHART_FONTS = ("Card Sans", "DejaVu Sans")
"""The names of the two fonts in matplotlib. Pages call the second one Card Symbols."""
_FACES = {"ja": 0, "ko": 1, "zh": 2}
"""Maps language to its face in the Noto collection. Each face draws characters in the style of a language."""
_FEATURES = ["ccmp", "kern", "mark"]
_DROPPED_TABLES = ["BASE", "FFTM", "VORG", "VVAR", "vhea", "vmtx"]
"""Font tables to leave out: those for vertical text, a third of a subset's size, and FontForge's time stamp."""
_LETTERS_AND_MARKS = ("L", "M")
"""Unicode categories that are never replaced by names. The reader's own fonts show what is missing."""
_INVISIBLE = ("Cc", "Cf", "Cs", "Zl", "Zp")
_REPLACEMENT = "\ufffd"
"""The character for bytes that could not be decoded. It looks as if the font lacked a glyph."""
LATIN = 0x2FF
"""The last character of the Latin blocks, which every system's fonts have."""
_KEPT = frozenset("\n\t\u200c\u200d")


def register_chart_fonts() -> None:
    """Register `CHART_FONTS` with matplotlib, unless they are registered already.

    matplotlib measures text in the default weight, the thinnest. The page shows text that is about 6 % wider.
    """
    if all(entry.name != CHART_FONTS[0] for entry in fontManager.ttflist):
        fontManager.ttflist.append(FontEntry(str(_find_noto()), index=_FACES["zh"], name=CHART_FONTS[0], weight=400))


def make_legible(text: str) -> str:
    """Replace each symbol that no embedded font can draw by its name in brackets, and remove invisible characters.

    Line breaks, tabs and the joiners that some scripts need are kept. Letters that the fonts lack are kept too, and the
    reader's fonts show them. Characters that change the direction of text are removed, because they can make a text
    look like another one.
    """
    for character in sorted(set(text) - _KEPT):
        category = unicodedata.category(character)
        if category in _INVISIBLE:
            text = text.replace(character, "")
        elif character == _REPLACEMENT or (
            character not in _list_drawable() and not category.startswith(_LETTERS_AND_MARKS)
        ):
            name = unicodedata.name(character, "")
            text = text.replace(character, f"[{name.lower() or f'U+{ord(character):04X}'}]")
    return text


class EmbeddedFont(NamedTuple):
    """A font as a page's CSS embeds it."""

    family: str
    weights: str
    data: str
    """The font as WOFF, encoded in base64."""

    def to_css(self) -> str:
        """Return the CSS rule that embeds the font."""
        source = f'url(data:font/woff;base64,{self.data}) format("woff")'
        return f'@font-face {{ font-family: "{self.family}"; font-weight: {self.weights}; src: {source}; }}\n'


@lru_cache(maxsize=16)
def embed_fonts(text: str, language: str = "zh") -> list[EmbeddedFont]:
    """Return both fonts with only the characters of `text`. The Noto font has all its weights.

    Each Chinese character takes about 0.4 kB. The format is WOFF, because WOFF2 would need one more package.
    """
    wanted = {ord(c) for c in text}
    face = _FACES.get(language[:2].lower(), _FACES["zh"])
    rest = wanted - _list_characters(_find_noto(), face)
    with TTFont(_find_noto(), fontNumber=face, lazy=True, recalcTimestamp=False, recalcBBoxes=False) as noto:
        faces = [_embed_font("Card Sans", "100 900", noto, wanted)]
    if rest & _list_characters(_find_dejavu(), 0):
        with TTFont(_find_dejavu(), lazy=True, recalcTimestamp=False, recalcBBoxes=False) as dejavu:
            faces.append(_embed_font("Card Symbols", "400", dejavu, rest))
    return faces


def _embed_font(family: str, weights: str, font: TTFont, wanted: set[int]) -> EmbeddedFont:
    options = subset.Options(flavor="woff", layout_features=_FEATURES, name_IDs=[0, 1, 2, 13, 14])
    options.drop_tables += _DROPPED_TABLES
    subsetter = subset.Subsetter(options)
    subsetter.populate(unicodes=wanted)
    subsetter.subset(font)
    buffer = io.BytesIO()
    font.flavor = "woff"
    font.save(buffer)
    return EmbeddedFont(family, weights, base64.b64encode(buffer.getvalue()).decode())


@cache
def _list_drawable() -> frozenset[str]:
    return frozenset(map(chr, _list_characters(_find_noto(), _FACES["zh"]) | _list_characters(_find_dejavu(), 0)))


@cache
def _list_characters(font: Path, face: int) -> frozenset[int]:
    with TTFont(font, fontNumber=face, lazy=True) as opened:
        return frozenset(opened.getBestCmap() or ())


def _find_noto() -> Path:
    return Path(str(files("manimgx_fonts_cjk"))) / "NotoSansCJK-VF.otf.ttc"


def _find_dejavu() -> Path:
    return Path(matplotlib.get_data_path()) / "fonts" / "ttf" / "DejaVuSans.ttf"
