"""Thumbnails: a whole slide at a coarse resolution, read in bands so that memory is bounded on any pyramid."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from pathpipe.slides.slide import Level, Pixels, Slide, read_shrunk

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

    The coarsest level not coarser than that is shrunk by a whole number, so a pixel is the mean of a block of level
    pixels and its place is exact. Where the reader can shrink while it decodes, it does the first part.

    Raises:
        SlideError: A part of the level can't be decoded.
    """
    level, shrink = _level_for(slide, scale0)
    size = (-(-level.size_px[0] // shrink), -(-level.size_px[1] // shrink))
    step0 = (level.downsample[0] * shrink, level.downsample[1] * shrink)
    factor = max(1, round(scale0 / float(np.mean(step0))))
    width, height = (-(-side // factor) for side in size)
    pixels = np.empty((height, width, 3), np.uint8)
    rows = max(1, _BAND_BYTES // (width * factor * factor * 3))
    for top in range(0, height, rows):
        count = min(rows, height - top)
        y0 = round(top * factor * step0[1])
        band = read_shrunk(slide, (0, y0), level.index, (width * factor, count * factor), shrink)
        band = _edge_repeated(band, size, top * factor)
        pixels[top : top + count] = cv2.resize(band, (width, count), interpolation=cv2.INTER_AREA)
    return Thumbnail(pixels, (step0[0] * factor, step0[1] * factor))


def _level_for(slide: Slide, scale0: float) -> tuple[Level, int]:
    """The level and shrinking that come closest from below, with as little shrinking as that takes."""
    fits = [
        (max(level.downsample) * shrink, -shrink, level)
        for level in slide.levels
        for shrink in level.shrinks
        if max(level.downsample) * shrink <= scale0 * 1.01
    ]
    if not fits:
        return slide.levels[0], 1
    coarsest = max(by for by, _, _ in fits)
    _, shrink, level = max((fit for fit in fits if fit[0] >= coarsest / 1.01), key=lambda fit: fit[1])
    return level, -shrink


def _edge_repeated(band: Pixels, size: tuple[int, int], top: int) -> Pixels:
    """The last blocks reach past the slide: repeat its edge, so that white doesn't thin the tissue there."""
    right = band.shape[1] - size[0]
    below = top + band.shape[0] - size[1]
    if right <= 0 and below <= 0:
        return band
    inside = band[: band.shape[0] - max(below, 0), : band.shape[1] - max(right, 0)]
    padded = cv2.copyMakeBorder(inside, 0, max(below, 0), 0, max(right, 0), cv2.BORDER_REPLICATE)
    return np.asarray(padded, dtype=np.uint8)
