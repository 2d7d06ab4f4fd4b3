import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from typer.testing import CliRunner, Result

from flows.commands import main as cli
from flows.commands.check import check
from flows.config import load_config
from tasks.errors import LabelstillError
from tasks.items.images import MAX_PIXELS, name_recipe
from tasks.items.known_files import KNOWN, KnownFiles, restore_image
from tasks.models.engines.spec import EngineSpec
from tasks.models.settings import AskSettings
from tasks.packs.pack import TEMPLATES
from tasks.rationales.settings import RationaleSettings
from tasks.records import Split
from tests.conftest import ROOT, PrefectServer
from tests.flows.small_run import small_config
from tests.flows.test_pack_options import DESCRIBE
from tests.planted.manifest import KINDS, write_planted


def write_config(folder: Path, **more: object) -> Path:
    file = folder / "check.yaml"
    source = {"manifest": str(folder / "manifest.json"), "images": str(folder / "images")}
    keys = {"pack": "demo", "labelled": source, "output": str(folder / "out"), "images": str(folder / "cache"), **more}
    file.write_text(yaml.safe_dump(keys))
    return file


def run_check(*arguments: object) -> Result:
    return CliRunner(env={"COLUMNS": "200"}).invoke(cli.app, ["check", *map(str, arguments)])


@pytest.fixture(scope="module")
def planted(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, str]]:
    folder = tmp_path_factory.mktemp("planted")
    return folder, write_planted(folder)


def test_each_broken_item_is_reported_with_its_own_reason(planted: tuple[Path, dict[str, str]]) -> None:
    folder, broken = planted
    report = check(load_config(write_config(folder)))
    assert {d.sample_id: d.reason for d in report.dropped} == broken
    assert len(broken) == 20 and set(broken.values()) == set(KINDS) == set(report.count_reasons())
    intake = report.intakes[Split.LABELLED]
    assert (intake.read, len(intake.kept), len(intake.dropped)) == (40, 20, 20)
    assert report.usable


def test_the_command_lists_dropped_items_and_succeeds(planted: tuple[Path, dict[str, str]]) -> None:
    folder, broken = planted
    result = run_check(write_config(folder))
    assert result.exit_code == 0, result.output
    assert "40 read, 20 kept, 20 dropped" in result.stdout
    for id, reason in broken.items():
        assert re.search(rf"{re.escape(id)}\W+{reason}\b", result.stdout), (id, reason)
    assert "duplicate_id 1" in result.stdout and "image_truncated 2" in result.stdout


def test_the_checks_of_images_are_remembered_for_the_run(planted: tuple[Path, dict[str, str]]) -> None:
    folder, _ = planted
    for file in (folder / "images").iterdir():
        os.utime(file, (1e9, 1e9))  # a file changed within the last seconds may change again unnoticed
    report = check(load_config(write_config(folder)))
    image = report.intakes[Split.LABELLED].kept[0].images[0]
    with KnownFiles(folder / "cache" / KNOWN, name_recipe(MAX_PIXELS), restore_image) as known:
        assert known.known([Path(image.path)]) == {Path(image.path): image}


def test_reading_the_configuration_loads_neither_torch_nor_prefect() -> None:
    program = "import sys, flows.commands.main, flows.commands.check; print({'torch', 'prefect'} & {*sys.modules})"
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


def test_it_fails_without_a_usable_item(tmp_path: Path) -> None:
    broken = write_planted(tmp_path, only_broken=True)
    result = run_check(write_config(tmp_path))
    assert result.exit_code == 1, result.output
    assert "21 read, 0 kept, 21 dropped" in result.stdout
    assert all(re.search(rf"{re.escape(id)}\W+{reason}\b", result.stdout) for id, reason in broken.items())
    assert "no usable item" in result.stderr


def test_it_fails_when_one_of_two_sets_has_no_usable_item(planted: tuple[Path, dict[str, str]], tmp_path: Path) -> None:
    folder, _ = planted
    write_planted(tmp_path, only_broken=True)
    pool = {"manifest": str(tmp_path / "manifest.json"), "images": str(tmp_path / "images")}
    # labels do not matter in a pool: what is wrong with a label there is right
    lone = tmp_path / "lone.json"
    lone.write_text('[{"id": "a", "instruction": 7, "image": []}]')
    result = run_check(write_config(folder, unlabelled={**pool, "manifest": str(lone)}))
    assert result.exit_code == 1, result.output
    assert "labelled: 40 read, 20 kept" in result.stdout and "unlabelled: 1 read, 0 kept" in result.stdout


