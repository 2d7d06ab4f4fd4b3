"""The stage `emit` alone: it merges labelled items, pool and mix into a training set without held-out items."""

import json
import shutil
from collections import Counter
from pathlib import Path

import pytest

from flows.config import EmitConfig
from tasks.dataset.settings import EmitSettings, ExportSpec, Format, MixSettings
from tasks.dataset.versions import read_versions
from tasks.demo.dataset import draw_items
from tasks.items.settings import SourceConfig
from tasks.rationales.settings import RationaleSettings
from tasks.records import Dropped, Example, Origin, Outcome, Prediction, Split, Subset
from tasks.review.queue import read_queue
from tasks.storage.rows import read_rows, write_rows
from tasks.storage.stage_record import StageRecord, read_record
from tasks.storage.stages import write_stage
from tests.conftest import PrefectServer

pytestmark = pytest.mark.timeout(300)
EXPORT = ExportSpec(formats=(Format.LLAMAFACTORY,))


def write_set(folder: Path, seed: int, count: int, *, copies: dict[str, str] | None = None) -> SourceConfig:
    """A set of drawn items with true labels; of each id in `copies` there is one more, with that label."""
    images = folder / "images"
    images.mkdir(parents=True, exist_ok=True)
    rows = []
    for item in draw_items(count, seed, prefix=f"s{seed}"):
        names = [f"{item.id}-{i}.png" for i in range(len(item.images))]
        for name, image in zip(names, item.images, strict=True):
            image.save(images / name)
        rows.append({"id": item.id, "instruction": item.instruction, "image": names, "output": item.label})
    rows += [
        row | {"id": f"copy-{row['id']}", "output": label}
        for row in rows
        for i, label in (copies or {}).items()
        if row["id"] == i
    ]
    (folder / "x.json").write_text(json.dumps(rows, ensure_ascii=False), "utf-8")
    return SourceConfig(manifest=folder / "x.json", images=images)


def add_items_of(source: SourceConfig, other: SourceConfig, count: int) -> None:
    """Add the first `count` items of another set, under other names."""
    rows = json.loads(source.manifest.read_text("utf-8"))
    for row in json.loads(other.manifest.read_text("utf-8"))[:count]:
        for name in row["image"]:
            shutil.copy(other.images / name, source.images / name)
        rows.append(row | {"id": f"leaked-{row['id']}"})
    source.manifest.write_text(json.dumps(rows, ensure_ascii=False), "utf-8")


def write_trusted_stage(config: EmitConfig, label: str = "商品页") -> None:
    """Write a pseudo_labels stage that trusts `label` for each item of the pool that offers it."""
    assert config.unlabelled is not None
    rows = json.loads(config.unlabelled.manifest.read_text("utf-8"))
    kept = [
        Prediction(sample_id=row["id"], source="teacher", outcome=Outcome.OK, label=label, probabilities={label: 0.9})
        for row in rows
    ]
    record = StageRecord(stage="pseudo_labels", recipe="r", read=0, kept=0, dropped=0)
    write_stage(config.output / "pseudo_labels", record, kept, [], [row["id"] for row in rows])
    write_rows(config.output / "pseudo_labels" / "predictions.parquet", kept)


@pytest.fixture
def config(tmp_path: Path, prefect_server: PrefectServer) -> EmitConfig:
    labelled, pool = write_set(tmp_path / "train", 1, 24), write_set(tmp_path / "pool", 2, 12)
    evaluation = write_set(tmp_path / "test", 3, 10)
    add_items_of(pool, evaluation, 3)
    add_items_of(labelled, evaluation, 1)
    config = EmitConfig(
        pack="demo",
        labelled=labelled,
        unlabelled=pool,
        evaluation=evaluation,
        output=tmp_path / "run",
        images=tmp_path / "images",
        texts=tmp_path / "texts",
        emit=EmitSettings(validation_share=0.25, export=EXPORT),
        stages=("pseudo_labels",),
        seed=5,
    )
    write_trusted_stage(config)
    return config


