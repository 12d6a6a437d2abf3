"""Reader `direct`: TIFF slides (SVS, OME-TIFF, generic) straight from the file, each stored tile decoded once."""

from __future__ import annotations

import math
import os
import weakref
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from pathpipe.errors import SlideError
from pathpipe.slides.alpha import over_white
from pathpipe.slides.native.cache import TileCache
from pathpipe.slides.native.decode import DecodeError
from pathpipe.slides.native.index import NativeLevel, NotDirect, TiffIndex, read_index
from pathpipe.slides.resolution import stated_number
from pathpipe.slides.slide import Box, Closing, Level, Mpp, Pixels, make_levels
from pathpipe.slides.tiff import COPY_AGAIN, is_tiff

CACHE_BYTES = 256 << 20
_KEPT_ROWS = 3  # of stored tiles: two are in use when a grid doesn't meet them
_MANY = 256  # tiles of one region that big regions don't leave in the cache


class DirectSlide(Closing):
    """A TIFF slide read through its own index of stored tiles.

    Positioned reads on one descriptor: nothing is shared that a thread or a forked process could disturb.

    Raises:
        NotDirect: Another reader should open it.
        SlideError: Damaged, or not an RGB slide.
    """

    reader = "direct"

    def __init__(self, path: Path) -> None:
        if not is_tiff(path):
            raise NotDirect("not a TIFF file", where=path.name)
        self.path = path
        index = read_index(path)
        self._native = index.levels
        self._alpha = index.facts.alpha
        self.vendor = index.vendor
        self.associated = index.associated
        self.levels = _levels(index)
        self.size0 = self.levels[0].size_px
        self.properties: Mapping[str, str] = _properties(index)
        self.mpp = _mpp(index, self.properties)
        self.objective = stated_number(self.properties.get("aperio.AppMag"))
        self.bounds: Box | None = None
        self._file = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        self._closed = weakref.finalize(self, os.close, self._file)
        self._own_cache = (os.getpid(), TileCache(_cache_bytes(self._native)))

    def read(self, xy0: tuple[int, int], level: int, size_px: tuple[int, int]) -> Pixels:
        """See `Slide.read`."""
        return self.read_shrunk(xy0, level, size_px, 1)

    def read_shrunk(self, xy0: tuple[int, int], level: int, size_px: tuple[int, int], shrink: int) -> Pixels:
        """See `ShrinkingSlide.read_shrunk`."""
        if not 0 <= level < len(self.levels):
            raise SlideError(f"has no level {level}", where=self.path.name)
        native = self._native[level]
        down_x, down_y = self.levels[level].downsample
        left = math.floor(xy0[0] / (down_x * shrink) + 0.5)
        top = math.floor(xy0[1] / (down_y * shrink) + 0.5)
        width, height = size_px
        wide, high = native.tile_px[0] // shrink, native.tile_px[1] // shrink
        if (width, height) == (wide, high) and left % wide == 0 and top % high == 0:
            whole = self._whole_tile(native, level, shrink, top // high, left // wide)
            if whole is not None:
                return whole
        return self._assemble(level, shrink, (left, top), size_px)

    def _assemble(self, level: int, shrink: int, corner: tuple[int, int], size_px: tuple[int, int]) -> Pixels:
        """Every stored tile that meets the region laid into it; white elsewhere."""
        native = self._native[level]
        (left, top), (width, height) = corner, size_px
        wide, high = native.tile_px[0] // shrink, native.tile_px[1] // shrink
        # beyond the level's last px stored tiles hold padding
        right = min(left + width, -(-native.size_px[0] // shrink))
        below = min(top + height, -(-native.size_px[1] // shrink))
        row0, column0 = max(top, 0) // high, max(left, 0) // wide
        row1, column1 = max(-(-below // high), row0), max(-(-right // wide), column0)
        stored = native.counts[row0:row1, column0:column1] > 0
        inside = left >= 0 and top >= 0 and right == left + width and below == top + height
        out = np.empty((height, width, 3), np.uint8)
        if not (inside and stored.all()):
            out.fill(255)
        keep = stored.size <= _MANY
        for row, column in np.argwhere(stored).tolist():
            row, column = row + row0, column + column0
            tile = self._tile(level, shrink, row, column, keep)
            y, x = row * high, column * wide
            y1, y2 = max(y, top), min(y + tile.shape[0], below)
            x1, x2 = max(x, left), min(x + tile.shape[1], right)
            out[y1 - top : y2 - top, x1 - left : x2 - left] = tile[y1 - y : y2 - y, x1 - x : x2 - x]
        return out

    def _whole_tile(self, native: NativeLevel, level: int, shrink: int, row: int, column: int) -> Pixels | None:
        """The region that is one stored tile, decoded for its reader alone; None where it isn't a whole one."""
        rows, columns = native.counts.shape
        inside = (
            0 <= row < rows
            and 0 <= column < columns
            and (row + 1) * native.tile_px[1] <= native.size_px[1]
            and (column + 1) * native.tile_px[0] <= native.size_px[0]
            and native.counts[row, column] > 0
        )
        if not inside:
            return None
        kept = self._cache().peek((level, shrink, row, column))
        return kept.copy() if kept is not None else self._decode(level, shrink, row, column)

    def _tile(self, level: int, shrink: int, row: int, column: int, keep: bool) -> Pixels:
        if not keep:
            return self._decode(level, shrink, row, column)
        return self._cache().get((level, shrink, row, column), lambda: self._decode(level, shrink, row, column))

    def _decode(self, level: int, shrink: int, row: int, column: int) -> Pixels:
        native = self._native[level]
        number = row * native.counts.shape[1] + column
        length = int(native.counts[row, column])
        try:
            data = os.pread(self._file, length, int(native.offsets[row, column]))
            if len(data) < length:
                raise DecodeError("the file ends early")
            pixels = native.decoder.decode(data, number, shrink)
        except (DecodeError, OSError) as error:
            x0, y0 = (
                round(step * side * down)
                for step, side, down in zip((column, row), native.tile_px, self.levels[level].downsample, strict=True)
            )
            raise SlideError(
                f"damaged: level {level} can't be read at {(x0, y0)}: {error}", where=self.path.name, hint=COPY_AGAIN
            ) from None
        if pixels.shape[2] == 4:
            return over_white(pixels, self._alpha == "premultiplied") if self._alpha != "none" else pixels[..., :3]
        return pixels

    def _cache(self) -> TileCache:
        # After a fork its lock may be held by a thread that isn't here.
        pid, cache = self._own_cache
        if pid != os.getpid():
            cache = TileCache(cache.max_bytes)
            self._own_cache = (os.getpid(), cache)
        return cache

    def close(self) -> None:
        """Let go of the file."""
        self._closed()


def _cache_bytes(levels: tuple[NativeLevel, ...]) -> int:
    row = max(level.counts.shape[1] * level.tile_px[0] * level.tile_px[1] * 3 for level in levels)
    return min(CACHE_BYTES, _KEPT_ROWS * row)


def _levels(index: TiffIndex) -> tuple[Level, ...]:
    levels = make_levels([level.size_px for level in index.levels])
    return tuple(
        Level(level.index, level.size_px, level.downsample, native.shrinks)
        for level, native in zip(levels, index.levels, strict=True)
    )


def _properties(index: TiffIndex) -> dict[str, str]:
    """Aperio's `key = value` pairs, and the description as it stands."""
    properties = {"tiff.ImageDescription": index.description}
    if index.vendor == "aperio":
        for pair in index.description.split("|")[1:]:
            key, equals, value = pair.partition("=")
            if equals:
                properties[f"aperio.{key.strip()}"] = value.strip()
    return properties


def _mpp(index: TiffIndex, properties: Mapping[str, str]) -> Mpp | None:
    if index.facts.ome_mpp is not None:
        return Mpp(*index.facts.ome_mpp, "OME PhysicalSize")
    if index.vendor == "aperio":
        value = stated_number(properties.get("aperio.MPP"))
        return None if value is None else Mpp(value, value, "aperio property")
    return None if index.resolution is None else Mpp(*index.resolution, "TIFF resolution tags")