def test_few_items_are_listed_but_all_are_counted(planted: tuple[Path, dict[str, str]]) -> None:
    folder, broken = planted
    result = run_check(write_config(folder), "--show", 3)
    assert result.exit_code == 0
    assert sum(bool(re.search(rf"{re.escape(id)}\b", result.stdout)) for id in broken) == 3
    assert "17 more" in result.stdout and "path_escapes 3" in result.stdout


def test_questions_are_estimated_without_a_model(planted: tuple[Path, dict[str, str]]) -> None:
    folder, _ = planted
    models = {
        "generator": {"engine": "vllm", "model": "Qwen/Qwen2-VL-7B-Instruct"},
        "teacher": {"engine": "vllm", "model": "Qwen/Qwen3-VL-235B-A22B-Instruct"},
        "student": {"base": "Qwen/Qwen2.5-VL-3B-Instruct"},
        "unlabelled": {"manifest": str(folder / "manifest.json"), "images": str(folder / "images")},
    }
    report = check(load_config(write_config(folder, **models)))
    pool = len(report.intakes[Split.UNLABELLED].kept)
    assert pool > 20  # what is only wrong with a label is no fault in a pool
    assert [(e.stage, e.requests) for e in report.estimates] == [
        ("rationales", 20),
        ("rationales: asked again", 13),
        ("correction: students", 0),  # no label has as many items as there are folds
        ("correction: teacher", 5),
        ("pseudo-labels: calibration", 20),
        ("pseudo-labels", pool - 20),  # the others are the same questions
        ("pseudo-labels: students", pool),
    ]
    assert all(e.tokens >= 100 * e.requests for e in report.estimates)
    assert not (folder / "out").exists()
    result = run_check(write_config(folder, **models))
    assert result.exit_code == 0 and "20 requests" in result.stdout
    served = [line.split()[:3] for line in result.stdout.splitlines() if line.startswith("vllm ")]
    assert served == [
        ["vllm", "serve", "Qwen/Qwen2-VL-7B-Instruct"],
        ["vllm", "serve", "Qwen/Qwen3-VL-235B-A22B-Instruct"],
    ]


def test_gpu_hours_are_estimated_per_step_and_card(planted: tuple[Path, dict[str, str]]) -> None:
    folder, _ = planted
    models = {
        "generator": {"engine": "server", "model": "our-own", "base_urls": ["http://127.0.0.1:9/v1"]},
        "teacher": {"engine": "vllm", "model": "Qwen/Qwen2-VL-72B-Instruct-AWQ", "tensor_parallel_size": 2},
        "student": {"base": "Qwen/Qwen2.5-VL-3B-Instruct"},
        "unlabelled": {"manifest": str(folder / "manifest.json"), "images": str(folder / "images")},
    }
    result = run_check(write_config(folder, **models))
    assert re.search(r"pseudo-labels .*72B-Instruct-AWQ .* 2 .* min .*needs 4", result.stdout), result.stdout
    assert re.search(r"training 5 folds .*Qwen2.5-VL-3B-Instruct .* min", result.stdout)
    assert "models of unknown size: our-own" in result.stdout


def test_progress_reaches_the_end(planted: tuple[Path, dict[str, str]]) -> None:
    moves: list[tuple[str, int, int]] = []
    check(load_config(write_config(planted[0])), lambda *move: moves.append(move))
    assert moves == [("labelled", n, 40) for n in range(1, 41)]


@pytest.mark.parametrize("missing", ["manifest", "images", "pack"])
def test_a_file_that_is_unusable_as_a_whole_is_one_error(planted: tuple[Path, dict[str, str]], missing: str) -> None:
    folder, _ = planted
    source = {"manifest": str(folder / "manifest.json"), "images": str(folder / "images")}
    changed = {"pack": "no-such"} if missing == "pack" else {"labelled": {**source, missing: str(folder / "no-such")}}
    result = run_check(write_config(folder, **changed))
    assert isinstance(result.exception, LabelstillError) and "no-such" in str(result.exception)


