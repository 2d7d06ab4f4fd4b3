"""The card's charts and fonts: text stays text, colours come from the page, every character has a glyph."""

import base64
import io
import re
from collections import Counter
from types import SimpleNamespace
from typing import Any

import pytest
from fontTools.ttLib import TTFont
from markupsafe import escape

from tasks.report.card.flow import draw_flow, list_links
from tasks.report.charts import draw_balance, draw_calibration, draw_confidence, draw_confusion, draw_lengths
from tasks.storage.fonts import embed_fonts, make_legible

ATTACK = "$x_1$</text><script>alert(1)</script>"
LABELS = ["申请退款", ATTACK, "反馈破损"]


def draw_charts() -> dict[str, str]:
    after = {label: Counter({"given": 3, "pseudo": 2}) for label in LABELS}
    return {
        "balance": draw_balance(dict.fromkeys(LABELS, 4), after, LABELS),
        "confidence": draw_confidence([(3, 1), (9, 9)], "confidence", "own"),
        "calibration": draw_calibration([(0.4, 0.3, 20), (0.9, 0.95, 400)]),
        "lengths": draw_lengths(Counter({3: 5, 20: 1, 400: 2})),
        "confusion": draw_confusion({(LABELS[0], ATTACK): 3, (LABELS[2], None): 1}, "none"),
    }


@pytest.mark.parametrize("name", ["balance", "confidence", "calibration", "lengths", "confusion"])
def test_charts_use_the_pages_colours_and_keep_text(name: str) -> None:
    chart = draw_charts()[name]
    assert not re.findall(r"#[0-9a-fA-F]{6}", chart)
    assert "var(--ink)" in chart and "<text" in chart
    assert "<script" not in chart


def test_labels_are_escaped_and_otherwise_unchanged() -> None:
    chart = draw_charts()["balance"]
    assert ">申请退款</text>" in chart
    assert f"<title>{escape(ATTACK)}: 4 before</title>" in chart


def test_ids_and_colours_are_replaced_in_tags_only() -> None:
    odd = ['"#1"', ' id="x', "url(#y", "#010203"]
    chart = draw_balance(dict.fromkeys(odd, 4), {}, odd)
    for label in odd:
        assert f">{label.strip()}</text>" in chart
        assert f"<title>{escape(label)}: 4 before</title>" in chart
    assert ' id="balance-tip0"' in chart and 'href="#balance-' in chart and "url(#balance-" in chart


def make_facts(judged_pool: int = 0, **records: tuple[int, int]) -> Any:
    parts = Counter({("given", "train"): 50, ("review", "validation"): 7, ("pseudo", "train"): 30, ("mix", "train"): 5})
    origins = Counter({origin: n for (origin, _), n in parts.items()})
    kept = {name.replace("__", "/"): SimpleNamespace(kept=k, dropped=d) for name, (k, d) in records.items()}
    return SimpleNamespace(records=kept, emitted=SimpleNamespace(parts=parts, origins=origins, judged_pool=judged_pool))


def test_the_flow_keeps_every_item() -> None:
    facts = make_facts(samples__labelled=(60, 4), samples__unlabelled=(50, 0), pseudo_labels=(35, 15), emit=(92, 18))
    links = list_links(facts)
    into: Counter[Any] = Counter()
    out: Counter[Any] = Counter()
    for link in links:
        out[link.source] += link.count
        into[link.target] += link.count
    for node in into.keys() & out.keys():
        assert into[node] == out[node], node
    assert {(n.lane, n.name): out[n] for n in out if n.column == 0} == {
        ("labelled", "labelled"): 64,
        ("pool", "pool"): 50,
    }
    assert {n.name: into[n] for n in into if n.column == 4} == {"train": 85, "validation": 7}
    assert {(n.lane, n.name): into[n] for n in into if n.name == "left out"} == {
        ("labelled", "left out"): 3,
        ("pool", "left out"): 5,
    }
    chart = draw_flow(links)
    assert "<title>labelled: usable → given: 50</title>" in chart


def test_reviewed_pool_items_come_from_the_pools_lane() -> None:
    stages = {"samples__labelled": (60, 4), "samples__unlabelled": (50, 0), "emit": (92, 18)}
    links = list_links(make_facts(judged_pool=3, pseudo_labels=(35, 15), **stages))
    review = {(k.source.lane, k.source.name): k.count for k in links if k.target.name == "review"}
    assert review == {("labelled", "usable"): 4, ("pool", "trusted"): 3}
    assert {k.source.lane: k.count for k in links if k.target.name == "left out"} == {"labelled": 6, "pool": 2}
    assert "<title>pool: trusted → review: 3</title>" in draw_flow(links)
    untrusted = list_links(make_facts(judged_pool=3, **stages))
    assert ("pool", "usable", 3) in [(k.source.lane, k.source.name, k.count) for k in untrusted]


def test_the_flow_of_a_run_without_a_pool_is_drawn() -> None:
    links = list_links(make_facts(samples__labelled=(60, 4)))
    assert not [k for k in links if k.source.lane == "pool" and k.source.column < 3]
    assert draw_flow(links)


def test_symbols_without_a_glyph_are_named_and_invisible_characters_removed() -> None:
    assert make_legible("好😀▣\n\tก\u202e") == "好😀▣\n\tก"
    assert make_legible("龙🦖\U000f0000") == "龙[t-rex][U+F0000]"
    assert make_legible("红\ufffd色") == "红[replacement character]色"


def test_the_embedded_fonts_have_exactly_the_characters_of_the_text() -> None:
    text = "查询物流：退款 abc ✓ 😀 한국어 日本語 ←→"
    found: set[int] = set()
    for embedded in embed_fonts(text):
        with TTFont(io.BytesIO(base64.b64decode(embedded.data))) as font:
            found |= set(font.getBestCmap() or ())
    assert found == {ord(c) for c in text}


def test_all_weights_are_in_the_font() -> None:
    (embedded,) = embed_fonts("粗")
    with TTFont(io.BytesIO(base64.b64decode(embedded.data))) as font:
        (axis,) = font["fvar"].axes
    assert (axis.axisTag, axis.minValue, axis.maxValue) == ("wght", 100, 900)
