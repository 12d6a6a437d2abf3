"""Cells against tiles painted one by one on level-0 pixels."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pathpipe.explain import cells as module
from pathpipe.explain.cells import cell_side, paint_cells, rank_bytes


def _slowly(xy0: np.ndarray, values: np.ndarray, side: int, shape: tuple[int, int]) -> np.ndarray:
    total, count = np.zeros(shape), np.zeros(shape)
    for (x, y), value in zip(xy0, values, strict=True):
        total[y : y + side, x : x + side] += value
        count[y : y + side, x : x + side] += 1
    with np.errstate(invalid="ignore"):
        return np.where(count > 0, total / count, np.nan)


@given(seed=st.integers(0, 999), overlap=st.sampled_from([(8, 8), (8, 4), (8, 6), (8, 2), (4, 8), (6, 9)]))
@settings(max_examples=40, deadline=None)
def test_cells_are_the_mean_of_the_tiles_over_them(seed: int, overlap: tuple[int, int]) -> None:
    side, stride = overlap
    rng = np.random.default_rng(seed)
    chosen = rng.random((7, 9)) < 0.5
    chosen[0, 0] = chosen[6, 8] = True
    rows, columns = np.nonzero(chosen)
    xy0 = np.stack([columns, rows], axis=1) * stride
    values = rng.random(len(xy0))
    found = paint_cells(xy0 + np.array([30, 40]), values, (side, side), (stride, stride))
    assert found.origin0 == (30, 40)
    step = found.cell0[0]
    assert step == found.cell0[1] == cell_side(side, stride) and step in (8, 4, 2, 3)
    expected = _slowly(xy0, values, side, (6 * stride + side, 8 * stride + side))
    found0 = np.repeat(np.repeat(found.values, int(step), axis=0), int(step), axis=1)
    height, width = expected.shape
    assert np.allclose(found0[:height, :width], expected, equal_nan=True)
    assert np.isnan(found0[height:]).all() and np.isnan(found0[:, width:]).all()


def test_a_tile_is_a_cell_where_positions_are_rounded() -> None:
    stride = 224.4489  # 224 px at 0.5 um/px of a slide of 0.499
    places = np.round(np.arange(300) * stride).astype(np.int64)
    xy0 = np.stack([places, np.zeros_like(places)], axis=1)
    found = paint_cells(xy0, np.arange(300.0), (224.4489, 224.4489), (stride, stride))
    assert found.values.shape == (1, 300) and np.array_equal(found.values[0], np.arange(300))


def test_a_grid_of_too_many_cells_is_coarser(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_CELLS", 100)
    xy0 = np.array([[0, 0], [9900, 9900]])
    found = paint_cells(xy0, np.array([1.0, 2.0]), (100, 100), (100, 100))
    assert found.values.size <= 144 and found.cell0 == (1000, 1000)
    assert found.values[0, 0] == 1 and found.values[-1, -1] == 2


def test_bytes_tell_nothing_from_little() -> None:
    cells = module.Cells(np.array([[np.nan, 0.0, 0.5, 1.0]]), (0, 0), (1, 1))
    assert rank_bytes(cells).tolist() == [[0, 1, 128, 255]]
