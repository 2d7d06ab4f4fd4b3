"""What can be checked of flows/deploy without systemd, containers or a cluster."""

import configparser
import itertools
import json
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml
from prefect.settings.legacy import _get_settings_fields
from prefect.settings.models.root import Settings
from prefect.utilities.templating import find_placeholders

from flows.service.serve import list_pools
from tests.conftest import ROOT

DEPLOY = ROOT / "flows" / "deploy"
FILES = sorted(path for path in DEPLOY.iterdir() if path.suffix != ".dockerignore")
COMPOSE: dict[str, Any] = yaml.safe_load((DEPLOY / "compose.yaml").read_text(encoding="utf-8"))
MANIFESTS: list[dict[str, Any]] = yaml.safe_load((DEPLOY / "kubernetes.yaml").read_text(encoding="utf-8"))["items"]
TEMPLATE: dict[str, Any] = json.loads((DEPLOY / "kubernetes-pool.json").read_text(encoding="utf-8"))
POD: dict[str, Any] = TEMPLATE["job_configuration"]["job_manifest"]["spec"]["template"]["spec"]
KNOWN = {name.upper() for name in _get_settings_fields(Settings)}
OWN_IMAGES = {"labelstill:0.1.0", "labelstill-gpu:0.1.0", "labelstill-kubernetes:0.1.0"}
PINNED = re.compile(r"^(postgres|python):\d+\.\d+(\.\d+)?-\S+$")


def walk_mappings(node: Any) -> Iterator[dict[str, Any]]:
    """Every mapping in a document, at any depth."""
    if isinstance(node, dict):
        yield node
        for value in node.values():
            yield from walk_mappings(value)
    elif isinstance(node, list):
        for value in node:
            yield from walk_mappings(value)


def read_unit(name: str) -> configparser.ConfigParser:
    parser = configparser.ConfigParser(interpolation=None, strict=False)
    parser.optionxform = str  # pyright: ignore[reportAttributeAccessIssue]  systemd's keys have capitals
    parser.read_string((DEPLOY / name).read_text(encoding="utf-8"))
    return parser


def list_commands() -> Iterator[list[str]]:
    """Each command line that these files start."""
    for service in COMPOSE["services"].values():
        match service.get("command"):
            case None:
                continue
            case ["sh", "-c", script]:
                yield from (shlex.split(line) for line in script.split(";"))
            case command:
                yield command
    for container in itertools.chain.from_iterable(
        m.get("containers", []) for doc in MANIFESTS for m in walk_mappings(doc)
    ):
        if "command" in container:
            yield container["command"]
    for name in ("labelstill.service", "labelstill-worker@.service"):
        program, *words = shlex.split(read_unit(name)["Service"]["ExecStart"].replace("%i", "gpu"))
        yield [Path(program).name, *words]


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.name)
def test_each_file_says_at_its_top_that_it_was_not_run(file: Path) -> None:
    top = " ".join(file.read_text(encoding="utf-8").split("\n")[:5])
    assert re.search(r"\bNot (run|built)\b", top)


def test_images_are_pinned() -> None:
    images = [
        m["image"] for doc in [COMPOSE, *MANIFESTS] for m in walk_mappings(doc) if isinstance(m.get("image"), str)
    ]
    images += re.findall(r"^FROM (\S+)", (DEPLOY / "Dockerfile").read_text(encoding="utf-8"), re.MULTILINE)
    images.append(TEMPLATE["variables"]["properties"]["image"]["default"])
    assert len(images) >= 9
    assert [image for image in images if image not in OWN_IMAGES and not PINNED.match(image)] == []
    built = (DEPLOY / "Dockerfile").read_text(encoding="utf-8")
    assert all(f"-t {image}" in built for image in OWN_IMAGES)


def test_prefect_is_the_version_that_the_project_pins() -> None:
    pinned = re.search(r"^prefect==(\S+)", (ROOT / "requirements" / "base.lock").read_text(), re.MULTILINE)
    assert pinned is not None
    assert f"prefect=={pinned[1]} " in (DEPLOY / "Dockerfile").read_text(encoding="utf-8")


def test_every_command_and_option_exists() -> None:
    seen: set[str] = set()
    for program, *words in list_commands():
        help_text = read_help(program, tuple(word for word in words[:2] if not word.startswith("-")))
        for option in (word for word in words if word.startswith("--")):
            assert option.replace("--no-", "--") in help_text.replace("--no-", "--"), f"{program} {words}"
        if "--pool" in words:
            assert words[words.index("--pool") + 1] in list_pools(ROOT)
        seen.add(f"{program} {words[0]}")
    assert {"prefect server", "prefect worker", "prefect work-pool", "prefect --no-prompt", "labelstill serve"} <= seen


