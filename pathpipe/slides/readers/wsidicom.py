"""Reader `wsidicom`: DICOM slides that OpenSlide refuses, such as sparse tilings and newer compressions. An extra."""

from __future__ import annotations

import os
import threading
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from pathpipe.dicom import is_dicom, series_files
from pathpipe.errors import MissingError, SlideError
from pathpipe.slides.resolution import stated_number
from pathpipe.slides.slide import Box, Closing, Mpp, Pixels, make_levels
from pathpipe.slides.tiff import COPY_AGAIN, DAMAGE, one_line
from pathpipe.slides.window import read_window

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
        return read_window(self, xy0, level, size_px, partial(self._decode, level), _damage())

    def _decode(self, level: int, x: int, y: int, width: int, height: int) -> Pixels:
        lock, handle = self._own_handle()
        with lock:
            image = handle.read_region((x, y), self._wsi_levels[level], (width, height))
        return np.asarray(image.convert("RGB"))

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


def _open(path: Path) -> Any:
    wsidicom = _package()
    try:
        return wsidicom.WsiDicom.open(sorted(series_files(path)))
    except _damage() as error:
        raise SlideError(f"wsidicom can't open it: {one_line(error)}", where=path.name) from None


def _package() -> Any:
    try:
        import wsidicom
    except ImportError:
        raise MissingError("reader `wsidicom` needs the package wsidicom", hint=HINT) from None
    return wsidicom


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
