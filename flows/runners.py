"""Run a stage's work as task runs: one after another on this machine, or with `runner: {kind: ray}` on a Ray cluster.

If a node dies, Ray runs its shard again on another node, which reuses the results that are already in the shared
folders.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Generic, TypeVar

from prefect import get_run_logger, task
from prefect.cache_policies import NO_CACHE

from flows.config import CommonConfig
from tasks.errors import EngineError
from tasks.items.settings import SourceConfig
from tasks.models.engines.engine import Engine, Workplace, open_engine
from tasks.models.engines.ray.cluster import (
    NodeRequirements,
    RayRunner,
    check_nodes,
    get_last_line,
    join_cluster,
    mark_shared_folders,
)
from tasks.models.engines.spec import EngineSpec

T = TypeVar("T")

_MAX_SHARDS = 500
"""Maximum number of shards per call. Each shard costs 0.25 s, and the web UI can show only a few hundred."""
_MAX_ATTEMPTS = 4
"""Attempts per shard if its node or process dies. After the last one, the shard itself is taken to be the cause."""
_WAIT_SECONDS = 1.0


@dataclass(frozen=True)
class Shard(Generic[T]):
    """A piece of a stage's work. It can run on any node, and running it twice does no harm."""

    title: str
    work: Callable[[], T]


def run_as_task(name: str, title: str, work: Callable[[], T]) -> T:
    """Run `work` as one Prefect task run titled `title` and return its result; exceptions propagate.

    `work` takes no arguments, so that Prefect does not inspect and hash thousands of requests.
    """

    return make_task(name, title, work)()


def make_task(name: str, title: str, work: Callable[[], T]) -> Any:
    """Return a Prefect task that runs `work`. Its task run is titled `title`."""

    @task(name=name, task_run_name=title, cache_policy=NO_CACHE, persist_result=False)
    def step() -> T:
        return work()

    return step


def split_into_parts(items: Sequence[T], least: int) -> list[Sequence[T]]:
    """Split `items` into at most 500 parts. Each part except the last has at least `least` items."""
    size = max(least, -(-len(items) // _MAX_SHARDS))
    return [items[start : start + size] for start in range(0, len(items), size)]


def run_shards(config: CommonConfig, name: str, shards: Sequence[Shard[T]], *, gpus: int = 0) -> Iterator[T]:
    """Run each shard as a task run named `name`, and yield the results.

    On one machine results come in the order of `shards`, on a cluster as they become ready. There a shard occupies one
    CPU and `gpus` GPUs. Exceptions of a shard propagate. Raises EngineError if a shard's node dies at every attempt.
    """
    if config.runner == "threads":
        for shard in shards:
            yield run_as_task(name, shard.title, shard.work)
    elif shards:
        yield from _run_on_cluster(config.runner, check_cluster(config), name, shards, gpus)


def open_where_configured(config: CommonConfig, spec: EngineSpec, place: Workplace) -> Engine:
    """Open the engine of `spec` on this machine or on the cluster. Raises EngineError, which says how to fix it."""
    if config.runner == "threads":
        return open_engine(spec, place)
    from tasks.models.engines.ray.placed import open_on_cluster  # imports transformers, which few runs need

    return open_on_cluster(spec, place, config.runner, check_cluster(config))


def check_cluster(config: CommonConfig) -> NodeRequirements:
    """Check, once per process, that all nodes see the configuration's folders. Return what the nodes must share.

    Raises EngineError if there is no cluster or if a node does not see the folders.
    """
    assert isinstance(config.runner, RayRunner), "called with a cluster only"
    sources = [value for name in type(config).model_fields if isinstance(value := getattr(config, name), SourceConfig)]
    return _check_nodes(
        config.runner.address, (config.output, config.images), tuple(source.images for source in sources)
    )


@cache
def _check_nodes(address: str, written: tuple[Path, ...], read: tuple[Path, ...]) -> NodeRequirements:
    ray = join_cluster(RayRunner(address=address))
    requirements = mark_shared_folders(written, read)
    nodes = check_nodes(ray, requirements)
    get_run_logger().info("Ray cluster at %s: %d nodes, all see %s", address, nodes, written[0])
    return requirements


def _run_on_cluster(
    runner: RayRunner, requirements: NodeRequirements, name: str, shards: Sequence[Shard[T]], gpus: int
) -> Iterator[T]:
    ray = join_cluster(runner)
    futures = _submit(runner, [_make_task(name, shard, requirements) for shard in shards], gpus)
    try:
        while futures:
            done, _ = ray.wait(list(futures), timeout=_WAIT_SECONDS)
            for reference in done:
                try:
                    yield futures.pop(reference).result()
                except ray.exceptions.RayTaskError as error:
                    raise EngineError(f"a shard of `{name}` failed on its node: {get_last_line(error)}") from error
                except ray.exceptions.RayError as error:
                    raise EngineError(
                        f"a shard of `{name}` was started {_MAX_ATTEMPTS} times, and each time its process or node "
                        f"died: {get_last_line(error)}; see Ray's log there (often it lacks memory), and run again"
                    ) from error
    finally:
        for reference in futures:  # after an error the other shards are not needed
            ray.cancel(reference, force=True)


def _submit(runner: RayRunner, steps: Sequence[Any], gpus: int) -> dict[Any, Any]:
    """Submit the steps, and return a dict that maps Ray reference to Prefect future. Ray retries if a node dies."""
    from prefect_ray import RayTaskRunner
    from prefect_ray.context import remote_options

    options = {"num_cpus": 1, "num_gpus": gpus, "max_retries": _MAX_ATTEMPTS - 1, "scheduling_strategy": "SPREAD"}
    with RayTaskRunner(address=runner.address) as nodes, remote_options(**options):
        futures = [nodes.submit(step, parameters={}) for step in steps]
    return {future.wrapped_future: future for future in futures}


def _make_task(name: str, shard: Shard[T], requirements: NodeRequirements) -> Any:
    @task(name=name, task_run_name=shard.title, cache_policy=NO_CACHE, persist_result=False)
    def step() -> T:
        requirements.adopt()
        return shard.work()

    return step
