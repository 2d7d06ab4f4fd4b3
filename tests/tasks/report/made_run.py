"""A finished run of small records with every stage, every origin, pictures and dialogues."""

from collections.abc import Sequence
from pathlib import Path

import orjson
from PIL import Image

from tasks.items.images import check_image
from tasks.media import ImageRef, TextPart
from tasks.pseudo_labels.decide import PoolDecision, Trusted
from tasks.pseudo_labels.evidence import Evidence
from tasks.records import Action, Dropped, Example, Message, Origin, Prediction, Record, Sample, Split, Subset
from tasks.storage.rows import write_rows
from tasks.storage.stage_record import Costs, StageRecord
from tasks.storage.stages import write_stage
from tests.tasks.making import correction, parts, prediction, sample

LABELS = ("申请退款", "查询物流", "反馈破损")
ATTACK = "</p><script>document.title='taken'</script><img src=x onerror=alert(1)>"
_PICTURES = 12


def make_run(
    output: Path,
    items: int = 60,
    *,
    text: str = "怎么退款",
    figures: dict[str, float] | None = None,
    size: tuple[int, int] = (54, 120),
) -> Path:
    """Write a run with `items` labelled items and as many in the pool.

    Every sixth label is corrected and every fifth pseudo-label is not trusted. `text` is in every dialogue, `figures`
    are those of the stage emit, `size` is that of the pictures.
    """
    shown = write_pictures(output.with_name("pictures"), size)
    labelled = [_sample(f"given-{n}", n, text, shown, Split.LABELLED) for n in range(items)]
    pool = [_sample(f"pool-{n}", n, text, shown, Split.UNLABELLED) for n in range(items)]
    refused = [Dropped(sample_id="broken-1", stage="samples", reason="image_missing", detail=f"no such file {ATTACK}")]
    _stage(output, "samples/labelled", labelled, refused)
    _stage(output, "samples/unlabelled", pool, [])
    reasons = [prediction(s.id, s.given, reason=_reason(n)) for n, s in enumerate(labelled)]
    _stage(output, "rationales", reasons, [], _GATE, Costs(asked=items, tokens_in=9000))
    answers = [
        prediction(s.id, LABELS[n % 3], probabilities={x: 0.9 if x == LABELS[n % 3] else 0.05 for x in LABELS})
        for n, s in enumerate(pool)
    ]
    trusted = [p for n, p in enumerate(answers) if n % 5]
    untrusted = [Dropped(sample_id=p.sample_id, stage="p", reason="not_trusted", detail="p=0.5") for p in answers[::5]]
    expected = {"expected precision": 0.96, "lower": 0.93, "upper": 0.98, "calibrated": 1.0}
    _stage(output, "pseudo_labels", trusted, untrusted, expected, Costs(asked=items, cost=1.25))
    write_rows(output / "pseudo_labels" / "predictions.parquet", answers)
    write_rows(output / "pseudo_labels" / "trust.parquet", [_trusted(n, p.sample_id) for n, p in enumerate(answers)])
    _stage(output, "correction", [_corrected(n, s) for n, s in enumerate(labelled)], [], {"reviewed": 3.0})
    (output / "correction" / "report.json").write_bytes(orjson.dumps(_REPORT))
    examples = [*(_given(n, s) for n, s in enumerate(labelled)), *(_pseudo(p, pool) for p in trusted)]
    examples.append(_mixed())
    left_out = [Dropped(sample_id=d.sample_id, stage="e", reason="no_trusted_pseudo_label") for d in untrusted]
    _stage(output, "emit", examples, left_out, figures or {})
    return output


def write_pictures(folder: Path, size: tuple[int, int]) -> list[ImageRef]:
    """Write a dozen noisy pictures, which compress badly."""
    folder.mkdir(parents=True, exist_ok=True)
    for n in range(_PICTURES):
        Image.effect_noise(size, 60 + n).convert("RGB").save(folder / f"{n}.png")
    return [check_image(folder / f"{n}.png", 10**8) for n in range(_PICTURES)]


