"""The reason gate and the judge in their stage: kept and dropped items, figures, and the cost of changed rules."""

from pathlib import Path

import orjson

from flows.config import DistillConfig, RationalesConfig
from flows.teacher_reasons import make_judge
from tasks.models.engines.spec import EngineSpec
from tasks.models.settings import AskSettings
from tasks.packs.pack import load_pack
from tasks.rationales.reasoner import Support
from tasks.rationales.settings import RationaleSettings
from tasks.rationales.words import BadReason
from tasks.records import Dropped, Outcome, Prediction
from tasks.report.summary import summarize_run
from tasks.review.queue import REASONS, read_queue
from tasks.storage.rows import read_rows
from tasks.storage.stage_record import StageRecord
from tests.conftest import PrefectServer
from tests.flows.small_run import small_config
from tests.flows.test_review_page import run_review


def describe_reasons(whole: DistillConfig) -> str:
    return dict(summarize_run(whole.output).results)["Rationales"]


def configure(whole: DistillConfig, **settings: object) -> RationalesConfig:
    assert whole.labelled and whole.generator
    return RationalesConfig(
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


def run(whole: DistillConfig, **settings: object) -> StageRecord:
    from flows.rationales import rationales

    return rationales(configure(whole, **settings))


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


def test_people_check_the_judge_and_move_its_bar(prefect_server: PrefectServer, tmp_path: Path) -> None:
    whole = small_config(tmp_path)
    alone = run(whole)
    review = whole.output / REASONS
    assert not review.exists() and not [name for name in alone.figures if name.startswith("judge")]

    judge = EngineSpec(engine="scripted", model="scripted:hash")
    judged = run(whole, judge=judge)
    assert judged.costs.asked == alone.kept  # the reasons are in the ledger
    refused = sum(count for reason, count in judged.drops.items() if reason.startswith("reason_judged"))
    assert 0 < refused == alone.kept - judged.kept
    cases = read_queue(review)
    assert len(cases) == min(50, alone.kept) and all(case.blind for case in cases)
    assert describe_reasons(whole).endswith("; no person has checked its judge")

    file = tmp_path / "verdicts.jsonl"
    file.write_bytes(b"\n".join(orjson.dumps({"id": case.sample_id, "verdict": "good"}) for case in cases))
    assert f"{len(cases)} new" in run_review("import", review.parent, file).output
    again = run(whole, judge=judge)
    assert (again.costs.asked, again.kept) == (0, alone.kept)
    assert (again.figures["judge: threshold"], again.figures["judge: agreement with people"]) == (0, 1)
    of_teachers = make_judge(configure(whole, judge=judge), load_pack("demo"), [])
    assert of_teachers is not None and of_teachers.threshold == 0  # the later stages take it over
    assert "; its judge agrees with 100.0% of people's verdicts (between 9" in describe_reasons(whole)
    assert run(whole, judge=judge) == again
