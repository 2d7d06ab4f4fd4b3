import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from flows.commands import main as cli
from tasks.dataset.versions import Version
from tasks.errors import ManifestError
from tasks.records import Example, Message, Origin
from tests.tasks.dataset.making import record_version


def make_example(id: str, label: str, why: str = "given label") -> Example:
    messages = (Message(role="user", content=id), Message(role="assistant", content=label))
    origin = Origin.GIVEN if why == "given label" else Origin.CORRECTION
    return Example(sample_id=id, messages=messages, images=(), label=label, origin=origin, why=why, source="t.json")


@pytest.fixture
def versions(tmp_path: Path) -> tuple[Version, Version]:
    first = record_version(
        tmp_path, "r", [make_example("a", "申请退款"), make_example("b", "查询物流"), make_example("c", "长" * 200)]
    )
    second = record_version(
        tmp_path,
        "r",
        [
            make_example("a", "反馈破损", "[b]teacher and students"),
            make_example("c", "长" * 200),
            make_example("d", "新"),
        ],
    )
    return first, second


def run_diff(*arguments: object) -> Result:
    runner = CliRunner(env={"COLUMNS": "200"})
    return runner.invoke(cli.app, ["diff", *map(str, arguments)], catch_exceptions=False)


def test_what_changed_is_counted_and_listed_with_its_reason(versions: tuple[Version, Version], tmp_path: Path) -> None:
    first, second = versions
    result = run_diff(first.short, second.short[:5], "--in", tmp_path)
    assert result.exit_code == 0
    for words in ("relabelled", "added", "removed", "申请退款", "反馈破损", "[b]teacher and students", "given label"):
        assert words in result.output
    assert f"A: 3 examples, version {first.short}" in result.output
    assert f"B: 3 examples, version {second.short}" in result.output
    assert "│ moved" not in result.output and "reworded" not in result.output


def test_missing_sides_are_the_latest_version_and_the_one_before(
    versions: tuple[Version, Version], tmp_path: Path
) -> None:
    first, second = versions
    record_version(tmp_path, "r", [make_example("d", "新")])
    both = run_diff("--in", tmp_path).output
    assert f"version {second.short}" in both and "removed" in both and "relabelled" not in both
    one = run_diff(first.short, "--in", tmp_path).output
    assert f"A: 3 examples, version {first.short}" in one and "B: 1 examples" in one


def test_every_change_is_written_however_few_are_listed(versions: tuple[Version, Version], tmp_path: Path) -> None:
    result = run_diff("--in", tmp_path, "--show", 1, "--to", tmp_path / "d.jsonl")
    assert "and 2 more items" in result.output and "3 changed items written" in result.output
    assert len((tmp_path / "d.jsonl").read_text().splitlines()) == 3


def test_nothing_differs(versions: tuple[Version, Version], tmp_path: Path) -> None:
    result = run_diff(versions[0].short, versions[0].short, "--in", tmp_path)
    assert result.exit_code == 0 and "nothing differs" in result.output


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ((), "--in OUTPUT"),
        (("--in", "{}"), "has 1 versions"),
        (("feed", "--in", "{}"), "no version begins with `feed`"),
        (("{}", "{}", "--to", "x.parquet"), ".jsonl or .csv"),
    ],
)
def test_sides_that_cannot_be_compared_are_refused(arguments: tuple[str, ...], words: str, tmp_path: Path) -> None:
    record_version(tmp_path, "r", [make_example("a", "申请退款")])
    with pytest.raises(ManifestError, match=words.replace(".", r"\.")):
        run_diff(*(a.format(tmp_path) for a in arguments))


def test_help_explains_sides_without_importing_prefect_or_pyarrow() -> None:
    assert "digest" in run_diff("--help").output
    code = "import sys, flows.commands.diff; sys.exit('prefect' in sys.modules or 'pyarrow' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
