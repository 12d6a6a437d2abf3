"""Thumbnails: a whole slide at a coarse resolution, read in bands so that memory is bounded on any pyramid."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from pathpipe.slides.slide import Level, Pixels, Slide

_BAND_BYTES = 64 << 20


@dataclass(frozen=True)
class Thumbnail:
    """A whole slide, small.

    Attributes:
        pixels: (H, W, 3) uint8.
        scale0: Level-0 px per thumbnail px, (x, y). Thumbnail px (i, j) covers level-0
            [j * scale0.x, (j + 1) * scale0.x) x [i * scale0.y, (i + 1) * scale0.y).
    """

    pixels: Pixels
    scale0: tuple[float, float]


def read_thumbnail(slide: Slide, scale0: float) -> Thumbnail:
    """Read a whole slide at about `scale0` level-0 px per px.

    The coarsest level not coarser than that is shrunk by a whole number, so a pixel is the exact mean of a block of
    level pixels and its place is exact.

    Raises:
        SlideError: A part of the level can't be decoded.
    """
    level = _level_for(slide, scale0)
    factor = max(1, round(scale0 / float(np.mean(level.downsample))))
    width, height = (-(-side // factor) for side in level.size_px)
    pixels = np.empty((height, width, 3), np.uint8)
    rows = max(1, _BAND_BYTES // (width * factor * factor * 3))
    for top in range(0, height, rows):
        count = min(rows, height - top)
        y0 = round(top * factor * level.downsample[1])
        band = slide.read((0, y0), level.index, (width * factor, count * factor))
        band = _edge_repeated(band, level, top * factor)
        pixels[top : top + count] = cv2.resize(band, (width, count), interpolation=cv2.INTER_AREA)
    return Thumbnail(pixels, (level.downsample[0] * factor, level.downsample[1] * factor))


def _level_for(slide: Slide, scale0: float) -> Level:
    fine_enough = [level for level in slide.levels if max(level.downsample) <= scale0 * 1.01]
    return max(fine_enough, key=lambda level: level.downsample) if fine_enough else slide.levels[0]


def _edge_repeated(band: Pixels, level: Level, top: int) -> Pixels:
    """The last blocks reach past the slide: repeat its edge, so that white doesn't thin the tissue there."""
    right = band.shape[1] - level.size_px[0]
    below = top + band.shape[0] - level.size_px[1]
    if right <= 0 and below <= 0:
        return band
    inside = band[: band.shape[0] - max(below, 0), : band.shape[1] - max(right, 0)]
    padded = cv2.copyMakeBorder(inside, 0, max(below, 0), 0, max(right, 0), cv2.BORDER_REPLICATE)
    return np.asarray(padded, dtype=np.uint8)
