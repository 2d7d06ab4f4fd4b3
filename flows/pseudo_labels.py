"""Stage 2: the teacher labels the unlabelled pool; what can be trusted is kept."""

import time

from prefect import flow

from flows.config import PseudoLabelsConfig
from flows.running import Asking, intake, reused, show_counts
from tasks.engines.identity import model_identity
from tasks.ledger import Ledger
from tasks.packs import load_pack
from tasks.parsing import parse
from tasks.prompts import Prompter
from tasks.records import Split
from tasks.stages import StageRecord, code_version, recipe_hash, write_rows, write_stage
from tasks.trust import confidence, keep_trusted

STAGE = "pseudo_labels"


@flow(name="pseudo-labels", flow_run_name="pseudo-labels: {config.pack}")
def pseudo_labels(config: PseudoLabelsConfig) -> StageRecord:
    """Label the pool under `output`/pseudo_labels.

    Kept: the trusted predictions; predictions.parquet beside them holds all, kept or not.
    """
    began = time.monotonic()
    pack = load_pack(config.pack)
    samples, read = intake(config.unlabelled, pack, Split.UNLABELLED, config.output)
    model = model_identity(config.teacher)
    folder = config.output / STAGE
    settings = config.pseudo_labels
    recipe = recipe_hash(
        settings=settings, pack=pack.digest, model=model, input=read.digest, code=code_version(), seed=config.seed,
        pixels=[config.teacher.min_pixels, config.teacher.max_pixels],
    )  # fmt: skip
    if (record := reused(folder, recipe)) is not None:
        return record
    prompter = Prompter(pack, model, max_pixels=config.teacher.max_pixels, min_pixels=config.teacher.min_pixels)
    sampling = settings.sampling(config.seed)
    requests = [prompter.classify(s, sampling) for s in samples]
    with Ledger(config.ledger) as ledger, Asking(config, STAGE, ledger) as asking:
        answers = asking.answers(requests, config.teacher, "teacher labels the pool")
    predictions = [parse(r, answers[r.key], source="teacher", model=model) for r in requests]
    kept, dropped = keep_trusted(predictions, settings.target_precision, STAGE)
    folder.mkdir(parents=True, exist_ok=True)
    write_rows(folder / "predictions.parquet", predictions)
    record = StageRecord(
        stage=STAGE,
        recipe=recipe,
        read=0,
        kept=0,
        dropped=0,
        inputs={"samples": read.digest},
        models={"teacher": model},
        seconds=time.monotonic() - began,
        asked=asking.tally.asked,
        reused=asking.tally.reused,
        tokens_in=asking.tally.tokens_in,
        tokens_out=asking.tally.tokens_out,
        figures={"expected precision": sum(map(confidence, kept)) / max(len(kept), 1)},
    )
    record = write_stage(folder, record, kept, dropped, [s.id for s in samples])
    show_counts(record)
    return record
