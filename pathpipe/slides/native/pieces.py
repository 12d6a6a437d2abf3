"""Pieces of a local file by positioned reads: nothing is shared that a thread or a forked process could disturb."""

from __future__ import annotations

import os
import weakref
from pathlib import Path


class LocalPieces:
    """A file that is open for reading; closed when it is dropped."""

    def __init__(self, path: Path) -> None:
        self._file = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        self._close = weakref.finalize(self, os.close, self._file)

    def pread(self, length: int, offset: int) -> bytes:
        """Bytes from an offset on; fewer at the end of the file."""
        return os.pread(self._file, length, offset)

    def close(self) -> None:
        """Let go of the file."""
        self._close()
        self._file = -1  # the number may be another file's by now
