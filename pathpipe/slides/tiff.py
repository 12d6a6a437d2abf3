"""What a TIFF file says of itself, read with tifffile: whether it is an RGB slide, its levels, its resolution."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import tifffile

from pathpipe.errors import SlideError

_MAGIC = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")


@dataclass(frozen=True)
class TiffFacts:
    """The first series of a TIFF file.

    Attributes:
        level_sizes: (width, height) of each level.
        ome: Whether OME-XML describes it.
    """

    level_sizes: tuple[tuple[int, int], ...]
    ome: bool


def is_tiff(path: Path) -> bool:
    """Whether the file begins as a TIFF or BigTIFF file does."""
    with open(path, "rb") as file:
        return file.read(4) in _MAGIC


def read_tiff_facts(path: Path) -> TiffFacts:
    """The facts of an RGB TIFF.

    Raises:
        SlideError: It can't be parsed, or its first series isn't 8-bit RGB.
    """
    try:
        with tifffile.TiffFile(path) as file:
            series = file.series[0]
            axes, shape, dtype = series.axes, series.shape, series.dtype
            facts = TiffFacts(tuple((level.shape[1], level.shape[0]) for level in series.levels), bool(file.is_ome))
    except (tifffile.TiffFileError, ValueError, IndexError, OSError, KeyError) as error:
        raise SlideError(f"damaged: its TIFF directory can't be read ({error})", where=path.name) from None
    if axes != "YXS" or shape[-1] not in (3, 4) or dtype != np.uint8:
        raise SlideError(
            f"not an RGB slide: {_describe(axes, shape, dtype)}",
            where=path.name,
            hint="pathpipe works on 8-bit RGB brightfield slides; leave it out, or convert it to RGB first",
        )
    return facts


def _describe(axes: str, shape: tuple[int, ...], dtype: np.dtype) -> str:
    bits = f"{np.dtype(dtype).itemsize * 8}-bit"
    if axes == "YX":
        return f"{bits} grey"
    sizes = ", ".join(
        f"{size} {name}"
        for axis, name in (("C", "channels"), ("S", "samples"), ("Z", "planes"), ("T", "times"))
        if axis in axes and (size := shape[axes.index(axis)]) > 1
    )
    return f"{bits}, {sizes or 'axes ' + axes}"
