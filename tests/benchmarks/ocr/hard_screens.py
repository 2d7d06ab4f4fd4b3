"""Draw phone screenshots that are hard to read for OCR, but not for a person, together with the text on them."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from pathlib import Path
from random import Random

import numpy as np
from PIL import Image, ImageDraw, ImageFilter, ImageFont

WIDTH, HEIGHT, TALL = 1080, 2340, 6000
INK, GREY, RED, PINK = "#222226", "#8c8c92", "#e12424", "#ffe8e2"
SATURATED = (RED, "#ff6200", "#009646", "#146eeb", "#8232d2", "#e11e78", "#008c96")
POOLS = """\
HUAWEI|Nike|adidas|UNIQLO|LEGO|iPhone15|Xiaomi|SONY|Dyson|ZARA|Levi's|OPPO|Anker|Philips|MUJI|L'OREAL
加厚|轻薄|纯棉|防水|便携|静音|智能|复古|大容量|儿童|夏季新款|进口|无线|折叠|可水洗|不锈钢
连衣裙|保温杯|蓝牙耳机 2 件装|充电宝|运动鞋|双肩包|空气炸锅 1.5L|牛仔裤 XL 码|洗面奶|台灯|猫粮|雨伞|键盘|床上四件套
收藏|购物车|客服|首页|消息|待付款|已签收|优惠券|秒杀|包邮|Hot|New|VIP|Sale|Top1|物流|发票|省钱卡|直播|立即抢|凑单|好评
订单编号|下单时间|付款方式|商品总额|运费|平台红包|实付款|收货人|联系电话|物流单号|支付交易号|颜色分类|积分抵扣|备注
在线支付|Visa 尾号 4821|墨绿色 / L|电子发票|顺丰速运|x1|-¥40.00|杭州市余杭区文一西路 969 号|上海市浦东新区张杨路 500 号
您好，请问这款还有货吗？|亲，今天下单明天 18:00 前发出哦|屏幕有划痕，想申请退货退款|尺码偏小，平时穿 M 就选 L\
|已放在 3 号楼快递柜，取件码 6-2-8047|The parcel was left at the front desk.|优惠券满 299 减 40，有效期至 2024.11.11\
|充电器是 USB-C 接口，支持 65W 快充|退款将在 1-3 个工作日内原路退回您的账户|Is this compatible with Windows 11?
"""
BRANDS, ADJECTIVES, NOUNS, WORDS, LABELS, VALUES, SENTENCES = (line.split("|") for line in POOLS.splitlines())


@dataclass(frozen=True)
class HardScreen:
    """A screenshot and the lines of text drawn on it, none for a picture without text."""

    path: Path
    kind: str
    texts: tuple[str, ...]


@cache
def load_font(size: int) -> ImageFont.FreeTypeFont:
    """Load the simplified Chinese face of Noto Sans CJK, which also has Latin letters. Large text is bold."""
    font = ImageFont.truetype(str(files("manimgx_fonts_cjk") / "NotoSansCJK-VF.otf.ttc"), size, index=2)
    font.set_variation_by_axes([600 if size > 40 else 400])
    return font


class Page:
    """A screen that is being drawn, and the texts on it so far."""

    def __init__(self, paper: str | Image.Image, height: int = HEIGHT) -> None:
        self.image = Image.new("RGB", (WIDTH, height), paper) if isinstance(paper, str) else paper
        self.draw = ImageDraw.Draw(self.image)
        self.edge: str | None = None  # colour of the text's outline
        self.texts: list[str] = []

    def write(self, x: int, y: int, text: str, size: int, fill: str, anchor: str = "lm", max_width: int = 1000) -> int:
        """Draw and record a line of text, without the characters beyond `max_width`. Return its right edge."""
        font = load_font(size)
        while font.getlength(text) > max_width:
            text = text[:-1].rstrip()
        stroke = size // 14 + 1 if self.edge else 0
        self.draw.text((x, y), text, fill, font, anchor, stroke_width=stroke, stroke_fill=self.edge)
        self.texts.append(text)
        return round(self.draw.textbbox((x, y), text, font, anchor)[2])

    def write_price(self, x: int, y: int, price: str, size: int) -> int:
        """Draw a price as shops do, with its currency and cents in a smaller size. Return its right edge."""
        whole, cents = price.split(".")
        for part, height in (("¥", size * 2 // 3), (whole, size), (f".{cents}", size * 2 // 3)):
            x = self.write(x + 1, y, part, height, RED, "ls")
        self.texts[-3:] = [f"¥{price}"]
        return x

    def write_tag(self, x: int, y: int, text: str, size: int, paper: str, fill: str, angle: int = 0) -> int:
        """Draw text on a label with round corners, its left edge at x and its middle at y. Return its right edge."""
        width, height = int(load_font(size).getlength(text)) + size, int(size * 1.6)
        tag = Image.new("RGBA", (width, height))
        draw = ImageDraw.Draw(tag)
        draw.rounded_rectangle((0, 0, width - 1, height - 1), 6 if angle else height // 2, paper)
        draw.text((width / 2, height / 2), text, fill, load_font(size), "mm")
        tag = tag.rotate(angle, Image.Resampling.BICUBIC, expand=True)
        self.image.paste(tag, (x, y - tag.height // 2), tag)
        self.texts.append(text)
        return x + tag.width


def make_price(rng: Random) -> str:
    return f"{rng.choice((rng.randint(1, 99), rng.randint(100, 6999)))}.{rng.choice(('00', '90', '99', '08'))}"


def make_title(rng: Random) -> str:
    return f"{rng.choice(BRANDS)} {''.join(rng.sample(ADJECTIVES, 3))}{rng.choice(NOUNS)}"


def make_value(rng: Random) -> str:
    moment = f"2024-{rng.randint(10, 12)}-{rng.randint(10, 30)} {rng.randint(10, 23)}:{rng.randint(10, 59)}"
    numbers = str(rng.randint(10**17, 10**18)), f"SF{rng.randint(10**12, 10**13)}", f"¥{make_price(rng)}"
    return rng.choice((moment, *numbers, rng.choice(VALUES)))


def make_photo(rng: Random, width: int = WIDTH, height: int = HEIGHT) -> Image.Image:
    """Return a picture like a photo: colour gradients, blurred and sharp blobs, texture and grain."""
    noise = np.random.default_rng(rng.getrandbits(64))
    total = np.zeros((height, width, 3), np.float32)
    for cells, share in ((2, 0.5), (5, 0.22), (16, 0.12), (60, 0.08), (200, 0.08)):
        grid = Image.fromarray(noise.integers(0, 256, (cells * height // width + 1, cells, 3), dtype=np.uint8))
        total += share * np.asarray(grid.resize((width, height), Image.Resampling.BICUBIC), np.float32)
    image = Image.fromarray(total.astype(np.uint8))
    for blur in (width // 60, 1):
        for _ in range(8):
            x, y, r = rng.randrange(width), rng.randrange(height), rng.randint(width // 30, width // 5)
            fill = f"hsl({rng.randrange(360)}, {rng.randint(10, 80)}%, {rng.randint(10, 90)}%)"
            ImageDraw.Draw(image).ellipse((x - r, y - r * rng.uniform(0.4, 1), x + r, y + r), fill)
        image = image.filter(ImageFilter.GaussianBlur(blur))
    grainy = np.asarray(image, np.float32) + noise.normal(0, 7, (height, width, 1))
    return Image.fromarray(grainy.clip(0, 255).astype(np.uint8))


def draw_photo(rng: Random) -> Page:
    """Draw a photo with text in opaque or translucent boxes, or with only an outline."""
    page = Page(make_photo(rng))
    for y in range(rng.randint(40, 100), HEIGHT - 310, 330):
        size, x, width = rng.choice((30, 36, 44, 60, 84)), rng.randint(30, 200), rng.randint(560, 820)
        count = rng.randint(1, 200 // size)
        paper, ink = rng.choice((("#ffffff", INK), ("#000000", "#ffffff"), ("#fff096", "#961414")))
        opacity = rng.choice((255, 150, 0))
        page.edge = None if opacity else paper
        page.image.paste(paper, (x, y), Image.new("L", (width, size * 3 * count // 2 + size // 2), opacity))
        for line in range(count):
            text = rng.choice((make_title(rng), rng.choice(SENTENCES), f"{rng.choice(WORDS)} ¥{make_price(rng)}"))
            page.write(x + 16, y + size + size * 3 * line // 2, text, size, ink, max_width=width - 32)
    return page


def draw_goods(rng: Random, height: int = HEIGHT) -> Page:
    """Draw a list of goods with a picture, a title, tags, a price and a count each."""
    page = Page("white", height)
    for y in range(40, height - 280, 280):
        page.image.paste(make_photo(rng, 230, 230), (40, y + 20))
        page.write(300, y + 45, make_title(rng), 34, INK, max_width=730)
        page.write(300, y + 95, rng.choice(SENTENCES), 26, GREY, max_width=730)
        x = 300
        for word in rng.sample(WORDS, 3):
            x = 14 + page.write_tag(x, y + 148, word, 22, *rng.choice(((PINK, RED), (RED, "white"))))
        x = 30 + page.write_price(300, y + 225, make_price(rng), 44)
        page.write(x, y + 212, f"{rng.randint(2, 900)}人付款", 24, GREY)
    return page


def draw_chat(rng: Random) -> Page:
    """Draw a chat on a long screen."""
    page = Page("#f0f0f2", TALL)
    for y in range(60, TALL - 280, rng.randint(270, 290)):
        text = f"{rng.choice(SENTENCES)} {rng.choice((rng.choice(WORDS), make_value(rng)))}"
        lines = [text[start : start + 18].strip() for start in range(0, len(text), 18)]
        x, bubble = rng.choice(((40, "white"), (320, "#96e66e")))
        page.draw.rounded_rectangle((x, y, x + 720, y + 40 + 54 * len(lines)), 18, bubble)
        for number, line in enumerate(lines):
            page.write(x + 26, y + 46 + 54 * number, line, 36, INK)
    return page


def draw_order(rng: Random, sizes: tuple[int, int] = (24, 28), contrasts: tuple[int, int] = (115, 220)) -> Page:
    """Draw dense order details in two columns of names and values. Text is this many levels darker than its paper."""
    page = Page("white")
    step = sizes[1] + rng.randint(12, 24)
    for y in range(20, HEIGHT - 60, step):
        paper, size = rng.choice((255, 250, 243, 235)), rng.randint(*sizes)
        grey, ink = ("#" + f"{paper - rng.randint(*contrasts):02x}" * 3 for _ in range(2))
        page.draw.rectangle((0, y, WIDTH, y + step), (paper, paper, paper))
        for x in (40, 560):
            max_width = x + 460 - page.write(x, y + step // 2, rng.choice(LABELS), size, grey)
            text = rng.choice((make_value(rng), rng.choice(SENTENCES)))
            page.write(x + 480, y + step // 2, text, size, ink, "rm", max_width)
    return page


def draw_badges(rng: Random) -> Page:
    """Draw icons with tiny badges between short words, numbers and prices."""
    page = Page("white")
    width = WIDTH // rng.choice((4, 5))
    for y in range(40, HEIGHT - 240, 250):
        for x in range(0, WIDTH - width + 1, width):
            middle = x + width // 2
            page.draw.regular_polygon((middle, y + 40, 44), rng.choice((3, 5, 6)), fill=rng.choice(SATURATED))
            if rng.random() < 0.6:
                page.write_tag(middle + 34, y + 6, rng.choice(("3", "8", "12", "99+", "新", "减5")), 18, RED, "white")
            page.write(middle, y + 110, rng.choice(WORDS), 26, INK, "mm")
            page.write_price(x + 30, y + 170, make_price(rng), 34)
            right = page.write_tag(x + 16, y + 205, rng.choice(WORDS), 18, PINK, RED)
            page.draw.regular_polygon((right + 18, y + 205, 12), 5, fill="orange")
            page.write(right + 36, y + 205, str(rng.choice((rng.randint(1, 9999), 4.8, 4.5))), 20, GREY)
    return page


def draw_icons(rng: Random) -> Page:
    page = Page(rng.choice(("white", "#18181c")))
    for y in range(120, HEIGHT - 100, 200):
        for x in range(120, WIDTH, 210):
            page.draw.regular_polygon((x, y, rng.randint(16, 80)), rng.choice((3, 5, 6)), fill=rng.choice(SATURATED))
    return page


def draw_colours(rng: Random) -> Page:
    """Draw a dark page with white text on saturated buttons, slanted stickers and banners, and grey and blue text."""
    page = Page(rng.choice(("#121214", "#1e2028")))
    for y in range(40, HEIGHT - 480, 480):
        x = 40
        for word in rng.sample(WORDS, 4):
            x = 40 + page.write_tag(x, y + 40, word, rng.choice((28, 34, 44)), rng.choice(SATURATED), "white")
        page.write(40, y + 110, rng.choice(SENTENCES), 28, "#78a0ff", max_width=600)
        page.write(1040, y + 110, make_value(rng), 24, "#808088", "rm", max_width=380)
        for x, angle in ((60, rng.choice((-12, 7))), (560, rng.choice((-7, 12)))):
            text, size = f"{rng.choice(WORDS)} {make_price(rng)}", rng.choice((36, 44))
            page.write_tag(x, y + 220, text, size, rng.choice(SATURATED), "white", angle)
        page.draw.rectangle((40, y + 310, 1040, y + 450), rng.choice(SATURATED))
        page.write(80, y + 350, make_title(rng), 44, "white", max_width=920)
        page.write(80, y + 415, rng.choice(SENTENCES), 28, "white", max_width=920)
    return page


KINDS: dict[str, Callable[[Random], Page]] = {
    "photo": draw_photo,
    "compressed": draw_goods,
    "pale": lambda rng: draw_order(rng, (18, 22), (60, 100)),
    "badges": draw_badges,
    "tall_chat": draw_chat,
    "tall_list": lambda rng: draw_goods(rng, TALL),
    "order": draw_order,
    "textless": lambda rng: draw_icons(rng) if rng.random() < 0.5 else Page(make_photo(rng)),
    "colours": draw_colours,
}


def draw_hard_screens(folder: Path, count_per_kind: int, seed: int) -> list[HardScreen]:
    """Draw this many screens of each kind into `folder`. A screen depends on nothing but the seed, kind and number."""
    folder.mkdir(parents=True, exist_ok=True)
    screens: list[HardScreen] = []
    for kind, draw in KINDS.items():
        for number in range(count_per_kind):
            rng = Random(f"{seed} {kind} {number}")
            page = draw(rng)
            path = folder / f"{kind}_{number:03}.{'jpg' if kind == 'compressed' else 'png'}"
            if kind == "compressed":
                page.image.thumbnail((rng.choice((WIDTH, WIDTH * 3 // 4)), HEIGHT))  # messengers shrink pictures
            page.image.save(path, quality=rng.randint(30, 60))  # PNG ignores it
            screens.append(HardScreen(path, kind, tuple(page.texts)))
    return screens
