"""Reader `openslide`: every format OpenSlide knows, DICOM included."""

from __future__ import annotations

import os
import threading
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import openslide

from pathpipe.errors import SlideError
from pathpipe.slides.slide import Box, Closing, Mpp, Pixels, make_levels

_LEVEL = "openslide.level[{}].downsample"


class OpenSlideSlide(Closing):
    """A slide opened by OpenSlide.

    Raises:
        SlideError: OpenSlide doesn't know the format or can't open the file.
    """

    reader = "openslide"

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lock = threading.Lock()
        self._pid = os.getpid()
        self._handle = _open(path)
        properties: Mapping[str, str] = self._handle.properties
        self.properties = dict(properties)
        self.vendor = self.properties.get(openslide.PROPERTY_NAME_VENDOR, "unknown")
        self.levels = make_levels([(int(w), int(h)) for w, h in self._handle.level_dimensions])
        self.size0 = self.levels[0].size_px
        self.mpp = _mpp(self.properties)
        self.objective = _positive(self.properties.get(openslide.PROPERTY_NAME_OBJECTIVE_POWER))
        self.bounds = _bounds(self.properties)

    def read(self, xy0: tuple[int, int], level: int, size_px: tuple[int, int]) -> Pixels:
        """See `Slide.read`."""
        try:
            image = self._own_handle().read_region(xy0, level, size_px)
        except openslide.OpenSlideError as error:
            raise SlideError(
                f"damaged: level {level} can't be read at {xy0}: {error}",
                where=self.path.name,
                hint="copy the file again from its source and compare sizes; or leave the slide out",
            ) from None
        return over_white(np.asarray(image))

    def close(self) -> None:
        """Let go of the file."""
        self._handle.close()

    def _own_handle(self) -> openslide.OpenSlide:
        # A handle inherited over fork shares its file offset with the parent's.
        if self._pid != os.getpid():
            with self._lock:
                if self._pid != os.getpid():
                    self._handle, self._pid = _open(self.path), os.getpid()
        return self._handle


def over_white(rgba: Pixels) -> Pixels:
    """(H, W, 4) straight-alpha RGBA over white, as (H, W, 3)."""
    alpha = rgba[..., 3]
    rgb = np.ascontiguousarray(rgba[..., :3])
    if alpha.min(initial=255) == 255:
        return rgb
    wide = alpha[..., None].astype(np.uint16)
    mixed = (rgb.astype(np.uint16) * wide + 255 * (255 - wide) + 127) // 255
    return np.asarray(mixed, dtype=np.uint8)


def _open(path: Path) -> openslide.OpenSlide:
    try:
        return openslide.OpenSlide(path)
    except openslide.OpenSlideUnsupportedFormatError:
        raise SlideError("not a format OpenSlide knows", where=path.name) from None
    except openslide.OpenSlideError as error:
        raise SlideError(f"OpenSlide can't open it: {error}", where=path.name) from None


def _mpp(properties: Mapping[str, str]) -> Mpp | None:
    x = _positive(properties.get(openslide.PROPERTY_NAME_MPP_X))
    y = _positive(properties.get(openslide.PROPERTY_NAME_MPP_Y))
    if x is None or y is None:
        return None
    vendor = properties.get(openslide.PROPERTY_NAME_VENDOR, "")
    source = {"generic-tiff": "TIFF resolution tags", "dicom": "DICOM pixel spacing"}.get(vendor, f"{vendor} property")
    return Mpp(x, y, source)


def _bounds(properties: Mapping[str, str]) -> Box | None:
    keys = ("bounds-x", "bounds-y", "bounds-width", "bounds-height")
    values = [properties.get(f"openslide.{key}") for key in keys]
    if any(value is None for value in values):
        return None
    return Box(*(int(value) for value in values if value is not None))


def _positive(text: str | None) -> float | None:
    try:
        value = float(text) if text is not None else None
    except ValueError:
        return None
    return value if value is not None and value > 0 else None
