"""A foreign trainer as our child: run to its end and watched, and never left running, whatever becomes of us."""

import contextlib
import os
import re
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import orjson

from tasks.models.engines.vllm import guard

_POLL_SECONDS = 0.3
_GUARD_PATIENCE = guard.PATIENCE_SECONDS + 10.0
_LINES = 8
_LONGEST = 300
_ERROR = re.compile(r"^(?:[\w.]+\.)?[A-Z]\w*(?:Error|Exception|Exit)\b")
_STEP_KEY = "global_step/max_steps"


class TimedOut(Exception):
    """The child took longer than it was given."""


def run_child(
    command: Sequence[str],
    folder: Path,
    environment: Mapping[str, str],
    timeout_seconds: float | None,
    look: Callable[[], None],
) -> int:
    """Run `command`, its output to folder/train.log; returns its exit code (above 191: 256 − signal).

    `look` is called several times a second meanwhile. Between us and the child stands the engines' guard, so that the
    whole family ends when we are killed; what outlived the guard too is ended by the next run in the same folder.
    Raises TimedOut; then, and whatever `look` raises, the family is ended first.
    """
    record = folder / "process" / "trainer.json"
    record.parent.mkdir(parents=True, exist_ok=True)
    with (folder / "train.log").open("ab") as sink:
        child = subprocess.Popen(
            # -P: the folder of the script holds modules whose names are none of its business
            [sys.executable, "-P", guard.__file__, str(record), str(os.getpid()), *command],
            env=dict(environment),
            stdin=subprocess.DEVNULL,
            stdout=sink,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    deadline = None if timeout_seconds is None else time.monotonic() + timeout_seconds
    try:
        while (code := child.poll()) is None:
            if deadline is not None and time.monotonic() > deadline:
                raise TimedOut
            look()
            with contextlib.suppress(subprocess.TimeoutExpired):
                child.wait(_POLL_SECONDS)
        return code
    finally:
        _end(child, record)


def end_leftovers(folder: Path) -> None:
    """End what a killed run has left running in `folder`."""
    guard.end_orphans(folder / "process")


def ending(code: int) -> str:
    """What an exit code of `run_child` says."""
    return f"was killed by signal {256 - code}" if code > 191 else f"ended with exit code {code}"


def tail(log: Path) -> str:
    """The last error of a log, where it shows one, and its last lines; of a progress bar the last state."""
    text = log.read_bytes().decode("utf-8", errors="replace") if log.exists() else ""
    lines = [line.rstrip().rsplit("\r", 1)[-1][:_LONGEST] for line in text.split("\n")]
    lines = [line for line in lines if line.strip()]
    errors = [line for line in lines if _ERROR.match(line)]
    return "\n".join([*errors[-1:], *(f"  {line}" for line in lines[-_LINES:])])


def training_log(output: Path) -> list[tuple[int, int, float]]:
    """(step, steps in all, loss) of each line of the trainer's own log under `output`, so far as it has one.

    Read are LLaMA-Factory's trainer_log.jsonl, ms-swift's logging.jsonl and, where there is neither, the newest
    trainer_state.json of transformers' trainer.
    """
    files = [f for name in ("trainer_log.jsonl", "logging.jsonl") for f in output.rglob(name)]
    if files:
        lines = [_parsed(line) for line in max(files, key=_age).read_bytes().splitlines()]
        return [entry for line in lines if (entry := _entry(line)) is not None]
    states = sorted(output.rglob("trainer_state.json"), key=_age)
    state = _parsed(states[-1].read_bytes()) if states else {}
    total, history = state.get("max_steps", 0), state.get("log_history", [])
    return [(int(h["step"]), int(total), float(h["loss"])) for h in history if "loss" in h and "step" in h]


def _entry(line: Mapping[str, Any]) -> tuple[int, int, float] | None:
    if isinstance(steps := line.get(_STEP_KEY), str):
        done, _, total = steps.partition("/")
    else:
        done, total = line.get("current_steps"), line.get("total_steps")
    try:
        return int(done or ""), int(total or ""), float(line["loss"])
    except (KeyError, TypeError, ValueError):
        return None


def _parsed(line: bytes) -> dict[str, Any]:
    """The JSON object; {} for a line that is half written."""
    try:
        value: Any = orjson.loads(line)
    except orjson.JSONDecodeError:
        return {}
    return cast(dict[str, Any], value) if isinstance(value, dict) else {}


def _age(file: Path) -> int:
    return file.stat().st_mtime_ns


def _end(child: subprocess.Popen[bytes], record: Path) -> None:
    if child.poll() is not None:
        return
    family = guard.read_record(record)
    child.terminate()
    try:
        child.wait(timeout=_GUARD_PATIENCE)
    except subprocess.TimeoutExpired:
        child.kill()
        child.wait()
    # nothing is left of it unless the guard itself was killed
    if family is not None:
        guard.end_family(family)
    record.unlink(missing_ok=True)
