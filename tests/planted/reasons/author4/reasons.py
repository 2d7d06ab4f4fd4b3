"""Planted reasons for the demo's items: 600 bad ones of six kinds and 600 good ones.

Their author had not seen the gate that is to tell them apart, nor any other set of planted reasons. The items are
drawn by the demo; every good reason names what its own item shows or says.
"""

import functools
import re
from collections import Counter, defaultdict
from random import Random

from tasks.demo import dialogues
from tasks.demo.dataset import DIALOGUE_LABELS, IMAGE_LABELS, NEAR_KINDS, DemoItem, draw_items
from tasks.demo.dialogues import NEAR_INTENTS
from tasks.demo.lessons import convert_to_sample
from tasks.demo.screens import draw_screen
from tasks.packs.pack import load_pack
from tasks.records import Sample
from tests.planted.reasons.author4.foreign_reasons import COLOURS, KINDS
from tests.planted.reasons.author4.good_reasons import Seen, good_reasons, phrase
from tests.planted.reasons.author4.near_duplicates import FAMILIES, SWAPS, VALUES
from tests.planted.reasons.author4.phrases import ASKS, MARKS, NOTES
from tests.planted.reasons.author4.wrong_reasons import EMPTY, LEAKAGE, OTHER, SHORT
from tests.planted.reasons.counting import EACH, BadKind, Planted

SEED = 20_411
DRAWN = 1500
_TOPICS = ["发货", "大小", "料子", "退钱", "坏了", "活动", "快递", "用法"]
_NEAR = NEAR_KINDS | NEAR_INTENTS


def _seen(item: DemoItem, i: int) -> Seen:
    """What the i-th drawn item shows, drawn once more from its own generator."""
    rng = Random(f"{SEED}/{i}")
    if item.task == "image":
        screen = draw_screen(item.label, rng)
        return Seen(item.label, marks=screen.marks, notes=screen.notes)
    talk = dialogues.compose(item.label, rng)
    said = [turn.removeprefix("用户: ") for turn in talk.turns if turn.startswith("用户")]
    last = next(text for text in reversed(said) if all(word in text for word in talk.late))
    topic = next((t for t in _TOPICS if last.find(f"{t}的事先不说") >= 0), "")
    core = re.sub("^(对了，|那|请问|麻烦问下，|还有，)?(.{2}的事先不说，)?", "", last)
    after = said[said.index(last) + 1 :]
    return Seen(
        item.label,
        said=core,
        quoted=talk.late[-1] if len(talk.late[-1]) > 1 else talk.late[0],
        article=talk.article,
        early=talk.early[0] if talk.early else "",
        topic=topic,
        turns=len(talk.turns),
        images=len(talk.screens),
        tail=next((t for t in after if "<image>" not in t and t != "？"), ""),
        greeted=said[0] in dialogues._HELLO,
        last=not after or (not talk.early and all("<image>" in t for t in after)),
    )


def _detail(seen: Seen, rng: Random) -> str:
    """One true thing of an item, in a few words."""
    if seen.marks:
        return phrase(rng.choice(seen.marks), MARKS, rng)[0]
    ask = rng.choice(ASKS[seen.label].split("|")).replace("{p}", seen.article or "它")
    return rng.choice([f"用户说“{seen.said}”", f"话里有“{seen.quoted}”", f"用户{ask}", f"末句提“{seen.quoted}”"])


def _other(label: str, rng: Random) -> str:
    whole = IMAGE_LABELS if label in IMAGE_LABELS else DIALOGUE_LABELS
    near = _NEAR[label]
    return rng.choice(near) if rng.random() < 0.6 else rng.choice([name for name in whole if name != label])


def _foreign(seen: Seen, rng: Random) -> str:
    colour = next((m[0] for m in (re.search("[红橙黄绿青蓝紫粉](?=色)", t) for t in seen.marks) if m), "红")
    english, kana, hangul = COLOURS[colour]
    text = rng.choice(KINDS[seen.label].split("|")).format(c=english, k=kana, h=hangul)
    if seen.label in IMAGE_LABELS or rng.random() < 0.5:
        return text
    return text + ("." if text.isascii() else "") if rng.random() < 0.5 else f"{text} ({seen.turns})"


def _long(seen: Seen, rng: Random) -> str:
    """Over 50 characters, all true."""
    least = rng.choice([51, 51, 52, 54, 60, 70])
    if seen.marks:
        parts = [phrase(mark, MARKS, rng)[0] for mark in seen.marks] + [phrase(n, NOTES, rng)[0] for n in seen.notes]
        while len("，".join(parts)) < least:
            again = phrase(rng.choice(seen.marks), MARKS, rng)[0]
            parts += [] if again in parts else [again]
        while len("，".join(parts[:-1])) >= least:
            parts.pop()
        return "，".join(parts)
    ask = rng.choice(ASKS[seen.label].split("|")).replace("{p}", seen.article or "它")
    more = [
        f"，整段对话一共有{seen.turns}轮来回",
        f"，期间一共发来了{seen.images}张图片",
        f"，而且其中清楚地出现了“{seen.quoted}”这样的说法",
        f"，可以看出用户{ask}",
        "，他还在等着客服给一个明确的答复",
        "，客服那边暂时没有更多的说明",
    ]
    rng.shuffle(more)
    text = f"用户的原话是“{seen.said}”"
    for words in more:
        text += words if len(text) < least else ""
    return text


