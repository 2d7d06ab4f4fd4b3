"""LLaMA-Factory's sharegpt format: `<name>.json` and `dataset_info.json`.

Its reader skips or misreads silently, so the rules are enforced here (LLaMA-Factory 0.9.5, llamafactory/data): once
`columns` or `tags` is present every omitted key becomes None, hence all are written; user and assistant alternate in
even number, else the row is skipped; the count of `<image>` over all turns equals `len(images)`; content is a string.
A relative image is looked for under `media_dir`, which is the data set's folder unless set. A row of more than
`cutoff_len` tokens loses the end of its question, where the item's latest turn stands, and is trained on all the same.
"""

import re
from collections.abc import Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path

from tasks.dataset.export.conversation import NotHeld, NotHeldReason, make_messages_row
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
    """Return the writer of `<name>.json`, without examples that are clearly too long."""
    return SubsetWriter(folder, name, partial(fitting_row, spec=spec), names, JsonArray)


def fitting_row(example: Example, images: Sequence[str], *, spec: ExportSpec) -> dict[str, object]:
    """Return the example's row; raises NotHeld also for an example clearly longer than `spec` allows."""
    row = make_messages_row(example, images)
    tokens = least_tokens(example, spec)
    if tokens > spec.max_tokens:
        detail = f"about {tokens} tokens or more, {spec.max_tokens} are allowed (`max_tokens` of the export)"
        raise NotHeld(example, NotHeldReason.TOO_LONG, f"{detail}; the reader would cut the end of the question")
    return row


def least_tokens(example: Example, spec: ExportSpec) -> int:
    """Return about how many tokens Qwen2-VL makes of the example at least, without a tokenizer.

    It errs to too few: half a token an ideograph (ordinary text: 0.55 to 0.7), one a digit and one a word however long,
    none for punctuation and the chat template. So it may miss what is up to twice as long as is allowed (more in
    scripts without spaces other than Chinese), but takes nothing for too long that fits. Images are counted as they
    are resized, within `spec`'s bounds; one too thin to be resized is not counted.
    """
    images = 0
    for image in example.images:
        with suppress(TooThin):
            images += count_image_tokens(image, min_pixels=spec.min_pixels, max_pixels=spec.max_pixels)
    text = " ".join(message.content.replace(IMAGE_TOKEN, " ") for message in example.messages)
    return images + len(_IDEOGRAPH.findall(text)) // 2 + len(_WORD_OR_DIGIT.findall(text))


def write_dataset_info(folder: Path, names: Sequence[str]) -> None:
    """Write `folder/dataset_info.json`, which says where the sets of these names are and how to read them."""
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
