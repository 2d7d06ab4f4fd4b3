import json
from collections import Counter
from pathlib import Path

from tasks.evaluation.test_set import choose_test_labels, keep_own_ids
from tasks.items.samples import read_samples
from tasks.packs.columns import DEFAULT_COLUMNS
from tasks.packs.pack import load_pack
from tasks.records import Split
from tests.tasks.making import prediction, sample

ITEMS = [sample(i, labels=("x", "y"), given=None) for i in ("a", "b")]
USUAL = Counter({"z": 5, "y": 3, "x": 1})


def test_probabilities_of_all_answers_are_added_up() -> None:
    answers = [
        prediction("a", "x", probabilities={"x": 0.6, "y": 0.4}),
        prediction("a", "y", probabilities={"x": 0.1, "y": 0.9}),
        prediction("b", "x"),  # an engine that gives no probabilities
    ]
    found = choose_test_labels(ITEMS, answers, [], USUAL)
    assert found.labels == {"a": "y", "b": "x"}
    assert (found.unanswered, found.unread) == ((), ())


def test_an_item_without_an_answer_gets_the_commonest_of_its_labels() -> None:
    found = choose_test_labels(ITEMS, [prediction("a", "x"), prediction("b", None)], [], USUAL)
    assert found.labels == {"a": "x", "b": "y"}
    assert found.unanswered == ("b",)
    unknown = choose_test_labels(ITEMS, [], [], Counter({"z": 5}))
    assert unknown.labels == {"a": "x", "b": "x"}


def test_an_item_that_was_refused_gets_the_commonest_label_of_all_and_each_id_one_row() -> None:
    found = choose_test_labels(ITEMS, [prediction(i, "x") for i in "ab"], ["c", "a", "c"], USUAL)
    assert found.labels == {"a": "x", "b": "x", "c": "z"}
    assert found.unread == ("c",)
    assert choose_test_labels(ITEMS, [], ["c"], Counter()).labels.keys() == {"a", "b"}


def test_ids_are_told_from_the_names_of_items_without_one(tmp_path: Path) -> None:
    broken = {"instruction": "no task begins like this", "image": []}
    rows = [broken, broken | {"id": "item-1"}, broken | {"id": "item-3"}, broken | {"id": 7.0}, "no object", broken]
    manifest = tmp_path / "x.json"
    manifest.write_text(json.dumps(rows))
    refused = [d.sample_id for d in read_samples(manifest, tmp_path, load_pack("demo"), Split.TEST).dropped]
    assert refused == ["item-1", "item-1", "item-3", "7", "item-5", "item-6"]
    assert keep_own_ids(refused, manifest, DEFAULT_COLUMNS) == ["item-1", "item-1", "item-3", "7"]
