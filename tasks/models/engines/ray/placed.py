# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false
# pyright: reportMissingTypeStubs=false
# (ray's handles and references have no types of their own)
"""vLLM servers on the nodes of a Ray cluster: Ray places an actor per copy and restarts it, the actor runs the server.

The server engine shares the load over the addresses. When one stops answering, its actor is asked for its address: it
restarts its server, or, where the node is gone, Ray restarts the actor elsewhere and the address is a new one.
"""

import secrets
import socket
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

from tasks.errors import EngineError
from tasks.models.engines.engine import Engine, Workplace, open_engine
from tasks.models.engines.identity import check_folders
from tasks.models.engines.ray.cluster import Ground, RayRunner, join_cluster, own_error
from tasks.models.engines.spec import EngineSpec
from tasks.models.engines.vllm.engine import VllmEngine, find_build, server_name, server_process
from tasks.models.engines.vllm.options import spans_nodes
from tasks.models.engines.vllm.process import ServerProcess

_CLOSE_SECONDS = 60.0
_POLL_SECONDS = 0.5
_FAILED = "a copy of the engine failed on its node (see Ray's log there)"

MakeServer = Callable[..., ServerProcess]
"""From a workplace and, as `host`, the node's address to a server that is not started yet; runs on the node."""


def open_on_cluster(spec: EngineSpec, place: Workplace, runner: RayRunner, ground: Ground) -> Engine:
    """Open the engine that `spec` names; raises EngineError, with the fix, when it can't be opened.

    A vLLM runs in `runner.replicas` copies on the cluster. One that spans nodes by its own Ray options is started once,
    here; so is every other engine.
    """
    if spec.engine != "vllm":
        return open_engine(spec, place)
    ray = join_cluster(runner)
    if spans_nodes(spec):
        return open_engine(spec, replace(place, ray_address=ray.get_runtime_context().gcs_address))
    build = find_build(spec)
    check_folders(spec)
    _check_room(ray, runner.gpus_per_replica)
    name = server_name(spec)
    key = secrets.token_urlsafe(32)
    make = partial(server_process, spec, build=build, name=name, key=key)
    servers = PlacedServers(ray, make, place, ground, runner, model=name, key=key, seconds=spec.start_seconds)
    return VllmEngine(spec, place, servers)


def _check_room(ray: Any, gpus: int) -> None:
    largest = max((node["Resources"].get("GPU", 0) for node in ray.nodes() if node["Alive"]), default=0)
    if gpus > largest:
        raise EngineError(
            f"`gpus_per_replica` is {gpus}, the cluster's largest node has {largest:.0f} GPU(s); "
            "for a model over several nodes set `extra_args: [--distributed-executor-backend, ray]`"
        )


class PlacedServer:
    """One server on its node; runs in a Ray actor. All state is made by `address`, so a restarted actor starts anew."""

    def __init__(self, make: MakeServer, place: Workplace, ground: Ground) -> None:
        self._make, self._place, self._ground = make, place, ground
        self._process: ServerProcess | None = None

    def address(self) -> str:
        """Return the server's address once it answers; start it, or start it again, where it does not."""
        if self._process is None:
            import ray

            self._ground.enter()
            # processes of two machines, or containers, may have the same number, and so the same log
            place = replace(self._place, logs=self._place.logs / socket.gethostname())
            process = self._make(place, host=ray.util.get_node_ip_address())
            process.start()
            self._process = process
        else:
            self._process.answered()  # the driver counts its vain attempts
            self._process.revive(self._process.base_url)
        return self._process.base_url

    def close(self) -> None:
        """End the server."""
        if self._process is not None:
            self._process.close()


class PlacedServers:
    """The servers of one engine, each in an actor of its own; used as a `ServerProcess` is. Safe in any thread."""

    def __init__(
        self, ray: Any, make: MakeServer, place: Workplace, ground: Ground, runner: RayRunner,
        *, model: str, key: str, seconds: float,
    ) -> None:  # fmt: skip
        """`seconds` is how long a copy may take to start. Nothing runs before `start`."""
        self.model, self.key = model, key
        gpus = runner.gpus_per_replica
        self.gpus = gpus * runner.replicas
        self._ray, self._seconds = ray, seconds
        # no CPU: a stage has shards, which need one each, while its engine is open
        actor = ray.remote(PlacedServer).options(
            num_cpus=0, num_gpus=gpus, scheduling_strategy="SPREAD", max_restarts=-1, max_task_retries=0
        )
        self._actors = [actor.remote(make, place, ground) for _ in range(runner.replicas)]
        self._actor_of: dict[str, Any] = {}

    @property
    def base_urls(self) -> tuple[str, ...]:
        """The addresses of the servers that are up."""
        return tuple(self._actor_of)

    def start(self) -> None:
        """Start all copies side by side and wait for them; raises EngineError when one can't be started."""
        calls = {actor.address.remote(): actor for actor in self._actors}
        done, late = self._ray.wait(list(calls), num_returns=len(calls), timeout=self._seconds)
        for call in done:
            self._actor_of[self._result(call)] = calls[call]
        if late:
            found = self._ray.cluster_resources()
            raise EngineError(
                f"{len(late)} of {len(calls)} copies of the engine did not start within {self._seconds:.0f} s; the "
                f"cluster has {found.get('CPU', 0):.0f} CPUs and {found.get('GPU', 0):.0f} GPUs: add nodes, lower "
                "`replicas`, or raise `start_seconds`"
            )

    def answered(self) -> None:
        """Nothing to note: each actor watches its own server."""

    def revive(self, base_url: str) -> str:
        """Return the address under which the server of `base_url` answers now, started anew where it is gone.

        Raises EngineError when it can't be started again within `start_seconds`.
        """
        actor = self._actor_of[base_url]
        deadline = time.monotonic() + self._seconds
        while True:
            call = actor.address.remote()
            done, _ = self._ray.wait([call], timeout=max(0.0, deadline - time.monotonic()))
            if not done:
                raise EngineError(
                    f"the server at {base_url} is gone and Ray has not restarted it within {self._seconds:.0f} s: "
                    "bring its node back, or run again with fewer `replicas`; what is answered is kept"
                )
            try:
                address = self._ray.get(call)
                break
            except self._ray.exceptions.ActorUnavailableError:  # its node is dying; Ray restarts it elsewhere
                time.sleep(_POLL_SECONDS)
            except self._ray.exceptions.RayError as error:
                raise own_error(error, _FAILED) from error
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
            raise own_error(error, _FAILED) from error
