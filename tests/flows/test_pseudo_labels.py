"""The stage `pseudo_labels`, calibrated on the labelled set: corrections, students, review and further teachers."""

import json
import random
from pathlib import Path

import pytest

from flows.config import DistillConfig
from tasks.correction.settings import CorrectionSettings
from tasks.items.settings import SourceConfig
from tasks.models.engines.spec import EngineSpec
from tasks.models.settings import AskSettings, TeacherSettings
from tasks.pseudo_labels.decide import PoolDecision, Trusted
from tasks.pseudo_labels.settings import PseudoLabelSettings
from tasks.rationales.settings import RationaleSettings
from tasks.records import Correction, Prediction
from tasks.review.queue import read_queue
from tasks.storage.rows import read_rows
from tasks.storage.stage_record import StageRecord
from tasks.students.settings import ProbeSpec
from tests.conftest import PrefectServer
from tests.flows.test_review_page import run_review

pytestmark = pytest.mark.timeout(600)

WORDS = {"申请退款": "钱什么时候退回来", "查询物流": "包裹走到哪里了", "催发货": "怎么还没有发出"}


def make_item(name: str, seed: int, rightly: float, *, hint: bool = False) -> tuple[dict[str, object], str]:
    """A dialogue whose list of labels begins with the right one in a share `rightly`: `scripted:first` then is.

    With a `hint` the dialogue has the right label in it, which `scripted:echo` repeats.
    """
    rng = random.Random(seed)
    truth = rng.choice(list(WORDS))
    others = [label for label in WORDS if label != truth]
    rng.shuffle(others)
    labels = [truth, *others] if rng.random() < rightly else [*others, truth]
    filler = "".join(rng.choices("的了吗呢我你好请问", k=6))
    text = (
        f"你是一个网店客服助手\n<用户与客服的对话 START>\n用户: {filler}{WORDS[truth]}{seed}{truth if hint else ''}\n"
        "<用户与客服的对话 END>\n"
        "请直接只输出分类标签结果，不需要其他多余的话。以下是可以参考的分类标签为："
        + json.dumps(labels, ensure_ascii=False)
    )
    return {"id": name, "instruction": text, "image": []}, truth


def make_config(folder: Path, *, rightly: float = 0.9, hints: bool = False, **settings: object) -> DistillConfig:
    """90 labelled items, every tenth wrongly, and a pool of 60 that uses the same ids; probes as students."""
    images = folder / "images"
    images.mkdir(exist_ok=True)
    labelled: list[dict[str, object]] = []
    for n in range(90):
        row, truth = make_item(f"{n}", n, rightly, hint=hints)
        wrong = next(label for label in WORDS if label != truth)
        labelled.append(row | {"output": wrong if n % 10 == 0 else truth})
    pool = [make_item(f"{n}", 1000 + n, rightly, hint=hints) for n in range(60)]
    for name, rows in (("train", labelled), ("pool", [row for row, _ in pool]), ("truth", [t for _, t in pool])):
        (folder / f"{name}.json").write_text(json.dumps(rows, ensure_ascii=False), encoding="utf-8")
    return DistillConfig(
        pack="demo",
        labelled=SourceConfig(manifest=folder / "train.json", images=images),
        unlabelled=SourceConfig(manifest=folder / "pool.json", images=images),
        teacher=EngineSpec(engine="scripted", model="scripted:first"),
        student=ProbeSpec(folds=3, images="none"),
        correction=CorrectionSettings(review_budget=20, audit=20),
        pseudo_labels=PseudoLabelSettings(target_precision=0.93).model_copy(update=settings),
        output=folder / "run",
        ledger=folder / "ledger.sqlite",
        images=folder / "cache",
        texts=folder / "texts",
    )


def distil(config: DistillConfig) -> dict[str, StageRecord]:
    from flows.distill import distill

    return distill(config)


def run(config: DistillConfig) -> StageRecord:
    return distil(config)["pseudo_labels"]


def read_trusted(config: DistillConfig) -> dict[str, Trusted]:
    return {t.sample_id: t for t in read_rows(config.output / "pseudo_labels/trust.parquet", Trusted)}


@pytest.fixture(scope="module")
def finished(
    prefect_server: PrefectServer, tmp_path_factory: pytest.TempPathFactory
) -> tuple[DistillConfig, StageRecord]:
    config = make_config(tmp_path_factory.mktemp("trust"), review_budget=4)
    return config, run(config)


