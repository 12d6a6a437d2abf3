"""Identity: which files make up a slide, and a fingerprint of their content that moving them doesn't change."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from pathpipe.dicom import SUFFIX, series_files
from pathpipe.errors import RemoteMissingError
from pathpipe.fingerprint import fingerprint, sampled_digest
from pathpipe.remote import find
from pathpipe.slides.ngff import METADATA_NAMES, read_ngff_facts
from pathpipe.slides.presence import refuse_what_is_no_slide
from pathpipe.slides.remote_files import remote_digests
from pathpipe.slides.slide import Slide
from pathpipe.url import Url

_CHUNKS_A_LEVEL = 16


def slide_files(path: Path) -> list[Path]:
    """Every file of the slide, the one that is opened first.

    MRXS keeps its pixels in a folder of the same name, DICOM a level a file: those beside it of the same series.
    """
    if path.suffix.lower() == ".mrxs":
        return [path, *sorted(file for file in path.with_suffix("").glob("*") if file.is_file())]
    if path.suffix.lower() == SUFFIX:
        return series_files(path)
    return [path]


def slide_fingerprint(path: Path | Url) -> str:
    """Fingerprint of a slide's content: sizes and sampled blocks, in milliseconds; the same wherever it lies.

    Raises:
        OSError: A file can't be read.
        SlideError: There is no slide: nothing, an empty file, a folder that is no OME-Zarr image. Or a RemoteError: it
            can't be reached.
    """
    if isinstance(path, Url):
        return _fingerprint_of(path, remote_digests(path))
    refuse_what_is_no_slide(path)
    if path.is_dir():
        return _folder_fingerprint(path)
    return _fingerprint_of(path, [sampled_digest(file) for file in slide_files(path)])


def _fingerprint_of(path: Path | Url, digests: list[str]) -> str:
    # whichever file of a series is named, it is the same slide
    return fingerprint(sorted(digests) if path.suffix.lower() == SUFFIX else digests)


def is_there(path: Path | Url) -> bool:
    """Whether the slide's own file is where it is said to be.

    Raises:
        RemoteError: Its store can't be asked.
    """
    if isinstance(path, Path):
        return path.exists()
    try:
        find(path)
    except RemoteMissingError:
        return False
    return True


def series_uid(slide: Slide) -> str | None:
    """What all files of a DICOM slide have in common, each of which opens as the whole; None for other formats.

    Reference: DICOM PS3.3, C.7.3.1, Series Instance UID.
    """
    return slide.properties.get("dicom.SeriesInstanceUID")


def _folder_fingerprint(path: Path) -> str:
    """Of an OME-Zarr image: its metadata, the names of all chunks, and the content of some of each level.

    Only what the levels are made of counts: labels that are added to the folder later don't change the slide.
    """
    facts = read_ngff_facts(path)
    parts = [_metadata(facts.group)]
    for level in facts.levels:
        names = sorted(_chunks(level))
        count = len(names)
        sample = sorted(
            {index * (count - 1) // (_CHUNKS_A_LEVEL - 1) for index in range(_CHUNKS_A_LEVEL)} if count else ()
        )
        digests = [sampled_digest(level / names[index]) for index in sample]
        parts.append([*_metadata(level), fingerprint("\n".join(names)), *digests])
    return fingerprint(parts)


def _metadata(folder: Path) -> list[str]:
    return [sampled_digest(folder / name) for name in METADATA_NAMES if (folder / name).is_file()]


def _chunks(level: Path) -> Iterator[str]:
    """Paths of the chunk files below a level. Only names are looked at: their sizes would cost a call a file."""
    for parent, _, names in os.walk(level):
        below = os.path.relpath(parent, level)
        for name in names:
            if name not in METADATA_NAMES and not name.startswith("."):
                yield name if below == "." else f"{below}/{name}"
