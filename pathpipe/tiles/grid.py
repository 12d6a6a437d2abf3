"""The noun `TileGrid`: where the tiles of a slide lie, in raster order."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from pathpipe.settings import TileSettings
from pathpipe.slides.slide import Box, Slide
from pathpipe.tiles.plan import ReadPlan
from pathpipe.tiles.thin import spread_evenly
from pathpipe.tissue.mask import TissueMask
from pathpipe.tissue.rois import Rois

Corners = npt.NDArray[np.int64]
_NOTHING = 1e-6  # a share of tissue that is but the rounding of sums
_BLOCK = 1 << 20  # candidates looked at together: bounds memory on any slide and stride


@dataclass(frozen=True)
class Regions:
    """Squares of side x side tiles, for models that take a slide region by region.

    Attributes:
        index: (N,) int32 region of each tile.
        xy0: (R, 2) int64 top left corners, level-0 px, row by row.
        side: Tiles along a side.
    """

    index: npt.NDArray[np.int32]
    xy0: Corners
    side: int


@dataclass(frozen=True)
class TileGrid:
    """Tiles of one slide.

    Attributes:
        xy0: (N, 2) int64 top left corners, level-0 px, row by row; with regions, region by region; from another
            tool's file, in its order.
        tissue: (N,) float32 share of tissue in each tile.
        empty_reason: Why there are none.
        regions: What the tiles are parts of, where regions were asked for.
    """

    xy0: Corners
    tissue: npt.NDArray[np.float32]
    plan: ReadPlan
    empty_reason: str | None = None
    regions: Regions | None = None


@dataclass(frozen=True)
class _Lattice:
    """Squares at regular places: tiles, or regions of tiles. All in level-0 px."""

    columns: Corners
    rows: Corners
    side0: tuple[float, float]

    def corners(self, cells: npt.NDArray[np.intp]) -> Corners:
        """(N, 2) corners of (N,) cells, counted row by row."""
        row, column = np.divmod(cells, len(self.columns))
        return np.stack([self.columns[column], self.rows[row]], axis=1)


def make_grid(
    slide: Slide, plan: ReadPlan, mask: TissueMask, settings: TileSettings, rois: Rois | None = None
) -> TileGrid:
    """Lay a regular grid over the slide (or its scanned bounds) and keep tiles with enough tissue.

    Tile k of a row starts at k * stride level-0 px from the origin: on the nearest pixel of level 0, or the last one
    before it of the level that is read. The stride is a float, so positions don't drift. With regions, a region is kept
    for its own share of tissue, and then with all of its tiles.
    """
    box = slide.bounds or Box(0, 0, *slide.size0)
    pad = settings.border == "pad"
    lattice = _lattice(box, plan, max(1, settings.region_tiles), pad)
    if not len(lattice.columns) or not len(lattice.rows):
        return _empty(plan, _too_small(box, plan, settings), settings)
    cells, tissue = _with_tissue(lattice, mask, settings.min_tissue, rois)
    if not len(cells):
        what = "region" if settings.region_tiles else "tile"
        where = " and lies where tiles were asked for" if rois else ""
        reason = mask.empty_reason or (rois and rois.empty_reason)
        return _empty(plan, reason or f"no {what} has {settings.min_tissue:.0%} tissue{where}", settings)
    if settings.max_tiles is not None:
        few = spread_evenly(lattice.corners(cells), settings.max_tiles // max(1, settings.region_tiles) ** 2)
        cells, tissue = cells[few], tissue[few]
    if not settings.region_tiles:
        return TileGrid(lattice.corners(cells), tissue, plan)
    xy0 = _tiles_of(cells, lattice, box, plan, settings.region_tiles)
    index = np.repeat(np.arange(len(cells), dtype=np.int32), settings.region_tiles**2)
    regions = Regions(index, lattice.corners(cells), settings.region_tiles)
    return TileGrid(xy0, mask.fraction(xy0, plan.side0), plan, regions=regions)


def positions(start0: int, length0: int, side0: float, stride0: float, pad: bool = False, step0: int = 1) -> Corners:
    """Starts of the tiles of [start0, start0 + length0), level-0 px.

    Args:
        pad: Go on until the end is covered, with a tile that may reach past it; else only tiles that fit in.
        step0: Level-0 px per px that is read, where that is a whole number: tiles start on those pixels.
    """
    room = start0 + length0 - _on_pixel(start0, step0)
    if pad:
        count = max(0, int(np.ceil((room - side0 - 0.5 + step0 - 1) / stride0))) + 1
        starts = _starts(start0, np.arange(count), stride0, step0)
        return starts[starts < start0 + length0]
    if room < side0:
        return np.empty(0, np.int64)
    count = int((room - side0) / stride0 + 1e-9) + 1
    starts = _starts(start0, np.arange(count), stride0, step0)
    return starts[starts + side0 <= start0 + length0 + 0.5]


def _starts(start0: int, number: npt.NDArray[Any], stride0: float, step0: int) -> Corners:
    """Where the tiles of these numbers start: the stride is a float, so that they don't drift."""
    offsets = number * stride0
    if step0 == 1:
        return np.asarray(start0 + np.round(offsets).astype(np.int64))
    return np.asarray(_on_pixel(start0, step0) + np.floor(offsets / step0 + 1e-9).astype(np.int64) * step0)


