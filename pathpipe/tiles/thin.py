"""Thinning: a few of many places, spread evenly over where they lie, and always the same ones."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt


def spread_evenly(xy0: npt.NDArray[np.int64], wanted: int) -> npt.NDArray[np.intp]:
    """Choose rows so that every part of the tissue keeps its share.

    The places are put on a Hilbert curve, which visits neighbours one after the other, and cut into `wanted` pieces of
    equal count; the middle of each piece is taken.

    Args:
        xy0: (N, 2) corners, level-0 px.

    Returns:
        (min(N, wanted),) rising row numbers.
    """
    total = len(xy0)
    if total <= wanted:
        return np.arange(total)
    x, y = (xy0 - xy0.min(axis=0)).T
    along = np.argsort(hilbert(x, y), kind="stable")
    middles = (2 * np.arange(wanted, dtype=np.int64) + 1) * total // (2 * wanted)
    return np.sort(along[middles])


def hilbert(x: npt.NDArray[np.int64], y: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """Position along the Hilbert curve through the smallest square, a power of two wide, that holds all cells.

    Args:
        x: (N,) column of each cell, from 0.
        y: (N,) row of each cell, from 0.

    Returns:
        (N,) int64, 0 at the first cell.

    Reference:
        D. Hilbert, Ueber die stetige Abbildung einer Linie auf ein Flaechenstueck, Math. Ann. 38 (1891).
    """
    bits = max(int(x.max(initial=0)), int(y.max(initial=0)), 1).bit_length()
    x, y = x.astype(np.int64), y.astype(np.int64)
    along = np.zeros(len(x), np.int64)
    for bit in range(bits - 1, -1, -1):
        right, below = (x >> bit) & 1, (y >> bit) & 1
        along = along << 2 | ((3 * right) ^ below)
        # the curve inside a quarter is turned, so that its ends meet those of the next quarter
        low = (1 << bit) - 1
        x, y = x & low, y & low
        mirrored = (below == 0) & (right == 1)
        x, y = np.where(mirrored, low - x, x), np.where(mirrored, low - y, y)
        x, y = np.where(below == 0, y, x), np.where(below == 0, x, y)
    return along
