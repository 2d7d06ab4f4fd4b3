"""README's first session on drawn data: `init`, `find-errors`, verdicts, `find-errors`, with times and what is found.

    python tests/benchmarks/first_session.py [json] [folders] [csv]

280 screens of 1080×2340 of 12 kinds and 120 dialogues of 8 intents; 12 % of the labels are wrong. The set is written as
the challenge's JSON, as a folder per label (the screens alone) and as a CSV file with other column names. Caches are
empty and no server runs. Verdicts come from the truth, in the order of the review queue.
"""

import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from random import Random

import pandas as pd

sys.path.insert(0, str(Path(__file__).parents[2]))

from tasks.demo.dialogues import NEAR_INTENTS, compose
from tasks.review.queue import read_queue
from tests.benchmarks.ocr.hard_screens import GREY, INK, LABELS, NOUNS, RED, SATURATED, VALUES, WORDS, Page, make_price
from tests.stub_server import ROOT

SCREENS, DIALOGUES, WRONG = 280, 120, 0.12
KINDS = {
    "商品详情": "加入购物车|立即购买|宝贝评价|店铺推荐|规格参数|月销 300+",
    "购物车": "全选|合计|去结算|移入收藏|失效宝贝|凑单免运费",
    "订单列表": "待付款|待发货|待收货|再次购买|查看物流|删除订单",
    "订单详情": "订单编号|下单时间|收货人|商品总额|实付款|复制",
    "物流跟踪": "运输中|已揽收|派送中|快件到达|物流单号|取件码",
    "退款售后": "退款金额|退货原因|审核中|提交申请|寄回商品|钱款去向",
    "评价晒单": "好评|追评|商家回复|物流服务|匿名评价|有用",
    "优惠券": "满减|立即领取|有效期至|店铺券|使用规则|去使用",
    "支付结果": "支付成功|付款方式|查看订单|返回首页|银行卡|支付密码",
    "个人主页": "我的收藏|足迹|会员中心|设置|客服帮助|地址管理",
    "搜索结果": "综合|销量|价格|筛选|相关搜索|广告",
    "直播间": "关注|点赞|正在讲解|主播|粉丝团|小黄车",
}
CONFUSED = {
    "订单列表": "订单详情",
    "购物车": "搜索结果",
    "退款售后": "订单详情",
    "优惠券": "个人主页",
    "评价晒单": "商品详情",
}


def main(shapes: Sequence[str]) -> None:
    """Draw the data once, and run the session on each shape."""
    with tempfile.TemporaryDirectory() as folder:
        data = Path(folder) / "data"
        items = draw_items(data, Random(1))
        print(f"{len(items)} items, {sum(i['given'] != i['label'] for i in items)} wrong labels", flush=True)
        for shape in shapes:
            run_session(shape, items, data, Path(folder) / shape)


def draw_items(folder: Path, rng: Random) -> list[dict[str, str]]:
    """Write the images, and return the items: id, text, image (or ""), true and given label."""
    folder.mkdir()
    items: list[dict[str, str]] = []
    for number in range(SCREENS):
        kind = rng.choices(list(KINDS), [1 / (place + 2) for place in range(len(KINDS))])[0]
        draw_screen(kind, rng).image.save(folder / f"{number}.jpg", quality=85)
        wrong = CONFUSED.get(kind) or rng.choice([other for other in KINDS if other != kind])
        given = wrong if rng.random() < WRONG else kind
        items.append({"id": f"s{number}", "text": "", "image": f"{number}.jpg", "label": kind, "given": given})
    for number in range(DIALOGUES):
        intent = rng.choice(list(NEAR_INTENTS))
        turns = "\n".join(turn for turn in compose(intent, rng).turns if "<image>" not in turn)
        given = rng.choice(NEAR_INTENTS[intent]) if rng.random() < WRONG else intent
        items.append({"id": f"d{number}", "text": turns, "image": "", "label": intent, "given": given})
    return items


