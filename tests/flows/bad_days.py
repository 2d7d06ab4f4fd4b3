"""Helpers for the fault tests (test_bad_days*.py): a run to disturb, a Prefect server, and the printed report."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pandas as pd
from prefect.client.orchestration import SyncPrefectClient
from prefect.client.schemas.objects import FlowRun

from flows.service.alerts import apply_automations
from tasks.storage.stage_record import StageRecord, read_record
from tests.conftest import ROOT, free_port
from tests.flows.small_run import small_config
from tests.flows.test_kill import count_answers, start_server

SLOW = 0.05
"""Seconds an answer takes in the light run."""
_STAGES = {"rationales": ["labelled"], "pseudo_labels": ["unlabelled"], "emit": ["labelled", "unlabelled"]}
"""The light run's stages, and the sets that each reads."""
_RUN = """
import json, sys
from pathlib import Path
from tests.flows.small_run import dump_config, small_config
from flows.distill import distill
from flows.config import DistillConfig
folder, slow, changes = Path(sys.argv[1]), float(sys.argv[2]), json.loads(sys.argv[3])
plain = dump_config(small_config(folder, slow=slow)) | {"student": None} | changes
distill(DistillConfig.model_validate(plain))
"""


def start_light(
    folder: Path, environment: dict[str, str] | None = None, slow: float = SLOW, **changes: object
) -> subprocess.Popen[bytes]:
    """Start the small run without students as a process of its own, its log in `folder`/log.txt."""
    small_config(folder, slow=slow)
    with (folder / "log.txt").open("ab") as log:
        return subprocess.Popen(
            [sys.executable, "-c", _RUN, str(folder), str(slow), json.dumps(changes)],
            cwd=ROOT,
            env=environment,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )


@dataclass
class OwnServer:
    """A Prefect server with a home and port of its own; `environment` is for the processes that use it."""

    home: Path
    port: int = field(default_factory=free_port)
    environment: dict[str, str] = field(default_factory=dict[str, str])
    _process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it (again), and wait until it answers."""
        self._process, self.environment = start_server(self.home, self.port)

    def stop(self) -> None:
        """Stop it as a person would; may be called twice."""
        if self._process is not None and self._process.poll() is None:
            os.killpg(self._process.pid, signal.SIGTERM)
            self._process.wait(timeout=60)

    def runs(self) -> list[FlowRun]:
        """All flow runs that it knows."""
        with SyncPrefectClient(f"http://127.0.0.1:{self.port}/api") as client:
            return client.read_flow_runs(limit=200)

    def states(self, name: str = "") -> list[str]:
        """The states of the flow runs whose name begins so, sorted."""
        return sorted(run.state_name or "" for run in self.runs() if run.name.startswith(name))


@contextmanager
def run_own_server(home: Path) -> Iterator[OwnServer]:
    """A started server that ends with the block."""
    server = OwnServer(home)
    try:
        server.start()
        with SyncPrefectClient(f"http://127.0.0.1:{server.port}/api") as client:
            apply_automations(client)  # the heartbeats' mark what an outage leaves Running
        yield server
    finally:
        server.stop()


def wait_for(moment: Callable[[], bool], seconds: float = 300, process: subprocess.Popen[bytes] | None = None) -> None:
    """Poll until `moment()`; fails when `process` ends before, or after `seconds`."""
    deadline = time.monotonic() + seconds
    while not moment():
        assert process is None or process.poll() is None, "ended before the moment"
        assert time.monotonic() < deadline, "the moment never came"
        time.sleep(0.05)


def read_records(output: Path) -> dict[str, StageRecord]:
    """The records of the light run's stages; fails when one is not finished."""
    found = {stage: read_record(output / stage) for stage in _STAGES}
    assert all(found.values()), [stage for stage, record in found.items() if record is None]
    return {stage: record for stage, record in found.items() if record is not None}


def count_reasked_answers(folder: Path, before: int = 0, since: float = 0.0, *, ledger: Path | None = None) -> int:
    """Questions asked though the ledger had the answer: `before`, the answers at the last run's start, and what the
    stages' records say that were finished `since` then (seconds since 1970), against the answers there are."""
    asked = sum(record.costs.asked for record in read_records(folder / "run").values() if record.finished_at >= since)
    return before + asked - count_answers(folder if ledger is None else ledger.parent)


def count_lost_items(output: Path) -> int:
    """Return the number of items of the light run that a stage has in neither of its files."""
    missing = 0
    for stage, splits in _STAGES.items():
        read = {s for split in splits for s in pd.read_parquet(output / f"samples/{split}/kept.parquet")["id"]}
        files = [pd.read_parquet(output / stage / f"{name}.parquet") for name in ("kept", "dropped")]
        missing += len(read - {s for frame in files for s in frame["sample_id"]})
    return missing


def read_log(folder: Path) -> str:
    """Return the log of the runs under `folder`."""
    return (folder / "log.txt").read_text(encoding="utf-8", errors="replace")


def find_in_log(folder: Path, pattern: str) -> str:
    """The first line of the runs' log that matches, without time and logger; fails when there is none."""
    found = next((line for line in read_log(folder).splitlines() if re.search(pattern, line)), None)
    assert found is not None, f"no line says {pattern!r}:\n{read_log(folder)[-3000:]}"
    return found.rsplit(" - ", 1)[-1].strip()


def print_report(fault: str, seen: str, again: int, missing: int) -> None:
    """Print the line of the table: fault, what the user sees, items asked again, items lost."""
    print(f"\n| {fault} | {seen} | {again} | {missing} |")
