"""Is the student better? The demo's student on each variant of the demo's set, five seeds, held-out accuracy.

The fold students are trained once per seed too: as repeats of the folds, for as many steps as the others.

`make bench-lift` runs the demo first (artifacts/demo), which takes 40 s where nothing changed. On two cores, the ten
variants take about an hour, and `ARGS="--variants raw all soft ensemble fused"` about 35 minutes. Goal: `all` at
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
from tasks.records import Sample  # noqa: E402
from tasks.storage.rows import read_rows  # noqa: E402
from tasks.students.folds import make_folds, read_folds, write_folds  # noqa: E402
from tasks.students.settings import StudentSpec  # noqa: E402

STEPS = 100
EVERY = ("raw", "rationales", "pseudo", "corrected", "all", "soft", "phased", "ensemble", "fused", "ceiling")


def write_missing_folds(output: Path, student: StudentSpec) -> None:
    """Split the labelled set for the repeats that the run has not made."""
    samples = read_rows(output / "samples" / "labelled" / "kept.parquet", Sample)
    for repeat in range(student.repeats):
        if read_folds(output / "correction", repeat, student.folds) is None:
            split = make_folds(samples, student.folds, student.seed, repeat=repeat)
            write_folds(split, output / "correction", repeat)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=STEPS)
    parser.add_argument("--variants", nargs="*", default=list(EVERY))
    parser.add_argument("--output", type=Path, default=DemoConfig().output)
    options = parser.parse_args()
    began = time.monotonic()
    find_or_start_server()
    from flows.demo import demo, make_demo_config, train_models, write_data
    from flows.evaluate import STAGE, evaluate
    from tasks.evaluation.scores import Scored, measure_lift
    from tasks.evaluation.settings import EvaluateSettings
    from tasks.evaluation.table import describe, format_points, make_report
    from tasks.evaluation.variants import Variant

    config = DemoConfig(output=options.output)
    demo(config)
    made = time.monotonic() - began
    paths = write_data(config)
    at_once = os.cpu_count() or 1
    settings = EvaluateSettings(seeds=options.seeds, truth=paths.truth, variants=options.variants)
    run = make_demo_config(config, paths, train_models(config))
    loaded = run.make_evaluate_config()
    changes = {"steps": options.steps, "parallel": at_once, "loss": "soft", "repeats": options.seeds}
    student = loaded.student.model_copy(update=changes)
    loaded = loaded.model_copy(update={"evaluate": settings, "student": student})
    write_missing_folds(loaded.output, student)
    evaluate(loaded)
    rows = read_rows(loaded.output / STAGE / "kept.parquet", Scored)
    print(describe(make_report(rows)))
    answers = {variant: [row for row in rows if row.variant == variant] for variant in Variant}
    for base, variant in ((Variant.ALL, Variant.SOFT), (Variant.ENSEMBLE, Variant.FUSED), (Variant.RAW, Variant.FUSED)):
        if answers[base] and answers[variant]:
            lift = measure_lift(base, answers[base], variant, answers[variant])
            print(f"{variant} against {base}: {format_points(lift.points)} points")
    print(f"{made:.0f} s for the demo's run, {time.monotonic() - began - made:.0f} s for the students")


if __name__ == "__main__":
    main()