def _on_pixel(start0: int, step0: int) -> int:
    return -(-start0 // step0) * step0


def _step0(plan: ReadPlan, axis: int) -> int:
    """Pixels of the level that is read, in level-0 px; 1 where tiles can't start on them.

    A tile that starts between pixels would have to be interpolated, which blurs it.
    """
    step = plan.downsample[axis] * plan.shrink
    return round(step) if abs(step - round(step)) < 1e-6 else 1


def _lattice(box: Box, plan: ReadPlan, tiles: int, pad: bool) -> _Lattice:
    """Squares of `tiles` x `tiles` tiles."""
    x, y = ((tiles - 1) * plan.stride0[axis] + plan.side0[axis] for axis in (0, 1))
    return _Lattice(
        columns=positions(box.x0, box.w, x, tiles * plan.stride0[0], pad, _step0(plan, 0)),
        rows=positions(box.y0, box.h, y, tiles * plan.stride0[1], pad, _step0(plan, 1)),
        side0=(x, y),
    )


def _with_tissue(
    lattice: _Lattice, mask: TissueMask, least: float, rois: Rois | None
) -> tuple[npt.NDArray[np.intp], npt.NDArray[np.float32]]:
    """Cells with at least that share of tissue, where they are wanted, and their shares."""
    total = len(lattice.columns) * len(lattice.rows)
    cells, shares = [], []
    for first in range(0, total, _BLOCK):
        block = np.arange(first, min(first + _BLOCK, total))
        corners = lattice.corners(block)
        tissue = mask.fraction(corners, lattice.side0)
        # a tile without any tissue is never wanted, even where the least share asked for is 0
        keep = (tissue >= least) & (tissue > _NOTHING)
        if rois is not None:
            keep[keep] = rois.keep(corners[keep], lattice.side0)
        cells.append(block[keep])
        shares.append(tissue[keep])
    return np.concatenate(cells), np.concatenate(shares)


def _tiles_of(cells: npt.NDArray[np.intp], regions: _Lattice, box: Box, plan: ReadPlan, side: int) -> Corners:
    """(R * side * side, 2) corners of the tiles of (R,) regions, which lie where they would without regions."""
    row, column = np.divmod(cells, len(regions.columns))
    steps = np.arange(side)
    x = _starts(box.x0, column[:, None] * side + steps, plan.stride0[0], _step0(plan, 0))  # (R, side)
    y = _starts(box.y0, row[:, None] * side + steps, plan.stride0[1], _step0(plan, 1))
    shape = (len(cells), side, side)
    xy0 = np.stack([np.broadcast_to(x[:, None, :], shape), np.broadcast_to(y[:, :, None], shape)], axis=-1)
    return xy0.reshape(-1, 2)


def _too_small(box: Box, plan: ReadPlan, settings: TileSettings) -> str:
    width_um, height_um = box.w * plan.mpp0[0], box.h * plan.mpp0[1]
    side_um = plan.tile_px * plan.mpp_wanted * max(1, settings.region_tiles)
    what = f"region of {settings.region_tiles} x {settings.region_tiles} tiles" if settings.region_tiles else "tile"
    return f"the slide ({width_um:.0f} x {height_um:.0f} um) is smaller than a {what} ({side_um:.0f} um)"


def _empty(plan: ReadPlan, reason: str, settings: TileSettings) -> TileGrid:
    nowhere, side = np.empty((0, 2), np.int64), settings.region_tiles
    regions = Regions(np.empty(0, np.int32), nowhere, side) if side else None
    return TileGrid(nowhere, np.empty(0, np.float32), plan, reason, regions)
