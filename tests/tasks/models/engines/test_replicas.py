"""Copies of the scripted engine on a cluster of two raylets: the same answers, also when one of them is killed."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("ray")

from tasks.errors import EngineError
from tasks.models.engines.engine import EngineSpec, Workplace, open_engine
from tasks.models.engines.ray.cluster import Ground, RayRunner, check_nodes, join_cluster, mark_ground
from tasks.models.engines.ray.clustered import open_on_cluster
from tasks.models.image_cache import ImageCache
from tasks.records import FreeText, Generation, LabelAnswer, Request, Sampling, TextPart
from tests.ray_cluster import kill_other_node, ray_nodes

LABELS = ("订单", "物流", "退款")
pytestmark = pytest.mark.slow


def requests(count: int) -> list[Request]:
    answer = LabelAnswer(
        labels=LABELS, reason_key=None, label_key="类别", opening='{"类别": "', between=None, closing='"}'
    )
    return [
        Request(
            key=f"k{i}", sample_id=f"s{i}", purpose="classify", prefix="问", parts=(TextPart(text=f"第{i}"),),
            suffix="答", constraint=answer if i % 2 else FreeText(), sampling=Sampling(label_probabilities=i % 2 == 1),
            max_pixels=784, min_pixels=784,
        )
        for i in range(count)
    ]  # fmt: skip


def plain(answers: list[Generation]) -> dict[str, Generation]:
    assert len({g.key for g in answers}) == len(answers)
    return {g.key: g.model_copy(update={"seconds": 0.0}) for g in answers}


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
def ground(tmp_path: Path) -> Ground:
    return mark_ground([tmp_path], [])


def test_copies_answer_as_one_engine_does(runner: RayRunner, place: Workplace, ground: Ground) -> None:
    spec = EngineSpec(engine="scripted", model="scripted:hash,slow=0.01")
    engine = open_on_cluster(spec, place, runner, ground)
    asked, alone = requests(100), open_engine(spec, place)
    assert check_nodes(join_cluster(runner), ground) == 2
    assert plain(list(engine.generate(iter(asked)))) == plain(list(alone.generate(asked)))
    assert list(engine.generate([])) == []
    assert plain(list(engine.generate(asked[:3]))) == plain(list(alone.generate(asked[:3])))
    assert engine.fingerprint == alone.fingerprint
    usage = engine.usage()
    assert usage.target == 2
    assert 0.9 < usage.busy < 1.3  # both copies' time: 103 answers of 10 ms
    engine.close()
    engine.close()


def test_who_breaks_off_gets_no_old_answers_later(runner: RayRunner, place: Workplace, ground: Ground) -> None:
    engine = open_on_cluster(EngineSpec(engine="scripted", model="scripted:slow=0.02"), place, runner, ground)
    answers = engine.generate(requests(60))
    next(answers)
    answers.close()  # pyright: ignore[reportAttributeAccessIssue]
    after = [r.model_copy(update={"key": f"later{r.key}"}) for r in requests(10)]
    assert {g.key for g in engine.generate(after)} == {r.key for r in after}
    engine.close()


def test_an_engine_that_cant_be_opened_says_why(runner: RayRunner, place: Workplace, ground: Ground) -> None:
    with pytest.raises(EngineError, match="unknown script `scripted:nonsense`"):
        open_on_cluster(EngineSpec(engine="scripted", model="scripted:nonsense"), place, runner, ground)
    with pytest.raises(EngineError, match=r"`gpus_per_replica` is 4, the cluster's largest node has 0 GPU"):
        many = runner.model_copy(update={"gpus_per_replica": 4})
        open_on_cluster(EngineSpec(engine="scripted", model="scripted:hash"), place, many, ground)


def test_a_node_without_the_shared_folder_is_named(runner: RayRunner, tmp_path: Path) -> None:
    ray = join_cluster(runner)
    ground = mark_ground([tmp_path], [tmp_path / "pictures"])
    with pytest.raises(EngineError, match=r"Ray node \S+ has no .*pictures: mount the same file system"):
        check_nodes(ray, ground)
    elsewhere = mark_ground([tmp_path / "other"], [])
    (tmp_path / "other" / ".labelstill-shared").write_text("a disk of its own")
    with pytest.raises(EngineError, match=r"does not see .*other of the machine that runs the flow"):
        check_nodes(ray, elsewhere)


def test_a_killed_node_costs_only_what_it_had_in_flight(
    cluster: Any, runner: RayRunner, place: Workplace, ground: Ground
) -> None:
    spec = EngineSpec(engine="scripted", model="scripted:hash,slow=0.02")
    engine = open_on_cluster(spec, place, runner, ground)
    asked, drawn, found = requests(240), 0, list[Generation]()

    def draw() -> Iterator[Request]:
        nonlocal drawn
        for request in asked:
            drawn += 1
            yield request

    for number, answer in enumerate(engine.generate(draw())):
        if number == 60:
            kill_other_node(cluster)
        found.append(answer)
    assert plain(found) == plain(list(open_engine(spec, place).generate(asked)))
    assert drawn == len(asked)
    engine.close()


def test_no_cluster_is_one_sentence() -> None:
    import ray

    ray.shutdown()
    with pytest.raises(EngineError, match=r"no Ray cluster at `127.0.0.1:9`: .*`ray start --head`"):
        join_cluster(RayRunner(address="127.0.0.1:9"))
