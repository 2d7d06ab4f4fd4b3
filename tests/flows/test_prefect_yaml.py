import importlib
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from prefect.cli.deploy._models import (
    ConcurrencyLimitSpec,
    DeploymentConfig,
    PrefectYamlModel,
    RawScheduleConfig,
    WorkPoolConfig,
)
from prefect.exceptions import ParameterTypeError
from prefect.flows import Flow
from prefect.utilities.callables import parameter_schema
from prefect.utilities.schema_tools.validation import ValidationError, validate

from flows.config import (
    CorrectionConfig,
    DistillConfig,
    EmitConfig,
    EvaluateConfig,
    PseudoLabelsConfig,
    RationalesConfig,
    RelabelConfig,
)
from flows.service.serve import list_deployments
from tasks.demo.settings import DemoConfig
from tasks.errors import ConfigError
from tests.conftest import ROOT

DECLARED: dict[str, Any] = yaml.safe_load((ROOT / "prefect.yaml").read_text(encoding="utf-8"))
CONFIGS = {
    "distill": DistillConfig,
    "rationales": RationalesConfig,
    "correct": CorrectionConfig,
    "pseudo-labels": PseudoLabelsConfig,
    "emit": EmitConfig,
    "evaluate": EvaluateConfig,
    "relabel": RelabelConfig,
    "demo": DemoConfig,
}
HOUR = 3600
each_deployment = pytest.mark.parametrize("one", DECLARED["deployments"], ids=lambda one: one["name"])


def load_flow(one: dict[str, Any]) -> Flow[..., Any]:
    module, _, name = one["entrypoint"].partition(":")
    flow = getattr(importlib.import_module(module), name)
    assert isinstance(flow, Flow)
    return flow


def test_there_is_no_key_that_prefect_would_ignore() -> None:
    known = {field.alias or name for name, field in PrefectYamlModel.model_fields.items()}
    assert set(DECLARED) <= known | {"definitions"}  # the pieces that YAML's anchors repeat
    for one in DECLARED["deployments"]:
        assert set(one) <= set(DeploymentConfig.model_fields)
        assert set(one["work_pool"]) <= set(WorkPoolConfig.model_fields)
        assert set(one["concurrency_limit"]) <= set(ConcurrencyLimitSpec.model_fields)
        for schedule in one.get("schedules", []):
            RawScheduleConfig.model_validate(schedule)


def test_the_names_are_those_that_people_type() -> None:
    assert [one["name"] for one in DECLARED["deployments"]] == list(CONFIGS)
    assert "labelstill-correction/correct" in list_deployments(ROOT)
    for one, full_name in zip(DECLARED["deployments"], list_deployments(ROOT), strict=True):
        assert full_name == f"{load_flow(one).name}/{one['name']}"


@each_deployment
def test_deployments_that_load_a_model_use_the_gpu_pool(one: dict[str, Any]) -> None:
    assert one["work_pool"]["name"] == ("labelstill-cpu" if one["name"] in {"emit", "demo"} else "labelstill-gpu")


@each_deployment
def test_the_entrypoint_is_a_flow_that_takes_the_parameters(one: dict[str, Any]) -> None:
    checked = load_flow(one).validate_parameters(one["parameters"])
    assert isinstance(checked["config"], CONFIGS[one["name"]])


@each_deployment
def test_the_server_accepts_the_example_and_refuses_an_unknown_key(one: dict[str, Any]) -> None:
    schema = parameter_schema(load_flow(one)).model_dump_for_openapi()
    validate(one["parameters"], schema, raise_on_error=True)
    wrong = {"config": {**one["parameters"]["config"], "no_such_key": 1}}
    with pytest.raises(ValidationError, match="no_such_key"):
        validate(wrong, schema, raise_on_error=True)


@pytest.fixture
def run_file(tmp_path: Path) -> Path:
    """A run.yaml with the keys of the deployment `distill`."""
    (distill,) = (one["parameters"]["config"] for one in DECLARED["deployments"] if one["name"] == "distill")
    file = tmp_path / "run.yaml"
    file.write_text(yaml.safe_dump({**distill, "seed": 3, "drift": {}}), encoding="utf-8")
    return file


@pytest.mark.parametrize("name", ["distill", "relabel", "rationales", "correct", "pseudo-labels", "emit"])
def test_a_deployment_takes_its_settings_from_a_file(name: str, run_file: Path) -> None:
    (one,) = (one for one in DECLARED["deployments"] if one["name"] == name)
    given = {"config": {"file": str(run_file), "output": "artifacts/other"}}
    validate(given, parameter_schema(load_flow(one)).model_dump_for_openapi(), raise_on_error=True)
    config = load_flow(one).validate_parameters(given)["config"]
    assert (config.seed, config.output, config.pack) == (3, Path("artifacts/other"), "www2025")
    assert config.file is None


def test_a_wrong_key_in_the_file_and_a_missing_file_are_errors(run_file: Path) -> None:
    flow = load_flow(next(one for one in DECLARED["deployments"] if one["name"] == "relabel"))
    run_file.write_text(run_file.read_text(encoding="utf-8") + "no_such_key: 1\n", encoding="utf-8")
    with pytest.raises(ParameterTypeError, match="no_such_key"):
        flow.validate_parameters({"config": {"file": str(run_file)}})
    with pytest.raises(ConfigError, match=r"gone\.yaml: missing"):
        flow.validate_parameters({"config": {"file": "gone.yaml"}})


@each_deployment
def test_the_form_describes_every_field(one: dict[str, Any]) -> None:
    schema = parameter_schema(load_flow(one)).model_dump_for_openapi()
    assert set(schema["properties"]) == {"config"}
    assert all("description" in definition for definition in schema["definitions"].values() if "enum" not in definition)
    assert list(find_undescribed(schema["definitions"])) == []


def find_undescribed(definitions: dict[str, Any]) -> Iterator[str]:
    for name, definition in definitions.items():
        for key, field in definition.get("properties", {}).items():
            if not field.get("description"):
                yield f"{name}.{key}"


@each_deployment
def test_one_run_at_a_time_described_tagged_and_limited(one: dict[str, Any]) -> None:
    assert one["concurrency_limit"] == {"limit": 1, "collision_strategy": "ENQUEUE"}
    assert one["enforce_parameter_schema"] is True
    assert len(one["description"]) > 40
    assert "labelstill" in one["tags"]
    flow = load_flow(one)
    assert flow.timeout_seconds is not None
    assert (2 * HOUR if one["name"] == "demo" else 12 * HOUR) <= flow.timeout_seconds <= 14 * 24 * HOUR
    assert flow.retries == 0  # a command in a terminal fails at once; deployments are tried again:
    tries = one["work_pool"]["job_variables"].get("env", {}).get("PREFECT_FLOWS_DEFAULT_RETRIES")
    assert tries == (None if one["name"] == "demo" else "2")
    assert all(not schedule["active"] for schedule in one.get("schedules", []))


def test_the_servers_address_and_port_agree() -> None:
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["prefect"]
    assert (
        settings["api"]["url"] == f"http://{settings['server']['api']['host']}:{settings['server']['api']['port']}/api"
    )
