"""Good reasons: each puts together hand-written clauses about its own item, none near another."""

import re
from collections import Counter
from random import Random

from tasks.demo.dataset import DemoItem
from tests.planted.reasons.author2.dialogue_clauses import around, cores, facts
from tests.planted.reasons.author2.screen_clauses import JOINERS, OPENINGS, clauses
from tests.planted.reasons.counting import jaccard, pairs

MOST_ALIKE = 0.42
"""The highest Jaccard index of character pairs between two good reasons."""
MOST_USES = 8
"""How often a clause, and thus any shape, may be used."""
_CLOSINGS = ("，故为{label}", "，应是{label}", "，合{label}的样子", "——{label}无疑", "，正是{label}")


def screen_parts(item: DemoItem, rng: Random) -> list[tuple[str, str]]:
    """Two or three clauses about a screen, each with its wording before it was filled; the label's own marks first."""
    found = [(m, texts) for pattern, texts in clauses(item.label) if (m := re.search(pattern, item.reason))]
    own = [f for f in found if f[1] in [texts for _, texts in clauses(item.label)[:-3]]]
    few = rng.sample(own, min(len(own), rng.choice([1, 2, 2, 3])))
    rest = [f for f in found if f not in few]
    while rest and (len(few) < 2 or (len(few) == 2 and rng.random() < 0.3)):
        few.append(rest.pop(rng.randrange(len(rest))))
    rng.shuffle(few)
    return [(wording, wording.format(*m.groups())) for m, texts in few for wording in [rng.choice(texts)]]


def talk_parts(item: DemoItem, rng: Random) -> list[tuple[str, str]]:
    """A core about what decides the intent and one to two clauses about what stands around it."""
    found = facts(item)
    core = rng.choice([c for c in cores(item.label) if "thing" in found or "{p}" not in c])
    parts = [(core, core.format(w=found["words"], p=found.get("thing", "")))]
    others = [a for a in around(item) if not (a[0] == "thing" and "{p}" in core)]
    for _, words, texts in rng.sample(others, min(len(others), rng.choice([1, 1, 2, 2, 3]))):
        wording = rng.choice(texts)
        parts.insert(rng.choice([0, len(parts)]), (wording, wording.format(x=words)))
    return parts


class Writer:
    """Writes good reasons, none of which comes near another or near what it was told to keep away from."""

    def __init__(self, seed: int, apart_from: list[str]) -> None:
        self.rng = Random(f"second reasons/{seed}")
        self.used: Counter[str] = Counter()
        self.known = [pairs(text) for text in apart_from]

    def write(self, item: DemoItem, tries: int = 40) -> str | None:
        """A reason for the item; None where none was found that is far enough from all others."""
        for _ in range(tries):
            parts = (screen_parts if item.task == "image" else talk_parts)(item, self.rng)
            if any(self.used[wording] >= MOST_USES for wording, _ in parts):
                continue
            text = self._join([filled for _, filled in parts], item)
            own = pairs(text)
            if not 8 <= len(text) <= 50 or any(jaccard(own, other) > MOST_ALIKE for other in self.known):
                continue
            self.used.update(wording for wording, _ in parts)
            self.known.append(own)
            return text
        return None

    def _join(self, parts: list[str], item: DemoItem) -> str:
        text = parts[0]
        for part in parts[1:]:
            text += (self.rng.choice(JOINERS) if item.task == "image" else self.rng.choice("，，，；。")) + part
        if item.task == "image" and self.rng.random() < 0.25:
            text = self.rng.choice(OPENINGS) + text
        if self.rng.random() < 0.06:
            text += self.rng.choice(_CLOSINGS).format(label=item.label)
        return text + ("。" if self.rng.random() < 0.3 else "")
