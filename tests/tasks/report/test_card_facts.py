"""What the card reads from a run's files: counts, drawn items, diversity of reasons, warnings."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from tasks.packs.pack import load_pack
from tasks.rationales.diversity import measure_variety
from tasks.records import Action, Dropped, Example, Message, Origin, Record, Split
from tasks.report.card.card import CardSettings, write_card
from tasks.report.card.facts import read_facts
from tasks.report.card.prompts import render_prompts
from tasks.report.card.rows import Draw, read_columns
from tasks.report.card.warnings import list_warnings
from tasks.storage.stage_record import StageRecord
from tasks.storage.stages import write_stage
from tests.tasks.dataset.making import record_version
from tests.tasks.making import correction, image, sample
from tests.tasks.report.made_run import make_run

EXAMPLE = Example(
    sample_id="a", messages=(Message(role="user", content="?"),), images=(), label="x", origin=Origin.GIVEN, why="w",
    source="s",
)  # fmt: skip


def test_a_draw_is_even_and_repeatable() -> None:
    counts = [0] * 20
    for seed in range(2000):
        draw = Draw[int](5, seed)
        for thing in range(20):
            draw.add(thing)
        assert draw.seen == 20 and len(set(draw.drawn)) == 5
        for thing in draw.drawn:
            counts[thing] += 1
    assert all(420 < n < 580 for n in counts)  # 500 expected, 19 the standard deviation


def test_missing_columns_are_none_and_a_missing_file_has_no_rows(tmp_path: Path) -> None:
    make_run(tmp_path / "run", 3)
    rows = list(read_columns(tmp_path / "run" / "correction" / "kept.parquet", "sample_id", "from_the_future"))
    assert [(r["sample_id"], r["from_the_future"]) for r in rows] == [(f"given-{n}", None) for n in range(3)]
    assert list(read_columns(tmp_path / "none.parquet", "sample_id")) == []


def test_counts_match_the_files(tmp_path: Path) -> None:
    facts = read_facts(make_run(tmp_path / "run", 60))
    assert facts.before == {"申请退款": 20, "查询物流": 20, "反馈破损": 20}
    assert facts.emitted.origins == {"review": 20, "correction": 20, "given": 20, "pseudo": 48, "mix": 1}
    assert facts.emitted.with_reason == 60
    assert facts.changes.pairs.total() == 10
    assert sum(n for (_, new), n in facts.changes.pairs.items() if new is None) == 5
    assert [(d.stage, d.reason, d.count) for d in facts.drops] == [
        ("samples/labelled", "image_missing", 1),
        ("pseudo_labels", "not_trusted", 12),
        ("emit", "no_trusted_pseudo_label", 12),
    ]
    assert all(len(rows) <= 4 for rows in facts.emitted.examples.values())
    drawn = {row["sample_id"] for rows in facts.emitted.examples.values() for row in rows}
    assert drawn - facts.contents.items.keys() == {"mix-1"}


def test_two_items_with_the_same_id_are_told_apart(tmp_path: Path) -> None:
    record = StageRecord(stage="s", recipe="r", read=0, kept=0, dropped=0)

    def stage(name: str, kept: Sequence[Record], *reasons: str) -> None:
        gone = [Dropped(sample_id="7", stage=name, reason=reason) for reason in reasons]
        ids = [*(getattr(k, "sample_id", None) or getattr(k, "id", "") for k in kept), *("7" for _ in gone)]
        write_stage(tmp_path / name, record.model_copy(update={"stage": name}), kept, gone, ids)

    ours = sample("7", "ours", source="/a.json")
    theirs = sample("7", "theirs", source="/b.json", split=Split.UNLABELLED, given=None)
    stage("samples/labelled", [ours], "image_missing")
    stage("samples/unlabelled", [theirs])
    stage("correction", [correction("7", label="查询物流", action=Action.RELABEL)])
    stage("pseudo_labels", [], "not_trusted")
    examples = [
        EXAMPLE.model_copy(update={"sample_id": "7", "source": s.source, "origin": origin})
        for s in (ours, theirs)
        for origin in (Origin.REVIEW, Origin.GIVEN)
    ]
    stage("emit", examples, "waits_for_review", "no_trusted_pseudo_label", "near_duplicate")
    facts = read_facts(tmp_path)
    of = facts.contents.find
    assert of(facts.changes.drawn[0], "correction") == ours.parts
    drawn = facts.emitted.examples["given"]
    assert [of(row, "emit") for row in drawn] == [
        {"/a.json": ours, "/b.json": theirs}[r["source"]].parts for r in drawn
    ]
    assert {(d.stage, d.reason): of(d.drawn[0], d.stage, d.reason) for d in facts.drops} == {
        ("samples/labelled", "image_missing"): (),
        ("pseudo_labels", "not_trusted"): theirs.parts,
        ("emit", "waits_for_review"): ours.parts,
        ("emit", "no_trusted_pseudo_label"): theirs.parts,
        ("emit", "near_duplicate"): (),
    }
    assert facts.emitted.origins["review"] == 2 and facts.emitted.judged_pool == 1


def test_an_item_that_is_in_both_sets_counts_as_labelled_when_judged(tmp_path: Path) -> None:
    record = StageRecord(stage="s", recipe="r", read=0, kept=0, dropped=0)
    both, pool = sample("1", source="/one.json"), sample("2", source="/one.json")
    write_stage(tmp_path / "samples" / "labelled", record, [both], [], ["1"])
    write_stage(tmp_path / "samples" / "unlabelled", record, [both, pool], [], ["1", "2"])
    judged = [
        EXAMPLE.model_copy(update={"sample_id": s.id, "source": s.source, "origin": Origin.REVIEW})
        for s in (both, pool)
    ]
    write_stage(tmp_path / "emit", record, judged, [], ["1", "2"])
    facts = read_facts(tmp_path)
    assert facts.emitted.judged_pool == 1
    assert facts.contents.find(facts.emitted.examples["review"][0], "emit") == both.parts


def test_histograms_of_own_confidence_and_expected_precision(tmp_path: Path) -> None:
    stage = make_run(tmp_path / "run", 60) / "pseudo_labels"
    found = read_facts(stage.parent).confidence
    assert [(n, s.count, s.kept) for n, s in enumerate(found.own) if s.count] == [(12, 29, 24), (18, 30, 24)]
    assert [(n, s.count, s.kept) for n, s in enumerate(found.expected) if s.count] == [(14, 59, 48)]
    assert read_facts(tmp_path).confidence.own == ()


def test_a_folder_with_many_files_is_one_line(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", 3)
    images = run / "emit" / "trl" / "images"
    images.mkdir(parents=True)
    for n in range(30):
        (images / f"{n}.png").write_bytes(b"four")
    assert ("trl/images/*", 30, 120) in read_facts(run).files
    assert ("kept.parquet", 1) in [(name, n) for name, n, _ in read_facts(run).files]


def test_the_latest_version_of_the_set_is_shown(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", 3)
    assert read_facts(run).version is None
    first = record_version(run, "r", [])
    second = record_version(run, "r", [EXAMPLE])
    assert second.parent == first.version
    assert read_facts(run).version == second


def test_captions_have_no_classes_but_prompts(tmp_path: Path) -> None:
    captions = [sample(f"c{n}", image(), task="caption", labels=(), given=f"一只杯子{n}") for n in range(6)]
    record = StageRecord(stage="samples/labelled", recipe="r", read=0, kept=0, dropped=0)
    write_stage(tmp_path / "samples" / "labelled", record, captions, [], [c.id for c in captions])
    examples = [EXAMPLE.model_copy(update={"sample_id": c.id, "label": c.given, "task": "caption"}) for c in captions]
    write_stage(
        tmp_path / "emit", record.model_copy(update={"stage": "emit"}), examples, [], [c.id for c in captions]
    )  # fmt: skip
    facts = read_facts(tmp_path)
    assert facts.emitted.count == 6 and facts.emitted.labels is None and not facts.before
    assert "no classes" in write_card(tmp_path, CardSettings(title="captions")).read_text()
    assert not [w for w in list_warnings(facts, "cc0-1.0") if "label" in w]
    (prompt,) = render_prompts(load_pack("captions"), tmp_path)
    assert "<image>" in prompt.text and prompt.answer == "一只杯子0"


def test_distinct_shares_count_characters_of_chinese_and_words_of_the_rest() -> None:
    found = measure_variety(["红色按钮", "红色按钮", "a red button here", "a red shirt here"])
    assert found.distinct[0] == pytest.approx((4 + 5) / 16)
    assert found.distinct[1] == pytest.approx((3 + 5) / 12)
    assert found.repeated == 0.25
    assert found.openings == (("红色按钮", 2),)
    assert found.lengths == {4: 2, 17: 1, 16: 1}


def test_openings_are_quoted_as_written() -> None:
    found = measure_variety(["图中，有 一个红色的圆", "图中，有 一个蓝色的方"])
    assert found.openings == (("图中，有 一", 2),)


def test_a_good_run_has_no_warnings(tmp_path: Path) -> None:
    facts = read_facts(make_run(tmp_path / "run", 60))
    assert list_warnings(facts, "cc0-1.0") == []


def test_reasons_with_broken_characters_are_a_warning(tmp_path: Path) -> None:
    facts = read_facts(make_run(tmp_path / "run", 60))
    broken = replace(facts, emitted=replace(facts.emitted, reasons=("红\ufffd色", "红色")))
    assert list_warnings(broken, "cc0-1.0") == ["1 reason with broken characters (U+FFFD) among those measured."]


def test_few_examples_no_licence_and_equal_reasons_are_warnings(tmp_path: Path) -> None:
    facts = replace(read_facts(make_run(tmp_path / "run", 6)), diversity=measure_variety(["同"] * 9))
    warnings = " ".join(list_warnings(facts, None))
    for part in ("with fewer than 5 examples", "No licence", "89% of the reasons repeat"):
        assert part in warnings


def test_missing_stages_are_warnings(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", 6)
    (run / "correction" / "record.json").unlink()
    (run / "emit" / "record.json").unlink()
    warnings = " ".join(list_warnings(read_facts(run), None))
    assert "is not finished" in warnings and "The given labels were not checked" in warnings
