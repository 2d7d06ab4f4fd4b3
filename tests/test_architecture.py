import ast
import subprocess
import tomllib
from collections import defaultdict
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
FOLDERS = {".ci", "artifacts", "flows", "requirements", "tasks", "templates", "tests"}
WINGS = sorted(f.parent.name for f in (ROOT / "tasks").glob("*/__init__.py"))
PACKAGES = sorted(f for folder in ("tasks", "flows") for f in (ROOT / folder).rglob("__init__.py"))
MOST_LINES = 350
MOST_ENTRIES = {"tasks": 20, "flows": 22}


def modules(folder: str) -> list[Path]:
    return sorted((ROOT / folder).rglob("*.py"))


def imported(file: Path) -> set[str]:
    """Return every module that a file imports, at its top or inside a function."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{file}: relative import"
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return names


def tops(names: set[str]) -> set[str]:
    return {name.split(".")[0] for name in names}


def imported_wings(wing: str) -> set[str]:
    """Return the other wings that the files of a wing import."""
    names = {name for file in modules(f"tasks/{wing}") for name in imported(file)}
    return {name.split(".")[1] for name in names if name.startswith("tasks.")} & set(WINGS) - {wing}


@pytest.mark.parametrize("file", modules("tasks"), ids=lambda f: str(f.relative_to(ROOT)))
def test_tasks_import_neither_flows_nor_prefect_nor_tests(file: Path) -> None:
    assert not tops(imported(file)) & {"flows", "prefect", "tests"}


@pytest.mark.parametrize("file", modules("flows"), ids=lambda f: str(f.relative_to(ROOT)))
def test_flows_do_not_import_tests(file: Path) -> None:
    assert "tests" not in tops(imported(file))


@pytest.mark.parametrize("name", ["media", "records", "errors", "settings"])
def test_shared_types_import_nothing_else_of_ours(name: str) -> None:
    ours = {n for n in imported(ROOT / "tasks" / f"{name}.py") if n.startswith(("tasks", "flows"))}
    assert all(n.startswith("tasks.media.") for n in ours) and not (name == "media" and ours)


def test_no_circle_between_wings() -> None:
    try:
        TopologicalSorter({wing: imported_wings(wing) for wing in WINGS}).prepare()
    except CycleError as error:
        pytest.fail(f"these wings import each other in a circle: {' -> '.join(error.args[1])}")


def test_review_imports_no_wing_that_asks_for_reviews() -> None:
    assert not imported_wings("review") & {"correction", "pseudo_labels", "dataset", "evaluation", "report"}


@pytest.mark.parametrize("folder", MOST_ENTRIES)
def test_few_entries_at_the_root(folder: str) -> None:
    entries = [p.name for p in (ROOT / folder).iterdir() if p.name != "__pycache__"]
    assert len(entries) <= MOST_ENTRIES[folder], sorted(entries)


@pytest.mark.parametrize("file", modules("tasks") + modules("flows"), ids=lambda f: str(f.relative_to(ROOT)))
def test_no_file_is_too_long(file: Path) -> None:
    assert len(file.read_text(encoding="utf-8").splitlines()) <= MOST_LINES


@pytest.mark.parametrize("package", PACKAGES, ids=lambda f: str(f.parent.relative_to(ROOT)))
def test_a_package_names_its_files_and_says_what_each_decides(package: Path) -> None:
    lines = (ast.get_docstring(ast.parse(package.read_text(encoding="utf-8"))) or "").splitlines()
    described: dict[str, str] = defaultdict(str)
    for line in lines[1:]:
        name, _, what = line.strip().partition(" ")
        described[name] += what.strip()
    entries = [p for p in package.parent.iterdir() if p.name not in ("__init__.py", "__pycache__")]
    for entry in entries:
        if entry.suffix == ".py" or (entry / "__init__.py").exists():
            name = f"{entry.name}/" if entry.is_dir() else entry.name
            assert described[name], f"{package}: say what {name} decides"
    named = {name for name in described if name.endswith((".py", "/"))}
    assert not {name for name in named if not (package.parent / name).exists()}, f"{package}: names files that are gone"


def test_only_prompts_renders_what_models_read_and_only_html_renders_pages() -> None:
    users = {f.relative_to(ROOT / "tasks").as_posix() for f in modules("tasks") if "jinja2" in tops(imported(f))}
    assert users <= {"prompts/prompter.py", "prompts/chat_template.py", "storage/html.py"}
    assert not [f for f in modules("flows") if "jinja2" in tops(imported(f))]


def test_only_packs_and_the_demo_know_a_labelling_task() -> None:
    words = ("www2025", "电商", "商品详情页")
    for file in modules("tasks"):
        if "demo" not in file.parts:
            text = file.read_text(encoding="utf-8")
            assert not [word for word in words if word in text], file


def test_no_other_folder_at_the_top() -> None:
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True)
    if listed.returncode != 0:
        pytest.skip("not a git checkout")
    tops = {line.split("/")[0] for line in listed.stdout.splitlines() if "/" in line}
    assert tops <= FOLDERS
    assert {"flows", "tasks", "templates", "tests"} <= tops
    assert not [
        line for line in listed.stdout.splitlines() if line.startswith("artifacts/") and line != "artifacts/README.md"
    ]


def test_what_is_imported_is_packaged() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    assert project["tool"]["setuptools"]["packages"]["find"]["include"] == ["flows*", "tasks*"]
    for file in modules("tasks") + modules("flows"):
        assert (file.parent / "__init__.py").exists(), f"{file.parent} is no package and would be left out of a wheel"
