"""How far a set moved, and from where on that is too far."""

from pathlib import Path

import pytest

from tasks.dataset.drift import Drift, Limits, drift_between
from tasks.dataset.snapshots import Snapshot, open_snapshot
from tasks.dataset.versions import record_version
from tasks.records import Example, Message, Origin, Subset


def version(folder: Path, labels: dict[str, str]) -> Snapshot:
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
    drift = drift_between(None, version(tmp_path, {"a": "x"}), (None, 0.1))
    assert (drift.before, drift.after, drift.added) == (0, 1, 1)
    assert drift.beyond(Limits(0, 0, 0, 0)) == ()


def test_counts_balance_and_confidence(tmp_path: Path) -> None:
    before = version(tmp_path / "a", {"1": "x", "2": "x", "3": "y", "4": "y"})
    after = version(tmp_path / "b", {"2": "y", "3": "y", "4": "y", "5": "y", "6": "x"})
    drift = drift_between(before, after, (0.95, 0.9))
    assert (drift.added, drift.removed, drift.relabelled) == (2, 1, 1)
    assert drift.balance == pytest.approx(0.3)  # half x before, a fifth now
    assert drift.confidence == pytest.approx(-0.05)
    assert [(c.id, c.before and c.before.label, c.after and c.after.label) for c in drift.changed] == [("2", "x", "y")]


@pytest.mark.parametrize(
    ("limits", "said"),
    [
        (Limits(relabelled=0.3), "labels changed: 33.3 % (limit 30 %)"),
        (Limits(removed=0.2), "items gone: 25.0 % (limit 20 %)"),
        (Limits(balance=0.2), "class balance moved: 30.0 % (limit 20 %)"),
        (Limits(confidence=0.04), "mean expected precision fell: 5.0 % (limit 4 %)"),
    ],
)
def test_each_limit_is_said(limits: Limits, said: str) -> None:
    drift = Drift(before=4, after=5, added=2, removed=1, relabelled=1, balance=0.3, confidence=-0.05, changed=())
    wide = Limits(relabelled=1, removed=1, balance=1, confidence=1)
    assert drift.beyond(wide) == ()
    assert said in drift.beyond(limits)


def test_what_is_not_known_of_confidence_holds_nothing_back(tmp_path: Path) -> None:
    same = version(tmp_path, {"1": "x"})
    drift = drift_between(same, same, (None, 0.2))
    assert drift.confidence is None
    assert drift.beyond(Limits(0, 0, 0, 0)) == ()
