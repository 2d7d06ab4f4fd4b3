from collections import Counter
from pathlib import Path

import pytest

import tasks.dataset.shuffling
from tasks.dataset.shuffling import shuffled
from tasks.records import Example, Message, Origin
from tests.tasks.making import image


def example(number: int) -> Example:
    messages = (Message(role="user", content="<image>\r\n \u2028"), Message(role="assistant", content="“答”"))
    return Example(
        sample_id=f"s{number}",
        messages=messages,
        images=(image(),),
        label="x",
        origin=Origin.GIVEN,
        why="w",
        source="f",
    )


def order(count: int, seed: int, folder: Path) -> list[str]:
    return [e.sample_id for e in shuffled(map(example, range(count)), count, seed, folder)]


def test_the_seed_decides_the_order(tmp_path: Path) -> None:
    first = order(50, 1, tmp_path)
    assert sorted(first) == sorted(f"s{i}" for i in range(50))
    assert first == order(50, 1, tmp_path) != order(50, 2, tmp_path)
    assert first != [f"s{i}" for i in range(50)]
    assert order(0, 1, tmp_path) == []


def test_examples_come_back_whole_and_no_file_is_left(tmp_path: Path) -> None:
    (tmp_path / ".shuffle").mkdir()
    (tmp_path / ".shuffle" / "7").write_text("left by a killed run")
    assert set(shuffled(map(example, range(20)), 20, 1, tmp_path)) == {example(i) for i in range(20)}
    assert list(tmp_path.iterdir()) == []


def test_through_many_files_every_order_is_as_likely(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tasks.dataset.shuffling, "_A_FILE", 2)
    found = Counter("".join(order(3, seed, tmp_path)) for seed in range(120))
    assert len(found) == 6
    assert min(found.values()) >= 8


@pytest.mark.parametrize("claimed", [4, 6])
def test_another_count_than_said_is_an_error(tmp_path: Path, claimed: int) -> None:
    with pytest.raises(ValueError, match=r"shorter|longer"):
        list(shuffled(map(example, range(5)), claimed, 1, tmp_path))
