"""A Ray cluster of several raylets on this machine, small enough for the tests."""

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

import psutil

_STORE_BYTES = 80 << 20
_QUICK_TO_NOTICE = {
    "health_check_initial_delay_ms": 1000,
    "health_check_period_ms": 500,
    "health_check_timeout_ms": 2000,
    "health_check_failure_threshold": 4,
}
"""A dead node is noticed within seconds; by default after half a minute."""

os.environ.update(
    {
        "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_memory_monitor_refresh_ms": "0",  # on a machine full of tests it would kill what it finds
        "RAY_DISABLE_IMPORT_WARNING": "1",
        "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
        "RAY_enable_metrics_collection": "0",
        "RAY_worker_niceness": "0",  # workers would wait for whatever else the machine does
    }
)


@contextmanager
def ray_nodes(nodes: int = 2, cpus: int = 1) -> Iterator[Any]:
    """A cluster whose first node is the one this process joins; `ray.cluster_utils.Cluster`, ended afterwards."""
    import ray
    from ray.cluster_utils import Cluster

    small = {"num_cpus": cpus, "object_store_memory": _STORE_BYTES}
    cluster = Cluster(
        initialize_head=True, head_node_args={**small, "include_dashboard": False, "_system_config": _QUICK_TO_NOTICE}
    )
    try:
        for _ in range(nodes - 1):
            cluster.add_node(**small)
        yield cluster
    finally:
        ray.shutdown()
        cluster.shutdown()


def kill_other_node(cluster: Any) -> None:
    """End a node that this process is not on, as a power cut does: its raylet, workers and what these have started."""
    (node, *_) = [n for n in cluster.list_all_nodes() if n is not cluster.head_node]
    processes = [psutil.Process(started.process.pid) for started in node.all_processes["raylet"]]
    descendants = [child for process in processes for child in process.children(recursive=True)]
    cluster.remove_node(node, allow_graceful=False)
    for process in descendants:
        with suppress(psutil.NoSuchProcess):
            process.kill()
