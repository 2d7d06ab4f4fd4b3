"""The sets of `make bench-correction` are what their settings say, and it sees a command break its promises."""

import json
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from tests.benchmarks.correction import scoring
from tests.benchmarks.correction.command import correct
from tests.benchmarks.correction.latent import NEITHER, NOISE
from tests.benchmarks.correction.noisy_sets import NoisySet, Setting, item_id, make, write
from tests.benchmarks.correction.report import goal
from tests.benchmarks.correction.settings import QUICK, SETTINGS
from tests.benchmarks.correction.students import Student

PLAIN = Setting("plain", "symmetric", 0.2, (Student(blur=0.5),), items=2000)

STAND_IN = """
import argparse, json
parser = argparse.ArgumentParser()
for name in ("probabilities", "reviews", "verdicts", "seed", "out"):
    parser.add_argument("--" + name)
options = parser.parse_args()
with open(options.probabilities) as lines, open(options.out, "w") as out:
    for number, line in enumerate(lines):
        item = json.loads(line)
        row = {"id": item["id"], "given": item["given"], "flagged": number == 0, "reviewed": False, "action": "keep"}
        row |= {"label": item["given"], "p_given": 0.5, "p_candidate": 0.25, "p_neither": 0.25, "suspicion": -number}
        if number == 0:
            row |= WRONG
        out.write(json.dumps(row) + chr(10))
print(json.dumps({"reviews": 0}))
"""


def student_right(noisy: NoisySet) -> float:
    """How often the student names the truth of items whose label is wrong."""
    wrong = (noisy.given != noisy.truth) & (noisy.truth != NEITHER)
    return float((noisy.mean.argmax(1) == noisy.truth)[wrong].mean())


def test_the_settings_cover_every_noise_and_rate() -> None:
    names = [setting.name for setting in SETTINGS]
    assert len(set(names)) == len(names) >= 20
    assert set(QUICK) <= set(names)
    for noise in NOISE:
        assert {0.05, 0.1, 0.2, 0.4} <= {setting.rate for setting in SETTINGS if setting.noise == noise}


@pytest.mark.parametrize("noise", NOISE)
@pytest.mark.parametrize("rate", [0.0, 0.05, 0.4])
def test_as_many_labels_are_wrong_as_asked(noise: str, rate: float) -> None:
    noisy = make(replace(PLAIN, noise=noise, rate=rate, unusable=0.1), seed=0)
    usable = noisy.truth != NEITHER
    assert (~usable).sum() == 200
    wrong = (noisy.given != noisy.truth)[usable].mean()
    # Class-dependent rates are drawn per class, from 0.4 to 1.6 of the rate and at most 0.46.
    assert wrong == pytest.approx(rate, rel=0.25 if noise == "class-dependent" else 0.12, abs=1e-9)


def test_the_same_seed_makes_the_same_set() -> None:
    setting = replace(PLAIN, students=(Student("network"),), items=300)
    one, same, other = make(setting, 3), make(setting, 3), make(setting, 4)
    assert (one.given == same.given).all() and (one.mean == same.mean).all()
    assert (one.truth != other.truth).any()


def test_classes_are_as_unequal_as_asked() -> None:
    counts = np.bincount(make(replace(PLAIN, imbalance=30.0), seed=0).truth)
    assert counts[0] / counts[-1] > 8 and counts.min() >= 6


@pytest.mark.parametrize("kind", ["simulated", "logistic"])
def test_human_errors_mislead_students_more_than_random_ones(kind: str) -> None:
    students = (Student(kind, blur=0.8),)  # type: ignore[arg-type]
    random, human = (student_right(make(replace(PLAIN, noise=n, students=students), 0)) for n in NOISE if "cl" not in n)
    assert human < random - 0.08


def test_a_student_that_shares_peoples_view_repeats_their_errors() -> None:
    setting = replace(PLAIN, noise="human-like")
    apart, alike = (make(replace(setting, students=(Student(blur=1.0, shared=s),)), 0) for s in (0.0, 0.9))
    assert student_right(alike) < student_right(apart) - 0.05


def test_students_learn_from_the_noisy_labels() -> None:
    noisy = make(replace(PLAIN, noise="class-dependent", rate=0.4, students=(Student("logistic", 0.5),)), 0)
    clean = make(replace(PLAIN, noise="class-dependent", rate=0.0, students=(Student("logistic", 0.5),)), 0)
    right = [float((each.mean.argmax(1) == each.truth).mean()) for each in (noisy, clean)]
    assert right[0] < right[1] - 0.1


