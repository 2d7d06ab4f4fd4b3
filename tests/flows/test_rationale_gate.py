"""The reason gate in its stage: kept and dropped items, figures, and the cost of a changed gate."""

from pathlib import Path

from flows.config import DistillConfig, RationalesConfig
from tasks.models.settings import AskSettings
from tasks.rationales.reasoner import Support
from tasks.rationales.settings import RationaleSettings
from tasks.rationales.words import BadReason
from tasks.records import Dropped, Outcome, Prediction
from tasks.storage.rows import read_rows
from tasks.storage.stage_record import StageRecord
from tests.conftest import PrefectServer
from tests.flows.small_run import small_config


def run(whole: DistillConfig, **settings: object) -> StageRecord:
    from flows.rationales import rationales

    assert whole.labelled and whole.generator
    return rationales(
        RationalesConfig(
            pack=whole.pack,
            output=whole.output,
            ledger=whole.ledger,
            images=whole.images,
            texts=whole.texts,
            labelled=whole.labelled,
            generator=whole.generator,
            ask=AskSettings(attempts=1),
            rationales=RationaleSettings.model_validate(settings),
        )
    )


def test_the_stage_reports_and_a_changed_gate_asks_little_again(prefect_server: PrefectServer, tmp_path: Path) -> None:
    whole = small_config(tmp_path, items=20)
    first = run(whole)
    assert first.kept + first.dropped == 20
    assert first.costs.asked + first.costs.reused == 20  # equal items share an answer
    assert first.figures["near-duplicates after"] <= first.figures["near-duplicates before"] <= 1
    assert 0 < first.figures["distinct-2 after"] <= 1
    assert first.figures["most characters after"] <= 50

    strict = run(whole, alike=0.05)  # all of one script's making
    assert (strict.costs.asked, strict.kept < first.kept) == (0, True)
    assert strict.drops[BadReason.ALIKE] == strict.figures["first answers: reason_like_others"] > 0

    asked = run(whole, support=Support.WITH_ITEM)
    assert first.kept >= asked.costs.asked > 0  # the labels; the reasons are in the ledger
    folder = whole.output / "rationales"
    for kept in read_rows(folder / "kept.parquet", Prediction):
        assert max(kept.probabilities, key=lambda name: kept.probabilities[name]) == kept.label
    dropped = read_rows(folder / "dropped.parquet", Dropped)
    assert BadReason.UNSUPPORTED in {d.reason for d in dropped}
    assert {d.reason for d in dropped} <= {*BadReason, *Outcome}