def test_the_estimate_is_within_a_tenth_of_what_the_run_asks(prefect_server: PrefectServer, tmp_path: Path) -> None:
    from flows.distill import distill

    once = AskSettings(attempts=1)  # how many reasons are asked for again depends on the model
    config = small_config(tmp_path).model_copy(update={"ask": once})
    report = check(config)
    records = distill(config)
    asked = sum(record.costs.asked for record in records.values())
    assert report.requests == pytest.approx(asked, rel=0.1), (report.estimates, records)


def test_descriptions_repeats_and_students_on_the_pool_are_estimated(tmp_path: Path) -> None:
    pack = Path(shutil.copytree(TEMPLATES / "demo", tmp_path / "pack"))
    text = (pack / "pack.yaml").read_text("utf-8")
    (pack / "pack.yaml").write_text(text.replace("tasks:\n", "describe_first: true\ntasks:\n", 1), "utf-8")
    (pack / "describe.jinja").write_text(DESCRIBE, encoding="utf-8")
    config = small_config(tmp_path)
    assert config.student
    student = config.student.model_copy(update={"repeats": 3})
    judged = RationaleSettings(judge=EngineSpec(engine="scripted", model="scripted:"))
    report = check(config.model_copy(update={"pack": str(pack), "student": student, "rationales": judged}))
    found = {e.stage: e.requests for e in report.estimates}
    assert found["rationales: judge"] == 60
    assert found["pseudo-labels"] == 60
    assert found["pseudo-labels, descriptions"] == found["pseudo-labels, without descriptions"] == 60
    assert found["pseudo-labels: students"] == 180


def test_a_pack_that_shows_the_text_on_images_can_be_checked(tmp_path: Path) -> None:
    pack = Path(shutil.copytree(TEMPLATES / "demo", tmp_path / "pack"))
    text = (pack / "pack.yaml").read_text("utf-8")
    option = 'ocr: {before: "〔", after: "〕"}\ntasks:\n'
    (pack / "pack.yaml").write_text(text.replace("tasks:\n", option, 1), "utf-8")
    assert check(small_config(tmp_path, items=12).model_copy(update={"pack": str(pack)})).requests > 24


def test_thinking_and_the_reasons_from_it_are_estimated(planted: tuple[Path, dict[str, str]]) -> None:
    folder, _ = planted
    pool = {"manifest": str(folder / "manifest.json"), "images": str(folder / "images")}
    teacher = {"engine": "server", "model": "Qwen/Qwen3-VL-8B-Thinking", "base_urls": ["http://127.0.0.1:9/v1"]}
    generator = {"engine": "vllm", "model": "Qwen/Qwen2-VL-7B-Instruct"}
    plain = {"unlabelled": pool, "labelled": None, "teacher": teacher}
    thinking = {
        **plain, "teacher": {**teacher, "thinking_tokens": 1000}, "generator": generator,
        "rationales": {"teach_thinking": True},
    }  # fmt: skip
    before, after = [check(load_config(write_config(folder, **keys))).estimates for keys in (plain, thinking)]
    items = before[0].requests
    assert [(e.stage, e.requests) for e in after] == [
        ("pseudo-labels", items), ("pseudo-labels: reasons from thoughts", items)
    ]  # fmt: skip
    assert after[0].work.answer_tokens - before[0].work.answer_tokens == items * 3 * 500
    assert after[1].tokens > items * 500


def test_a_batch_api_is_named_and_priced(planted: tuple[Path, dict[str, str]]) -> None:
    folder, _ = planted
    pool = {"manifest": str(folder / "manifest.json"), "images": str(folder / "images")}
    teacher = {"engine": "server", "model": "m", "base_urls": ["http://127.0.0.1:1/v1"], "batch": True}
    prices = {"prompt": 1.0, "output": 1.0}
    output = run_check(write_config(folder, unlabelled=pool, teacher={**teacher, "prices": prices})).stdout
    assert "questions to m go to a batch API: a run ends with exit code 5" in output
    assert "at half of `prices`: pseudo-labels" in output
    assert "`prices`" not in run_check(write_config(folder, unlabelled=pool, teacher=teacher)).stdout
