"""A third set of planted reasons: 600 good ones and 100 of each bad kind, every one about a drawn item of the demo.

It is test data for what refuses reasons. Its author had not seen the gate, its lists of words or the two sets before.
"""

import functools
import re
from collections import Counter, defaultdict
from random import Random

from tasks.demo.dataset import DIALOGUE_LABELS, IMAGE_LABELS, NEAR_KINDS, DemoItem, draw_items
from tasks.demo.dialogues import NEAR_INTENTS
from tasks.demo.lessons import convert_to_sample
from tasks.demo.screens import draw_screen
from tasks.packs.pack import Pack, load_pack
from tests.planted.reasons.author3.dialogue_clauses import PLAIN, QUOTES, WANTS
from tests.planted.reasons.author3.foreign_reasons import ENGLISH, JAPANESE, KOREAN, MIXED
from tests.planted.reasons.author3.good_reasons_that_look_bad import TRICKY
from tests.planted.reasons.author3.item_details import clauses_of, fields_of, filled
from tests.planted.reasons.author3.screen_clauses import CLAUSES
from tests.planted.reasons.author3.wrong_reasons import EMPTY, FAMILIES, LEAKAGE, OTHER, SHORT
from tests.planted.reasons.counting import EACH, GOOD, BadKind, Planted, jaccard, pairs

_NEAR = NEAR_KINDS | NEAR_INTENTS
_LABELS = (*IMAGE_LABELS, *DIALOGUE_LABELS)


