"""Environments of the peers under `.peers/`, and running a measured client in one, or in our own."""

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import asdict
from hashlib import sha256
from pathlib import Path
from statistics import median
from typing import Any

from tests.benchmarks.clients.meter import Task
from tests.stub_server import ROOT, Running

QUIET = {
    **{"TELEMETRY_ENABLED": "false", "LITELLM_LOCAL_MODEL_COST_MAP": "True", "CURATOR_DISABLE_RICH_DISPLAY": "1"},
    **{"OPENAI_API_KEY": "none", "HF_HUB_OFFLINE": "1", "HF_HUB_DISABLE_TELEMETRY": "1", "DO_NOT_TRACK": "1"},
    **{"OMP_NUM_THREADS": "1"},
}
"""Nobody phones home, and nobody asks a hub for prices or tokenizers."""


def python_of(peer: str) -> Path:
    """The interpreter of the environment with `requirements/peers-<peer>.txt`, made on first use."""
    wanted = ROOT / "requirements" / f"peers-{peer}.txt"
    folder = ROOT / ".peers" / peer
    python = folder / "bin" / "python"
    stamp = folder / f"made-from-{sha256(wanted.read_bytes()).hexdigest()[:16]}"
    if not stamp.exists():
        print(f"Installing {wanted.name} into .peers/{peer}", flush=True)
        uv = str(ROOT / ".venv/bin/uv")
        subprocess.run([uv, "venv", "--quiet", "--clear", "--python", sys.executable, str(folder)], check=True)
        subprocess.run([uv, "pip", "sync", "--quiet", "--python", str(python), str(wanted)], check=True)
        stamp.touch()
    return python


def measure(client: str, stub: Running, *, peer: str | None = None, target: int = 0, **fields: Any) -> dict[str, float]:
    """Run `tests.benchmarks.clients.<client>`, in our environment or a peer's; its figures and the stub's of that time.

    `cpu`, `wall` and `stub_cpu` are milliseconds an item. Raises RuntimeError with what the client said when it fails.
    """
    python = python_of(peer) if peer else Path(sys.executable)
    stub.clear()
    # Not in memory: what is measured is durable.
    with tempfile.TemporaryDirectory(dir=_disk()) as folder:
        task = Task(url=stub.url, folder=folder, **fields)
        command = [str(python), "-m", f"tests.benchmarks.clients.{client}", json.dumps(asdict(task))]
        environment = {**os.environ, **QUIET, "HOME": folder}
        ended = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    if ended.returncode != 0:
        raise RuntimeError(f"{client} failed:\n{ended.stdout[-2000:]}\n{ended.stderr[-4000:]}")
    figures = json.loads(ended.stdout.strip().splitlines()[-1])
    stats = stub.stats(target)
    if stats["items"] != figures["count"]:
        raise RuntimeError(f"{client} asked {stats['items']} of {figures['count']} items")
    each = 1000 / figures["count"]
    times = {"cpu": figures["cpu"] * each, "wall": figures["wall"] * each, "stub_cpu": stats["cpu_seconds"] * each}
    return stats | figures | times


def medians(rounds: list[dict[str, float]], names: tuple[str, ...]) -> Mapping[str, float]:
    """The median of each named figure."""
    return {name: median(r[name] for r in rounds) for name in names}


def verdict(what: str, ratio: float, goal: float, *, at_most: bool) -> str:
    """One line: a ratio beside its goal."""
    met = ratio <= goal if at_most else ratio >= goal
    return f"  {what}: {ratio:.3g} (goal {'≤' if at_most else '≥'} {goal:g}): {'met' if met else 'NOT MET'}"


def _disk() -> Path:
    folder = ROOT / ".peers"
    folder.mkdir(exist_ok=True)
    return folder
