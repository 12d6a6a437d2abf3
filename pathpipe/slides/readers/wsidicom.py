"""Reader `wsidicom`: DICOM slides that OpenSlide refuses, such as sparse tilings and newer compressions. An extra."""

from __future__ import annotations

import math
import os
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from pathpipe.errors import MissingError, SlideError
from pathpipe.slides.resolution import stated_number
from pathpipe.slides.slide import Box, Closing, Mpp, Pixels, make_levels
from pathpipe.slides.tiff import COPY_AGAIN, DAMAGE, one_line

HINT = 'pip install "pathpipe[dicom]"'
_SERIES = "SeriesInstanceUID"


class WsiDicomSlide(Closing):
    """The levels of the DICOM series that a file belongs to, opened by wsidicom; the focal plane it takes by default.

    Raises:
        MissingError: The package wsidicom isn't installed.
        SlideError: Not a DICOM slide, not RGB, or damaged.
    """

    reader = "wsidicom"
    bounds: Box | None = None

    def __init__(self, path: Path) -> None:
        if not is_dicom(path):
            raise SlideError("not a DICOM file", where=path.name)
        self.path = path
        handle = _open(path)
        self._own = (os.getpid(), threading.Lock(), handle)
        try:
            levels = list(handle.levels)
            _refuse_other_than_rgb(levels[0].default_instance.image_data, path)
            self.associated = tuple(_associated(handle))
            self.properties: Mapping[str, str] = _properties(path)
            self._wsi_levels = tuple(int(level.level) for level in levels)
            self.levels = make_levels([(int(level.size.width), int(level.size.height)) for level in levels])
            spacing = levels[0].mpp
            self.mpp: Mpp | None = Mpp(float(spacing.width), float(spacing.height), "DICOM pixel spacing")
        except SlideError:
            handle.close()
            raise
        except _damage() as error:
            handle.close()
            raise SlideError(
                f"damaged: its DICOM attributes can't be read ({one_line(error)})", where=path.name, hint=COPY_AGAIN
            ) from None
        self.vendor = "dicom"
        self.size0 = self.levels[0].size_px
        self.objective = stated_number(self.properties.get("dicom.ObjectiveLensPower"))

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
        try:
            with lock:
                image = handle.read_region((x1, y1), self._wsi_levels[level], (x2 - x1, y2 - y1))
            out[y1 - top : y2 - top, x1 - left : x2 - left] = np.asarray(image.convert("RGB"))
        except _damage() as error:
            raise SlideError(
                f"damaged: level {level} can't be read at {xy0}: {one_line(error)}",
                where=self.path.name,
                hint=COPY_AGAIN,
            ) from None
        return out

    def _own_handle(self) -> tuple[threading.Lock, Any]:
        # After a fork the file offset is shared with the parent, and the lock may be held by a thread that isn't here.
        pid, lock, handle = self._own
        if pid != os.getpid():
            lock, handle = threading.Lock(), _open(self.path)
            self._own = (os.getpid(), lock, handle)
        return lock, handle

    def close(self) -> None:
        """Let go of the files."""
        self._own[2].close()


def is_dicom(path: Path) -> bool:
    """Whether the file begins as a DICOM file does.

    Reference: DICOM PS3.10, 7.1: a preamble of 128 bytes, then `DICM`.
    """
    with open(path, "rb") as file:
        return file.read(132)[128:] == b"DICM"


def _open(path: Path) -> Any:
    wsidicom = _package()
    try:
        return wsidicom.WsiDicom.open(_series(path))
    except _damage() as error:
        raise SlideError(f"wsidicom can't open it: {one_line(error)}", where=path.name) from None


def _package() -> Any:
    try:
        import wsidicom
    except ImportError:
        raise MissingError("reader `wsidicom` needs the package wsidicom", hint=HINT) from None
    return wsidicom


def _series(path: Path) -> list[Path]:
    """The files beside this one that are of its series: each holds a level, a label or a macro."""
    own = _series_uid(path)
    return sorted(file for file in path.parent.iterdir() if file == path or _belongs(file, own))


def _series_uid(path: Path) -> str:
    import pydicom

    return str(pydicom.dcmread(path, stop_before_pixels=True, specific_tags=[_SERIES]).get(_SERIES, ""))


def _belongs(file: Path, series: str) -> bool:
    try:
        return file.is_file() and is_dicom(file) and _series_uid(file) == series
    except _damage():  # a broken or forbidden neighbour says nothing of this slide
        return False


def _refuse_other_than_rgb(image: Any, path: Path) -> None:
    samples, bits = int(image.samples_per_pixel), int(image.bits)
    if (samples, bits) != (3, 8):
        raise SlideError(
            f"not an RGB slide: {bits}-bit, {samples} channels",
            where=path.name,
            hint="pathpipe works on 8-bit RGB brightfield slides; leave it out, or convert it to RGB first",
        )


def _associated(handle: Any) -> list[str]:
    found = {"label": handle.labels, "macro": handle.overviews, "thumbnail": handle.levels.thumbnails}
    return sorted(name for name, images in found.items() if images)


def _properties(path: Path) -> dict[str, str]:
    """What the file says of itself, by DICOM keyword."""
    import pydicom

    names = ["Manufacturer", "ManufacturerModelName", "SOPInstanceUID", _SERIES]
    dataset = pydicom.dcmread(path, stop_before_pixels=True, specific_tags=[*names, "OpticalPathSequence"])
    found = {f"dicom.{name}": str(dataset.get(name)) for name in names if dataset.get(name)}
    for optics in dataset.get("OpticalPathSequence", []):
        if power := optics.get("ObjectiveLensPower"):
            found["dicom.ObjectiveLensPower"] = str(power)
    return found


def _damage() -> tuple[type[Exception], ...]:
    """wsidicom's errors share no ancestor of their own."""
    import wsidicom.errors as theirs
    from pydicom.errors import InvalidDicomError

    named = [value for value in vars(theirs).values() if isinstance(value, type) and issubclass(value, Exception)]
    return (*DAMAGE, InvalidDicomError, *named)
