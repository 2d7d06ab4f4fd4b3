"""The demo: makes its data and its tiny Qwen2-VL models, runs `distill` on them, and compares with the truth."""

import resource
import time
from contextlib import ExitStack
from pathlib import Path

from prefect import flow, get_run_logger
from prefect.artifacts import create_markdown_artifact

from flows.config import DemoConfig, DistillConfig
from flows.distill import distill
from flows.run_lock import hold_output
from flows.stage import run_as_task
from flows.ui import Progress
from tasks.correction.settings import CorrectionSettings, ReviewerConfig
from tasks.dataset.settings import EmitSettings, ExportSpec
from tasks.demo.dataset import DemoPaths, write_demo
from tasks.demo.evaluation import describe, evaluate_demo
from tasks.demo.tiny_models import TinyModels, make_models
from tasks.models.engines.spec import EngineSpec
from tasks.pseudo_labels.settings import PseudoLabelSettings
from tasks.rationales.settings import RationaleSettings
from tasks.report.summary import run_summary
from tasks.students.settings import StudentSpec

_PIXELS = 112 * 168
"""The demo's screens are drawn at this size, so that the models see them as they are."""


@flow(name="demo", flow_run_name="demo: seed {config.seed}", timeout_seconds=6 * 3600)
@hold_output
def demo(config: DemoConfig) -> str:
    """Run the whole way on synthetic shop screens and dialogues; returns the summary it prints, as Markdown."""
    began = time.monotonic()
    log = get_run_logger()
    paths = run_as_task("demo data", "draw screens and dialogues", lambda: write_data(config))
    models = run_as_task("demo models", "train base, teacher and generator", lambda: train_models(config))
    run = make_demo_config(config, paths, models)
    distill(run)
    figures = evaluate_demo(run.output, paths.truth)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20  # Linux counts KiB
    cost = f"{time.monotonic() - began:.0f} s in all, peak memory of this process {peak:.1f} GiB"
    text = f"{run_summary(run.output)}\n{describe(figures)}\n\n{cost}\n"
    create_markdown_artifact(text, key="demo-summary", description="The demo's run against the truth")
    log.info("summary\n%s", text)
    return text


def make_demo_config(config: DemoConfig, paths: DemoPaths, models: TinyModels) -> DistillConfig:
    """The configuration that the demo runs `distill` with."""
    local = {"engine": "local", "dtype": "float32", "batch_size": 32, "min_pixels": _PIXELS, "max_pixels": _PIXELS}
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
            epochs=6 * config.training,
            batch_size=16,
            gradient_accumulation=1,
            learning_rate=4e-3,
            lora_rank=16,
            lora_alpha=32,
            gradient_checkpointing=False,
            dtype="float32",
            scoring_batch_size=32,
            scoring_engine="local",  # a vLLM takes longer to start than these take to answer
            min_pixels=_PIXELS,
            max_pixels=_PIXELS,
        ),
        # a model of this size begins every reason alike, and knows few words
        rationales=RationaleSettings(attempts=3, alike=0.8, opening_share=1.0),
        # a model of this size words its reasons loosely: cooler and more votes than the default
        pseudo_labels=PseudoLabelSettings(votes=5, temperature=0.4),
        correction=CorrectionSettings(
            votes=5,
            temperature=0.4,
            review_budget=config.review_budget,
            audit=2 * config.review_budget // 3,
            reviewer=ReviewerConfig(kind="demo_stand_in", path=paths.truth),
        ),
        emit=EmitSettings(
            name="demo",
            licence="Apache-2.0",
            # so small a student can't do both: taught all reasons it is right about half of the time, and the labelled
            # set with 15 % of them left it 8.8 points below the same set without any
            reason_share=0.05,
            export=ExportSpec(base=str(models.base), min_pixels=_PIXELS, max_pixels=_PIXELS),
        ),
        output=config.output / "run",
        ledger=config.output / "ledger.sqlite",
        images=config.output / "images",
        texts=config.output / "texts",
        shard_size=100,  # some 10 s a shard: shorter than on real data, so that there is something to watch
        seed=config.seed,
    )


def write_data(config: DemoConfig) -> DemoPaths:
    """Draw the demo's screens and dialogues, or find them as they were drawn before."""
    return write_demo(Path(config.output) / "data", config.seed, labelled=config.labelled, unlabelled=config.unlabelled)


def train_models(config: DemoConfig) -> TinyModels:
    """Train the demo's models, or find them as they were trained before."""
    bars: dict[str, Progress] = {}
    with ExitStack() as under_way:

        def moved(name: str, step: int, steps: int, loss: float) -> None:
            if name not in bars:
                bars[name] = under_way.enter_context(Progress("models", f"train {name}", steps))
            bars[name].move_to(step)

        return make_models(Path(config.output) / "models", progress=moved, scale=config.training)
