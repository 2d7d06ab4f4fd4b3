"""The golden set's data: small items drawn from fixed seeds, some of them broken, in every format that is read."""

import csv
import json
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any

import pandas
from PIL import Image, ImageDraw

SIZE = (60, 90)
CHARACTERS = "的了吗呢我你好请问一下这个那件包裹商家大小颜色衣服鞋子杯子灯泡手机今天昨天刚才已经还没收到"
Row = dict[str, Any]


@dataclass(frozen=True)
class Shop:
    """How a pack's items begin, and the labels that are drawn, each with what shows it: a colour or a sentence."""

    image_role: str
    dialogue_role: str
    colours: dict[str, tuple[int, int, int]]
    sentences: dict[str, str]


DEMO = Shop(
    image_role="你是一个网店识图助手",
    dialogue_role="你是一个网店客服助手",
    colours={"商品页": (210, 60, 50), "支付页": (40, 110, 220), "物流页": (60, 180, 80)},
    sentences={"申请退款": "钱什么时候退回来", "查询物流": "包裹走到哪里了", "询问尺码": "穿多大码合适"},
)
WWW2025 = Shop(
    image_role="你是一个电商领域识图专家",
    dialogue_role="你是一个电商客服专家",
    colours={"商品头图": (210, 60, 50), "退款页面": (40, 110, 220), "购物车页面": (60, 180, 80)},
    sentences={"商品材质": "是用什么布料做的", "用法用量": "一天要用几次", "何时上货": "什么时候补货"},
)


class Drawer:
    """Draws items of one set, writes their images and remembers their true labels."""

    def __init__(self, shop: Shop, folder: Path, seed: str, *, columns: dict[str, str] | None = None) -> None:
        self.shop = shop
        self.folder = folder
        self.images = folder / "images"
        self.images.mkdir(parents=True)
        self.random = Random(f"golden/{seed}")
        self.truth: dict[str, str] = {}
        self.columns = columns or {}

    def draw(self, names: Sequence[str], *, labelled: bool, wrong: float = 0.0, rightly: float = 0.85) -> list[Row]:
        """Draw an item for each name, images and dialogues in turn; a share `wrong` has a wrong label.

        In a share `rightly` the item's list of labels begins with the right one, which `scripted:first` then answers.
        """
        rows = []
        for number, name in enumerate(names):
            kinds: dict[str, Any] = self.shop.sentences if number % 2 else self.shop.colours
            truth = self.random.choice(list(kinds))
            others = [label for label in kinds if label != truth]
            self.random.shuffle(others)
            offered = [truth, *others] if self.random.random() < rightly else [*others, truth]
            given = self.random.choice(others) if self.random.random() < wrong else truth
            row = self.dialogue(name, truth, offered) if number % 2 else self.image(name, truth, offered)
            self.truth[name] = truth
            rows.append(row | {"output": given} if labelled else row)
        return rows

    def image(self, name: str, label: str, offered: list[str]) -> Row:
        """Draw a screen in its label's colour."""
        file = self.save_picture(name, self.shop.colours[label])
        text = f"Picture 1: <image>\n{self.shop.image_role},请判断图片属于哪一类。"
        return {"id": name, "instruction": text + offer(offered), "image": [file]}

    def dialogue(self, name: str, label: str, offered: list[str]) -> Row:
        """Draw a dialogue that holds its label's sentence; every third one shows a screen too."""
        said = "".join(self.random.choices(CHARACTERS, k=14))
        files = [self.save_picture(name, (150, 150, 150))] if self.random.random() < 1 / 3 else []
        shown = "<image>" * len(files)
        text = (
            f"{self.shop.dialogue_role}，请判断用户的意图。\n<用户与客服的对话 START>\n"
            f"用户: {said}\n客服: 您好，请稍等\n用户: {shown}{self.shop.sentences[label]}，{said[::-1][:5]}\n"
            f"<用户与客服的对话 END>\n{offer(offered)}"
        )
        return {"id": name, "instruction": text, "image": files}

    def save_picture(self, name: str, colour: tuple[int, int, int]) -> str:
        """Draw a picture of blocks that are lighter or darker than `colour`; returns its file's name."""
        picture = Image.new("RGB", SIZE, colour)
        pen = ImageDraw.Draw(picture)
        for top in range(0, SIZE[1], 10):
            for left in range(0, SIZE[0], 10):
                shift = self.random.randint(-90, 90)
                shade = tuple(max(0, min(255, part + shift)) for part in colour)
                pen.rectangle((left, top, left + 9, top + 9), fill=shade)
        picture.save(self.images / f"{name}.png")
        return f"{name}.png"

    def copy(self, row: Row, name: str, **changes: Any) -> Row:
        """Give an item again under another name, its images included."""
        files = []
        for place, file in enumerate(row["image"]):
            shutil.copy(self.images / file, self.images / f"{name}-{place}.png")
            files.append(f"{name}-{place}.png")
        if row["id"] in self.truth:
            self.truth[name] = self.truth[row["id"]]
        return row | {"id": name, "image": files} | changes

    def broken(self, prefix: str) -> list[Any]:
        """Draw items of which each is unfit in another way."""
        names = ["gone", "cut", "empty", "text", "label", "offer", "nothing", "slots", "away", "foreign", "number"]
        rows: dict[str, Row] = {}
        for name in names:
            truth = next(iter(self.shop.colours))
            rows[name] = self.image(f"{prefix}-{name}", truth, list(self.shop.colours)) | {"output": truth}
        (self.images / rows["gone"]["image"][0]).unlink()
        cut = self.images / rows["cut"]["image"][0]
        cut.write_bytes(cut.read_bytes()[:200])
        (self.images / rows["empty"]["image"][0]).write_bytes(b"")
        (self.images / rows["text"]["image"][0]).write_text("no image")
        rows["label"]["output"] = "没有这个标签"
        rows["offer"]["output"] = "物流页面-物流列表页面" if self.shop is WWW2025 else "评价页"
        rows["nothing"]["output"] = ""
        rows["slots"]["instruction"] = rows["slots"]["instruction"].replace("<image>", "<image><image>", 1)
        rows["away"]["image"] = ["../x.json"]
        rows["foreign"]["instruction"] = "完全不同的任务 <image>"
        rows["number"]["instruction"] = 7
        return [*rows.values(), "no object", {"instruction": "no id", "image": []}]


