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
from prefect import flow
from prefect.client.orchestration import SyncPrefectClient
from prefect.client.schemas.filters import FlowRunFilter, FlowRunFilterName
from pydantic import BaseModel

from flows.run_lock import hold_output, lock_output, read_holder
from tasks.errors import AccountError, ConfigError, EngineError, TooManyFailures
from tests.conftest import ROOT, PrefectServer

_HOLD = """
import sys, time
from pathlib import Path
from flows.run_lock import lock_output
with lock_output(Path(sys.argv[1]), "the first"):
    print("has it", flush=True)
    sys.stdin.readline()
print("gave it back", flush=True)
"""


@contextmanager
def lock_in_other_process(output: Path) -> Iterator[subprocess.Popen[str]]:
    """Start another process that locks `output` until it gets a line or is killed."""
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


def release(process: subprocess.Popen[str]) -> None:
    assert process.stdin is not None
    process.stdin.write("\n")
    process.stdin.flush()


def test_a_second_process_waits_names_the_holder_and_continues(tmp_path: Path) -> None:
    output, said = tmp_path / "not" / "there yet", list[str]()
    with lock_in_other_process(output) as first:

        def say(line: str) -> None:
            said.append(line)
            if len(said) == 3:
                release(first)

        began = time.monotonic()
        with lock_output(output, "the second", say, every=0.5):
            assert first.wait(timeout=10) == 0
            assert json.loads((output / ".run.json").read_bytes())["run"] == "the second"
    assert time.monotonic() - began > 1.0
    *waiting, last = said
    assert len(waiting) >= 3
    for line in waiting:
        assert f"run 'the first' (host {socket.gethostname()}, pid {first.pid}), since 20" in line
        assert str(output) in line
    assert "is free" in last
    assert read_holder(output) is None


def test_a_killed_holder_releases_the_lock(tmp_path: Path) -> None:
    with lock_in_other_process(tmp_path) as first:
        os.kill(first.pid, signal.SIGKILL)
        first.wait()
        assert read_holder(tmp_path) is not None  # its note stays, and is believed by nobody
        said: list[str] = []
        with lock_output(tmp_path, "the second", said.append):
            holder = read_holder(tmp_path)
            assert holder is not None
            assert (holder.run, holder.pid) == ("the second", os.getpid())
        assert said == []


def test_a_stage_does_not_wait_for_its_parent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    said: list[str] = []
    with lock_output(tmp_path / "out", "distill", said.append):
        with lock_output(Path("out"), "rationales", said.append):
            pass
        holder = read_holder(tmp_path / "out")
        assert holder is not None
        assert holder.run == "distill"  # still held, by the outer one
        locked = f"from filelock import FileLock; FileLock({str(tmp_path / 'out' / '.run.lock')!r}).acquire(timeout=0)"
        assert subprocess.run([sys.executable, "-c", locked], capture_output=True).returncode != 0
    assert said == []


def test_an_error_releases_the_lock(tmp_path: Path) -> None:
    with pytest.raises(KeyError), lock_output(tmp_path, "fails"):
        raise KeyError
    with lock_in_other_process(tmp_path):
        pass


def test_a_folder_that_cannot_be_created_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ConfigError, match=r"output: .*/file/out can't be written \(Not a directory\)"):  # noqa: SIM117
        with lock_output(tmp_path / "file" / "out", "run"):
            pass


class Config(BaseModel):
    output: Path


@flow(retries=2, retry_delay_seconds=0, flow_run_name="fails in {config.output.name}")
@hold_output
def fails(config: Config, error: str) -> None:
    """Record the attempt and the lock's holder, then fail."""
    holder = read_holder(config.output)
    with (config.output / "tries").open("a") as file:
        print(holder.run if holder else "nobody", file=file)
    raise _ERRORS[error]("as asked")


_ERRORS = {
    "config": ConfigError, "failures": TooManyFailures, "account": AccountError,
    "engine": EngineError, "foreign": ConnectionError,
}  # fmt: skip


@flow(retries=1, retry_delay_seconds=0, flow_run_name="larger")
@hold_output
def larger(config: Config) -> None:
    """A flow whose stage fails."""
    fails(config, "engine")


def read_attempts(output: Path) -> list[str]:
    return (output / "tries").read_text().splitlines()


@pytest.mark.parametrize("error", ["config", "failures", "account"])
def test_an_error_that_would_occur_again_is_not_retried(
    prefect_server: PrefectServer, tmp_path: Path, error: str
) -> None:
    with pytest.raises(_ERRORS[error], match="as asked"):
        fails(Config(output=tmp_path), error)
    assert read_attempts(tmp_path) == [f"fails in {tmp_path.name}"]


@pytest.mark.parametrize("error", ["engine", "foreign"])
def test_other_errors_are_retried_as_configured(prefect_server: PrefectServer, tmp_path: Path, error: str) -> None:
    with pytest.raises((EngineError, ConnectionError)):
        fails(Config(output=tmp_path), error)
    assert read_attempts(tmp_path) == [f"fails in {tmp_path.name}"] * 3


def test_a_stage_is_retried_only_with_its_parent(prefect_server: PrefectServer, tmp_path: Path) -> None:
    with pytest.raises(EngineError):
        larger(Config(output=tmp_path))
    assert read_attempts(tmp_path) == ["larger"] * 2
    with SyncPrefectClient(prefect_server.api_url) as client:
        named = FlowRunFilter(name=FlowRunFilterName(any_=["larger"]))
        assert [run.run_count for run in client.read_flow_runs(flow_run_filter=named)] == [2]


def test_the_flow_keeps_its_signature_and_description() -> None:
    assert set(fails.parameters.properties) == {"config", "error"}
    assert fails.description is not None
    assert fails.description.startswith("Record the attempt")
