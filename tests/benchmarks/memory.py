"""Peak memory of labelling a pool with 1,000,000 scripted items against one with 10,000. Goal: at most 1.2 times.

Each size is a process of its own that does what the pool's stage does between reading samples and judging predictions:
render requests, look them up, ask, keep the answers in a ledger, parse, write predictions. Samples come from a
generator, so that what is measured is the asking and not the list of samples.
"""

import argparse
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT))

GOAL = 1.2


def label_pool(items: int) -> None:
    """Label `items` scripted items; prints seconds and peak resident memory (MiB)."""
    from tasks.models.ask import stream_answers, stream_labels
    from tasks.models.costs import Tally
    from tasks.models.engines.scripted import ScriptedEngine
    from tasks.models.engines.spec import EngineSpec
    from tasks.models.ledger.ledger import Ledger
    from tasks.records import Prediction, Request, Sampling
    from tasks.storage.rows import RowWriter
    from tests.tasks.making import prompter, sample

    prompts, sampling, tally = prompter(), Sampling(label_probabilities=True), Tally()

    def requests() -> Iterator[Request]:
        for number in range(items):
            yield prompts.classify(sample(f"item-{number}", f"用户: item-{number} 什么时候发货"), sampling)

    began = time.monotonic()
    engine = ScriptedEngine(EngineSpec(engine="scripted", model="scripted:hash"))
    with tempfile.TemporaryDirectory() as folder, Ledger(Path(folder) / "ledger.sqlite") as ledger:
        with RowWriter(Path(folder) / "predictions.parquet", Prediction) as written:
            asking = partial(stream_answers, lambda: engine, ledger, tally=tally)
            for prediction in stream_labels(asking, requests(), source="teacher", model="m", attempts=2):
                written.write(prediction)
        assert len(ledger) == tally.asked == items
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(f"{time.monotonic() - began:.1f} {peak:.1f}")


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--items", type=int)
    parser.add_argument("--sizes", type=int, nargs=2, default=(10_000, 1_000_000))
    given = parser.parse_args()
    if given.items:
        label_pool(given.items)
        return
    peaks: list[float] = []
    for items in given.sizes:
        command = [sys.executable, __file__, "--items", str(items)]
        seconds, peak = map(float, subprocess.run(command, cwd=ROOT, capture_output=True, check=True).stdout.split())
        peaks.append(peak)
        print(f"{items:>9,} items: peak {peak:.0f} MiB, {seconds:.0f} s, {items / seconds:,.0f} items/s", flush=True)
    ratio = peaks[1] / peaks[0]
    print(f"ratio {ratio:.2f}, goal ≤ {GOAL}: {'met' if ratio <= GOAL else 'NOT MET'}")


if __name__ == "__main__":
    main()
