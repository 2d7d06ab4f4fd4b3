"""Stage 4: one decision a sample, merged into one training set and written as trainers read it."""

import time
from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import TypeVar

from prefect import flow, get_run_logger

from flows.config import EmitConfig
from flows.folders import CANDIDATE, CONFLICTS
from flows.run_lock import hold_output
from flows.service.alerts import tell_empty
from flows.service.pages import show_links
from flows.stage import intake, read_texts, reused, run_as_task, show_counts, show_table
from tasks.dataset.decisions import Decision, pseudo_decision
from tasks.dataset.merge import STAGE, conflicts
from tasks.dataset.merge_files import Emitted, write_merged
from tasks.dataset.merge_plan import Plan, Rules, Sources, plan_merge
from tasks.dataset.mixing import draw_mix
from tasks.dataset.versions import VersionWriter
from tasks.errors import ConfigError
from tasks.items.file_states import file_state
from tasks.items.image_hashes import Looks
from tasks.items.settings import SourceConfig
from tasks.packs.pack import Pack, load_pack
from tasks.prompts.prompter import Prompter
from tasks.rationales.diversity import Worded, crowded_out, diversity
from tasks.rationales.gate import judge_reason
from tasks.records import Correction, Dropped, Prediction, Sample, Split, content_digest, digest_of
from tasks.review.queue import write_queue
from tasks.review.verdicts import read_store, usable
from tasks.storage.rows import StoredRows
from tasks.storage.stages import StageRecord, close_stage, code_version, open_stage, read_record, recipe_hash

_ASKED = 200
"""Conflicts on one page, which holds their images: the next ones follow when these are settled."""
_ROWS_SHOWN = 200
"""Of the table of labels: captions are all different."""


@flow(name="emit", flow_run_name="emit: {config.pack}", timeout_seconds=12 * 3600)
@hold_output
def emit(config: EmitConfig) -> StageRecord:
    """Merge what the earlier stages left under `output` and write `output`/emit.

    Kept: the examples with their provenance (kept.parquet), shuffled; beside them the same set for each trainer. Items
    in conflict with others like them are asked about in `output`/review_conflicts. Raises ConfigError if a stage that
    should count has left no record.
    """
    began = time.monotonic()
    pack = load_pack(config.pack)
    inputs = _read(config, pack)
    folder = config.output / (CANDIDATE if config.candidate else STAGE)
    said = config.output / CONFLICTS / "verdicts.jsonl"
    mix = config.emit.mix
    recipe = recipe_hash(
        settings=config.emit,
        pack=pack.digest,
        inputs=inputs,
        seed=config.seed,
        code=code_version(),
        reasons=[config.rationales.without_reason, config.rationales.opening_share],
        files=[file_state(path) for path in (said, *([mix.file] if mix else []))],
    )
    if (record := reused(folder, recipe)) is not None:
        return record
    sources = _sources(config, pack)
    samples = (s for part in (sources.labelled, sources.pool) for s in part)
    # No model is asked here, so neither its identity nor pixel bounds matter to the text.
    prompter = Prompter(pack, "", max_pixels=1, min_pixels=1, texts=read_texts(config, pack, samples))
    what = f"merge {len(sources.labelled)} labelled and {len(sources.pool)} pool items"
    begun = StageRecord(stage=STAGE, recipe=recipe, read=0, kept=0, dropped=0, inputs=inputs)
    record = run_as_task("merge and export", what, lambda: _merged(config, sources, prompter, begun, began))
    show_counts(record)
    if not record.kept and not config.candidate:
        tell_empty(config.output, STAGE)
    show_links(config.output, ["review-conflicts"])
    return record


