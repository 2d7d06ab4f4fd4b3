"""A small phone screen to draw on, which also collects descriptions of what was drawn on it."""

import functools
import math
from random import Random

from PIL import Image, ImageDraw, ImageFont

WIDTH, HEIGHT = 112, 168

Rgb = tuple[int, int, int]

COLOURS: dict[str, Rgb] = {
    "红": (222, 60, 56),
    "橙": (242, 140, 40),
    "黄": (232, 192, 52),
    "绿": (60, 168, 92),
    "青": (50, 176, 186),
    "蓝": (58, 110, 220),
    "紫": (138, 84, 198),
    "粉": (236, 120, 164),
}
GOODS = ("衣服", "杯子", "鞋子", "包", "瓶子", "盒子")
WORDS = ("SHOP", "Home", "Info", "Item", "Hello", "Mall", "Store", "My", "View", "Page")
USUAL = 0.88
"""Share of screens with the usual colours of their kind. If colours were always random, a tiny model would learn
nothing in two minutes."""
INK, GREY, PALE = (50, 50, 54), (150, 150, 156), (206, 206, 212)


@functools.cache
def font(size: int) -> ImageFont.ImageFont | ImageFont.FreeTypeFont:
    """Return Pillow's default font in this size (in pixels). It has no CJK characters."""
    return ImageFont.load_default(size)


def mix(a: Rgb, b: Rgb, share: float) -> Rgb:
    """Return a mixture of two colours: a if `share` is 0, b if it is 1."""
    red, green, blue = (round(x + (y - x) * share) for x, y in zip(a, b, strict=True))
    return red, green, blue


