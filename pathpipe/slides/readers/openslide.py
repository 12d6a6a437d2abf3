"""Reader `openslide`: every format OpenSlide knows, DICOM included."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import openslide

from pathpipe.errors import SlideError
from pathpipe.slides.alpha import over_white
from pathpipe.slides.resolution import by_tiff_tags, stated_number
from pathpipe.slides.slide import Box, Closing, Mpp, Pixels, make_levels
from pathpipe.slides.tiff import COPY_AGAIN
from pathpipe.slides.window import refuse_no_level

_UNIT_UM = {"inch": 25_400.0, "centimeter": 10_000.0}


class OpenSlideSlide(Closing):
    """A slide opened by OpenSlide.

    Raises:
        SlideError: OpenSlide doesn't know the format or can't open the file.
    """

    reader = "openslide"

    def __init__(self, path: Path) -> None:
        self.path = path
        handle = _open(path)
        self._own = (os.getpid(), handle)
        self.properties: Mapping[str, str] = _properties(handle, path)
        self.vendor = self.properties.get(openslide.PROPERTY_NAME_VENDOR, "unknown")
        self.levels = make_levels([(int(w), int(h)) for w, h in handle.level_dimensions])
        self.size0 = self.levels[0].size_px
        self.mpp = _mpp(self.properties)
        self.objective = stated_number(self.properties.get(openslide.PROPERTY_NAME_OBJECTIVE_POWER))
        self.bounds = _bounds(self.properties)
        self.associated = tuple(sorted(handle.associated_images))

    def read(self, xy0: tuple[int, int], level: int, size_px: tuple[int, int]) -> Pixels:
        """See `Slide.read`."""
        refuse_no_level(self, level)
        try:
            image = self._own_handle().read_region(xy0, level, size_px)
        except openslide.OpenSlideError as error:
            raise SlideError(
                f"damaged: level {level} can't be read at {xy0}: {error}",
                where=self.path.name,
                hint=COPY_AGAIN,
            ) from None
        return over_white(np.asarray(image))

    def close(self) -> None:
        """Let go of the file."""
        self._own[1].close()

    def _own_handle(self) -> openslide.OpenSlide:
        # A handle inherited over fork shares its file offset with the parent's.
        pid, handle = self._own
        if pid != os.getpid():
            handle = _open(self.path)
            self._own = (os.getpid(), handle)
        return handle


def _open(path: Path) -> openslide.OpenSlide:
    try:
        return openslide.OpenSlide(path)
    except openslide.OpenSlideUnsupportedFormatError:
        raise SlideError("not a format OpenSlide knows", where=path.name) from None
    except openslide.OpenSlideError as error:
        raise SlideError(f"OpenSlide can't open it: {error}", where=path.name) from None


def _properties(handle: openslide.OpenSlide, path: Path) -> dict[str, str]:
    try:
        return dict(handle.properties)
    except (KeyError, ValueError, openslide.OpenSlideError):  # names or values that are no text
        raise SlideError("damaged: its properties can't be read", where=path.name, hint=COPY_AGAIN) from None


def _mpp(properties: Mapping[str, str]) -> Mpp | None:
    x = stated_number(properties.get(openslide.PROPERTY_NAME_MPP_X))
    y = stated_number(properties.get(openslide.PROPERTY_NAME_MPP_Y))
    if x is None or y is None:
        across, down = (stated_number(properties.get(f"tiff.{axis}Resolution")) for axis in "XY")
        return by_tiff_tags(across, down, _UNIT_UM.get(properties.get("tiff.ResolutionUnit", "")))
    vendor = properties.get(openslide.PROPERTY_NAME_VENDOR, "")
    source = {"generic-tiff": "TIFF resolution tags", "dicom": "DICOM pixel spacing"}.get(vendor, f"{vendor} property")
    return Mpp(x, y, source)


def _bounds(properties: Mapping[str, str]) -> Box | None:
    keys = ("bounds-x", "bounds-y", "bounds-width", "bounds-height")
    try:
        box = Box(*(int(properties[f"openslide.{key}"]) for key in keys))
    except (KeyError, ValueError):
        return None
    return box if box.w > 0 and box.h > 0 else None
