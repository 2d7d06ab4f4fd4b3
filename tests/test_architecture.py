import ast
import subprocess
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
FOLDERS = {".ci", "artifacts", "flows", "requirements", "tasks", "templates", "tests"}


def modules(folder: str) -> list[Path]:
    return sorted((ROOT / folder).rglob("*.py"))


def imported(file: Path) -> set[str]:
    """Every module that a file imports, at its top or inside a function."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{file}: relative import"
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return names


def rooms(names: set[str]) -> set[str]:
    return {name.split(".")[0] for name in names}


@pytest.mark.parametrize("file", modules("tasks"), ids=lambda f: str(f.relative_to(ROOT)))
def test_tasks_know_neither_flows_nor_prefect_nor_tests(file: Path) -> None:
    assert not rooms(imported(file)) & {"flows", "prefect", "tests"}


@pytest.mark.parametrize("file", modules("flows"), ids=lambda f: str(f.relative_to(ROOT)))
def test_flows_do_not_import_tests(file: Path) -> None:
    assert "tests" not in rooms(imported(file))


def test_records_and_errors_import_no_other_room() -> None:
    for name in ("records", "errors"):
        assert not rooms(imported(ROOT / "tasks" / f"{name}.py")) & {"tasks", "flows"}


def test_only_prompts_renders_what_models_read() -> None:
    """The report and the review page have Jinja templates of their own, which no model reads."""
    knowing = {f.relative_to(ROOT) for f in modules("tasks") + modules("flows") if "jinja2" in rooms(imported(f))}
    pages = {f for f in knowing if f.parts[:2] in (("tasks", "report"), ("tasks", "review"))}
    assert knowing - pages == {Path("tasks/prompts/prompter.py")}
    for page in pages:
        assert not {name for name in imported(ROOT / page) if "Request" in name}, f"{page} makes a request"


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
