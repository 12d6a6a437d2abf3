"""The footer of a picture: a scale bar, what colours mean, numbers, and sentences a person should read."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path
from typing import Literal

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from pathpipe.slides.slide import Pixels

Rgb = tuple[int, int, int]
WARNING: Rgb = (178, 34, 34)
_MIN_WIDTH = 560  # a tall, narrow slide still gets a footer that can be read


@dataclass(frozen=True)
class Entry:
    """One thing in the footer.

    Attributes:
        mark: What stands before the text: a `bar` of `length_px`, a `line`, a filled `box`, a `hatch`, or nothing.
    """

    text: str
    mark: Literal["bar", "line", "box", "hatch", "none"] = "none"
    colour: Rgb = (0, 0, 0)
    length_px: float = 0.0


def with_footer(picture: Pixels, entries: Sequence[Entry], warnings: Sequence[str]) -> Pixels:
    """A picture with entries below it, as many rows as they need, and warnings below those."""
    height, width = picture.shape[:2]
    full = max(width, _MIN_WIDTH)
    size = max(13, full // 70)
    face, row = font(size), round(size * 1.7)
    placed, rows = _placed(entries, face, full - size, size)
    sentences = [line for one in warnings for line in wrap(f"⚠ {one}", face, full - 2 * size)]
    pad = size // 2
    canvas = Image.new("RGB", (full, height + 2 * pad + row * (rows + len(sentences))), "white")
    canvas.paste(Image.fromarray(picture), ((full - width) // 2, 0))
    draw = ImageDraw.Draw(canvas)
    for entry, x, line in placed:
        y = height + pad + row * line + row / 2
        _draw_mark(draw, entry, (x, y), size)
        draw.text((x + _mark_width(entry, size), y), entry.text, fill="black", font=face, anchor="lm")
    for line, text in enumerate(sentences, start=rows):
        draw.text((size, height + pad + row * line + row / 2), text, fill=WARNING, font=face, anchor="lm")
    return np.asarray(canvas)


def _placed(
    entries: Sequence[Entry], face: ImageFont.FreeTypeFont, right: float, size: int
) -> tuple[list[tuple[Entry, float, int]], int]:
    """Each entry with its x and row, and how many rows there are."""
    placed, x, row = [], float(size), 0
    for entry in entries:
        width = _mark_width(entry, size) + face.getlength(entry.text)
        if x > size and x + width > right:
            x, row = float(size), row + 1
        placed.append((entry, x, row))
        x += width + 1.6 * size
    return placed, row + 1


def _mark_width(entry: Entry, size: int) -> float:
    width = {"none": 0.0, "bar": entry.length_px, "line": 1.6 * size, "box": 1.1 * size, "hatch": 1.1 * size}
    return width[entry.mark] + (0.5 * size if entry.mark != "none" else 0)


def _draw_mark(draw: ImageDraw.ImageDraw, entry: Entry, at: tuple[float, float], size: int) -> None:
    x, y = at
    if entry.mark == "bar":
        draw.line([(x, y), (x + entry.length_px, y)], fill=entry.colour, width=max(3, size // 4))
    elif entry.mark == "line":
        draw.line([(x, y), (x + 1.6 * size, y)], fill=entry.colour, width=max(3, size // 5))
    elif entry.mark in ("box", "hatch"):
        half = 0.5 * size
        draw.rectangle(
            [x, y - half, x + 1.1 * size, y + half],
            fill=_pale(entry.colour),
            outline=entry.colour,
            width=max(1, size // 8),
        )
        if entry.mark == "hatch":
            for step in (0.35, 0.85):
                draw.line([(x + step * size - half, y + half), (x + step * size + half, y - half)], fill=entry.colour)


def _pale(colour: Rgb) -> Rgb:
    red, green, blue = ((value + 2 * 255) // 3 for value in colour)
    return red, green, blue


@lru_cache(maxsize=16)
def font(size: int, bold: bool = False) -> ImageFont.FreeTypeFont:
    """DejaVu Sans, which matplotlib brings along: Pillow's own font lacks µ, ² and ⚠."""
    found = find_spec("matplotlib")  # only where it lies: importing it takes longer than drawing
    assert found is not None and found.origin is not None
    name = "DejaVuSans-Bold.ttf" if bold else "DejaVuSans.ttf"
    return ImageFont.truetype(Path(found.origin).parent / "mpl-data" / "fonts" / "ttf" / name, size)


def wrap(text: str, face: ImageFont.FreeTypeFont, width: float, most: int | None = None) -> list[str]:
    """Lines that fit into `width` px, at most `most` of them, the last one cut with an ellipsis."""
    lines = [""]
    for word in text.split():
        longer = f"{lines[-1]} {word}".strip()
        if not lines[-1] or face.getlength(longer) <= width:
            lines[-1] = longer
        else:
            lines.append(word)
    if most is not None and len(lines) > most:
        lines = [*lines[: most - 1], " ".join(lines[most - 1 :])]
    return [_cut(line, face, width) for line in lines]


def _cut(line: str, face: ImageFont.FreeTypeFont, width: float) -> str:
    if face.getlength(line) <= width:
        return line
    low, high = 0, len(line)
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if face.getlength(line[:middle] + "…") <= width else (low, middle - 1)
    return line[:low].rstrip() + "…"
