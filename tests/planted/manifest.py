"""A manifest with planted faults: 20 good items and 20 broken ones, each broken one with exactly one fault.

Written without sight of the reader that is to find the faults. Layout under the folder given:
manifest.json, images/ (what the items name) and images_outside/ (a real image no item may reach; its name starts with
that of the image folder, so that a comparison of path prefixes as strings lets it through).
"""

import json
import os
import random
import struct
import zlib
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from PIL import Image

SEED = 20240607
SIZE = (112, 168)

KINDS = (
    "duplicate_id",
    "unknown_label",
    "label_not_offered",
    "placeholder_mismatch",
    "image_missing",
    "image_empty",
    "image_truncated",
    "not_an_image",
    "image_too_large",
    "path_escapes",
    "not_utf8",
    "instruction_not_text",
)

IMAGE_LABELS = [
    "商品页",
    "规格选择页",
    "订单详情页",
    "支付页",
    "物流页",
    "购物车页",
    "评价页",
    "退款页",
    "实物照片",
    "优惠券页",
]
DIALOGUE_LABELS = [
    "询问发货时间",
    "询问尺码",
    "询问材质",
    "申请退款",
    "反馈破损",
    "询问优惠",
    "查询物流",
    "询问用法",
]

# Stand-ins in the instruction text, swapped for bytes that are not UTF-8 once the JSON is encoded.
_GBK_MARK = "@@planted-gbk@@"
_CUT_MARK = "@@planted-cut@@"
_BAD_BYTES = {
    _GBK_MARK: "请问".encode("gbk"),  # c7 eb ce ca: no backslash, no quote
    _CUT_MARK: "。".encode()[:2],  # a character cut short right before the closing quote
}

_DUPLICATED_ID = "demo-0417"

Writer = Callable[[Path], None]


@dataclass
class _Item:
    id: str | int
    instruction: Any
    image: str | list[str]
    output: str
    kind: str | None = None
    files: dict[str, Writer] = field(default_factory=dict)  # name inside images/ -> what writes it

    def as_json(self) -> dict[str, Any]:
        return {"id": self.id, "instruction": self.instruction, "image": self.image, "output": self.output}


# ---- instructions


def _offer(labels: list[str]) -> str:
    return "分类标签:[" + ",".join(f'"{label}"' for label in labels) + "]"


def _picture(labels: list[str] | None = None, end: str = "。") -> str:
    offered = _offer(IMAGE_LABELS if labels is None else labels)
    return f"Picture 1: <image>\n你是一个网店识图助手,请判断图片属于哪一类。{offered}{end}"


def _dialogue(first: str, service: str, last: str, labels: list[str] | None = None) -> str:
    offered = _offer(DIALOGUE_LABELS if labels is None else labels)
    return (
        "你是一个网店客服助手，请判断用户的意图。\n<用户与客服的对话 START>\n"
        f"用户: {first}\n客服: {service}\n用户: {last}\n<用户与客服的对话 END>\n{offered}"
    )


# ---- files


def _pixels(key: str, size: tuple[int, int]) -> Image.Image:
    """Noise, fixed by the key: it does not compress, so a file cut in the middle lacks pixels for certain."""
    return Image.frombytes("RGB", size, random.Random(f"{SEED}:{key}").randbytes(size[0] * size[1] * 3))


def _png(key: str, mode: str = "RGB", size: tuple[int, int] = SIZE) -> Writer:
    def write(path: Path) -> None:
        picture = _pixels(key, size)
        if mode == "P":
            picture.quantize(32).save(path, "PNG", transparency=0)
        elif mode == "RGBA":
            picture.putalpha(Image.linear_gradient("L").resize(size))
            picture.save(path, "PNG")
        else:
            picture.convert(mode).save(path, "PNG")

    return write


def _jpeg(key: str, orientation: int | None = None) -> Writer:
    def write(path: Path) -> None:
        exif = Image.Exif()
        if orientation is not None:
            exif[0x0112] = orientation
        _pixels(key, SIZE).save(path, "JPEG", quality=90, exif=exif)

    return write


