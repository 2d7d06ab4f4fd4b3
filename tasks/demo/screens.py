"""Draw ten kinds of shop screens from shapes, digits and Latin letters, and describe what was drawn."""

from collections.abc import Callable
from dataclasses import dataclass
from random import Random
from typing import NamedTuple

from PIL import Image

from tasks.demo import purchase_screens
from tasks.demo.blocks import WHITE, draw_foot, draw_goods_card, draw_head, draw_rows, draw_ticket, draw_tiles
from tasks.demo.canvas import GREY, HEIGHT, PALE, WIDTH, Canvas, mix


@dataclass(frozen=True)
class Screen:
    """A drawn screen. `marks` describe what is typical of its kind, and `notes` what any kind may contain."""

    image: Image.Image
    marks: tuple[str, ...]
    notes: tuple[str, ...]


# --- the kinds -----------------------------------------------------------------------------------------------


def _draw_cart(c: Canvas) -> None:
    draw_head(c)
    n, ticked = c.rng.randint(2, 4), 0
    for _ in range(n):
        if c.y > HEIGHT - 48:
            break
        x, y = c.card(c.rng.randint(30, 36))
        if c.chance(0.6):
            c.tick(x + 4, y + 11, 4, c.accent)
            ticked += 1
        else:
            c.disc(x + 4, y + 11, 4, WHITE, GREY)
        c.tile(x + 11, y, 22)
        c.bars(x + 37, y + 2, 1, 50)
        c.text(x + 37, y + 13, c.price(), 8, c.accent)
        c.box(78, y + 13, 24, 9, WHITE, line=PALE)
        c.text(90, y + 14, f"{c.rng.randint(1, 9)}", 7, centre=True)
    c.marks.append(f"左侧圆框勾了{ticked}个")
    if c.chance(0.4):
        draw_tiles(c)
    c.marks.append(draw_foot(c, 1, filled=True, share=0.4))
    total = c.price()
    c.disc(8, HEIGHT - 8, 4, WHITE, GREY)
    c.text(20, HEIGHT - 12, total, 10, c.accent)
    c.marks.append(f"底部合计{total}")


def _draw_reviews(c: Canvas) -> None:
    draw_head(c)
    gold = c.shade(c.rng.choice(["黄", "橙", "红"]))
    if c.chance(0.5):
        x, y = c.card(24)
        mean = f"{c.rng.randint(30, 50) / 10}"
        c.text(x, y, mean, 15, c.accent)
        c.bars(x + 34, y + 2, 2, 56)
        c.marks.append(f"评分{mean}")
    elif c.chance(0.4):
        draw_goods_card(c)
    people, pictures, first = 0, 0, 0
    while c.y < HEIGHT - 36:
        shown = c.rng.choice([0, 0, 2, 3]) if c.y < HEIGHT - 50 else 0
        x, y = c.card(34 + (22 if shown else 0))
        c.disc(x + 5, y + 5, 5, c.shade(c.rng.choice([c.accent_name, c.other_name])))
        stars = c.rng.randint(1, 5)
        for i in range(5):
            c.star(x + 20 + i * 9, y + 5, 4, gold if i < stars else PALE)
        c.bars(x, y + 15, 2, 94)
        for i in range(shown):
            c.tile(x + i * 24, y + 26, 21)
        people, pictures, first = people + 1, pictures + shown, first or stars
    c.marks += [f"{people}个头像带星星", f"第一条{first}颗星"]
    c.notes.append(f"文字下有{pictures}张小图" if pictures else "文字下没有小图")


