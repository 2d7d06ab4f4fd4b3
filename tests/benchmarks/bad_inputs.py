"""Give 10,000 generated bad inputs to every function that reads what others wrote. Goal: 0 crashes, 0 silent losses.

    python tests/benchmarks/bad_inputs.py [--count 10000] [--seed 1] [--reader manifests]

Manifests of each format and folders of them, images, dialogues, prompts over their budget, model answers, files of
verdicts, probabilities, patches, versions, mixes, and ledgers, with faults in their fields and in their bytes (the
makers are in tests/properties). A crash is an exception that is none of ours, or the death of the process; a silent
loss is an item that is neither kept nor dropped with a reason, a part of an item that nothing reads and nothing
reports (an unread key, the first value of a repeated key, a video, the digits of an id), a store or copy that lost
what it held, or an error that doesn't name its file. Each reader runs in a process of its own. Prints the outcomes by
reader, and exits with 1 unless the goal is met.
"""

import argparse
import json
import subprocess
import sys
import time
import traceback
from collections import Counter
from pathlib import Path
from random import Random
from tempfile import TemporaryDirectory

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT))

SLOW_SECONDS = 5.0
"""Of one core: an input that takes longer hangs, for those who wait."""


def feed_all(name: str, count: int, seed: int, first: int) -> None:
    """Give a reader `count` bad inputs; print one line of JSON per input."""
    from tests.properties.readers import READERS

    reader = READERS[name]
    with TemporaryDirectory() as folder:
        reader.feed(Random("warm"), Path(folder))  # the first makes models and files
        for number in range(first, count):
            print(json.dumps({"began": number}), flush=True)
            began, crash = time.process_time(), ""
            reasons: dict[str, int] = {}
            lost: list[str] = []
            try:
                result = reader.feed(Random(f"{seed}:{name}:{number}"), Path(folder))
                reasons, lost = dict(result.reasons), result.lost
            except Exception:
                crash = "".join(traceback.format_exc().splitlines(keepends=True)[-5:])
            seconds = time.process_time() - began
            print(json.dumps({"reasons": reasons, "lost": lost, "crash": crash, "seconds": seconds}), flush=True)


def watched(name: str, count: int, seed: int) -> tuple[Counter[str], list[str], list[str], float]:
    """Outcomes, crashes, losses and the most time of an input (s of one core); a process that dies is started again."""
    reasons: Counter[str] = Counter()
    crashes: list[str] = []
    lost: list[str] = []
    first, slowest = 0, 0.0
    while first < count:
        command = [sys.executable, __file__, "--enter", name, "--count", str(count), "--seed", str(seed)]
        done = subprocess.run([*command, "--first", str(first)], capture_output=True)
        for line in done.stdout.splitlines():
            row = json.loads(line)
            if "began" in row:
                first = row["began"] + 1
                continue
            reasons.update(row["reasons"])
            slowest = max(slowest, row["seconds"])
            crashes += [f"{name} {first - 1}: {row['crash']}"] if row["crash"] else []
            lost += [f"{name} {first - 1}: {what}" for what in row["lost"]]
        if done.returncode != 0:
            crashes.append(f"{name} {first - 1}: ended with {done.returncode}: {done.stderr[-500:].decode()}")
            first += not done.stdout
    return reasons, crashes, lost, slowest


def main() -> None:
    """Run it."""
    from tests.properties.readers import READERS

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--reader", choices=sorted(READERS))
    parser.add_argument("--enter", choices=sorted(READERS), help=argparse.SUPPRESS)
    parser.add_argument("--first", type=int, default=0, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.enter:
        return feed_all(options.enter, options.count, options.seed, options.first)
    began, inputs = time.monotonic(), 0
    crashes: list[str] = []
    lost: list[str] = []
    slow: list[str] = []
    print("| reader | inputs | outcomes | crashes | lost | most time, s |\n|---|--:|---|--:|--:|--:|")
    for reader in READERS.values():
        if options.reader not in (None, reader.name):
            continue
        count = options.count if options.reader else options.count * reader.share // 100
        reasons, broke, vanished, slowest = watched(reader.name, count, options.seed)
        outcomes = ", ".join(f"{reason} {n}" for reason, n in reasons.most_common())
        print(f"| {reader.name} | {count} | {outcomes} | {len(broke)} | {len(vanished)} | {slowest:.2f} |", flush=True)
        inputs, crashes, lost = inputs + count, crashes + broke, lost + vanished
        slow += [reader.name] if slowest > SLOW_SECONDS else []
    seconds = time.monotonic() - began
    print(f"{inputs} bad inputs in {seconds:.0f} s: {len(crashes)} crashes, {len(lost)} silent losses")
    for text in [*crashes[:10], *lost[:10], *(f"{name}: an input took over {SLOW_SECONDS} s" for name in slow)]:
        print(text)
    sys.exit(bool(crashes or lost or slow))


if __name__ == "__main__":
    main()
