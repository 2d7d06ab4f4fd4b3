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

import pytest

from tasks.errors import LedgerError
from tasks.ledger import Ledger
from tasks.records import Outcome
from tests.tasks.making import generation

ROOT = Path(__file__).parent.parent.parent


def start(script: str, *arguments: object, **options: object) -> "subprocess.Popen[str]":
    """A child that runs `script` with a ledger open on its first argument."""
    head = (
        "import sys, time\nfrom pathlib import Path\nfrom tasks.ledger import Ledger\n"
        "from tests.tasks.making import generation\nledger = Ledger(Path(sys.argv[1]))\n"
    )
    command = [sys.executable, "-c", head + script, *map(str, arguments)]
    return subprocess.Popen(command, cwd=ROOT, text=True, stdout=-1, stderr=-1, **options)  # type: ignore[call-overload]


def together(works: Iterable[Callable[[], None]]) -> None:
    threads = [Thread(target=work) for work in works]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "deep" / "ledger.sqlite"


def test_an_answer_comes_back_as_it_was_in_this_run_and_the_next(path: Path) -> None:
    whole = generation(
        texts=("理由：“漏”\n", "二"), label_logprobs={"商品页": -0.1, "b": -2.5}, tokens_in=7, seconds=0.25, engine="e"
    )
    with Ledger(path) as ledger:
        ledger.put(whole)
        assert ledger.get(["k", "unknown"]) == {"k": whole}
    with Ledger(path) as ledger:
        assert ledger.get(iter(["k", "unknown"])) == {"k": whole}
        assert len(ledger) == 1


def test_thousands_of_keys_are_looked_up_at_once(path: Path) -> None:
    with Ledger(path) as ledger:
        for number in range(1800):
            ledger.put(generation(str(number)))
        ledger.flush()
        assert len(ledger.get(str(n) for n in range(-100, 2000))) == 1800


def test_what_failed_is_asked_again_and_other_bad_outcomes_are_not(path: Path) -> None:
    with Ledger(path) as ledger:
        for outcome in Outcome:
            ledger.put(generation(outcome, outcome=outcome))
        assert set(Outcome) - set(ledger.get(Outcome)) == {Outcome.FAILED}


def test_the_first_answer_stands(path: Path) -> None:
    with Ledger(path) as one, Ledger(path) as two:
        for ledger, text in ((one, "first"), (two, "second")):
            ledger.put(generation(texts=(text,)))
            ledger.flush()
        assert one.get(["k"]) == two.get(["k"]) == {"k": generation(texts=("first",))}


def test_an_answer_is_on_disk_after_a_second_though_no_other_follows(path: Path) -> None:
    with Ledger(path) as ledger, Ledger(path) as other:
        ledger.put(generation("a"))
        ledger.put(generation("b"))
        deadline = time.monotonic() + 5
        while len(other.get(["a", "b"])) < 2 and time.monotonic() < deadline:
            time.sleep(0.05)
        assert set(other.get(["a", "b"])) == {"a", "b"}


def test_a_killed_run_has_kept_what_is_older_than_a_second(path: Path) -> None:
    script = """
n = 0
while True:
    ledger.put(generation(f"{n}"))
    print(f"{n} {time.monotonic()}", flush=True)
    n += 1
    time.sleep(0.02)
"""
    child = start(script, path)
    assert child.stdout is not None
    first = child.stdout.readline()
    began = float(first.split()[1])
    time.sleep(max(0.0, began + 2.4 - time.monotonic()))
    child.kill()
    killed = time.monotonic()
    puts = dict(line.split() for line in [first, *child.stdout.read().splitlines()] if line.count(" ") == 1)
    child.communicate()
    with Ledger(path) as ledger:
        kept = ledger.get(puts)
    old = {key for key, at in puts.items() if killed - float(at) > 1.2}
    assert len(old) > 10
    assert old <= set(kept)
    assert ledger.set_aside is None


def test_a_killed_run_that_was_waiting_for_its_engine_has_kept_its_last_batch(path: Path) -> None:
    child = start('for n in range(20): ledger.put(generation(f"{n}"))\nprint("put", flush=True)\ntime.sleep(60)', path)
    assert child.stdout is not None and child.stdout.readline() == "put\n"
    time.sleep(1.8)
    child.kill()
    child.communicate()
    with Ledger(path) as ledger:
        assert len(ledger) == 20