def run_emit(config: EmitConfig) -> tuple[StageRecord, list[Example], Counter[str]]:
    from flows.emit import emit

    record = emit(config)
    folder = config.output / "emit"
    dropped = read_rows(folder / "dropped.parquet", Dropped)
    return record, read_rows(folder / "kept.parquet", Example), Counter(d.reason for d in dropped)


def test_held_out_items_are_taught_only_if_the_settings_say_so(config: EmitConfig) -> None:
    record, examples, reasons = run_emit(config)
    assert reasons == {"contaminates_evaluation": 4}
    assert not any(e.sample_id.startswith("leaked") for e in examples)
    assert record.figures["transductive"] == 0
    assert record.figures["of or near evaluation"] == 4

    open_ = config.model_copy(update={"emit": config.emit.model_copy(update={"transductive": True})})
    record, examples, reasons = run_emit(open_)
    # the labelled one and its copy in the pool are one example
    assert reasons == {"duplicate": 1}
    assert sum(e.sample_id.startswith("leaked") for e in examples) == 3
    assert record.figures["transductive"] == 1
    assert record.figures["of or near evaluation"] == 4


def test_the_output_is_shuffled_split_and_reproducible(config: EmitConfig) -> None:
    record, examples, _ = run_emit(config)
    ids = [e.sample_id for e in examples]
    assert record.kept == len(ids) == 36
    labelled = [e.origin is Origin.GIVEN for e in examples]
    assert labelled != sorted(labelled, reverse=True)
    held_out = [e for e in examples if e.subset is Subset.VALIDATION]
    assert len(held_out) == record.figures["validation"] == 9
    rows = json.loads((config.output / "emit/llamafactory/labelstill.json").read_text("utf-8"))
    assert len(rows) == 27

    (version,) = read_versions(config.output)

    (config.output / "emit" / "record.json").unlink()
    assert [e.sample_id for e in run_emit(config)[1]] == ids
    assert read_versions(config.output) == [version]
    other = config.model_copy(update={"seed": 6})
    assert [e.sample_id for e in run_emit(other)[1]] != ids


def test_a_mix_has_its_share_and_broken_rows_have_reasons(config: EmitConfig, tmp_path: Path) -> None:
    good = {"messages": [{"role": "user", "content": "问{}"}, {"role": "assistant", "content": "答"}]}
    rows = [json.dumps(good, ensure_ascii=False).replace("{}", str(i) * 5) for i in range(200)]
    (tmp_path / "mix.jsonl").write_text("\n".join([*rows, *(["{"] * 100)]), "utf-8")
    mix = MixSettings(file=tmp_path / "mix.jsonl", share=0.25)
    mixed = config.model_copy(update={"emit": config.emit.model_copy(update={"mix": mix})})
    record, examples, reasons = run_emit(mixed)
    taught = [e for e in examples if e.origin is Origin.MIX]
    assert len(taught) == 12 == record.figures["from mix"]
    assert {e.subset for e in taught} == {Subset.TRAIN}
    assert 0 < reasons["mix_malformed"] < 100


def test_conflicting_duplicates_are_reviewed_and_a_verdict_settles_them(config: EmitConfig, tmp_path: Path) -> None:
    from tasks.records import content_digest
    from tasks.review.verdicts import Answer, import_verdicts

    item = next(i for i in draw_items(24, 1, prefix="s1") if i.task == "image" and i.label != "支付页")
    labelled = write_set(tmp_path / "twice", 1, 24, copies={item.id: "支付页"})
    config = config.model_copy(update={"labelled": labelled, "unlabelled": None, "stages": ()})
    _, _, reasons = run_emit(config)
    assert reasons == {"conflicting_duplicate": 2}
    folder = config.output / "review_conflicts" / "review"
    cases = read_queue(folder)
    assert [(c.sample_id, c.given, c.candidate) for c in cases] == [
        (f"copy-{item.id}", "支付页", item.label),
        (item.id, item.label, "支付页"),
    ]
    assert (folder / "review.html").is_file()

    answer = Answer(id=item.id, verdict=item.label, given=None, content=None, where="line 1")
    labels, contents = {c.sample_id: c.labels for c in cases}, {c.sample_id: content_digest(c) for c in cases}
    import_verdicts(folder / "verdicts.jsonl", tmp_path / "said.jsonl", labels, contents, "Ann", answers=[answer])
    _, examples, reasons = run_emit(config)
    assert reasons == {"overruled_duplicate": 1}
    settled = next(e for e in examples if e.sample_id == item.id)
    assert (settled.label, settled.origin) == (item.label, Origin.REVIEW)
    assert [c.sample_id for c in read_queue(folder)] == [item.id]


