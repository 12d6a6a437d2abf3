"""Cells: values of tiles as one small picture, a pixel a tile (or a part of one where tiles overlap).

A page draws that picture in one stroke however many tiles there are, and neighbours meet without hairlines.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
MAX_CELLS = 1 << 22
_PARTS = 8  # a stride is cut into at most so many cells
_CLOSE = 0.02  # a tile that ends this close to the edge of a cell, in cells, ends on it


@dataclass(frozen=True, eq=False)
class Cells:
    """Values on a grid of cells.

    Attributes:
        values: (H, W) mean over the tiles that cover a cell, NaN where there is none.
        origin0: Upper left corner, level-0 px.
        cell0: (width, height) of a cell, level-0 px.
    """

    values: Floats
    origin0: tuple[float, float]
    cell0: tuple[float, float]


def paint_cells(
    xy0: npt.NDArray[np.int64], values: Floats, side0: tuple[float, float], stride0: tuple[float, float]
) -> Cells:
    """Paint tiles on cells; cells are as large as the grid allows, so a regular grid without overlap has one a tile.

    A tile adds +v and -v at its four corners, and two cumulative sums fill it.

    Args:
        xy0: (N, 2) corners, level-0 px; N > 0.
        values: (N,) finite.
    """
    origin = xy0.min(axis=0)
    span = xy0.max(axis=0) - origin + np.asarray(side0)
    cell = np.array([cell_side(side, stride) for side, stride in zip(side0, stride0, strict=True)])
    cell *= max(1.0, math.sqrt(float(np.prod(span / cell)) / MAX_CELLS))
    start = np.round((xy0 - origin) / cell).astype(np.intp)
    reach = np.maximum(1, np.round(np.asarray(side0) / cell)).astype(np.intp)
    end = start + reach
    width, height = (int(last) for last in end.max(axis=0))
    total, count = np.zeros((2, height + 1, width + 1))
    for target, amount in ((total, values), (count, np.ones(len(xy0)))):
        np.add.at(target, (start[:, 1], start[:, 0]), amount)
        np.add.at(target, (end[:, 1], end[:, 0]), amount)
        np.add.at(target, (start[:, 1], end[:, 0]), -amount)
        np.add.at(target, (end[:, 1], start[:, 0]), -amount)
    total, count = (array.cumsum(0).cumsum(1)[:height, :width] for array in (total, count))
    painted = np.where(count > 0.5, total / np.maximum(count, 1), np.nan)
    return Cells(painted, (float(origin[0]), float(origin[1])), (float(cell[0]), float(cell[1])))


def cell_side(side: float, stride: float) -> float:
    """The largest whole part of the stride that a tile is made of, level-0 px; an eighth of a stride if there is none.

    >>> cell_side(256, 256), cell_side(256, 128), cell_side(256, 192), cell_side(250, 300)
    (256.0, 128.0, 64.0, 50.0)
    """
    for parts in range(1, _PARTS + 1):
        cells = side / stride * parts
        if cells > 0.5 and abs(cells - round(cells)) < _CLOSE:
            return float(stride / parts)
    return float(stride / _PARTS)


def rank_bytes(cells: Cells) -> npt.NDArray[np.uint8]:
    """(H, W) uint8: 0 where there is no tile, else 1 to 255 for values from 0 to 1."""
    known = np.isfinite(cells.values)
    scaled = 1 + np.round(254 * np.clip(np.where(known, cells.values, 0), 0, 1))
    return np.where(known, scaled, 0).astype(np.uint8)