def test_temperature_changes_how_sure_a_student_is_and_nothing_else() -> None:
    sets = [make(replace(PLAIN, students=(Student(blur=0.8, temperature=t),)), 0) for t in (0.3, 1.0, 3.0)]
    sure = [float(each.mean.max(1).mean()) for each in sets]
    assert sure[0] > sure[1] + 0.02 > sure[2] + 0.2
    assert all((each.mean.argmax(1) == sets[0].mean.argmax(1)).mean() > 0.999 for each in sets)


def test_a_second_student_of_the_same_kin_errs_with_the_first() -> None:
    def errors_together(kin: float) -> float:
        students = (Student(), Student(kin=kin))
        noisy = make(replace(PLAIN, students=students), 0)
        first, second = (each.probabilities.argmax(1) != noisy.truth for each in noisy.students)
        return float((first & second).sum() / first.sum())

    assert errors_together(0.7) > errors_together(0.0) + 0.15


def test_the_files_say_what_the_set_says(tmp_path: Path) -> None:
    students = (Student("logistic"), Student(temperature=0.05))
    noisy = make(replace(PLAIN, items=200, unusable=0.1, students=students, teacher=Student("zero-shot")), 1)
    files = write(noisy, tmp_path)
    assert len(files.probabilities) == 2 and files.teacher
    shortest = len(noisy.names)
    for path, student in zip(files.probabilities, noisy.students, strict=True):
        rows = [json.loads(line) for line in path.read_text().splitlines()]
        assert [row["id"] for row in rows] == [item_id(number) for number in range(200)]
        assert [noisy.names.index(row["given"]) for row in rows] == noisy.given.tolist()
        read = np.array([[row["probabilities"].get(name, 0.0) for name in noisy.names] for row in rows])
        assert np.abs(read - student.probabilities).max() < 1e-5
        shortest = min(len(row["probabilities"]) for row in rows)
    assert shortest < len(noisy.names)
    verdicts = [json.loads(line)["verdict"] for line in files.verdicts.read_text().splitlines()]
    assert verdicts == ["neither" if truth == NEITHER else noisy.names[truth] for truth in noisy.truth]
    assert verdicts.count("neither") == 20


def test_a_usable_item_that_was_dropped_counts_as_wrong() -> None:
    truth = np.array([0, 1, 2, NEITHER])
    assert scoring.accuracy(np.array([0, 1, NEITHER, NEITHER]), truth) == pytest.approx(2 / 3)
    assert scoring.accuracy(np.array([0, 1, 2, 1]), truth) == 1


def test_the_best_threshold_in_hindsight_is_never_beaten() -> None:
    rng = np.random.default_rng(0)
    wrong = rng.random(500) < 0.2
    ranking = wrong + rng.normal(size=500)
    tried = [scoring.f1(ranking >= threshold, wrong) for threshold in ranking]
    assert scoring.best_f1(ranking, wrong) == pytest.approx(max(tried))
    assert np.isnan(scoring.f1(wrong, np.zeros(500, bool)))


def test_goals_are_judged() -> None:
    assert goal("F1", 0.84, 0.84, at_most=False).endswith(" met") and "NOT" not in goal("F1", 0.84, 0.84, at_most=False)
    assert goal("seconds", 121, 120, at_most=True).endswith("NOT MET")


@pytest.mark.parametrize(
    "wrong, message",
    [
        ({"action": "relabel"}, "action 'relabel' with label"),
        ({"action": "drop"}, "action 'drop' with label"),
        ({"action": "review", "label": None}, "action 'review' with label None"),
        ({"reviewed": True}, "1 items reviewed, 0 reported"),
        ({"id": "item-1"}, "input order"),
        ({"p_given": 0.9}, "probabilities"),
        ({"suspicion": None}, "suspicion None"),
    ],
)
def test_a_broken_promise_of_the_command_is_found(wrong: dict[str, object], message: str, tmp_path: Path) -> None:
    noisy = make(replace(PLAIN, items=100, classes=12), 0)
    files = write(noisy, tmp_path)
    script = tmp_path / "stand_in.py"

    def say(row: dict[str, object]) -> None:
        script.write_text(f"WRONG = {row!r}" + STAND_IN)

    command = (sys.executable, str(script))
    say({})
    kept = correct(noisy, files, reviews=0, command=command)
    assert (kept.labels == noisy.given).all() and kept.flagged.sum() == 1 and kept.peak_mib > 1
    say(wrong)
    with pytest.raises(ValueError, match=message):
        correct(noisy, files, reviews=0, command=command)


def test_a_command_that_fails_is_quoted(tmp_path: Path) -> None:
    noisy = make(replace(PLAIN, items=100), 0)
    with pytest.raises(RuntimeError, match="no such thing"):
        correct(
            noisy,
            write(noisy, tmp_path),
            reviews=0,
            command=(sys.executable, "-c", "raise SystemExit('no such thing')"),
        )
