"""Stage 1: a generator is shown each labelled item with its label and says why (reason first, label second)."""

import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from prefect import flow, get_run_logger

from flows.asking import Asking
from flows.config import RationalesConfig
from flows.running import Stage, intake, most_images, prompter_for, reused, show_table
from tasks.alikeness import Crowds, Worded, diversity, find_alike
from tasks.engines.identity import model_identity
from tasks.ledger import Ledger
from tasks.packs import load_pack
from tasks.parsing import parse_reason
from tasks.prompts import Prompter
from tasks.rationale_gate import complaint, judge_reason, marked, supports
from tasks.records import USABLE, Dropped, Outcome, Prediction, Sample, Sampling, Split
from tasks.stages import StageRecord, code_version, recipe_hash
from tasks.wording import BadReason, has_words

STAGE = "rationales"

_RETRY_TEMPERATURE = 0.8
"""A greedy answer asked again would come out the same, where a pack's template does not show the complaint."""

_HOPELESS = {Outcome.BAD_MEDIA, Outcome.TOO_LONG}


@dataclass
class _Books:
    """What has become of each item so far, by id."""

    kept: dict[str, Prediction] = field(default_factory=dict)
    worded: dict[str, Worded] = field(default_factory=dict)
    """The kept reasons as alikeness sees them."""
    refused: dict[str, Dropped] = field(default_factory=dict)
    complaints: dict[str, str] = field(default_factory=dict)
    first: dict[str, str] = field(default_factory=dict)
    """Every reason of the first attempt that could be read."""
    first_faults: Counter[str] = field(default_factory=Counter)
    unsure: int = 0
    """Reasons whose support the engine can't tell."""


@flow(name="rationales", flow_run_name="rationales: {config.pack}", validate_parameters=True)
def rationales(config: RationalesConfig) -> StageRecord:
    """Write a reason for each labelled item under `output`/rationales.

    Kept: predictions whose label is the given one and whose reason passed the gate; `probabilities` are the labels'
    after that reason, where they were asked for. Dropped: items without a reason; emit teaches them with the label
    alone, or leaves them out, as `without_reason` says.
    """
    began = time.monotonic()
    pack = load_pack(config.pack)
    samples, read = intake(config.labelled, pack, Split.LABELLED, config.output)
    model = model_identity(config.generator)
    folder = config.output / STAGE
    recipe = recipe_hash(
        settings=config.rationales, pack=pack.digest, model=model, input=read.digest, code=code_version(),
        seed=config.seed, pixels=[config.generator.min_pixels, config.generator.max_pixels],
        context=config.generator.context_length,
    )  # fmt: skip
    if (record := reused(folder, recipe)) is not None:
        return record
    if not has_words(pack.language):
        get_run_logger().warning(
            "pack %s: no lists of words for language `%s`: leaks, empty praise and the script of reasons are not "
            "looked at (tasks/wording)", pack.name, pack.language,
        )  # fmt: skip
    stage = Stage(STAGE, folder, recipe, {"samples": read.digest}, {"generator": model}, began)
    prompter = prompter_for(config, pack, model, config.generator, samples)
    books = _Books()
    with Ledger(config.ledger) as ledger, Asking(config, STAGE, ledger, most_images(samples)) as asking:
        waiting: Sequence[Sample] = samples
        for attempt in range(config.rationales.attempts):
            waiting = _attempt(config, prompter, asking, waiting, attempt, books)
        costs = asking.costs()
    kept = [books.kept[s.id] for s in samples if s.id in books.kept]
    dropped = [books.refused[s.id] for s in samples if s.id not in books.kept]
    _show_classes(samples, books, config.rationales.alike)
    return stage.finish(kept, dropped, (s.id for s in samples), _figures(books, config.rationales.alike), costs)


