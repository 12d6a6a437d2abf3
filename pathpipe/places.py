"""Places: the slides below a folder or a prefix of a bucket, and what makes a folder a slide."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

from pathpipe.dicom import SUFFIX, series_uid
from pathpipe.errors import CohortError
from pathpipe.remote import listed
from pathpipe.url import Place, Url, shown

_SUFFIXES = ".svs .tif .tiff .ndpi .mrxs .scn .vms .vmu .bif .svslide .qptiff .dcm .png .jpg .jpeg"
SLIDE_SUFFIXES = frozenset(_SUFFIXES.split())
FOLDER_SUFFIX = ".zarr"


def slides_below(source: Place) -> list[tuple[Place, tuple[str, ...]]]:
    """Every slide below a folder or a prefix, in order, with the parts of its path from there.

    Raises:
        CohortError: There is none.
        RemoteError: The store can't be listed.
    """
    found: list[tuple[Place, tuple[str, ...]]] = []
    if isinstance(source, Url):
        found += _in_bucket(source)
    else:
        paths = _one_a_series(sorted(_in_folder(source)))
        found += [(followed(path), path.relative_to(source).parts) for path in paths]
    if not found:
        raise CohortError(
            "holds no slide",
            where=shown(source),
            hint=f"files ending in {' '.join(sorted(SLIDE_SUFFIXES))} and OME-Zarr folders are taken, at any depth",
        )
    return found


def followed(path: Path) -> Path:
    """Where links lead; one that leads nowhere, or in a circle, stays itself, and its slide fails later, alone."""
    target = Path(os.path.realpath(path))  # up to Python 3.12 Path.resolve() raises on links in a circle
    return target if target.exists() else Path(os.path.abspath(path))


def is_slide_folder(folder: Path) -> bool:
    """Whether a folder is one slide: an OME-Zarr image. Other zarr folders, such as tables of features, are none."""
    if folder.suffix.lower() != FOLDER_SUFFIX:
        return False
    for name in (".zattrs", "zarr.json"):
        try:
            text = (folder / name).read_text("utf-8")
        except (OSError, UnicodeDecodeError):
            continue
        if '"multiscales"' in text or '"bioformats2raw.layout"' in text:
            return True
    return False


def _one_a_series(paths: list[Path]) -> list[Path]:
    """Of the files of a DICOM slide only the first: each of them opens as the whole slide."""
    seen: set[tuple[Path, str]] = set()
    kept = []
    for path in paths:
        series = series_uid(path) if path.suffix.lower() == SUFFIX else None
        if series is None or (path.parent, series) not in seen:
            kept.append(path)
        if series is not None:
            seen.add((path.parent, series))
    return kept


def _in_folder(folder: Path) -> Iterator[Path]:
    # followlinks stays off: a link that points back up would never end
    for parent, folders, names in os.walk(folder):
        zarrs = [name for name in folders if Path(name).suffix.lower() == FOLDER_SUFFIX]
        folders[:] = [name for name in folders if name not in zarrs]  # 100,000 chunks lie below one
        yield from (Path(parent) / name for name in zarrs if is_slide_folder(Path(parent) / name))
        for name in names:
            if Path(name).suffix.lower() in SLIDE_SUFFIXES and not name.startswith("."):
                yield Path(parent) / name


def _in_bucket(prefix: Url) -> list[tuple[Place, tuple[str, ...]]]:
    base = prefix.text.rstrip("/")
    found: list[tuple[Place, tuple[str, ...]]] = []
    for one in listed(Url(f"{base}/")):
        parts = PurePosixPath(one.url.text.removeprefix(f"{base}/")).parts
        suffix = one.url.suffix.lower()
        if suffix == SUFFIX:
            raise CohortError(
                "holds DICOM files, several of which are one slide",
                where=prefix.shown,
                hint="give a cohort table that names one file of each slide: the others are found beside it",
            )
        in_zarr = any(PurePosixPath(part).suffix.lower() == FOLDER_SUFFIX for part in parts[:-1])
        if suffix in SLIDE_SUFFIXES and not in_zarr and not one.url.name.startswith("."):
            found.append((one.url, parts))
    return found