@cache
def read_help(program: str, words: tuple[str, ...]) -> str:
    module = {"prefect": "prefect", "labelstill": "flows.commands.main"}[program]
    command = [sys.executable, "-m", module, *(words or ("deploy",)), "--help"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120, check=True)
    return done.stdout + ("--no-prompt" if program == "prefect" else "")


def test_no_port_is_open_to_other_machines() -> None:
    ports = [port for service in COMPOSE["services"].values() for port in service.get("ports", [])]
    assert ports == ["127.0.0.1:4277:4277"]
    services = [doc for doc in MANIFESTS if doc["kind"] == "Service"]
    assert {doc["spec"].get("type", "ClusterIP") for doc in services} == {"ClusterIP"}
    for doc in MANIFESTS:
        assert not any("hostPort" in m or m.get("hostNetwork") for m in walk_mappings(doc))


def test_secrets_come_from_outside() -> None:
    for file in FILES:
        text = file.read_text(encoding="utf-8")
        assert not re.search(r"(?i)(password|auth\w*|token|key): *['\"]?[a-z0-9]{8,}['\"]?$", text, re.MULTILINE), file
    for service in COMPOSE["services"].values():
        for name, value in service.get("environment", {}).items():
            if name.endswith(("PASSWORD", "AUTH_STRING")):
                assert value.startswith("${") and ":?" in value
    for variable in (m for doc in [*MANIFESTS, POD] for m in walk_mappings(doc) if "name" in m):
        if str(variable["name"]).endswith(("PASSWORD", "AUTH_STRING")):
            assert variable["valueFrom"]["secretKeyRef"]["name"] == "labelstill"


def test_prefects_settings_exist() -> None:
    names = {name for service in COMPOSE["services"].values() for name in service.get("environment", {})}
    names |= {m["name"] for doc in [*MANIFESTS, POD] for m in walk_mappings(doc) if m.keys() & {"value", "valueFrom"}}
    ours = {name for name in names if name.startswith("PREFECT_")}
    assert len(ours) >= 8
    # read by prefect-kubernetes, which is not installed here
    assert ours - KNOWN == {"PREFECT_INTEGRATIONS_KUBERNETES_OBSERVER_NAMESPACES"}


def test_dependencies_and_health_checks_agree() -> None:
    services = COMPOSE["services"]
    for service in services.values():
        for other, how in service.get("depends_on", {}).items():
            assert ("healthcheck" in services[other]) == (how["condition"] == "service_healthy")
    assert {name for name, one in services.items() if "healthcheck" not in one} == {"deploy"}
    mounted = {str(v).split(":")[0] for one in services.values() for v in one.get("volumes", []) if v[0] not in "$./"}
    assert mounted == set(COMPOSE["volumes"])
    containers = [c for doc in MANIFESTS for m in walk_mappings(doc) for c in m.get("containers", [])]
    assert len(containers) == 4
    assert all({"readinessProbe", "livenessProbe"} & set(container) for container in containers)


def test_manifests_refer_only_to_defined_objects() -> None:
    made = {(doc["kind"], doc["metadata"]["name"]) for doc in MANIFESTS}
    claims = [m["claimName"] for doc in [*MANIFESTS, POD] for m in walk_mappings(doc) if "claimName" in m]
    assert {("PersistentVolumeClaim", claim) for claim in claims} <= made
    for doc in MANIFESTS:
        if doc["kind"] in {"Deployment", "StatefulSet"}:
            spec = doc["spec"]["template"]["spec"]
            assert doc["spec"]["selector"]["matchLabels"] == doc["spec"]["template"]["metadata"]["labels"]
            assert ("ServiceAccount", spec.get("serviceAccountName")) in made or not spec[
                "automountServiceAccountToken"
            ]
            volumes = {v["name"] for v in spec.get("volumes", [])}
            volumes |= {v["metadata"]["name"] for v in doc["spec"].get("volumeClaimTemplates", [])}
            assert {m["name"] for c in spec["containers"] for m in c["volumeMounts"]} == volumes
    assert {m["name"] for m in POD["containers"][0]["volumeMounts"]} == {v["name"] for v in POD["volumes"]}


def test_the_job_template_uses_exactly_its_variables() -> None:
    declared = TEMPLATE["variables"]["properties"]
    asked = {found.name for found in find_placeholders(TEMPLATE["job_configuration"])}
    assert asked == set(declared)
    assert all(field.get("description") for field in declared.values())
    # without these prefect-kubernetes refuses a job
    assert (POD["parallelism"], POD["completions"], POD["restartPolicy"]) == (1, 1, "Never")
    assert [container["name"] for container in POD["containers"]] == ["prefect-job"]
