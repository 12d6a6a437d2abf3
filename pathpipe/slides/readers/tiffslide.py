"""Reader `tiffslide`: TIFFs that OpenSlide refuses or sees only one level of, such as OME-TIFF with SubIFDs."""

from __future__ import annotations

import math
import os
import threading
from pathlib import Path

import numpy as np
import tiffslide

from pathpipe.errors import SlideError
from pathpipe.slides.alpha import over_white
from pathpipe.slides.resolution import stated_number
from pathpipe.slides.slide import Box, Closing, Mpp, Pixels, make_levels
from pathpipe.slides.tiff import COPY_AGAIN, DAMAGE, is_tiff, one_line, read_tiff_facts


class TiffSlideSlide(Closing):
    """A slide opened by tiffslide.

    Raises:
        SlideError: Not a TIFF, not RGB, or damaged.
    """

    reader = "tiffslide"

    def __init__(self, path: Path) -> None:
        if not is_tiff(path):
            raise SlideError("not a TIFF file", where=path.name)
        self._facts = read_tiff_facts(path)
        if self._facts.absent:
            raise SlideError(
                f"{self._facts.absent} of its tiles aren't stored, and tiffslide would show them black",
                where=path.name,
                hint="open it with another reader, or write it out whole",
            )
        self.path = path
        handle, self.properties = _open(path)
        # One region at a time: tiffslide's store seeks in one shared file.
        self._own = (os.getpid(), threading.Lock(), handle)
        self.vendor = self.properties.get("tiffslide.vendor", "ome-tiff" if self._facts.ome else "tiff")
        self.levels = make_levels(list(self._facts.level_sizes))
        self.size0 = self.levels[0].size_px
        self.mpp = self._stated_mpp()
        self.objective = stated_number(self.properties.get("tiffslide.objective-power"))
        self.bounds: Box | None = None
        self.associated = _associated(handle)

    def _stated_mpp(self) -> Mpp | None:
        if self._facts.ome_mpp is not None:
            return Mpp(*self._facts.ome_mpp, "OME PhysicalSize")
        x, y = (stated_number(self.properties.get(f"tiffslide.mpp-{axis}")) for axis in "xy")
        if x is None or y is None:
            return None
        named = self.properties.get("tiffslide.vendor")
        return Mpp(x, y, f"{named} property" if named else "TIFF resolution tags")

    def read(self, xy0: tuple[int, int], level: int, size_px: tuple[int, int]) -> Pixels:
        """See `Slide.read`."""
        if not 0 <= level < len(self.levels):
            raise SlideError(f"has no level {level}", where=self.path.name)
        width, height = self.levels[level].size_px
        down_x, down_y = self.levels[level].downsample
        left, top = math.floor(xy0[0] / down_x + 0.5), math.floor(xy0[1] / down_y + 0.5)
        out = np.full((size_px[1], size_px[0], 3), 255, np.uint8)
        x1, y1 = max(left, 0), max(top, 0)
        x2, y2 = min(left + size_px[0], width), min(top + size_px[1], height)
        if x2 <= x1 or y2 <= y1:
            return out
        lock, handle = self._own_handle()
        own_downsample = handle.level_downsamples[level]
        location = (_location(x1, own_downsample), _location(y1, own_downsample))
        try:
            with lock:
                raw = handle.read_region(location, level, (x2 - x1, y2 - y1), as_array=True)
        except DAMAGE as error:
            raise SlideError(
                f"damaged: level {level} can't be read at {xy0}: {one_line(error)}",
                where=self.path.name,
                hint=COPY_AGAIN,
            ) from None
        region = np.asarray(raw, np.uint8)
        if self._facts.alpha != "none":
            region = over_white(region, self._facts.alpha == "premultiplied")
        out[y1 - top : y2 - top, x1 - left : x2 - left] = region[..., :3]
        return out

    def _own_handle(self) -> tuple[threading.Lock, tiffslide.TiffSlide]:
        # After a fork the file offset is shared with the parent, and the lock may be held by a thread that isn't here.
        pid, lock, handle = self._own
        if pid != os.getpid():
            lock, handle = threading.Lock(), _open(self.path)[0]
            self._own = (os.getpid(), lock, handle)
        return lock, handle

    def close(self) -> None:
        """Let go of the file."""
        self._own[2].close()

    def __del__(self) -> None:
        # tiffslide's objects refer to each other: dropped without closing, the file would stay open for long
        if hasattr(self, "_own"):
            self.close()


def _location(level_px: int, downsample: float) -> int:
    """The level-0 px that leads tiffslide, which truncates location / downsample, to this px of the level."""
    location = math.ceil(level_px * downsample)
    return location if int(location / downsample) == level_px else location + 1


def _associated(handle: tiffslide.TiffSlide) -> tuple[str, ...]:
    try:
        return tuple(sorted(map(str, handle.associated_images)))
    except DAMAGE:  # the slide itself may be whole
        return ()


def _open(path: Path) -> tuple[tiffslide.TiffSlide, dict[str, str]]:
    try:
        handle = tiffslide.TiffSlide(path)
        return handle, {str(key): str(value) for key, value in handle.properties.items() if value is not None}
    except DAMAGE as error:
        raise SlideError(f"tiffslide can't open it: {one_line(error)}", where=path.name) from None
