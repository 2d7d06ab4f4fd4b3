"""One real Prefect server for all tests that need it, with a home of its own."""

import os
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest
from hypothesis import settings

# The same examples in every run, and none that fails because the machine was busy.
settings.register_profile("labelstill", derandomize=True, database=None, deadline=None)
settings.load_profile("labelstill")

ROOT = Path(__file__).resolve().parent.parent
_START_SECONDS = 240


def free_port() -> int:
    """A port that nothing listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


_HOME = tempfile.TemporaryDirectory(prefix="labelstill-prefect-", ignore_cleanup_errors=True)
_PORT = free_port()

# Prefect reads its settings when it is imported, which any test module may do: so they are set here, before the first.
os.environ.update(
    {
        "HF_HUB_OFFLINE": "1",
        "LABELSTILL_SCRIPTED_STANDS_IN_FOR_A_MODEL": "1",
        "DO_NOT_TRACK": "1",
        "TOKENIZERS_PARALLELISM": "false",
        "OMP_WAIT_POLICY": "PASSIVE",
        "PREFECT_HOME": _HOME.name,
        "PREFECT_API_URL": f"http://127.0.0.1:{_PORT}/api",
        "PREFECT_SERVER_API_PORT": str(_PORT),
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS": str(_START_SECONDS),
        "PREFECT_RESULTS_LOCAL_STORAGE_PATH": str(Path(_HOME.name) / "results"),
        "PREFECT_CLI_PROMPT": "false",
    }
)
os.environ.pop("LABELSTILL_PORT", None)
# pytest-xdist's processes have one, and a rich console keeps the width that it finds when it is made
os.environ.pop("COLUMNS", None)


@dataclass(frozen=True)
class PrefectServer:
    """A running server; in-process flows and child processes reach it through the environment set above."""

    api_url: str
    home: Path


@pytest.fixture(scope="session")
def prefect_server() -> Iterator[PrefectServer]:
    """The server, started for the first test that asks for it."""
    server = PrefectServer(os.environ["PREFECT_API_URL"], Path(_HOME.name))
    with start_prefect_server(server.api_url, server.home / "server.log"):
        yield server


@pytest.fixture(scope="session")
def random_checkpoints(tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, Path]:
    """A tiny untrained checkpoint of every generation of Qwen-VL, by the names in `checkpoints.GENERATIONS`."""
    from tests.checkpoints import GENERATIONS, make_small_tokenizer, write_random_checkpoint  # they import torch

    texts = [
        f'用户: 在吗，第{i}个订单\n客服: 请看图。{{"理由": "图中有订单号", "所属类别": "退款"}}' for i in range(200)
    ]
    tokenizer, folder = make_small_tokenizer(texts), tmp_path_factory.mktemp("generations")
    return {name: write_random_checkpoint(folder / name, tokenizer, name) for name in GENERATIONS}


@contextmanager
def start_prefect_server(api_url: str, log: Path, environment: Mapping[str, str] = {}) -> Iterator[None]:
    """Context manager: run a Prefect server, which `environment` must make listen at `api_url`."""
    with log.open("wb") as sink:
        process = subprocess.Popen(
            [sys.executable, "-m", "prefect", "server", "start"],
            cwd=ROOT, env=os.environ | environment, stdout=sink, stderr=subprocess.STDOUT,
        )  # fmt: skip
    try:
        deadline = time.monotonic() + _START_SECONDS
        while not _healthy(api_url):
            if process.poll() is not None or time.monotonic() > deadline:
                pytest.fail(f"the Prefect server did not start:\n{log.read_text(errors='replace')[-2000:]}")
            time.sleep(0.25)
        yield
    finally:
        process.terminate()
        process.wait(timeout=20)


def _healthy(api_url: str) -> bool:
    try:
        return httpx.get(f"{api_url}/health", timeout=5).status_code == 200
    except httpx.HTTPError:
        return False
