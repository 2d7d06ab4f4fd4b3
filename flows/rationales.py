"""Stage 1: a generator is shown each labelled item with its label and says why (reason first, label second)."""

import time
from collections import Counter
from collections.abc import Sequence

from prefect import flow, get_run_logger

from flows.asking import Asking
from flows.config import RationalesConfig
from flows.run_lock import hold_output
from flows.stage import Stage, intake, most_images, prompter_for, reused, show_table
from tasks.models.engines.identity import model_identity
from tasks.models.ledger.ledger import Ledger
from tasks.packs.pack import load_pack
from tasks.rationales.reasoner import STAGE, Asked, Reasoner, Reasons
from tasks.rationales.words.lists import has_words
from tasks.records import Sample, Split
from tasks.storage.stages import StageRecord, code_version, recipe_hash


@flow(name="rationales", flow_run_name="rationales: {config.pack}", validate_parameters=True, timeout_seconds=48 * 3600)
@hold_output
def rationales(config: RationalesConfig) -> StageRecord:
    """Write a reason for each labelled item under `output`/rationales.

    Kept: predictions whose label is the given one and whose reason passed the gate; `probabilities` are the labels'
    after that reason, where they were asked for. Dropped: items without a reason; emit teaches them with the label
    alone, or leaves them out, as `without_reason` says.
    """
    began = time.monotonic()
    pack = load_pack(config.pack)
    pack.require_labels(STAGE)
    samples, read = intake(config.labelled, pack, Split.LABELLED, config.output, config.images)
    model = model_identity(config.generator)
    folder = config.output / STAGE
    settings = config.rationales
    recipe = recipe_hash(
        settings=settings, pack=pack.digest, model=model, input=read.digest, code=code_version(), seed=config.seed,
        pixels=[config.generator.min_pixels, config.generator.max_pixels], context=config.generator.context_length,
    )  # fmt: skip
    if (record := reused(folder, recipe)) is not None:
        return record
    if not has_words(pack.language):
        get_run_logger().warning(
            "pack %s: no lists of words for language `%s` (tasks/wording): leaks, empty praise and the language of "
            "reasons are not checked", pack.name, pack.language,
        )  # fmt: skip
    stage = Stage(STAGE, folder, recipe, {"samples": read.digest}, {"generator": model}, began)
    prompter = prompter_for(config, pack, model, config.generator, samples)
    asked = Asked(
        attempts=settings.attempts,
        support=settings.support,
        temperature=settings.temperature,
        max_tokens=settings.max_tokens,
        seed=config.seed,
        crowds=settings.crowds(),
    )
    with Ledger(config.ledger) as ledger, Asking(config, STAGE, ledger, most_images(samples)) as asking:
        reasoner = Reasoner(
            prompter,
            asked,
            answers=lambda requests, what: asking.answers(requests, config.generator, what),
            labels=lambda requests, what: asking.labels(
                requests, config.generator, what, source="support", model=model
            ),
        )
        found = reasoner.find(samples)
        costs = asking.costs()
    kept = [found.kept[s.id] for s in samples if s.id in found.kept]
    dropped = [found.dropped[s.id] for s in samples if s.id in found.dropped]
    _show_classes(samples, found, settings.alike)
    return stage.finish(kept, dropped, (s.id for s in samples), _figures(found, settings.alike), costs)


def _figures(found: Reasons, near: float) -> dict[str, float]:
    """Diversity and lengths of the first answers and of what is kept, and what the first answers were refused for."""
    figures: dict[str, float] = {}
    for when, of in zip(("before", "after"), found.diversity(near), strict=True):
        figures |= {
            f"distinct-1 {when}": of.distinct_1,
            f"distinct-2 {when}": of.distinct_2,
            f"near-duplicates {when}": of.near_duplicates,
            f"mean characters {when}": of.mean_chars,
            f"most characters {when}": of.most_chars,
        }
    figures |= {f"first answers: {fault}": float(n) for fault, n in sorted(found.first_faults.items())}
    figures["mended by asking again"] = sum(p.attempt > 0 for p in found.kept.values())
    if found.unsure:
        figures["support not known"] = found.unsure
    return figures


def _show_classes(samples: Sequence[Sample], found: Reasons, near: float) -> None:
    """Diversity by class as a table: a template hides in one class."""
    rows: list[dict[str, object]] = []
    for label, items in Counter(s.given or "" for s in samples).most_common():
        before, after = found.diversity(near, [s.id for s in samples if s.given == label])
        row: dict[str, object] = {"label": label, "items": items, "with a reason": after.count}
        for when, of in (("before", before), ("after", after)):
            row[f"near-duplicates {when}"] = round(of.near_duplicates, 3)
            row[f"distinct-2 {when}"] = round(of.distinct_2, 3)
        rows.append(row)
    show_table("reasons-by-class", rows, "Reasons by class")
