"""DeepZoom: any slide as levels that halve in size down to one pixel, cut into square tiles.

Pixel i of the level that is k below the largest covers level-0 [i * 2^k, (i + 1) * 2^k), whatever levels the file has.
Reference: Deep Zoom file format (Microsoft Silverlight), as OpenSlide's DeepZoomGenerator and OpenSeadragon use it.
"""

from __future__ import annotations

import math
import threading
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from PIL import Image

from pathpipe.slides.slide import Level, Pixels, Slide, read_shrunk

TILE_PX, OVERLAP_PX = 512, 1
OVERVIEW_PX = 1024
_MAX_READ_PX = 1 << 24  # what is read at once: bounds memory where a file has no small levels
_SAME = 1e-3  # a level this close to the one wanted is shown as it is: half a pixel over a tile


@dataclass(frozen=True)
class Part:
    """A rectangle in px of one DeepZoom level."""

    x: int
    y: int
    w: int
    h: int


@dataclass(frozen=True)
class DeepZoom:
    """Levels and tiles of a picture.

    Attributes:
        size0: (width, height), px.
        tile_px: Side of a tile without its overlap.
        overlap_px: By how much a tile reaches over each neighbour.
    """

    size0: tuple[int, int]
    tile_px: int = TILE_PX
    overlap_px: int = OVERLAP_PX

    @cached_property
    def top(self) -> int:
        """Number of the largest level; level 0 is one pixel."""
        return (max(self.size0) - 1).bit_length()

    def level_size(self, level: int) -> tuple[int, int]:
        """(width, height) of a level, px."""
        below = self.top - level
        return -(-self.size0[0] >> below), -(-self.size0[1] >> below)

    def level_tiles(self, level: int) -> tuple[int, int]:
        """(columns, rows) of a level."""
        width, height = self.level_size(level)
        return -(-width // self.tile_px), -(-height // self.tile_px)

    def part(self, level: int, column: int, row: int) -> Part | None:
        """The pixels of a tile with its overlap, or None where there is no such tile."""
        if not 0 <= level <= self.top:
            return None
        columns, rows = self.level_tiles(level)
        if not (0 <= column < columns and 0 <= row < rows):
            return None
        width, height = self.level_size(level)
        x, w = self._span(column, width)
        y, h = self._span(row, height)
        return Part(x, y, w, h)

    def _span(self, index: int, length: int) -> tuple[int, int]:
        start = max(0, index * self.tile_px - self.overlap_px)
        end = min(length, (index + 1) * self.tile_px + self.overlap_px)
        return start, end - start


class Pyramid:
    """A slide's pixels as DeepZoom tiles. Safe from several threads."""

    def __init__(self, slide: Slide, deepzoom: DeepZoom | None = None) -> None:
        self.slide = slide
        self.deepzoom = deepzoom or DeepZoom(slide.size0)
        self._overview: Pixels | None = None
        self._lock = threading.Lock()

    def tile(self, level: int, column: int, row: int) -> Pixels | None:
        """One tile, (H, W, 3) uint8, or None where there is no such tile.

        Raises:
            SlideError: The region can't be decoded.
        """
        part = self.deepzoom.part(level, column, row)
        if part is None:
            return None
        if level > self._overview_level:
            return read_part(self.slide, self.deepzoom.top - level, part)
        small = _halved(self._small(), self._overview_level - level)
        return small[part.y : part.y + part.h, part.x : part.x + part.w]

    @cached_property
    def _overview_level(self) -> int:
        """The largest level of at most OVERVIEW_PX."""
        dz = self.deepzoom
        return max(level for level in range(dz.top + 1) if max(dz.level_size(level)) <= OVERVIEW_PX)

    def _small(self) -> Pixels:
        """The overview, read once: where a file has no small levels, each look at it would cost the whole slide."""
        with self._lock:
            if self._overview is None:
                level = self._overview_level
                whole = Part(0, 0, *self.deepzoom.level_size(level))
                self._overview = read_part(self.slide, self.deepzoom.top - level, whole)
            return self._overview


def read_part(slide: Slide, below: int, part: Part) -> Pixels:
    """A rectangle of the picture 2^below times smaller than level 0, each pixel the mean of what it covers.

    Returns:
        (part.h, part.w, 3) uint8. At the right and lower edge, pixels that reach past the slide count its last ones.

    Raises:
        SlideError: The region can't be decoded.
    """
    level, shrink = _source(slide, 2.0**below)
    factor = (2.0**below / (level.downsample[0] * shrink), 2.0**below / (level.downsample[1] * shrink))
    if part.w * factor[0] * part.h * factor[1] > _MAX_READ_PX and part.w * part.h > 1:
        first, second = _cut(part)
        axis = 1 if first.h == part.h else 0
        return np.concatenate([read_part(slide, below, first), read_part(slide, below, second)], axis=axis)
    if max(abs(factor[0] - 1), abs(factor[1] - 1)) < _SAME:
        x, y = round(part.x * factor[0]), round(part.y * factor[1])
        return _read(slide, level, shrink, Part(x, y, part.w, part.h))
    left, right = part.x * factor[0], (part.x + part.w) * factor[0]
    upper, lower = part.y * factor[1], (part.y + part.h) * factor[1]
    x, y = math.floor(left + 1e-9), math.floor(upper + 1e-9)
    width, height = math.ceil(right - 1e-9) - x, math.ceil(lower - 1e-9) - y
    source = _read(slide, level, shrink, Part(x, y, width, height))
    box = (max(left - x, 0.0), max(upper - y, 0.0), min(right - x, width), min(lower - y, height))
    return np.asarray(Image.fromarray(source).resize((part.w, part.h), Image.Resampling.BOX, box))


def _source(slide: Slide, step0: float) -> tuple[Level, int]:
    """The coarsest level not coarser than `step0` level-0 px per px, with as little shrinking as that takes."""
    fits = [
        (max(level.downsample) * shrink, -shrink, -level.index)
        for level in slide.levels
        for shrink in level.shrinks
        if max(level.downsample) * shrink <= step0 * (1 + _SAME)
    ]
    if not fits:
        return slide.levels[0], 1
    coarsest = max(by for by, _, _ in fits)
    near = [fit for fit in fits if fit[0] >= coarsest * (1 - _SAME)]
    _, shrink, index = max(near, key=lambda fit: (fit[1], fit[2]))
    return slide.levels[-index], -shrink


def _cut(part: Part) -> tuple[Part, Part]:
    """Two halves; rows are parted first, because pixels are stored in rows of tiles."""
    if part.h > 1:
        half = part.h // 2
        return Part(part.x, part.y, part.w, half), Part(part.x, part.y + half, part.w, part.h - half)
    half = part.w // 2
    return Part(part.x, part.y, half, part.h), Part(part.x + half, part.y, part.w - half, part.h)


def _read(slide: Slide, level: Level, shrink: int, part: Part) -> Pixels:
    """Pixels of a (shrunken) level; past its end its last ones go on."""
    width, height = -(-level.size_px[0] // shrink), -(-level.size_px[1] // shrink)
    x, y = min(part.x, width - 1), min(part.y, height - 1)
    w, h = min(part.x + part.w, width) - x, min(part.y + part.h, height) - y
    w, h = max(w, 1), max(h, 1)
    xy0 = (round(x * level.downsample[0] * shrink), round(y * level.downsample[1] * shrink))
    pixels = read_shrunk(slide, xy0, level.index, (w, h), shrink)
    if (w, h) == (part.w, part.h):
        return pixels
    return np.pad(pixels, ((0, part.h - h), (0, part.w - w), (0, 0)), mode="edge")


def _halved(pixels: Pixels, times: int) -> Pixels:
    """Shrunk by 2^times, each pixel the mean of a block; the last blocks repeat the edge."""
    if times == 0:
        return pixels
    by = 1 << times
    height, width = pixels.shape[:2]
    padded = np.pad(pixels, ((0, -height % by), (0, -width % by), (0, 0)), mode="edge")
    return np.asarray(Image.fromarray(padded).reduce(by))
