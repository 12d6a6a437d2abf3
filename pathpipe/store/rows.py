"""Rows: the half-made slide, an append-only file of framed blocks whose intact prefix survives kill -9.

An HDF5 file that is being appended to doesn't survive a kill; this does, because a block counts only when its frame and
its checksum are whole. The HDF5 is built once, from a whole row file. Specified in docs/formats.md, rows.
"""

from __future__ import annotations

import json
import os
import struct
import zlib
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt

from pathpipe.errors import StoreError
from pathpipe.publish import Claim, partial_path, publish

MAGIC = b"PPROWS1\n"
_FRAME = struct.Struct("<QQI")  # first row, rows, crc32 of the frame's first 16 bytes and the payload
_LENGTH = struct.Struct("<I")
_SYNC_BYTES = 16 << 20


@dataclass(frozen=True)
class RowLayout:
    """What the rows are: their width, their type, and the fingerprint of what makes them."""

    dim: int
    dtype: str
    fingerprint: str

    @property
    def row_bytes(self) -> int:
        """Bytes a row."""
        return self.dim * np.dtype(self.dtype).itemsize

    def header(self) -> bytes:
        """Magic, length and JSON that open the file."""
        text = json.dumps({"dim": self.dim, "dtype": self.dtype, "fingerprint": self.fingerprint}).encode()
        return MAGIC + _LENGTH.pack(len(text)) + text


class RowFile:
    """Rows of one slide, appended block by block. Make one with `RowFile.resume`."""

    def __init__(self, file: BinaryIO, layout: RowLayout, rows: int) -> None:
        self._file = file
        self._layout = layout
        self._unsynced = 0
        self.rows = rows

    @classmethod
    def resume(cls, path: Path, layout: RowLayout, claim: Claim | None = None) -> RowFile:
        """Take over what is intact in `path`, or start anew when it was made for something else.

        The intact blocks are copied to a file of this owner's own, which then takes the name: whoever had the file
        before (a machine that slept through its lease) goes on writing to a file without a name and spoils nothing.

        Raises:
            LeaseLostError: The claim on the slide is another worker's.
        """
        with ExitStack() as closing:
            with publish(path, claim) as own:
                file: BinaryIO = closing.enter_context(open(own, "w+b"))
                file.write(layout.header())
                rows = 0
                with suppress(FileNotFoundError):
                    rows = _copy_intact(path, file, layout)
                file.flush()
            closing.pop_all()  # it stays open under its new name
        return cls(file, layout, rows)

    def append(self, block: npt.NDArray[Any]) -> None:
        """Commit a block of rows, (n, dim) in the layout's type.

        Raises:
            StoreError: The block has another width or type.
        """
        if block.ndim != 2 or block.shape[1] != self._layout.dim or block.dtype != np.dtype(self._layout.dtype):
            raise StoreError(f"a block of {block.dtype} {block.shape} doesn't fit rows of {self._layout}")
        payload = np.ascontiguousarray(block).tobytes()
        self._file.write(_frame(self.rows, len(block), payload) + payload)
        # In the kernel's hands after flush: a killed process loses nothing. A power cut may lose the last 16 MB.
        self._file.flush()
        self._unsynced += len(payload)
        if self._unsynced >= _SYNC_BYTES:
            os.fsync(self._file.fileno())
            self._unsynced = 0
        self.rows += len(block)

    @property
    def shape(self) -> tuple[int, int]:
        """(rows, dim)."""
        return self.rows, self._layout.dim

    @property
    def dtype(self) -> np.dtype[Any]:
        """Type of the rows."""
        return np.dtype(self._layout.dtype)

    def blocks(self) -> Iterator[npt.NDArray[Any]]:
        """All committed rows in order, (n, dim) at a time: a slide's features never have to fit in memory.

        Raises:
            StoreError: A block on disk is no longer intact.
        """
        self._file.seek(len(self._layout.header()))
        at = 0
        while at < self.rows:
            block = _read_block(self._file, self._layout, at)
            if block is None:
                raise StoreError(f"row {at} of the half-made file is damaged", hint="run the same command again")
            at += len(block)
            yield block
        self._file.seek(0, os.SEEK_END)

    def close(self) -> None:
        """Close the file; its rows stay."""
        self._file.close()

    def discard(self, path: Path) -> None:
        """Remove the file from where `resume` put it, unless another owner's lies there now."""
        aside = partial_path(path)
        try:
            os.rename(path, aside)  # first: to look and then to remove would remove what came in between
        except FileNotFoundError:
            return
        if not os.path.samestat(os.stat(aside), os.fstat(self._file.fileno())):
            with suppress(FileExistsError):
                os.link(aside, path)
        os.unlink(aside)


def refuse_non_finite(features: npt.NDArray[np.floating[Any]], xy0: npt.NDArray[np.int64]) -> None:
    """Stop at NaN or infinity.

    Args:
        features: (n, D) of the tiles at `xy0`, (n, 2), in the type they will be stored in.

    Raises:
        StoreError: Names the first tile's level-0 coordinates.
    """
    bad = np.flatnonzero(~np.isfinite(features).all(axis=1))
    if len(bad):
        x0, y0 = xy0[bad[0]].tolist()
        raise StoreError(
            f"the encoder gave NaN or infinity for {len(bad)} tiles, the first at level-0 ({x0}, {y0})",
            hint="try `--dtype float32` and `--precision fp32`; if it stays, the weights or the tile are broken",
        )


def _frame(first: int, count: int, payload: bytes) -> bytes:
    head = struct.pack("<QQ", first, count)
    return _FRAME.pack(first, count, zlib.crc32(payload, zlib.crc32(head)))


def _read_block(file: BinaryIO, layout: RowLayout, expected_first: int) -> npt.NDArray[Any] | None:
    """The next block, or None where the intact part ends."""
    frame = file.read(_FRAME.size)
    if len(frame) < _FRAME.size:
        return None
    first, count, checksum = _FRAME.unpack(frame)
    left = os.fstat(file.fileno()).st_size - file.tell()
    if first != expected_first or count == 0 or count * layout.row_bytes > left:
        return None
    payload = file.read(count * layout.row_bytes)
    if zlib.crc32(payload, zlib.crc32(frame[:16])) != checksum:
        return None
    return np.frombuffer(payload, layout.dtype).reshape(count, layout.dim)


def _copy_intact(source: Path, target: BinaryIO, layout: RowLayout) -> int:
    """Append the intact blocks of `source` to `target`; how many rows they hold, 0 when it was made for others."""
    header, rows = layout.header(), 0
    with open(source, "rb") as file:
        if file.read(len(header)) != header:
            return 0
        while (block := _read_block(file, layout, rows)) is not None:
            payload = block.tobytes()
            target.write(_frame(rows, len(block), payload) + payload)
            rows += len(block)
    return rows