def test_two_processes_write_at_once(path: Path) -> None:
    script = """
for n in range(300):
    ledger.put(generation(f"{sys.argv[2]}{n % 200}"))
    if n % 3 == 0:
        ledger.flush()
ledger.close()
"""
    children = [start(script, path, name) for name in ("mine", "yours")]
    assert [child.communicate(timeout=60)[1] for child in children] == ["", ""]
    with Ledger(path) as ledger:
        assert len(ledger) == 400


def test_many_open_a_new_one_at_once(tmp_path: Path) -> None:
    for round in range(20):
        path, failed = tmp_path / f"{round}.sqlite", list[str]()

        def work(path: Path = path, failed: list[str] = failed) -> None:
            try:
                Ledger(path).close()
            except LedgerError as error:
                failed.append(str(error))

        together(work for _ in range(6))
        assert failed == []


def test_several_threads_share_one(path: Path) -> None:
    with Ledger(path) as ledger:

        def work(name: str) -> None:
            for n in range(50):
                ledger.put(generation(f"{name}{n}"))
                ledger.flush()
                assert f"{name}{n}" in ledger.get([f"{name}{n}"])

        together(partial(work, name) for name in "abcd")
        assert len(ledger) == 200


def test_a_file_that_is_no_ledger_is_set_aside_whole(path: Path) -> None:
    path.parent.mkdir()
    junk = os.urandom(5000)
    path.write_bytes(junk)
    with Ledger(path) as ledger:
        assert ledger.set_aside is not None
        assert ledger.set_aside.read_bytes() == junk
        ledger.put(generation())
    with Ledger(path) as ledger:
        assert ledger.set_aside is None and len(ledger) == 1


def test_a_torn_tail_costs_only_itself(path: Path, tmp_path: Path) -> None:
    torn = tmp_path / "torn.sqlite"
    with Ledger(path) as ledger:
        for number in range(40):
            ledger.put(generation(str(number), texts=("字" * 500,)))
            ledger.flush()
        # The files as a power cut would leave them: the log's last page is half written.
        shutil.copy(path, torn)
        log = path.with_name(path.name + "-wal").read_bytes()
        torn.with_name(torn.name + "-wal").write_bytes(log[:-2000])
    with Ledger(torn) as ledger:
        assert ledger.set_aside is None
        assert 35 <= len(ledger) < 40
        assert set(ledger.get(str(n) for n in range(35))) == {str(n) for n in range(35)}


def test_a_file_broken_in_its_middle_is_an_error_that_says_what_to_do(path: Path) -> None:
    with Ledger(path) as ledger:
        for number in range(300):
            ledger.put(generation(str(number), texts=("字" * 300,)))
    data = bytearray(path.read_bytes())
    data[8192:-4096] = os.urandom(len(data) - 8192 - 4096)
    path.write_bytes(data)
    with Ledger(path) as ledger, pytest.raises(LedgerError, match=r"ledger\.sqlite: .*move the file away"):
        ledger.get(str(n) for n in range(300))


def test_a_full_disk_is_an_error_and_what_was_kept_before_is_there(path: Path) -> None:
    script = """
from tasks.errors import LedgerError
try:
    for n in range(400):
        ledger.put(generation(f"{n}", texts=("x" * 4000,)))
        ledger.flush()
        print(n, flush=True)
except LedgerError as error:
    print(error, file=sys.stderr)
    sys.exit(3)
"""
    child = start(script, path, preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (300_000, 300_000)))
    out, error = child.communicate(timeout=60)
    assert child.returncode == 3, error
    assert f"{path}: answers can't be written" in error and "free disk space" in error
    written = len(out.splitlines())
    assert written > 5
    with Ledger(path) as ledger:
        assert len(ledger) >= written


def test_answers_wait_in_memory_while_the_disk_refuses(path: Path) -> None:
    with Ledger(path) as ledger:
        ledger.put(generation())
        thief = sqlite3.connect(path)
        thief.execute("ALTER TABLE answers RENAME TO stolen")
        with pytest.raises(LedgerError, match="answers can't be written"):
            ledger.flush()
        thief.execute("ALTER TABLE stolen RENAME TO answers")
        thief.close()
        ledger.flush()
        assert len(ledger) == 1


def test_a_place_that_is_none_is_an_error_that_names_it(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for path in (tmp_path / "file" / "ledger.sqlite", tmp_path):
        with pytest.raises(LedgerError, match=str(path)):
            Ledger(path)


def test_closing_twice_is_safe(path: Path) -> None:
    with Ledger(path) as ledger:
        ledger.close()