def _sample(identity: str, n: int, text: str, shown: Sequence[ImageRef], split: Split) -> Sample:
    content = parts(f"用户: {text} {n}\n", shown[n % _PICTURES], "客服: 您好")
    given = LABELS[n % 3] if split is Split.LABELLED else None
    return sample(identity, given=given, split=split).model_copy(update={"parts": content})


def _reason(n: int) -> str:
    return f"{LABELS[n % 3]}：画面里第{n}件商品有{n % 7}处划痕"


def _corrected(n: int, item: Sample) -> Record:
    if n % 6:
        return correction(item.id, given=item.given, label=item.given)
    if n % 12:
        return correction(item.id, given=item.given, label=LABELS[(n + 1) % 3], action=Action.RELABEL, reviewed=True)
    return correction(item.id, given=item.given, label=None, action=Action.DROP, reviewed=True, verdict="neither")


def _given(n: int, item: Sample) -> Example:
    origin = (Origin.REVIEW, Origin.CORRECTION, Origin.GIVEN)[n % 3]
    subset = Subset.VALIDATION if n % 10 == 0 else Subset.TRAIN
    return _example(item, item.given or "", origin, _reason(n)).model_copy(update={"subset": subset})


def _pseudo(found: Prediction, pool: Sequence[Sample]) -> Example:
    item = pool[int(found.sample_id.split("-")[1])]
    return _example(item, found.label or "", Origin.PSEUDO)


def _example(item: Sample, label: str, origin: Origin, reason: str = "") -> Example:
    text = "".join(p.text if isinstance(p, TextPart) else "<image>" for p in item.parts)
    turns = (Message(role="user", content=text), Message(role="assistant", content=label))
    return Example(
        sample_id=item.id, messages=turns, images=item.images, label=label, reason=reason, origin=origin,
        why=f"because {ATTACK}", source="train.json", task=item.task,
    )  # fmt: skip


def _mixed() -> Example:
    turns = (Message(role="user", content="What is <b>bold</b>?"), Message(role="assistant", content="A weight."))
    return Example(
        sample_id="mix-1", messages=turns, images=(), label="", origin=Origin.MIX, why="against forgetting", source="m"
    )


def _trusted(n: int, identity: str) -> Trusted:
    if n == 0:
        return Trusted(
            sample_id=identity, label=None, expected=None, evidence=Evidence(), decision=PoolDecision.NO_ANSWER, why=""
        )
    evidence = Evidence(probability=0.9) if n % 2 else Evidence(vote_share=0.6)
    decision = PoolDecision.KEPT if n % 5 else PoolDecision.NOT_TRUSTED
    return Trusted(sample_id=identity, label=LABELS[n % 3], expected=0.7, evidence=evidence, decision=decision, why="")


def _stage(
    output: Path,
    name: str,
    kept: Sequence[Record],
    dropped: Sequence[Dropped],
    figures: dict[str, float] | None = None,
    costs: Costs | None = None,
) -> None:
    record = StageRecord(
        stage=name, recipe="r", read=0, kept=0, dropped=0, seconds=2.5, figures=figures or {}, costs=costs or Costs(),
        models={"teacher": "teacher#1"} if costs else {}, finished_at=1_795_000_000,
    )  # fmt: skip
    ids = [getattr(k, "sample_id", None) or getattr(k, "id", "") for k in kept]
    write_stage(output / name, record, kept, dropped, [*ids, *(d.sample_id for d in dropped)])


_GATE = {"near-duplicates before": 0.2, "near-duplicates after": 0.01}
_WRONG = {"hits": 1, "of": 4, "value": 0.25, "low": 0.1, "high": 0.6}
_REPORT = {
    "gate_why": "The gate is closed: too few verdicts.",
    "estimates": {"wrong": {"value": 0.1, "low": 0.05, "high": 0.2}},
    "threshold": 0.3,
    "reliability": [
        {
            "low": 0.0,
            "high": 0.5,
            "predicted": 0.2,
            "wrong": {"hits": 1, "of": 4, "value": 0.25, "low": 0.1, "high": 0.6},
        }
    ],
    "histogram": [{"low": n / 10, "high": (n + 1) / 10, "items": 10 - n, "flagged": n} for n in range(10)],
}
