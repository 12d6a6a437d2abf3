"""Reader `direct`: TIFF slides (SVS, OME-TIFF, generic) straight from the file, each stored tile decoded once."""

from __future__ import annotations

import math
import os
import time
from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path

import cv2
import numpy as np

from pathpipe.errors import SlideError
from pathpipe.slides.alpha import over_white
from pathpipe.slides.native.cache import TileCache
from pathpipe.slides.native.decode import DecodeError
from pathpipe.slides.native.index import NativeLevel, NotDirect, TiffIndex, read_index
from pathpipe.slides.native.pieces import LocalPieces
from pathpipe.slides.remote import RemoteFile, SlideFile
from pathpipe.slides.resolution import by_tiff_tags, stated_number
from pathpipe.slides.slide import Box, Closing, Level, Mpp, Pixels, make_levels
from pathpipe.slides.tiff import COPY_AGAIN, is_tiff
from pathpipe.slides.window import refuse_no_level

CACHE_BYTES = 256 << 20
_KEPT_ROWS = 3  # of stored tiles: two are in use when a grid doesn't meet them
_ON_PIXEL = 0.02  # of a pixel: nearer than this, no grey level would change by interpolating
_REMEMBERED = 65_536  # tiles: several rows of any slide
_MANY = 256  # tiles of one region that big regions don't leave in the cache


