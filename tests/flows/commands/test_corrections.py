import json
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from flows.commands.corrections import app
from tasks.correction.patches import changes, write_patch
from tasks.errors import ManifestError
from tasks.records import Action
from tests.tasks.making import correction

ROWS = [{"id": f"{n}", "instruction": "x", "output": "申请退款"} for n in range(3)]


@pytest.fixture
def patch(tmp_path: Path) -> Path:
    made = [
        correction("0", action=Action.RELABEL, label="查询物流", p_given=0.07, why="[b]both models say so"),
        correction("2", action=Action.DROP, label=None, reviewed=True, verdict="neither", p_given=None),
    ]
    write_patch(changes(made), tmp_path / "corrections.jsonl")
    return tmp_path / "corrections.jsonl"


@pytest.fixture
def manifest(tmp_path: Path) -> Path:
    path = tmp_path / "train.json"
    path.write_text(json.dumps(ROWS, ensure_ascii=False, indent=1))
    return path


def call(*arguments: object) -> Result:
    return CliRunner().invoke(app, [str(a) for a in arguments], env={"COLUMNS": "200"}, catch_exceptions=False)


def test_apply_and_revert_say_what_they_did(patch: Path, manifest: Path, tmp_path: Path) -> None:
    copy, back = tmp_path / "copy.json", tmp_path / "back.json"
    said = call("apply", patch, manifest, "--to", copy).output
    assert f"1 items relabelled, 1 removed: {copy}" in said and f"{copy}.undo.jsonl" in said
    assert [(row["id"], row["output"]) for row in json.loads(copy.read_text())] == [
        ("0", "查询物流"),
        ("1", "申请退款"),
    ]
    assert (
        f"1 items have their given label again, 1 are back: {back}" in call("revert", patch, copy, "--to", back).output
    )
    assert back.read_bytes() == manifest.read_bytes()


def test_revert_takes_the_undo_file_from_elsewhere(patch: Path, manifest: Path, tmp_path: Path) -> None:
    copy, back, undo = tmp_path / "copy.json", tmp_path / "back.json", tmp_path / "undo.jsonl"
    call("apply", patch, manifest, "--to", copy)
    Path(f"{copy}.undo.jsonl").rename(undo)
    with pytest.raises(ManifestError, match="--undo"):
        call("revert", patch, copy, "--to", back)
    call("revert", patch, copy, "--to", back, "--undo", undo)
    assert back.read_bytes() == manifest.read_bytes()


def test_show_lists_every_change(patch: Path) -> None:
    shown = call("show", patch).output
    for words in ("申请退款", "查询物流", "removed", "models", "person", "0.07", "[b]both models say so"):
        assert words in shown
    assert "1 items to relabel, 1 to remove; 1 of them by a person" in shown
    shortened = call("show", patch, "--first", 1).output
    assert "and 1 more" in shortened and "person │" not in shortened


def test_a_manifest_that_does_not_fit_is_left_alone(patch: Path, manifest: Path, tmp_path: Path) -> None:
    manifest.write_text(json.dumps(ROWS[:2]))
    with pytest.raises(ManifestError, match="item 2: there is none"):
        call("apply", patch, manifest, "--to", tmp_path / "copy.json")
    assert sorted(tmp_path.iterdir()) == sorted([patch, manifest])
    assert call("apply", patch, manifest).exit_code == 2


def test_the_command_starts_without_prefect() -> None:
    code = "import sys, flows.commands.corrections; sys.exit('prefect' in sys.modules or 'pyarrow' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