def offer(labels: Sequence[str]) -> str:
    """Write the item's own list of labels."""
    return f"分类标签:{json.dumps(labels, ensure_ascii=False)}。"


def write_json(file: Path, rows: Sequence[Any]) -> None:
    """Write a JSON array."""
    file.write_text(json.dumps(rows, ensure_ascii=False, indent=1), encoding="utf-8")


def write_lines(file: Path, rows: Sequence[Any], *more: bytes) -> None:
    """Write JSON Lines, then further lines as they are."""
    lines = [json.dumps(row, ensure_ascii=False).encode() for row in rows]
    file.write_bytes(b"\n".join([*lines, *more]) + b"\n")


def write_csv(file: Path, rows: Sequence[Row], *more: Sequence[str]) -> None:
    """Write a table, a list of images as one cell, then further rows as they are."""
    with file.open("w", encoding="utf-8", newline="") as out:
        writer = csv.writer(out)
        writer.writerow(rows[0])
        for row in rows:
            writer.writerow([str(value) if isinstance(value, list) else value for value in row.values()])
        writer.writerows(more)


def write_parquet(file: Path, rows: Sequence[Row]) -> None:
    """Write a Parquet file."""
    pandas.DataFrame(list(rows)).to_parquet(file)


def write_mix(folder: Path) -> Path:
    """Write general-purpose conversations: some with a picture or a system turn, some unfit."""
    drawer = Drawer(DEMO, folder, "mix")
    rows: list[Any] = []
    for number in range(40):
        said = "".join(drawer.random.choices(CHARACTERS, k=20))
        turns = [{"role": "user", "content": f"问题{number}：{said}"}, {"role": "assistant", "content": said[::-1]}]
        row: Row = {"messages": turns}
        if number % 5 == 1:
            row["images"] = [drawer.save_picture(f"m{number}", (90, 90, 160))]
            turns[0]["content"] = f"<image>{turns[0]['content']}"
            if number % 3 == 2:
                row["images"] = ["gone.png"]
        if number % 5 == 2:
            turns.insert(0, {"role": "system", "content": "你是助手"})
        if number % 8 == 3:
            turns.reverse()
        if number % 8 == 5:
            turns[0]["content"] += "<image>"
        rows.append(row)
    write_lines(folder / "mix.jsonl", rows, b"{", b'{"no": "messages"}')
    return folder / "mix.jsonl"