def test_trust_in_the_pool_comes_from_the_labelled_set(
    finished: tuple[DistillConfig, StageRecord],
) -> None:
    config, record = finished
    truth = json.loads((config.output.parent / "truth.json").read_text("utf-8"))
    found = read_trusted(config)
    kept = read_rows(config.output / "pseudo_labels/kept.parquet", Prediction)
    right = sum(p.label == truth[int(p.sample_id)] for p in kept) / len(kept)
    assert record.figures["calibrated"] == 1 and len(kept) >= 30
    assert record.figures["lower"] <= right <= record.figures["upper"]
    assert record.figures["kept share"] == len(kept) / 60
    assert {i for i, t in found.items() if t.decision is PoolDecision.KEPT} == {p.sample_id for p in kept}
    assert all(t.evidence.students is not None for t in found.values())
    wrong = [t.expected or 0 for i, t in found.items() if t.label != truth[int(i)]]
    good = [t.expected or 0 for i, t in found.items() if t.label == truth[int(i)]]
    assert sum(good) / len(good) > sum(wrong) / len(wrong)  # the students notice
    assert len(read_rows(config.output / "pseudo_labels/labelled.parquet", Prediction)) == 90
    assert set(record.inputs) >= {"samples", "labelled", "correction", "verdicts"}


def test_an_unchanged_rerun_is_reused_and_another_target_asks_nothing(
    finished: tuple[DistillConfig, StageRecord],
) -> None:
    config, record = finished
    assert run(config).finished_at == record.finished_at
    stricter = config.model_copy(
        update={"pseudo_labels": config.pseudo_labels.model_copy(update={"target_precision": 0.999})}
    )
    again = run(stricter)
    assert again.costs.asked == 0 and again.costs.reused == 150 and again.kept < record.kept
    run(config)  # later tests expect its files


def test_verdicts_on_the_pool_are_used_and_kept(finished: tuple[DistillConfig, StageRecord]) -> None:
    config, _ = finished
    review = config.output / "review_pool"
    cases = read_queue(review / "review")
    before = read_trusted(config)
    assert 0 < len(cases) <= 4 and all(before[c.sample_id].decision is PoolDecision.NOT_TRUSTED for c in cases)
    assert all(c.given == before[c.sample_id].label and c.candidate for c in cases)
    file = config.output.parent / "verdicts.jsonl"
    verdicts = [{"id": c.sample_id, "verdict": c.candidate if n else "neither"} for n, c in enumerate(cases)]
    file.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in verdicts), encoding="utf-8")
    assert f"{len(cases)} new" in run_review("import", review, file).output
    record = run(config)
    kept = {p.sample_id: p for p in read_rows(config.output / "pseudo_labels/kept.parquet", Prediction)}
    assert record.drops["reviewer_said_neither"] == 1 and cases[0].sample_id not in kept
    for case in cases[1:]:
        assert (kept[case.sample_id].label, kept[case.sample_id].source) == (case.candidate, "review")
    assert {c.sample_id for c in cases} <= {c.sample_id for c in read_queue(review / "review")}
    assert record.costs.asked == 0 and record.figures["reviewed"] == len(cases)


def test_without_corrections_wrong_given_labels_count_against_the_teacher(
    prefect_server: PrefectServer, tmp_path: Path, finished: tuple[DistillConfig, StageRecord]
) -> None:
    bare = make_config(tmp_path).model_copy(update={"student": None})
    record = run(bare)
    assert record.figures["calibrated"] == 1 and "correction" not in record.inputs
    assert record.figures["expected precision of all"] < finished[1].figures["expected precision of all"]
    assert all(t.evidence.students is None for t in read_trusted(bare).values())


def test_without_a_labelled_set_precision_is_the_teachers_estimate(
    prefect_server: PrefectServer, tmp_path: Path
) -> None:
    alone = make_config(tmp_path, target_precision=0.9).model_copy(update={"student": None, "labelled": None})
    record = run(alone)
    assert record.figures["calibrated"] == 0 and record.kept == 60  # scripted: sure to 0.9
    assert record.figures["expected precision"] == pytest.approx(0.9)


