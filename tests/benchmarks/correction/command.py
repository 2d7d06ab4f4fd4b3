"""`labelstill find-errors` as a user runs it: a process, files in, a file out; what came out is checked here."""

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import orjson
from numpy.typing import NDArray

from tests.benchmarks.correction.latent import NEITHER, Floats, Ints
from tests.benchmarks.correction.noisy_sets import Files, NoisySet, item_id
from tests.stub_server import ROOT

COMMAND = (sys.executable, "-m", "flows.commands.main", "find-errors")


@dataclass(frozen=True)
class Corrected:
    """What the command said, in input order: all [N]; `labels` are class numbers, NEITHER where it dropped the item.

    `seconds` is the wall time and `peak_mib` the largest resident set of its process; Linux counts in what the starting
    process had, so it is never below the benchmark's own (about 300 MiB with the real set).
    """

    flagged: NDArray[np.bool_]
    reviewed: NDArray[np.bool_]
    labels: Ints
    suspicion: Floats
    summary: dict[str, Any]
    seconds: float
    peak_mib: float


def correct(
    noisy: NoisySet, files: Files, *, reviews: int, seed: int = 0, command: Sequence[str] = COMMAND
) -> Corrected:
    """Run the command. Raises RuntimeError when it fails, ValueError when its output is not what it promises."""
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "out.jsonl"
        arguments = [word for path in files.probabilities for word in ("--probabilities", str(path))]
        if files.teacher:
            arguments += ["--teacher", str(files.teacher)]
        if reviews:
            arguments += ["--reviews", str(reviews), "--verdicts", str(files.verdicts)]
        line, seconds, peak = _run([*command, *arguments, "--seed", str(seed), "--out", str(out)])
        rows = [orjson.loads(row) for row in out.read_bytes().splitlines()]
    summary = json.loads(line)
    _check(noisy, rows, summary, reviews)
    numbers = {name: number for number, name in enumerate(noisy.names)} | {None: NEITHER}
    return Corrected(
        flagged=np.array([row["flagged"] for row in rows]),
        reviewed=np.array([row["reviewed"] for row in rows]),
        labels=np.array([numbers[row["label"]] for row in rows]),
        suspicion=np.array([row["suspicion"] for row in rows], dtype=float),
        summary=summary,
        seconds=seconds,
        peak_mib=peak,
    )


def _run(words: list[str]) -> tuple[str, float, float]:
    """The last line of standard output, wall seconds, and the process's own peak in MiB."""
    with tempfile.TemporaryFile() as stdout, tempfile.TemporaryFile() as stderr:
        start = time.perf_counter()
        process = subprocess.Popen(words, cwd=ROOT, stdout=stdout, stderr=stderr)
        # Not RUSAGE_CHILDREN: that is the largest of all children so far.
        _, status, used = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        seconds = time.perf_counter() - start
        stdout.seek(0)
        stderr.seek(0)
        said, complained = stdout.read().decode(), stderr.read().decode()
    if process.returncode:
        raise RuntimeError(f"{' '.join(words)} failed:\n{said[-2000:]}\n{complained[-4000:]}")
    return said.strip().splitlines()[-1], seconds, used.ru_maxrss / 1024


def _check(noisy: NoisySet, rows: list[dict[str, Any]], summary: dict[str, Any], reviews: int) -> None:
    """The promises of the command's contract that need no truth."""
    count = len(noisy.given)
    if [row["id"] for row in rows] != [item_id(number) for number in range(count)]:
        raise ValueError("The output does not have the items in input order")
    reviewed = sum(row["reviewed"] for row in rows)
    if reviewed != summary["reviews"] or reviewed > reviews:
        raise ValueError(f"{reviewed} items reviewed, {summary['reviews']} reported, {reviews} allowed")
    for number, row in enumerate(rows):
        given, truth = noisy.names[noisy.given[number]], noisy.truth[number]
        if row["given"] != given:
            raise ValueError(f"{row['id']}: given {row['given']!r} instead of {given!r}")
        action, label = row["action"], row["label"]
        fits = {
            "keep": label == given,
            "review": label == given,
            "drop": label is None,
            "relabel": label is not None and label != given,
        }
        if not fits.get(action, False):
            raise ValueError(f"{row['id']}: action {action!r} with label {label!r}, given {given!r}")
        if row["reviewed"] and label != (None if truth == NEITHER else noisy.names[truth]):
            raise ValueError(f"{row['id']}: a person said {truth}, the label is {label!r}")
        shares = [row[name] for name in ("p_given", "p_candidate", "p_neither")]
        if not all(0 <= share <= 1 for share in shares) or sum(shares) > 1 + 1e-3:
            raise ValueError(f"{row['id']}: probabilities {shares}")
        if not isinstance(row["suspicion"], (int, float)):
            raise ValueError(f"{row['id']}: suspicion {row['suspicion']!r}")