def test_a_stage_to_be_merged_must_have_finished(config: EmitConfig) -> None:
    from flows.emit import emit
    from tasks.errors import ConfigError

    shutil.rmtree(config.output / "pseudo_labels")
    with pytest.raises(ConfigError, match="no finished stage; run `pseudo_labels` first"):
        emit(config)
    assert read_record(config.output / "emit") is None


def test_decisions_about_changed_items_are_not_merged(config: EmitConfig) -> None:
    from flows.emit import emit
    from tasks.errors import ConfigError

    emit(config)
    folder = config.output / "pseudo_labels"
    record, rows = read_record(folder), read_rows(folder / "kept.parquet", Prediction)
    read = read_record(config.output / "samples" / Split.UNLABELLED)
    assert record is not None and read is not None and config.unlabelled is not None
    seen = record.model_copy(update={"inputs": {"samples": read.digest}})
    write_stage(folder, seen, rows, [], [p.sample_id for p in rows])
    emit(config)
    (config.unlabelled.images / "Thumbs.db").write_text("no item refers to this")
    assert emit(config).kept  # unrelated files in the image folder change nothing
    manifest = config.unlabelled.manifest
    manifest.write_text(manifest.read_text("utf-8").replace("用户: ", "用户: 请问，", 1), "utf-8")
    with pytest.raises(ConfigError, match=r"x\.json has changed since this stage ran; run `pseudo_labels` again"):
        emit(config)


def test_samples_are_read_back_unchanged(config: EmitConfig) -> None:
    run_emit(config)
    assert {p.name for p in (config.output / "samples").iterdir()} == {Split.LABELLED, Split.UNLABELLED, Split.TEST}


def test_similar_reasons_and_those_beyond_the_share_are_not_taught(config: EmitConfig) -> None:
    assert config.unlabelled is not None
    rows = json.loads(config.unlabelled.manifest.read_text("utf-8"))
    given_reasons = [
        "底部的橙色按钮写着立即购买",
        "底部的橙色按钮写着立刻购买",
        "价格38元在大图下面",
        "右上角有一颗收藏的心",
    ]
    kept = [
        Prediction(
            sample_id=row["id"], source="teacher", outcome=Outcome.OK, label="商品页", reason=reason,
            probabilities={"商品页": 0.9},
        )
        for row, reason in zip(rows, [*given_reasons, *[""] * len(rows)], strict=False)
    ]  # fmt: skip
    record = StageRecord(stage="pseudo_labels", recipe="with reasons", read=0, kept=0, dropped=0)
    write_stage(config.output / "pseudo_labels", record, kept, [], [row["id"] for row in rows])
    write_rows(config.output / "pseudo_labels" / "predictions.parquet", kept)
    loose = config.model_copy(update={"rationales": RationaleSettings(opening_share=1.0)})
    record, examples, _ = run_emit(loose)
    assert record.figures["near-duplicate reasons"] == 0
    reasons = [e.reason for e in examples if e.reason]
    assert sorted(reasons) == sorted([given_reasons[0], *given_reasons[2:]])
    for share, expected in ((0.0, 0), (0.5, None)):
        changed = loose.model_copy(update={"emit": loose.emit.model_copy(update={"reason_share": share})})
        _, examples, _ = run_emit(changed)
        left = [e for e in examples if e.reason]
        assert {e.reason for e in left} < set(given_reasons)
        assert expected is None or len(left) == expected
        assert all(e.reason in e.messages[-1].content for e in left)
    lenient = config.model_copy(update={"rationales": RationaleSettings(opening_share=1.0, alike=1.0)})
    record, examples, _ = run_emit(lenient)
    assert record.figures["near-duplicate reasons"] == 2 / len(given_reasons)
    assert sorted(e.reason for e in examples if e.reason) == sorted(given_reasons)
