"""The tile sheet: the tiles that score highest and lowest, with their places and numbers."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw

from pathpipe.explain.scores import Scores
from pathpipe.slides.slide import Pixels, Slide
from pathpipe.tiles.plan import ReadPlan
from pathpipe.tiles.stream import stream_tiles
from pathpipe.tissue.legend import Rgb, font, wrap

TILE_PX = 176
_GAP, _LINE, _TEXT, _COLUMNS = 10, 17, 13, 8
_HIGH: Rgb = (190, 60, 20)
_LOW: Rgb = (60, 60, 130)
_BATCH = 16


@dataclass(frozen=True, eq=False)
class Extremes:
    """Rows of the tiles that score highest and lowest, each from the outermost inwards."""

    highest: npt.NDArray[np.int64]
    lowest: npt.NDArray[np.int64]

    @classmethod
    def of(cls, scores: Scores, count: int) -> Extremes:
        """At most `count` of each, and no tile twice; ties in the order of the tiles."""
        order = np.argsort(-scores.score, kind="stable")
        highest = order[: min(count, -(-len(order) // 2))]
        lowest = order[::-1][: min(count, len(order) - len(highest))]
        return cls(highest, lowest)


def read_tiles_at(slide: Slide, plan: ReadPlan, xy0: npt.NDArray[np.int64]) -> Pixels:
    """(n, tile_px, tile_px, 3) uint8, read as for the encoder, a tile at a time wherever it lies.

    Raises:
        SlideError: A tile can't be decoded.
    """
    batches = [batch.pixels for batch in stream_tiles(slide, plan, xy0, _BATCH)]
    return np.concatenate(batches) if batches else np.zeros((0, plan.tile_px, plan.tile_px, 3), np.uint8)


def draw_sheet(slide: Slide, plan: ReadPlan, scores: Scores, count: int, title: str) -> bytes:
    """Read and draw the extreme tiles: the highest above, the lowest below; under each its place and numbers.

    Returns:
        A JPEG file; equal input gives equal bytes.
    """
    extremes = Extremes.of(scores, count)
    ranks = scores.ranks()
    heads = (
        (f"highest: {scores.kind}", _HIGH, extremes.highest),
        (f"lowest: {scores.kind}", _LOW, extremes.lowest),
    )
    columns = min(_COLUMNS, max(1, len(extremes.highest)))
    cell = (TILE_PX + _GAP, TILE_PX + _GAP + 2 * _LINE)
    rows = [-(-len(chosen) // columns) for _, _, chosen in heads]
    width = max(columns * cell[0] + _GAP, 3 * cell[0])
    sheet = Image.new("RGB", (width, 2 * _LINE + sum(2 * _LINE + count * cell[1] for count in rows)), "white")
    draw = ImageDraw.Draw(sheet)
    (line,) = wrap(title, font(_TEXT + 2, bold=True), width - 2 * _GAP, most=1)
    draw.text((_GAP, _LINE), line, fill="black", font=font(_TEXT + 2, bold=True), anchor="lm")
    top = 2 * _LINE
    for (head, colour, chosen), count_rows in zip(heads, rows, strict=True):
        if not len(chosen):
            continue
        (line,) = wrap(head, font(_TEXT), width - 2 * _GAP, most=1)
        draw.text((_GAP, top + _LINE), line, fill=colour, font=font(_TEXT), anchor="lm")
        top += 2 * _LINE
        pixels = read_tiles_at(slide, plan, scores.xy0[chosen])
        for number, row in enumerate(chosen.tolist()):
            x = _GAP + number % columns * cell[0]
            y = top + number // columns * cell[1]
            texts = _texts(scores, ranks, row)
            _draw_tile(sheet, draw, (x, y), pixels[number], texts, colour)
        top += count_rows * cell[1]
    buffer = io.BytesIO()
    sheet.save(buffer, "JPEG", quality=88)
    return buffer.getvalue()


def _texts(scores: Scores, ranks: npt.NDArray[np.float64], row: int) -> tuple[str, str]:
    x0, y0 = scores.xy0[row].tolist()
    return f"({x0:,}, {y0:,})", f"{scores.score[row]:.3g}  ·  {100 * ranks[row]:.3g} %"


def _draw_tile(
    sheet: Image.Image, draw: ImageDraw.ImageDraw, at: tuple[int, int], pixels: Pixels, texts: Sequence[str], frame: Rgb
) -> None:
    x, y = at
    tile = Image.fromarray(pixels).resize((TILE_PX, TILE_PX), Image.Resampling.LANCZOS)
    sheet.paste(tile, (x, y))
    draw.rectangle([x - 2, y - 2, x + TILE_PX + 1, y + TILE_PX + 1], outline=frame, width=2)
    for number, text in enumerate(texts):
        draw.text((x, y + TILE_PX + 4 + number * _LINE), text, fill="black", font=font(_TEXT))
