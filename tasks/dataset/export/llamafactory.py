"""LLaMA-Factory's sharegpt format: `<name>.json` and `dataset_info.json`.

Its reader skips or misreads rows silently, so its rules are enforced here (LLaMA-Factory 0.9.5, llamafactory/data):

- If `columns` or `tags` is present, every omitted key becomes None, so all keys are written.
- A row is skipped unless user and assistant alternate and their number is even.
- All turns together must contain `<image>` exactly `len(images)` times, and content must be a string.
- A relative image path is looked up in `media_dir`, by default the data set's folder.
- A list of lists in `videos` has the frames of each recording; of a file it would take frames of its own choice. The
  column must be in `dataset_info.json`, and then in the file.
- Frames per second are one number for all recordings. Frames are shrunk to 256² pixels unless the bounds are set.
- For Qwen3-VL, it gives all recordings of a row as many frames as the first, and finds none after the first question.
- If a row has more than `cutoff_len` tokens, the end of its question is cut, although it contains the latest turn. The
  row is still used for training.
- A row for DPO is skipped unless dataset_info.json says `ranking`, the number of turns before the answers is odd, and
  each answer is an object. Both answers get the same images.
"""

import re
from collections.abc import Mapping, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

from tasks.dataset.decisions import LeftOutReason
from tasks.dataset.export.conversation import UnsupportedExample, get_rejected, make_messages_row, split_pairs
from tasks.dataset.export.files import ImageNames, JsonArray, SubsetWriter
from tasks.dataset.settings import ExportSpec
from tasks.models.image_cache import TooThin
from tasks.models.qwen_vl import QwenVL, read_qwen_vl
from tasks.models.token_budget import count_image_tokens
from tasks.prompts.turns import IMAGE_TOKEN, VIDEO_TOKEN
from tasks.records import Example
from tasks.storage.json_lines import write_json

_IDEOGRAPH = re.compile("[\u3400-\u9fff]")
_WORD_OR_DIGIT = re.compile(r"\d|[^\W\d_\u3400-\u9fff]+")


def open_writer(folder: Path, name: str, names: ImageNames, spec: ExportSpec) -> SubsetWriter:
    """Return the writer for `<name>.json`. It leaves out examples that are clearly too long."""
    row = partial(make_fitting_row, spec=spec, model=read_qwen_vl(spec.base, spec.revision))
    return SubsetWriter(folder, name, row, names, JsonArray)


def open_pairs_writer(folder: Path, name: str, names: ImageNames, spec: ExportSpec) -> SubsetWriter:
    """Return the same for pairs of answers, which are under `chosen` and `rejected`."""
    row = partial(_make_pair_row, spec=spec, model=read_qwen_vl(spec.base, spec.revision))
    return SubsetWriter(folder, name, row, names, JsonArray, split_pairs)


def make_fitting_row(
    example: Example, images: Sequence[str], *, spec: ExportSpec, model: QwenVL, videos: Sequence[Sequence[str]] = ()
) -> dict[str, object]:
    """Return the example's row.

    Raises UnsupportedExample if the reader would misread it, or if it is clearly longer than `spec.max_tokens`.
    """
    row = make_messages_row(example, images, spec, videos)
    check_recordings(example, model)
    tokens = estimate_tokens(example, spec, model.patch_size)
    if tokens > spec.max_tokens:
        detail = f"at least about {tokens} tokens, but only {spec.max_tokens} are allowed (`emit.export.max_tokens`)"
        raise UnsupportedExample(
            example, LeftOutReason.TOO_LONG, f"{detail}; the reader would cut the end of the question"
        )
    return row


def _make_pair_row(example: Example, images: Sequence[str], **options: Any) -> dict[str, object]:
    row: dict[str, Any] = make_fitting_row(example, images, **options)
    *question, chosen = row["messages"]
    rejected = {"role": "assistant", "content": get_rejected(example)}
    return {**row, "messages": question, "chosen": chosen, "rejected": rejected}


def check_recordings(example: Example, model: QwenVL) -> None:
    """Raise UnsupportedExample if the reader would misread the example's recordings for this model."""
    if not example.videos or not model.model_type.startswith("qwen3"):
        return
    questions = [message.content for message in example.messages if message.role == "user"]
    counts = {len(video.frames) for video in example.videos}
    if len(counts) > 1 or any(VIDEO_TOKEN in question for question in questions[1:]):
        detail = f"recordings of {sorted(counts)} frames in {len(questions)} questions; for Qwen3-VL the reader needs "
        raise UnsupportedExample(
            example, LeftOutReason.VIDEOS_UNFIT, detail + "recordings of equal length in the first question"
        )


def estimate_tokens(example: Example, spec: ExportSpec, patch_size: int) -> int:
    """Return a lower bound on the number of Qwen-VL tokens in the example, estimated without a tokenizer.

    An ideograph counts as half a token (0.55 to 0.7 in ordinary text). A digit counts as one token, and so does a word
    of any length. Punctuation and the chat template don't count. Images count at the size that the bounds in `spec`
    allow, two frames of a recording as one image; images too thin to be resized don't count. So an example that fits
    is never rejected, but one that is up to twice too long may be accepted (even longer ones in scripts without spaces
    other than Chinese).
    """
    bounds = {"min_pixels": spec.min_pixels, "max_pixels": spec.max_pixels, "patch_size": patch_size}
    images = 0
    for image in (*example.images, *(frame for video in example.videos for frame in video.frames[::2])):
        with suppress(TooThin):
            images += count_image_tokens(image, **bounds)
    text = " ".join(m.content.replace(IMAGE_TOKEN, " ").replace(VIDEO_TOKEN, " ") for m in example.messages)
    return images + len(_IDEOGRAPH.findall(text)) // 2 + len(_WORD_OR_DIGIT.findall(text))


def write_dataset_info(folder: Path, names: Mapping[str, bool], *, pairs: bool = False) -> None:
    """Write `folder/dataset_info.json`, which describes the file and the columns of each data set.

    `names` maps the name of a data set to whether any of its rows has recordings. `pairs` is whether rows have two
    answers, one to prefer and one to reject.
    """
    answers = ("chosen", "rejected") if pairs else ()
    info = {
        name: {
            "file_name": f"{name}.json",
            "formatting": "sharegpt",
            **({"ranking": True} if pairs else {}),
            "columns": {c: c for c in ("messages", "images", *(("videos",) if videos else ()), *answers)},
            "tags": {f"{tag}_tag": tag for tag in ("role", "content", "user", "assistant", "system")},
        }
        for name, videos in names.items()
    }
    write_json(folder / "dataset_info.json", info)
