"""Reader `tiffslide`: TIFFs that OpenSlide refuses or sees only one level of, such as OME-TIFF with SubIFDs."""

from __future__ import annotations

import os
import threading
from pathlib import Path

import imagecodecs
import numpy as np
import tifffile
import tiffslide

from pathpipe.errors import SlideError
from pathpipe.slides.slide import Box, Closing, Mpp, Pixels, make_levels
from pathpipe.slides.tiff import is_tiff, read_tiff_facts

_DAMAGE = (tifffile.TiffFileError, ValueError, OSError, RuntimeError, KeyError, imagecodecs.DelayedImportError)


class TiffSlideSlide(Closing):
    """A slide opened by tiffslide.

    Raises:
        SlideError: Not a TIFF, not RGB, or damaged.
    """

    reader = "tiffslide"

    def __init__(self, path: Path) -> None:
        if not is_tiff(path):
            raise SlideError("not a TIFF file", where=path.name)
        facts = read_tiff_facts(path)
        self.path = path
        # One region at a time: tiffslide's store seeks in one shared file.
        self._lock = threading.Lock()
        self._pid = os.getpid()
        self._handle = _open(path)
        self.properties = {str(key): str(value) for key, value in self._handle.properties.items() if value is not None}
        self.vendor = self.properties.get("tiffslide.vendor", "ome-tiff" if facts.ome else "tiff")
        self.levels = make_levels([(int(w), int(h)) for w, h in self._handle.level_dimensions])
        self.size0 = self.levels[0].size_px
        self.mpp = self._stated_mpp(facts.ome)
        power = self.properties.get("tiffslide.objective-power")
        self.objective = float(power) if power else None
        self.bounds: Box | None = None

    def _stated_mpp(self, ome: bool) -> Mpp | None:
        try:
            x, y = (float(self.properties[f"tiffslide.mpp-{axis}"]) for axis in "xy")
        except (KeyError, ValueError):
            return None
        named = self.properties.get("tiffslide.vendor")
        source = f"{named} property" if named else "OME PhysicalSize" if ome else "TIFF resolution tags"
        return Mpp(x, y, source) if x > 0 and y > 0 else None

    def read(self, xy0: tuple[int, int], level: int, size_px: tuple[int, int]) -> Pixels:
        """See `Slide.read`."""
        width, height = self.levels[level].size_px
        down_x, down_y = self.levels[level].downsample
        left, top = int(xy0[0] / down_x), int(xy0[1] / down_y)
        out = np.full((size_px[1], size_px[0], 3), 255, np.uint8)
        x1, y1 = max(left, 0), max(top, 0)
        x2, y2 = min(left + size_px[0], width), min(top + size_px[1], height)
        if x2 <= x1 or y2 <= y1:
            return out
        # tiffslide truncates location / downsample: aim at the middle of the wanted pixel
        location = (int((x1 + 0.5) * down_x), int((y1 + 0.5) * down_y))
        try:
            with self._lock:
                if self._pid != os.getpid():
                    self._handle, self._pid = _open(self.path), os.getpid()
                region = self._handle.read_region(location, level, (x2 - x1, y2 - y1), as_array=True)
        except _DAMAGE as error:
            raise SlideError(
                f"damaged: level {level} can't be read at {xy0}: {error}",
                where=self.path.name,
                hint="copy the file again from its source and compare sizes; or leave the slide out",
            ) from None
        out[y1 - top : y2 - top, x1 - left : x2 - left] = region[..., :3]
        return out

    def close(self) -> None:
        """Let go of the file."""
        self._handle.close()


def _open(path: Path) -> tiffslide.TiffSlide:
    try:
        return tiffslide.TiffSlide(path)
    except (*_DAMAGE, NotImplementedError, AttributeError) as error:
        raise SlideError(f"tiffslide can't open it: {error}", where=path.name) from None