class Canvas:
    """A screen that is being drawn.

    `y` is the top of the next block. `marks` describe what is typical of this kind of screen, and `notes` the rest.
    """

    def __init__(self, rng: Random, usual: tuple[str, str]) -> None:
        """Start a screen, usually in the colours `usual` (accent, paper) and sometimes in two random colours."""
        self.rng = rng
        self.accent_name, self.other_name = usual if rng.random() < USUAL else rng.sample(sorted(COLOURS), 2)
        self.accent, self.other = self.shade(self.accent_name), self.shade(self.other_name)
        self.paper = mix((255, 255, 255), self.other, rng.uniform(0.3, 0.5))
        self.image = Image.new("RGB", (WIDTH, HEIGHT), self.paper)
        self.draw = ImageDraw.Draw(self.image)
        self.y = 0
        self.marks: list[str] = []
        self.notes: list[str] = []

    def chance(self, p: float) -> bool:
        """Return True with probability p."""
        return self.rng.random() < p

    def shade(self, name: str) -> Rgb:
        """Return the colour of this name, made slightly lighter or darker at random."""
        return mix(COLOURS[name], self.rng.choice([(255, 255, 255), (0, 0, 0)]), self.rng.uniform(0, 0.18))

    def box(self, x: float, y: float, w: float, h: float, fill: Rgb | None, radius: int = 0, line: Rgb | None = None):
        """Draw a rectangle of w by h pixels with its top left corner at (x, y)."""
        self.draw.rounded_rectangle((x, y, x + w - 1, y + h - 1), radius, fill=fill, outline=line)

    def disc(self, x: float, y: float, r: float, fill: Rgb | None, line: Rgb | None = None) -> None:
        """Draw a circle with radius r around (x, y)."""
        self.draw.ellipse((x - r, y - r, x + r, y + r), fill=fill, outline=line)

    def text(self, x: float, y: float, text: str, size: int = 9, fill: Rgb = INK, *, centre: bool = False) -> None:
        """Draw Latin letters and digits. x is their left edge or, with `centre`, their middle."""
        self.draw.text((x, y), text, font=font(size), fill=fill, anchor="mt" if centre else "lt")

    def bars(self, x: float, y: float, n: int, width: float, *, gap: int = 6, fill: Rgb = PALE) -> None:
        """Draw n grey bars that look like lines of small print."""
        for i in range(n):
            self.box(x, y + i * gap, width * self.rng.uniform(0.5, 1), 2, fill)

    def price(self) -> str:
        """Return a random price."""
        rng = self.rng
        return rng.choice([f"{rng.randint(5, 399)}", f"{rng.randint(5, 199)}.{rng.choice('059')}"])

    def tick(self, x: float, y: float, r: float, fill: Rgb) -> None:
        """Draw a filled circle with a tick in it."""
        self.disc(x, y, r, fill)
        corners = [(x - r / 2, y), (x - r / 8, y + r / 2), (x + r / 2, y - r / 2)]
        self.draw.line(corners, fill=(255, 255, 255), width=max(1, round(r / 4)))

    def star(self, x: float, y: float, r: float, fill: Rgb) -> None:
        """Draw a five-pointed star."""
        corners = [(r if i % 2 == 0 else r * 0.45, math.pi * (i / 5 - 0.5)) for i in range(10)]
        self.draw.polygon([(x + d * math.cos(a), y + d * math.sin(a)) for d, a in corners], fill=fill)

    def goods(self, x: float, y: float, s: float, what: str | None = None, fill: Rgb | None = None) -> str:
        """Draw an article in a square with side s around (x, y), and return its Chinese name."""
        what = what or self.rng.choice(GOODS)
        fill = fill or self.shade(self.rng.choice(sorted(COLOURS)))
        dark = mix(fill, (0, 0, 0), 0.35)
        u = s / 10

        def shape(*points: tuple[float, float]) -> None:
            self.draw.polygon([(x + px * u, y + py * u) for px, py in points], fill=fill, outline=dark)

        def block(px: float, py: float, w: float, h: float, colour: Rgb | None) -> None:
            self.box(x + px * u, y + py * u, max(2, w * u), max(2, h * u), colour, line=dark)

        if what == "衣服":
            shape((-2, -4), (2, -4), (5, -1), (3, 1), (2.4, 0), (2.4, 4), (-2.4, 4), (-2.4, 0), (-3, 1), (-5, -1))
        elif what == "杯子":
            self.disc(x + 2.6 * u, y, 2 * u, None, dark)
            block(-3.2, -3.5, 5.6, 7.4, fill)
        elif what == "鞋子":
            shape((-4.5, -2), (-1.5, -2), (0.5, 0.5), (4.5, 1.2), (4.5, 3), (-4.5, 3))
            block(-4.5, 2.6, 9, 1, (250, 250, 250))
        elif what == "包":
            self.disc(x, y - 1.5 * u, 2.4 * u, None, dark)
            shape((-3.6, -1.5), (3.6, -1.5), (4.6, 4), (-4.6, 4))
        elif what == "瓶子":
            block(-1, -4.5, 2, 2.4, dark)
            shape((-1, -2.4), (1, -2.4), (2.6, -0.6), (2.6, 4.4), (-2.6, 4.4), (-2.6, -0.6))
        else:
            shape((-4, -2), (4, -2), (4, 3.6), (-4, 3.6))
            block(-0.8, -2, 1.6, 5.6, dark)
        return what

    def tile(self, x: float, y: float, s: float) -> str:
        """Draw a product picture in a square with its top left corner at (x, y), and return the article's name."""
        self.box(x, y, s, s, mix(self.shade(self.rng.choice(sorted(COLOURS))), (255, 255, 255), 0.75), radius=2)
        return self.goods(x + s / 2, y + s / 2, s * 0.8)

    def button(self, x: float, y: float, w: float, h: float, fill: Rgb, *, filled: bool = True) -> None:
        """Draw a pill-shaped button, with a bar instead of text."""
        self.box(x, y, w, h, fill if filled else (255, 255, 255), radius=int(h // 2), line=fill)
        self.box(x + w * 0.3, y + h / 2 - 1, w * 0.4, 2, (255, 255, 255) if filled else fill)

    def card(self, h: int) -> tuple[int, int]:
        """Draw a white card of height h, move `y` below it, and return the top left corner of the space inside it."""
        top, margin = self.y, self.rng.randint(2, 5)
        self.box(margin, top, WIDTH - 2 * margin, h, (255, 255, 255), radius=3, line=mix(self.paper, INK, 0.08))
        self.y += h + self.rng.randint(2, 5)
        return margin + 4, top + 4
