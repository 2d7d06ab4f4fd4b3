"""Run vLLM servers on the nodes of a Ray cluster. Ray places and restarts one actor per copy, which runs the server.

The server engine distributes requests over the addresses. When an address stops answering, its actor is asked for an
address again: the actor restarts the server or, if the node is lost, Ray restarts the actor on another node.
"""

import secrets
import socket
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from tasks.errors import EngineError
from tasks.models.engines.engine import Engine, Workplace, open_engine
from tasks.models.engines.identity import check_folders
from tasks.models.engines.ray.cluster import NodeRequirements, RayRunner, join_cluster, make_engine_error
from tasks.models.engines.spec import EngineSpec
from tasks.models.engines.vllm.engine import VllmEngine, make_server_name, make_server_process, require_build
from tasks.models.engines.vllm.options import spans_nodes
from tasks.models.engines.vllm.process import START_SECONDS, ServerProcess

_CLOSE_SECONDS = 60.0
_POLL_SECONDS = 0.5
_FAILED = "a copy of the engine failed on its node (see Ray's log there)"

MakeServer = Callable[..., ServerProcess]
"""Takes a workplace and the node's address (`host`); returns a server that is not started yet. Runs on the node."""


def open_on_cluster(spec: EngineSpec, place: Workplace, runner: RayRunner, requirements: NodeRequirements) -> Engine:
    """Open the engine that `spec` names; raise EngineError, saying how to fix it, when that fails.

    vLLM runs in `runner.replicas` copies on the cluster. There are two exceptions, which run once, on this machine: a
    vLLM that spans nodes by its own Ray options, and every other engine.
    """
    if spec.engine != "vllm":
        return open_engine(spec, place)
    ray = join_cluster(runner)
    if spans_nodes(spec):
        return open_engine(spec, replace(place, ray_address=ray.get_runtime_context().gcs_address))
    build = require_build(spec)
    check_folders(spec)
    _check_room(ray, runner.gpus_per_replica)
    name = make_server_name(spec)
    key = secrets.token_urlsafe(32)
    make = partial(make_server_process, spec, build=build, name=name, key=key)
    servers = PlacedServers(ray, make, place, requirements, runner, model=name, key=key, seconds=START_SECONDS)
    return VllmEngine(spec, place, servers)


def _check_room(ray: Any, gpus: int) -> None:
    largest = max((node["Resources"].get("GPU", 0) for node in ray.nodes() if node["Alive"]), default=0)
    if gpus > largest:
        raise EngineError(
            f"`gpus_per_replica` is {gpus}, the cluster's largest node has {largest:.0f} GPU(s); lower it or, "
            "to spread a model over several nodes, set `extra_args: [--distributed-executor-backend, ray]`"
        )


@dataclass
class PlacedServer:
    """A server that runs on a node, in a Ray actor. Each call of `address` starts the server if it is not running."""

    make: MakeServer
    place: Workplace
    requirements: NodeRequirements
    process: ServerProcess | None = None

    def address(self) -> str:
        """Return the server's address; start or restart the server first unless it answers."""
        if self.process is None:
            import ray

            self.requirements.adopt()
            # processes on two machines may have the same id, and so the same log file
            place = replace(self.place, logs=self.place.logs / socket.gethostname())
            process = self.make(place, host=ray.util.get_node_ip_address())
            process.start()
            self.process = process
        else:
            self.process.note_answer()  # the driver counts the restarts
            self.process.revive(self.process.base_url)
        return self.process.base_url

    def close(self) -> None:
        """End the server."""
        if self.process is not None:
            self.process.close()


class PlacedServers:
    """The servers of one engine, one actor each. Has the methods of `ServerProcess`; any thread may call them."""

    def __init__(
        self, ray: Any, make: MakeServer, place: Workplace, requirements: NodeRequirements, runner: RayRunner,
        *, model: str, key: str, seconds: float,
    ) -> None:  # fmt: skip
        """Create the actors. `start` starts the servers, each of which may take `seconds` to be ready."""
        self.model, self.key = model, key
        gpus = runner.gpus_per_replica
        self.gpus = gpus * runner.replicas
        self._ray = ray
        self._seconds = seconds
        # no CPU: while the engine is open, the shards of the stage need them
        actor = ray.remote(PlacedServer).options(
            num_cpus=0, num_gpus=gpus, scheduling_strategy="SPREAD", max_restarts=-1, max_task_retries=0
        )
        self._actors = [actor.remote(make, place, requirements) for _ in range(runner.replicas)]
        self._actor_of: dict[str, Any] = {}

    @property
    def base_urls(self) -> tuple[str, ...]:
        """Return the addresses of the servers."""
        return tuple(self._actor_of)

    def start(self) -> None:
        """Start all servers together and wait until they are ready; raise EngineError when one does not start."""
        calls = {actor.address.remote(): actor for actor in self._actors}
        done, late = self._ray.wait(list(calls), num_returns=len(calls), timeout=self._seconds)
        for call in done:
            self._actor_of[self._result(call)] = calls[call]
        if late:
            found = self._ray.cluster_resources()
            raise EngineError(
                f"{len(late)} of {len(calls)} copies of the engine did not start within {self._seconds:.0f} s; the "
                f"cluster has {found.get('CPU', 0):.0f} CPUs and {found.get('GPU', 0):.0f} GPUs; add nodes or "
                "lower `replicas`"
            )

    def note_answer(self) -> None:
        """Do nothing, because each actor watches its own server."""

    def revive(self, base_url: str) -> str:
        """Restart the server of `base_url` if it is dead, and return its address, which may be new.

        Raises EngineError when the server does not answer within START_SECONDS.
        """
        actor = self._actor_of[base_url]
        deadline = time.monotonic() + self._seconds
        while True:
            call = actor.address.remote()
            done, _ = self._ray.wait([call], timeout=max(0.0, deadline - time.monotonic()))
            if not done:
                raise EngineError(
                    f"the server at {base_url} is gone, and Ray has not restarted it within {self._seconds:.0f} s; "
                    "restart its node, or run again with fewer `replicas` (answers so far are kept)"
                )
            try:
                address = self._ray.get(call)
                break
            except self._ray.exceptions.ActorUnavailableError:  # its node is dying; Ray restarts it elsewhere
                time.sleep(_POLL_SECONDS)
            except self._ray.exceptions.RayError as error:
                raise make_engine_error(error, _FAILED) from error
        self._actor_of[address] = actor
        return address

    def close(self) -> None:
        """End all servers and their actors; safe to call twice."""
        closing = [actor.close.remote() for actor in self._actors]
        if closing:
            self._ray.wait(closing, num_returns=len(closing), timeout=_CLOSE_SECONDS)
        for actor in self._actors:
            self._ray.kill(actor)
        self._actors = []

    def _result(self, call: Any) -> Any:
        try:
            return self._ray.get(call)
        except self._ray.exceptions.RayError as error:
            raise make_engine_error(error, _FAILED) from error
