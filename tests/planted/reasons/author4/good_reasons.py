"""Good reasons, put together from an item's own marks; each is kept only if it is unlike all that were kept before."""

import re
from collections import Counter
from dataclasses import dataclass
from random import Random

from tests.planted.reasons.author4.phrases import ASKS, EARLY, JOINS, MARKS, NOTES, OPENINGS, TALKS, TOPIC
from tests.planted.reasons.counting import jaccard, pairs

MOST_ALIKE = 0.42
MOST_USES = 8


@dataclass(frozen=True)
class Seen:
    """What an item shows: the marks and notes of a screen, or the words of a dialogue."""

    label: str
    marks: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    said: str = ""
    quoted: str = ""
    article: str = ""
    early: str = ""
    topic: str = ""
    turns: int = 0
    images: int = 0
    tail: str = ""
    greeted: bool = False
    last: bool = True


def phrase(text: str, table: dict[str, str], rng: Random) -> tuple[str, str]:
    """A paraphrase of a mark, and its template."""
    for pattern, ways in (table | MARKS if table is NOTES else table).items():
        match = re.fullmatch(pattern, text)
        if match:
            template = rng.choice(ways.split("|"))
            return template.format(*match.groups()), template
    return text, text


def screen_reason(seen: Seen, rng: Random) -> tuple[str, str]:
    """A reason for a screen, and its shape."""
    shown = [mark for mark in seen.marks if "0行" not in mark]
    marks = rng.sample(shown, min(len(shown), rng.choice([1, 2, 2, 2, 3])))
    if seen.label == "实物照片" and not any("实拍" in mark or "手机" in mark for mark in marks):
        marks[0] = shown[0]
    said = [phrase(mark, MARKS, rng) for mark in marks]
    if seen.notes and (len(said) < 2 or rng.random() < 0.4):
        said.insert(rng.randint(0, len(said)), phrase(rng.choice(seen.notes), NOTES, rng))
    opening = rng.choice(OPENINGS)
    if seen.label == "实物照片" and opening == "截图中":
        opening = ""
    text, shape = opening + said[0][0], opening + said[0][1]
    for words, template in said[1:]:
        join = rng.choice(JOINS)
        text, shape = (text + join + words).replace("还有有", "还有"), shape + join + template
    if rng.random() < 0.06:
        end = rng.choice(["，是{}的布局", "，正是{}的样子", "，故为{}", "，符合{}"])
        text, shape = text + end.format(seen.label), shape + end
    return text, shape


def talk_reason(seen: Seen, rng: Random) -> tuple[str, str]:
    """A reason for a dialogue, and its shape."""
    ways = TALKS
    if seen.early and rng.random() < 0.8:
        ways = EARLY
    elif seen.topic and rng.random() < 0.8:
        ways = TOPIC
    shape = rng.choice(ways)
    ask = rng.choice(ASKS[seen.label].split("|"))
    tails = [f"，连发{seen.images}张图" if seen.images else "，没有发图", f"，前后{seen.turns}轮"]
    if seen.tail:
        tails.append(f"，末了补一句“{seen.tail}”")
    if (
        ("{p}" in shape and not seen.article)
        or ("打完招呼" in shape and not seen.greeted)
        or ("一上来" in shape and seen.turns > 3)
        or ("全程" in shape and (seen.early or seen.topic))
        or (re.search("末|最后|收尾|结尾", shape) and not seen.last)
    ):
        return "", shape
    if "{t}，还说" in shape:
        shape = shape.replace("{t}", f"发了{seen.images}张图" if seen.images else "没发图")
    text = shape.format(
        s=seen.said,
        q=seen.quoted,
        p=seen.article,
        a=ask.replace("{p}", seen.article or "它"),
        e=seen.early,
        o=seen.topic,
        n=seen.turns,
        t=rng.choice(tails),
    )
    return text, shape


def good_reasons(items: list[tuple[str, Seen]], per_label: dict[str, int], rng: Random) -> dict[str, str]:
    """A reason for as many items of each label as asked, no two alike; by id."""
    kept: dict[str, str] = {}
    known: list[frozenset[str]] = []
    uses: Counter[str] = Counter()
    left = Counter(per_label)
    for ident, seen in items:
        if left[seen.label] < 1:
            continue
        for _ in range(60):
            text, shape = screen_reason(seen, rng) if seen.marks else talk_reason(seen, rng)
            if not 6 <= len(text) <= 50 or uses[shape] >= MOST_USES:
                continue
            own = pairs(text)
            if any(jaccard(own, other) > MOST_ALIKE for other in known):
                continue
            kept[ident] = text
            known.append(own)
            uses[shape] += 1
            left[seen.label] -= 1
            break
    return kept
