"""What a TIFF file says of itself, read with tifffile: whether it is RGB and whole, its levels, its OME-XML."""

from __future__ import annotations

import logging
import struct
from dataclasses import dataclass
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import tifffile

from pathpipe.errors import SlideError
from pathpipe.slides.remote import SlideFile

# tifffile also logs what it raises; without a handler of somebody's, Python would print that to stderr.
logging.getLogger("tifffile").addHandler(logging.NullHandler())

# Everything tifffile and tiffslide were seen to raise over files with flipped bytes.
DAMAGE = (
    tifffile.TiffFileError,
    ArithmeticError,
    AttributeError,
    ImportError,  # a codec that isn't there
    LookupError,
    OSError,
    RuntimeError,
    TypeError,
    ValueError,
    struct.error,
)
COPY_AGAIN = "copy the file again from its source and compare sizes; or leave the slide out"

_MAGIC = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
_UM = {"\u00b5m": 1.0, "\u03bcm": 1.0, "nm": 1e-3, "mm": 1e3, "cm": 1e4, "m": 1e6}


@dataclass(frozen=True)
class TiffFacts:
    """The first series of a TIFF file.

    Attributes:
        level_sizes: (width, height) of each level.
        ome: Whether OME-XML describes it.
        ome_mpp: um/px, (x, y), that the OME-XML states, or None.
        alpha: The fourth sample: `none`, `straight` or `premultiplied` alpha.
        absent: How many of its tiles or strips aren't stored.
    """

    level_sizes: tuple[tuple[int, int], ...]
    ome: bool
    ome_mpp: tuple[float, float] | None
    alpha: str
    absent: int


def is_tiff(path: SlideFile) -> bool:
    """Whether the file begins as a TIFF or BigTIFF file does."""
    with path.open("rb") as file:
        return file.read(4) in _MAGIC


def open_tiff(path: SlideFile) -> tifffile.TiffFile:
    """The file, as tifffile parses it."""
    if isinstance(path, Path):
        return tifffile.TiffFile(path)
    return tifffile.TiffFile(path.open("rb"), name=path.name)


def read_tiff_facts(path: SlideFile) -> TiffFacts:
    """The facts of an RGB TIFF.

    Raises:
        SlideError: It can't be parsed, its first series isn't 8-bit RGB, or the file ends before its pixels do.
    """
    try:
        with open_tiff(path) as file:
            return tiff_facts(file, path)
    except DAMAGE as error:
        raise SlideError(
            f"damaged: its TIFF directory can't be read ({one_line(error)})", where=path.name, hint=COPY_AGAIN
        ) from None


def tiff_facts(file: tifffile.TiffFile, path: SlideFile) -> TiffFacts:
    """`read_tiff_facts` of a file that is open; errors of the TIFF directory come as tifffile raises them."""
    series = file.series[0]
    _refuse_other_than_rgb(series, path)
    _refuse_cut_short(series, file.filehandle.size, path.name)
    _refuse_lost_images(file, path)
    return TiffFacts(
        level_sizes=tuple((level.shape[1], level.shape[0]) for level in series.levels),
        ome=bool(file.is_ome),
        ome_mpp=ome_mpp(file.ome_metadata) if file.is_ome else None,
        alpha=_alpha(series),
        absent=sum(tuple(level[0].databytecounts).count(0) for level in series.levels if level[0] is not None),
    )


def refuse_cut_short(path: SlideFile) -> None:
    """Refuse a TIFF that ends before its pixels do; one that tifffile can't parse is left to its reader.

    Raises:
        SlideError: Names how many tiles are missing and the place of the first.
    """
    try:
        with open_tiff(path) as file:
            _refuse_cut_short(file.series[0], file.filehandle.size, path.name)
            _refuse_lost_images(file, path)
    except DAMAGE:
        return


def ome_mpp(xml: str | None) -> tuple[float, float] | None:
    """um/px (x, y) of the first image of an OME-XML text, or None where it states none.

    Reference: OME schema 2016-06, attributes PhysicalSizeX and PhysicalSizeXUnit, whose default is um.
    """
    try:
        pixels = ElementTree.fromstring(xml or "").find("{*}Image/{*}Pixels")
        if pixels is None:
            return None
        x, y = (
            float(pixels.attrib[f"PhysicalSize{axis}"]) * _UM[pixels.get(f"PhysicalSize{axis}Unit", "\u00b5m")]
            for axis in "XY"
        )
    except (ElementTree.ParseError, KeyError, ValueError):
        return None
    return (x, y) if x > 0 and y > 0 else None


