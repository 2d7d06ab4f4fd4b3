"""The rationale gate on the demo: what it lets through, how alike that is, and what each of its questions costs.

`python -m tests.benchmarks.reasons FOLDER` with a finished demo in FOLDER (artifacts/demo). Asks the demo's generator
anew, in a ledger of its own, with one to four attempts and with and without support; then swaps reasons between classes
and counts how many of these the support question finds; then times `near_pairs`.
"""

import random
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from tasks.alikeness import near_pairs
from tasks.asking import ask, ask_for_labels
from tasks.costs import Tally
from tasks.engines import Engine, EngineSpec, Workplace, open_engine
from tasks.images import ImageCache
from tasks.ledger import Ledger
from tasks.packs import load_pack
from tasks.prompts import Prompter
from tasks.rationale_gate import supports
from tasks.rationales import Asked, Reasoner, Reasons
from tasks.records import Generation, Prediction, Request, Sample, Sampling
from tasks.stages import read_rows

PIXELS = 112 * 168


class Bench:
    """The demo's generator, asked without Prefect."""

    def __init__(self, demo: Path, ledger: Ledger) -> None:
        self.samples = read_rows(demo / "run" / "samples" / "labelled" / "kept.parquet", Sample)
        model = next((demo / "models").glob("generator-*"))
        spec = EngineSpec(
            engine="local", model=str(model), dtype="float32", batch_size=32, min_pixels=PIXELS, max_pixels=PIXELS
        )
        place = Workplace(ImageCache(demo / "images"), demo / "logs", 4)
        self.engine: Engine = open_engine(spec, place)
        self.prompter = Prompter(load_pack("demo"), model.name, max_pixels=PIXELS, min_pixels=PIXELS)
        self.ledger, self.seconds = ledger, Counter[str]()

    def answers(self, requests: Sequence[Request], what: str) -> dict[str, Generation]:
        """By key, timed."""
        began = time.perf_counter()
        found = {r.key: g for r, g in ask(lambda: self.engine, self.ledger, requests, Tally())}
        self.seconds["reasons"] += time.perf_counter() - began
        return found

    def labels(self, requests: Sequence[Request], what: str) -> list[Prediction]:
        """Predictions, timed."""
        began = time.perf_counter()
        asked = ask_for_labels(
            lambda: self.engine, self.ledger, requests, Tally(), source="support", model="", attempts=1
        )
        found = list(asked)
        self.seconds["support"] += time.perf_counter() - began
        return found

    def find(self, asked: Asked) -> Reasons:
        """One run of the stage's inside."""
        self.seconds.clear()
        return Reasoner(self.prompter, asked, self.answers, self.labels).find(self.samples)


def main(demo: Path) -> None:
    """Print the tables."""
    with tempfile.TemporaryDirectory() as folder, Ledger(Path(folder) / "ledger.sqlite") as ledger:
        bench = Bench(demo, ledger)
        print(
            "| attempts | support | kept of | near-duplicates | distinct-2 | characters | seconds: reasons, support |"
        )
        for attempts, support in ((1, False), (1, True), (2, True), (3, True), (4, True)):
            found = bench.find(Asked(attempts=attempts, support=support))
            before, after = found.diversity(0.8)
            print(
                f"| {attempts} | {support} | {after.count} of {before.count} | {before.near_duplicates:.3f} → "
                f"{after.near_duplicates:.3f} | {before.distinct_2:.3f} → {after.distinct_2:.3f} | "
                f"{before.mean_chars:.1f} → {after.mean_chars:.1f} | {bench.seconds['reasons']:.1f}, "
                f"{bench.seconds['support']:.1f} |"
            )
        print("last refusals:", dict(Counter(d.reason for d in found.dropped.values())))
        print("first refusals:", dict(found.first_faults))
        swapped(bench, found)
        bench.engine.close()
    for n in (1_000, 5_000, 20_000):
        rng = random.Random(n)
        texts = ["".join(rng.choice("的一是在不了有和人这中大为上个国") for _ in range(25)) for _ in range(n // 2)]
        texts += [
            f"图中有{rng.randint(1, 999)}个{rng.choice('红橙黄绿')}色按钮和{rng.randint(1, 99)}行字" for _ in texts
        ]
        began = time.perf_counter()
        pairs = near_pairs(texts, 0.8)
        print(f"near_pairs of {n:,}: {len(pairs):,} pairs in {time.perf_counter() - began:.1f} s")


def swapped(bench: Bench, found: Reasons) -> None:
    """How many reasons of another class's item the support question finds, with the item before it and without."""
    by_id = {s.id: s for s in bench.samples}
    rng = random.Random(0)
    first = list(found.first.items())
    foreign: list[tuple[Sample, str]] = []
    for sample_id, _ in first:
        sample = by_id[sample_id]
        others = [r for i, r in first if by_id[i].task == sample.task and by_id[i].given != sample.given]
        foreign.append((sample, rng.choice(others)))
    own = [(by_id[i], reason) for i, reason in first]
    for name, pairs in (("own", own), ("of another class", foreign)):
        for shown in (True, False):
            sampling = Sampling(max_tokens=1, label_probabilities=True)
            asked = [s if shown else s.model_copy(update={"parts": ()}) for s, _ in pairs]
            requests = [bench.prompter.conclude(s, r, sampling) for s, (_, r) in zip(asked, pairs, strict=True)]
            given = {s.id: s.given or "" for s, _ in pairs}
            answers = bench.labels(requests, "support")
            led = sum(supports(p, given[p.sample_id]) is True for p in answers) / len(answers)
            print(f"reason {name}, item {'shown' if shown else 'not shown'}: leads to the label {led:.3f}")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
