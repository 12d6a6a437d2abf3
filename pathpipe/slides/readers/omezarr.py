"""Reader `omezarr`: OME-Zarr (NGFF) folders of 8-bit RGB, on zarr 2 and zarr 3."""

from __future__ import annotations

import json
import zlib
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import zarr

from pathpipe.errors import SlideError
from pathpipe.slides.alpha import over_white
from pathpipe.slides.ngff import NgffFacts, read_ngff_facts, refuse_coloured_channels
from pathpipe.slides.slide import Box, Closing, Level, Mpp, Pixels, make_levels
from pathpipe.slides.tiff import COPY_AGAIN, one_line
from pathpipe.slides.window import read_window

# What zarr and its codecs raise over metadata and chunks that are not what they should be.
_DAMAGE = (
    ArithmeticError,
    AttributeError,
    EOFError,
    LookupError,
    NotImplementedError,
    OSError,
    RuntimeError,
    TypeError,
    ValueError,
    zlib.error,
)


class OmeZarrSlide(Closing):
    """The first image of an OME-Zarr folder. A chunk that isn't there is the array's fill value, as zarr says.

    Nothing is kept open between reads: chunks are files of their own, and zarr makes itself anew after a fork.

    Raises:
        SlideError: Not OME-Zarr, not RGB, or damaged.
    """

    reader = "omezarr"
    objective: float | None = None
    bounds: Box | None = None

    def __init__(self, path: Path) -> None:
        facts = read_ngff_facts(path)
        refuse_coloured_channels(facts, path.name)
        self.path = path
        self._arrays = [_open(level, path.name) for level in facts.levels]
        self._axes = facts.axes
        for array in self._arrays:
            _refuse_other_than_rgb(array, facts.axes, path.name)
        self.vendor = "ome-zarr"
        self.levels = _levels(self._arrays, facts)
        self.size0 = self.levels[0].size_px
        self.mpp = None if facts.mpp is None else Mpp(*facts.mpp, "OME-Zarr scale")
        self.associated = facts.associated
        self.properties: Mapping[str, str] = {
            "ome-zarr.version": facts.version,
            "ome-zarr.axes": "".join(facts.axes),
            "ome-zarr.chunks": json.dumps([int(side) for side in self._arrays[0].chunks]),
        }

    def read(self, xy0: tuple[int, int], level: int, size_px: tuple[int, int]) -> Pixels:
        """See `Slide.read`."""
        return read_window(self, xy0, level, size_px, partial(self._decode, level), _DAMAGE)

    def _decode(self, level: int, x: int, y: int, width: int, height: int) -> Pixels:
        where = {"x": slice(x, x + width), "y": slice(y, y + height), "c": slice(None)}
        selection = tuple(where.get(axis, 0) for axis in self._axes)
        stored = np.asarray(self._arrays[level][selection])
        order = [axis for axis in self._axes if axis in where]
        region = stored.transpose([order.index(axis) for axis in "yxc"])
        return over_white(region) if region.shape[-1] == 4 else region


def _open(level: Path, where: str) -> Any:
    try:
        return zarr.open_array(str(level), mode="r")
    except _DAMAGE as error:
        raise SlideError(
            f"damaged: level `{level.name}` can't be opened: {one_line(error)}", where=where, hint=COPY_AGAIN
        ) from None


def _refuse_other_than_rgb(array: Any, axes: tuple[str, ...], where: str) -> None:
    sizes = dict(zip(axes, array.shape, strict=False))
    deep = [f"{sizes[axis]} {name}" for axis, name in (("z", "planes"), ("t", "times")) if sizes.get(axis, 1) > 1]
    if (
        len(axes) != array.ndim
        or not {"c", "y", "x"} <= set(axes) <= set("tczyx")
        or sizes["c"] not in (3, 4)
        or array.dtype != np.uint8
        or deep
    ):
        kind = f"{array.dtype.itemsize * 8}-bit" if array.dtype.kind in "ui" else str(array.dtype)
        said = ", ".join([f"{sizes.get('c', 1)} channels", *deep])
        raise SlideError(
            f"not an RGB slide: {kind}, {said}, axes {''.join(axes)}",
            where=where,
            hint="pathpipe works on 8-bit RGB brightfield slides; leave it out, or convert it to RGB first",
        )


def _levels(arrays: list[Any], facts: NgffFacts) -> tuple[Level, ...]:
    """Levels with the downsample their scales state, where it fits their sizes; else that of the sizes."""
    x, y = facts.axes.index("x"), facts.axes.index("y")
    by_size = make_levels([(int(array.shape[x]), int(array.shape[y])) for array in arrays])
    width0, height0 = by_size[0].size_px
    levels = []
    for level, scale in zip(by_size, facts.scales, strict=True):
        stated = (scale[0] / facts.scales[0][0], scale[1] / facts.scales[0][1])
        fits = abs(width0 / stated[0] - level.size_px[0]) <= 1 and abs(height0 / stated[1] - level.size_px[1]) <= 1
        levels.append(Level(level.index, level.size_px, stated) if fits else level)
    return tuple(levels)
