# pyright: reportMissingTypeStubs=false, reportUnknownMemberType=false, reportUnknownVariableType=false
# pyright: reportUnknownArgumentType=false, reportUntypedFunctionDecorator=false
# (ray's decorators lose what they decorate)
"""The `runner:` key of a configuration: this machine's threads, or a Ray cluster; and joining the latter.

What shards and servers write they write themselves, so the nodes share folders: `output`, `images` and the items' own,
under the same paths, and have the same environment. That is checked, on every node at the start and by everything that
is sent to one. The ledger and the texts are the driver's alone: answers travel to it.
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
"""A worker's first start on a busy node takes some 20 s."""
_KNOCK_SECONDS = 10.0
_NEEDS = "`runner: {kind: ray}` needs the packages ray and prefect-ray: run `make env-test` or `make env-gpu`"


class RayRunner(Settings):
    """A Ray cluster that shards and vLLM servers are sent to."""

    kind: Literal["ray"] = Field(default="ray", description="Shards and engines on a Ray cluster")
    address: str = Field(
        default="auto",
        min_length=1,
        description="host:port of the cluster's head; auto: the one this machine is part of",
    )
    replicas: int = Field(default=1, ge=1, description="Copies of a vLLM engine, each keeping its `concurrency` full")
    gpus_per_replica: int = Field(
        default=0, ge=0, description="GPUs of a copy: `tensor_parallel_size` × `data_parallel_size`; also of a fold"
    )


Runner = Literal["threads"] | RayRunner


@dataclass(frozen=True)
class Ground:
    """What every node must see as the driver does. Made by `mark_ground`."""

    home: Path
    """The driver's working folder, which relative paths start from."""
    marks: tuple[tuple[Path, str], ...]
    """Shared folders, each with what the mark in it says."""
    read: tuple[Path, ...]
    """Folders that are only read."""
    code: str
    """Version of the rules (`code_version`)."""

    def enter(self) -> None:
        """Stand where the driver stands; raises EngineError, naming node and folder, unless it looks the same here."""
        here = f"Ray node {socket.gethostname()}"
        if (code := code_version()) != self.code:
            raise EngineError(f"{here} runs another version of labelstill ({code} for {self.code}): install the same")
        try:
            os.chdir(self.home)
        except OSError as error:
            raise EngineError(f"{here} has no {self.home}, where the run was started: {_SHARE}") from error
        for folder, token in self.marks:
            if _token(folder) != token:
                raise EngineError(f"{here} does not see {folder} of the machine that runs the flow: {_SHARE}")
        for folder in self.read:
            if not folder.is_dir():
                raise EngineError(f"{here} has no {folder}: {_SHARE}")


_SHARE = "mount the same file system under the same path on every node"


def mark_ground(written: Sequence[Path], read: Sequence[Path]) -> Ground:
    """Leave a mark in each of the `written` folders, which are made if need be, for the nodes to find."""
    marks: list[tuple[Path, str]] = []
    for folder in dict.fromkeys(path.resolve() for path in written):
        if not _token(folder):
            _leave_mark(folder)
        marks.append((folder, _token(folder)))
    return Ground(Path.cwd(), tuple(marks), tuple(path.resolve() for path in read), code_version())


def _leave_mark(folder: Path) -> None:
    """Mark the folder, unless another run does so first: what one of them has read stays what the mark says."""
    mark, token = folder / _MARK, uuid4().hex
    whole = folder / f"{_MARK}.{token}"
    try:
        write_bytes(whole, token.encode())
        try:
            os.link(whole, mark)  # which, unlike a move, replaces nothing
        except OSError:
            # without a mark that can be read, it is illegible, or the file system knows no links: then the last wins
            if not _token(folder):
                whole.replace(mark)
    finally:
        whole.unlink(missing_ok=True)


def join_cluster(runner: RayRunner) -> Any:
    """Connect this process to the cluster, once, and return the module `ray`.

    Raises EngineError, with the mend, when ray is not installed or no cluster answers.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    try:
        import ray
    except ImportError as error:
        raise EngineError(_NEEDS) from error
    if not ray.is_initialized():
        try:
            _knock(runner.address)
            # the shards' lines reach the run's log through Prefect; raw output of workers would only be in the way
            ray.init(runner.address, namespace="labelstill", log_to_driver=False, logging_level=logging.WARNING)
        except Exception as error:
            why = (str(error).strip() or type(error).__name__).splitlines()[0]
            mend = "start one with `ray start --head` here and `ray start --address=HOST:6379` on the others"
            raise EngineError(
                f"no Ray cluster at `{runner.address}`: {why}; {mend}, or set `runner: threads`"
            ) from error
    return ray


def _knock(address: str) -> None:
    """Raise OSError where nobody listens: Ray itself would try for minutes."""
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if host and port.isdecimal():
        socket.create_connection((host, int(port)), timeout=_KNOCK_SECONDS).close()


def check_nodes(ray: Any, ground: Ground) -> int:
    """The number of living nodes; raises EngineError for the first that does not see `ground`, or does not answer."""
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    nodes = {node["NodeID"]: node["NodeManagerHostname"] for node in ray.nodes() if node["Alive"]}
    check = ray.remote(num_cpus=0, max_retries=0)(_enter)
    asked = {
        check.options(scheduling_strategy=NodeAffinitySchedulingStrategy(node, soft=False)).remote(ground): name
        for node, name in nodes.items()
    }
    done, late = ray.wait(list(asked), num_returns=len(asked), timeout=_CHECK_SECONDS)
    if late:
        raise EngineError(f"Ray node {asked[late[0]]} does not answer; restart it, or take it out of the cluster")
    for reference in done:
        try:
            ray.get(reference)
        except ray.exceptions.RayError as error:
            node = f"Ray node {asked[reference]}, which needs the same environment, can't run labelstill"
            raise own_error(error, node) from error
    return len(nodes)


def own_error(error: Any, what: str) -> EngineError:
    """Return the EngineError that was raised on a node, or one that says `what` failed there with which Ray error."""
    cause = getattr(error, "cause", None)
    return EngineError(str(cause) if isinstance(cause, EngineError) else f"{what}: {last_line(error)}")


def last_line(error: BaseException) -> str:
    """What an error of Ray's, which often holds a whole traceback, ends with."""
    return (str(error).strip() or type(error).__name__).splitlines()[-1][:300]


def _enter(ground: Ground) -> None:
    ground.enter()


def _token(folder: Path) -> str:
    try:
        return (folder / _MARK).read_text("ascii")
    except (OSError, ValueError):
        return ""
