"""Find out which labelling tasks the items belong to: those of a pack that knows them, or groups of similar texts."""

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from tasks.packs.columns import Columns
from tasks.packs.pack import TEMPLATES, Pack, load_pack

_KNOWN = 0.9
"""Share of the texts, and of the labels, that a pack must know."""
_COVERED = 0.95
"""Share of the texts that the common beginnings must cover together."""
_HEADS = (40, 24, 16, 12, 8, 6)
"""Numbers of characters by which texts are grouped; the largest for which the beginnings cover the texts counts."""
_LONGEST = 40
"""Characters of the beginning by which a task is recognised."""
_MOST_TASKS = 10
_FEWEST_ITEMS = 5
_TASK_ITEMS = 10
"""Fewest items of a task."""
_IMAGES = r"\A\s*(?:(?:Picture\s*\d+\s*[:：]\s*)?<(?:image|video)>\s*)*"


@dataclass
class StarterTask:
    """A task of a new pack."""

    name: str
    recognise: str | None = None
    labels: Counter[str] = field(default_factory=Counter[str])
    label_list: str | None = None
    strip: list[str] = field(default_factory=list[str])


def find_known_pack(items: Sequence[tuple[str, str]], columns: Columns) -> Pack | None:
    """Return the pack under templates/ whose columns are `columns` and which knows the (text, label) of most items."""
    for file in sorted(TEMPLATES.glob("*/pack.yaml")):
        pack = load_pack(file.parent)
        if not pack.free_text and pack.columns == columns:
            known = sum(any(t.recognise is not None and t.recognise.search(text) and label in t.labels
                            for t in pack.tasks.values()) for text, label in items)  # fmt: skip
            if known >= _KNOWN * len(items) > 0:
                return pack
    return None


def group_items(items: Sequence[tuple[str, str]]) -> list[StarterTask]:
    """Group the (text, label) of all items into tasks: texts that begin alike, and beginnings that share labels.

    The last task recognises every item, unless all texts have one of the beginnings. A task has several labels, and
    more items than these: texts that begin with a word that gives their label away are no tasks.
    """
    bare = [re.sub(_IMAGES, "", text) for text, _ in items]
    for length in _HEADS:
        labels: dict[str, Counter[str]] = {}
        texts: dict[str, list[str]] = {}
        for text, (_, label) in zip(bare, items, strict=True):
            labels.setdefault(text[:length], Counter())[label] += 1
            texts.setdefault(text[:length], []).append(text)
        common = sorted(labels, key=lambda head: -len(texts[head]))[:_MOST_TASKS]
        common = [head for head in common if len(texts[head]) >= max(_FEWEST_ITEMS, 0.01 * len(items))]
        if sum(len(texts[head]) for head in common) < _COVERED * len(items):
            continue
        groups = _unite({head: set(labels[head]) for head in common})
        tasks = _make_tasks(groups, texts, labels)
        if len(tasks) > 1 and all(_is_worth_it(task) for task in tasks):
            return tasks
    return [StarterTask("items", None, Counter(label for _, label in items))]


def _is_worth_it(task: StarterTask) -> bool:
    """Return whether a task has labels to choose from, and items to learn them from."""
    return len(task.labels) > 1 and task.labels.total() >= max(_TASK_ITEMS, 2 * len(task.labels))


def _make_tasks(
    groups: Sequence[Sequence[str]], texts: Mapping[str, Sequence[str]], labels: Mapping[str, Counter[str]]
) -> list[StarterTask]:
    tasks: list[StarterTask] = []
    for number, group in enumerate(groups, 1):
        starts = "|".join(re.escape(_find_common_start(texts[head])) for head in group)
        counts = sum((labels[head] for head in group), Counter[str]())
        tasks.append(StarterTask(f"task{number}", f"{_IMAGES}(?:{starts})", counts))
    others = set(labels) - {head for group in groups for head in group}
    if others:
        tasks[-1].recognise = None
        tasks[-1].labels += sum((labels[head] for head in others), Counter[str]())
    return tasks


def _find_common_start(texts: Sequence[str]) -> str:
    """Return the beginning that all texts share, up to a line break and to _LONGEST characters."""
    return find_shared_start(texts)[:_LONGEST].split("\n")[0].rstrip()


def find_shared_start(texts: Sequence[str]) -> str:
    """Return the beginning that all texts share."""
    first, last = min(texts), max(texts)
    return first[: next((i for i, c in enumerate(first) if last[i : i + 1] != c), len(first))]


def _unite(labels: Mapping[str, set[str]]) -> list[list[str]]:
    """Return groups of beginnings; two are in one group if the smaller label set is half contained in the other."""
    groups: list[tuple[list[str], set[str]]] = []
    for head, own in labels.items():
        mine, apart = ([head], own), list[tuple[list[str], set[str]]]()
        for heads, theirs in groups:
            if 2 * len(mine[1] & theirs) >= min(len(mine[1]), len(theirs)):
                mine = (heads + mine[0], mine[1] | theirs)
            else:
                apart.append((heads, theirs))
        groups = [*apart, mine]
    return [heads for heads, _ in groups]
