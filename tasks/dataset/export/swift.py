"""The formats of ms-swift 4: JSON Lines of messages and images, with soft labels, and with pairs of answers for DPO.

Its reader changes rows silently, so its rules are enforced here (ms-swift 4.6.0, swift/template/base.py and
swift/dataset/preprocessor):

- It inserts missing `<image>` tags at the front, and only warns about surplus ones, even in the system turn.
- In a row without images, it takes `<img>…</img>` in any turn for an image, and removes the tag if there is no such
  file.
- It never writes the empty thoughts with which a thinking model's answers begin; they must be part of the row.
- It replaces `<bbox>` in any text by the next of the row's boxes. If there are too few, the tag stays in the text; if
  there are too many, they vanish. So literal tags are escaped, and there is one box per tag.
- It takes every box for pixels of the first image unless `bbox_type` and `image_id` say otherwise, and checks no range.
  Here both are always written, and boxes are pixels of the file that the row names, which it converts for the model.
- A list of lists in `videos` has the frames of each recording. Their paths must be absolute: it looks up only the paths
  of images and files. It rounds the sides of frames to multiples of two tokens, before it resizes them like a model.
- Frames per second come from the environment, and for Qwen3-VL from the row's `raw_fps`. Bounds of frames' areas come
  from the environment too: in a row they would also change the images, and `max_pixels` alone loses short rows.
- It deletes unreadable rows unless `strict` is set, and drops unknown columns.
- It reads the weight of an answer from `loss_scale`, but rounds it to 0 or 1 unless `is_binary_loss_scale` is false.
- For DPO it shows both answers the same images, and refuses a row whose two answers are equal.
"""

from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from tasks.dataset.export.conversation import find_form, get_rejected, mark_boxes, split_pairs
from tasks.dataset.export.files import ImageNames, JsonLines, Row, Split, SubsetWriter
from tasks.dataset.export.recordings import compute_rate
from tasks.dataset.export.trainer_names import EMPTY_THOUGHTS
from tasks.dataset.settings import ExportSpec
from tasks.models.qwen_vl import read_qwen_vl
from tasks.prompts.box_forms import name_boxes
from tasks.prompts.boxes import scale_box
from tasks.records import Example
from tasks.storage.json_lines import escape_json

_LEAST = 0.02
"""Labels that are less probable than this get no row of a soft label."""


def open_writer(folder: Path, name: str, names: ImageNames, spec: ExportSpec) -> SubsetWriter:
    """Return the writer for `<name>.jsonl`.

    Relative paths need the environment variable ROOT_IMAGE_DIR, which the training configurations set.
    """
    return _open(folder, name, names, spec, make_swift_row, lambda example: (example,))


def open_pairs_writer(folder: Path, name: str, names: ImageNames, spec: ExportSpec) -> SubsetWriter:
    """Return the writer of pairs of answers; the one to reject is under `rejected_response`."""
    return _open(folder, name, names, spec, _make_pair_row, split_pairs)


def open_soft_writer(folder: Path, name: str, names: ImageNames, spec: ExportSpec) -> SubsetWriter:
    """Return the writer of one row per label that the teacher finds possible, weighted by its probability.

    The sum of the weighted losses is the cross entropy with the teacher's probabilities. An item costs as many rows as
    it has possible labels; one with a hard label costs one.
    """
    return _open(folder, name, names, spec, _make_soft_row, _split_labels)


def _open(folder: Path, name: str, names: ImageNames, spec: ExportSpec, make_row: Row, split: Split) -> SubsetWriter:
    row = partial(make_row, spec=spec, thinks=read_qwen_vl(spec.base, spec.revision).thinks)
    return SubsetWriter(folder, name, row, names, JsonLines, split, absolute_frames=True)


def make_swift_row(
    example: Example, images: Sequence[str], *, spec: ExportSpec, thinks: bool, videos: Sequence[Sequence[str]] = ()
) -> dict[str, Any]:
    """Return the example's row.

    For a thinking model, the last answer begins with empty thoughts. The model's chat template writes them there, but
    ms-swift does not. Raises UnsupportedExample for an example that the reader would change or misread.
    """
    row: dict[str, Any] = {"messages": mark_boxes(example).messages(), "images": list(images)}
    if videos:
        row |= describe_videos(example, videos)
    if example.boxes:
        last = row["messages"][-1]
        last["content"] = name_boxes(last["content"], example.boxes, len(images), find_form(spec))
        row["objects"] = {
            "bbox": [scale_box(b, i, (i.width, i.height)) for b in example.boxes for i in [example.images[b.image]]],
            "bbox_type": "real",
            "image_id": [box.image for box in example.boxes],
        }
    if thinks:
        open_answer_with_thoughts(row)
    return row


def _make_pair_row(example: Example, images: Sequence[str], *, thinks: bool, **options: Any) -> dict[str, Any]:
    rejected = (EMPTY_THOUGHTS if thinks else "") + get_rejected(example)
    return make_swift_row(example, images, thinks=thinks, **options) | {"rejected_response": rejected}


def _make_soft_row(example: Example, images: Sequence[str], **options: Any) -> dict[str, Any]:
    row = make_swift_row(example, images, **options)
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


def describe_videos(example: Example, videos: Sequence[Sequence[str]]) -> dict[str, object]:
    """Return the row's columns about its recordings; `videos` are the names of their frames."""
    rates = {compute_rate(video) for video in example.videos}
    fps = {"chat_template_kwargs": {"raw_fps": rates.pop()}} if len(rates) == 1 else {}
    return {"videos": [list(frames) for frames in videos], **fps}


def open_answer_with_thoughts(row: dict[str, Any]) -> None:
    """Write empty thoughts at the beginning of the row's last answer."""
    last = row["messages"][-1]
    last["content"] = EMPTY_THOUGHTS + last["content"]
