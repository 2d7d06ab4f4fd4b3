"""Servers that Ray places on two raylets: the load is shared, and the server of a lost node restarts on another."""

import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("ray")

from tasks.errors import EngineError
from tasks.media import TextPart
from tasks.models.engines.engine import Workplace, open_engine
from tasks.models.engines.ray.cluster import NodeRequirements, RayRunner, check_nodes, join_cluster, mark_shared_folders
from tasks.models.engines.ray.placed import PlacedServers, open_on_cluster
from tasks.models.engines.spec import EngineSpec
from tasks.models.engines.vllm.engine import VllmEngine
from tasks.models.engines.vllm.process import ServerProcess
from tasks.models.image_cache import ImageCache
from tasks.records import FreeText, Outcome, Request, Sampling
from tests.ray_cluster import kill_other_node, ray_nodes

ROOT = Path(__file__).resolve().parents[4]
pytestmark = [pytest.mark.slow, pytest.mark.vllm]


def requests(count: int) -> list[Request]:
    return [
        Request(
            key=f"k{i}", sample_id=f"s{i}", purpose="classify", prefix="问", parts=(TextPart(text=f"item-{i}"),),
            suffix="答", constraint=FreeText(), sampling=Sampling(), max_pixels=784, min_pixels=784,
        )
        for i in range(count)
    ]  # fmt: skip


def make_stub(name: str, key: str, seconds: float, place: Workplace, host: str) -> ServerProcess:
    """Return the stub server in vLLM's place; it listens on 127.0.0.1, where all raylets of a test are."""

    def command(port: int) -> list[str]:
        module = "tests.tasks.models.engines.stub_on_node"
        words = ["--port", str(port), "--name", name, "--key", key, "--seconds", str(seconds)]
        return [sys.executable, "-m", module, *words]

    return ServerProcess(
        command,
        name,
        key=key,
        environment={"PYTHONPATH": str(ROOT)},
        log=place.logs / f"{host}-{name}.log",
        start_seconds=60,
        explain=lambda log: log[-300:],
        records=place.logs / "servers",
    )


@pytest.fixture(scope="module")
def cluster() -> Iterator[Any]:
    with ray_nodes() as nodes:
        yield nodes


@pytest.fixture
def runner(cluster: Any) -> RayRunner:
    return RayRunner(address=cluster.address, replicas=2)


@pytest.fixture
def place(tmp_path: Path) -> Workplace:
    return Workplace(ImageCache(tmp_path / "images"), tmp_path / "logs")


@pytest.fixture
def requirements(tmp_path: Path) -> NodeRequirements:
    return mark_shared_folders([tmp_path], [])


def open_stubs(runner: RayRunner, place: Workplace, requirements: NodeRequirements, seconds: float = 0.0) -> VllmEngine:
    ray = join_cluster(runner)
    make = partial(make_stub, "stub-1", "secret", seconds)
    servers = PlacedServers(ray, make, place, requirements, runner, model="stub-1", key="secret", seconds=120)
    # a model that needs no folder: the stub has its own answers
    return VllmEngine(EngineSpec(engine="vllm", model="stub-1", concurrency=8), place, servers)


def test_copies_share_the_load(runner: RayRunner, place: Workplace, requirements: NodeRequirements) -> None:
    engine = open_stubs(runner, place, requirements)
    answers = list(engine.generate(requests(100)))
    assert {a.key for a in answers} == {r.key for r in requests(100)}
    assert {a.outcome for a in answers} == {Outcome.OK}
    assert len(engine.process.base_urls) == 2
    assert engine.usage().target == 16
    engine.close()
    engine.close()


def test_the_server_of_a_lost_node_comes_back_at_another_address(
    cluster: Any, runner: RayRunner, place: Workplace, requirements: NodeRequirements
) -> None:
    assert check_nodes(join_cluster(runner), requirements) == 2
    engine = open_stubs(runner, place, requirements, seconds=0.2)
    before = engine.process.base_urls
    found: list[str] = []
    for answer in engine.generate(requests(240)):
        if len(found) == 60:
            kill_other_node(cluster)
        assert answer.outcome is Outcome.OK
        found.append(answer.key)
    assert sorted(found) == sorted(r.key for r in requests(240))
    assert set(engine.process.base_urls) > set(before)
    engine.close()


def test_a_server_that_cannot_start_says_why(
    runner: RayRunner, place: Workplace, requirements: NodeRequirements
) -> None:
    with pytest.raises(EngineError, match="model folder /nowhere/model does not exist"):
        open_on_cluster(EngineSpec(engine="vllm", model="/nowhere/model"), place, runner, requirements)
    many = runner.model_copy(update={"gpus_per_replica": 4})
    with pytest.raises(EngineError, match=r"`gpus_per_replica` is 4, the cluster's largest node has 0 GPU"):
        open_on_cluster(EngineSpec(engine="vllm", model="some/model"), place, many, requirements)
    ray = join_cluster(runner)
    fails = partial(make_stub, "stub-1", "", 0.0)  # the folder of the driver is missing on the node
    elsewhere = NodeRequirements(Path("/nowhere"), (), (), requirements.code)
    servers = PlacedServers(ray, fails, place, elsewhere, RayRunner(), model="stub-1", key="", seconds=60)
    with pytest.raises(EngineError, match="has no /nowhere, the folder that the run was started from"):
        servers.start()
    servers.close()


def test_other_engines_stay_with_the_flow(runner: RayRunner, place: Workplace, requirements: NodeRequirements) -> None:
    spec = EngineSpec(engine="scripted", model="scripted:hash")
    engine = open_on_cluster(spec, place, runner, requirements)
    assert type(engine) is type(open_engine(spec, place))


def test_a_node_without_the_shared_folder_is_named(runner: RayRunner, tmp_path: Path) -> None:
    ray = join_cluster(runner)
    requirements = mark_shared_folders([tmp_path], [tmp_path / "pictures"])
    with pytest.raises(EngineError, match=r"Ray node \S+ has no .*pictures: mount the same file system"):
        check_nodes(ray, requirements)
    elsewhere = mark_shared_folders([tmp_path / "other"], [])
    (tmp_path / "other" / ".labelstill-shared").write_text("a disk of its own")
    with pytest.raises(EngineError, match=r"does not share .*other with the machine that runs the flow"):
        check_nodes(ray, elsewhere)


def test_a_missing_cluster_is_reported_in_one_sentence() -> None:
    import ray

    ray.shutdown()
    with pytest.raises(EngineError, match=r"no Ray cluster at `127.0.0.1:9`: .*`ray start --head`"):
        join_cluster(RayRunner(address="127.0.0.1:9"))
