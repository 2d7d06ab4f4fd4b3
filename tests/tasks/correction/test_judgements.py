import json
import math
import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tasks.correction.judgements import (
    average_answers,
    index_verdicts,
    join_predictions,
    judge_by_predictions,
    list_labels,
    read_probabilities,
    read_teacher,
    split_judged,
    tabulate,
)
from tasks.errors import JudgementError
from tasks.records import NEITHER
from tests.tasks.making import prediction, sample

A, B, C = "申请退款", "查询物流", "反馈破损"


def row(id: str, given: str | None = A, /, **probabilities: float) -> dict[str, Any]:
    """Labels are written by their letters; the one that is meant by no letter is `given`."""
    names = {"a": A, "b": B, "c": C}
    return {"id": id, "given": given, "probabilities": {names.get(k, k): p for k, p in probabilities.items()}}


def written(path: Path, rows: Sequence[object]) -> Path:
    path.write_text("".join(json.dumps(r, ensure_ascii=False) + "\n" for r in rows), encoding="utf-8")
    return path


# --- one file ------------------------------------------------------------------------------------------------


def test_a_file_is_read_in_its_order(tmp_path: Path) -> None:
    file = written(tmp_path / "p.jsonl", [row("z", A, a=0.7, b=0.3), row("y", C, b=1), row("x", B, c=0.5, a=0.5)])
    read = read_probabilities([file])
    assert read.ids == ("z", "y", "x") and set(read.labels) == {A, B, C}
    assert [read.labels[g] for g in read.given] == [A, C, B]
    rows = [dict(zip(read.labels, r, strict=True)) for r in read.students.tolist()]
    assert rows[0] == pytest.approx({A: 0.7, B: 0.3, C: 0})
    assert rows[1] == pytest.approx({A: 0, B: 1, C: 0})
    assert rows[2] == pytest.approx({A: 0.5, B: 0, C: 0.5})
    assert read.dissent.tolist() == [0, 1, 1]


def test_probabilities_are_renormalised(tmp_path: Path) -> None:
    file = written(tmp_path / "p.jsonl", [row("x", a=7, b=2, c=1), row("y", a=0.02, b=0.02), row("z", c=3)])
    assert read_probabilities([file]).students == pytest.approx(np.array([[0.7, 0.2, 0.1], [0.5, 0.5, 0], [0, 0, 1]]))


def test_scores_that_are_tiny_or_huge_are_renormalised_too(tmp_path: Path) -> None:
    scores = [(1e-50, 3e-50), (1e39, 3e39), (5e-324, 0.0), (1e307, 3e307)]
    file = written(tmp_path / "p.jsonl", [row(str(i), a=a, b=b) for i, (a, b) in enumerate(scores)])
    shares = [[0.25, 0.75], [0.25, 0.75], [1, 0], [0.25, 0.75]]
    assert read_probabilities([file]).students == pytest.approx(np.array(shares))


def test_a_label_that_no_probability_names_is_a_label_all_the_same(tmp_path: Path) -> None:
    read = read_probabilities([written(tmp_path / "p.jsonl", [row("x", "别的", a=1)])])
    assert set(read.labels) == {A, "别的"}
    assert read.students[0, read.given[0]] == 0


def test_fold_model_and_other_fields_are_allowed_and_change_nothing(tmp_path: Path) -> None:
    plain = [row("x", a=0.7, b=0.3), row("y", B, a=1)]
    rich = [r | {"fold": 3, "model": "qwen/2", "note": {"deep": [1, None]}, "verdict": "?"} for r in plain]
    one, other = (read_probabilities([written(tmp_path / n, r)]) for n, r in (("p", plain), ("q", rich)))
    assert one.ids == other.ids and (one.students == other.students).all()


def test_blank_lines_and_windows_line_ends_are_no_lines(tmp_path: Path) -> None:
    file = tmp_path / "p.jsonl"
    lines = [json.dumps(row("x", a=1)), "", "  ", json.dumps(row("y", B, b=1)), ""]
    file.write_bytes("\r\n".join(lines).encode())
    assert read_probabilities([file]).ids == ("x", "y")


# --- several files -------------------------------------------------------------------------------------------


def test_files_are_averaged_and_dissent_counts_files(tmp_path: Path) -> None:
    files = [
        written(tmp_path / "1", [row("x", a=0.9, b=0.1), row("y", B, a=1)]),
        written(tmp_path / "2", [row("x", a=0.4, b=0.6), row("y", B, a=0.9, b=0.1)]),
        # Not renormalised, and with a label of its own: it must not weigh more than the others.
        written(tmp_path / "3", [row("x", a=10, c=30), row("y", B, b=50, c=50)]),
    ]
    read = read_probabilities(files)
    assert read.labels == (A, B, C)
    assert read.students == pytest.approx(np.array([[1.55, 0.7, 0.75], [1.9, 0.6, 0.5]]) / 3, abs=1e-6)
    assert read.dissent == pytest.approx(np.array([2 / 3, 2 / 3]))


