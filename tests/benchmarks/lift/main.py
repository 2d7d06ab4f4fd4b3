"""Is the student better? The demo's student on each variant of the demo's set, five seeds, held-out accuracy.

`make bench-lift` runs the demo first (artifacts/demo), which takes 40 s where nothing changed. Goal: `all` at
least 5 points above `raw` and at least 60 % of the way to `ceiling`, no single step below `raw` by more than its
interval.
"""

import argparse
import os
import time
from pathlib import Path

from flows.service.server import apply_environment

apply_environment()

from flows.service.server import find_or_start_server  # noqa: E402
from tasks.demo.settings import DemoConfig  # noqa: E402

STEPS = 100


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=STEPS)
    parser.add_argument("--output", type=Path, default=DemoConfig().output)
    options = parser.parse_args()
    began = time.monotonic()
    find_or_start_server()
    from flows.demo import demo, make_demo_config, train_models, write_data
    from flows.evaluate import STAGE, evaluate
    from tasks.evaluation.scores import Scored
    from tasks.evaluation.settings import EvaluateSettings
    from tasks.evaluation.table import describe, make_report
    from tasks.storage.rows import read_rows

    config = DemoConfig(output=options.output)
    demo(config)
    made = time.monotonic() - began
    paths = write_data(config)
    at_once = os.cpu_count() or 1
    settings = EvaluateSettings(seeds=options.seeds, steps=options.steps, parallel=at_once, truth=paths.truth)
    run = make_demo_config(config, paths, train_models(config))
    loaded = run.make_evaluate_config().model_copy(update={"evaluate": settings})
    evaluate(loaded)
    print(describe(make_report(read_rows(loaded.output / STAGE / "kept.parquet", Scored))))
    print(f"{made:.0f} s for the demo's run, {time.monotonic() - began - made:.0f} s for the students")


if __name__ == "__main__":
    main()
