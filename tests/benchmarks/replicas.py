"""What a request costs the driver when engines are copies on Ray: two raylets on this machine, scripted answers.

python tests/benchmarks/replicas.py [--requests 20000]
"""

import argparse
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from tasks.models.engines.engine import EngineSpec, Workplace
from tasks.models.engines.ray.cluster import RayRunner, mark_ground
from tasks.models.engines.ray.clustered import open_on_cluster
from tasks.models.image_cache import ImageCache
from tests.ray_cluster import ray_nodes
from tests.tasks.models.engines.test_replicas import requests


def main() -> None:
    """Answer so many requests by two copies, and print the driver's CPU time and the rate."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--requests", type=int, default=20_000)
    count: int = parser.parse_args().requests
    with tempfile.TemporaryDirectory() as name, ray_nodes() as cluster:
        folder = Path(name)
        place = Workplace(ImageCache(folder / "images"), folder / "logs")
        began = time.monotonic()
        engine = open_on_cluster(
            EngineSpec(engine="scripted", model="scripted:hash"), place,
            RayRunner(address=cluster.address, replicas=2), mark_ground([folder], []),
        )  # fmt: skip
        opened = time.monotonic() - began
        asked = requests(count)
        assert sum(1 for _ in engine.generate(asked[:500])) == 500
        began, cpu = time.monotonic(), time.process_time()
        answered = sum(1 for _ in engine.generate(asked[500:]))
        seconds, cpu = time.monotonic() - began, time.process_time() - cpu
        engine.close()
    assert answered == count - 500
    print(
        f"opening the first of two copies {opened:.1f} s; {answered:,} requests in {seconds:.1f} s: "
        f"{answered / seconds:,.0f}/s; driver's CPU {1000 * cpu / answered:.3f} ms a request"
    )


if __name__ == "__main__":
    main()