def _refuse_other_than_rgb(series: tifffile.TiffPageSeries, path: SlideFile) -> None:
    axes, shape, dtype = series.axes, series.shape, np.dtype(series.dtype)
    if axes != "YXS" or shape[-1] not in (3, 4) or dtype != np.uint8:
        raise SlideError(
            f"not an RGB slide: {_describe(axes, shape, dtype)}",
            where=path.name,
            hint="pathpipe works on 8-bit RGB brightfield slides; leave it out, or convert it to RGB first",
        )


def _describe(axes: str, shape: tuple[int, ...], dtype: np.dtype) -> str:
    bits = f"{dtype.itemsize * 8}-bit"
    if axes == "YX":
        return f"{bits} grey"
    if axes in ("YXS", "SYX") and shape[axes.index("S")] in (3, 4):
        return f"{bits} RGB" + (", stored colour by colour" if axes == "SYX" else "")
    sizes = ", ".join(
        f"{size} {name}"
        for axis, name in (("C", "channels"), ("S", "samples"), ("Z", "planes"), ("T", "times"))
        if axis in axes and (size := shape[axes.index(axis)]) > 1
    )
    return f"{bits}, {sizes or 'axes ' + axes}"


def _refuse_cut_short(series: tifffile.TiffPageSeries, size: int, name: str) -> None:
    """A tile that reaches past the end of the file: some decoders fill what is missing and say nothing."""
    width0 = series.levels[0].shape[1]
    for index, level in enumerate(series.levels):
        page, facts = level[0], level.keyframe
        if page is None:
            continue
        ends = np.asarray(page.dataoffsets, np.float64) + np.asarray(page.databytecounts, np.float64)
        lost = np.flatnonzero(ends > size)
        if not lost.size:
            continue
        wide, high = (facts.tilewidth, facts.tilelength) if facts.is_tiled else (facts.imagewidth, facts.rowsperstrip)
        row, column = divmod(int(lost[0]), -(-facts.imagewidth // wide))
        downsample = width0 / level.shape[1]
        first = (round(column * wide * downsample), round(row * high * downsample))
        kind = "tiles" if facts.is_tiled else "strips"
        raise SlideError(
            f"damaged: the file ends early: {lost.size} of {ends.size} {kind} of level {index} are missing, "
            f"the first at {first}",
            where=name,
            hint=COPY_AGAIN,
        )


def _refuse_lost_images(file: tifffile.TiffFile, path: SlideFile) -> None:
    """A directory past the end of the file: tifffile stops there, and the slide would have fewer levels.

    Reference: TIFF 6.0, section 2: each directory ends with the offset of the next.
    """
    form, handle = file.tiff, file.filehandle
    subifds = [offset for page in (file.series[0].keyframe,) for offset in page.subifds or ()]
    lost = [f"lower level {number}" for number, at in enumerate(subifds, 1) if at + form.tagnosize > handle.size]
    seen: set[int] = set()
    offset = int(file.pages.first.offset)
    while offset and offset not in seen and not lost:
        seen.add(offset)
        handle.seek(offset)
        head = handle.read(form.tagnosize)
        tags = struct.unpack(form.tagnoformat, head)[0] if len(head) == form.tagnosize else 0
        handle.seek(offset + form.tagnosize + tags * form.tagsize)
        following = handle.read(form.offsetsize)
        if len(head) < form.tagnosize or len(following) < form.offsetsize:
            lost = [f"image {len(seen)} of the file"]
        else:
            offset = struct.unpack(form.offsetformat, following)[0]
    if lost:
        raise SlideError(
            f"damaged: the file ends early: {lost[0]} and what comes after it are missing",
            where=path.name,
            hint=COPY_AGAIN,
        )


def _alpha(series: tifffile.TiffPageSeries) -> str:
    samples = [int(value) for value in series.keyframe.extrasamples]
    return {1: "premultiplied", 2: "straight"}.get(samples[0], "none") if samples else "none"


def one_line(error: Exception) -> str:
    """What an exception of another package says, without its line breaks."""
    return " ".join(str(error).split()) or type(error).__name__
