"""Draw blocks that several kinds of screens share, for example the card that orders, parcels and refunds contain."""

from tasks.demo.canvas import GREY, HEIGHT, INK, PALE, WIDTH, WORDS, Canvas, mix

WHITE = (255, 255, 255)


def draw_head(c: Canvas) -> None:
    """Draw a status bar, a title bar, both or neither, at random."""
    if c.chance(0.5):
        c.text(4, 2, f"{c.rng.randint(0, 23)}:{c.rng.randint(10, 59)}", 7, GREY)
        c.box(WIDTH - 14, 3, 10, 4, GREY)
        c.y = 9
    if c.chance(0.75):
        filled = c.chance(0.5)
        c.box(0, c.y, WIDTH, 14, c.accent if filled else WHITE)
        ink = WHITE if filled else INK
        c.draw.line([(9, c.y + 3), (5, c.y + 7), (9, c.y + 11)], fill=ink)
        if c.chance(0.7):
            word = c.rng.choice(WORDS)
            c.text(WIDTH / 2, c.y + 4, word, 9, ink, centre=True)
            c.notes.append(f"顶栏写着{word}")
        else:
            c.notes.append(f"{c.accent_name if filled else '白'}色顶栏")
        c.y += 14
    c.y += c.rng.randint(1, 5)


def draw_goods_card(c: Canvas) -> None:
    """Draw a card with an article, its name and its price."""
    x, y = c.card(c.rng.randint(28, 34))
    what = c.tile(x, y, 20)
    c.bars(x + 25, y + 2, 2, 50)
    money = c.price()
    c.text(x + 25, y + 14, money, 8, c.accent)
    c.notes.append(f"卡片里有{what}和{money}")


def draw_rows(c: Canvas, n: int) -> int:
    """Draw a card with up to n rows of a key and a value, as many as fit; return the number of rows."""
    n = min(n, (HEIGHT - 24 - c.y) // 8)
    if n < 1:
        return 0
    x, y = c.card(6 + 8 * n)
    for i in range(n):
        c.box(x, y + i * 8, c.rng.randint(12, 24), 2, GREY)
        width = c.rng.randint(14, 32)
        c.box(WIDTH - x - width, y + i * 8, width, 2, PALE)
    c.notes.append(f"{n}行左右对齐的灰字")
    return n


def draw_tiles(c: Canvas) -> None:
    """Draw two recommended articles side by side if there is space."""
    if c.y > HEIGHT - 30:
        return
    names = [c.tile(x, c.y, 44) for x in (8, 60)]
    c.bars(8, c.y + 47, 2, 40)
    c.bars(60, c.y + 47, 2, 40)
    c.y += 62
    c.notes.append(f"两个商品格子，{names[0]}和{names[1]}")


def draw_foot(c: Canvas, n: int, *, filled: bool, share: float = 1.0) -> str:
    """Draw a bar with n buttons at the bottom, and return its description. The buttons take `share` of the width."""
    h = c.rng.randint(15, 19)
    top = HEIGHT - h
    c.box(0, top, WIDTH, h, WHITE)
    width = (WIDTH - 8) * share / n
    for i in range(n):
        x = WIDTH - 4 - (i + 1) * width + 1
        c.button(x, top + 3, width - 2, h - 6, c.accent if i == 0 else c.other, filled=filled)
    return f"底部{n}个{c.accent_name if n == 1 else c.other_name + c.accent_name}色{'' if filled else '空心'}按钮"


def draw_ticket(c: Canvas, x: float, y: float, w: float, h: float) -> str:
    """Draw a coupon with a notch, and return the amount on it."""
    amount = str(c.rng.choice([3, 5, 8, 10, 15, 20, 30, 50, 80, 100]))
    c.box(x, y, w, h, mix(c.accent, WHITE, 0.8), radius=3)
    c.box(x, y, w * 0.34, h, c.accent, radius=3)
    c.text(x + w * 0.17, y + h / 2 - 5, amount, 11, WHITE, centre=True)
    for cut in (y, y + h):
        c.disc(x + w * 0.36, cut, 2.5, c.paper)
    c.bars(x + w * 0.42, y + h / 2 - 5, 2, w * 0.28, fill=mix(c.accent, WHITE, 0.4))
    c.button(x + w * 0.76, y + h / 2 - 4, w * 0.2, 8, c.accent)
    return amount
