"""Draw five kinds of screens: product, options, order, payment, parcel. screens.py draws the other kinds."""

from PIL import Image

from tasks.demo.blocks import WHITE, draw_foot, draw_goods_card, draw_head, draw_rows, draw_tiles
from tasks.demo.canvas import GREY, HEIGHT, INK, PALE, WIDTH, Canvas, mix


def draw_product(c: Canvas) -> None:
    """Draw a product page: a large picture, a price, and buttons at the bottom."""
    if c.chance(0.4):
        draw_head(c)
    h = c.rng.randint(48, 84)
    c.box(0, c.y, WIDTH, h, mix(c.other, WHITE, c.rng.uniform(0.4, 0.85)))
    what = c.goods(56 + c.rng.randint(-14, 14), c.y + h / 2, h * c.rng.uniform(0.6, 0.85))
    c.marks.append(f"上方大图是{what}")
    c.y += h + 3
    if c.chance(0.4):
        n = c.rng.randint(3, 5)
        for i in range(n):
            c.tile(4 + i * 17, c.y, 14)
        c.y += 17
        c.notes.append(f"{n}个小图排成一行")
    money = c.price()
    c.text(5, c.y, money, c.rng.randint(11, 15), c.accent)
    c.marks.append(f"{c.accent_name}色价格{money}")
    c.bars(5, c.y + 16, c.rng.randint(1, 3), 96)
    c.y += 34
    if c.chance(0.3):
        draw_rows(c, 2)
    elif c.chance(0.5):
        draw_tiles(c)
    c.marks.append(draw_foot(c, c.rng.randint(1, 2), filled=True, share=c.rng.choice([1.0, 0.65])))


def draw_options(c: Canvas) -> None:
    """Draw a choice of options: a sheet that covers a product and has chips to choose from."""
    c.tile(0, 0, WIDTH)
    top = c.rng.choice([c.rng.randint(14, 34), c.rng.randint(44, 72)])
    if c.chance(0.8):
        c.image.paste(Image.blend(c.image, Image.new("RGB", c.image.size), 0.5))
    c.box(0, top, WIDTH, HEIGHT, WHITE, radius=6)
    what = c.tile(5, top + 5, 24)
    money = c.price()
    c.text(34, top + 8, money, 11, c.accent)
    c.bars(34, top + 21, 1, 50)
    c.notes.append(f"小图是{what}，旁边写{money}")
    y, count = top + 35, 0
    chosen = c.rng.randint(0, 3)
    while y < HEIGHT - 36 and (count == 0 or c.chance(0.9)):
        c.box(5, y, 18, 2, GREY)
        y, x = y + 6, 5
        while x < 84 and not (count > chosen and c.chance(0.15)):
            w = c.rng.choice([18, 22, 28])
            on = count == chosen
            fill = mix(c.accent, WHITE, 0.75) if on else (238, 238, 240)
            c.box(x, y, w, 11, fill, radius=3, line=c.accent if on else None)
            c.text(x + w / 2, y + 3, c.rng.choice(["S", "M", "L", "XL", "36", "38", "40", "A1", "B2"]), 7, centre=True)
            x, count = x + w + 4, count + 1
        y += 16
    choice = f"第{chosen + 1}块{c.accent_name}色选中" if chosen < count else "没有选中的块"
    c.marks += [f"弹层里{count}个选项块", choice]
    c.notes.append(draw_foot(c, 1, filled=True))


def draw_order(c: Canvas) -> None:
    """Draw an order: a status bar, an address, articles, and rows of details."""
    draw_head(c)
    h = c.rng.randint(20, 30)
    c.box(0, c.y, WIDTH, h, c.accent if c.chance(0.7) else mix(c.accent, WHITE, 0.7))
    c.tick(14, c.y + h / 2, 7, c.other)
    c.bars(28, c.y + h / 2 - 5, 2, 60, fill=WHITE)
    c.marks.append(f"{c.accent_name}色状态条带对勾")
    c.y += h + 3
    x, y = c.card(22)
    c.disc(x + 4, y + 5, 4, c.other)
    c.draw.polygon([(x, y + 7), (x + 8, y + 7), (x + 4, y + 14)], fill=c.other)
    c.bars(x + 14, y + 2, 2, 70)
    c.marks.append(f"{c.other_name}色地址针")
    articles = c.rng.randint(1, 2) if c.y < 76 else 1
    for _ in range(articles):
        draw_goods_card(c)
    c.marks.append(f"{articles}张商品卡和{draw_rows(c, c.rng.randint(2, 5))}行明细")
    if c.chance(0.3):
        draw_tiles(c)
    c.notes.append(draw_foot(c, c.rng.randint(2, 3), filled=False, share=0.85))