def make_panel(folder: Path) -> DistillConfig:
    """Return a run with a cheap teacher that is right on 60 % and a strong one that is right wherever a hint stands."""
    config = make_config(folder, rightly=0.6, target_precision=0.8, hints=True)
    cheap = {"engine": "scripted", "model": "scripted:first", "prices": {"prompt": 1.0}}
    strong = {"engine": "scripted", "model": "scripted:echo", "prices": {"prompt": 10.0}}
    teachers = TeacherSettings.model_validate({"teachers": [cheap, strong]}).teachers
    return config.model_copy(update={"teacher": None, "teachers": teachers})


def test_a_further_teacher_is_asked_about_uncertain_items_and_all_are_named_with_their_cost(
    prefect_server: PrefectServer, tmp_path: Path
) -> None:
    config = make_panel(tmp_path).model_copy(update={"student": None})
    record = run(config)
    found = read_trusted(config)
    asked = {i for i, t in found.items() if t.evidence.teachers[1] is not None}
    assert asked >= {i for i, t in found.items() if t.decision is PoolDecision.NOT_TRUSTED} and len(asked) > 10
    assert record.costs.asked > 150 + len(asked)  # labelled items with evidence as weak, too
    assert set(record.models) == {"teacher 1", "teacher 2"}
    figures = record.figures
    assert figures["teacher 1: answers"] == 150 and len(asked) < figures["teacher 2: answers"] <= 150
    assert 0 < figures["teacher 1: cost"] < figures["teacher 2: cost"]
    assert figures["teacher 1: agreement with given labels"] < figures["teacher 2: agreement with given labels"]
    truth = json.loads((tmp_path / "truth.json").read_text("utf-8"))
    kept = read_rows(config.output / "pseudo_labels/kept.parquet", Prediction)
    assert len(kept) > 20 and sum(p.label == truth[int(p.sample_id)] for p in kept) >= 0.9 * len(kept)
    card = (config.output / "card/index.html").read_text("utf-8")
    assert "teacher 2: agreement with given labels" in card and "scripted:echo" in card
    assert run(config.model_copy(update={"seed": config.seed})).finished_at == record.finished_at


def test_several_teachers_adjudicate_and_the_report_counts_each(prefect_server: PrefectServer, tmp_path: Path) -> None:
    from flows.correction import correction

    config = make_panel(tmp_path)
    record = correction(config.list_stage_configs()[0])
    first, second = (record.figures[f"teacher {n}: answers"] for n in (1, 2))
    assert 0 < second < first <= 22 and record.figures["asked of the teacher"] == first + second
    report = (config.output / "correction/report.html").read_text("utf-8")
    assert "teacher 2: answers" in report
    rows = read_rows(config.output / "correction/kept.parquet", Correction)
    assert sum(row.adjudicated is not None for row in rows) == first


def test_a_judge_removes_reasons_of_teachers_and_keeps_their_labels(
    finished: tuple[DistillConfig, StageRecord],
) -> None:
    """Those for the pool, and those for labels that a person changed to the teacher's."""
    folder = finished[0].output.parent
    truth = [{"id": f"{n}", "label": make_item(f"{n}", n, 0.9)[1]} for n in range(90)]
    (folder / "truth.jsonl").write_text("".join(json.dumps(row) + "\n" for row in truth), "utf-8")
    reviewed = finished[0].correction.model_copy(update={"stand_in": folder / "truth.jsonl"})
    plain = finished[0].model_copy(update={"correction": reviewed, "output": folder / "reviewed"})
    judge = EngineSpec(engine="scripted", model="scripted:hash")
    judged = plain.model_copy(update={"rationales": RationaleSettings(judge=judge), "output": folder / "judged"})
    distil(plain)
    records = distil(judged)
    for stage, kind in (("pseudo_labels", Prediction), ("correction", Correction)):
        before, after = (read_rows(each.output / stage / "kept.parquet", kind) for each in (plain, judged))
        assert [row.label for row in before] == [row.label for row in after]
        if kind is Correction:
            before, after = ([c for c in rows if c.has_label_of_teacher] for rows in (before, after))
        reasons, left = ({row.sample_id for row in rows if row.reason} for rows in (before, after))
        assert reasons > left and records[stage].costs.asked == len(reasons), stage
        assert records[stage].figures["judge: threshold"] == 0.5
    one_vote = distil(judged.model_copy(update={"ask": AskSettings(votes=1)}))
    assert all(one_vote[stage].costs.asked > 0 for stage in ("correction", "pseudo_labels"))
