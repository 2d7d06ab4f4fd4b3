from pathlib import Path

import pytest
from prefect import flow
from prefect.client.orchestration import SyncPrefectClient
from pydantic import BaseModel

from flows.one_run import one_run
from flows.run_lock import holder_of
from tasks.errors import ConfigError, EngineError
from tests.conftest import PrefectServer


class Config(BaseModel):
    output: Path


@flow(retries=2, retry_delay_seconds=0, flow_run_name="fails in {config.output.name}")
@one_run
def fails(config: Config, error: str) -> None:
    """Notes the try, and who holds the folder meanwhile."""
    holder = holder_of(config.output)
    with (config.output / "tries").open("a") as file:
        print(holder.run if holder else "nobody", file=file)
    raise {"config": ConfigError, "engine": EngineError, "foreign": ConnectionError}[error]("as asked")


@flow(retries=1, retry_delay_seconds=0, flow_run_name="larger")
@one_run
def larger(config: Config) -> None:
    """A flow whose stage fails."""
    fails(config, "engine")


def tries(output: Path) -> list[str]:
    return (output / "tries").read_text().splitlines()


def test_an_error_that_would_come_again_is_final(prefect_server: PrefectServer, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="as asked"):
        fails(Config(output=tmp_path), "config")
    assert tries(tmp_path) == [f"fails in {tmp_path.name}"]


@pytest.mark.parametrize("error", ["engine", "foreign"])
def test_another_is_tried_as_often_as_asked(prefect_server: PrefectServer, tmp_path: Path, error: str) -> None:
    with pytest.raises((EngineError, ConnectionError)):
        fails(Config(output=tmp_path), error)
    assert tries(tmp_path) == [f"fails in {tmp_path.name}"] * 3


def test_a_stage_is_tried_again_with_the_larger_flow_alone(prefect_server: PrefectServer, tmp_path: Path) -> None:
    with pytest.raises(EngineError):
        larger(Config(output=tmp_path))
    assert tries(tmp_path) == ["larger"] * 2
    with SyncPrefectClient(prefect_server.api_url) as client:
        newest = [run for run in client.read_flow_runs(limit=200) if run.name == "larger"]
        assert [run.run_count for run in newest] == [2]


def test_the_flow_keeps_its_signature_and_description() -> None:
    assert set(fails.parameters.properties) == {"config", "error"}
    assert fails.description is not None
    assert fails.description.startswith("Notes the try")
