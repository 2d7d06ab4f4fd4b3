"""How far a set moved, and from where on that is too far."""

from pathlib import Path

import pytest

from tasks.dataset.drift import Drift, Release, judge_release, measure_drift
from tasks.dataset.settings import ApprovalSettings, DriftSettings
from tasks.dataset.versions import Snapshot, open_snapshot
from tasks.records import Example, Message, Origin, Subset
from tests.tasks.dataset.making import record_version

NOTHING = DriftSettings(relabelled=0, removed=0, balance=0, confidence=0)


def record(folder: Path, labels: dict[str, str]) -> Snapshot:
    """A recorded set of these labels by id."""
    examples = [
        Example(
            sample_id=name, label=label, reason="", origin=Origin.PSEUDO, why="teacher", source="pool.json",
            task="dialogue", subset=Subset.TRAIN, images=(),
            messages=(Message(role="user", content=name), Message(role="assistant", content=label)),
        )
        for name, label in labels.items()
    ]  # fmt: skip
    record_version(folder, "recipe", examples)
    return open_snapshot(str(folder))


def test_the_first_version_is_never_too_far(tmp_path: Path) -> None:
    drift = measure_drift(None, record(tmp_path, {"a": "x"}), (None, 0.1))
    assert (drift.before, drift.after, drift.added) == (0, 1, 1)
    assert drift.list_exceeded(NOTHING) == ()


def test_counts_balance_and_confidence(tmp_path: Path) -> None:
    before = record(tmp_path / "a", {"1": "x", "2": "x", "3": "y", "4": "y"})
    after = record(tmp_path / "b", {"2": "y", "3": "y", "4": "y", "5": "y", "6": "x"})
    drift = measure_drift(before, after, (0.95, 0.9))
    assert (drift.added, drift.removed, drift.relabelled) == (2, 1, 1)
    assert drift.balance == pytest.approx(0.3)  # half x before, a fifth now
    assert drift.confidence == pytest.approx(-0.05)
    assert [(c.id, c.before and c.before.label, c.after and c.after.label) for c in drift.changed] == [("2", "x", "y")]


@pytest.mark.parametrize(
    ("limits", "sentence"),
    [
        (DriftSettings(relabelled=0.3), "labels changed: 33.3 % (limit 30 %)"),
        (DriftSettings(removed=0.2), "items gone: 25.0 % (limit 20 %)"),
        (DriftSettings(balance=0.2), "class balance moved: 30.0 % (limit 20 %)"),
        (DriftSettings(confidence=0.04), "mean expected precision fell: 5.0 % (limit 4 %)"),
    ],
)
def test_each_exceeded_limit_gives_a_sentence(limits: DriftSettings, sentence: str) -> None:
    drift = Drift(before=4, after=5, added=2, removed=1, relabelled=1, balance=0.3, confidence=-0.05, changed=())
    wide = DriftSettings(relabelled=1, removed=1, balance=1, confidence=1)
    assert drift.list_exceeded(wide) == ()
    assert sentence in drift.list_exceeded(limits)


def test_unknown_confidence_holds_nothing_back(tmp_path: Path) -> None:
    same = record(tmp_path, {"1": "x"})
    drift = measure_drift(same, same, (None, 0.2))
    assert drift.confidence is None
    assert drift.list_exceeded(NOTHING) == ()


@pytest.mark.parametrize(
    ("relabelled", "ask", "approved", "release"),
    [
        pytest.param(0, "never", False, Release.PUBLISH, id="little has changed"),
        pytest.param(3, "never", False, Release.HOLD_BACK, id="too much has changed"),
        pytest.param(3, "drift", False, Release.ASK, id="a person is asked about that"),
        pytest.param(0, "drift", False, Release.PUBLISH, id="nobody is asked without need"),
        pytest.param(0, "always", False, Release.ASK, id="every version is put before a person"),
        pytest.param(3, "always", True, Release.PUBLISH, id="approved before the run was broken off"),
    ],
)
def test_new_versions_are_released(relabelled: int, ask: str, approved: bool, release: Release) -> None:
    drift = Drift(before=4, after=4, added=0, removed=0, relabelled=relabelled, balance=0, confidence=0, changed=())
    approval = ApprovalSettings.model_validate({"ask": ask})
    found, against = judge_release(drift, DriftSettings(), approval, approved=approved)
    assert found is release
    assert bool(against) == bool(relabelled)


def test_an_empty_set_is_never_published() -> None:
    drift = Drift(before=4, after=0, added=0, removed=4, relabelled=0, balance=0, confidence=0, changed=())
    found = judge_release(drift, DriftSettings(removed=1), ApprovalSettings(), approved=True)
    assert found == (Release.HOLD_BACK, ("nothing is left to train on",))