def draw_pay(c: Canvas) -> None:
    """Draw a payment: a large amount, with ways to pay, a keypad, or a tick for success."""
    draw_head(c)
    money, way = c.price(), c.rng.choice(["list", "list", "keys", "done"])
    if way == "done":
        c.tick(56, c.y + 22, c.rng.randint(11, 16), c.accent)
        c.marks.append(f"{c.accent_name}色大对勾")
        c.y += 44
    c.text(56, c.y + 5, money, c.rng.randint(16, 21), INK, centre=True)
    c.marks.append(f"正中大字金额{money}")
    c.y += 30
    if way == "list":
        n, on = c.rng.randint(2, 4), c.rng.randint(0, 1)
        x, y = c.card(n * 17 + 4)
        for i in range(n):
            c.box(x, y + i * 17, 11, 11, c.shade(c.rng.choice([c.accent_name, c.other_name, "绿", "蓝"])), radius=4)
            c.bars(x + 16, y + i * 17 + 4, 1, 44)
            c.disc(94, y + i * 17 + 5, 4, c.accent if i == on else WHITE, GREY)
        c.marks.append(f"{n}个单选圆点，选第{on + 1}个")
    elif way == "keys":
        for i in range(6):
            c.box(12 + i * 15, c.y, 13, 13, WHITE, line=GREY)
        typed = c.rng.randint(0, 5)
        for i in range(typed):
            c.disc(18 + i * 15, c.y + 6, 3, INK)
        for i in range(12):
            x, y = i % 3 * 37, HEIGHT - 72 + i // 3 * 18
            c.box(x, y, 37, 18, WHITE, line=PALE)
            c.text(x + 18, y + 5, "123456789 0X"[i], 10, centre=True)
        c.marks.append(f"数字键盘，输了{typed}位")
        return
    elif c.chance(0.6):
        draw_rows(c, c.rng.randint(2, 4))
    c.marks.append(draw_foot(c, 1, filled=way == "list" or c.chance(0.5)))


def draw_logistics(c: Canvas) -> None:
    """Draw a parcel's tracking page: a vertical timeline, often with a map or a tracking number."""
    draw_head(c)
    if c.chance(0.4):
        h = c.rng.randint(34, 50)
        c.box(0, c.y, WIDTH, h, (220, 234, 222))
        points = [(x, c.y + c.rng.randint(6, h - 6)) for x in (8, 36, 70, 102)]
        c.draw.line(points, fill=c.accent, width=2)
        c.disc(*points[-1], 3, c.other)
        c.marks.append(f"地图上{c.accent_name}色路线")
        c.y += h + 3
    elif c.chance(0.6):
        draw_goods_card(c)
    if c.chance(0.7):
        number = str(c.rng.randint(10**7, 10**8 - 1))
        x, y = c.card(16)
        c.text(x, y, number, 9, GREY)
        c.marks.append(f"单号{number[:4]}开头")
    step = c.rng.randint(14, 18)
    n = min(c.rng.randint(3, 6), (HEIGHT - 8 - c.y) // step)
    x, y = c.card(n * step + 4)
    x += c.rng.choice([0, 0, 18])
    c.draw.line([(x + 4, y + 4), (x + 4, y + (n - 1) * step + 4)], fill=PALE)
    for i in range(n):
        c.disc(x + 4, y + i * step + 4, 3 if i == 0 else 2, c.accent if i == 0 else PALE)
        c.bars(x + 13, y + i * step + 1, 2, 88 - x, gap=5, fill=GREY if i == 0 else PALE)
    c.marks.insert(0, f"竖排{n}个节点，首个{c.accent_name}色")
    if c.chance(0.4):
        draw_tiles(c)
    if c.y < HEIGHT - 20 and c.chance(0.5):
        c.notes.append(draw_foot(c, 2, filled=False, share=0.7))