def _attempt(
    config: RationalesConfig,
    prompter: Prompter,
    asking: Asking,
    samples: Sequence[Sample],
    attempt: int,
    books: _Books,
) -> list[Sample]:
    """Ask once for each of `samples` and put the answers on the books; returns those worth asking again."""
    settings = config.rationales
    temperature = settings.temperature if attempt == 0 else max(settings.temperature, _RETRY_TEMPERATURE)
    sampling = Sampling(temperature=temperature, max_tokens=settings.max_tokens, seed=config.seed + attempt)
    requests = [prompter.rationale(s, s.given or "", sampling, books.complaints.get(s.id, "")) for s in samples]
    what = "reasons" if attempt == 0 else f"reasons, attempt {attempt + 1}"
    answers = asking.answers(requests, config.generator, what)
    reasons: dict[str, str] = {}
    faults: dict[str, BadReason | Outcome] = {}
    for sample, request in zip(samples, requests, strict=True):
        outcome, reason = parse_reason(request, answers[request.key])
        reasons[sample.id] = reason or answers[request.key].detail
        if outcome not in USABLE:
            faults[sample.id] = outcome
            continue
        if attempt == 0:
            books.first[sample.id] = reason
        if (bad := judge_reason(reason, sample, sample.given or "", prompter.pack)) is not None:
            faults[sample.id] = bad
    faults |= _alike(config, samples, reasons, faults, books, last=attempt + 1 == settings.attempts)
    sound = [s for s in samples if s.id not in faults]
    concluded = _concluded(config, prompter, asking, sound, reasons, what) if settings.support else {}
    for sample in sound:
        answer = concluded.get(sample.id)
        supported = None if answer is None else supports(answer, sample.given or "")
        books.unsure += answer is not None and supported is None
        if supported is False:
            faults[sample.id] = BadReason.UNSUPPORTED
            continue
        books.worded[sample.id] = _worded(sample, reasons[sample.id])
        books.kept[sample.id] = Prediction(
            sample_id=sample.id,
            source="rationale",
            outcome=Outcome.OK,
            label=sample.given,
            probabilities=answer.probabilities if answer else {},
            reason=reasons[sample.id],
            model=prompter.model,
            attempt=attempt,
        )
    for sample_id, fault in faults.items():
        books.refused[sample_id] = Dropped(sample_id=sample_id, stage=STAGE, reason=fault, detail=reasons[sample_id])
        if isinstance(fault, BadReason):
            books.complaints[sample_id] = complaint(fault, reasons[sample_id], prompter.pack)
    if attempt == 0:
        books.first_faults.update(faults.values())
    return [s for s in samples if s.id in faults and faults[s.id] not in _HOPELESS]


def _alike(
    config: RationalesConfig,
    samples: Sequence[Sample],
    reasons: Mapping[str, str],
    faults: Mapping[str, BadReason | Outcome],
    books: _Books,
    *,
    last: bool,
) -> dict[str, BadReason]:
    """The reasons that are too much like others, among those without a fault so far."""
    fresh = [s for s in samples if s.id not in faults]
    crowds = Crowds(near=config.rationales.alike, opening_share=config.rationales.opening_share)
    bad = find_alike([_worded(s, reasons[s.id]) for s in fresh], list(books.worded.values()), crowds, last=last)
    return {fresh[i].id: fault for i, fault in bad.items()}


def _concluded(
    config: RationalesConfig,
    prompter: Prompter,
    asking: Asking,
    samples: Sequence[Sample],
    reasons: Mapping[str, str],
    what: str,
) -> dict[str, Prediction]:
    """To which label the generator comes after each reason, by id: one scored token an item."""
    sampling = Sampling(max_tokens=1, seed=config.seed, label_probabilities=True)
    requests = [prompter.conclude(s, reasons[s.id], sampling) for s in samples]
    model = prompter.model
    found = asking.labels(requests, config.generator, f"support of {what}", source="support", model=model)
    return {p.sample_id: p for p in found}


def _worded(sample: Sample, reason: str) -> Worded:
    label = sample.given or ""
    return Worded(marked(reason, sample.labels, label).text, label)


def _figures(books: _Books, near: float) -> dict[str, float]:
    """Diversity and lengths of the first answers and of what is kept, and what the first answers were refused for."""
    figures: dict[str, float] = {}
    for when, texts in (("before", books.first.values()), ("after", [p.reason for p in books.kept.values()])):
        found = diversity(list(texts), near)
        figures |= {
            f"distinct-1 {when}": found.distinct_1,
            f"distinct-2 {when}": found.distinct_2,
            f"near-duplicates {when}": found.near_duplicates,
            f"characters {when}, mean": found.mean_chars,
            f"characters {when}, most": found.most_chars,
        }
    figures |= {f"first answers: {fault}": float(n) for fault, n in sorted(books.first_faults.items())}
    figures["mended by asking again"] = sum(p.attempt > 0 for p in books.kept.values())
    if books.unsure:
        figures["support not known"] = books.unsure
    return figures


def _show_classes(samples: Sequence[Sample], books: _Books, near: float) -> None:
    """Diversity by class as a table: a template hides in one class."""
    rows: list[dict[str, object]] = []
    for label, items in Counter(s.given or "" for s in samples).most_common():
        own = [s.id for s in samples if s.given == label]
        before = diversity([books.first[i] for i in own if i in books.first], near)
        after = diversity([books.kept[i].reason for i in own if i in books.kept], near)
        row: dict[str, object] = {"label": label, "items": items, "with a reason": after.count}
        for when, found in (("before", before), ("after", after)):
            row[f"near-duplicates {when}"] = round(found.near_duplicates, 3)
            row[f"distinct-2 {when}"] = round(found.distinct_2, 3)
        rows.append(row)
    show_table("reasons-by-class", rows, "Reasons by class")
