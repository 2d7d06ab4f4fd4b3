"""LLaMA-Factory's sharegpt format: `<name>.json` and `dataset_info.json`.

Its reader skips or misreads silently, so the rules are enforced here (LLaMA-Factory 0.9.5, llamafactory/data): once
`columns` or `tags` is present every omitted key becomes None, hence all are written; user and assistant alternate in
even number, else the row is skipped; the count of `<image>` over all turns equals `len(images)`; content is a string.
A relative image is looked for under `media_dir`, which is the data set's folder unless set.
"""

from collections.abc import Sequence
from pathlib import Path

import orjson

from tasks.export.conversation import conversation
from tasks.records import Example
from tasks.stages import write_bytes


def llamafactory_row(example: Example, images: Sequence[str]) -> dict[str, object]:
    """A row of `<name>.json`, its images by the given names; raises NotHeld if the reader would skip or misread it."""
    return {"messages": conversation(example).messages(), "images": list(images)}


def write_dataset_info(folder: Path, names: Sequence[str]) -> Path:
    """Write `folder/dataset_info.json`, which says where the sets of these names are and how to read them."""
    info = {
        name: {
            "file_name": f"{name}.json",
            "formatting": "sharegpt",
            "columns": {"messages": "messages", "images": "images"},
            "tags": {
                "role_tag": "role",
                "content_tag": "content",
                "user_tag": "user",
                "assistant_tag": "assistant",
                "system_tag": "system",
            },
        }
        for name in names
    }
    file = folder / "dataset_info.json"
    write_bytes(file, orjson.dumps(info, option=orjson.OPT_INDENT_2))
    return file


def write_llamafactory(folder: Path, name: str, examples: Sequence[Example]) -> list[Path]:
    """Write `folder/<name>.json`, with absolute images, and `folder/dataset_info.json`; returns their paths.

    Raises NotHeld, a ValueError naming the item, if an example would be skipped or misread by the reader.
    """
    rows = [llamafactory_row(example, [image.path for image in example.images]) for example in examples]
    data = folder / f"{name}.json"
    write_bytes(data, orjson.dumps(rows, option=orjson.OPT_INDENT_2))
    return [data, write_dataset_info(folder, [name])]
