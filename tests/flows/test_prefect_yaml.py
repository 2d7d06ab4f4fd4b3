import importlib
import tomllib
from typing import Any

import pytest
import yaml
from prefect.cli.deploy._models import DeploymentConfig, PrefectYamlModel, WorkPoolConfig
from prefect.flows import Flow

from flows.config import DemoConfig, DistillConfig
from flows.service import POOL, deployment_names
from tests.conftest import ROOT

DECLARED: dict[str, Any] = yaml.safe_load((ROOT / "prefect.yaml").read_text(encoding="utf-8"))
CONFIGS = {"distill": DistillConfig, "demo": DemoConfig}
each_deployment = pytest.mark.parametrize("one", DECLARED["deployments"], ids=lambda one: one["name"])


def test_there_is_no_key_that_prefect_would_ignore() -> None:
    assert set(DECLARED) <= {field.alias or name for name, field in PrefectYamlModel.model_fields.items()}
    for one in DECLARED["deployments"]:
        assert set(one) <= set(DeploymentConfig.model_fields)
        assert set(one["work_pool"]) <= set(WorkPoolConfig.model_fields)


def test_the_names_are_those_that_people_type() -> None:
    assert deployment_names(ROOT) == ["distill/distill", "demo/demo"]
    assert {one["work_pool"]["name"] for one in DECLARED["deployments"]} == {POOL}


@each_deployment
def test_the_entrypoint_is_a_flow_that_takes_the_parameters(one: dict[str, Any]) -> None:
    module, _, name = one["entrypoint"].partition(":")
    flow = getattr(importlib.import_module(module), name)
    assert isinstance(flow, Flow)
    checked = flow.validate_parameters(one["parameters"])
    assert isinstance(checked["config"], CONFIGS[one["name"]])


@each_deployment
def test_the_configuration_is_valid(one: dict[str, Any]) -> None:
    CONFIGS[one["name"]].model_validate(one["parameters"]["config"])


def test_the_servers_address_and_port_agree() -> None:
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["prefect"]
    assert (
        settings["api"]["url"] == f"http://{settings['server']['api']['host']}:{settings['server']['api']['port']}/api"
    )
