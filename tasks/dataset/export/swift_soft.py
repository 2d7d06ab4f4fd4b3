"""ms-swift 4's rows with soft labels: one row per label that the teacher finds possible, weighted by its probability.

ms-swift reads the weight of an answer from `loss_scale` (4.6.0, loss_scale/base.py), but rounds it to 0 or 1 unless
`is_binary_loss_scale` is false, as train_lora.yaml here says. The sum of the weighted losses is the cross entropy with
the teacher's probabilities. An item costs as many rows as it has possible labels; one with a hard label costs one.
"""

from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path

from tasks.dataset.export.files import ImageNames, JsonLines, SubsetWriter
from tasks.dataset.export.swift import make_swift_row
from tasks.dataset.settings import ExportSpec
from tasks.models.qwen_vl import read_qwen_vl
from tasks.records import Example
from tasks.storage.json_lines import escape_json

_LEAST = 0.02
"""Labels that are less probable than this get no row."""


def open_writer(folder: Path, name: str, names: ImageNames, spec: ExportSpec) -> SubsetWriter:
    """Return the writer for `<name>.jsonl`."""
    row = partial(_make_row, spec=spec, thinks=read_qwen_vl(spec.base, spec.revision).thinks)
    return SubsetWriter(folder, name, row, names, JsonLines, _split_labels, absolute_frames=True)


def _make_row(
    example: Example, images: Sequence[str], *, spec: ExportSpec, thinks: bool, videos: Sequence[Sequence[str]] = ()
) -> dict[str, object]:
    row = make_swift_row(example, images, spec=spec, thinks=thinks, videos=videos)
    if example.probabilities:
        row["messages"][-1]["loss_scale"] = example.probabilities[example.label]
    return row


def _split_labels(example: Example) -> Iterator[Example]:
    """Yield the example once per possible label, with that label in its answer, or as it is if it has a hard label."""
    possible = {label: p for label, p in example.probabilities.items() if p >= _LEAST}
    if not possible:
        yield example
        return
    total = sum(possible.values())
    *before, answer = example.messages
    # the label comes last in an answer: packs are checked for that
    opening, _, closing = answer.content.rpartition(escape_json(example.label))
    for label, p in possible.items():
        said = answer.model_copy(update={"content": opening + escape_json(label) + closing})
        changes = {"messages": (*before, said), "label": label, "probabilities": {label: p / total}}
        yield example.model_copy(update=changes)
