"""A small real run of `distill`: scripted generator and teacher, real folds, real LoRA students on an untrained base.

`python -m tests.flows.small_run FOLDER` runs it as a process of its own, so that tests can kill it.
"""

import sys
from pathlib import Path
from typing import Any

from flows.service.server import apply_environment

apply_environment()

from filelock import FileLock  # noqa: E402

from flows.config import DistillConfig  # noqa: E402
from tasks.correction.settings import CorrectionSettings  # noqa: E402
from tasks.demo.checkpoint import write_checkpoint  # noqa: E402
from tasks.demo.dataset import draw_items, write_demo  # noqa: E402
from tasks.items.settings import SourceConfig  # noqa: E402
from tasks.models.engines.spec import EngineSpec  # noqa: E402
from tasks.students.settings import ScoringSettings, StudentSpec  # noqa: E402

PIXELS = 112 * 168


def small_config(folder: Path, *, items: int = 60, slow: float = 0.0) -> DistillConfig:
    """The configuration of the small run; its data and base are made once under `folder`/shared."""
    shared = folder / "shared"
    shared.mkdir(parents=True, exist_ok=True)
    with FileLock(shared / ".lock"):
        paths = write_demo(shared / f"data{items}", labelled=items, unlabelled=items, test=20)
        base = shared / "base"
        if not base.exists():
            write_checkpoint(base, [item.instruction for item in draw_items(60, seed=3)])
    script = f"scripted:hash,slow={slow}"
    return DistillConfig(
        pack="demo",
        labelled=SourceConfig(manifest=paths.labelled.manifest, images=paths.labelled.images),
        unlabelled=SourceConfig(manifest=paths.unlabelled.manifest, images=paths.unlabelled.images),
        generator=EngineSpec(engine="scripted", model=script),
        teacher=EngineSpec(engine="scripted", model=script),
        student=StudentSpec(
            base=str(base),
            folds=2,
            epochs=1,
            batch_size=10,
            gradient_accumulation=1,
            gradient_checkpointing=False,
            scoring=ScoringSettings(engine="local"),
        ),
        correction=CorrectionSettings(review_budget=20, stand_in=paths.truth),
        min_pixels=PIXELS,
        max_pixels=PIXELS,
        output=folder / "run",
        ledger=folder / "ledger.sqlite",
        images=folder / "images",
        texts=folder / "texts",
        shard_size=20,
    )


def dump_config(config: DistillConfig) -> dict[str, Any]:
    """The configuration as a user would write it, in JSON: without the simulated reviewer."""
    return config.model_dump(mode="json", exclude={"correction": {"stand_in"}})


if __name__ == "__main__":
    from flows.distill import distill

    distill(small_config(Path(sys.argv[1]), slow=float(sys.argv[2]) if len(sys.argv) > 2 else 0.0))
