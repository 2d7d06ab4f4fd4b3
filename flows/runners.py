"""Where a stage's work runs: as task runs one after another on this machine, or, with `runner: {kind: ray}`, as task
runs on a cluster (prefect-ray), whose lines and states reach the web UI like any other's.

A shard that is lost with its node is run again by Ray on another; what it wrote before is found there, in the shared
folders, and not made twice.
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
from tasks.models.engines.ray.placed import open_on_cluster
from tasks.models.engines.spec import EngineSpec

T = TypeVar("T")

_MOST_SHARDS = 500
"""A task run costs Prefect and Ray a quarter of a second, and its tables bear some hundreds a flow run."""
_TRIES = 4
"""Times in all that a shard is begun before what it does is taken for what kills its node."""
_WAIT_SECONDS = 1.0


@dataclass(frozen=True)
class Shard(Generic[T]):
    """A piece of a stage's work that can be done anywhere, and twice."""

    title: str
    work: Callable[[], T]


def run_as_task(name: str, title: str, work: Callable[[], T]) -> T:
    """Run `work` as one Prefect task run titled `title`; what it raises is raised here.

    The work is a closure, so that Prefect neither walks through nor hashes thousands of requests.
    """

    @task(name=name, task_run_name=title, cache_policy=NO_CACHE, persist_result=False)
    def step() -> T:
        return work()

    return step()


def parts(items: Sequence[T], least: int) -> list[Sequence[T]]:
    """`items` in parts of at least `least` (but for the last), at most some hundreds of them."""
    size = max(least, -(-len(items) // _MOST_SHARDS))
    return [items[start : start + size] for start in range(0, len(items), size)]


def run_shards(config: CommonConfig, name: str, shards: Sequence[Shard[T]], *, gpus: int = 0) -> Iterator[T]:
    """Run each shard as a task run named `name` and give its result: in order here, as they come on a cluster.

    On a cluster a shard holds one CPU and `gpus` GPUs. What a shard raises is raised here, and so is EngineError for
    one whose node dies each time.
    """
    if config.runner == "threads":
        for shard in shards:
            yield run_as_task(name, shard.title, shard.work)
    elif shards:
        yield from _on_cluster(config.runner, ground_of(config), name, shards, gpus)


def open_where_configured(config: CommonConfig, spec: EngineSpec, place: Workplace) -> Engine:
    """Open the engine that `spec` names, here or in copies on the cluster; raises EngineError with the fix."""
    if config.runner == "threads":
        return open_engine(spec, place)
    return open_on_cluster(spec, place, config.runner, ground_of(config))


def ground_of(config: CommonConfig) -> NodeRequirements:
    """What the nodes must share for this configuration; they are looked at once a process.

    Raises EngineError when there is no cluster, or a node that does not see the folders.
    """
    assert isinstance(config.runner, RayRunner), "called with a cluster only"
    sources = [value for name in type(config).model_fields if isinstance(value := getattr(config, name), SourceConfig)]
    return _checked(config.runner.address, (config.output, config.images), tuple(source.images for source in sources))


@cache
def _checked(address: str, written: tuple[Path, ...], read: tuple[Path, ...]) -> NodeRequirements:
    ray = join_cluster(RayRunner(address=address))
    requirements = mark_shared_folders(written, read)
    nodes = check_nodes(ray, requirements)
    get_run_logger().info("Ray cluster at %s: %d nodes, all see %s", address, nodes, written[0])
    return requirements


def _on_cluster(
    runner: RayRunner, requirements: NodeRequirements, name: str, shards: Sequence[Shard[T]], gpus: int
) -> Iterator[T]:
    ray = join_cluster(runner)
    futures = _submitted(runner, [_step(name, shard, requirements) for shard in shards], gpus)
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
                        f"a shard of `{name}` was begun {_TRIES} times, and each time its process or node died: "
                        f"{get_last_line(error)}; see Ray's log there (memory?), and run again"
                    ) from error
    finally:
        for reference in futures:  # whoever broke off does not want the others
            ray.cancel(reference, force=True)


def _submitted(runner: RayRunner, steps: Sequence[Any], gpus: int) -> dict[Any, Any]:
    """Prefect's futures by Ray's references; a step whose process or node dies is run again by Ray."""
    from prefect_ray import RayTaskRunner
    from prefect_ray.context import remote_options

    options = {"num_cpus": 1, "num_gpus": gpus, "max_retries": _TRIES - 1, "scheduling_strategy": "SPREAD"}
    with RayTaskRunner(address=runner.address) as nodes, remote_options(**options):
        futures = [nodes.submit(step, parameters={}) for step in steps]
    return {future.wrapped_future: future for future in futures}


def _step(name: str, shard: Shard[T], requirements: NodeRequirements) -> Any:
    @task(name=name, task_run_name=shard.title, cache_policy=NO_CACHE, persist_result=False)
    def step() -> T:
        requirements.adopt()
        return shard.work()

    return step
