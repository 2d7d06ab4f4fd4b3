import math
import os
import resource
import shutil
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from threading import Thread

import pandas
import pytest

from tasks.errors import LedgerError
from tasks.models.ledger.ledger import NOT_KEPT, Ledger
from tasks.records import FreeText, Generation, Outcome, Request
from tests.tasks.making import generation
from tests.tasks.questions import keep, question

ROOT = Path(__file__).resolve().parents[3]


def start(script: str, *arguments: object, **options: object) -> "subprocess.Popen[str]":
    """Start a child process that runs `script` with an open ledger."""
    head = (
        "import sys, time\nfrom pathlib import Path\nfrom tasks.models.ledger.ledger import Ledger\n"
        "from tests.tasks.questions import keep\nledger = Ledger(Path(sys.argv[1]))\n"
    )
    command = [sys.executable, "-c", head + script, *map(str, arguments)]
    return subprocess.Popen(command, cwd=ROOT, text=True, stdout=-1, stderr=-1, **options)  # type: ignore[call-overload]


def together(works: Iterable[Callable[[], None]]) -> None:
    threads = [Thread(target=work) for work in works]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def numbers(*span: int) -> list[str]:
    return [str(number) for number in range(*span)]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "deep" / "ledger.sqlite"


# --- what is kept --------------------------------------------------------------------------------------------


def test_an_answer_comes_back_as_it_was_in_this_run_and_the_next(path: Path) -> None:
    whole = {
        "texts": ("理由：“漏”\n", "二"),
        "label_logprobs": {"商品页": -0.1, "b": -2.5},
        "tokens_in": 7,
        "engine": "e",
    }
    with Ledger(path) as ledger:
        kept = keep(ledger, **whole)
        assert ledger.get(["k", "unknown"]) == {"k": kept}
    with Ledger(path) as ledger:
        assert ledger.get(iter(["k", "unknown"])) == {"k": kept}
        assert len(ledger) == 1


def test_questions_and_answers_are_read_with_plain_pandas(path: Path) -> None:
    asked = [question("a"), question("b", constraint=FreeText(), suffix="为什么？\x00\u2028'\"", parts=())]
    with Ledger(path) as ledger:
        answers = [generation(r.key, engine="server/m", tokens_in=5, tokens_out=2, seconds=1.5) for r in asked]
        for request, answer in zip(asked, answers, strict=True):
            ledger.put(request, answer)
    connection = sqlite3.connect(path)
    frame = pandas.read_sql("SELECT * FROM questions ORDER BY key", connection)
    connection.close()
    assert [Request.model_validate_json(text) for text in frame["request"]] == asked
    assert [Generation.model_validate_json(text) for text in frame["generation"]] == answers
    assert list(frame["sample_id"]) == ["sample-a", "sample-b"]
    assert frame.groupby(["purpose", "outcome", "engine"])["tokens_in"].sum()["classify", "ok", "server/m"] == 10
    assert (frame["tokens_out"].sum(), frame["seconds"].sum()) == (4, 3.0)
    assert (pandas.Timestamp.now("UTC") - pandas.to_datetime(frame["at"], unit="s", utc=True)).max().seconds < 60


def test_texts_shared_by_requests_are_stored_once(path: Path) -> None:
    with Ledger(path) as ledger:
        for key in numbers(500):
            ledger.put(question(key, prefix="说明" * 20_000), generation(key))
    assert path.stat().st_size < 1 << 20
    connection = sqlite3.connect(path)
    assert connection.execute("SELECT COUNT(*) FROM texts").fetchone() == (3,)
    connection.close()


def test_infinite_numbers_and_lone_surrogates_are_kept(path: Path) -> None:
    half, infinite = generation("half", texts=("a\ud800b",)), {"x": -math.inf, "y": 0.0}
    with Ledger(path) as ledger:
        ledger.put(question("half", sample_id="s\ud800"), half)
        keep(ledger, "infinite", label_logprobs=infinite)
    with Ledger(path) as ledger:
        found = ledger.get(["half", "infinite"])
    assert found["half"].texts == ("a?b",)
    assert found["infinite"].label_logprobs == infinite


