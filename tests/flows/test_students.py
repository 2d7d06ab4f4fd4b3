"""Students that predict the pool get the features of its images, which they were not trained on."""

from pathlib import Path

from prefect import flow

from flows.asking import open_asker
from flows.config import CorrectionConfig
from flows.stage import read_set
from flows.students import FoldStudents
from tasks.packs.pack import load_pack
from tasks.records import Prediction, Split
from tasks.students.folds import make_folds
from tasks.students.probe import predict_probe
from tasks.students.probe_features import describe_images
from tasks.students.settings import ProbeSpec
from tests.conftest import PrefectServer
from tests.flows.small_run import small_config


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
        labelled, _ = read_set(whole.labelled, pack, Split.LABELLED, config.output, config.images)  # pyright: ignore
        pool, _ = read_set(whole.unlabelled, pack, Split.UNLABELLED, config.output, config.images)  # pyright: ignore
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
