"""Edges, regions and caps hold on any slide: nothing of the tissue is lost, no place drifts, no region has a gap."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from pathpipe.settings import TileSettings
from pathpipe.slides.slide import Box, Mpp
from pathpipe.tiles.grid import TileGrid, make_grid
from pathpipe.tiles.plan import plan_read
from pathpipe.tissue.mask import TissueMask
from tests.property.test_geometry import PaperSlide

MPP = Mpp(0.5, 0.5, "t")


def _mask(size0: tuple[int, int], seed: int, share: float, scale: float, mpp: Mpp = MPP) -> TissueMask:
    shape = (max(1, int(np.ceil(size0[1] / scale))), max(1, int(np.ceil(size0[0] / scale))))
    return TissueMask(np.random.default_rng(seed).random(shape) < share, (scale, scale), mpp, 0)


def _lay(size0: tuple[int, int], mask: TissueMask, options: TileSettings, mpp: Mpp = MPP) -> TileGrid:
    slide = PaperSlide([size0])
    return make_grid(slide, plan_read(slide, mpp, options), mask, options)


SIDES = st.integers(20, 900)
SEEDS = st.integers(0, 2**32 - 1)


@settings(deadline=None, max_examples=80)
@given(SIDES, SIDES, st.integers(8, 150), st.integers(0, 149), SEEDS)
def test_padding_covers_every_pixel_of_tissue(w: int, h: int, tile_px: int, overlap_px: int, seed: int) -> None:
    assume(overlap_px < tile_px)
    options = TileSettings(mpp=0.5, tile_px=tile_px, overlap_px=overlap_px, border="pad", min_tissue=0)
    mask = _mask((w, h), seed, 0.1, 10.0)
    grid = _lay((w, h), mask, options)
    covered = np.zeros((h, w), bool)
    for x0, y0 in grid.xy0.tolist():
        covered[y0 : y0 + tile_px, x0 : x0 + tile_px] = True
    tissue = mask.mask.repeat(10, 0).repeat(10, 1)[:h, :w]
    assert covered[tissue].all()
    assert (grid.xy0 >= 0).all() and (grid.xy0 < (w, h)).all(), "every tile holds some of the slide"
    inside = _lay((w, h), mask, options.model_copy(update={"border": "drop"}))
    kept = {tuple(xy0) for xy0 in grid.xy0.tolist()}
    assert {tuple(xy0) for xy0 in inside.xy0.tolist()} <= kept, "padding only adds"


@settings(deadline=None, max_examples=60)
@given(st.integers(300, 4000), st.integers(300, 4000), st.floats(0.11, 0.9), st.floats(0.9, 1.1), st.integers(16, 300))
def test_padding_leaves_no_gap_at_any_resolution(w: int, h: int, x: float, skew: float, tile_px: int) -> None:
    mpp = Mpp(x, x * skew, "t")
    options = TileSettings(mpp=1.0, tile_px=tile_px, border="pad", min_tissue=0)
    plan = plan_read(PaperSlide([(w, h)]), mpp, options)
    grid = _lay((w, h), _mask((w, h), 0, 1.1, 50.0, mpp), options, mpp)
    for axis, length in ((0, w), (1, h)):
        starts = np.unique(grid.xy0[:, axis])
        assert np.abs(starts - np.arange(len(starts)) * plan.stride0[axis]).max() <= 0.5, "positions drift"
        ends = starts + plan.side0[axis]
        # a tile is read in whole pixels and starts at one: that is the only room between neighbours
        assert starts[0] == 0 and (starts[1:] - ends[:-1]).max(initial=0) <= 1 and length - ends[-1] <= 1
        assert (ends[:-1] < length + 1).all(), "only the last tile reaches past the edge"


@settings(deadline=None, max_examples=60)
@given(SIDES, SIDES, st.integers(16, 90), st.integers(1, 120), st.floats(0, 1), SEEDS, st.booleans())
def test_kept_tiles_and_shares_against_counting_pixels(
    w: int, h: int, tile_px: int, stride_px: int, least: float, seed: int, pad: bool
) -> None:
    assume(w * h / stride_px**2 < 4000)
    border = "pad" if pad else "drop"
    options = TileSettings(mpp=0.5, tile_px=tile_px, stride_px=stride_px, border=border, min_tissue=least)
    mask = _mask((w, h), seed, 0.4, 10.0)
    fine = np.zeros((h + 2 * tile_px + 10, w + 2 * tile_px + 10))
    rows, columns = mask.mask.shape
    fine[: rows * 10, : columns * 10] = mask.mask.repeat(10, 0).repeat(10, 1)
    slow = []
    for y0 in _starts(h, tile_px, stride_px, pad):
        for x0 in _starts(w, tile_px, stride_px, pad):
            share = fine[y0 : y0 + tile_px, x0 : x0 + tile_px].sum() / tile_px**2
            assume(abs(share - least) > 1e-5 or least == 0)
            if share >= least and share > 1e-5:
                slow.append((x0, y0, share))
    grid = _lay((w, h), mask, options)
    assert grid.xy0.tolist() == [[x0, y0] for x0, y0, _ in slow]
    assert grid.tissue.tolist() == pytest.approx([share for _, _, share in slow], abs=1e-5)


def _starts(length: int, side: int, stride: int, pad: bool) -> list[int]:
    starts, at = [], 0
    while (at < length) if pad else (at + side <= length):
        starts.append(at)
        if at + side >= length:
            break
        at += stride
    return starts


@settings(deadline=None, max_examples=60)
@given(SIDES, SIDES, st.integers(8, 40), st.integers(2, 5), st.floats(0.01, 1), SEEDS, st.booleans())
def test_regions_are_complete_and_kept_for_their_own_tissue(
    w: int, h: int, tile_px: int, side: int, least: float, seed: int, pad: bool
) -> None:
    border = "pad" if pad else "drop"
    options = TileSettings(mpp=0.5, tile_px=tile_px, region_tiles=side, border=border, min_tissue=least)
    mask = _mask((w, h), seed, 0.5, 10.0)
    grid = _lay((w, h), mask, options)
    large = _lay((w, h), mask, TileSettings(mpp=0.5, tile_px=tile_px * side, border=border, min_tissue=least))
    regions = grid.regions
    assert regions is not None and regions.side == side
    assert np.array_equal(regions.xy0, large.xy0), "a region is a tile as large as all of its tiles"
    assert regions.index.tolist() == np.repeat(np.arange(len(regions.xy0)), side * side).tolist()
    offsets = [[tile_px * column, tile_px * row] for row in range(side) for column in range(side)]
    assert grid.xy0.tolist() == (regions.xy0[:, None] + np.array(offsets)).reshape(-1, 2).tolist()
    means = grid.tissue.reshape(-1, side * side).mean(axis=1)
    assert means.tolist() == pytest.approx(large.tissue.tolist(), abs=1e-4)
    assert bool(grid.empty_reason) == (len(grid.xy0) == 0)


def test_tiles_of_regions_lie_where_they_would_without() -> None:
    """Steps of 1.3 px in 10,000: a region that started from its rounded corner would drift."""
    mpp = Mpp(0.2513, 0.2477, "t")
    size0, options = (9000, 8000), {"mpp": 0.5, "tile_px": 64, "min_tissue": 0.0}
    mask = _mask(size0, 0, 1.1, 100.0, mpp)
    plain = _lay(size0, mask, TileSettings(**options), mpp)
    grid = _lay(size0, mask, TileSettings(**options, region_tiles=4), mpp)
    assert len(grid.xy0) > 1000 and {tuple(xy0) for xy0 in grid.xy0.tolist()} <= {
        tuple(one) for one in plain.xy0.tolist()
    }


@settings(deadline=None, max_examples=40)
@given(st.integers(1, 60), SEEDS, st.sampled_from([0, 2, 3]))
def test_a_cap_takes_whole_units_in_order(most: int, seed: int, side: int) -> None:
    assume(most >= side * side)
    plain = TileSettings(mpp=0.5, tile_px=20, min_tissue=0.3, region_tiles=side)
    mask = _mask((500, 400), seed, 0.5, 10.0)
    every = _lay((500, 400), mask, plain)
    few = _lay((500, 400), mask, plain.model_copy(update={"max_tiles": most}))
    unit = max(1, side * side)
    assert len(few.xy0) == min(len(every.xy0), most // unit * unit)
    place = {tuple(xy0): row for row, xy0 in enumerate(every.xy0.tolist())}
    rows = [place[tuple(xy0)] for xy0 in few.xy0.tolist()]
    assert rows == sorted(rows) and every.tissue[rows].tolist() == few.tissue.tolist()
    if side:
        assert few.regions is not None and len(few.regions.xy0) == len(few.xy0) // unit


def test_regions_of_a_small_slide_need_padding() -> None:
    options = TileSettings(mpp=0.5, tile_px=256, region_tiles=16, min_tissue=0.01)
    mask = _mask((3000, 2000), 0, 1.1, 100.0)
    grid = _lay((3000, 2000), mask, options)
    assert grid.empty_reason == "the slide (1500 x 1000 um) is smaller than a region of 16 x 16 tiles (2048 um)"
    assert grid.regions is not None and grid.regions.xy0.shape == (0, 2)
    padded = _lay((3000, 2000), mask, options.model_copy(update={"border": "pad"}))
    assert len(padded.xy0) == 256 and padded.tissue[:2].tolist() == [1, 1] and padded.tissue[-1] == 0
    bounds = PaperSlide([(9000, 9000)], Box(700, 900, 3000, 2000))
    plan = plan_read(bounds, MPP, options)
    full = TissueMask(np.ones((90, 90), bool), (100.0, 100.0), MPP, 0)
    inside = make_grid(bounds, plan, full, options.model_copy(update={"border": "pad"}))
    assert inside.regions is not None and inside.regions.xy0.tolist() == [[700, 900]]