def _cut(whole: Writer) -> Writer:
    def write(path: Path) -> None:
        whole(path)
        data = path.read_bytes()
        path.write_bytes(data[: len(data) // 2])

    return write


def _raw(data: bytes) -> Writer:
    def write(path: Path) -> None:
        path.write_bytes(data)

    return write


def _bomb(side: int) -> Writer:
    """A whole and valid 1-bit PNG of side × side, built by hand: Pillow would hold a byte for every pixel."""

    def chunk(name: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))

    def write(path: Path) -> None:
        row = bytes(1 + (side + 7) // 8)
        packer = zlib.compressobj(9)
        body = b"".join(packer.compress(row) for _ in range(side)) + packer.flush()
        header = struct.pack(">IIBBBBB", side, side, 1, 0, 0, 0, 0)
        path.write_bytes(b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", body) + chunk(b"IEND", b""))

    return write


def _pngs(*names: str) -> dict[str, Writer]:
    return {name: _png(name) for name in names}


# ---- items


def _first_copy() -> _Item:
    """The earlier of the two items with one id: a good item."""
    text = _dialogue("在吗", "在的亲", "<image>这件有多大的码")
    return _Item(_DUPLICATED_ID, text, ["first-copy.png"], "询问尺码", files=_pngs("first-copy.png"))


def _first_copy_broken() -> _Item:
    """The same for only_broken: its image is missing, so the manifest has no good item left."""
    text = _dialogue("在吗", "在的亲", "<image>这件有多大的码")
    return _Item(_DUPLICATED_ID, text, ["first-copy-never-written.png"], "询问尺码", kind="image_missing")


def _good() -> list[_Item]:
    odd_name = "截图 2024..v2 (1).png"
    return [
        _first_copy(),
        _Item("demo-0101", _picture(), ["plain.png"], "商品页", files=_pngs("plain.png")),
        _Item("demo-0102", _picture(), ["photo.jpg"], "实物照片", files={"photo.jpg": _jpeg("photo")}),
        _Item("demo-0103", _picture(), ["turned.jpg"], "实物照片", files={"turned.jpg": _jpeg("turned", 6)}),
        _Item("demo-0104", _picture(), ["grey.png"], "物流页", files={"grey.png": _png("grey", "L")}),
        _Item("demo-0105", _picture(), ["palette.png"], "支付页", files={"palette.png": _png("palette", "P")}),
        _Item("demo-0106", _picture(), ["alpha.png"], "优惠券页", files={"alpha.png": _png("alpha", "RGBA")}),
        _Item("demo-0107", _picture(), "single-string.png", "评价页", files=_pngs("single-string.png")),
        _Item(1008, _picture(), ["numeric-id.png"], "退款页", files=_pngs("numeric-id.png")),
        _Item("demo-0109", _picture(), ["2024/05/deep.png"], "购物车页", files=_pngs("2024/05/deep.png")),
        _Item("demo-0110", _picture(), ["tiny.png"], "商品页", files={"tiny.png": _png("tiny", size=(28, 28))}),
        _Item("demo-0111", _picture(["支付页", "订单详情页"]), ["few.png"], "订单详情页", files=_pngs("few.png")),
        _Item("demo-0112", _picture(), [odd_name], "规格选择页", files=_pngs(odd_name)),
        _Item("demo-0201", _dialogue("你好", "您好，请讲", "什么时候能发货呀"), [], "询问发货时间"),
        _Item(
            "demo-0202",
            _dialogue("收到了", "您好，请讲", "<image>杯口裂了"),
            ["one.jpg"],
            "反馈破损",
            files={"one.jpg": _jpeg("one")},
        ),
        _Item(
            "demo-0203",
            _dialogue("<image>这款", "您好，请讲", "<image>和这款哪个是纯棉的"),
            ["two-a.png", "two-b.png"],
            "询问材质",
            files=_pngs("two-a.png", "two-b.png"),
        ),
        _Item(
            "demo-0204",
            _dialogue("<image><image>", "请问有什么可以帮您", "<image>三张券能一起用吗"),
            ["three-a.png", "three-b.png", "three-c.png"],
            "询问优惠",
            files=_pngs("three-a.png", "three-b.png", "three-c.png"),
        ),
        _Item(
            "demo-0205",
            _dialogue("<image>", "您好，请讲", "<image>再发一遍，到哪了"),
            ["again.png", "again.png"],
            "查询物流",
            files=_pngs("again.png"),
        ),
        _Item("demo-0206", _dialogue("在？", "在的", "不想要了", ["查询物流", "申请退款"]), [], "申请退款"),
        _Item(
            "demo-0207",
            _dialogue('说明书写着"先\\后"😀', "亲，[自动回复] 请稍等", "<image>这个\t怎么用"),
            "emoji.png",
            "询问用法",
            files=_pngs("emoji.png"),
        ),
    ]


def _broken(outside: Path) -> list[_Item]:
    html = b"<!DOCTYPE html>\n<html><head><title>404 Not Found</title></head><body>no such picture</body></html>\n"
    without_refund = [label for label in DIALOGUE_LABELS if label != "申请退款"]
    good_text = _dialogue("你好", "您好", "<image>多久能到")
    return [
        # the later copy has other text, another picture and another label, and nothing else wrong
        _Item(_DUPLICATED_ID, _picture(), ["later.png"], "支付页", "duplicate_id", _pngs("later.png")),
        # a piece of a real label, so also a piece of the instruction
        _Item("demo-0301", _picture(), ["unknown.png"], "商品", "unknown_label", _pngs("unknown.png")),
        _Item(
            "demo-0302",
            _picture(["商品页", "支付页", "物流页"]),
            ["not-offered.png"],
            "退款页",
            "label_not_offered",
            _pngs("not-offered.png"),
        ),
        # the label is not in the list, but the user says it, quotes and all
        _Item(
            "demo-0303",
            _dialogue("你好", "您好", '我点了"申请退款",没反应', without_refund),
            [],
            "申请退款",
            "label_not_offered",
        ),
        _Item(
            "demo-0304",
            _dialogue("<image><image>", "您好", "<image>哪个有货"),
            ["more-a.png", "more-b.png"],
            "询问发货时间",
            "placeholder_mismatch",
            _pngs("more-a.png", "more-b.png"),
        ),
        # no placeholder at all, one image
        _Item(
            "demo-0305",
            _dialogue("你好", "您好", "图发了，穿多大"),
            ["fewer.png"],
            "询问尺码",
            "placeholder_mismatch",
            _pngs("fewer.png"),
        ),
        # the first of two is there
        _Item(
            "demo-0306",
            _dialogue("<image>", "您好", "<image>到哪了"),
            ["there.png", "never-written.png"],
            "查询物流",
            "image_missing",
            _pngs("there.png"),
        ),
        # the last of three
        _Item(
            "demo-0307",
            _dialogue("<image>", "您好", "<image><image>都碎了"),
            ["full-a.png", "full-b.png", "empty.png"],
            "反馈破损",
            "image_empty",
            _pngs("full-a.png", "full-b.png") | {"empty.png": _raw(b"")},
        ),
        _Item("demo-0308", _picture(), ["cut.png"], "商品页", "image_truncated", {"cut.png": _cut(_png("cut"))}),
        _Item("demo-0309", _picture(), ["cut.jpg"], "实物照片", "image_truncated", {"cut.jpg": _cut(_jpeg("cut"))}),
        _Item("demo-0310", _picture(), "page.png", "商品页", "not_an_image", {"page.png": _raw(html)}),
        _Item("demo-0311", _picture(), ["bomb.png"], "物流页", "image_too_large", {"bomb.png": _bomb(30000)}),
        # all three lead to the same real image beside the image folder
        _Item("demo-0312", _picture(), [f"../{outside.name}/real.png"], "评价页", "path_escapes"),
        _Item("demo-0313", _picture(), [str(outside / "real.png")], "评价页", "path_escapes"),
        _Item("demo-0314", _picture(), ["linked/real.png"], "评价页", "path_escapes"),  # linked -> the folder outside
        _Item(
            "demo-0315",
            _dialogue("你好", "您好", f"<image>{_GBK_MARK}多久能到"),
            ["gbk.png"],
            "查询物流",
            "not_utf8",
            _pngs("gbk.png"),
        ),
        _Item("demo-0316", _picture(end=_CUT_MARK), ["utf8.png"], "商品页", "not_utf8", _pngs("utf8.png")),
        _Item("demo-0317", 20240607, ["number.png"], "商品页", "instruction_not_text", _pngs("number.png")),
        _Item("demo-0318", [good_text], ["list.png"], "查询物流", "instruction_not_text", _pngs("list.png")),
        _Item("demo-0319", None, [], "申请退款", "instruction_not_text"),
    ]


def write_planted(folder: Path, only_broken: bool = False) -> dict[str, str]:
    """Write manifest.json and the images under folder; {id as text: kind of fault} of the 20 broken items.

    The duplicated id stands in the answer once, for its later copy. Its first copy is one of the 20 good items; with
    only_broken it is a 21st broken item instead, under the same id and so not in the answer; both images are missing.
    The answer and all bytes are the same on every call, but for the one absolute path, which holds the folder's own.
    """
    folder = folder.resolve()
    images = folder / "images"
    outside = folder / "images_outside"
    for place in (images, outside):
        place.mkdir(parents=True, exist_ok=True)
    _png("outside")(outside / "real.png")
    link = images / "linked"
    if not link.is_symlink():
        link.symlink_to(os.path.join("..", outside.name), target_is_directory=True)

    broken = _broken(outside)
    if only_broken:  # the first copy is not usable, so the later one would be kept
        broken[0] = _Item(_DUPLICATED_ID, _picture(), ["later-copy-never-written.png"], "支付页", "image_missing")
    items = [_first_copy_broken() if only_broken else _first_copy(), *([] if only_broken else _good()[1:]), *broken]
    random.Random(SEED).shuffle(items)
    here, there = (place for place, item in enumerate(items) if item.id == _DUPLICATED_ID)
    if items[here] is broken[0]:
        items[here], items[there] = items[there], items[here]

    for item in items:
        for name, write in item.files.items():
            path = images / name
            path.parent.mkdir(parents=True, exist_ok=True)
            write(path)
    data = json.dumps([item.as_json() for item in items], ensure_ascii=False, indent=1).encode()
    for mark, bad in _BAD_BYTES.items():
        assert data.count(mark.encode()) == 1
        data = data.replace(mark.encode(), bad)
    (folder / "manifest.json").write_bytes(data)
    return {str(item.id): item.kind for item in items if item in broken and item.kind is not None}
