"""Save checkpoints at intervals, and find the newest complete one after a training was killed.

transformers writes a checkpoint file by file under its final name, so a kill leaves an incomplete one that looks like
the newest. Here a checkpoint counts only if it has a list of its files, which is written when all are on disk.
"""

import logging
import os
import shutil
import time
from pathlib import Path
from typing import Any

import orjson
import peft
import torch
import transformers
import trl
from transformers import TrainerCallback, TrainerControl, TrainerState

from tasks.records import digest_of
from tasks.storage.files import write_bytes
from tasks.students.loss_curves import Progress

log = logging.getLogger("labelstill")

KEPT = 2
"""Number of checkpoints to keep. transformers deletes old ones before the new one has its list, so if only one
were kept, a kill could lose all."""

_LIST = "files.json"


def find_newest_checkpoint(work: Path, recipe: str) -> Path | None:
    """Return the checkpoint in `work` to resume from, or None.

    `work` is deleted first unless it was made by the same recipe with the same library versions.
    """
    versions = [module.__version__ for module in (torch, transformers, trl, peft)]
    name = digest_of([recipe, versions])
    if (work / name).exists():
        return _find_newest_complete(work / "trainer")
    shutil.rmtree(work, ignore_errors=True)
    write_bytes(work / name, b"")
    return None


FIRST_SECONDS = 1.0
"""Seconds of training before the first checkpoint."""
SAVING_SHARE = 0.05
"""Largest share of the time that is spent on later checkpoints: large models are saved less often than small ones."""


class Watch(TrainerCallback):
    """Reports progress, triggers checkpoints, and counts the seconds of training across resumptions."""

    def __init__(self, progress: Progress) -> None:
        self._progress, self._pause = progress, FIRST_SECONDS
        self._began = self._saved = self._stepped = time.monotonic()
        self._spent_before = self._waited = 0.0
        self._loss = float("nan")

    @property
    def spent(self) -> float:
        """Return the training time so far in seconds, excluding time lost when a run was killed."""
        return self._spent_before + time.monotonic() - self._began

    @property
    def waiting_share(self) -> float:
        """Return the share of the training time that was spent waiting for batches."""
        return self._waited / max(self.spent, 1e-9)

    def add_waiting(self, seconds: float) -> None:
        """Add time that was spent waiting for a batch."""
        self._waited += seconds

    def on_train_begin(self, args: Any, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        self._began = self._saved = time.monotonic()
        if state.log_history:
            self._spent_before = float(state.log_history[-1]["seconds"])
            self._waited = float(state.log_history[-1]["seconds_waiting"])

    def on_log(self, args: Any, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        entry: dict[str, float] = state.log_history[-1]
        self._loss = entry.get("loss", self._loss)
        # the log is part of each checkpoint, so that a resumed training knows its earlier seconds
        entry["seconds"] = round(self.spent, 3)
        entry["seconds_waiting"] = round(self._waited, 3)

    def on_step_end(self, args: Any, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        self._progress(state.global_step, state.max_steps, self._loss)
        self._stepped = time.monotonic()
        if state.global_step < state.max_steps and self._stepped - self._saved > self._pause:
            control.should_save = True

    def on_save(self, args: Any, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        _write_file_list(Path(args.output_dir) / f"checkpoint-{state.global_step}")
        self._saved = time.monotonic()
        self._pause = max(FIRST_SECONDS, (self._saved - self._stepped) / SAVING_SHARE)


def _find_newest_complete(folder: Path) -> Path | None:
    """Return the newest complete checkpoint under `folder`, or None; delete incomplete ones."""
    complete: list[Path] = []
    for checkpoint in sorted(folder.glob("checkpoint-*"), key=_get_step):
        if _is_complete(checkpoint):
            complete.append(checkpoint)
        else:
            log.info("deleted %s, which was incomplete when the training was killed", checkpoint.name)
            shutil.rmtree(checkpoint)
    return complete[-1] if complete else None


def _write_file_list(checkpoint: Path) -> None:
    files = sorted(f for f in checkpoint.rglob("*") if f.is_file() and f.name != _LIST)
    for file in files:
        with file.open("rb") as handle:
            os.fsync(handle.fileno())
    write_bytes(checkpoint / _LIST, orjson.dumps({str(f.relative_to(checkpoint)): f.stat().st_size for f in files}))


def _is_complete(checkpoint: Path) -> bool:
    try:
        sizes: dict[str, int] = orjson.loads((checkpoint / _LIST).read_bytes())
        return all((checkpoint / name).stat().st_size == size for name, size in sizes.items())
    except (OSError, ValueError):
        return False


def _get_step(checkpoint: Path) -> int:
    return int(checkpoint.name.rpartition("-")[2])
