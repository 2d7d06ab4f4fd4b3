"""The same configuration on threads and on a cluster of two raylets, of which one is killed: the same result.

What is compared is everything but times: rounding too, for which both sides compute with one thread.
"""

import json
import sqlite3
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

pytest.importorskip("ray")

from flows.config import DistillConfig
from tasks.demo.settings import DemoConfig
from tasks.demo.tiny_models import TinyModels
from tasks.models.engines.ray.cluster import RayRunner
from tasks.storage.stage_record import read_record
from tasks.students.settings import ProbeSpec, ScoringSettings
from tests.conftest import PrefectServer
from tests.flows.small_run import small_config
from tests.ray_cluster import kill_other_node, ray_nodes

STAGES = ("rationales", "correction", "pseudo_labels", "emit")
pytestmark = [pytest.mark.slow, pytest.mark.timeout(1200)]


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # another number of threads adds up in another order
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    with ray_nodes() as nodes:
        yield nodes
    torch.set_num_threads(threads)


def move_to_ray(config: DistillConfig, cluster: Any, folder: Path) -> DistillConfig:
    """The same with files of its own, on the cluster."""
    return config.model_copy(
        update={
            "runner": RayRunner(address=cluster.address, replicas=2),
            "output": folder / "run",
            "ledger": folder / "ledger.sqlite",
            "images": folder / "images",
            "texts": folder / "texts",
        }
    )


def read_answers(ledger: Path) -> dict[str, dict[str, Any]]:
    """The ledger's answers by key, but for the time that they took."""
    with sqlite3.connect(ledger) as file:
        rows = [json.loads(text) for (text,) in file.execute("SELECT generation FROM answers")]
    return {row["key"]: row | {"seconds": 0.0} for row in rows}


def assert_same(one: DistillConfig, other: DistillConfig) -> None:
    """Kept and dropped items of every stage, folds, students and the ledger's answers are the same."""
    for stage in STAGES:
        for name in ("kept.parquet", "dropped.parquet"):
            left, right = (pd.read_parquet(c.output / stage / name) for c in (one, other))
            pd.testing.assert_frame_equal(left, right, check_exact=True, obj=f"{stage}/{name}")
        records = [read_record(c.output / stage) for c in (one, other)]
        assert records[0] is not None and records[1] is not None
        assert (records[0].recipe, records[0].drops) == (records[1].recipe, records[1].drops)
    folds = [(c.output / "correction" / "folds.json").read_text("utf-8") for c in (one, other)]
    assert folds[0] == folds[1]
    students = [{f.name for f in (c.output / "correction" / "students").glob("[!.]*")} for c in (one, other)]
    assert students[0] == students[1] and students[0]
    left, right = read_answers(one.ledger), read_answers(other.ledger)
    assert left.keys() == right.keys()
    assert left == right


class KillWhen(threading.Thread):
    """Kills the other node once `there` says so."""

    def __init__(self, cluster: Any, there: Any) -> None:
        super().__init__(daemon=True)
        self.cluster, self.there, self.killed = cluster, there, False

    def run(self) -> None:
        while not self.there():
            time.sleep(0.2)
        kill_other_node(self.cluster)
        self.killed = True


def count_answers(ledger: Path) -> int:
    if not ledger.exists():
        return 0
    with sqlite3.connect(f"file:{ledger}?mode=ro", uri=True) as file:
        (count,) = file.execute("SELECT COUNT(*) FROM answers").fetchone()
    return int(count)


def test_a_probe_run_is_the_same_with_and_without_ray(
    prefect_server: PrefectServer, cluster: Any, tmp_path: Path
) -> None:
    from flows.distill import distill

    alone = small_config(tmp_path).model_copy(update={"student": ProbeSpec(folds=3)})
    distill(alone)
    spread = move_to_ray(alone, cluster, tmp_path / "spread")
    distill(spread)
    assert_same(alone, spread)
    metrics = [read_record(c.output / "pseudo_labels") for c in (alone, spread)]
    assert metrics[0] is not None and metrics[1] is not None
    assert metrics[0].costs.asked == metrics[1].costs.asked > 0


def test_a_killed_node_changes_nothing(prefect_server: PrefectServer, cluster: Any, tmp_path: Path) -> None:
    """The node dies while LoRA folds are trained: the fold that it trained is trained again by the other one."""
    from flows.distill import distill

    alone = small_config(tmp_path)
    distill(alone)
    spread = move_to_ray(alone, cluster, tmp_path / "spread")
    students = spread.output / "correction" / "students"
    # both folds are under way at once, one on each node
    killer = KillWhen(cluster, lambda: any(students.glob(".*.part")))
    killer.start()
    distill(spread)
    assert killer.killed
    assert_same(alone, spread)


def test_the_demo_on_two_raylets(
    prefect_server: PrefectServer, cluster: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Preparation, folds and generation by the demo's local engines; the node dies while the pool is labelled."""
    from prefect import flow

    from flows.demo import make_demo_config, train_models, write_data
    from flows.distill import distill

    small = DemoConfig(output=tmp_path / "alone", labelled=60, unlabelled=60, folds=2, training=0.05)

    @flow
    def models() -> TinyModels:
        return train_models(small)

    alone = make_demo_config(small, write_data(small), models())
    alone = alone.model_copy(
        update={
            # small batches, so that both copies get some
            "generator": alone.generator.model_copy(update={"batch_size": 2}),
            "teacher": alone.teacher.model_copy(update={"batch_size": 2}),
            "student": alone.student.model_copy(
                update={"scoring": ScoringSettings(engine="local", batch_size=2), "steps": 6}
            ),
        }
    )
    began = time.monotonic()
    distill(alone)
    on_threads = time.monotonic() - began
    spread = move_to_ray(alone, cluster, tmp_path / "spread")
    total = count_answers(alone.ledger)
    killer = KillWhen(cluster, lambda: count_answers(spread.ledger) > 0.8 * total)
    killer.start()
    began = time.monotonic()
    distill(spread)
    on_cluster = time.monotonic() - began
    assert killer.killed
    assert_same(alone, spread)
    with capsys.disabled():
        print(
            f"\ndemo of 60 + 60 items: {total} answers, {len(list(spread.images.rglob('*.png')))} images, 2 folds; "
            f"threads {on_threads:.0f} s; two raylets of one core each, one killed in the middle, {on_cluster:.0f} s; "
            "kept, dropped, folds, students and answers equal"
        )
