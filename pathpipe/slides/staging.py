"""Staging: a slide on slow storage is copied to a local disk while it is read tile by tile, within a quota."""

from __future__ import annotations

import fcntl
import os
import shutil
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

from pathpipe.errors import SettingsError
from pathpipe.process import process_alive
from pathpipe.slides.identity import slide_files
from pathpipe.slides.remote_files import download, remote_files
from pathpipe.url import Place, Url

P = TypeVar("P", bound=Place)
_POLL_S = 0.2
_CLAIM = "pathpipe-stage-"
_WHOLE = frozenset(
    (".svs", ".tif", ".tiff", ".ndpi", ".scn", ".bif", ".svslide", ".qptiff", ".mrxs", ".png", ".jpg", ".jpeg", ".dcm")
)


@contextmanager
def staged(path: P, folder: Path | None, quota_bytes: int) -> Iterator[P | Path]:
    """A local copy of a slide, which may lie behind a URL, for as long as the block lasts.

    All processes of the machine that name the same folder share the quota: a claim of the copy's size is made first,
    and waited for while others hold the room. What a killed process left is swept.

    Args:
        folder: On a local disk; None reads the slide where it is.
        quota_bytes: A slide larger than this is read where it is, and so is one of a format whose files can't be told
            from their neighbours (VMS).

    Raises:
        SettingsError: The folder can't be made or written.
        OSError: The slide can't be copied.
        RemoteError: It can't be downloaded, or not whole.
    """
    if folder is None:
        yield path
        return
    if isinstance(path, Url):
        with _downloaded(path, folder, quota_bytes) as copy:
            yield copy or path
        return
    files = _files(path)
    size = sum(file.stat().st_size for file in files)
    if not files or size > quota_bytes:
        yield path
        return
    place = _claim(folder, size, quota_bytes)
    try:
        for file in files:
            copy = place / file.relative_to(path.parent)
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(file, copy)
        yield place / path.name
    finally:
        shutil.rmtree(place, ignore_errors=True)


@contextmanager
def _downloaded(url: Url, folder: Path, quota_bytes: int) -> Iterator[Path | None]:
    files = remote_files(url) if url.suffix.lower() in _WHOLE else []
    size = sum(file.size for file in files)
    if not files or size > quota_bytes:
        yield None
        return
    place = _claim(folder, size, quota_bytes)
    try:
        yield download(files, place)
    finally:
        shutil.rmtree(place, ignore_errors=True)


def _files(path: Path) -> list[Path]:
    if path.is_dir():
        return [file for file in path.rglob("*") if file.is_file()]
    return slide_files(path) if path.suffix.lower() in _WHOLE else []


def _claim(folder: Path, size: int, quota_bytes: int) -> Path:
    """A folder of one's own; its name says whose it is and how much room it may take."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = os.open(folder / f".{_CLAIM}lock", os.O_CREAT | os.O_RDWR, 0o666)
    except OSError as error:
        raise SettingsError(
            f"can't be written: {error.strerror}", where=f"--stage-dir {folder}", hint="name a folder on a local disk"
        ) from None
    try:
        while True:
            fcntl.flock(lock, fcntl.LOCK_EX)
            try:
                if _held(folder) + size <= quota_bytes:
                    place = folder / f"{_CLAIM}{os.getpid()}-{size}-{uuid.uuid4().hex[:8]}"
                    place.mkdir()
                    return place
            finally:
                fcntl.flock(lock, fcntl.LOCK_UN)
            time.sleep(_POLL_S)
    finally:
        os.close(lock)


def _held(folder: Path) -> int:
    """Bytes that living processes have claimed; dead ones' copies are removed."""
    held = 0
    for place in folder.glob(f"{_CLAIM}*"):
        pid, size, _ = place.name.removeprefix(_CLAIM).split("-")
        if process_alive(int(pid)):
            held += int(size)
        else:
            shutil.rmtree(place, ignore_errors=True)
    return held
