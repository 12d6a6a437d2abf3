"""The noun `TileGrid`: where the tiles of a slide lie, in raster order."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from pathpipe.settings import TileSettings
from pathpipe.slides.slide import Box, Slide
from pathpipe.tiles.plan import ReadPlan
from pathpipe.tissue.mask import TissueMask


@dataclass(frozen=True)
class TileGrid:
    """Tiles of one slide.

    Attributes:
        xy0: (N, 2) int64 top left corners, level-0 px, row by row.
        tissue: (N,) float32 share of tissue in each tile.
        empty_reason: Why there are none.
    """

    xy0: npt.NDArray[np.int64]
    tissue: npt.NDArray[np.float32]
    plan: ReadPlan
    empty_reason: str | None = None


def make_grid(slide: Slide, plan: ReadPlan, mask: TissueMask, settings: TileSettings) -> TileGrid:
    """Lay a regular grid over the slide (or its scanned bounds) and keep tiles with enough tissue.

    Tile k of a row starts at round(k * stride) level-0 px from the origin: the stride is a float, so positions don't
    drift. Only tiles that lie inside are taken.
    """
    box = slide.bounds or Box(0, 0, *slide.size0)
    columns = positions(box.x0, box.w, plan.side0[0], plan.stride0[0])
    rows = positions(box.y0, box.h, plan.side0[1], plan.stride0[1])
    if not len(columns) or not len(rows):
        width_um, height_um = box.w * plan.mpp0[0], box.h * plan.mpp0[1]
        side_um = plan.tile_px * plan.mpp_wanted
        return _empty(
            plan, f"the slide ({width_um:.0f} x {height_um:.0f} um) is smaller than a tile ({side_um:.0f} um)"
        )
    xy0 = np.stack([np.tile(columns, len(rows)), np.repeat(rows, len(columns))], axis=1)
    tissue = mask.fraction(xy0, plan.side0)
    # a tile without any tissue is never wanted, even where the least share asked for is 0
    keep = (tissue >= settings.min_tissue) & (tissue > 0)
    if not keep.any():
        reason = mask.empty_reason or f"no tile has {settings.min_tissue:.0%} tissue"
        return _empty(plan, reason)
    return TileGrid(np.ascontiguousarray(xy0[keep]), tissue[keep], plan)


def positions(start0: int, length0: int, side0: float, stride0: float) -> npt.NDArray[np.int64]:
    """Starts of the tiles that fit into [start0, start0 + length0), level-0 px."""
    if length0 < side0:
        return np.empty(0, np.int64)
    count = int((length0 - side0) / stride0 + 1e-9) + 1
    offsets = np.round(np.arange(count) * stride0).astype(np.int64)
    return np.asarray(start0 + offsets[offsets + side0 <= length0 + 0.5])


def _empty(plan: ReadPlan, reason: str) -> TileGrid:
    return TileGrid(np.empty((0, 2), np.int64), np.empty(0, np.float32), plan, reason)