class _Author:
    """Hands out items of a label, each once, and words what they show; it never words two alike."""

    def __init__(self, pack: Pack, seed: int) -> None:
        self.pack, self.rng = pack, Random(seed)
        self.marks: dict[str, str] = {}
        self.items: dict[str, list[DemoItem]] = defaultdict(list)
        for i, item in enumerate(draw_items(1500, seed, prefix="third")):
            self.items[item.label].append(item)
            if item.task == "image":
                # drawn once more: an item's own reason leaves out some of its marks
                screen = draw_screen(item.label, Random(f"{seed}/{i}"))
                self.marks[item.id] = "，".join(screen.marks + screen.notes)
        self.said: list[frozenset[str]] = []
        self.used: Counter[str] = Counter()

    def turn(self, i: int) -> str:
        """The labels one after the other."""
        return _LABELS[i % len(_LABELS)]

    def fields(self, item: DemoItem) -> dict[str, str]:
        return fields_of(item, self.marks.get(item.id, ""))

    def planted(self, item: DemoItem, reason: str, kind: BadKind | None, family: int | None = None) -> Planted:
        return Planted(convert_to_sample(item, self.pack), item.label, reason, kind, family)

    def shown(self, item: DemoItem) -> list[tuple[str, str]]:
        """What may be said of an item, in shuffled order; of a dialogue, a quote comes first."""
        fields = self.fields(item)
        text = CLAUSES[item.label] if item.task == "image" else WANTS[item.label]
        clauses = list(filled(clauses_of(text), fields))
        self.rng.shuffle(clauses)
        # clauses that quote a detail tell more than the others
        clauses.sort(key=lambda clause: self.used[clause[0]] + 2 * ("{" not in clause[0]))
        if item.task == "dialogue":
            quotes = list(filled(clauses_of(QUOTES), fields))
            self.rng.shuffle(quotes)
            quotes.sort(key=lambda quote: self.used[quote[0]])
            return [quotes[0], *clauses]
        return clauses

    def detail(self, item: DemoItem, most: int) -> str:
        """One thing that an item shows, in at most so many characters where there is one so short."""
        text = PLAIN if item.task == "dialogue" else CLAUSES[item.label]
        told = list(filled(clauses_of(text), self.fields(item)))
        self.rng.shuffle(told)
        told.sort(key=lambda one: ("{" not in one[0]) + ("，" in one[0]) + self.rng.random())
        return next((text for _, text in told if len(text) <= most), min((t for _, t in told), key=len))

    def fresh(self, text: str) -> bool:
        """Whether a text is unlike all good ones; then it is one of them."""
        mine = pairs(text)
        if len(text) > 46 or any(jaccard(mine, other) > 0.42 for other in self.said):
            return False
        self.said.append(mine)
        return True

    def tricky(self, label: str, form: str) -> Planted:
        for item in self.items[label]:
            for _, text in filled([form], self.fields(item)):
                if self.fresh(text):
                    self.items[label].remove(item)
                    return self.planted(item, text, None)
        raise AssertionError(form)

    def good(self, label: str) -> Planted:
        """A reason that is unlike all before; an item of which none can be worded goes to the end of the row."""
        lines = (CLAUSES | WANTS)[label].splitlines()
        for _ in range(len(self.items[label])):
            item = self.items[label].pop()
            for _ in range(40):
                # no two clauses of a line, which are about the same thing
                chosen: dict[int, tuple[str, str]] = {}
                for form, text in self.shown(item)[:12]:
                    about = next((i for i, line in enumerate(lines) if form in line), -1)
                    if self.rng.random() < 0.5 or (about < 0 and not chosen):
                        chosen.setdefault(about, (form, text))
                parts = list(chosen.values())[: self.rng.choice([2, 2, 2, 3])]
                if len(parts) < 2 or any(self.used[form] >= 8 for form, _ in parts):
                    continue
                if len(parts) == 2 and self.rng.random() < 0.4:
                    parts.reverse()
                joint = self.rng.choice("，，，，；。")
                text = joint.join(text for _, text in parts) + ("。" if joint == "。" else "")
                if self.fresh(text):
                    self.used.update(form for form, _ in parts)
                    return self.planted(item, text, None)
            self.items[label].insert(0, item)
        raise AssertionError(f"{label}: nothing new can be said")

    # --- bad ones --------------------------------------------------------------------------------------------

    def leakage(self, i: int) -> Planted:
        item = self.items[self.turn(i)].pop()
        form = LEAKAGE[i % len(LEAKAGE)]
        room = 49 - len(form.format(m="", l=item.label))
        return self.planted(item, form.format(m=self.detail(item, min(room, 22)), l=item.label), BadKind.LEAKAGE)

    def other_label(self, i: int) -> Planted:
        item = self.items[self.turn(i)].pop()
        whole = IMAGE_LABELS if item.task == "image" else DIALOGUE_LABELS
        far = [name for name in whole if name != item.label]
        other = self.rng.choice(_NEAR[item.label] if self.rng.random() < 0.6 else far)
        form = OTHER[i % len(OTHER)]
        room = 49 - len(form.format(m="", l=item.label, o=other))
        reason = form.format(m=self.detail(item, min(room, 20)), l=item.label, o=other)
        return self.planted(item, reason, BadKind.OTHER_LABEL)

    def empty(self, i: int) -> Planted:
        """Words about a picture go to one, words about a customer to a dialogue."""
        labels = _LABELS
        if re.search("[图页画]|界面|布局|视觉", EMPTY[i]):
            labels = IMAGE_LABELS
        elif re.search("对话|用户|客户|语|诉求|对方", EMPTY[i]):
            labels = DIALOGUE_LABELS
        return self.planted(self.items[labels[i % len(labels)]].pop(), EMPTY[i], BadKind.EMPTY)

    def foreign(self, i: int) -> Planted:
        label, text = (*ENGLISH, *JAPANESE, *KOREAN, *MIXED)[i]
        fitting = [item for item in self.items[label] if any(filled([text], self.fields(item)))]
        item = fitting[-1]
        self.items[label].remove(item)
        return self.planted(item, next(filled([text], self.fields(item)))[1], BadKind.LANGUAGE)

    def length(self, i: int) -> Planted:
        item = self.items[self.turn(i)].pop()
        if i >= 50:
            return self.planted(item, SHORT[i - 50].format(l=item.label), BadKind.LENGTH)
        most = self.rng.randint(51, 80)
        text = ""
        for _, clause in self.shown(item):
            text = f"{text}，{clause}" if text else clause
            if len(text) >= most:
                break
        assert len(text) > 50, text
        return self.planted(item, text, BadKind.LENGTH)

    def family(self, number: int) -> list[Planted]:
        """The items of a family, each with its own words in the same sentence."""
        label, forms, size = FAMILIES[number]
        mine: list[Planted] = []
        seen: set[str] = set()
        for item in list(self.items[label]):
            form = forms[len(mine) % len(forms)]
            texts = [text for _, text in filled([form], self.fields(item))]
            if texts and texts[0] not in seen and len(mine) < size:
                seen.add(texts[0])
                self.items[label].remove(item)
                mine.append(self.planted(item, texts[0], BadKind.ALIKE, number))
        assert len(mine) == size, (label, len(mine))
        return mine


@functools.cache
def _all() -> tuple[Planted, ...]:
    author = _Author(load_pack("demo"), 30_303)
    out = [one for number in range(len(FAMILIES)) for one in author.family(number)]
    out += [author.foreign(i) for i in range(EACH)]
    tricky = [author.tricky(label, form) for label, form in TRICKY]
    out += tricky + [author.good(author.turn(i)) for i in range(GOOD - len(tricky))]
    for make in (author.leakage, author.other_label, author.length):
        out += [make(i) for i in range(EACH)]
    out += [author.empty(i) for i in range(EACH)]
    author.rng.shuffle(out)
    return tuple(out)


def planted() -> list[Planted]:
    """The 1,200 items, shuffled; always the same."""
    return list(_all())
