"""Merging 1,000,000 text-and-image-reference samples and writing the JSON exports. Goal: 15 minutes, 4 GiB, two cores.

    python -m tests.benchmarks.merge_scale [--items 1000000]

Samples are synthetic Chinese dialogues of 60 to 300 characters; two thirds have an image, by reference, whose hash is
in the cache (no image is opened). 1 % are copies of others, 2 % near-copies, and 200 are of the evaluation split. The
samples and the pseudo-labels are files that a run would have left; making them is not measured. The merge is a process
of its own, so that its memory is its own.

Measured on two cores that others were using too (load 4 to 6): 600 s, of them 383 s of one core, peak 2.26 GiB; later
713 s and 2.25 GiB on a fresh clone.
"""

import argparse
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from random import Random
from typing import Any

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT))

GOAL_SECONDS, GOAL_GIB = 900, 4.0
LABELLED, EVALUATION = 1000, 200
LABELS = ("申请退款", "查询物流", "反馈破损", "询问尺码", "询问材质", "询问优惠", "询问用法", "询问发货时间")
HAN = "".join(chr(0x4E00 + 7 * i) for i in range(900))


def write_inputs(folder: Path, items: int) -> None:
    """The files that intake and pseudo-labelling would have left, and the cache of hashes."""
    from tasks.items.image_hashes import ImageHashes
    from tasks.records import Outcome, Prediction, Sample, Split
    from tasks.storage.rows import RowWriter

    rng = Random(1)
    image_hashes = ImageHashes(folder / "hashes.sqlite")
    sets = ((Split.TEST, EVALUATION), (Split.LABELLED, LABELLED), (Split.UNLABELLED, items - LABELLED))
    for split, count in sets:
        (folder / split).mkdir(parents=True)
        hashes: dict[str, int] = {}
        with (
            RowWriter(folder / split / "kept.parquet", Sample) as samples,
            RowWriter(folder / split / "pseudo.parquet", Prediction) as predictions,
        ):
            for sample in _samples(rng, split, count):
                samples.write(sample)
                hashes |= {image.sha256: rng.getrandbits(64) for image in sample.images if image.sha256 not in hashes}
                if split is Split.UNLABELLED:
                    label = _label(sample.parts[0].text)
                    odds = {name: 0.9 if name == label else 0.1 / 7 for name in LABELS}
                    predictions.write(
                        Prediction(
                            sample_id=sample.id, source="teacher", outcome=Outcome.OK, label=label,
                            probabilities=odds, reason=_text(rng, 20), model="m",
                        )
                    )  # fmt: skip
        image_hashes.remember(hashes)


def _samples(rng: Random, split: str, count: int) -> Iterator[Any]:
    from tasks.media import ImagePart, ImageRef, TextPart
    from tasks.records import Sample

    earlier: list[tuple[object, ...]] = []
    for number in range(count):
        turns = [f"用户: {_text(rng, rng.randint(20, 100))}\n", f"客服: {_text(rng, rng.randint(10, 100))}\n"]
        turns.append(f"用户: {_text(rng, rng.randint(20, 100))}，订单{rng.randrange(10**6)}")
        digest = f"{rng.getrandbits(256):064x}" if rng.random() < 0.67 else ""
        lot = rng.random()
        if earlier and lot < 0.03:
            *turns, digest = rng.choice(earlier)
            if lot < 0.02:
                turns[2] = turns[2].split("，订单")[0] + f"，订单{rng.randrange(10**6)}"
        elif len(earlier) < 10_000:
            earlier.append((*turns, digest))
        parts = [TextPart(text=text, turn=i + 1) for i, text in enumerate(turns)]
        if digest:
            path = f"/images/{digest[:2]}/{digest}.jpg"
            parts.append(ImagePart(image=ImageRef(path=path, sha256=digest, width=1080, height=2340), turn=3))
        given = _label(turns[0]) if split != "unlabelled" else None
        yield Sample(
            id=f"{split}-{number}", task="dialogue", parts=tuple(parts), labels=LABELS, given=given, split=split,
            source=f"/{split}.json",
        )  # fmt: skip


def _label(text: str) -> str:
    """Nearly always the same for near-copies."""
    return LABELS[len(text) % len(LABELS)]


def _text(rng: Random, length: int) -> str:
    return "".join(rng.choices(HAN, k=length))


def merge(folder: Path) -> None:
    """Merge what `write_inputs` left; prints seconds by part, then seconds in all and peak memory (GiB)."""
    from tasks.dataset.decisions import decide_pseudo_labelled
    from tasks.dataset.merge import write_merged
    from tasks.dataset.merge_plan import plan_merge
    from tasks.dataset.settings import EmitSettings, ExportSpec, Format
    from tasks.dataset.sources import Sources
    from tasks.dataset.versions import record_version
    from tasks.items.image_hashes import ImageHashes
    from tasks.records import Prediction, Sample, Split
    from tasks.storage.rows import StoredRows
    from tests.tasks.making import prompter

    began = last = time.monotonic()
    worked = 0.0

    def done(what: str) -> None:
        nonlocal last, worked
        now = time.monotonic()
        busy = time.process_time()
        print(f"  {what:32} {now - last:7.1f} s ({busy - worked:.1f} s of CPU), peak {_peak():.2f} GiB", flush=True)
        last, worked = now, busy

    samples = {split: StoredRows(folder / split / "kept.parquet", Sample) for split in Split}
    predictions = StoredRows(folder / Split.UNLABELLED / "pseudo.parquet", Prediction)
    pseudo = {p.sample_id: decide_pseudo_labelled(p) for p in predictions}
    done("read pseudo-labels")
    formats = (Format.LLAMAFACTORY, Format.SWIFT, Format.SWIFT2, Format.QWEN, Format.VISION_START, Format.LABELS)
    settings = EmitSettings(name="set", validation_share=0.02, export=ExportSpec(formats=formats))
    sources = Sources(
        samples[Split.LABELLED],
        samples[Split.UNLABELLED],
        evaluation=samples[Split.TEST],
        pseudo=pseudo,
        settings=settings,
    )
    plan = plan_merge(sources, ImageHashes(folder / "hashes.sqlite"), seed=1)
    done("sign, compare, decide")
    out = folder / "emit"
    out.mkdir()
    emitted = write_merged(out, plan, sources, prompter(), 1)
    done("write kept, dropped, 6 exports")
    record_version(folder, out / "kept.parquet", "recipe")
    done("record the version")
    rows = {str(name): n for name, n in emitted.exported.rows.items()}
    print(f"  kept {emitted.kept}, dropped {dict(emitted.dropped)}, rows {rows}")
    print(f"{time.monotonic() - began:.1f} {_peak():.2f}")


def _peak() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (1 << 20)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--items", type=int, default=1_000_000)
    parser.add_argument("--merge", type=Path, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.merge:
        merge(given.merge)
        return
    with tempfile.TemporaryDirectory() as folder:
        write_inputs(Path(folder), given.items)
        command = [sys.executable, __file__, "--merge", folder]
        said = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, check=True, text=True).stdout
    *parts, total = said.splitlines()
    print(*parts, sep="\n")
    seconds, peak = map(float, total.split())
    met = "met" if seconds <= GOAL_SECONDS and peak <= GOAL_GIB else "NOT MET"
    print(f"{given.items:,} items: {seconds:.0f} s, peak {peak:.2f} GiB; goal {GOAL_SECONDS} s, {GOAL_GIB} GiB: {met}")


if __name__ == "__main__":
    main()
