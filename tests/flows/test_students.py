"""Students that predict the pool get the features of its images, which they were not trained on."""

from pathlib import Path

from prefect import flow

from flows.asking import open_asker
from flows.config import CommonConfig, CorrectionConfig
from flows.stage import read_manifests
from flows.students import FoldStudents, identify_training_inputs
from tasks.packs.pack import load_pack
from tasks.records import Outcome, Prediction, Split
from tasks.storage.rows import write_rows
from tasks.students.folds import make_folds
from tasks.students.probe import predict_probe
from tasks.students.probe_features import describe_images
from tasks.students.settings import ExternalSpec, ProbeSpec, StudentSpec
from tests.conftest import PrefectServer
from tests.flows.small_run import small_config


def test_training_inputs_follow_the_reasons_the_trainers_files_and_the_embedding_model(tmp_path: Path) -> None:
    config = CommonConfig(pack="demo", output=tmp_path / "run")
    lora = StudentSpec(base="b", reasons="always")
    (tmp_path / "own.yaml").write_text("a: 1")
    external = ExternalSpec(base="b", trainer="swift", template=str(tmp_path / "own.yaml"))
    embedding = ProbeSpec(images="embeddings", embedding_model=str(tmp_path))
    found: list[list[dict[str, str]]] = []
    for reason in ("因为", "因为", "所以"):
        answer = Prediction(sample_id="a", source="rationale", outcome=Outcome.OK, label="申请退款", reason=reason)
        write_rows(tmp_path / "run" / "rationales" / "kept.parquet", [answer])
        (tmp_path / "own.yaml").write_text(f"reason: {reason}")
        (tmp_path / "config.json").write_text(reason)
        found.append([identify_training_inputs(config, spec) for spec in (lora, external, embedding)])
    first, same, other = found
    assert first == same
    assert not any(before == after for before, after in zip(first, other, strict=True))
    assert (
        identify_training_inputs(config, StudentSpec(base="b")) == {} == identify_training_inputs(config, ProbeSpec())
    )


def test_a_probe_looks_at_the_pools_images(prefect_server: PrefectServer, tmp_path: Path) -> None:
    whole = small_config(tmp_path)
    assert whole.labelled and whole.unlabelled and whole.teacher
    spec = ProbeSpec(folds=2, images="histograms")
    config = CorrectionConfig(
        pack="demo", labelled=whole.labelled, teacher=whole.teacher, student=spec,
        output=whole.output, ledger=whole.ledger, images=whole.images, texts=whole.texts,
    )  # fmt: skip
    found: list[tuple[list[Prediction], ...]] = []

    @flow(name="probe")
    def probe() -> None:
        pack = load_pack("demo")
        labelled, _ = read_manifests(whole.labelled, pack, Split.LABELLED, config.output, config)  # pyright: ignore
        pool, _ = read_manifests(whole.unlabelled, pack, Split.UNLABELLED, config.output, config)  # pyright: ignore
        pictured = [s for s in pool if s.images]
        assert pictured
        with open_asker(config, "correction") as asker:
            folds = make_folds(labelled, 2, 0)
            students = FoldStudents(config, spec, pack, asker)
            trained = students.train(labelled, folds.fold_of, 0)
            first = dict.fromkeys((s.id for s in pictured), 0)
            said = list(students.ask(trained, pictured, first).values())
            folder = trained[0].folder
            seen = list(predict_probe(folder, pictured, {}, describe_images(spec, pictured)))
            blind = list(predict_probe(folder, pictured, {}, {}))
        found.append((said, seen, blind))

    probe()
    said, seen, blind = found[0]
    assert said == seen
    assert seen != blind
