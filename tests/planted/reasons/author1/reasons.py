"""Planted reasons, 600 good and 600 bad ones of six kinds, written without sight of the gate that is to judge them.

How a test uses them: all 1,200 of `planted()` are given to the gate as one set, under the demo's pack (limit 50
characters, language zh). A bad one counts as caught when it is refused for whatever cause. An alike one is only bad
beside its kin: of each `family` one may stay, all the others must be refused. `counting.judge` counts both
ways of being wrong.

Reasons of screens tell what a real screen might show: the images are references without a file. Dialogues stand whole
in the samples, and a reason repeats what is said in its own one.

But within a family no two reasons of `planted()` share more than 40 % of their character pairs (Jaccard), so that
nothing but the fault itself gives a bad one away; exempt are the foreign ones, and the bare and restated labels.
"""

from collections.abc import Iterator, Sequence
from hashlib import sha256
from random import Random

from tasks.demo.dataset import DIALOGUE_LABELS, IMAGE_LABELS
from tasks.items.cutting import PLACEHOLDER, cut_instruction
from tasks.media import ImageRef
from tasks.packs.pack import load_pack
from tasks.records import Sample, Split
from tests.planted.reasons.author1.near_duplicates import BARE, FAMILIES, FOREIGN, RESTATED, SWAPS, TRICKY
from tests.planted.reasons.author1.sentence_parts import AROUND, SAID, SCREENS, SLOTS
from tests.planted.reasons.author1.wrong_reasons import EMPTY_CLOSINGS, EMPTY_OPENINGS, LEAKS, OTHERS
from tests.planted.reasons.counting import EACH, GOOD, BadKind, Planted, jaccard, pairs

SEED = 20240611
LIMIT = 50
"""Characters, of the pack."""
ALIKE = 0.4
"""Jaccard of character pairs that no two reasons of different families exceed."""

LABELS = (*IMAGE_LABELS, *DIALOGUE_LABELS)


def planted() -> list[Planted]:
    """All 1,200 in a mixed order, the same on every call; the samples' ids are unique and tell nothing."""
    maker = _Maker()
    made = [*maker.alike(), *maker.tricky(), *maker.wrong(), *maker.good(GOOD - len(TRICKY))]
    maker.rng.shuffle(made)
    return made


def _digest(text: str) -> str:
    return sha256(text.encode()).hexdigest()