def _short(seen: Seen, rng: Random, n: int) -> str:
    label = seen.label
    ways = [
        label,
        f"{label}。",
        f"“{label}”",
        f"是{label}",
        f"属于{label}",
        f"{label}！",
        f"这是{label}。",
        f"类别：{label}",
    ]
    if n % 2:
        return ways[n // 2 % len(ways)]
    return rng.choice(SHORT[label].split())


def _alike(items: dict[str, Seen], rng: Random) -> dict[str, tuple[str, int]]:
    """Sixteen families, 100 reasons in all; by id."""
    sizes = [6, 7, 6, 6, 7, 5, 8, 5, 6, 7, 6, 6, 5, 7, 6, 7]
    chosen: dict[str, tuple[str, int]] = {}
    for family, ((label, sentence), size) in enumerate(zip(FAMILIES, sizes, strict=True)):
        pattern = next((p for start, p in VALUES.items() if sentence.startswith(start)), "")
        mine: list[tuple[str, str]] = []
        for ident, seen in items.items():
            if seen.label != label or ident in chosen:
                continue
            found = next((m for m in (re.fullmatch(pattern, mark) for mark in seen.marks) if m), None)
            value = next((g for g in found.groups() if g), "") if found else seen.quoted
            if value and sum(v == value for _, v in mine) < (4 if label == "评价页" else 3 if seen.quoted else 2):
                mine.append((ident, value))
        for n, (ident, value) in enumerate(mine[:size]):
            text = sentence.format(v=value)
            if n == 2:
                old, new = rng.choice([pair for pair in SWAPS if pair[0] in text])
                text = text.replace(old, new, 1)
            chosen[ident] = (text, family)
    return chosen


def _spread(ids: list[str], items: dict[str, Seen], n: int) -> list[str]:
    """n of the ids, the labels in turn; they are taken out of `ids`."""
    by_label: defaultdict[str, list[str]] = defaultdict(list)
    for ident in ids:
        by_label[items[ident].label].append(ident)
    taken: list[str] = []
    while len(taken) < n:
        for of_label in by_label.values():
            if of_label and len(taken) < n:
                taken.append(of_label.pop(0))
    gone = set(taken)
    ids[:] = [ident for ident in ids if ident not in gone]
    return taken


def _bad(kind: BadKind, seen: Seen, n: int, rng: Random) -> str:
    if kind is BadKind.EMPTY:
        return EMPTY[n]
    if kind is BadKind.LENGTH:
        return _long(seen, rng) if n < EACH // 2 else _short(seen, rng, n)
    if kind is BadKind.LANGUAGE:
        return _foreign(seen, rng)
    ways = LEAKAGE if kind is BadKind.LEAKAGE else OTHER
    other = _other(seen.label, rng)
    while True:
        more = "，{d}" if n >= len(ways) and "{d}" not in ways[n % len(ways)] else ""
        text = (ways[n % len(ways)] + more).format(d=_detail(seen, rng), l=seen.label, o=other)
        if len(text) <= 50:
            return text


@functools.cache
def _all() -> tuple[Planted, ...]:
    rng = Random(SEED)
    pack = load_pack("demo")
    samples: dict[str, Sample] = {}
    items: dict[str, Seen] = {}
    for i, item in enumerate(draw_items(DRAWN, SEED, prefix="fourth")):
        samples[item.id], items[item.id] = convert_to_sample(item, pack), _seen(item, i)
    alike = _alike(items, rng)
    quota = dict.fromkeys(IMAGE_LABELS, 33) | dict.fromkeys(DIALOGUE_LABELS, 34)
    quota["询问尺码"] -= 2
    good = good_reasons([(ident, seen) for ident, seen in items.items() if ident not in alike], quota, rng)
    chosen: dict[str, tuple[str, BadKind | None, int | None]] = {
        ident: (text, None, None) for ident, text in good.items()
    }
    chosen |= {ident: (text, BadKind.ALIKE, family) for ident, (text, family) in alike.items()}
    ids = [ident for ident in items if ident not in chosen]
    seen_texts: Counter[str] = Counter()
    for kind in (BadKind.LEAKAGE, BadKind.OTHER_LABEL, BadKind.EMPTY, BadKind.LANGUAGE, BadKind.LENGTH):
        for n, ident in enumerate(_spread(ids, items, EACH)):
            for _ in range(50):
                text = _bad(kind, items[ident], n, rng)
                if not seen_texts[text]:
                    break
            seen_texts[text] += 1
            chosen[ident] = (text, kind, None)
    order = sorted(chosen)
    rng.shuffle(order)
    return tuple(
        Planted(samples[ident], items[ident].label, text, kind, family)
        for ident in order
        for text, kind, family in [chosen[ident]]
    )


def planted() -> list[Planted]:
    """1,200 planted reasons, in a shuffled order that is always the same."""
    return list(_all())
