"""LLaMA-Factory's sharegpt format: `<name>.json` and `dataset_info.json`.

Its reader skips or misreads rows silently, so its rules are enforced here (LLaMA-Factory 0.9.5, llamafactory/data):

- If `columns` or `tags` is present, every omitted key becomes None, so all keys are written.
- A row is skipped unless user and assistant alternate and their number is even.
- The number of `<image>` in all turns must be `len(images)`, and content must be a string.
- A relative image is searched in `media_dir`, by default the data set's folder.
- A row with more than `cutoff_len` tokens loses the end of its question, which contains the latest turn, and is still
  used for training.
"""

import re
from collections.abc import Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path

from tasks.dataset.decisions import LeftOutReason
from tasks.dataset.export.conversation import UnsupportedExample, make_messages_row
from tasks.dataset.export.files import ImageNames, JsonArray, SubsetWriter
from tasks.dataset.settings import ExportSpec
from tasks.models.image_cache import TooThin
from tasks.models.token_budget import count_image_tokens
from tasks.prompts.turns import IMAGE_TOKEN
from tasks.records import Example
from tasks.storage.json_lines import write_json

_IDEOGRAPH = re.compile("[\u3400-\u9fff]")
_WORD_OR_DIGIT = re.compile(r"\d|[^\W\d_\u3400-\u9fff]+")


def open_writer(folder: Path, name: str, names: ImageNames, spec: ExportSpec) -> SubsetWriter:
    """Return the writer of `<name>.json`, which leaves out examples that are clearly too long."""
    return SubsetWriter(folder, name, partial(make_fitting_row, spec=spec), names, JsonArray)


def make_fitting_row(example: Example, images: Sequence[str], *, spec: ExportSpec) -> dict[str, object]:
    """Return the example's row; raises UnsupportedExample also if it is clearly longer than `spec.max_tokens`."""
    row = make_messages_row(example, images)
    tokens = estimate_tokens(example, spec)
    if tokens > spec.max_tokens:
        detail = f"about {tokens} tokens or more, {spec.max_tokens} are allowed (`max_tokens` of the export)"
        raise UnsupportedExample(
            example, LeftOutReason.TOO_LONG, f"{detail}; the reader would cut the end of the question"
        )
    return row


def estimate_tokens(example: Example, spec: ExportSpec) -> int:
    """Return a lower estimate of the example's number of Qwen2-VL tokens, without a tokenizer.

    An ideograph counts as half a token (ordinary text has 0.55 to 0.7), a digit and a word of any length as one;
    punctuation and the chat template don't count. So an example that fits is never rejected, but one that is up to
    twice too long may be missed (more in scripts without spaces other than Chinese). Images count as resized within
    the bounds of `spec`; images too thin to be resized don't count.
    """
    images = 0
    for image in example.images:
        with suppress(TooThin):
            images += count_image_tokens(image, min_pixels=spec.min_pixels, max_pixels=spec.max_pixels)
    text = " ".join(message.content.replace(IMAGE_TOKEN, " ") for message in example.messages)
    return images + len(_IDEOGRAPH.findall(text)) // 2 + len(_WORD_OR_DIGIT.findall(text))


def write_dataset_info(folder: Path, names: Sequence[str]) -> None:
    """Write `folder/dataset_info.json`, which describes the files and columns of the sets with these names."""
    info = {
        name: {
            "file_name": f"{name}.json",
            "formatting": "sharegpt",
            "columns": {"messages": "messages", "images": "images"},
            "tags": {f"{tag}_tag": tag for tag in ("role", "content", "user", "assistant", "system")},
        }
        for name in names
    }
    write_json(folder / "dataset_info.json", info)