def _merged(config: EmitConfig, sources: Sources, prompter: Prompter, record: StageRecord, began: float) -> StageRecord:
    """Merge `sources` into `output`/emit; returns the finished record."""
    settings, folder = config.emit, config.output / (CANDIDATE if config.candidate else STAGE)
    rules = Rules(
        waiting=settings.waiting,
        transductive=settings.transductive,
        near_duplicates=settings.near_duplicates,
        mix_share=settings.mix.share if settings.mix else 0.0,
        validation_share=settings.validation_share,
        seed=config.seed,
    )
    plan = plan_merge(sources, rules, Looks(config.images / "hashes.sqlite"))
    open_stage(folder)
    log = get_run_logger()
    if config.candidate:
        nothing = settings.export.model_copy(update={"formats": ()})
        emitted = write_merged(folder, plan, sources, rules, prompter, settings.name, nothing)
    else:
        with VersionWriter(config.output, record.recipe) as versions:
            emitted = write_merged(folder, plan, sources, rules, prompter, settings.name, settings.export, versions)
        log.info("version %s of the set", versions.version.short)
    _ask(config, sources, rules, plan)
    log.info("wrote %s", ", ".join(str(f) for f in emitted.exported.files[:20]))
    for left in emitted.exported.left_out[:5]:
        log.warning("%s can't hold item %s: %s", left.format, left.sample_id, left.detail)
    balance = [{"label": label, "examples": n} for label, n in emitted.labels.most_common(_ROWS_SHOWN)]
    show_table("class-balance", balance, "Emitted by label")
    figures = _figures(emitted, plan, config)
    record = record.model_copy(update={"seconds": time.monotonic() - began, "figures": figures})
    return close_stage(folder, record, emitted.kept, emitted.dropped)


def _read(config: EmitConfig, pack: Pack) -> dict[str, str]:
    """Read what is to be merged, where that is not done yet; returns the inputs' digests.

    Raises ConfigError where a stage has left no record, or decided about other items than stand in the manifest now: a
    label that was mended since would give way to a decision about the former one.
    """
    inputs: dict[str, str] = {}
    for split, source in _sets(config):
        name = "evaluation" if split is Split.TEST else split.value
        inputs[name] = intake(source, pack, split, config.output, config.images)[1].digest
    sources = dict(_sets(config))
    for stage in config.stages:
        record = read_record(config.output / stage)
        if record is None:
            raise ConfigError(
                f"{config.output / stage}: no finished stage; run `{stage}` first or take it out of `stages`"
            )
        inputs[stage] = record.digest
        split = Split.UNLABELLED if stage == "pseudo_labels" else Split.LABELLED
        if split in sources and record.inputs.get("samples", inputs[split.value]) != inputs[split.value]:
            raise ConfigError(
                f"{config.output / stage}: decided about other items than {sources[split].manifest} holds now; run "
                f"`{stage}` again, or the whole way: answers that were paid for are reused"
            )
    return inputs


def _sets(config: EmitConfig) -> list[tuple[Split, SourceConfig]]:
    sets = (Split.LABELLED, config.labelled), (Split.UNLABELLED, config.unlabelled), (Split.TEST, config.evaluation)
    return [(split, source) for split, source in sets if source is not None]


def _sources(config: EmitConfig, pack: Pack) -> Sources:
    def samples(split: Split) -> StoredRows[Sample] | tuple[Sample, ...]:
        given = split in dict(_sets(config))
        return StoredRows(config.output / "samples" / split / "kept.parquet", Sample) if given else ()

    labelled, pool = samples(Split.LABELLED), samples(Split.UNLABELLED)
    mix = config.emit.mix
    # As many as are needed if nothing else is dropped, and some for those that are.
    most = round((len(labelled) + len(pool)) * mix.share / (1 - mix.share) * 1.1) + 20 if mix else 0
    corrections = {c.sample_id: c for c in _kept(config, "correction", Correction)}
    pseudo = {p.sample_id: pseudo_decision(p) for p in _kept(config, "pseudo_labels", Prediction)}
    reasons = {p.sample_id: p for p in _kept(config, "rationales", Prediction)}
    bad = {s.id for s in labelled if not _speaks_well(corrections.get(s.id), s, pack)}
    corrections = {i: _said(c, i not in bad) for i, c in corrections.items()}
    silent = _silent(config, corrections, pseudo, reasons)
    return Sources(
        labelled=labelled,
        pool=pool,
        evaluation=samples(Split.TEST),
        mix=draw_mix(mix.file, mix.images or mix.file.parent, most, config.seed) if mix else (),
        corrections={i: _said(c, (Split.LABELLED, i) not in silent) for i, c in corrections.items()},
        pseudo={i: d._replace(reason="") if (Split.UNLABELLED, i) in silent else d for i, d in pseudo.items()},
        reasons={i: p.reason for i, p in reasons.items() if (Split.LABELLED, i) not in silent},
        unreasoned=_unreasoned(config),
        verdicts=read_store(config.output / CONFLICTS / "verdicts.jsonl"),
    )


