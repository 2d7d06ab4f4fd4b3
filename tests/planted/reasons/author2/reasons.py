"""A second set of planted reasons: half of them good, half bad in one of six ways, for testing a gate on reasons.

The author of this set had not seen the gate, its word lists, its tests or the first set: only the demo's items, and a
description in words of what a reason must be. Every reason belongs to a demo item with its true label; the same call
gives the same list.
"""

import re
from collections import defaultdict
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from random import Random

from tasks.demo.dataset import NEAR_KINDS, DemoItem, draw_items
from tasks.demo.dialogues import NEAR_INTENTS
from tasks.demo.lessons import convert_to_sample
from tasks.packs.pack import load_pack
from tests.planted.reasons.author2.dialogue_clauses import facts
from tests.planted.reasons.author2.foreign_reasons import BARE, FOREIGN, MORE, SHORT
from tests.planted.reasons.author2.good_reasons import Writer, screen_parts
from tests.planted.reasons.author2.wrong_reasons import EMPTY, FAMILIES, LEAKAGE, OTHER_LABEL, SLIPS
from tests.planted.reasons.counting import EACH, GOOD, BadKind, Planted, jaccard, pairs

SEED = 20_417
MOST = 50
"""Characters a reason may have."""
_NEAR = NEAR_KINDS | NEAR_INTENTS


@dataclass(frozen=True)
class _Bad:
    item: DemoItem
    reason: str
    kind: BadKind
    family: int | None = None


class _Items:
    """Items that are handed out once each."""

    def __init__(self, seed: int) -> None:
        self.rng = Random(f"second items/{seed}")
        self.by_label: dict[str, list[DemoItem]] = defaultdict(list)
        for item in draw_items(2160, seed, prefix="second", image_share=10 / 18):
            self.by_label[item.label].append(item)

    def take(self, label: str | None = None, *, among: Collection[str] = ()) -> DemoItem:
        """An item of the label; without one, of any label, or of any among those."""
        names = [label] if label else [name for name in self.by_label if not among or name in among]
        return self.by_label[self.rng.choice([name for name in names if self.by_label[name]])].pop()


def planted() -> list[Planted]:
    """1,200 reasons in a shuffled order: 600 good ones and 100 of each bad kind."""
    items, pack = _Items(SEED), load_pack("demo")
    bad = [*_alike(items), *_leakage(items), *_other_label(items), *_empty(items), *_language(items), *_length(items)]
    writer, good = Writer(SEED, [b.reason for b in bad]), list[tuple[DemoItem, str]]()
    while len(good) < GOOD:
        item = items.take()
        if (text := writer.write(item)) is not None:
            good.append((item, text))
    every = [Planted(convert_to_sample(item, pack), item.label, text, None) for item, text in good]
    every += [Planted(convert_to_sample(b.item, pack), b.item.label, b.reason, b.kind, b.family) for b in bad]
    Random(f"second order/{SEED}").shuffle(every)
    return every


def _seen(item: DemoItem, rng: Random) -> str:
    """A short true clause about the item."""
    if item.task == "image":
        return min((filled for _, filled in screen_parts(item, rng)), key=len)
    said = facts(item)
    words, thing = said["words"], said.get("thing", "")
    wordings = ["用户说“{}”", "话里有“{}”", "末尾提到“{}”", "买家提“{}”", "原话是“{}”", "对话中出现“{}”", "客人讲“{}”"]
    return (f"说{thing}时" if thing and rng.random() < 0.4 else "") + rng.choice(wordings).format(words)


def _leakage(items: _Items) -> Iterator[_Bad]:
    lines = LEAKAGE.split("\n")[1:-1]
    for line in lines[:EACH]:
        item = items.take()
        yield _Bad(item, line.format(label=item.label, seen=_seen(item, items.rng)), BadKind.LEAKAGE)


def _other_label(items: _Items) -> Iterator[_Bad]:
    lines = OTHER_LABEL.split("\n")[1:-1]
    for i in range(EACH):
        item = items.take()
        near = items.rng.random() < 0.7
        listed = (*_NEAR[item.label],) if near else (*(NEAR_KINDS if item.task == "image" else NEAR_INTENTS),)
        other = items.rng.choice([name for name in listed if name != item.label])
        text = lines[i % len(lines)].format(label=item.label, other=other, seen=_seen(item, items.rng))
        yield _Bad(item, text, BadKind.OTHER_LABEL)


def _empty(items: _Items) -> Iterator[_Bad]:
    for line in items.rng.sample(EMPTY.split(), EACH):
        # what speaks of a talk stands with a talk, what speaks of a picture with a picture
        talk, picture = (
            re.search("对话|用户|客|语气|语义|说法|意图|原文|上下文|最后一句", line),
            re.search("图|画面|页|界面|视觉|观", line),
        )
        item = items.take(among=NEAR_INTENTS if talk else NEAR_KINDS if picture else ())
        yield _Bad(item, line.format(label=item.label), BadKind.EMPTY)


def _language(items: _Items) -> Iterator[_Bad]:
    lines = [(label, line) for label, text in FOREIGN.items() for line in text.strip().split("\n")]
    lines += [(items.rng.choice(list(FOREIGN)), line) for line in MORE.strip().split("\n")]
    for label, line in lines[:EACH]:
        yield _Bad(items.take(label), line, BadKind.LANGUAGE)


def _length(items: _Items) -> Iterator[_Bad]:
    short = SHORT.split()
    for i in range(EACH):
        item = items.take()
        if i < len(short):
            text = short[i]
        elif i < 50:
            text = BARE[i % len(BARE)].format(item.label)
        else:
            text = _long(item, MOST + 1 + (i - 50) // 2, items.rng)
        yield _Bad(item, text, BadKind.LENGTH)


def _long(item: DemoItem, least: int, rng: Random) -> str:
    """What is seen, told at such length that it has at least so many characters."""
    text = rng.choice(["仔细看，", "从头到尾看：", "先看主要的，", "依次是", "", "所见有"]) + item.reason
    more = [
        "、".join(["这些都在眼前", "逐一核对过"]),
        "旁的内容很少",
        "前后也对得上",
        "因此可以这样认定",
        f"整体上合乎{item.label}",
    ]
    rng.shuffle(more)
    for part in [_seen(item, rng), *more]:
        if len(text) < least:
            text += f"，{part}"
    return text


def _alike(items: _Items) -> Iterator[_Bad]:
    for family, (label, (size, (sentence, pattern))) in enumerate(FAMILIES.items()):
        texts = set[str]()
        while len(texts) < size:
            item = items.take(label)
            text = _filled(item, sentence, pattern)
            word, instead = SLIPS[len(texts) % len(SLIPS)]
            if text and family % 2:
                text = text.replace(word, instead, 1)
            own = pairs(text or "")
            if text and len(text) <= MOST and text not in texts and all(jaccard(own, pairs(t)) >= 0.55 for t in texts):
                texts.add(text)
                yield _Bad(item, text, BadKind.ALIKE, family)


def _filled(item: DemoItem, sentence: str, pattern: str) -> str | None:
    if item.task == "dialogue":
        said = facts(item)
        return sentence.format(said["words"], said["thing"]) if "thing" in said and said["words"] in _USUAL else None
    match = re.search(pattern, item.reason)
    return sentence.format(*match.groups()) if match else None


_USUAL = ("什么时候发", "多大", "选什么码", "不想要了", "坏了", "裂了", "有券", "能便宜", "到哪了", "哪家快递")
"""Quoted words that fit into a family's sentence."""