def test_the_order_of_lines_in_the_other_files_is_no_matter(tmp_path: Path) -> None:
    rng = random.Random(1)
    rows = [[row(f"x{i}", rng.choice([A, B]), a=rng.random(), b=rng.random(), c=0.1) for i in range(30)] for _ in "123"]
    for other in rows[1:]:
        for mine, first in zip(other, rows[0], strict=True):
            mine["given"] = first["given"]
    files = [written(tmp_path / str(i), r) for i, r in enumerate(rows)]
    shuffled = [files[0], *(written(tmp_path / f"s{i}", rng.sample(r, 30)) for i, r in enumerate(rows[1:]))]
    one, other = read_probabilities(files), read_probabilities(shuffled)
    assert (one.ids, one.labels) == (other.ids, other.labels)
    assert (one.students == other.students).all() and (one.dissent == other.dissent).all()


@settings(max_examples=50, deadline=None)
@given(
    st.lists(
        st.tuples(
            st.sampled_from("abc"),
            st.dictionaries(st.sampled_from("abc"), st.floats(1e-6, 1e6), min_size=1),
        ),
        min_size=1,
        max_size=8,
    )
)
def test_rows_add_up_to_one_whatever_was_written(tmp_path_factory: pytest.TempPathFactory, items: list[Any]) -> None:
    rows = [{"id": str(i), "given": g, "probabilities": p} for i, (g, p) in enumerate(items)]
    read = read_probabilities([written(tmp_path_factory.getbasetemp() / "any.jsonl", rows)])
    assert read.students.sum(axis=1) == pytest.approx(np.ones(len(rows)), abs=1e-5)
    for i, (label, probabilities) in enumerate(items):
        assert read.labels[read.given[i]] == label
        total = sum(probabilities.values())
        for name, p in zip(read.labels, read.students[i].tolist(), strict=True):
            assert p == pytest.approx(probabilities.get(name, 0) / total, abs=1e-5)


# --- faults that the command's own tests do not have (tests/flows/commands/test_correct.py has the others) ---------


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ([1, 2], "must be a JSON object"),
        ({"id": 7, "given": A, "probabilities": {A: 1}}, '"id" must be text'),
        ({"given": A, "probabilities": {A: 1}}, '"id" must be text'),
        ({"id": "y", "given": 3, "probabilities": {A: 1}}, "item 'y': \"given\" must be"),
        ({"id": "y", "given": A, "probabilities": {}}, "item 'y': \"probabilities\" must"),
        ({"id": "y", "given": A, "probabilities": [0.5, 0.5]}, "item 'y': \"probabilities\" must"),
        ({"id": "y", "given": A}, "item 'y': \"probabilities\" must"),
        ({"id": "y", "given": A, "probabilities": {A: 1e308, B: 1e308}}, "item 'y': its probabilities add up to inf"),
        ({"id": "y", "given": A, "probabilities": {A: True}}, f"item 'y': the probability of '{A}' is True"),
        ({"id": "y", "given": A, "probabilities": {A: "0.5"}}, f"item 'y': the probability of '{A}' is '0.5'"),
        ({"id": "y", "given": A, "probabilities": {A: 0.5, B: None}}, f"item 'y': the probability of '{B}' is None"),
    ],
)
def test_a_line_of_another_form_is_named(line: object, message: str, tmp_path: Path) -> None:
    file = written(tmp_path / "p.jsonl", [row("x", a=1), line, row("z", a=1)])
    with pytest.raises(JudgementError) as raised:
        read_probabilities([file])
    assert str(raised.value).startswith(f"{file}, line 2: {message}")


def test_line_numbers_count_blank_lines(tmp_path: Path) -> None:
    file = tmp_path / "p.jsonl"
    file.write_text(f"\n\n{json.dumps(row('x', a=1))}\n\n{{\n")
    with pytest.raises(JudgementError, match="line 5: not JSON"):
        read_probabilities([file])


# --- the teacher's file --------------------------------------------------------------------------------------


@pytest.fixture
def probability_file(tmp_path: Path) -> Path:
    return written(tmp_path / "p.jsonl", [row("x", a=1), row("y", B, b=1), row("z", A, a=1)])


def test_the_teacher_s_rows_come_in_the_order_of_the_items(probability_file: Path, tmp_path: Path) -> None:
    file = written(tmp_path / "t", [row("z", None, a=3, b=1), row("y", B, b=1), {"id": "x", "probabilities": {B: 2}}])
    teacher = read_teacher(file, read_probabilities([probability_file]))
    assert teacher == pytest.approx(np.array([[0, 1, 0], [0, 1, 0], [0.75, 0.25, 0]]))


