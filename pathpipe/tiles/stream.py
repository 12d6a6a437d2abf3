"""The stream of tiles: batches of pixels in order, read and decoded ahead by threads, in bounded memory."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from itertools import pairwise

import cv2
import numpy as np
import numpy.typing as npt

from pathpipe.clock import Clock
from pathpipe.slides.slide import Pixels, Slide, read_into, read_shrunk
from pathpipe.tiles.plan import ReadPlan


@dataclass(frozen=True)
class TileBatch:
    """A run of tiles.

    Attributes:
        start: Row of the first one in the grid.
        pixels: (n, tile_px, tile_px, 3) uint8 RGB.
    """

    start: int
    pixels: Pixels


def stream_tiles(
    slide: Slide,
    plan: ReadPlan,
    xy0: npt.NDArray[np.int64],
    batch_size: int,
    *,
    threads: int = 2,
    start: int = 0,
    clock: Clock | None = None,
) -> Iterator[TileBatch]:
    """Read tiles in raster order.

    Args:
        xy0: (N, 2) corners, level-0 px.
        threads: Readers; two batches at most are read ahead.
        start: First row wanted.
        clock: Told how long threads spent on `read` (where the reader can tell it from decoding) and `decode`, and how
            long whoever takes the batches had to `wait` for them.

    Raises:
        SlideError: A tile can't be decoded; names its coordinates.
    """
    clock = clock or Clock()
    starts = deque(range(start, len(xy0), batch_size))
    pool = ThreadPoolExecutor(threads, thread_name_prefix="pathpipe-read")
    waiting: deque[tuple[int, list[Future[None]], Pixels]] = deque()
    read_before = getattr(slide, "read_seconds", 0.0)
    try:
        while starts or waiting:
            while starts and len(waiting) < 2:
                first = starts.popleft()
                waiting.append(
                    (first, *_submit(pool, _Reading(slide, plan, clock), xy0[first : first + batch_size], threads))
                )
            first, parts, pixels = waiting.popleft()
            with clock.spend("wait"):
                for part in parts:
                    part.result()
            yield TileBatch(first, pixels)
    finally:
        read_s = getattr(slide, "read_seconds", 0.0) - read_before
        clock.add("read", read_s)
        clock.add("decode", -read_s)
        for _, parts, _ in waiting:
            for part in parts:
                part.cancel()
        pool.shutdown(wait=True, cancel_futures=True)


@dataclass(frozen=True)
class _Reading:
    slide: Slide
    plan: ReadPlan
    clock: Clock

    def run(self, xy0: npt.NDArray[np.int64], into: Pixels) -> None:
        """Read a contiguous run of tiles."""
        slide, plan = self.slide, self.plan
        as_it_is = plan.read_px == (plan.tile_px, plan.tile_px)
        with self.clock.spend("decode"):
            for row, (x0, y0) in enumerate(xy0.tolist()):
                if as_it_is:
                    read_into(slide, into[row], (x0, y0), plan.level, plan.shrink)
                else:
                    region = read_shrunk(slide, (x0, y0), plan.level, plan.read_px, plan.shrink)
                    into[row] = resize_tile(region, plan.tile_px)


def _submit(
    pool: ThreadPoolExecutor, reading: _Reading, xy0: npt.NDArray[np.int64], threads: int
) -> tuple[list[Future[None]], Pixels]:
    """Split a batch into contiguous runs, one a thread: neighbours share native tiles in the reader's cache."""
    pixels = np.empty((len(xy0), reading.plan.tile_px, reading.plan.tile_px, 3), np.uint8)
    bounds = np.linspace(0, len(xy0), threads + 1).astype(int)
    runs = [(a, b) for a, b in pairwise(bounds.tolist()) if b > a]
    return [pool.submit(reading.run, xy0[a:b], pixels[a:b]) for a, b in runs], pixels


def resize_tile(region: Pixels, tile_px: int) -> Pixels:
    """The one resize: area means when shrinking, cubic when enlarging, nothing when the size is right.

    Args:
        region: (H, W, 3) uint8.

    Returns:
        (tile_px, tile_px, 3) uint8.
    """
    height, width = region.shape[:2]
    if (height, width) == (tile_px, tile_px):
        return region
    # Each axis by itself: rectangular pixels may shrink along one only. A read within 2% of the tile is a matter of
    # um/px rounding: area means there would only blur unevenly.
    limit = tile_px * 1.02
    smaller = (tile_px if width > limit else width, tile_px if height > limit else height)
    if smaller != (width, height):
        region = np.asarray(cv2.resize(region, smaller, interpolation=cv2.INTER_AREA), np.uint8)
    if smaller == (tile_px, tile_px):
        return region
    return np.asarray(cv2.resize(region, (tile_px, tile_px), interpolation=cv2.INTER_CUBIC))
