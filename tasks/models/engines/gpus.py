"""Look at this machine's NVIDIA GPUs without loading torch: which may be used, and whether their memory is free.

Everything comes from nvidia-smi. Where it is missing, as in some containers, the driver's device files tell only how
many GPUs there are.
"""

import csv
import os
import subprocess
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from tasks.errors import EngineError

_WAIT_SECONDS = 120.0
"""Time in which a process that has ended must have given its memory back; the driver takes seconds."""
_POLL_SECONDS = 1.0
_ANSWER_SECONDS = 60.0
"""nvidia-smi takes seconds per GPU while the driver starts."""


@dataclass(frozen=True)
class Gpu:
    """A GPU that this process may use."""

    name: str
    """Its entry in CUDA_VISIBLE_DEVICES: number, UUID or MIG instance."""
    uuid: str
    total: int
    """Memory in MiB; 0 if it is not known."""
    free: int


def list_gpus(devices: Path = Path("/dev")) -> list[Gpu]:
    """Return the GPUs that this process may use, in the order of CUDA_VISIBLE_DEVICES if that is set."""
    rows = _query("--query-gpu=index,uuid,memory.total,memory.free")
    found = [Gpu(row[0], row[1], _read_mib(row[2]), _read_mib(row[3])) for row in rows if len(row) == 4]
    if not found:
        found = [Gpu(str(number), "", 0, 0) for number, _ in enumerate(devices.glob("nvidia[0-9]*"))]
    listed = os.environ.get("CUDA_VISIBLE_DEVICES")
    if listed is None or not found:
        return found
    chosen: list[Gpu] = []
    for name in (entry.strip() for entry in listed.split(",")):
        gpu = next((g for g in found if name == g.name or (name.startswith("GPU-") and g.uuid.startswith(name))), None)
        if gpu is not None:
            chosen.append(Gpu(name, gpu.uuid, gpu.total, gpu.free))
        elif name.startswith("MIG-"):
            chosen.append(Gpu(name, name, 0, 0))
        else:
            break  # as in CUDA, which ignores everything after an unknown entry
    return chosen


def restrict_to(gpu: Gpu) -> dict[str, str]:
    """Return the environment variables with which a child process sees only `gpu`."""
    # the numbers are nvidia-smi's, unless the user chose them
    order = {} if "CUDA_VISIBLE_DEVICES" in os.environ else {"CUDA_DEVICE_ORDER": "PCI_BUS_ID"}
    return {"CUDA_VISIBLE_DEVICES": gpu.name, **order}


def await_memory(
    names: Sequence[str],
    need: Callable[[Gpu], float],
    advice: str,
    keep_waiting: Callable[[], None] = lambda: None,
    seconds: float = _WAIT_SECONDS,
) -> None:
    """Wait until each of the GPUs `names` has `need(gpu)` MiB free.

    `keep_waiting` is called before each look, and may raise. Raises EngineError, which names the processes that use the
    memory, if it is not free after `seconds`; `advice` says what else to do.
    """
    deadline = time.monotonic() + seconds
    while True:
        keep_waiting()
        short = [g for g in list_gpus() if g.name in names and g.total and g.free < need(g)]
        if not short:
            return
        if time.monotonic() > deadline:
            gpu = short[0]
            raise EngineError(
                f"GPU {gpu.name} has {_gib(gpu.free)} of {_gib(gpu.total)} GiB free and {_gib(need(gpu))} GiB are "
                f"needed: its memory is used by {_name_users(gpu)}; end that, or {advice}"
            )
        time.sleep(_POLL_SECONDS)


def _name_users(gpu: Gpu) -> str:
    rows = _query("--query-compute-apps=gpu_uuid,pid,process_name,used_memory")
    users = [f"process {row[1]} ({row[2]}, {_gib(_read_mib(row[3]))} GiB)" for row in rows if row[0] == gpu.uuid]
    return ", ".join(users) or "processes that nvidia-smi does not show here, as in a container"


def _query(what: str) -> list[list[str]]:
    """Return the rows that nvidia-smi prints for a query; none if it is missing or fails."""
    command = ["nvidia-smi", what, "--format=csv,noheader,nounits"]
    try:
        answer = subprocess.run(command, capture_output=True, text=True, timeout=_ANSWER_SECONDS, check=True)
    except (OSError, subprocess.SubprocessError):
        return []
    return [[cell.strip() for cell in row] for row in csv.reader(answer.stdout.splitlines())]


def _read_mib(cell: str) -> int:
    return int(cell) if cell.isdigit() else 0  # `[N/A]` where GPU and CPU share their memory


def _gib(mib: float) -> str:
    return f"{mib / 1024:.1f}"
