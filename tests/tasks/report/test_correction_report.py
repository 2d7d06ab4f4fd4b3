import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import orjson
import pytest
from PIL import Image

from tasks.correction.decide import Decisions, correct
from tasks.correction.gate import Gate
from tasks.correction.judgements import Ints, Judgements
from tasks.correction.settings import CorrectionSettings
from tasks.items.images import check_image
from tasks.media import ImagePart, TextPart
from tasks.records import Sample, Split
from tasks.report.correction.figures import measure, measure_share, predict_held_out
from tasks.report.correction.report import describe_overlaps, render_page, write_report
from tests.tasks.making import draw_numbered_video, sample

NO_RUN: dict[str, Any] = {"title": "Correction", "costs": {}, "excluded": {}, "repeats": 1}
NOT_CALIBRATED = "The probabilities are not calibrated"


class Made:
    """Judgements about items whose truth is known; an eighth of the given labels is wrong, a hundredth unusable."""

    def __init__(self, items: int = 600, classes: int = 5, *, sure: float = 3.5, names: Sequence[str] = ()) -> None:
        rng = np.random.default_rng(0)
        truth = rng.integers(classes, size=items)
        logits = rng.normal(size=(items, classes)) + sure * (np.arange(classes) == truth[:, None])
        students = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
        shift = rng.integers(1, max(classes, 2), size=items)
        given = np.where(rng.random(items) < 0.125, (truth + shift) % classes, truth)
        self.truth = np.where(rng.random(items) < 0.01, -1, truth)
        ids = tuple(f"s{i}" for i in range(items))
        labels = tuple(names) or tuple(f"标签{i}" for i in range(classes))
        dissent = (students.argmax(axis=1) != given).astype(np.float32)
        self.judgements = Judgements(ids, labels, given, students.astype(np.float32), dissent)

    def look_up(self, items: Ints) -> dict[int, int]:
        return {i: int(self.truth[i]) for i in items.tolist()}

    def decide(self, reviews: int = 120, **settings: Any) -> Decisions:
        return correct(self.judgements, CorrectionSettings(review_budget=reviews, **settings), (), self.look_up)


@pytest.fixture(scope="module")
def decided() -> Decisions:
    """600 items of five classes, 120 reviews; the gate is open."""
    return Made().decide()


def written(decisions: Decisions, folder: Path, **more: Any) -> tuple[dict[str, Any], str]:
    write_report(decisions, folder, **NO_RUN | more)
    return orjson.loads((folder / "report.json").read_bytes()), (folder / "report.html").read_text("utf-8")


