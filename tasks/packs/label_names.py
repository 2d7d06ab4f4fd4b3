"""Match a text with the labels it may mean: in answers of models, and in labels as people write them."""

import re
import unicodedata
from collections.abc import Sequence
from difflib import SequenceMatcher

from tasks.records import Rung

_CLEAR = 0.85
_MARGIN = 0.1
# A text that differs from a label in one of these has another meaning, however similar the two are: not X, step 2
_DISTINGUISHING = re.compile(
    r"[不非无没未勿否]|[一二两三四五六七八九十]|\d+|\b(?:not?|non|never|without)\b|^(?:un|in|im|ir|dis|non)(?=[a-z])"
)
_ENCLOSED = re.compile(r"[\[({<【「『《〈“‘]([^\])}>】」』》〉”’]+)[\])}>】」』》〉”’]|[\"'`]([^\"'`]+)[\"'`]")
_LIST_NUMBER = re.compile(r"^\s*[(（]?\d{1,3}[.．、)）:：]\s*")


def match_label(text: str, labels: Sequence[str]) -> tuple[str, Rung] | None:
    """Return the label that the text names, and the rung that found it; None unless exactly one label is close.

    STRICT: the text is a label. NORMALISED: it differs in width, spaces, punctuation or Unicode form. NEAREST: its
    similarity is at least 0.85 and exceeds that of the next label by 0.1, and no negation or number differs.
    """
    if text in labels:
        return text, Rung.STRICT
    if text.strip() in labels:  # before punctuation is removed: C++ and C# are two labels
        return text.strip(), Rung.NORMALISED
    bare = [normalise(label) for label in labels]
    wanted = normalise(text)
    if not wanted or len(wanted) > 2 * max(map(len, bare)) + 4:
        return None
    if (count := bare.count(wanted)) > 0:
        return (labels[bare.index(wanted)], Rung.NORMALISED) if count == 1 else None
    scored = sorted(((SequenceMatcher(None, wanted, b).ratio(), i) for i, b in enumerate(bare)), reverse=True)
    best, index = scored[0]
    second = scored[1][0] if len(scored) > 1 else 0.0
    distinguishing = (_find_distinguishing_words(text), _find_distinguishing_words(_LIST_NUMBER.sub("", text)))
    near = best >= _CLEAR and best - second >= _MARGIN and _find_distinguishing_words(labels[index]) in distinguishing
    return (labels[index], Rung.NEAREST) if near else None


def find_equal_label(text: str, labels: Sequence[str]) -> str | None:
    """Return the label that equals `text` but for case, width, spaces, invisible characters or enclosing brackets.

    None unless exactly one label does. Other punctuation counts: C++ and C are two labels.
    """
    if text in labels:
        return text
    wanted = _fold(text)
    equal = [label for label in labels if _fold(label) == wanted]
    return equal[0] if wanted and len(equal) == 1 else None


def _fold(text: str) -> str:
    folded = "".join(c for c in unicodedata.normalize("NFKC", text).casefold() if c.isprintable() and not c.isspace())
    while (match := _ENCLOSED.fullmatch(folded)) is not None:
        folded = match[1] or match[2]
    return folded


def normalise(text: str) -> str:
    """Return letters, digits and vowel signs in NFKC and lower case, so that width and punctuation do not matter."""
    return "".join(c for c in unicodedata.normalize("NFKC", text).casefold() if c.isalnum() or _is_vowel_sign(c))


def _is_vowel_sign(char: str) -> bool:
    # combining marks that NFKC keeps distinguish words in Thai or Hindi; variation selectors do not
    return unicodedata.category(char) in ("Mn", "Mc") and not "\ufe00" <= char <= "\ufe0f"


def _find_distinguishing_words(text: str) -> list[str]:
    return sorted(_DISTINGUISHING.findall(unicodedata.normalize("NFKC", text).casefold().strip()))