def test_thousands_of_keys_are_looked_up_at_once(path: Path) -> None:
    with Ledger(path) as ledger:
        for key in numbers(1800):
            keep(ledger, key)
        ledger.flush()
        assert set(ledger.get(numbers(-100, 2000))) == set(numbers(1800))


def test_answers_that_may_differ_next_time_are_not_kept(path: Path) -> None:
    with Ledger(path) as ledger:
        for outcome in Outcome:
            keep(ledger, outcome, outcome=outcome)
        lost = set(Outcome) - set(ledger.get(Outcome))
    assert lost == {Outcome.FAILED, Outcome.TOO_LONG, Outcome.BAD_MEDIA} == NOT_KEPT


def test_the_first_answer_to_a_key_is_kept(path: Path) -> None:
    with Ledger(path) as one, Ledger(path) as two:
        for ledger, text in ((one, "first"), (one, "again"), (two, "second")):
            keep(ledger, texts=(text,))
            ledger.flush()
        keep(two, "other", texts=("first",))
        keep(two, "other", texts=("second",))
        for ledger in (two, one):
            ledger.flush()
            assert {g.texts for g in ledger.get(["k", "other"]).values()} == {("first",)}
        assert len(one) == 2


def test_an_answer_to_another_request_is_refused(path: Path) -> None:
    with Ledger(path) as ledger, pytest.raises(ValueError, match="was given for the request"):
        ledger.put(question("a"), generation("b"))


# --- when it is kept -----------------------------------------------------------------------------------------


def test_an_answer_is_on_disk_after_a_second_though_no_other_follows(path: Path) -> None:
    with Ledger(path) as ledger, Ledger(path) as other:
        keep(ledger, "a")
        keep(ledger, "b")
        deadline = time.monotonic() + 5
        while len(other.get(["a", "b"])) < 2 and time.monotonic() < deadline:
            time.sleep(0.05)
        assert set(other.get(["a", "b"])) == {"a", "b"}


def test_neither_put_nor_get_waits_for_another_runs_write(path: Path) -> None:
    with Ledger(path) as ledger:
        keep(ledger, "old")
        ledger.flush()
        other = sqlite3.connect(path, isolation_level=None)
        other.execute("BEGIN IMMEDIATE")
        keep(ledger, "first")
        time.sleep(1.3)  # by now the ledger's thread waits for the lock
        began = time.monotonic()
        for key in numbers(1000):
            keep(ledger, key)
        assert len(ledger.get(["old", "first", *numbers(1000)])) == 1002
        assert time.monotonic() - began < 10  # waiting for the lock takes LOCK_SECONDS, 60
        other.execute("ROLLBACK")
        other.close()
        ledger.flush()
        assert len(ledger) == 1002


def test_no_more_than_a_bounded_number_waits_in_memory(path: Path) -> None:
    with Ledger(path) as ledger, Ledger(path) as other:
        for key in numbers(12_000):
            keep(ledger, key)
        assert len(other) > 12_000 - 2 * 2_050


def test_a_killed_run_has_kept_what_is_older_than_a_second(path: Path) -> None:
    script = """
n = 0
while True:
    keep(ledger, f"{n}")
    print(f"{n} {time.monotonic()}", flush=True)
    n += 1
    time.sleep(0.02)
"""
    child = start(script, path)
    assert child.stdout is not None
    first = child.stdout.readline()
    began = float(first.split()[1])
    time.sleep(max(0.0, began + 5 - time.monotonic()))
    child.kill()
    killed = time.monotonic()
    puts = dict(line.split() for line in [first, *child.stdout.read().splitlines()] if line.count(" ") == 1)
    child.communicate()
    with Ledger(path) as ledger:
        kept = ledger.get(puts)
    old = {key for key, at in puts.items() if killed - float(at) > 3}  # one second plus two for a busy machine
    assert len(old) > 10
    assert old <= set(kept)
    assert ledger.notice == ""


