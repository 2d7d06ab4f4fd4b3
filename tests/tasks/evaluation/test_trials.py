"""Trials: which student is trained on what, with which seed."""

from pathlib import Path

from tasks.evaluation.results import Results
from tasks.evaluation.settings import EvaluateSettings
from tasks.evaluation.trials import plan_trials
from tasks.evaluation.variants import Variant
from tasks.students.settings import StudentSpec
from tests.tasks.making import sample


def test_seeds_count_from_the_students_seed(tmp_path: Path) -> None:
    item = sample("a", task="dialogue")
    results = Results(labelled={"a": item}, pool={}, reasons={}, pseudo={}, corrections={}, emitted=())
    settings = EvaluateSettings(variants=(Variant.RAW,), seeds=2)
    student = StudentSpec(base="Qwen/Qwen2-VL-2B-Instruct", seed=7)
    trials = plan_trials(settings, student, results, {}, "demo", {}, tmp_path)
    assert [t.seed for t in trials] == [t.steps[0].spec.seed for t in trials] == [7, 8]
