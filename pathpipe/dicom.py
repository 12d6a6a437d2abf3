"""DICOM headers: which files belong to one slide, read without opening it."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from typing import BinaryIO, Literal, Protocol

SUFFIX = ".dcm"
_SERIES = 0x0020000E
# A broken or forbidden file says nothing of its series: what pydicom raises over garbage.
_BROKEN = (OSError, ValueError, LookupError, AttributeError, TypeError, NotImplementedError, EOFError)


class Readable(Protocol):
    """A path, or an object behind a URL."""

    def open(self, mode: Literal["rb"]) -> BinaryIO:
        """Its bytes from the start."""
        ...


def is_dicom(path: Path | Readable) -> bool:
    """Whether the file begins as a DICOM file does.

    Reference: DICOM PS3.10, 7.1: a preamble of 128 bytes, then `DICM`.
    """
    with path.open("rb") as file:
        return file.read(132)[128:] == b"DICM"


def series_uid(path: Path | Readable) -> str | None:
    """SeriesInstanceUID of a DICOM file, which all files of a slide share; None where it can't be read.

    Reads as far as that element: the tables of frames of a slide that come later may be tens of megabytes.

    Reference: DICOM PS3.3, C.7.3.1.
    """
    from pydicom.errors import InvalidDicomError
    from pydicom.filereader import read_partial

    try:
        if not is_dicom(path):
            return None
        with path.open("rb") as file:
            header = read_partial(file, stop_when=lambda tag, vr, length: tag > _SERIES, specific_tags=[_SERIES])
    except (InvalidDicomError, *_BROKEN):
        return None
    value = header.get("SeriesInstanceUID")
    return None if value is None else str(value)


def series_files(path: Path) -> list[Path]:
    """All files beside a DICOM file that belong to its series, itself first; only itself where that can't be told."""
    wanted = series_uid(path)
    if wanted is None:
        return [path]
    listed = _series_of(path.parent, path.parent.stat().st_mtime_ns)
    return [path, *(file for file, series in listed if series == wanted and file.name != path.name)]


@lru_cache(maxsize=16)
def _series_of(folder: Path, changed_ns: int) -> tuple[tuple[Path, str | None], ...]:
    """Every file of a folder with its series: hundreds of slides may lie in one."""
    return tuple((file, series_uid(file)) for file in sorted(folder.iterdir()) if file.is_file())