def _said(correction: Correction, aloud: bool) -> Correction:
    """The correction, without its reason unless `aloud`."""
    return correction if aloud else correction.model_copy(update={"reason": ""})


def _speaks_well(correction: Correction | None, sample: Sample, pack: Pack) -> bool:
    """Whether the teacher's reason for a changed label passes the gate; the other reasons have passed it before."""
    if correction is None or correction.label is None or not correction.reason:
        return True
    return judge_reason(correction.reason, sample, correction.label, pack) is None


def _silent(
    config: EmitConfig,
    corrections: Mapping[str, Correction],
    pseudo: Mapping[str, Decision],
    reasons: Mapping[str, Prediction],
) -> set[tuple[Split, str]]:
    """Items that are taught without their reason: beyond `reason_share`, or too like another's of those within it.

    By their set too: the manifests of both may count from 1.
    """
    worded = {(Split.LABELLED, i): Worded(p.reason, p.label or "") for i, p in reasons.items() if p.reason}
    for i, c in corrections.items():
        if c.label is not None and c.label != c.given:
            worded.pop((Split.LABELLED, i), None)
            if c.reason and c.label == c.adjudicated:
                worded[Split.LABELLED, i] = Worded(c.reason, c.label)
    worded |= {(Split.UNLABELLED, i): Worded(d.reason, d.label or "") for i, d in pseudo.items() if d.reason}
    within = {key: w for key, w in worded.items() if _draw(config.seed, key[1]) < config.emit.reason_share}
    gone = crowded_out(within, replace(config.rationales.crowds(), near=config.emit.reasons_alike))
    get_run_logger().info("%d of %d reasons are too like another and are left out", len(gone), len(within))
    return gone | (worded.keys() - within.keys())


def _draw(seed: int, sample_id: str) -> float:
    """A number from 0 to 1 that is the item's own, whatever else is merged."""
    return int(digest_of(["reason", seed, sample_id])[:8], 16) / 2**32


def _unreasoned(config: EmitConfig) -> frozenset[str]:
    """The labelled items that are left out because nobody gave a good reason."""
    if config.rationales.without_reason == "keep_item" or "rationales" not in config.stages:
        return frozenset()
    return frozenset(d.sample_id for d in StoredRows(config.output / "rationales" / "dropped.parquet", Dropped))


_Kept = TypeVar("_Kept", Correction, Prediction)


def _kept(config: EmitConfig, stage: str, kind: type[_Kept]) -> Iterable[_Kept]:
    return StoredRows(config.output / stage / "kept.parquet", kind) if stage in config.stages else ()


def _ask(config: EmitConfig, sources: Sources, rules: Rules, plan: Plan) -> None:
    """Leave the conflicts where a person finds them, or nothing where there are none."""
    folder = config.output / CONFLICTS
    cases = conflicts(plan, sources, rules, _ASKED)
    if cases or folder.exists():
        labels, contents = {c.sample_id: c.labels for c in cases}, {c.sample_id: content_digest(c) for c in cases}
        held, _ = usable(sources.verdicts, labels, contents)
        write_queue(cases, folder, held, title="Duplicates with different labels")
    if cases:
        get_run_logger().info(
            "%d items equal or near to others have other labels than these: judge them in %s, then: "
            "labelstill review import %s FILE", len(cases), folder / "review.html", folder.parent,
        )  # fmt: skip


def _figures(emitted: Emitted, plan: Plan, config: EmitConfig) -> dict[str, float]:
    figures = {f"from {origin}": float(n) for origin, n in sorted(emitted.origins.items())}
    return figures | {
        "with a reason": emitted.reasons,
        "near-duplicate reasons": diversity(emitted.said).near_duplicates,
        "validation": emitted.validation,
        "of or near evaluation": plan.contaminating,
        "transductive": float(config.emit.transductive),
        "left out of an export": len(emitted.exported.left_out),
    }
