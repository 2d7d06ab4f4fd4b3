"""Summarize a run as Markdown: a table of its stages, items dropped by reason, files written."""

from collections.abc import Iterator
from pathlib import Path

from tasks.storage.stage_record import StageRecord, read_record

_STAGES = (
    "samples/labelled",
    "samples/unlabelled",
    "samples/test",
    "rationales",
    "correction",
    "pseudo_labels",
    "emit",
)


def read_stage_records(output: Path) -> Iterator[StageRecord]:
    """Yield the records of the stages that a run has finished under `output`, in the order of the stages."""
    for stage in _STAGES:
        record = read_record(output / stage)
        if record is not None:
            yield record


def summarize_run(output: Path) -> str:
    """Return Markdown: items read, kept and dropped by stage, the stages' figures, and the files of the set."""
    lines = [
        "| stage | read | kept | dropped | why dropped | asked | reused | seconds |",
        "|---|--:|--:|--:|---|--:|--:|--:|",
    ]
    details: list[str] = []
    for r in read_stage_records(output):
        drops = ", ".join(f"{reason} {n}" for reason, n in r.drops.items()) or "–"
        answers = f"{r.costs.asked} | {r.costs.reused}"
        lines.append(f"| {r.stage} | {r.read} | {r.kept} | {r.dropped} | {drops} | {answers} | {r.seconds:.0f} |")
        if r.figures:
            figures = ", ".join(f"{name} {value:g}" for name, value in ((k, round(v, 3)) for k, v in r.figures.items()))
            details.append(f"- **{r.stage}**: {figures}")
    written = [p for p in (output / "emit").rglob("*") if p.is_file() and not p.name.startswith(".")]
    images = [p for p in written if p.is_relative_to(output / "emit" / "images")]
    details += [f"- `{file}` ({file.stat().st_size:,} bytes)" for file in sorted({*written} - {*images})]
    if images:
        total = sum(p.stat().st_size for p in images)
        details.append(f"- `{output / 'emit' / 'images'}`: {len(images):,} images ({total:,} bytes)")
    return "\n".join([*lines, "", *details, ""])
