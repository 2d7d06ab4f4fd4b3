"""The rationale gate on the demo: what it lets through, how alike that is, and what its questions cost.

`python tests/benchmarks/reasons.py [FOLDER]` with a finished demo in FOLDER (artifacts/demo). Asks the demo's generator
again, in a ledger of its own, in one to three attempts, with the default gate and with one that lets a class
begin alike and speak in the same words; then puts right reasons, and those of another class, to the support question;
then times `diversity`. About five minutes.
"""

import random
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))

from sklearn.metrics import roc_auc_score

from tasks.demo.dataset import draw_items
from tasks.demo.lessons import convert_to_sample, make_reason
from tasks.models.ask import Answer, Asker
from tasks.models.engines.engine import Engine, Workplace, open_engine
from tasks.models.engines.spec import EngineSpec
from tasks.models.image_cache import ImageCache
from tasks.models.ledger.ledger import Ledger
from tasks.models.settings import AskSettings
from tasks.packs.pack import load_pack
from tasks.prompts.prompter import Prompter
from tasks.rationales.diversity import measure_diversity
from tasks.rationales.gate import supports
from tasks.rationales.reasoner import Reasons, find_reasons
from tasks.rationales.settings import RationaleSettings, Support
from tasks.records import Prediction, Request, Sample, Sampling
from tasks.storage.rows import read_rows

PIXELS = 112 * 168
LOOSE = RationaleSettings(alike=0.8, opening_share=1.0)


class Bench:
    """The demo's generator, asked without Prefect."""

    def __init__(self, demo: Path, ledger: Ledger) -> None:
        self.samples = read_rows(demo / "run" / "samples" / "labelled" / "kept.parquet", Sample)
        model = max((demo / "models").glob("generator-*"), key=lambda folder: folder.stat().st_mtime)
        spec = EngineSpec(
            engine="local", model=str(model), dtype="float32", batch_size=32, min_pixels=PIXELS, max_pixels=PIXELS
        )
        self.spec = spec
        self.engine: Engine = open_engine(spec, Workplace(ImageCache(demo / "images"), demo / "logs", 4))
        self.prompter = Prompter(load_pack("demo"), model.name, max_pixels=PIXELS, min_pixels=PIXELS)
        self.asker = Asker(ledger, lambda _: self.engine, self._collect)
        self.seconds = 0.0

    def _collect(self, stream: Iterator[Answer], requests: Sequence[Request], what: str) -> list[Answer]:
        began = time.perf_counter()
        found = list(stream)
        self.seconds += time.perf_counter() - began
        return found

    def labels(self, requests: Sequence[Request]) -> list[Prediction]:
        """Predictions, timed."""
        return self.asker.ask_for_labels(requests, self.spec, "support", source="support", model="")

    def find(self, settings: RationaleSettings) -> Reasons:
        """The inside of one run of the stage."""
        self.seconds = 0.0
        return find_reasons(self.asker, self.prompter, self.samples, self.spec, settings, AskSettings(), seed=0)


def main(demo: Path) -> None:
    """Print the tables."""
    with tempfile.TemporaryDirectory() as folder, Ledger(Path(folder) / "ledger.sqlite") as ledger:
        bench = Bench(demo, ledger)
        print("| alike from | attempts | kept | near-duplicates | distinct-2 | characters | new seconds | refused |")
        for settings in (RationaleSettings(), LOOSE):
            for attempts in (1, 2, 3):
                gate(bench, settings.model_copy(update={"attempts": attempts}))
        for kind in (Support.WITH_ITEM, Support.REASON_ALONE):
            support(bench, kind)
        bench.engine.close()
    for n in (1_000, 5_000, 20_000):
        rng = random.Random(n)
        signs = [chr(0x4E00 + rank) for rank in range(2500)]
        weights = [1 / (rank + 1) for rank in range(2500)]  # Zipf's law
        texts = ["".join(rng.choices(signs, weights, k=25)) for _ in range(n // 2)]
        texts += [
            f"图中有{rng.randint(1, 999)}个{rng.choice('红橙黄绿')}色按钮和{rng.randint(1, 99)}行字" for _ in texts
        ]
        began = time.perf_counter()
        found = measure_diversity(texts)
        seconds = time.perf_counter() - began
        print(f"diversity of {n:,}: {found.near_duplicates:.3f} near-duplicates in {seconds:.1f} s", flush=True)


def gate(bench: Bench, settings: RationaleSettings) -> None:
    """One row: what passes, and how alike it is."""
    found = bench.find(settings)
    before, after = found.diversity(settings.alike)
    refused = Counter(str(d.reason) for d in found.dropped.values()).most_common(3)
    print(
        f"| {settings.alike} | {settings.attempts} | {after.count} of {len(bench.samples)} | "
        f"{before.near_duplicates:.3f} → {after.near_duplicates:.3f} | {before.distinct_2:.3f} → {after.distinct_2:.3f}"
        f" | {before.mean_chars:.1f} → {after.mean_chars:.1f} | {bench.seconds:.1f} | {dict(refused)} |",
        flush=True,
    )


def support(bench: Bench, kind: Support) -> None:
    """How well P(label) tells right reasons from those of another class; on text-only items freshly drawn."""
    pack = bench.prompter.pack
    drawn = [item for item in draw_items(600, 5, image_share=0.0) if not item.images]
    samples = [convert_to_sample(item, pack) for item in drawn]
    rng = random.Random(0)
    bench.seconds = 0.0
    scores: list[float] = []
    led: list[float] = []
    for right in (True, False):
        requests: list[Request] = []
        for item, sample in zip(drawn, samples, strict=True):
            source = item if right else rng.choice([other for other in drawn if other.label != item.label])
            shown = sample if kind is Support.WITH_ITEM else sample.model_copy(update={"parts": ()})
            sampling = Sampling(max_tokens=1, label_probabilities=True)
            requests.append(bench.prompter.conclude(shown, make_reason(source), sampling))
        given = {item.id: item.label for item in drawn}
        answers = bench.labels(requests)
        scores += [p.probabilities[given[p.sample_id]] for p in answers]
        led.append(sum(supports(p, given[p.sample_id]) is True for p in answers) / len(answers))
    area = roc_auc_score([1] * len(drawn) + [0] * len(drawn), scores)
    print(
        f"support {kind}: leads to the label {led[0]:.3f} of right and {led[1]:.3f} of foreign reasons; "
        f"area under ROC {area:.2f}; {1000 * bench.seconds / len(scores):.0f} ms each",
        flush=True,
    )


if __name__ == "__main__":
    demo = Path(sys.argv[1] if len(sys.argv) > 1 else "artifacts/demo")
    if (demo / "run/rationales/record.json").exists():
        main(demo)
    else:
        print(f"no finished demo in {demo} (make demo): skipped")
