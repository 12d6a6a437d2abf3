"""Remote file: parts of an object by its URL, a block fetched once and kept while it is wanted again."""

from __future__ import annotations

import io
import os
import threading
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import BinaryIO, Literal, cast

import numpy as np

from pathpipe.errors import RemoteError, SlideError
from pathpipe.remote import fetch, find
from pathpipe.slides.native.cache import TileCache
from pathpipe.slides.slide import Pixels
from pathpipe.url import Url


@dataclass(frozen=True)
class Blocks:
    """How an object is read in place.

    Attributes:
        block_bytes: Fetched at once: small blocks fetch little that isn't wanted, large ones need fewer requests.
        kept_bytes: Of blocks that stay in memory, per open slide.
    """

    block_bytes: int = 1 << 20
    kept_bytes: int = 128 << 20


class RemoteFile:
    """An object that is read by blocks. Safe from several threads, and after a fork.

    Attributes:
        size: Bytes of the whole object.
        requests: Parts that were fetched so far.
        fetched_bytes: Their bytes.

    Raises:
        RemoteError: It can't be reached or read.
        SlideError: It is empty.
    """

    def __init__(self, url: Url, blocks: Blocks = Blocks()) -> None:
        self.url = url
        self.blocks = blocks
        self.size = find(url).size
        if self.size == 0:
            raise SlideError("is empty (0 bytes)", where=url.shown, hint="upload the file again from its source")
        self.requests = 0
        self.fetched_bytes = 0
        self._broken: RemoteError | None = None
        self._own = self._new_cache()

    @property
    def name(self) -> str:
        """Last part of the URL's path."""
        return self.url.name

    @property
    def stem(self) -> str:
        """Name without its suffix."""
        return self.url.stem

    @property
    def suffix(self) -> str:
        """`.svs`."""
        return self.url.suffix

    def __str__(self) -> str:
        return self.url.shown

    def pread(self, length: int, offset: int) -> bytes:
        """Bytes from an offset on; fewer at the end of the object.

        Raises:
            RemoteError: They can't be fetched.
        """
        end = min(offset + length, self.size)
        if end <= offset:
            return b""
        side = self.blocks.block_bytes
        cache = self._cache()
        numbers = range(offset // side, (end - 1) // side + 1)
        parts = [cache.get(number, partial(self._fetch, number)) for number in numbers]
        first = offset - numbers[0] * side
        if len(parts) == 1:
            return parts[0][first : first + end - offset].tobytes()
        return np.concatenate(parts)[first : first + end - offset].tobytes()

    def open(self, mode: Literal["rb"] = "rb") -> BinaryIO:
        """A stream over the object, with a position of its own."""
        return cast(BinaryIO, RemoteStream(self))

    def refuse_broken(self) -> None:
        """Stop where a part couldn't be fetched: libraries that parse a file may have passed over that.

        Raises:
            RemoteError: What went wrong first.
        """
        if self._broken is not None:
            raise self._broken

    def _fetch(self, number: int) -> Pixels:
        offset = number * self.blocks.block_bytes
        length = min(self.blocks.block_bytes, self.size - offset)
        try:
            data = fetch(self.url, offset, length, self.size)
        except RemoteError as error:
            self._broken = self._broken or error
            raise
        self.requests += 1
        self.fetched_bytes += length
        return np.frombuffer(data, np.uint8)

    def _new_cache(self) -> tuple[int, TileCache, threading.Lock]:
        return os.getpid(), TileCache(max(self.blocks.kept_bytes, 2 * self.blocks.block_bytes)), threading.Lock()

    def _cache(self) -> TileCache:
        if self._own[0] != os.getpid():  # after a fork its lock may be held by a thread that isn't here
            self._own = self._new_cache()
        return self._own[1]


class RemoteStream(io.RawIOBase):
    """A remote file as the libraries that parse slides want it."""

    def __init__(self, file: RemoteFile) -> None:
        self.name = file.name
        self._file = file
        self._place = 0

    def readable(self) -> bool:
        """It is."""
        return True

    def seekable(self) -> bool:
        """It is."""
        return True

    def tell(self) -> int:
        """Where the next read begins, bytes."""
        return self._place

    def seek(self, offset: int, whence: int = io.SEEK_SET, /) -> int:
        """Go elsewhere; costs nothing."""
        start = {io.SEEK_SET: 0, io.SEEK_CUR: self._place, io.SEEK_END: self._file.size}[whence]
        self._place = start + offset
        return self._place

    def readinto(self, buffer: object, /) -> int:
        """Fill a buffer; fewer bytes at the end."""
        view = memoryview(buffer).cast("B")  # type: ignore[arg-type]
        data = self._file.pread(len(view), self._place)
        view[: len(data)] = data
        self._place += len(data)
        return len(data)


SlideFile = Path | RemoteFile