def test_neither_is_the_last_column_and_labels_of_the_teacher_s_own_are_left_out(
    probability_file: Path, tmp_path: Path
) -> None:
    rows = [
        {"id": "x", "probabilities": {A: 0.2, "没见过": 0.4, NEITHER: 0.2, B: 0.2}},
        {"id": "y", "probabilities": {"没见过": 1}},
        {"id": "z", "probabilities": {NEITHER: 1}},
    ]
    teacher = read_teacher(written(tmp_path / "t", rows), read_probabilities([probability_file]))
    assert teacher[0] == pytest.approx([1 / 3, 1 / 3, 1 / 3])
    assert np.isnan(teacher[1]).all()
    assert teacher[2] == pytest.approx([0, 0, 1])


# --- verdicts ------------------------------------------------------------------------------------------------


def test_verdicts_are_indexed_for_the_items_that_have_one(probability_file: Path) -> None:
    verdicts = {"z": B, "x": NEITHER, "of no item": A}
    assert index_verdicts(read_probabilities([probability_file]), verdicts) == {2: 1, 0: -1}


# --- from predictions ----------------------------------------------------------------------------------------


def test_runs_of_predictions_are_averaged() -> None:
    samples = [sample("x", given=A), sample("y", given=B)]
    runs = [
        {"x": prediction("x", A, probabilities={A: 0.8, B: 0.2}), "y": prediction("y", A, probabilities={A: 1.0})},
        # No probabilities: the label has them all.
        {"x": prediction("x", C), "y": prediction("y", B, probabilities={B: 3.0, C: 1.0})},
    ]
    read = judge_by_predictions(samples, runs, (A, B, C))
    assert (read.ids, read.labels, read.given.tolist()) == (("x", "y"), (A, B, C), [0, 1])
    assert read.students == pytest.approx(np.array([[0.4, 0.1, 0.5], [0.5, 0.375, 0.125]]))
    assert read.dissent.tolist() == [0.5, 0.5]


def test_an_item_without_a_usable_prediction_is_not_a_number() -> None:
    samples = [sample("x"), sample("y"), sample("z")]
    found = tabulate({"x": prediction("x", None), "z": prediction("z", B)}, samples, (A, B, C))
    assert [math.isnan(p) for p in found[:, 0]] == [True, True, False]
    assert found[2].tolist() == [0, 1, 0]


def test_who_was_never_held_out_or_never_answered_for_is_not_judged() -> None:
    samples = [sample(i) for i in ("x", "y", "z", "rare", "mute")]
    runs = [
        {s.id: prediction(s.id, None if s.id == "mute" else A) for s in samples if s.id != "rare"},
        {s.id: prediction(s.id, A) for s in samples if s.id not in ("rare", "y")},
    ]
    kept, unjudged = split_judged(samples, runs, ["rare"])
    assert [s.id for s in kept] == ["x", "z"] and unjudged.keys() == {"rare", "mute", "y"}
    assert "training set" in unjudged["rare"] and "malformed" in unjudged["mute"]


def test_labels_of_all_tasks_in_order() -> None:
    assert list_labels([sample("x", labels=("b", "a")), sample("y", labels=("c", "a"))]) == ["b", "a", "c"]


# --- second opinions --------------------------------------------------------------------------------------


def test_second_opinions_are_joined_by_their_mean_with_a_reason_for_the_same_label() -> None:
    unsure = prediction("i", "a", probabilities={"a": 0.55, "b": 0.45}, reason="像a")
    sure = prediction("i", "b", probabilities={"a": 0.05, "b": 0.95}, reason="是b")
    mute = prediction("i", None)
    joint = join_predictions([{"i": unsure}, {"i": sure, "j": sure}, {"i": mute}])
    assert (joint["i"].label, joint["i"].reason) == ("b", "是b")
    assert joint["i"].probabilities == pytest.approx({"a": 0.3, "b": 0.7})
    assert joint["j"] is sure and join_predictions([{"i": mute}])["i"] is mute
    assert join_predictions([]) == {}


def test_the_mean_of_answers_leaves_out_who_was_not_asked() -> None:
    one = np.array([[0.8, 0.2], [np.nan, np.nan], [np.nan, np.nan]], dtype=np.float32)
    other = np.array([[0.4, 0.6], [0.1, 0.9], [np.nan, np.nan]], dtype=np.float32)
    mean = average_answers([one, other])
    assert mean[:2] == pytest.approx(np.array([[0.6, 0.4], [0.1, 0.9]])) and np.isnan(mean[2]).all()
