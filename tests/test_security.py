"""Rules that the whole code keeps; what single rooms do against bad input is tested beside them.

Paths that leave the image folder: tests/tasks/items/test_samples.py.
Templates in their sandbox: tests/tasks/prompts/test_prompter.py.
Markup in data: tests/tasks/report and tests/flows/test_review_page.py, test_card_page.py.
"""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from flows.service.server import read_prefect_environment
from tasks.errors import PackError
from tasks.models.engines.spec import EngineSpec
from tasks.storage.yaml_files import read_yaml
from tasks.students.settings import ExternalSpec, StudentSpec

ROOT = Path(__file__).parent.parent
CODE = sorted([*(ROOT / "tasks").rglob("*.py"), *(ROOT / "flows").rglob("*.py")])
RUNS_WHAT_IT_READS = {"pickle", "cPickle", "cloudpickle", "dill", "joblib", "marshal", "shelve"}
LOADERS = {"load", "read_pickle", "full_load", "unsafe_load"}
SAFE = {
    "yaml.load": {"Loader": "_NoDuplicates"},
    "np.load": {"allow_pickle": "False"},
    "Approval.load": {},
    "Secret.load": {},
}
"""Calls that may stand there, with the keyword that makes them safe; a form's answer is JSON from Prefect's API."""


def calls(file: Path) -> Iterator[tuple[str, dict[str, str]]]:
    """(function as written, its keywords) of every call that is given something: Pillow's image.load() is not."""
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Call) and (node.args or node.keywords):
            yield ast.unparse(node.func), {k.arg: ast.unparse(k.value) for k in node.keywords if k.arg}


def unsafe(file: Path) -> list[str]:
    """What in a file could run what it reads."""
    found = [
        name
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8")))
        if isinstance(node, ast.Import | ast.ImportFrom)
        for name in ([node.module or ""] if isinstance(node, ast.ImportFrom) else [a.name for a in node.names])
        if ast.unparse(node) != "from joblib import cpu_count"  # it reads nothing
        if name.split(".")[0] in RUNS_WHAT_IT_READS
    ]
    for name, keywords in calls(file):
        owner, _, method = name.rpartition(".")
        if name in {"eval", "exec", "compile", "__import__"} or keywords.get("shell") == "True":
            found.append(name)
        if keywords.get("trust_remote_code") == "True" or keywords.get("allow_pickle") == "True":
            found.append(name)
        if owner and method in LOADERS and not SAFE.get(name, {"": ""}).items() <= keywords.items():
            found.append(name)
    return found


@pytest.mark.parametrize("file", CODE, ids=lambda f: str(f.relative_to(ROOT)))
def test_nothing_that_is_read_is_ever_run(file: Path) -> None:
    assert not unsafe(file)


@pytest.mark.parametrize(
    "line",
    [
        "import pickle",
        "from joblib import load",
        "torch.load(path)",
        "np.load(path)",
        "np.load(path, allow_pickle=True)",
        "pd.read_pickle(path)",
        "yaml.load(text)",
        "yaml.load(text, Loader=yaml.Loader)",
        "eval(text)",
        "subprocess.run(line, shell=True)",
        "Model.from_pretrained(name, trust_remote_code=True)",
    ],
)
def test_the_rule_sees_what_it_forbids(tmp_path: Path, line: str) -> None:
    (tmp_path / "x.py").write_text(line, encoding="utf-8")
    assert unsafe(tmp_path / "x.py")


def test_yaml_makes_no_objects(tmp_path: Path) -> None:
    file = tmp_path / "x.yaml"
    file.write_text("a: !!python/object/apply:os.system ['touch taken']", encoding="utf-8")
    with pytest.raises(PackError, match=r"x\.yaml, line 1, column 4: could not determine a constructor"):
        read_yaml(file, PackError, "a pack")
    assert yaml.safe_load("a: 1") == {"a": 1}


def test_the_server_listens_on_loopback_unless_told_otherwise() -> None:
    assert read_prefect_environment(ROOT)["PREFECT_SERVER_API_HOST"] == "127.0.0.1"


def test_code_that_a_model_brings_is_off() -> None:
    specs = (
        EngineSpec(engine="local", model="m"),
        StudentSpec(base="m"),
        ExternalSpec(kind="external", trainer="swift", base="m"),
    )
    assert not any(spec.trust_remote_code for spec in specs)
