"""LLaMA-Factory's sharegpt format: `<name>.json` and `dataset_info.json`.

Its reader skips or misreads silently, so the rules are enforced here (LLaMA-Factory, src/llamafactory/data): once
`columns` or `tags` is present every omitted key becomes None, hence all are written; user and assistant alternate in
even number; the count of `<image>` over all turns equals `len(images)`; content is a string.
"""

from collections.abc import Sequence
from pathlib import Path

import orjson

from tasks.records import Example, Message
from tasks.stages import write_bytes
from tasks.user_turn import IMAGE_TOKEN, escape_placeholder


def write_llamafactory(folder: Path, name: str, examples: Sequence[Example]) -> list[Path]:
    """Write `folder/<name>.json` and `folder/dataset_info.json`; returns their paths.

    Raises ValueError naming the item if an example would be skipped or misread by the reader.
    """
    rows = [_row(example) for example in examples]
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
    }
    data, index = folder / f"{name}.json", folder / "dataset_info.json"
    write_bytes(data, orjson.dumps(rows, option=orjson.OPT_INDENT_2))
    write_bytes(index, orjson.dumps(info, option=orjson.OPT_INDENT_2))
    return [data, index]


def _row(example: Example) -> dict[str, object]:
    turns = example.messages[1:] if example.messages[:1] and example.messages[0].role == "system" else example.messages
    roles = [m.role for m in turns]
    if not turns or roles != ["user", "assistant"] * (len(turns) // 2):
        raise ValueError(f"item {example.sample_id}: turns must alternate user, assistant; they are {roles}")
    messages = [{"role": m.role, "content": _content(m)} for m in example.messages]
    placeholders = sum(m["content"].count(IMAGE_TOKEN) for m in messages if m["role"] != "system")
    if placeholders != len(example.images):
        raise ValueError(f"item {example.sample_id}: {placeholders} `<image>` for {len(example.images)} images")
    return {"messages": messages, "images": [image.path for image in example.images]}


def _content(message: Message) -> str:
    # An answer holds no images: a literal placeholder there (from OCR text, say) would be counted as one.
    return escape_placeholder(message.content) if message.role == "assistant" else message.content
