"""The OCR reader beside RapidOCR's default settings, on drawn screens that are hard to read and whose text is known.

Both read each screen in turn, in one process with one thread. Printed per kind of screen: the ratio of CPU seconds, and
the share of pairs of adjacent characters that each found. Goal: at most .45 of the CPU seconds, with at least .97 of
the drawn pairs that the default settings find, .99 on tall screens. `--folder` compares the two on images of your own,
where the truth is unknown; then only pairs found by the default settings count.
"""

import argparse
import tempfile
import time
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from tasks.items.ocr_child import TextReader
from tasks.items.ocr_settings import OcrSettings
from tests.benchmarks.ocr.hard_screens import HardScreen, draw_hard_screens
from tests.benchmarks.ocr.old_settings import OldReader

GOAL_CPU, GOAL_TEXT, GOAL_TALL = 0.45, 0.97, 0.99
Pairs = Counter[str]


@dataclass(frozen=True)
class Result:
    """What the two readers made of one screen. `drawn` is None where nobody knows what is on it."""

    old_seconds: float
    new_seconds: float
    old: Pairs
    new: Pairs
    drawn: Pairs | None

    @property
    def due(self) -> Pairs:
        """The pairs that the old settings found and that are there."""
        return self.old if self.drawn is None else self.old & self.drawn


def count_pairs(lines: Iterable[str]) -> Pairs:
    """Count the pairs of adjacent characters in lines, without spaces."""
    dense = ["".join(line.split()) for line in lines]
    return Counter(line[start : start + 2] for line in dense for start in range(len(line) - 1))


def find_share(found: Iterable[Pairs], wanted: Iterable[Pairs]) -> float:
    pairs = list(zip(found, wanted, strict=True))
    total = sum(sum(want.values()) for _, want in pairs)
    return sum(sum((found & want).values()) for found, want in pairs) / total if total else 1.0


def read_with_both(screens: Sequence[HardScreen]) -> dict[str, list[Result]]:
    """Read each screen with the old settings and with ours; return the results per kind."""
    old, new = OldReader(), TextReader(OcrSettings())
    warm_up = Image.new("RGB", (320, 320), "white")
    old.read_text(warm_up)
    new.read_page(warm_up)
    results: dict[str, list[Result]] = defaultdict(list)
    for screen in screens:
        with Image.open(screen.path) as file:
            picture = file.convert("RGB")
        seconds: list[float] = []
        found: list[Pairs] = []
        for read in (old.read_text, lambda picture: new.read_page(picture)[0]):
            began = time.process_time()
            text = read(picture)
            seconds.append(time.process_time() - began)
            found.append(count_pairs(text.splitlines()))
        drawn = count_pairs(screen.texts) if screen.kind != "own" else None
        results[screen.kind].append(Result(seconds[0], seconds[1], found[0], found[1], drawn))
    return results


def print_row(title: str, results: Sequence[Result]) -> tuple[float, float]:
    """Print one row of the table; return the ratio of CPU seconds and the share of text kept."""
    old, new = sum(r.old_seconds for r in results), sum(r.new_seconds for r in results)
    kept = find_share([r.new for r in results], [r.due for r in results])
    truth = ["–", "–"]
    if all(r.drawn is not None for r in results):
        drawn = [r.drawn or Counter() for r in results]
        truth = [f"{find_share([getattr(r, who) for r in results], drawn):.4f}" for who in ("old", "new")]
    extra = sum(sum((r.new - r.drawn).values()) - sum((r.old - r.drawn).values()) for r in results if r.drawn)
    seconds = f"{old / len(results):.2f} | {new / len(results):.2f} | {new / old:.3f}"
    print(f"| {title} | {len(results)} | {seconds} | {kept:.4f} | {' | '.join(truth)} | {extra:+d} |", flush=True)
    return new / old, kept


def main() -> int:
    """Print the table; return 0 if the goals are met."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=4, help="screens of each kind")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--folder", type=Path, help="images of your own instead of drawn ones")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        if given.folder:
            screens = [HardScreen(path, "own", ()) for path in sorted(given.folder.iterdir())]
        else:
            screens = draw_hard_screens(Path(scratch), given.count, given.seed)
        results = read_with_both(screens)
    print("| kind | screens | s old | s new | CPU | of old's | old of drawn | new of drawn | wrong pairs, new − old |")
    print("|---|---|---|---|---|---|---|---|---|")
    for kind, of_kind in results.items():
        print_row(kind, of_kind)
    tall = [r for kind, of_kind in results.items() if kind.startswith("tall") for r in of_kind]
    kept_of_tall = print_row("all tall", tall)[1] if tall else 1.0
    cpu, kept = print_row("all", [r for of_kind in results.values() for r in of_kind])
    met = cpu <= GOAL_CPU and kept >= GOAL_TEXT and kept_of_tall >= GOAL_TALL
    print(f"goals (CPU ≤ {GOAL_CPU}, text ≥ {GOAL_TEXT}, tall ≥ {GOAL_TALL}): {'met' if met else 'NOT MET'}")
    return 0 if met else 1


if __name__ == "__main__":
    raise SystemExit(main())