class _Maker:
    """Composes reasons with their items, and remembers them so that none comes near another."""

    def __init__(self) -> None:
        self.rng = Random(SEED)
        self.pack = load_pack("demo")
        self.known: list[frozenset[str]] = []
        self.made = 0

    # --- the kinds

    def alike(self) -> Iterator[Planted]:
        for number, family in enumerate(FAMILIES):
            seen: set[str] = set()
            while len(seen) < family.size:
                slots = self._slots()
                reason = family.reason.format(**slots)
                old, new = self.rng.choice(SWAPS)
                reason = reason.replace(old, new, 1) if self.rng.random() < 0.4 else reason
                if reason in seen:
                    continue
                seen.add(reason)
                turns = [family.said.format(**slots)] if family.said else []
                yield self._planted(family.label, turns, reason, BadKind.ALIKE, number)
            self.known += [pairs(reason) for reason in seen]

    def tricky(self) -> Iterator[Planted]:
        for label, said, reason in TRICKY:
            assert self._is_new(reason), reason
            yield self._planted(label, said.split("/") if said else [], reason, None)

    def wrong(self) -> Iterator[Planted]:
        yield from self._templates(LEAKS, BadKind.LEAKAGE)
        yield from self._templates(OTHERS, BadKind.OTHER_LABEL)
        yield from self._templates(
            [f"{a}，{b}" for a in EMPTY_OPENINGS for b in self.rng.sample(EMPTY_CLOSINGS, 12)], BadKind.EMPTY
        )
        for label, reason in FOREIGN:
            yield self._planted(label, self._seen(label, 2)[0], reason, BadKind.LANGUAGE)
        for i, text in enumerate((*BARE, *RESTATED)):
            label = LABELS[i % len(LABELS)]
            yield self._planted(label, self._seen(label, 2)[0], text.format(l=label), BadKind.LENGTH)
        long = ("{a}，{b}，{e}，{f}，{x}，{y}", "{x}，{a}，{b}，{e}，{y}", "{b}，{e}，{x}；另外{a}，{f}")
        for i in range(EACH - len(BARE) - len(RESTATED)):
            yield self._new(LABELS[i % len(LABELS)], BadKind.LENGTH, long)

    def good(self, n: int) -> Iterator[Planted]:
        """Two or three things seen in the very item; now and then only one."""
        screen = ("{a}，{b}", "{a}，{b}，{x}", "图中{a}，{b}", "{a}；{b}", "{x}，{a}，{b}", "可见{b}，而且{a}", "{a}")
        talk = (
            "{x}，{a}",
            "{a}，{x}",
            "{x}，随后{a}",
            "末句{a}，{x}",
            "{x}，接着{a}",
            "用户说“{u}”，{x}",
            "{a}，{b}",
            "{a}",
        )
        for i in range(n):
            label = LABELS[i % len(LABELS)]
            yield self._new(label, None, screen if label in IMAGE_LABELS else talk)

    # --- one reason

    def _templates(self, texts: Sequence[str], kind: BadKind) -> Iterator[Planted]:
        """A hundred of them, every template used before one is used again."""
        queue = [text for _ in range(EACH) for text in self.rng.sample(texts, len(texts))]
        for i in range(EACH):
            label = LABELS[i % len(LABELS)]
            yield self._new(label, kind, queue[i : i + 1] if kind is not BadKind.EMPTY else texts)

    def _new(self, label: str, kind: BadKind | None, templates: Sequence[str]) -> Planted:
        long = kind is BadKind.LENGTH
        for _ in range(500):
            turns, seen = self._seen(label, 4 if long else 2)
            reason = self.rng.choice(templates).format(l=label, o=self._other(label), **seen)
            if (len(reason) > LIMIT) == long and len(reason) >= 6 and self._is_new(reason):
                return self._planted(label, turns, reason, kind)
        raise AssertionError(f"{label}, {kind}: too few parts for {templates[0]}")

    def _seen(self, label: str, n: int) -> tuple[list[str], dict[str, str]]:
        """The turns of an item and what can be said of it: the first n of abef tell the label, x and y do not."""
        slots = self._slots()
        if label in IMAGE_LABELS:
            around = AROUND if label == "实物照片" else SCREENS[""]
            turns, seen = [], self.rng.sample(SCREENS[label], n) + self.rng.sample(around, 2)
        else:
            late, early = self.rng.sample(SAID[label], n), self.rng.sample(SAID[""], 2)
            turns = [turn for turn, _ in early] + [f"用户: {said[0]}" for said in reversed(late)]
            seen = [self.rng.choice(said[1:]) for said in late] + [taken for _, taken in early] + [late[0][0]]
        parts = dict(zip((*"abef"[:n], *"xyu"), seen, strict=False))
        return [turn.format(**slots) for turn in turns], {name: text.format(**slots) for name, text in parts.items()}

    def _other(self, label: str) -> str:
        offered = IMAGE_LABELS if label in IMAGE_LABELS else DIALOGUE_LABELS
        return self.rng.choice([name for name in offered if name != label])

    def _slots(self) -> dict[str, str]:
        return {name: self.rng.choice(values) for name, values in SLOTS.items()}

    def _is_new(self, reason: str) -> bool:
        found = pairs(reason)
        if any(jaccard(found, other) > ALIKE for other in self.known):
            return False
        self.known.append(found)
        return True

    # --- its item

    def _planted(
        self, label: str, turns: Sequence[str], reason: str, kind: BadKind | None, family: int | None = None
    ) -> Planted:
        self.made += 1
        return Planted(self._sample(label, turns), label, reason, kind, family)

    def _sample(self, label: str, turns: Sequence[str]) -> Sample:
        name = "dialogue" if turns else "image"
        task, ident = self.pack.task(name), _digest(f"{SEED}/{self.made}")
        instruction = "\n".join(turns) if turns else "<image>"
        content = cut_instruction(instruction, task)
        images = [
            ImageRef(path=f"memory:{ident[:8]}-{i}", sha256=_digest(f"{ident}/{i}"), width=540, height=960)
            for i in range(content.count_slots(PLACEHOLDER))
        ]
        return Sample(
            id=f"item-{ident[:10]}",
            task=name,
            parts=content.parts(images),
            labels=tuple(task.labels),
            given=label,
            split=Split.LABELLED,
            source="memory",
        )