def draw_screen(kind: str, rng: Random) -> Page:
    """Draw a screen: words that many kinds have, and one to three of its own."""
    page = Page("#ffffff")
    page.draw.rectangle((0, 0, 1080, 190), fill=rng.choice(SATURATED))
    own = rng.sample(KINDS[kind].split("|"), rng.randint(1, 3))
    rows = own + rng.sample(WORDS + NOUNS + LABELS, 12)
    rng.shuffle(rows)
    for place, row in enumerate(rows):
        y = 260 + place * 130
        size = rng.choice((26, 30, 36, 44))
        page.write(60 + rng.randint(0, 200), y, row, size, INK)
        if rng.random() < 0.6:
            page.write(
                1020, y, rng.choice((rng.choice(VALUES), make_price(rng))), 28, rng.choice((GREY, RED)), "rm", 500
            )
    return page


def write_shape(shape: str, items: Sequence[dict[str, str]], data: Path, folder: Path) -> str:
    """Write the set into `folder`, and return the words after `labelstill init`."""
    if shape == "folders":
        for item in items:
            if item["image"]:
                place = folder / "shop" / item["given"]
                place.mkdir(parents=True, exist_ok=True)
                shutil.copy(data / item["image"], place)
        return "shop"
    if shape == "csv":
        names = {"id": "编号", "text": "对话", "image": "截图", "given": "类别"}
        table = pd.DataFrame(items)[list(names)].rename(columns=names)
        table.to_csv(folder / "shop.csv", index=False)
        return f"shop.csv {data}"
    rows: list[dict[str, object]] = []
    for item in items:
        labels = KINDS if item["image"] else NEAR_INTENTS
        start = (
            "Picture 1: <image>\n你是一个网页截图专家，请选出类别。"
            if item["image"]
            else "你是一个对话分析专家，请选出意图。\n"
        )
        instruction = f"{start}{item['text']}\n可选的标签：{'、'.join(labels)}"
        rows.append(
            {
                "id": item["id"],
                "instruction": instruction,
                "image": [item["image"]] if item["image"] else [],
                "output": item["given"],
            }
        )
    (folder / "train.json").write_text(json.dumps(rows, ensure_ascii=False), encoding="utf-8")
    return f"train.json {data}"


def run_session(shape: str, items: Sequence[dict[str, str]], data: Path, folder: Path) -> None:
    """Run the commands as a user would, and print their time and what was found."""
    folder.mkdir()
    print(f"\n== {shape}", flush=True)
    truth = {item["image"].partition(".")[0] if shape == "folders" else item["id"]: item for item in items}
    run(folder, f"init {write_shape(shape, items, data, folder)}")
    run(folder, "find-errors")
    output = next(folder.glob("artifacts/*/correction")).parent
    for budget in (40, 100):
        queue = read_queue(output / "review")[:budget]
        verdicts = [{"id": case.sample_id, "verdict": find_item(truth, case.sample_id)["label"]} for case in queue]
        file = folder / f"verdicts-{budget}.jsonl"
        file.write_text("".join(json.dumps(v, ensure_ascii=False) + "\n" for v in verdicts), encoding="utf-8")
        run(folder, f"review import {output} {file} --by anna")
        run(folder, "find-errors")
        kept = pd.read_parquet(output / "correction/kept.parquet")
        wrong = [find_item(truth, i)["label"] != given for i, given in zip(kept.sample_id, kept.given, strict=True)]
        left = [find_item(truth, i)["label"] != label for i, label in zip(kept.sample_id, kept.label, strict=True)]
        print(f"   {budget} verdicts: {sum(wrong)} wrong labels before, {sum(left)} after", flush=True)


def find_item(truth: dict[str, dict[str, str]], identity: str) -> dict[str, str]:
    """Return the item of this id; without an id column an item is named after its image."""
    return truth.get(identity) or truth[Path(identity).stem]


def run(folder: Path, words: str) -> None:
    """Run a command of labelstill in `folder`, and print its last lines and its time."""
    started = time.perf_counter()
    command = [sys.executable, "-m", "flows.commands.main", *words.split()]
    environment = os.environ | {"PYTHONPATH": str(ROOT), "COLUMNS": "150"}
    ended = subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, stdin=subprocess.DEVNULL
    )
    lines = (ended.stdout if ended.returncode == 0 else ended.stdout + ended.stderr).strip().splitlines()
    print(f"$ labelstill {words.replace(str(folder) + '/', '')}   ({time.perf_counter() - started:.0f} s)")
    print("\n".join(f"   {line}" for line in lines[-16:]), flush=True)
    if ended.returncode:
        raise SystemExit(ended.returncode)


if __name__ == "__main__":
    main(sys.argv[1:] or ("json", "folders", "csv"))
