"""From a suspicious label to an emitted one: a person judges it on the review page, and the next run applies that."""

from pathlib import Path

import orjson
import pytest
from playwright.sync_api import expect

from flows.config import DistillConfig
from tasks.correction.settings import CorrectionSettings
from tasks.errors import LeakageError
from tasks.records import Action, Correction, Example
from tasks.review.queue import read_queue
from tasks.storage.rows import read_rows
from tasks.students.settings import ProbeSpec
from tests.browser import open_browser
from tests.conftest import PrefectServer
from tests.flows.small_run import small_config
from tests.flows.test_review_page import press_keys, run_review, save_verdicts

pytestmark = pytest.mark.timeout(600)


def make_probe_config(folder: Path, **update: object) -> DistillConfig:
    """The small run with probes for students and nobody to review, labelled items only."""
    settings = CorrectionSettings(review_budget=20, audit=20)
    changes = {"student": ProbeSpec(folds=3), "generator": None, "unlabelled": None, "correction": settings}
    return small_config(folder).model_copy(update=changes | update)


def read_decisions(config: DistillConfig) -> dict[str, Correction]:
    return {c.sample_id: c for c in read_rows(config.output / "correction/kept.parquet", Correction)}


def read_emitted(config: DistillConfig) -> dict[str, Example]:
    return {e.sample_id: e for e in read_rows(config.output / "emit/kept.parquet", Example)}


@pytest.mark.browser
def test_labels_chosen_on_the_page_are_emitted(prefect_server: PrefectServer, tmp_path: Path) -> None:
    from flows.distill import distill

    config = make_probe_config(tmp_path)
    distill(config)
    review = config.output / "review"
    asked = read_queue(review)
    assert len(asked) == 20
    assert all(c.blind for c in asked)  # all are in the audit
    first = read_decisions(config)
    assert all(c.label == c.given and not c.reviewed for c in first.values())  # nobody has said anything yet
    assert config.labelled is not None
    manifest, copy = config.labelled.manifest, config.output / "correction/corrected" / config.labelled.manifest.name
    assert (config.output / "correction/corrections.jsonl").read_bytes() == b""
    assert copy.read_bytes() == manifest.read_bytes()

    expected: dict[str, str | None] = {}
    with open_browser() as browser:
        page = browser.new_page()
        page.goto((review / "review.html").as_uri())
        for number, case in enumerate(asked):
            expect(page.locator("#name")).to_have_text(case.sample_id)
            key = ("2", "4", "1")[number % 3]
            press_keys(page, key)
            expected[case.sample_id] = {"1": case.choices[0], "2": case.choices[1], "4": None}[key]
        file = save_verdicts(page, tmp_path)
    assert len(set(expected.values())) > 3
    assert "20 new" in run_review("import", config.output, file).output

    distill(config)
    after, training_set = read_decisions(config), read_emitted(config)
    for identity, label in expected.items():
        case = after[identity]
        assert case.reviewed and case.label == label
        wanted = Action.DROP if label is None else Action.KEEP if label == case.given else Action.RELABEL
        assert case.action is wanted
        assert (identity in training_set) is (label is not None)
        if label is not None:
            assert training_set[identity].label == label
    output_of = {row["id"]: row["output"] for row in orjson.loads(copy.read_bytes())}
    assert {i: output_of.get(i) for i in expected} == expected
    lines = [orjson.loads(line) for line in (config.output / "correction/corrections.jsonl").open("rb")]
    assert {line["id"] for line in lines} == {i for i, label in expected.items() if label != first[i].given}
    # students and seed change, what a person said does not
    distill(config.model_copy(update={"student": ProbeSpec(folds=3, seed=9, images="none")}))
    again = read_decisions(config)
    assert all(again[identity].label == label and again[identity].reviewed for identity, label in expected.items())


def test_repeats_are_averaged_and_each_is_out_of_fold(prefect_server: PrefectServer, tmp_path: Path) -> None:
    from flows.distill import distill

    config = make_probe_config(tmp_path, student=ProbeSpec(folds=3, repeats=2))
    distill(config)
    stage = config.output / "correction"
    splits = [orjson.loads((stage / name).read_bytes())["fold_of"] for name in ("folds.json", "folds-1.json")]
    assert splits[0] != splits[1] and splits[0].keys() == splits[1].keys()
    trained = [orjson.loads(f.read_bytes()) for f in (stage / "students").glob("*/student.json")]
    assert len(trained) == 6
    found = read_decisions(config)
    assert all(len(found[i].model.split("; ")) == 2 for i in splits[0])
    assert {c.dissent for c in found.values() if c.dissent is not None} >= {0.0, 1.0}
    for facts in trained:
        held_out = [
            s for s in splits if {i for i, fold in s.items() if fold == facts["fold"]}.isdisjoint(facts["trained_on"])
        ]
        assert held_out  # of one of the two splits


def test_a_student_that_saw_an_item_stops_the_stage(prefect_server: PrefectServer, tmp_path: Path) -> None:
    from flows.distill import distill

    config = make_probe_config(tmp_path)
    distill(config)
    stage = config.output / "correction"
    before = (stage / "kept.parquet").read_bytes()
    [first, second, *_] = sorted((stage / "students").glob("*/student.json"))
    facts = orjson.loads(first.read_bytes())
    facts["trained_on_content"] = sorted(
        {*facts["trained_on_content"], *orjson.loads(second.read_bytes())["trained_on_content"]}
    )
    first.write_bytes(orjson.dumps(facts))
    changed = config.correction.model_copy(update={"gate_level": 0.9})
    with pytest.raises(LeakageError, match="was trained on it or on a duplicate"):
        distill(config.model_copy(update={"correction": changed}))
    assert (stage / "kept.parquet").read_bytes() == before
