import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from flows.run_lock import holder_of, output_lock
from tasks.errors import ConfigError
from tests.conftest import ROOT

_HOLD = """
import sys, time
from pathlib import Path
from flows.run_lock import output_lock
with output_lock(Path(sys.argv[1]), "the first"):
    print("has it", flush=True)
    sys.stdin.readline()
print("gave it back", flush=True)
"""


@contextmanager
def another_holding(output: Path) -> Iterator[subprocess.Popen[str]]:
    """Another process that holds `output` until a line comes, or it is killed."""
    process = subprocess.Popen(
        [sys.executable, "-c", _HOLD, str(output)], cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    with process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == "has it\n"
            yield process
        finally:
            process.kill()


def give_back(process: subprocess.Popen[str]) -> None:
    assert process.stdin is not None
    process.stdin.write("\n")
    process.stdin.flush()


def test_a_second_process_waits_says_for_whom_and_goes_on(tmp_path: Path) -> None:
    output, said = tmp_path / "not" / "there yet", list[str]()
    with another_holding(output) as first:

        def say(line: str) -> None:
            said.append(line)
            if len(said) == 3:
                give_back(first)

        began = time.monotonic()
        with output_lock(output, "the second", say, every=0.5):
            assert first.wait(timeout=10) == 0
            assert json.loads((output / ".run.json").read_bytes())["run"] == "the second"
    assert time.monotonic() - began > 1.0
    *waiting, last = said
    assert len(waiting) >= 3
    for line in waiting:
        assert f"run 'the first' (host {socket.gethostname()}, pid {first.pid}), since 20" in line
        assert str(output) in line
    assert "is free" in last
    assert holder_of(output) is None


def test_a_killed_holder_frees_it(tmp_path: Path) -> None:
    with another_holding(tmp_path) as first:
        os.kill(first.pid, signal.SIGKILL)
        first.wait()
        assert holder_of(tmp_path) is not None  # its note stays, and is believed by nobody
        said: list[str] = []
        with output_lock(tmp_path, "the second", said.append):
            holder = holder_of(tmp_path)
            assert holder is not None
            assert (holder.run, holder.pid) == ("the second", os.getpid())
        assert said == []


def test_a_stage_does_not_wait_for_its_parent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    said: list[str] = []
    with output_lock(tmp_path / "out", "distill", said.append):
        with output_lock(Path("out"), "rationales", said.append):
            pass
        holder = holder_of(tmp_path / "out")
        assert holder is not None
        assert holder.run == "distill"  # still held, by the outer one
        locked = f"from filelock import FileLock; FileLock({str(tmp_path / 'out' / '.run.lock')!r}).acquire(timeout=0)"
        assert subprocess.run([sys.executable, "-c", locked], capture_output=True).returncode != 0
    assert said == []


def test_what_fails_inside_frees_it(tmp_path: Path) -> None:
    with pytest.raises(KeyError), output_lock(tmp_path, "fails"):
        raise KeyError
    with another_holding(tmp_path):
        pass


def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ConfigError, match=r"output: .*/file/out can't be written \(Not a directory\)"):  # noqa: SIM117
        with output_lock(tmp_path / "file" / "out", "run"):
            pass