class Page(HTMLParser):
    """What a browser would see: texts, ids, elements, and whatever the page refers to."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.texts: list[str] = []
        self.tags: Counter[str] = Counter()
        self.ids: list[str] = []
        self.references: list[str] = []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags[tag] += 1
        for name, value in attrs:
            value = value or ""
            if name == "id":
                self.ids.append(value)
            if name in ("src", "href", "xlink:href", "data", "action"):
                self.references.append(value)
            self.references += re.findall(r"url\(([^)]*)\)", value)

    def handle_data(self, data: str) -> None:
        self.texts += [data.strip()] if data.strip() else []


# --- figures -------------------------------------------------------------------------------------------------


def test_figures_are_those_of_the_decisions(decided: Decisions, tmp_path: Path) -> None:
    made, decisions = Made(), decided
    assert decisions.gate.open, "the rest compares changes without a person"
    plain, _ = written(decisions, tmp_path, costs={"tokens": 12.0}, excluded={"x": "rare"}, repeats=3)
    given, wrong = made.judgements.given, decisions.beliefs.p_wrong
    alone = [i for i in range(600) if decisions.label[i] != given[i] and i not in decisions.verdicts]
    assert alone
    assert plain["changes"]["unreviewed"] == len(alone)
    assert plain["changes"]["right_to_wrong"] == pytest.approx(sum(decisions.beliefs.p_given[i] for i in alone))
    assert plain["changes"]["wrong_to_right"] == pytest.approx(sum(decisions.beliefs.p_candidate[i] for i in alone))
    known = sum(made.truth[i] != given[i] for i in decisions.verdicts)
    unknown = sum(wrong[i] for i in range(600) if i not in decisions.verdicts)
    assert plain["expected_wrong_given"] == pytest.approx(known + unknown)
    assert plain["estimates"]["precision"] == decisions.estimates["precision"].model_dump()
    assert sum(p["items"] for p in plain["pairs"]) == plain["flagged"] == decisions.flagged.sum()
    assert [c["items"] for c in plain["classes"]] == np.bincount(given, minlength=5).tolist()
    assert sum(c["flagged"] for c in plain["classes"]) == sum(b["flagged"] for b in plain["histogram"])
    assert sum(b["items"] for b in plain["histogram"]) == 600
    assert sum(b["wrong"]["of"] for b in plain["reliability"]) == plain["verdicts"] == 120
    assert (plain["costs"], plain["excluded"], plain["repeats"]) == ({"tokens": 12.0}, {"x": "rare"}, 3)
    dropped = sum(p["items"] for p in plain["pairs"] if p["proposed"] is None)
    assert dropped == plain["changes"]["dropped"] == sum(v < 0 for v in decisions.verdicts.values())


@pytest.mark.parametrize("settings", [{}, {"target_precision": 0.6}])
def test_the_threshold_is_where_flags_begin(settings: dict[str, Any]) -> None:
    decisions = Made(sure=2.0).decide(60, **settings)
    threshold = measure(decisions)["threshold"]
    assert threshold is not None
    unjudged = [i for i in range(600) if i not in decisions.verdicts]
    above = [bool(decisions.beliefs.p_wrong[i] >= threshold) for i in unjudged]
    assert above == decisions.flagged[unjudged].tolist()
    assert 0 < sum(above) < len(above)


def test_flags_that_are_not_by_figure_do_not_lower_the_threshold() -> None:
    decisions = Made(sure=2.0).decide(60)
    rejected = decisions.flagged.copy()
    harmless = [i for i in np.argsort(decisions.beliefs.p_wrong).tolist() if i not in decisions.verdicts][:5]
    rejected[harmless] = True
    assert measure(replace(decisions, flagged=rejected))["threshold"] == measure(decisions)["threshold"]


def test_measured_figures_count_audited_items_by_models_that_did_not_know_them() -> None:
    decisions = Made(sure=2.0).decide(120, audit=80)
    found = measure(decisions)
    audited = set(decisions.person_asked[:80].tolist())
    wrong = sum(decisions.verdicts[i] != decisions.judgements.given[i] for i in audited)
    precision, recall = found["measured_precision"], found["measured_recall"]
    assert precision and recall
    assert (found["audited_verdicts"], recall.of) == (80, wrong)
    assert 0 < recall.hits == precision.hits < precision.of < 80
    one = next(iter(audited))
    other = replace(decisions, verdicts=decisions.verdicts | {one: -1 if decisions.verdicts[one] >= 0 else 0})
    before, after = predict_held_out(decisions), predict_held_out(other)
    assert before[one] == after[one]
    assert any(before[i] != after[i] for i in audited)


def test_a_share_has_wilsons_interval() -> None:
    found = measure_share(8, 10)
    assert found.value == 0.8
    assert (found.low, found.high) == (pytest.approx(0.4902, abs=1e-4), pytest.approx(0.9433, abs=1e-4))
    assert measure_share(0, 0).value is None


def test_the_budget_curve_falls_by_the_largest_gains_first() -> None:
    decisions = Made(sure=2.0).decide(40)
    points = dict(measure(decisions)["budget"])
    gains = sorted(decisions.gain.tolist())
    assert points[0] == pytest.approx(sum(gains))
    for reviews, left in points.items():
        assert left == pytest.approx(sum(gains[: len(gains) - reviews]), abs=1e-9)
    assert max(points) < 600 and min(points.values()) <= 0.05 * points[0]


# --- the page ------------------------------------------------------------------------------------------------


def test_the_page_needs_nothing_else_and_its_parts_do_not_mix(decided: Decisions, tmp_path: Path) -> None:
    page = Page(text := written(decided, tmp_path)[1])
    assert not {"script", "link", "iframe", "img"} & set(page.tags)
    assert page.tags["svg"] == 4
    own = {f"#{name}" for name in page.ids}
    assert len(own) == len(page.ids), "an id is there twice"
    assert page.references and set(page.references) <= own
    assert "#01020" not in text, "a stand-in for a colour was left"
    for chart in re.findall(r"<svg.*?</svg>", text, re.S):
        ElementTree.fromstring(chart)


def test_text_from_data_stays_text(tmp_path: Path) -> None:
    bad = '<script>alert("x")</script>&amp;{{body}}'
    made = Made(60, 3, names=(bad, "'a'", "查询物流"))
    judgements = replace(made.judgements, ids=tuple(f"<b>{i}" for i in range(60)))
    decisions = correct(judgements, CorrectionSettings(review_budget=30), (), made.look_up)
    plain, text = written(decisions, tmp_path, title=bad, costs={bad: 1.0}, excluded={"<i>1": bad})
    page = Page(text)
    assert not {"script", "b", "i"} & set(page.tags)
    for shown in (bad, "'a'", "查询物流", "<i>1", f"<b>{plain['suspects'][0]['id'].removeprefix('<b>')}"):
        assert any(shown in line for line in page.texts), shown
    assert plain["title"] == plain["labels"][0] == bad


def test_the_map_shows_each_pair_and_gives_way_to_the_table_when_there_are_many_labels(
    decided: Decisions, tmp_path: Path
) -> None:
    plain, text = written(decided, tmp_path)
    texts = Page(text).texts
    for pair in plain["pairs"]:
        assert f"{pair['given']} → {pair['proposed'] or 'none'}: {pair['items']}" in texts
    plain, text = written(Made(classes=31).decide(0), tmp_path)
    assert plain["pairs"] and not any(text.startswith("标签0 → ") for text in Page(text).texts)
    assert plain["pairs"][0]["given"] in " ".join(Page(text).texts)


def test_without_verdicts_the_page_says_that_nothing_is_calibrated_or_changed(
    decided: Decisions, tmp_path: Path
) -> None:
    plain, text = written(Made().decide(0), tmp_path)
    assert NOT_CALIBRATED in text and "no label changes without a person: " in text
    assert NOT_CALIBRATED not in written(decided, tmp_path)[1]
    assert (plain["threshold"], plain["estimates"], plain["measured_precision"]) == (None, {}, None)
    assert plain["changes"]["unreviewed"] == plain["changes"]["by_verdict"] == plain["gate_open"] == 0
    assert plain["flagged"] == plain["actions"]["review"] > 0
    assert Page(text).tags["svg"] == 3, "there is no reliability to draw"


@pytest.mark.parametrize("items", [1, 7])
@pytest.mark.parametrize("classes", [1, 2])
@pytest.mark.parametrize("reviews", [0, 7])
def test_the_smallest_sets_have_a_report(items: int, classes: int, reviews: int, tmp_path: Path) -> None:
    plain, text = written(Made(items, classes).decide(reviews), tmp_path)
    assert plain["items"] == items == len(plain["suspects"])
    assert plain["verdicts"] == min(items, reviews)
    assert NOT_CALIBRATED in text


@pytest.mark.parametrize(
    ("gate", "sentence_pattern"),
    [
        (
            Gate(34, 3, 2, 0.78, 0.5),
            "^labels may change .* 34 would .* and 3 wrong, 2 have neither .*; at least 78%",
        ),
        (
            Gate(5, 5, 0, 0.24, 0.5),
            r"^no label changes .* 5 would .* and 5 wrong; \d+ more right ones in a row",
        ),
        (Gate(0, 0, 0, 0.0, 0.5), "no verdict in the blind sample says yet .*; 8 right ones in a row would be enough$"),
        (Gate(0, 900, 0, 0.0, 0.9), "unlikely that more verdicts will change that"),
    ],
)
def test_the_gate_is_explained_in_sentences(decided: Decisions, gate: Gate, sentence_pattern: str) -> None:
    assert re.search(sentence_pattern, gate.summary)
    assert gate.summary in render_page(NO_RUN | measure(decided) | {"gate_why": gate.summary})


def test_suspicious_items_are_shown_with_picture_and_text_before_the_figures(tmp_path: Path) -> None:
    Image.new("RGB", (300, 500), "navy").save(tmp_path / "screen.png")
    screen = check_image(tmp_path / "screen.png", 10**7)
    parts = (TextPart(text="用户: 第3件 <b>"), ImagePart(image=screen))
    samples = [
        Sample(id=f"s{i}", task="t", parts=parts, labels=("标签0",), given="标签0", split=Split.LABELLED, source="m")
        for i in range(600)
    ]
    plain, text = written(Made().decide(0), tmp_path, samples=samples)
    assert text.index("The most suspicious items") < text.index("What changes, and what is left")
    assert (
        text.count('<img src="data:image/webp;base64,') == text.count("用户: 第3件 &lt;b&gt;") == len(plain["suspects"])
    )
    assert 'font-family: "Card Sans"' in text, "Chinese is shown where no font for it is installed"


def test_a_suspicious_item_with_only_a_recording_shows_frames_of_it(tmp_path: Path) -> None:
    item = sample("s0", "看", draw_numbered_video(tmp_path, frames=20), labels=("标签0",), given="标签0")
    samples = [item.model_copy(update={"id": f"s{i}"}) for i in range(600)]
    plain, text = written(Made().decide(0), tmp_path, samples=samples)
    assert text.count('<img src="data:image/webp;base64,') == 4 * len(plain["suspects"])
    assert f'alt="{plain["suspects"][0]["id"]}: its recording at 9.5 of 10.0 s"' in text


def test_before_any_verdict_the_number_of_wrong_labels_is_a_wide_interval(decided: Decisions, tmp_path: Path) -> None:
    plain, text = written(Made().decide(0), tmp_path)
    low, high = plain["expected_wrong_interval"]
    assert low < 75 < high and high > 2 * low, "an eighth of 600 labels is wrong"
    assert f"somewhere between {low:,.0f} and {high:,.0f} of 600" in text and "about <strong>" not in text
    later = measure(decided)
    assert later["expected_wrong_interval"][0] < later["expected_wrong_given"] < later["expected_wrong_interval"][1]


def test_excluded_items_stand_under_their_reason(tmp_path: Path) -> None:
    excluded = {f"e{i}": "fewer items than folds" for i in range(205)} | {"u": "malformed"}
    plain, text = written(Made(50).decide(0), tmp_path, excluded=excluded)
    assert len(excluded) == 206 and plain["excluded"] == excluded
    shown = " ".join(Page(text).texts)
    assert "fewer items than folds (205)" in shown and "malformed (1)" in shown
    assert "e199 … and 5 more" in shown


# --- labels that overlap --------------------------------------------------------------------------------------


class Vague(Made):
    """As `Made`, but the labels 0 and 1 are given at random to their items, so that students confuse them too."""

    def __init__(self) -> None:
        super().__init__()
        rng = np.random.default_rng(1)
        vague = self.truth < 2
        given = np.where(vague, rng.integers(2, size=len(self.truth)), self.truth)
        students = self.judgements.students.copy()
        students[vague, :2] = students[vague, :2].sum(axis=1, keepdims=True) / 2
        self.judgements = replace(self.judgements, given=given, students=students)


def test_overlapping_labels_are_named_with_items_of_both(tmp_path: Path) -> None:
    decisions = Vague().decide(0)
    samples = [
        Sample(id=i, task="t", parts=(TextPart(text=f"说明 {i}"),), labels=("标签0",), split=Split.LABELLED, source="x")
        for i in decisions.judgements.ids
    ]
    figures, page = written(decisions, tmp_path, samples=samples)
    first, second = figures["overlaps"][:2]
    assert (first["first"], first["second"], first["named"], second["named"]) == ("标签0", "标签1", True, False)
    assert first["share"] > 0.35 and second["share"] < 0.1
    given = dict(zip(decisions.judgements.ids, decisions.judgements.given.tolist(), strict=True))
    assert [given[i] for i in first["examples_of_first"] + first["examples_of_second"]] == [0, 0, 1, 1]
    assert all(f"说明 {i}" in page for i in first["examples_of_first"])
    assert "1 pair of labels is confused" in page
    assert describe_overlaps(tmp_path).startswith("These labels are taken for each other so often")
    assert "标签0 / 标签1" in describe_overlaps(tmp_path)


def test_clear_labels_are_not_said_to_overlap(decided: Decisions, tmp_path: Path) -> None:
    figures, page = written(decided, tmp_path)
    assert not any(pair["named"] for pair in figures["overlaps"])
    assert "No two labels are confused so often" in page
    assert describe_overlaps(tmp_path) == "" and describe_overlaps(tmp_path / "missing") == ""


def test_examples_of_overlaps_do_not_show_the_unjudged_audit() -> None:
    made = Vague()
    decisions = correct(made.judgements, CorrectionSettings(review_budget=120), (), lambda items: {})
    hidden = {decisions.judgements.ids[i] for i in decisions.unjudged_audit}
    shown = {i for pair in measure(decisions)["overlaps"] for i in pair["examples_of_first"]}
    assert hidden and shown and not hidden & shown
