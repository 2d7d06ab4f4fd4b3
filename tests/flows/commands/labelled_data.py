"""The same 36 labelled items, an image and a text each, as different programs write them."""

import io
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

LABELS = ("cat", "dog", "bird")
_WORDS = {"cat": "whiskers purr meow litter", "dog": "bark leash fetch bone", "bird": "wings feather nest song"}
_STARTS = ["今天", "昨晚", "孩子", "老师", "这家", "天气", "快递", "客服", "衣服", "手机", "电影", "早饭"]
_CLASSES = {"info": {"features": {"label": {"names": list(LABELS), "_type": "ClassLabel"}}}}


def label(number: int) -> str:
    return LABELS[number % 3]


def text(number: int) -> str:
    words = _WORDS[label(number)].split()
    chosen = np.random.default_rng(number).permutation(words)[:3]
    return f"{' '.join(chosen)} seen {number * 37 % 101} times"


def picture(number: int) -> bytes:
    noise = np.random.default_rng(number).integers(0, 80, (30, 40, 3)) + 80 * (number % 3)
    buffer = io.BytesIO()
    Image.fromarray(noise.astype("uint8")).save(buffer, "PNG")
    return buffer.getvalue()


def frame(data: Path, columns: str = "id text image label") -> pd.DataFrame:
    (data / "images").mkdir(parents=True)
    for number in range(36):
        (data / "images" / f"{number}.png").write_bytes(picture(number))
    rows = [(f"n{number}", text(number), f"{number}.png", label(number)) for number in range(36)]
    return pd.DataFrame(rows, columns=columns.split())


def write_json(file: Path, rows: list[object]) -> None:
    file.write_text(json.dumps(rows, ensure_ascii=False), encoding="utf-8")


def make_csv(data: Path) -> None:
    frame(data, "sku title picture category").to_csv(data / "shop.csv", index=False)


def make_json_lines(data: Path) -> None:
    frame(data).assign(label=[number % 3 for number in range(36)]).to_json(
        data / "m.jsonl", orient="records", lines=True
    )


def make_parquet(data: Path) -> None:
    frame(data).to_parquet(data / "m.parquet")


def make_packed_parquet(data: Path) -> None:
    rows = [{"image": {"bytes": picture(number), "path": None}, "label": number % 3} for number in range(36)]
    table = pa.Table.from_pylist(rows).replace_schema_metadata({"huggingface": json.dumps(_CLASSES)})
    (data / "data").mkdir(parents=True)
    for name in ("train-00000-of-00001", "test-00000-of-00001"):
        pq.write_table(table, data / "data" / f"{name}.parquet")


def make_arrow(data: Path) -> None:
    make_packed_parquet(data / "other")
    table = pq.read_table(data / "other" / "data" / "train-00000-of-00001.parquet")
    (data / "train").mkdir()
    with pa.ipc.new_stream(data / "train" / "data-00000-of-00001.arrow", table.schema) as writer:
        writer.write_table(table)
    (data / "train" / "state.json").write_text("{}")


def make_folders(data: Path) -> None:
    for number in range(36):
        (data / label(number)).mkdir(parents=True, exist_ok=True)
        (data / label(number) / f"{number}.png").write_bytes(picture(number))


def make_llamafactory(data: Path) -> None:
    rows: list[object] = []
    for _, (_, said, image, given) in frame(data).iterrows():
        answer = json.dumps({"reason": "seen", "label": given})
        turns = [("system", "You are helpful."), ("user", f"<image>{said}"), ("assistant", answer)]
        messages = [{"role": role, "content": content} for role, content in turns]
        rows.append({"messages": messages, "images": [f"images/{image}"]})
    write_json(data / "set.json", rows)
    (data / "dataset_info.json").write_text(json.dumps({"set": {"file_name": "set.json", "formatting": "sharegpt"}}))


def make_swift(data: Path) -> None:
    turns = [
        [
            {"from": "user", "value": f"Picture 1:<img>images/{image}</img>\n{said}"},
            {"from": "assistant", "value": given},
        ]
        for _, (_, said, image, given) in frame(data).iterrows()
    ]
    write_json(data / "set.json", [{"conversations": conversation} for conversation in turns])


def make_label_studio(data: Path) -> None:
    rows: list[object] = []
    for number, (_, said, image, given) in frame(data).iterrows():
        made = [{"from_name": "kind", "type": "choices", "value": {"choices": [given]}}]
        rows.append(
            {
                "id": number,
                "data": {"image": f"/data/upload/1/{image}", "text": said},
                "annotations": [{"was_cancelled": False, "result": made}],
            }
        )
    write_json(data / "export.json", rows)


def make_prompts(data: Path) -> None:
    """Two tasks that nobody knows, each with its own beginning and labels."""
    names = frame(data).image
    shown = [
        {"id": f"i{n}", "instruction": "<image>\n这是什么动物？", "image": [names[n]], "output": "猫狗鸟"[n % 3]}
        for n in range(36)
    ]
    moods = [("难过", "开心")[n % 2] for n in range(36)]
    texts = [f"判断下面这句话的情感：{_STARTS[n % 12]}{mood}的第{n}天" for n, mood in enumerate(moods)]
    said = [{"id": f"s{n}", "instruction": texts[n], "image": [], "output": ("负面", "正面")[n % 2]} for n in range(36)]
    write_json(data / "train.json", [*shown, *said])


KINDS: dict[Callable[[Path], None], tuple[int, list[str]]] = {
    make_csv: (36, [*LABELS]),
    make_json_lines: (36, ["0", "1", "2"]),
    make_parquet: (36, [*LABELS]),
    make_packed_parquet: (36, [*LABELS]),
    make_arrow: (36, [*LABELS]),
    make_folders: (36, [*LABELS]),
    make_llamafactory: (36, [*LABELS]),
    make_swift: (36, [*LABELS]),
    make_label_studio: (36, [*LABELS]),
    make_prompts: (72, ["猫", "狗", "鸟", "正面", "负面"]),
}
"""Maps what writes the data to the number of items and the labels."""
