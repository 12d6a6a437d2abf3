"""Remote files: what makes up a slide behind a URL, its fingerprint by parts, and copies of it on a disk."""

from __future__ import annotations

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from pathlib import Path

from pathpipe.dicom import SUFFIX, series_uid
from pathpipe.errors import RemoteError, SlideError
from pathpipe.fingerprint import digest_of_parts, sampled
from pathpipe.remote import Found, fetch, find, listed
from pathpipe.slides.presence import COVER_SUFFIX
from pathpipe.slides.remote import Blocks, RemoteFile
from pathpipe.url import Url

_AT_ONCE = 8
_PART_BYTES = 16 << 20
_HEADER = Blocks(1 << 16, 1 << 20)  # a series is told from the first kilobytes of its files


def remote_files(url: Url) -> list[Found]:
    """Every object of the slide, the one that is opened first; the others by a listing, which a web server hasn't.

    Raises:
        RemoteError: One can't be reached.
        SlideError: It has no content.
    """
    first = find(url)
    if first.size == 0:
        raise SlideError("is empty (0 bytes)", where=url.shown, hint="upload the file again from its source")
    if url.suffix.lower() == COVER_SUFFIX:
        beside = listed(url.parent / url.stem, deep=False)
        return [first, *beside]
    if url.suffix.lower() == SUFFIX:
        return [first, *_rest_of_series(first)]
    return [first]


def _rest_of_series(first: Found) -> list[Found]:
    if first.url.is_web:
        return []
    series = _series_of(first.url)
    if series is None:
        return []
    beside = [one for one in listed(first.url.parent, deep=False) if one.url.suffix.lower() == SUFFIX]
    return [one for one in beside if one.url != first.url and _series_of(one.url, one.version) == series]


@lru_cache(maxsize=4096)
def _series_of(url: Url, version: str = "") -> str | None:
    return series_uid(RemoteFile(url, _HEADER))


def remote_digests(url: Url) -> list[str]:
    """`sampled_digest` of every object of the slide, by parts of 64 KiB, several at once.

    Raises:
        RemoteError: They can't be read.
    """
    with ThreadPoolExecutor(_AT_ONCE) as pool:

        def digest(found: Found) -> str:
            places = sampled(found.size)
            parts = pool.map(lambda at: fetch(found.url, at[0], at[1], found.size), places)
            return digest_of_parts(found.size, parts)

        return [digest(found) for found in remote_files(url)]


def download(files: Sequence[Found], folder: Path) -> Path:
    """Copy the objects of a slide to a folder, as they lie beside each other; several parts at once.

    Returns:
        The copy of the first.

    Raises:
        RemoteError: One can't be read, or ends early.
    """
    base = files[0].url.parent
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        for found in files:
            below = [found.url.name] if found.url.parent == base else [found.url.parent.name, found.url.name]
            copy = folder.joinpath(*below)
            copy.parent.mkdir(parents=True, exist_ok=True)
            _download(found, copy, pool)
            if find(found.url) != found:
                raise RemoteError("was replaced while it was downloaded", found.url.shown, "run again")
    return folder / files[0].url.name


def _download(found: Found, copy: Path, pool: ThreadPoolExecutor) -> None:
    with open(copy, "wb") as file:
        os.ftruncate(file.fileno(), found.size)

        def part(offset: int) -> None:
            length = min(_PART_BYTES, found.size - offset)
            os.pwrite(file.fileno(), fetch(found.url, offset, length, found.size), offset)

        for _ in pool.map(part, range(0, found.size, _PART_BYTES)):
            pass
