"""Stage 2: the teacher labels the unlabelled pool; what can be trusted is kept."""

import time

from prefect import flow

from flows.asking import Asking
from flows.config import PseudoLabelsConfig
from flows.running import Stage, intake, most_images, prompter_for, reused
from flows.teacher import teacher_labels
from tasks.engines.identity import model_identity
from tasks.ledger import Ledger
from tasks.packs import load_pack
from tasks.records import Split
from tasks.stages import StageRecord, code_version, recipe_hash, write_rows
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
        pixels=[config.teacher.min_pixels, config.teacher.max_pixels], context=config.teacher.context_length,
    )  # fmt: skip
    if (record := reused(folder, recipe)) is not None:
        return record
    stage = Stage(STAGE, folder, recipe, {"samples": read.digest}, {"teacher": model}, began)
    prompter = prompter_for(config, pack, model, config.teacher, samples)
    with Ledger(config.ledger) as ledger, Asking(config, STAGE, ledger, most_images(samples)) as asking:
        predictions = teacher_labels(
            asking, prompter, samples, config.teacher, settings, config.seed, "teacher labels the pool"
        )
        costs = asking.costs()
    kept, dropped = keep_trusted(predictions, settings.target_precision, STAGE)
    folder.mkdir(parents=True, exist_ok=True)
    write_rows(folder / "predictions.parquet", predictions)
    figures = {"expected precision": sum(map(confidence, kept)) / max(len(kept), 1)}
    return stage.finish(kept, dropped, (s.id for s in samples), figures, costs)
