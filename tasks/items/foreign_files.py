"""Recognise files that other programs wrote in shapes of their own, and columns with other names; say what to do."""

import difflib
import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import cast

from tasks.items.raw_items import RawItem
from tasks.packs.columns import Columns

_LOOKED_AT = 50
"""Items of a file that are compared with known shapes."""
_RECORDS = "write it again with df.to_json(path, orient='records', force_ascii=False)"
_NEEDED = "labelstill needs one object per item, with the keys {keys}"
_USUAL_NAMES = {
    "id": ("itemid", "uid", "uuid", "guid", "key", "sampleid", "index", "no", "sku", "编号", "序号"),
    "instruction": (
        *("text", "prompt", "question", "query", "input", "content", "sentence", "dialogue", "description", "title"),
        *("文本", "内容", "正文", "对话", "问题", "描述", "标题"),
    ),
    "image": (
        *("img", "imagepath", "imgpath", "file", "filename", "filepath", "path", "picture", "photo", "screenshot"),
        *("图片", "图像", "截图", "照片", "图片路径"),
    ),
    "video": ("clip", "recording", "movie", "videopath", "videofile", "视频", "录像", "录屏", "视频路径"),
    "output": (
        *("label", "answer", "class", "category", "target", "response", "y", "gold", "intent", "choice", "tag"),
        *("标签", "类别", "分类", "类目", "意图", "答案"),
    ),
}
"""Maps field to names that are usual for it elsewhere, as `_fold` returns them."""


def find_likely_column(field: str, wanted: str, names: Iterable[str]) -> str | None:
    """Return the one of `names` that probably means `field` (id, image, …), whose configured name is `wanted`."""
    folded = {_fold(name): name for name in names}
    for candidate in (_fold(wanted), *_USUAL_NAMES[field]):
        if candidate in folded:
            return folded[candidate]
    close = difflib.get_close_matches(_fold(wanted), folded, 1, 0.8)
    return folded[close[0]] if close else None


def rank_column(field: str, name: str) -> tuple[int, int]:
    """Return 0 if `name` is usual for `field` (id, image, …), 1 if a word of it is, 2 if it is not; and how usual."""
    usual = (field, *_USUAL_NAMES[field])
    words = re.findall(r"[A-Z]?[^\W_A-Z]+|[A-Z]+", name)
    if (whole := _fold(name)) in usual:
        return 0, usual.index(whole)
    places = [usual.index(folded) for word in words if (folded := _fold(word)) in usual]
    return (1, min(places)) if places else (2, 0)


def suggest_columns(columns: Columns, names: Collection[str]) -> str:
    """Return the end of a message about missing columns: which others are probably meant; empty if there are none.

    `names` are those that the item or the table has.
    """
    unread = [name for name in names if name not in columns.read]
    found: list[str] = []
    for field in _USUAL_NAMES:
        wanted = getattr(columns, field)
        if wanted is not None and wanted not in names and (likely := find_likely_column(field, wanted, unread)):
            found.append(f"`{field}: {likely}`")
            unread.remove(likely)
    if not found:
        return ""
    no_id = columns.id is not None and columns.id not in names and not any(part.startswith("`id:") for part in found)
    rest = "; leave out `id` there: items are then named after their images" if no_id else ""
    return f"; if these are meant, set {', '.join(found)} under `columns` of pack.yaml{rest}"


def _fold(name: str) -> str:
    bare = "".join(c for c in name.casefold() if c.isalnum())
    return bare[:-1] if bare.endswith("s") and not bare.endswith("ss") and len(bare) > 3 else bare


def explain_foreign_object(content: Mapping[str, object], columns: Columns) -> str | None:
    """Return which kind of file consists of this one JSON object, and what to do; None if the kind is not known."""
    keys, values = set(content), list(content.values())
    needed = _NEEDED.format(keys=", ".join(columns.named))
    if {"images", "annotations"} <= keys:
        return (
            "is a COCO file that cannot be read: each image needs `id` and `file_name`, each annotation `image_id`, "
            f"and `columns` of pack.yaml must name `boxes`; otherwise {needed}"
        )
    if {"columns", "data"} <= keys:
        return f"was written by pandas with orient='split'; {_RECORDS}"
    if {"schema", "data"} <= keys:
        return f"was written by pandas with orient='table'; {_RECORDS}"
    if values and all(isinstance(value, dict) for value in values):
        rows = cast(list[dict[str, object]], values)
        if all(name in content for name in columns.needed):
            return f"was written by pandas column by column; {_RECORDS}"
        if all(name in row for row in rows for name in columns.needed if name != columns.id):
            return f"contains the items as values of one object; write an array of items, each with its `{columns.id}`"
    if any(name in content for name in columns.needed):
        return None  # one item
    if len(lists := [k for k, v in content.items() if isinstance(v, list) and v and isinstance(v[0], dict)]) == 1:
        return f"contains its items under the key `{lists[0]}`; write that array alone"
    return None


def explain_foreign_items(items: Sequence[RawItem], columns: Columns) -> str | None:
    """Return which kind of file has items of this shape, and what to do; None if they may be ours."""
    seen = [item.value for item in items[:_LOOKED_AT]]
    needed = _NEEDED.format(keys=", ".join(columns.named))
    if seen and all(isinstance(value, list) for value in seen):
        return f"contains lists instead of objects, as pandas writes with orient='values'; {_RECORDS}"
    rows = [cast(dict[str, object], value) for value in seen if isinstance(value, dict)]
    if not rows or len(rows) < len(seen) or any(name in row for row in rows for name in columns.needed[-1:]):
        return None
    if all(isinstance(row.get("annotations"), list) and isinstance(row.get("data"), dict) for row in rows):
        return f"is an export of Label Studio; {needed}. Verdicts from there are read by `labelstill review import`"
    for key in ("conversations", "messages"):
        if all(isinstance(row.get(key), list) for row in rows):
            return (
                f"contains conversations (`{key}`), the format of training files; {needed}: the user's text as "
                f"`{columns.instruction or columns.image}`, the answer as `{columns.output}`"
            )
    return None
