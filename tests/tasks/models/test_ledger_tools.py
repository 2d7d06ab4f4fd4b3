import sqlite3
from pathlib import Path

import pytest

from tasks.errors import LedgerError
from tasks.models.ledger.ledger import Ledger
from tasks.models.ledger.tools import Choice, find_last_prune, find_prunable, prune, read_stats
from tasks.records import Outcome, Request
from tests.tasks.making import generation
from tests.tasks.questions import question

ROOT = Path(__file__).resolve().parents[3]
DAY = 86_400


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Six answers: four by the teacher (one refused, two of them rationales), two by a student."""
    path = tmp_path / "ledger.sqlite"
    rows = [
        ("a", "classify", Outcome.OK, "server/teacher"),
        ("b", "classify", Outcome.EMPTY, "server/teacher"),
        ("c", "rationale", Outcome.OK, "server/teacher"),
        ("d", "rationale", Outcome.OK, "server/teacher"),
        ("e", "classify", Outcome.OK, "local/student"),
        ("f", "classify", Outcome.OK, "local/student"),
    ]
    with Ledger(path) as ledger:
        for key, purpose, outcome, engine in rows:
            request = question(key, purpose=purpose, suffix=f'\n{purpose},"{engine}"\n')
            answer = generation(
                key, outcome=outcome, engine=engine, tokens_in=100, tokens_cached=60, tokens_out=7, seconds=0.5
            )
            ledger.put(request, answer)
    return path


def change(path: Path, statement: str, *values: object) -> None:
    connection = sqlite3.connect(path)
    connection.execute(statement, values)
    connection.commit()
    connection.close()


def keys(path: Path) -> set[str]:
    with Ledger(path) as ledger:
        return set(ledger.get("abcdef"))


# --- stats ---------------------------------------------------------------------------------------------------


def test_stats_add_up_by_purpose_model_and_outcome(path: Path) -> None:
    change(path, "UPDATE answers SET at = 5.0 WHERE key = 'c'")
    change(path, "UPDATE answers SET at = 9e9 WHERE key = 'e'")
    found = read_stats(path)
    groups = [(g.purpose, g.engine, g.outcome, g.rows) for g in found.groups]
    assert groups == [
        ("classify", "local/student", "ok", 2),
        ("rationale", "server/teacher", "ok", 2),
        ("classify", "server/teacher", "empty", 1),
        ("classify", "server/teacher", "ok", 1),
    ]
    assert (found.rows, found.oldest, found.newest, found.size) == (6, 5.0, 9e9, path.stat().st_size)
    first = found.groups[0]
    assert (first.tokens_in, first.tokens_cached, first.tokens_out, first.seconds) == (200, 120, 14, 1.0)


def test_stats_of_an_empty_ledger(tmp_path: Path) -> None:
    Ledger(tmp_path / "new.sqlite").close()
    found = read_stats(tmp_path / "new.sqlite")
    assert (found.rows, found.oldest, found.groups) == (0, None, ())


def test_a_missing_ledger_is_an_error_and_stays_missing(tmp_path: Path) -> None:
    missing = tmp_path / "none.sqlite"
    for work in (read_stats, lambda p: prune(p, Choice(purpose="classify"))):
        with pytest.raises(LedgerError, match=r"none\.sqlite: there is no ledger"):
            work(missing)
    assert list(tmp_path.iterdir()) == []


def test_a_file_that_is_no_ledger_is_an_error_and_left_alone(tmp_path: Path) -> None:
    junk, other = tmp_path / "junk.sqlite", tmp_path / "other.sqlite"
    junk.write_bytes(b"junk" * 1000)
    change(other, "CREATE TABLE answers (key)")
    for path, message in ((junk, "not a database"), (other, "expected 2; pass another file")):
        before = path.read_bytes()
        with pytest.raises(LedgerError, match=message):
            read_stats(path)
        assert path.read_bytes() == before


# --- prune ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("choice", "left"),
    [
        (Choice(purpose="rationale"), "abef"),
        (Choice(model="teach"), "ef"),
        (Choice(outcome=Outcome.EMPTY), "acdef"),
        (Choice(model="student", outcome=Outcome.EMPTY), "abcdef"),
        (Choice(purpose="classify", model="teacher"), "cdef"),
        (Choice(before=10 * DAY), "bcdef"),
        (Choice(purpose="class_fy"), "abcdef"),
        (Choice(model="%"), "abcdef"),
    ],
)
def test_what_meets_all_conditions_is_deleted(path: Path, choice: Choice, left: str) -> None:
    change(path, "UPDATE answers SET at = ? WHERE key = 'a'", 9 * DAY)
    assert find_prunable(path, choice).rows == 6 - len(left)
    assert keys(path) == set("abcdef")
    assert prune(path, choice)[0] == 6 - len(left)
    assert keys(path) == set(left)
    connection = sqlite3.connect(path)
    assert connection.execute("SELECT COUNT(*) FROM requests").fetchone() == (len(left),)
    assert connection.execute("SELECT COUNT(*) FROM questions WHERE request IS NULL").fetchone() == (0,)
    connection.close()


def test_pruning_everything_needs_a_condition(path: Path) -> None:
    for work in (prune, find_prunable):
        with pytest.raises(LedgerError, match="say which answers to delete"):
            work(path, Choice())
    assert keys(path) == set("abcdef")


def test_prune_releases_space_and_texts_during_a_run(tmp_path: Path) -> None:
    path = tmp_path / "ledger.sqlite"
    prefixes = {"old": "旧" * 30_000, "new": "新" * 30_000}
    with Ledger(path) as ledger:
        for purpose, prefix in prefixes.items():
            for n in range(300):
                request = question(
                    f"{purpose}{n}", purpose=purpose, prefix=prefix, suffix="字" * 3000 + purpose + str(n)
                )
                ledger.put(request, generation(request.key))
        ledger.flush()
        before = read_stats(path).size
        rows, freed = prune(path, Choice(purpose="old"))
        assert rows == 300
        assert freed == before - read_stats(path).size > before * 0.4
        # the run has stored the old prefix before; its next answer must store it again
        again = question("again", prefix=prefixes["old"])
        ledger.put(again, generation("again"))
    connection = sqlite3.connect(path)
    texts = connection.execute("SELECT COUNT(*) FROM texts").fetchone()[0]
    (text,) = connection.execute("SELECT request FROM questions WHERE key = 'again'").fetchone()
    assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    connection.close()
    assert texts == 2 + 1 + 300 + 1  # prefixes, the constraint, suffixes of `new` and of `again`
    assert Request.model_validate_json(text) == again


def test_the_last_prune_of_a_model_is_remembered(path: Path, tmp_path: Path) -> None:
    assert find_last_prune(path, ["teacher@main"]) == 0
    prune(path, Choice(model="teacher"))
    assert find_last_prune(path, ["teacher@main"]) > find_last_prune(path, ["student#ab12+fold0#cd34"]) == 0
    prune(path, Choice(purpose="classify"))
    assert find_last_prune(path, ["other@main", "student@main"]) > find_last_prune(path, ["teacher@main"]) > 0
    assert find_last_prune(path, []) == find_last_prune(tmp_path / "none.sqlite", ["teacher@main"]) == 0


def test_a_prune_that_deletes_nothing_is_not_remembered(path: Path) -> None:
    prune(path, Choice(model="unknown"))
    assert find_last_prune(path, ["teacher@main", "student@main"]) == 0


def test_answers_are_pruned_from_a_ledger_of_an_earlier_release(path: Path) -> None:
    for table in ("prunes", "models"):
        change(path, f"DROP TABLE {table}")
    assert find_last_prune(path, ["teacher@main"]) == 0
    assert prune(path, Choice(model="teacher"))[0] == 4
    assert find_last_prune(path, ["teacher@main"]) > 0
