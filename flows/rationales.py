"""Stage 1: a generator is shown each labelled item with its label and says why (reason first, label second)."""

import time
from collections.abc import Sequence

from prefect import flow

from flows.asking import Asking
from flows.config import RationalesConfig
from flows.running import Stage, intake, most_images, prompter_for, reused
from tasks.engines.identity import model_identity
from tasks.ledger import Ledger
from tasks.packs import load_pack
from tasks.parsing import parse_reason
from tasks.prompts import Prompter
from tasks.rationale_gate import judge_reason
from tasks.records import USABLE, Dropped, Outcome, Prediction, Sample, Sampling, Split
from tasks.stages import StageRecord, code_version, recipe_hash

STAGE = "rationales"

_RETRY_TEMPERATURE = 0.8
"""A greedy answer asked again would come out the same."""

_HOPELESS = {Outcome.BAD_MEDIA, Outcome.TOO_LONG}


@flow(name="rationales", flow_run_name="rationales: {config.pack}", validate_parameters=True)
def rationales(config: RationalesConfig) -> StageRecord:
    """Write a reason for each labelled item under `output`/rationales.

    Kept: predictions whose label is the given one and whose reason passed the gate. Dropped items stay in the training
    set, without a reason.
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
    stage = Stage(STAGE, folder, recipe, {"samples": read.digest}, {"generator": model}, began)
    prompter = prompter_for(config, pack, model, config.generator, samples)
    kept: list[Prediction] = []
    refused: dict[str, Dropped] = {}
    with Ledger(config.ledger) as ledger, Asking(config, STAGE, ledger, most_images(samples)) as asking:
        waiting: Sequence[Sample] = samples
        for attempt in range(config.rationales.attempts):
            waiting = _attempt(config, prompter, asking, waiting, attempt, kept, refused)
        costs = asking.costs()
    good = {p.sample_id for p in kept}
    dropped = [refused[s.id] for s in samples if s.id not in good]
    figures = {"distinct reasons": len({p.reason for p in kept}) / max(len(kept), 1)}
    return stage.finish(kept, dropped, (s.id for s in samples), figures, costs)


def _attempt(
    config: RationalesConfig,
    prompter: Prompter,
    asking: Asking,
    samples: Sequence[Sample],
    attempt: int,
    kept: list[Prediction],
    refused: dict[str, Dropped],
) -> list[Sample]:
    """Ask once for each of `samples`; good reasons go to `kept`; returns the samples whose reason was refused."""
    settings = config.rationales
    temperature = settings.temperature if attempt == 0 else max(settings.temperature, _RETRY_TEMPERATURE)
    sampling = Sampling(temperature=temperature, max_tokens=settings.max_tokens, seed=config.seed + attempt)
    requests = [prompter.rationale(s, s.given or "", sampling) for s in samples]
    what = "reasons" if attempt == 0 else f"reasons, attempt {attempt + 1}"
    answers = asking.answers(requests, config.generator, what)
    again: list[Sample] = []
    for sample, request in zip(samples, requests, strict=True):
        outcome, reason = parse_reason(request, answers[request.key])
        label = sample.given or ""
        bad = judge_reason(reason, sample, label, prompter.pack.reason_max_chars) if outcome in USABLE else outcome
        if bad is None:
            kept.append(
                Prediction(
                    sample_id=sample.id,
                    source="rationale",
                    outcome=outcome,
                    label=label,
                    reason=reason,
                    model=prompter.model,
                )
            )
            continue
        detail = reason or answers[request.key].detail
        refused[sample.id] = Dropped(sample_id=sample.id, stage=STAGE, reason=bad, detail=detail)
        if bad not in _HOPELESS:
            again.append(sample)
    return again
