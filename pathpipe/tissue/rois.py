"""Regions of interest: polygons a person drew that tiles must lie in, or must not lie on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from pathpipe.settings import TileSettings
from pathpipe.tissue.geojson import Polygon
from pathpipe.tissue.given import Origin, given_file, read_given
from pathpipe.tissue.mask import BoolArray, area_share, integral
from pathpipe.tissue.polygons import fill

CELLS = 64  # a box's side is measured in so many cells
_MAX_CELLS = 1 << 25  # a raster larger than this is made of larger cells


@dataclass(frozen=True)
class Rois:
    """Where tiles are wanted on one slide, and where not.

    Attributes:
        include: Polygons in level-0 px; None where the whole slide is wanted.
        exclude: Polygons in level-0 px.
        min_roi: Least share of a box in `include`.
        max_excluded: Largest share of a box in `exclude`.
        include_class: The class that `include` was chosen by.
    """

    include: Sequence[Polygon] | None = None
    exclude: Sequence[Polygon] = ()
    min_roi: float = 0.5
    max_excluded: float = 0.0
    include_class: str | None = None

    @property
    def empty_reason(self) -> str | None:
        """Why there can be no tile, or None."""
        if self.include is None or self.include:
            return None
        named = f" of class `{self.include_class}`" if self.include_class else ""
        return f"no region{named} to include was given for it"

    def keep(self, xy0: npt.NDArray[np.int64], side0: tuple[float, float]) -> BoolArray:
        """Which boxes are wanted.

        Args:
            xy0: (N, 2) top left corners, level-0 px.
            side0: (width, height) of every box, level-0 px.

        Returns:
            (N,) bool.
        """
        wanted = np.ones(len(xy0), bool)
        if self.include is not None:
            wanted &= polygon_share(self.include, xy0, side0) >= self.min_roi
        if self.exclude:
            wanted &= polygon_share(self.exclude, xy0, side0) <= self.max_excluded
        return wanted


def read_rois(slide_id: str, settings: TileSettings, origin: Origin) -> Rois | None:
    """The regions given for a slide, or None where none are asked for.

    Args:
        origin: What their files call (0, 0), level-0 px.

    Raises:
        StoreError: A file can't be read as GeoJSON.
    """
    if settings.include is None and settings.exclude is None:
        return None
    include = _read(given_file(settings.include, slide_id), settings.include_class, origin)
    exclude = _read(given_file(settings.exclude, slide_id), settings.exclude_class, origin)
    wanted = None if settings.include is None else include
    return Rois(wanted, exclude, settings.min_roi, settings.max_excluded, settings.include_class)


def _read(path: Path | None, wanted: str | None, origin: Origin) -> list[Polygon]:
    if path is None:
        return []
    features = read_given(path, origin)
    return [
        polygon
        for one in features
        if wanted is None or (one.name or "").casefold() == wanted.casefold()
        for polygon in one.polygons
    ]


def polygon_share(
    polygons: Sequence[Polygon], xy0: npt.NDArray[np.int64], side0: tuple[float, float]
) -> npt.NDArray[np.float32]:
    """Share of boxes that the union of polygons covers, measured on cells of 1/64 of a box's side.

    Where the raster would grow too large the cells are larger, e.g. a fifteenth of a side for polygons over the whole
    of a slide of 200,000 x 200,000 px.

    Args:
        xy0: (N, 2) top left corners, level-0 px.
        side0: (width, height) of every box, level-0 px.

    Returns:
        (N,) float32, 0 to 1.
    """
    if not polygons or not len(xy0):
        return np.zeros(len(xy0), np.float32)
    corners = np.concatenate([polygon[0] for polygon in polygons])
    low = np.maximum(corners.min(axis=0), xy0.min(axis=0))
    high = np.minimum(corners.max(axis=0), xy0.max(axis=0) + np.asarray(side0))
    if (high <= low).any():
        return np.zeros(len(xy0), np.float32)
    cell = np.asarray(side0) / CELLS
    cell = cell * max(1.0, float(np.sqrt(np.prod((high - low) / cell) / _MAX_CELLS)))
    start = np.floor(low / cell) * cell
    width, height = np.ceil((high - start) / cell).astype(int).tolist()
    scale0 = (float(cell[0]), float(cell[1]))
    raster = fill([[ring - start for ring in polygon] for polygon in polygons], scale0, (height, width))
    return area_share(integral(raster), scale0, xy0 - start, side0)