def _draw_refund(c: Canvas) -> None:
    draw_head(c)
    if c.chance(0.65):
        n, done = c.rng.randint(3, 4), c.rng.randint(1, 3)
        _, y = c.card(20)
        gap = 84 / (n - 1)
        c.draw.line([(14, y + 5), (98, y + 5)], fill=PALE, width=2)
        for i in range(n):
            c.disc(14 + i * gap, y + 5, 4, c.accent if i < done else PALE)
        c.marks.append(f"横排{n}个步骤点，亮{done}个")
    else:
        c.box(0, c.y, WIDTH, 26, c.accent)
        c.bars(30, c.y + 9, 2, 60, fill=WHITE)
        c.y += 29
    x, y = c.card(26)
    ink = c.other
    c.draw.arc((x, y + 1, x + 16, y + 17), 30, 310, fill=ink, width=3)
    c.draw.polygon([(x + 10, y + 1), (x + 19, y + 1), (x + 15, y + 9)], fill=ink)
    money = c.price()
    c.text(x + 26, y + 4, money, 13, c.accent)
    c.marks += [f"{c.other_name}色回转箭头", f"金额{money}"]
    draw_goods_card(c)
    draw_rows(c, c.rng.randint(2, 4))
    if c.y < HEIGHT - 40 and c.chance(0.7):
        n = c.rng.randint(1, 3)
        for i in range(n):
            c.box(7 + i * 26, c.y, 22, 22, WHITE, line=GREY)
            c.text(18 + i * 26, c.y + 7, "+", 11, GREY, centre=True)
        c.marks.append(f"{n}个加号方框")
    c.notes.append(draw_foot(c, c.rng.randint(1, 2), filled=c.chance(0.5), share=0.8))


