"""Find what instructions contain besides the item: a role sentence, the list of labels, a closing request.

Students and models should see the item alone: a list of labels in each text makes all texts alike. What is found
becomes `label_list` and `strip` of a task in pack.yaml.
"""

import re
from collections import Counter
from collections.abc import Collection, Iterator, Sequence

from tasks.items.cutting import PLACEHOLDER, VIDEO_PLACEHOLDER, parse_list
from tasks.start.grouping import StarterTask, find_shared_start

_NUMBER = r"Picture\s*\d+\s*[:：]\s*(?=<(?:image|video)>)"
_CONTENT = r"\s*(\[[^\[\]]*\]|[^\n\[\]]+?)\s*[。.]?\s*$"
_SENTENCE_END = re.compile(r"[。！？!?；;\n]|\.(?=\s)")
_FEWEST_TEXTS = 10
_TRIED = 100
"""Texts among which most must have a list of labels; else the others are not searched."""
_COVERED = 0.95
"""Share of a task's texts that must have a list of labels, or one of the common beginnings or ends."""
_MOST_WORDINGS = 5
_SHORTEST = 6
"""Fewest characters of a role sentence; shorter ones may be greetings."""


def find_frames(tasks: Sequence[StarterTask], texts: Sequence[str]) -> None:
    """Set `label_list` and `strip` of each task to what its texts share, and add the listed labels to its labels."""
    for task in tasks:
        pattern = task.recognise
        mine = [text for text in texts if pattern is None or re.search(pattern, text, re.MULTILINE)]
        if len(mine) >= _FEWEST_TEXTS:
            _find_frame(task, mine)


def _find_frame(task: StarterTask, texts: Sequence[str]) -> None:
    some = texts[:_TRIED]
    have_lists = 2 * sum(_find_list(text, task.labels) is not None for text in some) > len(some)
    found = [_find_list(text, task.labels) for text in texts] if have_lists else []
    leads = _choose_common([lead for lead, _ in filter(None, found)], len(texts))
    if leads:
        task.label_list = f"(?:{'|'.join(map(_escape, leads))}){_CONTENT}"
        listed = Counter(name for _, names in filter(None, found) for name in names)
        for name, count in listed.items():
            if 2 * count >= len(texts):
                task.labels.setdefault(name, 0)
        texts = [_cut_last(task.label_list, text) for text in texts]
    if any(re.search(_NUMBER, text) for text in texts):
        task.strip.append(_NUMBER)
        texts = [re.sub(_NUMBER, "", text) for text in texts]
    for find, anchor in ((_find_openings, ""), (_find_closings, r"\s*\Z")):
        patterns = [_escape(wording) + anchor for wording in find(texts)]
        left = [_strip(patterns, text) for text in texts]
        if all(text.strip() for text in left):
            task.strip += patterns
            texts = left


def _find_list(text: str, labels: Collection[str]) -> tuple[str, tuple[str, ...]] | None:
    """Return the sentence before the last list of labels in the text, and the names in the list."""
    for start, content in _list_candidates(text):
        names = parse_list(content.strip(" 。.")) or ()
        if len(names) > 1 and 2 * sum(name in labels for name in names) >= len(names):
            before = text[:start].rstrip()
            last = max((m.end() for m in _SENTENCE_END.finditer(before)), default=0)
            if lead := _cut_placeholders(before[last:]).strip():
                return lead, names
    return None


def _cut_placeholders(text: str) -> str:
    return text.replace(PLACEHOLDER, "").replace(VIDEO_PLACEHOLDER, "")


def _list_candidates(text: str) -> Iterator[tuple[int, str]]:
    """Yield the place and content of what may be a list, from the end: brackets, then the ends of lines."""
    for match in reversed(list(re.finditer(r"\[[^\[\]]*\]", text))):
        yield match.start(), match[0]
    for line in reversed(list(re.finditer(r"^[^\n\[\]]+$", text, re.MULTILINE))):
        for colon in re.finditer(r"[:：]\s*", line[0]):
            yield line.start() + colon.end(), line[0][colon.end() :]
        yield line.start(), line[0]


def _find_openings(texts: Sequence[str]) -> list[str]:
    """Return the few beginnings that nearly all texts share, each as long as its texts agree, in whole sentences."""
    bare = [_cut_placeholders(text).lstrip() for text in texts]
    firsts = [_SENTENCE_END.split(text, maxsplit=1)[0] for text in bare]
    openings: list[str] = []
    for first in _choose_common(firsts, len(texts)):
        same = find_shared_start([text for text in bare if text.startswith(first)])
        ends = [match.end() for match in _SENTENCE_END.finditer(same)]
        openings.append(same[: ends[-1]].strip() if ends else first)
    return openings


def _find_closings(texts: Sequence[str]) -> list[str]:
    """Return the few ends that nearly all texts share, in whole lines or sentences."""
    bare = [_cut_placeholders(text).rstrip() for text in texts]
    lasts = [text[_start_of_last(text) :] for text in bare]
    return _choose_common(lasts, len(texts))


def _start_of_last(text: str) -> int:
    return max((m.end() for m in _SENTENCE_END.finditer(text[:-1])), default=0)


def _choose_common(wordings: Sequence[str], texts: int) -> list[str]:
    """Return the few wordings that cover nearly all texts, the longest first; none if they do not."""
    counts = Counter(wording.strip() for wording in wordings if len(wording.strip()) >= _SHORTEST)
    common = [(w, n) for w, n in counts.most_common(_MOST_WORDINGS) if n >= max(2, 0.01 * texts)]
    if sum(n for _, n in common) < _COVERED * texts:
        return []
    return sorted((w for w, _ in common), key=len, reverse=True)


def _escape(text: str) -> str:
    return r"\s+".join(re.escape(word) for word in text.split())


def _cut_last(pattern: str, text: str) -> str:
    matches = list(re.finditer(pattern, text, re.MULTILINE))
    return text[: matches[-1].start()] + text[matches[-1].end() :] if matches else text


def _strip(patterns: Sequence[str], text: str) -> str:
    for pattern in patterns:
        text = re.sub(pattern, "", text, flags=re.MULTILINE)
    return text
