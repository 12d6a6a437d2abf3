"""Reader `tiffslide`: TIFFs that OpenSlide refuses or sees only one level of, such as OME-TIFF with SubIFDs."""

from __future__ import annotations

import math
import os
import threading
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import tiffslide

from pathpipe.errors import SlideError
from pathpipe.slides.alpha import over_white
from pathpipe.slides.remote import SlideFile
from pathpipe.slides.resolution import stated_number
from pathpipe.slides.slide import Box, Closing, Mpp, Pixels, make_levels
from pathpipe.slides.tiff import DAMAGE, is_tiff, one_line, read_tiff_facts
from pathpipe.slides.window import read_window


class TiffSlideSlide(Closing):
    """A slide opened by tiffslide.

    Raises:
        SlideError: Not a TIFF, not RGB, or damaged.
    """

    reader = "tiffslide"

    def __init__(self, path: SlideFile) -> None:
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
        handle, properties = _open(path)
        self.properties: Mapping[str, str] = properties
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
        return read_window(self, xy0, level, size_px, partial(self._decode, level), DAMAGE)

    def _decode(self, level: int, x: int, y: int, width: int, height: int) -> Pixels:
        lock, handle = self._own_handle()
        own_downsample = handle.level_downsamples[level]
        location = (_location(x, own_downsample), _location(y, own_downsample))
        with lock:
            raw = handle.read_region(location, level, (width, height), as_array=True)
        region = np.asarray(raw, np.uint8)
        if self._facts.alpha != "none":
            region = over_white(region, self._facts.alpha == "premultiplied")
        return region[..., :3]

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


def _handle(path: SlideFile) -> tiffslide.TiffSlide:
    if isinstance(path, Path):
        return tiffslide.TiffSlide(path)
    stream: Any = path.open("rb")
    return tiffslide.TiffSlide(stream, tifffile_options={"name": path.name})


def _open(path: SlideFile) -> tuple[tiffslide.TiffSlide, dict[str, str]]:
    try:
        handle = _handle(path)
        return handle, {str(key): str(value) for key, value in handle.properties.items() if value is not None}
    except DAMAGE as error:
        raise SlideError(f"tiffslide can't open it: {one_line(error)}", where=path.name) from None