def _draw_photo(c: Canvas) -> None:
    grain = Image.frombytes("L", (7, 10), c.rng.randbytes(70)).resize((WIDTH, HEIGHT), Image.Resampling.BICUBIC)
    dark = Image.new("RGB", grain.size, mix(c.other, (20, 20, 20), 0.65))
    c.image.paste(Image.composite(Image.new("RGB", grain.size, mix(c.other, (190, 180, 165), 0.6)), dark, grain))
    x, y, s = 56 + c.rng.randint(-12, 12), 84 + c.rng.randint(-22, 22), c.rng.randint(62, 104)
    if c.chance(0.22):
        w, h = c.rng.randint(52, 74), c.rng.randint(88, 116)
        shown = draw_screen(c.rng.choice([k for k in KINDS if k != "实物照片"]), c.rng).image.resize((w - 8, h - 12))
        c.box(x - w / 2, y - h / 2, w, h, (18, 18, 20), radius=6)
        c.image.paste(shown, (x - w // 2 + 4, y - h // 2 + 6))
        c.marks.append("桌上一部亮着的手机")
    else:
        c.draw.ellipse((x - s * 0.5, y + s * 0.32, x + s * 0.5, y + s * 0.48), fill=(36, 32, 30))
        c.marks.append(f"一件{c.accent_name}色{c.goods(x, y, s, fill=c.accent)}的实拍")
    cracks = c.rng.choice([0, 0, 1, 2, 3])
    for _ in range(cracks):
        px, py = x + c.rng.randint(-16, 16), y + c.rng.randint(-12, 16)
        bends = [(px + i * 5, py + c.rng.randint(-7, 7)) for i in range(4)]
        c.draw.line(bends, fill=(12, 12, 12), width=2)
    if cracks:
        c.marks.append(f"表面有{cracks}道裂纹")
    if c.chance(0.4):
        stamp = f"{c.rng.randint(1, 12)}/{c.rng.randint(1, 28)}"
        c.text(78, 154, stamp, 9, (250, 200, 60))
        c.marks.append(f"角上日期{stamp}")
    c.marks.append(f"背景是暗{c.other_name}色")


def _draw_coupons(c: Canvas) -> None:
    draw_head(c)
    if c.chance(0.4):
        for i in range(3):
            c.box(8 + i * 34, c.y + 2, 24, 3, c.accent if i == 0 else GREY)
        c.y += 9
    elif c.chance(0.3):
        draw_goods_card(c)
    amounts: list[str] = []
    while c.y < HEIGHT - 38 and len(amounts) < 4:
        h = c.rng.randint(26, 36)
        amounts.append(draw_ticket(c, 5, c.y, WIDTH - 10, h))
        c.y += h + 4
    c.marks += [f"{len(amounts)}张{c.accent_name}色缺口票", "面额" + "和".join(amounts[:2])]
    if c.chance(0.3):
        c.notes.append(draw_foot(c, 1, filled=True))


class Kind(NamedTuple):
    """How to draw one kind of screen, and what it is confused with."""

    draw: Callable[[Canvas], None]
    colours: tuple[str, str]
    """The usual colours of accent and paper. Most kinds share one of them with another kind, but never both."""
    caption: str
    """The phrase with which the base model learns to describe this kind."""
    near: tuple[str, ...]
    """The labels that replace the true one most often when a wrong label is planted."""


KINDS = {
    "商品页": Kind(purchase_screens.draw_product, ("红", "黄"), "一件东西的大图", ("规格选择页", "购物车页")),
    "规格选择页": Kind(purchase_screens.draw_options, ("橙", "紫"), "成排的小块", ("商品页",)),
    "订单详情页": Kind(purchase_screens.draw_order, ("青", "蓝"), "状态条和明细", ("物流页", "退款页")),
    "支付页": Kind(purchase_screens.draw_pay, ("蓝", "绿"), "正中大字的数", ("订单详情页", "购物车页")),
    "物流页": Kind(purchase_screens.draw_logistics, ("绿", "橙"), "一串竖排的点", ("订单详情页", "退款页")),
    "购物车页": Kind(_draw_cart, ("紫", "粉"), "带圆框的清单", ("商品页", "订单详情页")),
    "评价页": Kind(_draw_reviews, ("黄", "青"), "头像和星星", ("商品页", "实物照片")),
    "退款页": Kind(_draw_refund, ("粉", "紫"), "一个回转箭头", ("订单详情页", "物流页")),
    "实物照片": Kind(_draw_photo, ("蓝", "红"), "暗处的实拍", ("商品页", "评价页")),
    "优惠券页": Kind(_draw_coupons, ("红", "橙"), "几张缺口票", ("购物车页", "支付页")),
}

# --- things that may lie over any screen ---------------------------------------------------------------------


def _draw_overlay(c: Canvas) -> None:
    what = c.rng.choice(["toast", "disc", "popup", "ticket", "mark"])
    if what == "toast":
        y = c.rng.randint(60, 120)
        c.box(18, y, 76, 15, (60, 60, 64), radius=5)
        c.bars(26, y + 6, 1, 60, fill=WHITE)
        c.notes.append("一条深色提示")
    elif what == "disc":
        c.disc(98, c.rng.randint(90, 135), 9, c.other)
        c.notes.append(f"右侧{c.other_name}色圆钮")
    elif what == "popup":
        y = c.rng.randint(40, 90)
        c.box(16, y, 80, 44, WHITE, radius=5, line=GREY)
        c.bars(24, y + 8, 2, 64)
        c.button(22, y + 27, 32, 11, c.other, filled=False)
        c.button(58, y + 27, 32, 11, c.other)
        c.notes.append(f"弹窗有{c.other_name}色按钮")
    elif what == "ticket":
        y = c.rng.randint(50, 116)
        c.notes.append(f"浮着一张{c.accent_name}色小票{draw_ticket(c, 14, y, 84, 24)}")
    else:
        c.draw.ellipse((20, 50, 80, 90), outline=(230, 40, 40), width=2)
        c.notes.append("红笔画了圈")


def draw_screen(kind: str, rng: Random) -> Screen:
    """Draw a screen of this kind (a key of KINDS) with 112 by 168 pixels. The same `rng` state gives the same bytes."""
    c = Canvas(rng, KINDS[kind].colours)
    KINDS[kind].draw(c)
    if kind != "实物照片":
        c.box(0, 0, 4, HEIGHT, c.accent)
        c.notes.insert(0, f"{c.accent_name}色左边条，{c.other_name}色底")
    if c.chance(0.15):
        _draw_overlay(c)
    image = c.image
    if c.chance(0.04):
        frame = Image.new("RGB", image.size, c.rng.choice([(0, 0, 0), WHITE, c.other]))
        w, h = c.rng.randint(84, 100), c.rng.randint(130, 152)
        frame.paste(image.resize((w, h)), (c.rng.randint(0, WIDTH - w), c.rng.randint(0, HEIGHT - h)))
        image = frame
        c.notes.append("四周有边框")
    return Screen(image, tuple(c.marks), tuple(c.notes))
