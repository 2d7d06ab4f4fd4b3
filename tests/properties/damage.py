"""Random damage: to bytes, to texts, to the fields of an object. All that is random comes from the `Random` given."""

import copy
from collections.abc import Callable, Sequence
from random import Random
from typing import Any

Row = dict[str, Any]

ODD_TEXTS = (
    "", " ", "\0", "\ud800", "a\udcffb", "\u2028", "\ufeff", "\u202eabc", "𝟘👩‍👩‍👧", "e\u0301" * 9,
    "x" * 5000, "<image>" * 3,
    "Picture 1: <image>", "<|im_end|>", "<|image_pad|>", "{{ 7 * 7 }}", "</script><script>alert(1)</script>",
    "'; DROP TABLE answers; --", "=1+1", "../../etc/passwd", "/etc/passwd", "a.png/../..", "file:///etc/passwd",
    "a.png\0.jpg", "~", "-rf", "[", "['a.png'", '["a.png", 3]', "[" * 3000, "nan", "NULL", "neither", "1e999", "\n\r\t",
)  # fmt: skip
ODD_VALUES = (
    None, True, False, 0, -1, 7, 7.0, 1.5, 1e308, float("nan"), float("inf"), 10**25, 2**63, [], {}, [[]], [None],
    [1, "a"],
    {"a": 1}, {"path": "a.png"}, ["a.png"] * 40, [["a.png"]],
)  # fmt: skip
_MARKS = (
    b"\0",
    b"\n",
    b"\r",
    b'"',
    b"'",
    b"{",
    b"}",
    b"[",
    b"]",
    b",",
    b"\\",
    b"\xff",
    b"\xef\xbb\xbf",
    b"\xff\xfe",
    b"PAR1",
)


def odd_value(rng: Random) -> Any:
    """A value that nobody expects."""
    return rng.choice(ODD_TEXTS) if rng.random() < 0.6 else copy.deepcopy(rng.choice(ODD_VALUES))


def damaged_text(rng: Random, text: str) -> str:
    """A text cut, doubled, or with something odd in it."""
    at, to = sorted((rng.randint(0, len(text)), rng.randint(0, len(text))))
    ways: Sequence[Callable[[], str]] = (
        lambda: text[:at],
        lambda: text[at:],
        lambda: text[:at] + text[to:],
        lambda: text[:to] + text[at:],
        lambda: text[:at] + rng.choice(ODD_TEXTS) + text[at:],
        lambda: (
            text[:at]
            + chr(rng.choice((rng.randrange(0x20), rng.randrange(0x3000), rng.randrange(0x110000))))
            + text[at:]
        ),
        lambda: text.swapcase(),
    )
    return rng.choice(ways)()


def damaged_row(rng: Random, row: Row) -> Any:
    """An object with one to three faults in its fields; sometimes no object at all."""
    if rng.random() < 0.05:
        return odd_value(rng)
    row = copy.deepcopy(row)
    for _ in range(rng.randint(1, 3)):
        if not row:
            break
        name = rng.choice(sorted(row))
        way = rng.randrange(6)
        if way == 0:
            del row[name]
        elif way == 1:
            row[damaged_text(rng, name)] = row.pop(name)
        elif way == 2:
            row[name] = row[rng.choice(sorted(row))]
        elif way == 3 and isinstance(row[name], str):
            row[name] = damaged_text(rng, row[name])
        elif way == 4 and isinstance(row[name], dict):
            row[name] = damaged_row(rng, row[name])
        elif way == 5 and isinstance(row[name], list) and row[name]:
            at = rng.randrange(len(row[name]))
            old = row[name][at]
            row[name][at] = damaged_row(rng, old) if isinstance(old, dict) else odd_value(rng)
        else:
            row[name] = odd_value(rng)
    return row


def damaged_bytes(rng: Random, data: bytes) -> bytes:
    """Bytes with one to three faults, as a torn write, a bad disk or a wrong editor makes them."""
    for _ in range(rng.randint(1, 3)):
        at, to = sorted((rng.randint(0, len(data)), rng.randint(0, len(data))))
        way = rng.randrange(8)
        if way == 0:
            data = data[:at]
        elif way == 1:
            data = data[:at] + data[min(to, at + rng.randint(1, 40)) :]
        elif way == 2:
            data = data[:at] + rng.randbytes(rng.randint(1, 8)) + data[at:]
        elif way == 3 and at < len(data):
            data = data[:at] + bytes([data[at] ^ (1 << rng.randrange(8))]) + data[at + 1 :]
        elif way == 4:
            data = data[:to] + data[at:]
        elif way == 5:
            data = data[:at] + bytes(min(to - at, 600)) + data[min(to, at + 600) :]
        elif way == 6:
            data = rng.choice(_MARKS) + data
        else:
            data = data[:at] + rng.choice(_MARKS) + data[at:]
    return data


def sometimes(rng: Random, chance: float, way: Callable[[Random, Any], Any], value: Any) -> Any:
    """The value, with this chance changed."""
    return way(rng, value) if rng.random() < chance else value
