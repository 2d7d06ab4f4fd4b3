# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false
# pyright: reportMissingTypeStubs=false
"""Opening an engine on a Ray cluster: in copies, or, for a vLLM that finds its GPUs there itself, once."""

from dataclasses import replace
from typing import Any

from tasks.errors import EngineError
from tasks.models.engines.engine import Engine, Workplace, open_engine
from tasks.models.engines.ray.cluster import Ground, RayRunner, join_cluster
from tasks.models.engines.ray.replicas import Feed, ReplicatedEngine
from tasks.models.engines.spec import EngineSpec
from tasks.models.engines.vllm.options import spans_nodes


def open_on_cluster(spec: EngineSpec, place: Workplace, runner: RayRunner, ground: Ground) -> Engine:
    """The engine that `spec` names, in copies on the cluster; raises EngineError with the mend when it can't be opened.

    A running server has its own address, and a vLLM that spans nodes by its own Ray options is started once, here.
    """
    if spec.engine == "server":
        return open_engine(spec, place)
    ray = join_cluster(runner)
    if spans_nodes(spec):
        return open_engine(spec, replace(place, ray_address=ray.get_runtime_context().gcs_address))
    _check_room(ray, spec, runner)
    return ReplicatedEngine(ray, spec, place, runner, ground, _feed(spec))


def _feed(spec: EngineSpec) -> Feed:
    if spec.engine == "local":
        from tasks.models.engines.local.engine import WINDOW

        return Feed(WINDOW * spec.batch_size, 2 * WINDOW * spec.batch_size, continuous=False)
    if spec.engine == "vllm":
        # more than the server engine takes before it looks at its answers: else it would wait for us, and we for it
        return Feed(16, spec.concurrency + 64, continuous=True)
    return Feed(8, 16, continuous=False)


def _check_room(ray: Any, spec: EngineSpec, runner: RayRunner) -> None:
    largest = max((node["Resources"].get("GPU", 0) for node in ray.nodes() if node["Alive"]), default=0)
    if runner.gpus_per_replica > largest:
        raise EngineError(
            f"`gpus_per_replica` is {runner.gpus_per_replica}, the cluster's largest node has {largest:.0f} GPU(s); "
            "for a model over several nodes set `extra_args: [--distributed-executor-backend, ray]`"
        )