def test_a_killed_run_that_was_waiting_for_its_engine_has_kept_its_last_batch(path: Path) -> None:
    child = start('for n in range(20): keep(ledger, f"{n}")\nprint("put", flush=True)\ntime.sleep(60)', path)
    assert child.stdout is not None and child.stdout.readline() == "put\n"
    time.sleep(4)  # one second plus three for a busy machine
    child.kill()
    child.communicate()
    with Ledger(path) as ledger:
        assert len(ledger) == 20


def test_closing_writes_pending_answers_and_is_safe_twice(path: Path) -> None:
    with Ledger(path) as ledger:
        keep(ledger)
        ledger.close()
    with pytest.raises(LedgerError, match="closed"):
        keep(ledger)
    with Ledger(path) as ledger:
        assert set(ledger.get(["k"])) == {"k"}


# --- several at once -----------------------------------------------------------------------------------------


def test_two_processes_with_some_of_the_same_questions(path: Path) -> None:
    script = """
for n in range(int(sys.argv[2]), int(sys.argv[2]) + 300):
    keep(ledger, f"{n}", texts=(sys.argv[2],))
    if n % 7 == 0:
        ledger.flush()
ledger.close()
"""
    children = [start(script, path, first) for first in (0, 100)]
    assert [child.communicate(timeout=60)[1] for child in children] == ["", ""]
    with Ledger(path) as ledger:
        found = ledger.get(numbers(400))
        assert len(ledger) == len(found) == 400
        assert {found[key].texts for key in numbers(100)} == {("0",)}
        assert {found[key].texts for key in numbers(300, 400)} == {("100",)}


def test_many_open_a_new_one_at_once(tmp_path: Path) -> None:
    for round in range(10):
        path, failed = tmp_path / f"{round}.sqlite", list[str]()

        def work(path: Path = path, failed: list[str] = failed) -> None:
            try:
                Ledger(path).close()
            except LedgerError as error:
                failed.append(str(error))

        together(work for _ in range(6))
        assert failed == []


def test_many_open_a_corrupt_one_at_once_and_set_it_aside_once(path: Path) -> None:
    path.parent.mkdir()
    path.write_bytes(b"junk" * 2000)
    notices = list[str]()

    def work(name: str) -> None:
        with Ledger(path) as ledger:
            notices.append(ledger.notice)
            keep(ledger, name)

    together(partial(work, name) for name in "abcdef")
    [aside] = path.parent.glob("*.corrupt-*")
    assert aside.read_bytes() == b"junk" * 2000
    assert [notice for notice in notices if notice] == [next(filter(None, notices))]
    with Ledger(path) as ledger:
        assert set(ledger.get("abcdef")) == set("abcdef")


def test_several_threads_share_one(path: Path) -> None:
    with Ledger(path) as ledger:

        def work(name: str) -> None:
            for n in range(25):
                keep(ledger, f"{name}{n}")
                ledger.flush()
                assert f"{name}{n}" in ledger.get([f"{name}{n}"])

        together(partial(work, name) for name in "abcd")
        assert len(ledger) == 100


# --- bad files and full disks --------------------------------------------------------------------------------


def test_a_file_that_is_no_ledger_is_set_aside_whole(path: Path) -> None:
    path.parent.mkdir()
    for _ in range(3):  # within the same second: each gets its own name
        path.write_bytes(b"junk" + os.urandom(5000))
        junk = path.read_bytes()
        with Ledger(path) as ledger:
            [aside] = [file for file in path.parent.glob("*.corrupt-*") if file.read_bytes() == junk]
            assert f"set aside as {aside}" in ledger.notice and "corrupt" in ledger.notice
            keep(ledger)
    with Ledger(path) as ledger:
        assert ledger.notice == "" and len(ledger) == 1
    assert len(list(path.parent.glob("*.corrupt-*"))) == 3


