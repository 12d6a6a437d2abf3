"""The window of a region: what of it lies in its level is decoded, the rest is white."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

from pathpipe.errors import SlideError
from pathpipe.slides.slide import Pixels, Slide
from pathpipe.slides.tiff import COPY_AGAIN, one_line

Decode = Callable[[int, int, int, int], Pixels]


def refuse_no_level(slide: Slide, level: int) -> None:
    """Stop at a level the slide hasn't; a negative number is none.

    Raises:
        SlideError: There is no such level.
    """
    if not 0 <= level < len(slide.levels):
        raise SlideError(f"has no level {level}", where=slide.path.name)


def read_window(
    slide: Slide,
    xy0: tuple[int, int],
    level: int,
    size_px: tuple[int, int],
    decode: Decode,
    damage: tuple[type[Exception], ...] = (),
) -> Pixels:
    """`Slide.read` for readers that decode whole pixels inside a level.

    Args:
        decode: (x, y, width, height) in px of the level, all of it inside, to (height, width, 3) uint8.
        damage: What `decode` raises over a slide that isn't sound.

    Raises:
        SlideError: There is no such level, or the region can't be decoded.
    """
    refuse_no_level(slide, level)
    width, height = slide.levels[level].size_px
    down_x, down_y = slide.levels[level].downsample
    left, top = math.floor(xy0[0] / down_x + 0.5), math.floor(xy0[1] / down_y + 0.5)
    out = np.full((size_px[1], size_px[0], 3), 255, np.uint8)
    x1, y1 = max(left, 0), max(top, 0)
    x2, y2 = min(left + size_px[0], width), min(top + size_px[1], height)
    if x2 <= x1 or y2 <= y1:
        return out
    try:
        out[y1 - top : y2 - top, x1 - left : x2 - left] = decode(x1, y1, x2 - x1, y2 - y1)
    except damage as error:
        raise SlideError(
            f"damaged: level {level} can't be read at {xy0}: {one_line(error)}",
            where=slide.path.name,
            hint=COPY_AGAIN,
        ) from None
    return out
