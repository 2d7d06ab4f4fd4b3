"""The demo: make data and tiny Qwen2-VL models, run `distill` on them, and compare the result with the true labels."""

import os
import resource
import time
from contextlib import ExitStack
from pathlib import Path

from prefect import flow, get_run_logger
from prefect.artifacts import create_markdown_artifact

from flows.config import DistillConfig
from flows.distill import distill
from flows.run_lock import hold_output
from flows.stage import run_as_task
from flows.ui import Progress
from tasks.correction.settings import CorrectionSettings
from tasks.dataset.settings import EmitSettings, ExportSpec
from tasks.demo.dataset import DemoPaths, write_demo
from tasks.demo.evaluation import compare_with_truth
from tasks.demo.settings import DemoConfig
from tasks.demo.tiny_models import TinyModels, make_models
from tasks.models.engines.spec import EngineSpec
from tasks.models.settings import AskSettings
from tasks.rationales.settings import RationaleSettings
from tasks.report.summary import summarize_run
from tasks.students.settings import ScoringSettings, StudentSpec

_PIXELS = 112 * 168
"""Size of the demo's screens in pixels. It is also the models' limit, so no screen is resized."""


@flow(name="labelstill-demo", flow_run_name="demo: seed {config.seed}", timeout_seconds=6 * 3600)
@hold_output
def demo(config: DemoConfig) -> str:
    """Run all stages on synthetic shop screens and dialogues, and return the summary as text."""
    began = time.monotonic()
    paths = run_as_task("demo data", "draw screens and dialogues", lambda: write_data(config))
    models = run_as_task("demo models", "train base, teacher and generator", lambda: train_models(config))
    run = make_demo_config(config, paths, models)
    distill(run)
    summary = summarize_run(run.output, run.emit.licence, compare_with_truth(run.output, paths.truth))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20  # Linux counts KiB
    cost = f"{time.monotonic() - began:.0f} s in total, peak memory of this process {peak:.1f} GiB"
    markdown = f"{summary.to_markdown()}\n\n{cost}\n"
    create_markdown_artifact(markdown, key="demo-summary", description="The demo's results and the true labels")
    get_run_logger().info("%s", cost)
    text = summary.to_text()
    return text


def make_demo_config(config: DemoConfig, paths: DemoPaths, models: TinyModels) -> DistillConfig:
    """Return the configuration that the demo runs `distill` with."""
    local = {"engine": "local", "dtype": "float32", "batch_size": 32}
    return DistillConfig(
        pack="demo",
        labelled=paths.labelled,
        unlabelled=paths.unlabelled,
        evaluation=paths.test,
        generator=EngineSpec(model=str(models.generator), **local),  # pyright: ignore
        teacher=EngineSpec(model=str(models.teacher), **local),  # pyright: ignore
        student=StudentSpec(
            base=str(models.base),
            folds=config.folds,
            parallel=min(config.folds, os.cpu_count() or 1),
            epochs=6 * config.training,
            batch_size=16,
            gradient_accumulation=1,
            learning_rate=4e-3,
            lora_rank=16,
            gradient_checkpointing=False,
            # vLLM takes longer to start than these models take to answer
            scoring=ScoringSettings(engine="local", batch_size=32),
        ),
        # A model of this size begins every reason alike and uses few words.
        rationales=RationaleSettings(alike=0.8, opening_share=1.0),
        # A model of this size is inconsistent: use a lower temperature and more votes than by default.
        ask=AskSettings(votes=5, temperature=0.4, attempts=3),
        correction=CorrectionSettings(
            review_budget=config.review_budget,
            audit=2 * config.review_budget // 3,
            stand_in=paths.truth,
        ),
        emit=EmitSettings(
            name="demo",
            licence="Apache-2.0",
            # So small a student cannot learn both: trained on all reasons it is right about half of the time, and with
            # reasons on 15 % of the labelled set it was 8.8 points below the same set without reasons.
            reason_share=0.05,
            export=ExportSpec(base=str(models.base)),
        ),
        output=config.output / "run",
        ledger=config.output / "ledger.sqlite",
        images=config.output / "images",
        texts=config.output / "texts",
        # tests train the models so little that most answers are unusable
        max_failed_share=1.0 if config.training < 1 else 0.1,
        shard_size=100,  # about 10 s per shard: shorter than on real data, so that progress can be watched
        min_pixels=_PIXELS,
        max_pixels=_PIXELS,
        seed=config.seed,
    )


def write_data(config: DemoConfig) -> DemoPaths:
    """Draw the demo's screens and dialogues, or reuse those of an earlier run."""
    return write_demo(Path(config.output) / "data", config.seed, labelled=config.labelled, unlabelled=config.unlabelled)


def train_models(config: DemoConfig) -> TinyModels:
    """Train the demo's models, or reuse those of an earlier run."""
    bars: dict[str, Progress] = {}
    with ExitStack() as stack:

        def show_step(name: str, step: int, steps: int, loss: float) -> None:
            if name not in bars:
                bars[name] = stack.enter_context(Progress("models", f"training {name}", steps))
            bars[name].move_to(step)

        return make_models(Path(config.output) / "models", progress=show_step, scale=config.training)
