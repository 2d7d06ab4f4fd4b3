from pathlib import Path

import pytest

from flows.config import load_config
from flows.runners import split_into_parts
from tasks.errors import ConfigError
from tasks.models.engines.ray.cluster import RayRunner

LABELLED = "pack: demo\noutput: out\nlabelled: {manifest: a.json, images: a}\n"


def test_every_stage_runs_where_the_configuration_says(tmp_path: Path) -> None:
    file = tmp_path / "run.yaml"
    file.write_text(LABELLED, encoding="utf-8")
    assert {stage.runner for stage in load_config(file).list_stage_configs()} == {"threads"}
    file.write_text(LABELLED + "runner: {kind: ray, address: '10.0.0.1:6379', replicas: 2}\n", encoding="utf-8")
    runners = {stage.runner for stage in load_config(file).list_stage_configs()}
    assert runners == {RayRunner(address="10.0.0.1:6379", replicas=2)}
    file.write_text(LABELLED + "runner: ray\n", encoding="utf-8")
    with pytest.raises(ConfigError, match="runner"):
        load_config(file)


def test_parts_are_neither_too_small_nor_too_many() -> None:
    assert [list(p) for p in split_into_parts(range(7), 3)] == [[0, 1, 2], [3, 4, 5], [6]]
    assert split_into_parts([], 3) == []
    many = split_into_parts(range(10_000_000), 400)
    assert len(many) == 500
    assert sum(map(len, many)) == 10_000_000
