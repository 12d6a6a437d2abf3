"""Outlines: they fill to the cells they were made of, and every ring is simple."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from matplotlib.path import Path as Outline

from pathpipe.explain.outlines import merge_cells


def _filled(polygons: list[list[np.ndarray]], shape: tuple[int, int]) -> np.ndarray:
    """How often each cell's centre lies inside, holes taken away."""
    rows, columns = np.mgrid[: shape[0], : shape[1]]
    centres = np.column_stack([columns.ravel() + 0.5, rows.ravel() + 0.5])
    total = np.zeros(len(centres), int)
    for outer, *holes in polygons:
        inside = Outline(outer).contains_points(centres)
        for hole in holes:
            inside &= ~Outline(hole).contains_points(centres)
        total += inside
    return total.reshape(shape)


def _area(ring: np.ndarray) -> float:
    x, y = ring.T
    return float(x @ np.roll(y, -1) - np.roll(x, -1) @ y) / 2


@given(arrays(np.int64, st.tuples(st.integers(1, 9), st.integers(1, 9)), elements=st.integers(-1, 2)))
@settings(max_examples=120, deadline=None)
def test_polygons_fill_to_the_cells_and_rings_are_simple(values: np.ndarray) -> None:
    found = merge_cells(values)
    assert set(found) == set(np.unique(values[values >= 0]).tolist())
    for value, polygons in found.items():
        np.testing.assert_array_equal(_filled(polygons, values.shape), values == value)
        for rings in polygons:
            assert _area(rings[0]) > 0 and all(_area(hole) < 0 for hole in rings[1:])
            for ring in rings:
                assert len(np.unique(ring, axis=0)) == len(ring) >= 4  # no corner twice: it crosses itself nowhere
                sides = np.roll(ring, -1, axis=0) - ring
                assert ((sides == 0).sum(axis=1) == 1).all()  # along the grid
                turns = (np.roll(sides, -1, axis=0) != 0).argmax(axis=1) != (sides != 0).argmax(axis=1)
                assert turns.all()  # no corner on a straight line


def test_a_ring_a_hole_and_an_island() -> None:
    values = np.full((5, 5), 7)
    values[1:4, 1:4] = -1
    values[2, 2] = 7
    outer, island = merge_cells(values)[7]
    assert [len(ring) for ring in outer] == [4, 4] and len(island) == 1
    assert sorted(island[0].tolist()) == [[2, 2], [2, 3], [3, 2], [3, 3]]


def test_pieces_that_touch_at_a_corner_are_two() -> None:
    assert len(merge_cells(np.array([[3, -1], [-1, 3]]))[3]) == 2


def test_holes_that_touch_at_a_corner_are_two() -> None:
    values = np.zeros((4, 4), int)
    values[1, 1] = values[2, 2] = -1
    ((outer, *holes),) = merge_cells(values)[0]
    assert len(outer) == 4 and [len(hole) for hole in holes] == [4, 4]


def test_nothing_gives_nothing() -> None:
    assert merge_cells(np.full((3, 2), -1)) == {}


def test_cells_become_whole_level_0_pixels() -> None:
    ((ring,),) = merge_cells(np.array([[5, 5]]), (100.0, 40.0), (51.3, 102.6))[5]
    assert ring.tolist() == [[100, 40], [203, 40], [203, 143], [100, 143]]


def test_a_hundred_thousand_cells_are_all_covered() -> None:
    values = np.random.default_rng(0).integers(0, 10, (320, 320))
    for value, polygons in merge_cells(values).items():
        rings = [ring for one in polygons for ring in one]
        ends = np.cumsum([len(ring) for ring in rings])
        x, y = np.concatenate(rings).T
        following = np.arange(1, len(x) + 1)
        following[ends - 1] = np.r_[0, ends[:-1]]
        assert (x @ y[following] - x[following] @ y) / 2 == (values == value).sum()
