"""The fold students of a finished `make demo`: all by one vLLM server against the local engine, label for label."""

import json
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))

from tasks.models.engines.engine import Workplace
from tasks.models.engines.local.engine import LocalEngine
from tasks.models.engines.spec import EngineSpec
from tasks.models.engines.vllm.engine import VllmEngine
from tasks.models.image_cache import ImageCache
from tasks.packs.pack import load_pack
from tasks.prompts.parsing import parse
from tasks.prompts.prompter import Prompter
from tasks.records import Request, Sample, Sampling
from tasks.storage.rows import read_rows

GOAL = 0.98
PIXELS = 112 * 168


def base_of(demo: Path) -> Path:
    """The checkpoint that the students were trained on."""
    facts = next((demo / "run/correction/students").glob("*/student.json"))
    return demo / "models" / Path(json.loads(facts.read_text("utf-8"))["spec"]["base"]).name


def questions(run: Path) -> dict[Path, list[Request]]:
    """By student: the label questions about the items of its own fold, as the demo asks them."""
    samples = read_rows(run / "samples/labelled/kept.parquet", Sample)
    fold_of = json.loads((run / "correction/folds.json").read_text("utf-8"))["fold_of"]
    prompter = Prompter(load_pack("demo"), "any", max_pixels=PIXELS, min_pixels=PIXELS)
    sampling = Sampling(label_probabilities=True, max_tokens=8)
    found: dict[Path, list[Request]] = {}
    for facts in sorted((run / "correction/students").glob("*/student.json")):
        student = json.loads(facts.read_text("utf-8"))
        saw, fold = set(student["trained_on"]), student["fold"]
        mine = [s for s in samples if fold_of.get(s.id) == fold]
        if mine and not saw & {s.id for s in mine}:
            found[facts.parent] = [prompter.classify(s, sampling, with_reason=False) for s in mine]
    return found


def main(demo: Path) -> int:
    """Print agreement and seconds; 0 if met or there is no demo to measure."""
    students = demo / "run/correction/students"
    if not students.exists():
        print(f"no finished demo in {demo}: run `make demo` first; skipped")
        return 0
    asked = questions(demo / "run")
    common = {"model": str(base_of(demo)), "dtype": "float32", "min_pixels": PIXELS, "max_pixels": PIXELS}
    adapters = tuple(map(str, asked))
    place = Workplace(ImageCache(demo / "images"), demo / "logs", most_images=4)
    started = time.monotonic()
    served = VllmEngine(EngineSpec(engine="vllm", adapter=adapters[0], adapters=adapters, **common), place)
    print(f"one vLLM with {len(adapters)} adapters ready after {time.monotonic() - started:.0f} s", flush=True)
    same = total = 0
    try:
        for folder, requests in asked.items():
            served.switch_adapter(str(folder))
            local = LocalEngine(EngineSpec(engine="local", adapter=str(folder), batch_size=32, **common), place)
            theirs = {g.key: g for g in served.generate(requests)}
            ours = {g.key: g for g in local.generate(requests)}
            local.close()
            labels = [[parse(r, g[r.key], source="student", model="m").label for r in requests] for g in (theirs, ours)]
            agreed = sum(a is not None and a == b for a, b in zip(*labels, strict=True))
            print(f"  {folder.name}: {agreed} of {len(requests)} labels equal", flush=True)
            same, total = same + agreed, total + len(requests)
    finally:
        served.close()
    share = same / max(total, 1)
    met = "met" if total and share >= GOAL else "NOT MET"
    print(f"{same} of {total} out-of-fold labels equal: {share:.1%} (goal ≥ {GOAL:.0%}): {met}")
    return 0 if met == "met" else 1


if __name__ == "__main__":
    raise SystemExit(main(Path(sys.argv[1]) if len(sys.argv) > 1 else Path("artifacts/demo")))
