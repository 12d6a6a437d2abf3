"""Writing HDF5 so that a full disk is an error, not the end of the process."""

from __future__ import annotations

import io
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import h5py

NEW = ("v110", "v110")  # opened by HDF5 1.10 and later
OLD = ("earliest", "v110")  # what h5py writes unless told otherwise


class _Steady(io.RawIOBase):
    """A file that remembers its first failed write and takes everything after it without writing.

    The HDF5 library can't close a file that it can't write: it leaves broken handles and may abort the process.
    """

    def __init__(self, raw: io.FileIO) -> None:
        super().__init__()
        self.raw = raw
        self.error: OSError | None = None

    def write(self, data: object) -> int:
        """Write all of it, or remember why not."""
        view = memoryview(data).cast("B")  # type: ignore[arg-type]
        done = 0
        while self.error is None and done < len(view):
            try:
                done += self.raw.write(view[done:])
            except OSError as error:
                self.error = error
        return len(view)

    def readinto(self, buffer: object) -> int:
        """Read as the file does."""
        return self.raw.readinto(buffer)  # type: ignore[arg-type]

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """Go to a place."""
        return self.raw.seek(offset, whence)

    def tell(self) -> int:
        """The present place."""
        return self.raw.tell()

    def truncate(self, size: int | None = None) -> int:
        """Set the size, or remember why not."""
        try:
            return self.raw.truncate(size)
        except OSError as error:
            self.error = self.error or error
            return size or 0


@contextmanager
def new_hdf5(path: Path, versions: tuple[str, str] = NEW) -> Iterator[h5py.File]:
    """A new HDF5 file to fill; closed on leaving.

    Args:
        versions: Oldest and newest format of the library to use.

    Raises:
        OSError: It couldn't be written whole; what is there then is worthless.
    """
    import h5py

    with io.FileIO(path, "wb+") as raw:
        steady = _Steady(raw)
        try:
            with h5py.File(steady, "w", libver=versions) as file:
                yield file
        except (OSError, RuntimeError):
            if steady.error is None:
                raise
        if steady.error is not None:
            raise steady.error
