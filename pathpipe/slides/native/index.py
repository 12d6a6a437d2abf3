"""The index of a TIFF slide: for every level the place of each stored tile in the file, and how it is coded."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt
import tifffile

from pathpipe.errors import SlideError
from pathpipe.slides.native.decode import SUPPORTED, Decoder, decoder_for
from pathpipe.slides.remote import SlideFile
from pathpipe.slides.tiff import COPY_AGAIN, DAMAGE, TiffFacts, one_line, open_tiff, tiff_facts

MAX_NATIVE_BYTES = 64 << 20
# Their pyramids, gaps or focal planes follow rules of their own, which OpenSlide knows.
_OF_OTHERS = ("ndpi", "scn", "bif", "philips", "ventana", "sis", "qpi", "lsm", "stk", "fluoview", "mediacy")


class NotDirect(SlideError):
    """A sound slide that another reader should open."""


@dataclass(frozen=True)
class NativeLevel:
    """One level as it is stored. Strips count as tiles as wide as the level.

    Attributes:
        size_px: (width, height).
        tile_px: (width, height) of a stored tile.
        offsets: (rows, columns) int64, where each tile begins in the file.
        counts: (rows, columns) int64, its length in bytes; 0 where nothing was stored.
    """

    size_px: tuple[int, int]
    tile_px: tuple[int, int]
    offsets: npt.NDArray[np.int64]
    counts: npt.NDArray[np.int64]
    decoder: Decoder

    @cached_property
    def shrinks(self) -> tuple[int, ...]:
        """By what the decoder can shrink a tile: whole pixels have to come out."""
        return tuple(by for by in self.decoder.shrinks if not (self.tile_px[0] % by or self.tile_px[1] % by))


@dataclass(frozen=True)
class TiffIndex:
    """A slide's levels and what the file says of itself.

    Attributes:
        vendor: `aperio`, `ome-tiff` or `generic-tiff`.
        description: ImageDescription of the first page.
        resolution: um/px, (x, y), by the TIFF resolution tags, or None.
        associated: Names of the other pictures in the file: thumbnail, label, macro.
    """

    facts: TiffFacts
    levels: tuple[NativeLevel, ...]
    vendor: str
    description: str
    resolution: tuple[float, float] | None
    associated: tuple[str, ...]


def read_index(path: SlideFile) -> TiffIndex:
    """Index a TIFF slide; reads directories only, no pixels.

    Raises:
        NotDirect: The file is of a kind another reader knows better.
        SlideError: It is damaged, or not an RGB slide.
    """
    if path.suffix.lower() == ".ndpi":  # by this name alone tifffile takes its offsets for NDPI's own kind
        raise NotDirect("called .ndpi, which OpenSlide tells from other TIFFs", where=path.name)
    try:
        with open_tiff(path) as file:
            _refuse_kinds_of_others(file, path)
            facts = tiff_facts(file, path)
            levels = tuple(_level(level.keyframe, level[0], path) for level in file.series[0].levels)
            vendor = "aperio" if file.is_svs else "ome-tiff" if facts.ome else "generic-tiff"
            if vendor == "aperio" and any((level.counts == 0).any() for level in levels):
                raise NotDirect("has gaps that OpenSlide fills from its finer levels", where=path.name)
            first = file.pages.first
            return TiffIndex(
                facts=facts,
                levels=levels,
                vendor=vendor,
                description=str(first.description),
                resolution=_resolution(first),
                associated=_associated(file) if vendor == "aperio" else (),
            )
    except DAMAGE as error:
        raise SlideError(
            f"damaged: its TIFF directory can't be read ({one_line(error)})", where=path.name, hint=COPY_AGAIN
        ) from None


def _refuse_kinds_of_others(file: tifffile.TiffFile, path: SlideFile) -> None:
    kind = next((kind for kind in _OF_OTHERS if getattr(file, f"is_{kind}", False)), None)
    if kind is not None:
        raise NotDirect(f"a {kind.upper()} file, whose levels need their own reader", where=path.name)


def _level(
    facts: tifffile.TiffPage, page: tifffile.TiffPage | tifffile.TiffFrame | None, path: SlideFile
) -> NativeLevel:
    if page is None or facts.compression not in SUPPORTED:
        name = getattr(facts.compression, "name", facts.compression)
        raise NotDirect(f"stored with compression {name}", where=path.name)
    width, height = facts.imagewidth, facts.imagelength
    tile_px = (facts.tilewidth, facts.tilelength) if facts.is_tiled else (width, min(facts.rowsperstrip, height))
    shape = (-(-height // tile_px[1]), -(-width // tile_px[0]))
    offsets, counts = (np.asarray(values, np.int64) for values in (page.dataoffsets, page.databytecounts))
    if len(offsets) != shape[0] * shape[1] or len(counts) != len(offsets):
        raise SlideError(
            f"damaged: {len(offsets)} tiles are listed where {shape[0] * shape[1]} belong",
            where=path.name,
            hint=COPY_AGAIN,
        )
    if tile_px[0] * tile_px[1] * facts.samplesperpixel > MAX_NATIVE_BYTES:
        raise NotDirect(f"stored in pieces of {tile_px[0]} x {tile_px[1]} px", where=path.name)
    decoder = decoder_for(facts)
    if decoder is None:
        raise NotDirect("stored in colours that need another reader", where=path.name)
    return NativeLevel((width, height), tile_px, offsets.reshape(shape), counts.reshape(shape), decoder)


def _resolution(page: tifffile.TiffPage) -> tuple[float, float] | None:
    """um/px by the tags XResolution, YResolution and ResolutionUnit (TIFF 6.0, section 8)."""
    um = {2: 25_400.0, 3: 10_000.0}.get(int(page.resolutionunit))
    values = [page.tags.valueof(name) for name in ("XResolution", "YResolution")]
    if um is None or any(value is None or value[0] == 0 or value[1] == 0 for value in values):
        return None
    x, y = (um * value[1] / value[0] for value in values)
    return x, y


def _associated(file: tifffile.TiffFile) -> tuple[str, ...]:
    return tuple(series.name.lower() for series in file.series[1:] if series.name)
