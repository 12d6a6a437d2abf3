"""A capped grid keeps every part of the tissue: against random picks, and on the curve itself."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.spatial import cKDTree

from pathpipe.tiles.thin import hilbert, spread_evenly


@pytest.mark.parametrize("bits", [1, 3, 5])
def test_the_curve_visits_every_cell_once_and_only_steps_to_neighbours(bits: int) -> None:
    side = 1 << bits
    x, y = (axis.ravel() for axis in np.meshgrid(np.arange(side), np.arange(side)))
    along = hilbert(x, y)
    order = np.argsort(along)
    assert sorted(along) == list(range(side * side))
    assert (np.abs(np.diff(x[order])) + np.abs(np.diff(y[order])) == 1).all()


def _two_pieces() -> np.ndarray:
    """Tiles of 511 px over two discs, the second a ninth of the first, in raster order."""
    cells = np.stack(np.meshgrid(np.arange(150), np.arange(100)), axis=-1).reshape(-1, 2)
    large = np.hypot(*(cells - [50, 50]).T) < 36
    small = np.hypot(*(cells - [120, 30]).T) < 12
    return cells[large | small] * 511 + 37


@pytest.mark.parametrize("wanted", [1, 50, 333, 1000])
def test_more_even_than_random_and_exact(wanted: int) -> None:
    xy0 = _two_pieces()
    rows = spread_evenly(xy0, wanted)
    assert len(rows) == wanted and (np.diff(rows) > 0).all(), "exactly as many, in raster order"
    assert np.array_equal(rows, spread_evenly(xy0, wanted))
    if wanted == 1:
        return
    farthest, nearest = _distances(xy0, rows)
    random = [
        _distances(xy0, np.random.default_rng(seed).choice(len(xy0), wanted, replace=False)) for seed in range(20)
    ]
    assert farthest < min(one for one, _ in random), "no part of the tissue is as far from a tile as by chance"
    assert nearest > max(one for _, one in random), "neighbours keep a larger distance than by chance"
    share = (xy0[rows, 0] > 100 * 511).mean()
    expected = (xy0[:, 0] > 100 * 511).mean()
    assert share == pytest.approx(expected, abs=1.5 / wanted), "each piece has its share"


def _distances(xy0: np.ndarray, rows: np.ndarray) -> tuple[float, float]:
    tree = cKDTree(xy0[rows])
    return tree.query(xy0)[0].max(), tree.query(xy0[rows], k=2)[0][:, 1].mean()


def test_nothing_to_leave_out() -> None:
    xy0 = _two_pieces()[:40]
    assert spread_evenly(xy0, 40).tolist() == spread_evenly(xy0, 99).tolist() == list(range(40))
    assert spread_evenly(np.array([[5, 5], [5, 5], [5, 5]]), 2).tolist() == [0, 2]
