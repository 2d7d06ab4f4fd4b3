"""The benchmark for a GPU is rehearsed, so that it works on the day when there is one."""

import subprocess
import sys
from pathlib import Path

import pytest


@pytest.mark.slow
def test_the_gpu_benchmark_runs_on_a_small_model() -> None:
    script = Path(__file__).parent / "benchmarks" / "gpu.py"
    done = subprocess.run([sys.executable, str(script), "--rehearse"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.count("of the ceiling") == 6, done.stdout
    assert "fold 1: " in done.stdout and "waiting for images" in done.stdout
