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
_HEAD = 12
_LONGEST = 40
"""Characters of a beginning by which texts are grouped, and by which a task is recognised."""
_MOST_TASKS = 10
_FEWEST_ITEMS = 5
_IMAGES = r"\A\s*(?:(?:Picture\s*\d+\s*[:：]\s*)?<image>\s*)*"


@dataclass
class StarterTask:
    """A task of a new pack."""

    name: str
    recognise: str | None = None
    labels: Counter[str] = field(default_factory=Counter[str])


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

    The last task recognises every item, unless all texts have one of the beginnings.
    """
    bare = [re.sub(_IMAGES, "", text) for text, _ in items]
    heads = Counter(text[:_HEAD] for text in bare)
    common = [head for head, n in heads.most_common(_MOST_TASKS) if n >= max(_FEWEST_ITEMS, 0.01 * len(items))]
    covered = sum(heads[head] for head in common)
    labels = {head: Counter[str]() for head in common}
    for text, (_, label) in zip(bare, items, strict=True):
        if text[:_HEAD] in labels:
            labels[text[:_HEAD]][label] += 1
    groups = _unite(labels) if covered >= _COVERED * len(items) else []
    if len(groups) < 2:
        return [StarterTask("items", None, Counter(label for _, label in items))]
    tasks: list[StarterTask] = []
    for number, group in enumerate(groups, 1):
        starts = [_find_common_start([t for t in bare if t[:_HEAD] == head]) for head in group]
        counts = sum((labels[head] for head in group), Counter[str]())
        tasks.append(StarterTask(f"task{number}", f"{_IMAGES}(?:{'|'.join(map(re.escape, starts))})", counts))
    if covered < len(items):
        tasks[-1].recognise = None
        tasks[-1].labels += Counter(label for t, (_, label) in zip(bare, items, strict=True) if t[:_HEAD] not in labels)
    return tasks


def _find_common_start(texts: Sequence[str]) -> str:
    """Return the beginning that all texts share, up to a line break and to _LONGEST characters."""
    first, last = min(texts), max(texts)
    same = next((i for i, c in enumerate(first) if last[i : i + 1] != c), len(first))
    return first[: min(same, _LONGEST)].split("\n")[0].rstrip()


def _unite(labels: Mapping[str, Counter[str]]) -> list[list[str]]:
    """Return groups of beginnings; two are in one group if the smaller label set is half contained in the other."""
    groups: list[tuple[list[str], set[str]]] = []
    for head, counts in labels.items():
        mine, apart = ([head], set(counts)), list[tuple[list[str], set[str]]]()
        for heads, theirs in groups:
            if 2 * len(mine[1] & theirs) >= min(len(mine[1]), len(theirs)):
                mine = (heads + mine[0], mine[1] | theirs)
            else:
                apart.append((heads, theirs))
        groups = [*apart, mine]
    return [heads for heads, _ in groups]