@pytest.mark.parametrize("version", [0, 1, 3])
def test_a_ledger_of_another_version_is_set_aside_whole(path: Path, version: int) -> None:
    path.parent.mkdir()
    other = sqlite3.connect(path)
    other.execute("PRAGMA journal_mode = WAL")
    other.execute("CREATE TABLE answers (key TEXT PRIMARY KEY, generation TEXT)")
    other.execute("INSERT INTO answers VALUES ('k', 'paid for')")
    other.execute(f"PRAGMA user_version = {version}")
    other.commit()
    other.close()
    with Ledger(path) as ledger:
        assert ledger.get(["k"]) == {}
        assert f"has version {version or 1}, expected 2" in ledger.notice
        [aside] = (
            file for file in path.parent.glob("ledger.sqlite.version-*") if not file.name.endswith(("wal", "shm"))
        )
        kept = sqlite3.connect(aside)
        assert kept.execute("SELECT generation FROM answers").fetchall() == [("paid for",)]
        kept.close()


def test_a_database_of_something_else_is_left_alone(path: Path) -> None:
    path.parent.mkdir()
    other = sqlite3.connect(path)
    other.execute("CREATE TABLE invoices (id)")
    other.close()
    before = path.read_bytes()
    with pytest.raises(LedgerError, match=r"some other database.*invoices"):
        Ledger(path)
    assert path.read_bytes() == before


@pytest.mark.parametrize("lost", [1, 2000, 4096 + 12])
def test_a_torn_tail_costs_only_itself(path: Path, tmp_path: Path, lost: int) -> None:
    torn = tmp_path / "torn.sqlite"
    with Ledger(path) as ledger:
        for key in numbers(40):
            keep(ledger, key, texts=("字" * 500,))
            ledger.flush()
        # the files as after a power cut: the log ends within a frame
        shutil.copy(path, torn)
        log = path.with_name(path.name + "-wal").read_bytes()
        torn.with_name(torn.name + "-wal").write_bytes(log[:-lost])
    with Ledger(torn) as ledger:
        assert ledger.notice == ""
        assert set(ledger.get(numbers(40))) == set(numbers(39))
        keep(ledger, "39")
    with Ledger(torn) as ledger:
        assert len(ledger) == 40


def test_a_file_broken_in_its_middle_costs_only_what_is_broken(path: Path) -> None:
    with Ledger(path) as ledger:
        for key in numbers(300):
            keep(ledger, key, texts=("字" * 300,))
    data = bytearray(path.read_bytes())
    middle = len(data) // 2 // 4096 * 4096
    data[middle : middle + 4096] = os.urandom(4096)
    path.write_bytes(data)
    with Ledger(path) as ledger:
        found = set(ledger.get(numbers(300)))
        assert 250 < len(found) < 300
        for key in set(numbers(300)) - found:
            keep(ledger, key)
        told = ledger.damage
    [aside] = path.parent.glob("*.corrupt-*")
    assert aside.read_bytes()[: len(data)] == data and f"set aside as {aside}" in told
    with Ledger(path) as ledger:
        assert len(ledger.get(numbers(300))) == 300
        assert ledger.damage == ""


def change(path: Path, statement: str, *values: object) -> None:
    other = sqlite3.connect(path)
    other.execute(statement, values)
    other.commit()
    other.close()


@pytest.mark.parametrize(
    "damage",
    [
        "generation = replace(generation, 'refund', 'regund')",
        "generation = replace(generation, '-0.1', '2.3')",
        "generation = CAST(replace(CAST(generation AS BLOB), 'ref', x'72006600') AS TEXT)",
        "generation = CAST(x'ff' || CAST(generation AS BLOB) AS TEXT)",
        "generation = x'00'",
        'generation = \'{"key": "k"}\'',
        "outcome = 'empty'",
        "tokens_in = 70",
        "tokens_out = 'x'",
        "seconds = 9.5",
        "engine = 'other'",
        "checksum = 'ff'",
        "checksum = x'ff00'",
    ],
)
def test_a_damaged_answer_is_asked_again_and_the_others_are_used(path: Path, damage: str) -> None:
    fields = {"texts": ("refund",), "label_logprobs": {"a": -0.1}, "tokens_in": 7, "seconds": 1.25}
    with Ledger(path) as ledger:
        for key in ("k", *numbers(300)):
            keep(ledger, key, **fields)
    change(path, f"UPDATE answers SET {damage} WHERE key = 'k'")
    with Ledger(path) as ledger:
        assert set(ledger.get(["k", *numbers(300)])) == set(numbers(300))
        assert "asked for again: 1" in ledger.damage
        keep(ledger, "k", **fields)
    with Ledger(path) as ledger:
        assert ledger.get(["k"])["k"].texts == ("refund",)
        assert ledger.damage == ""


