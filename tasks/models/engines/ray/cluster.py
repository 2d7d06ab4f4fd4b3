# (ray's decorators lose what they decorate)
"""The `runner:` key of a configuration (threads of this machine, or a Ray cluster), and connecting to the cluster.

Shards and servers write files themselves. So all nodes must share the folders `output`, `images` and those of the
items, under the same paths, and must have the same version installed. Every node is checked at the start, and again by
each piece of work sent to it. Only the driver writes the ledger and the texts; answers are sent to the driver.
"""

import logging
import os
import socket
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal
from uuid import uuid4

from pydantic import Field

from tasks.errors import EngineError
from tasks.settings import Settings
from tasks.storage.files import write_bytes
from tasks.storage.stages import code_version

_MARK = ".labelstill-shared"
_CHECK_SECONDS = 120.0
"""The first start of a worker on a busy node takes about 20 s."""
_KNOCK_SECONDS = 10.0
_NOT_INSTALLED = "`runner: {kind: ray}` needs the packages ray and prefect-ray: run `make env-test` or `make env-gpu`"


class RayRunner(Settings):
    """A Ray cluster that runs shards of CPU work and vLLM servers."""

    kind: Literal["ray"] = "ray"
    """Run shards of CPU work and vLLM servers on a Ray cluster."""
    address: str = Field(default="auto", min_length=1)
    """host:port of the cluster's head node; `auto`: the cluster that this machine belongs to."""
    replicas: int = Field(default=1, ge=1)
    """Number of vLLM servers, each with `concurrency` requests in flight."""
    gpus_per_replica: int = Field(default=0, ge=0)
    """GPUs per vLLM server (`tensor_parallel_size` × `data_parallel_size`), and maximum GPUs per fold."""


Runner = Literal["threads"] | RayRunner


@dataclass(frozen=True)
class NodeRequirements:
    """What every node must have in common with the driver. Made by `mark_shared_folders`."""

    home: Path
    """The driver's working directory; relative paths start there."""
    marks: tuple[tuple[Path, str], ...]
    """Pairs of a shared folder and the content of its mark file."""
    read: tuple[Path, ...]
    """Folders that nodes only read; they have no marks."""
    code: str
    """The driver's version of labelstill (see `code_version`)."""

    def adopt(self) -> None:
        """Check that this node is like the driver's, and change to the driver's directory.

        Raises EngineError, naming the node and the difference, if it is not.
        """
        here = f"Ray node {socket.gethostname()}"
        if (code := code_version()) != self.code:
            raise EngineError(f"{here} runs another version of labelstill, {code}; install {self.code} there")
        try:
            os.chdir(self.home)
        except OSError as error:
            what = f"{here} has no {self.home}, the folder that the run was started from"
            raise EngineError(f"{what}: {_SHARE}") from error
        for folder, token in self.marks:
            if _read_mark(folder) != token:
                raise EngineError(f"{here} does not share {folder} with the machine that runs the flow: {_SHARE}")
        for folder in self.read:
            if not folder.is_dir():
                raise EngineError(f"{here} has no {folder}: {_SHARE}")


_SHARE = "mount the same file system under the same path on every node"


def mark_shared_folders(written: Sequence[Path], read: Sequence[Path]) -> NodeRequirements:
    """Create the `written` folders and write a mark file into each, by which nodes recognise a folder as shared."""
    marks: list[tuple[Path, str]] = []
    for folder in dict.fromkeys(path.resolve() for path in written):
        if not _read_mark(folder):
            _write_mark(folder)
        marks.append((folder, _read_mark(folder)))
    return NodeRequirements(Path.cwd(), tuple(marks), tuple(path.resolve() for path in read), code_version())


def _write_mark(folder: Path) -> None:
    """Mark the folder, unless another run marks it first: a mark that a run has read must not change."""
    mark = folder / _MARK
    token = uuid4().hex
    temporary = folder / f"{_MARK}.{token}"
    try:
        write_bytes(temporary, token.encode())
        try:
            os.link(temporary, mark)  # unlike a move, it never replaces a file
        except OSError:
            # the mark is unreadable, or the file system has no links: then the last run wins
            if not _read_mark(folder):
                temporary.replace(mark)
    finally:
        temporary.unlink(missing_ok=True)


def join_cluster(runner: RayRunner) -> Any:
    """Connect this process to the cluster unless it is connected, and return the module `ray`.

    Raises EngineError, saying how to fix it, when ray is not installed or no cluster answers.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    try:
        import ray
    except ImportError as error:
        raise EngineError(_NOT_INSTALLED) from error
    if not ray.is_initialized():
        try:
            _knock(runner.address)
            # shards log through Prefect; the raw output of workers would only be noise
            ray.init(runner.address, namespace="labelstill", log_to_driver=False, logging_level=logging.WARNING)
        except Exception as error:
            why = (str(error).strip() or type(error).__name__).splitlines()[0]
            fix = "start one with `ray start --head` here and `ray start --address=HOST:6379` on the others"
            raise EngineError(
                f"no Ray cluster at `{runner.address}`: {why}; {fix}, or set `runner: threads`"
            ) from error
    return ray


def _knock(address: str) -> None:
    """Raise OSError when nothing listens at the address; Ray itself would try for minutes."""
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if host and port.isdecimal():
        socket.create_connection((host, int(port)), timeout=_KNOCK_SECONDS).close()


def check_nodes(ray: Any, requirements: NodeRequirements) -> int:
    """Return the number of living nodes; raise EngineError for a node that fails `requirements` or does not answer."""
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    nodes = {node["NodeID"]: node["NodeManagerHostname"] for node in ray.nodes() if node["Alive"]}
    check = ray.remote(num_cpus=0, max_retries=0)(_enter)
    asked = {
        check.options(scheduling_strategy=NodeAffinitySchedulingStrategy(node, soft=False)).remote(requirements): name
        for node, name in nodes.items()
    }
    done, late = ray.wait(list(asked), num_returns=len(asked), timeout=_CHECK_SECONDS)
    if late:
        raise EngineError(f"Ray node {asked[late[0]]} does not answer; restart it, or remove it from the cluster")
    for reference in done:
        try:
            ray.get(reference)
        except ray.exceptions.RayError as error:
            node = f"Ray node {asked[reference]}, which needs the same environment, cannot run labelstill"
            raise make_engine_error(error, node) from error
    return len(nodes)


def make_engine_error(error: Any, what: str) -> EngineError:
    """Return the EngineError that a node raised; for any other error, one with `what` and Ray's message."""
    cause = getattr(error, "cause", None)
    return EngineError(str(cause) if isinstance(cause, EngineError) else f"{what}: {get_last_line(error)}")


def get_last_line(error: BaseException) -> str:
    """Return the last line of one of Ray's errors, whose text is often a whole traceback."""
    return (str(error).strip() or type(error).__name__).splitlines()[-1][:300]


def _enter(requirements: NodeRequirements) -> None:
    requirements.adopt()


def _read_mark(folder: Path) -> str:
    try:
        return (folder / _MARK).read_text("ascii")
    except (OSError, ValueError):
        return ""
