"""`labelstill run --limit`: a smoke run through all stages, whose answers the whole run uses again."""

from collections import Counter
from pathlib import Path

import pytest
import yaml
from typer.testing import CliRunner

from flows.commands.main import app
from tasks.demo.dataset import write_demo
from tasks.items.samples import read_samples
from tasks.items.smoke import choose_few
from tasks.packs.pack import load_pack
from tasks.records import Sample, Split
from tasks.storage.stage_record import StageRecord, read_record
from tests.conftest import PrefectServer

HASH = {"engine": "scripted", "model": "scripted:hash"}


@pytest.fixture
def config(tmp_path: Path) -> Path:
    paths = write_demo(tmp_path / "data", labelled=80, unlabelled=40, test=20)
    sets = {
        "labelled": {"manifest": str(paths.labelled.manifest), "images": str(paths.labelled.images)},
        "unlabelled": {"manifest": str(paths.unlabelled.manifest), "images": str(paths.unlabelled.images)},
    }
    places = {name: str(tmp_path / name) for name in ("images", "texts", "ledger", "output")}
    models = {"generator": HASH, "teacher": HASH, "student": {"kind": "probe"}, "max_failed_share": 1.0}
    file = tmp_path / "run.yaml"
    file.write_text(yaml.safe_dump({"pack": "demo", **sets, **models, **places}), encoding="utf-8")
    return file


def run(config: Path, *options: str) -> None:
    done = CliRunner().invoke(app, ["run", str(config), *options], env={"COLUMNS": "200"}, catch_exceptions=False)
    assert done.exit_code == 0, done.output


def read_stage(folder: Path, stage: str) -> StageRecord:
    record = read_record(folder / stage)
    assert record is not None
    return record


def test_a_smoke_run_goes_through_all_stages_and_its_answers_are_kept(
    prefect_server: PrefectServer, config: Path
) -> None:
    output = config.parent / "output"
    run(config, "--limit", "20")
    assert read_stage(output / "smoke", "samples/labelled").kept == 20
    for stage in ("rationales", "correction", "pseudo_labels"):
        assert read_stage(output / "smoke", stage).read == 20
    assert not (output / "emit").exists()
    run(config)
    assert read_stage(output, "rationales").read == 80
    assert read_stage(output, "pseudo_labels").costs.reused >= 40, "20 items of each set"


def test_few_items_are_spread_over_the_labels_and_nested(config: Path) -> None:
    folder = config.parent / "data" / "train"
    kept = read_samples(folder / "x.json", folder / "images", load_pack("demo"), Split.LABELLED).kept
    few, more = choose_few(kept, 20), choose_few(kept, 40)

    def count(samples: list[Sample]) -> Counter[tuple[str, str | None]]:
        return Counter((s.task, s.given) for s in samples)

    assert len(few) == 20 and {s.id for s in few} <= {s.id for s in more}
    assert set(count(few)) == set(count(list(kept)))
    assert max(count(few).values()) <= 2
    assert choose_few(kept, 1000) == list(kept)
