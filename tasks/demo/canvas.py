"""A small phone screen to draw on, which keeps a list of what was drawn on it in words."""

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
"""Share of screens in the usual colours of their kind; with none, two minutes teach a tiny model nothing."""
INK, GREY, PALE = (50, 50, 54), (150, 150, 156), (206, 206, 212)


@functools.cache
def font(size: int) -> ImageFont.ImageFont | ImageFont.FreeTypeFont:
    """Pillow's own font (no CJK) at a size in pixels."""
    return ImageFont.load_default(size)


def mix(a: Rgb, b: Rgb, share: float) -> Rgb:
    """The colour `share` of the way from a to b."""
    red, green, blue = (round(x + (y - x) * share) for x, y in zip(a, b, strict=True))
    return red, green, blue


class Canvas:
    """A drawing under way. `y` is where the next block starts; `marks` tell the kind, `notes` are the rest."""

    def __init__(self, rng: Random, usual: tuple[str, str]) -> None:
        """`usual` are the accent and paper colours that most screens of a kind have; the others have any two."""
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
        """True with probability p."""
        return self.rng.random() < p

    def shade(self, name: str) -> Rgb:
        """A named colour, a little lighter or darker each time."""
        return mix(COLOURS[name], self.rng.choice([(255, 255, 255), (0, 0, 0)]), self.rng.uniform(0, 0.18))

    def box(self, x: float, y: float, w: float, h: float, fill: Rgb | None, radius: int = 0, line: Rgb | None = None):
        """A rectangle by its top left corner and size."""
        self.draw.rounded_rectangle((x, y, x + w - 1, y + h - 1), radius, fill=fill, outline=line)

    def disc(self, x: float, y: float, r: float, fill: Rgb | None, line: Rgb | None = None) -> None:
        """A circle by its centre."""
        self.draw.ellipse((x - r, y - r, x + r, y + r), fill=fill, outline=line)

    def text(self, x: float, y: float, text: str, size: int = 9, fill: Rgb = INK, *, centre: bool = False) -> None:
        """Latin letters and digits; `centre` takes x as the middle."""
        self.draw.text((x, y), text, font=font(size), fill=fill, anchor="mt" if centre else "lt")

    def bars(self, x: float, y: float, n: int, width: float, *, gap: int = 6, fill: Rgb = PALE) -> None:
        """n grey bars that stand for lines of small print."""
        for i in range(n):
            self.box(x, y + i * gap, width * self.rng.uniform(0.5, 1), 2, fill)

    def price(self) -> str:
        """Some amount of money."""
        rng = self.rng
        return rng.choice([f"{rng.randint(5, 399)}", f"{rng.randint(5, 199)}.{rng.choice('059')}"])

    def tick(self, x: float, y: float, r: float, fill: Rgb) -> None:
        """A filled circle with a tick in it."""
        self.disc(x, y, r, fill)
        corners = [(x - r / 2, y), (x - r / 8, y + r / 2), (x + r / 2, y - r / 2)]
        self.draw.line(corners, fill=(255, 255, 255), width=max(1, round(r / 4)))

    def star(self, x: float, y: float, r: float, fill: Rgb) -> None:
        """A five-pointed star."""
        corners = [(r if i % 2 == 0 else r * 0.45, math.pi * (i / 5 - 0.5)) for i in range(10)]
        self.draw.polygon([(x + d * math.cos(a), y + d * math.sin(a)) for d, a in corners], fill=fill)

    def goods(self, x: float, y: float, s: float, what: str | None = None, fill: Rgb | None = None) -> str:
        """One article within an s by s square around (x, y); returns its Chinese name."""
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
        """A square product picture with its top left corner at (x, y)."""
        self.box(x, y, s, s, mix(self.shade(self.rng.choice(sorted(COLOURS))), (255, 255, 255), 0.75), radius=2)
        return self.goods(x + s / 2, y + s / 2, s * 0.8)

    def button(self, x: float, y: float, w: float, h: float, fill: Rgb, *, filled: bool = True) -> None:
        """A pill with a stroke of writing on it."""
        self.box(x, y, w, h, fill if filled else (255, 255, 255), radius=int(h // 2), line=fill)
        self.box(x + w * 0.3, y + h / 2 - 1, w * 0.4, 2, (255, 255, 255) if filled else fill)

    def card(self, h: int) -> tuple[int, int]:
        """A white card of height h across the screen; moves `y` below it and returns its inner top left corner."""
        top, margin = self.y, self.rng.randint(2, 5)
        self.box(margin, top, WIDTH - 2 * margin, h, (255, 255, 255), radius=3, line=mix(self.paper, INK, 0.08))
        self.y += h + self.rng.randint(2, 5)
        return margin + 4, top + 4