class DirectSlide(Closing):
    """A TIFF slide read through its own index of stored tiles.

    Safe from several threads and after a fork: reads are positioned, of a local file as of one behind a URL.

    Raises:
        NotDirect: Another reader should open it.
        SlideError: Damaged, or not an RGB slide.
    """

    reader = "direct"

    def __init__(self, path: SlideFile) -> None:
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
        self.read_seconds = 0.0  # waited for the disk or network so far, by all threads
        self._pieces: LocalPieces | RemoteFile | None = LocalPieces(path) if isinstance(path, Path) else path
        self._passed: set[tuple[int, int, int, int]] = set()  # tiles that were decoded and not kept
        self._overlapping = False
        self._own_cache = (os.getpid(), TileCache(_cache_bytes(self._native)))

    def read(self, xy0: tuple[int, int], level: int, size_px: tuple[int, int]) -> Pixels:
        """See `Slide.read`."""
        out = np.empty((size_px[1], size_px[0], 3), np.uint8)
        self.read_into(out, xy0, level, 1)
        return out

    def read_into(self, out: Pixels, xy0: tuple[int, int], level: int, shrink: int) -> None:
        """See `ShrinkingSlide.read_into`."""
        refuse_no_level(self, level)
        if self._pieces is None:
            raise SlideError("has been closed", where=self.path.name)
        down_x, down_y = self.levels[level].downsample
        x, y = xy0[0] / (down_x * shrink), xy0[1] / (down_y * shrink)
        left, top = math.floor(x + 0.5), math.floor(y + 0.5)
        if max(abs(x - left), abs(y - top)) > _ON_PIXEL:
            self._between_pixels(out, level, shrink, x, y)
            return
        native = self._native[level]
        wide, high = native.tile_px[0] // shrink, native.tile_px[1] // shrink
        one = out.shape[:2] == (high, wide) and left % wide == 0 and top % high == 0
        if not (one and self._whole_tile(out, level, shrink, top // high, left // wide)):
            self._assemble(out, level, shrink, left, top)

    def _between_pixels(self, out: Pixels, level: int, shrink: int, x: float, y: float) -> None:
        """A corner that falls between pixels of its level: bilinear, as OpenSlide does it."""
        height, width = out.shape[:2]
        left, top = math.floor(x), math.floor(y)
        around = np.empty((height + 1, width + 1, 3), np.uint8)
        self._assemble(around, level, shrink, left, top)
        middle = ((width - 1) / 2 + x - left, (height - 1) / 2 + y - top)
        out[...] = cv2.getRectSubPix(around, (width, height), middle)

    def _assemble(self, out: Pixels, level: int, shrink: int, left: int, top: int) -> None:
        """Every stored tile that meets the region laid into it; white elsewhere."""
        native = self._native[level]
        height, width = out.shape[:2]
        wide, high = native.tile_px[0] // shrink, native.tile_px[1] // shrink
        # beyond the level's last px stored tiles hold padding
        right = min(left + width, -(-native.size_px[0] // shrink))
        below = min(top + height, -(-native.size_px[1] // shrink))
        row0, column0 = max(top, 0) // high, max(left, 0) // wide
        row1, column1 = max(-(-below // high), row0), max(-(-right // wide), column0)
        stored = native.counts[row0:row1, column0:column1]
        if right <= left or below <= top:
            stored = stored[:0]
        # lists: on the few tiles of a usual region numpy takes longer to be called than to work
        lines = enumerate(stored.tolist(), start=row0)
        wanted = [(row, column) for row, line in lines for column, size in enumerate(line, start=column0) if size]
        inside = left >= 0 and top >= 0 and right == left + width and below == top + height
        if not inside or len(wanted) < stored.size:
            out.fill(255)
        whole = (range(-(-top // high), below // high), range(-(-left // wide), right // wide))
        for row, column, tile in self._tiles(level, shrink, wanted, whole):
            y, x = row * high, column * wide
            y1, y2 = max(y, top), min(y + tile.shape[0], below)
            x1, x2 = max(x, left), min(x + tile.shape[1], right)
            out[y1 - top : y2 - top, x1 - left : x2 - left] = tile[y1 - y : y2 - y, x1 - x : x2 - x]

    def _tiles(
        self, level: int, shrink: int, wanted: list[tuple[int, int]], whole: tuple[range, range]
    ) -> Iterator[tuple[int, int, Pixels]]:
        """(row, column, pixels) of stored tiles; those that another thread is decoding come last.

        Tiles that the region takes whole (`whole`: rows and columns) are seldom wanted again, and keeping them costs
        memory and time: they are kept only once one was wanted a second time, as in overlapping grids.
        """
        cache, others = self._cache(), []
        many = len(wanted) > _MANY
        for row, column in wanted:
            key = (level, shrink, row, column)
            if many or (row in whole[0] and column in whole[1] and not self._overlapping):
                tile = cache.peek(key)
                if tile is None:
                    tile = self._decode(*key)
                    self._overlapping = not many and key in self._passed
                    if len(self._passed) >= _REMEMBERED:
                        self._passed.clear()
                    self._passed.add(key)
                yield row, column, tile
                continue
            tile = cache.get_now(key, partial(self._decode, *key))
            if tile is None:
                others.append(key)
            else:
                yield row, column, tile
        for key in others:
            yield *key[2:], cache.get(key, partial(self._decode, *key))

    def _whole_tile(self, out: Pixels, level: int, shrink: int, row: int, column: int) -> bool:
        """Fill a region that is one stored tile without keeping the tile; False where it isn't a whole one."""
        native = self._native[level]
        rows, columns = native.counts.shape
        whole = (
            0 <= row < rows
            and 0 <= column < columns
            and (row + 1) * native.tile_px[1] <= native.size_px[1]
            and (column + 1) * native.tile_px[0] <= native.size_px[0]
            and native.counts[row, column] > 0
        )
        if whole:
            tile = self._cache().peek((level, shrink, row, column))
            if tile is None:
                tile = self._decode(level, shrink, row, column, out)
            if not np.shares_memory(tile, out):
                out[...] = tile
        return whole

    def _decode(self, level: int, shrink: int, row: int, column: int, into: Pixels | None = None) -> Pixels:
        native, pieces = self._native[level], self._pieces
        if pieces is None:
            raise SlideError("has been closed", where=self.path.name)
        number = row * native.counts.shape[1] + column
        length = int(native.counts[row, column])
        try:
            started = time.perf_counter()
            data = pieces.pread(length, int(native.offsets[row, column]))
            self.read_seconds += time.perf_counter() - started
            if len(data) < length:
                raise DecodeError("the file ends early")
            pixels = _whole(native.decoder.decode(data, number, shrink, into), native, shrink, row, column)
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
        if isinstance(self._pieces, LocalPieces):
            self._pieces.close()
        self._pieces = None


def _whole(pixels: Pixels, native: NativeLevel, shrink: int, row: int, column: int) -> Pixels:
    """A decoded tile of the size that is listed; another one is damaged: it would leave bare what no one has filled."""
    wide, high = native.tile_px[0] // shrink, native.tile_px[1] // shrink
    # at the level's end a strip may be cut short; a tile is padded
    columns = min(wide, -(-native.size_px[0] // shrink) - column * wide)
    rows = min(high, -(-native.size_px[1] // shrink) - row * high)
    if pixels.shape[0] < rows or not columns <= pixels.shape[1] <= wide:
        raise DecodeError(f"{pixels.shape[1]} x {pixels.shape[0]} px are stored where {columns} x {rows} belong")
    return pixels[:high]


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
        if value is not None:
            return Mpp(value, value, "aperio property")
        tags = index.resolution
        return None if tags is None else by_tiff_tags(1 / tags[0], 1 / tags[1], 1)
    return None if index.resolution is None else Mpp(*index.resolution, "TIFF resolution tags")