def test_an_answer_with_another_key_is_not_believed(path: Path) -> None:
    with Ledger(path) as ledger:
        keep(ledger, "k")
    change(path, "UPDATE answers SET key = 'other'")
    with Ledger(path) as ledger:
        assert ledger.get(["k", "other"]) == {}
        assert "asked for again: 1" in ledger.damage


@pytest.mark.parametrize("value", [2.3, math.nan, math.inf])
def test_a_log_probability_above_zero_is_asked_again(path: Path, value: float) -> None:
    with Ledger(path) as ledger:
        keep(ledger, "wrong", label_logprobs={"a": value})
        keep(ledger, "right", label_logprobs={"a": 1e-9})
    with Ledger(path) as ledger:
        assert set(ledger.get(["wrong", "right"])) == {"right"}


def test_a_ledger_without_checksums_gets_them_and_keeps_its_answers(path: Path) -> None:
    with Ledger(path) as ledger:
        for key in numbers(40):
            keep(ledger, key, tokens_in=7, engine="e")
        keep(ledger, "image", outcome=Outcome.EMPTY)
    change(path, "DROP INDEX unchecked")
    change(path, "ALTER TABLE answers DROP COLUMN checksum")
    change(path, "UPDATE answers SET tokens_in = 8 WHERE key = '0'")
    change(path, "UPDATE answers SET generation = replace(generation, 'empty', 'bad_media'), outcome = 'bad_media' "
                 "WHERE key = 'image'")  # fmt: skip
    with Ledger(path) as ledger:
        assert ledger.notice == ""
        assert set(ledger.get(numbers(40))) == set(numbers(1, 40))
        assert "asked for again: 1" in ledger.damage
        assert ledger.get(["image"]) == {}  # earlier releases kept it, even if the server was at fault
        assert "asked for again: 1" in ledger.damage
    change(path, "UPDATE answers SET tokens_in = 8 WHERE key = '1'")
    with Ledger(path) as ledger:
        assert ledger.get(["1"]) == {}


def test_a_full_disk_is_an_error_and_what_was_kept_before_is_there(path: Path) -> None:
    script = """
from tasks.errors import LedgerError
try:
    for n in range(400):
        keep(ledger, f"{n}", texts=("x" * 4000,))
        ledger.flush()
        print(n, flush=True)
except LedgerError as error:
    print(error, file=sys.stderr)
    sys.exit(3)
"""
    child = start(script, path, preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (300_000, 300_000)))
    out, error = child.communicate(timeout=60)
    assert child.returncode == 3, error
    assert f"{path}: answers cannot be written" in error and "free disk space" in error
    written = len(out.splitlines())
    assert written > 5
    with Ledger(path) as ledger:
        assert len(ledger) >= written


def test_a_failed_background_write_is_raised_and_loses_nothing(path: Path) -> None:
    with Ledger(path) as ledger:
        keep(ledger, "first")
        thief = sqlite3.connect(path)
        thief.execute("ALTER TABLE requests RENAME TO stolen")
        with pytest.raises(LedgerError, match="answers cannot be written"):
            for key in numbers(200):  # 10 s at most
                time.sleep(0.05)
                keep(ledger, key)
        assert "first" in ledger.get(["first"])
        with pytest.raises(LedgerError, match="answers cannot be written"):
            ledger.flush()
        assert len(ledger) == 0
        thief.execute("ALTER TABLE stolen RENAME TO requests")
        thief.close()
        ledger.flush()
        keep(ledger, "after")
        assert len(ledger) == len(ledger.get(["first", *numbers(int(key) + 1)])) > 1


def test_an_unusable_path_is_named_in_the_error(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "folder").mkdir()
    for path in (tmp_path / "file" / "ledger.sqlite", tmp_path / "folder"):
        with pytest.raises(LedgerError, match=str(path)):
            Ledger(path)
