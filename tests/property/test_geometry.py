"""Grids, plans, masks and polygons hold for any slide, not for the examples we thought of."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pathpipe.errors import SlideError
from pathpipe.settings import TileSettings
from pathpipe.slides.slide import Box, Closing, Level, Mpp, Pixels, make_levels
from pathpipe.tiles.grid import make_grid, positions
from pathpipe.tiles.plan import TOLERANCE, plan_read
from pathpipe.tissue.mask import TissueMask
from pathpipe.tissue.polygons import fill, trace


class PaperSlide(Closing):
    """A slide of sizes alone."""

    reader = vendor = "paper"
    path = Path("paper.svs")
    mpp: Mpp | None = None
    objective: float | None = None
    properties: Mapping[str, str] = {}
    associated: tuple[str, ...] = ()

    def __init__(self, sizes: list[tuple[int, int]], bounds: Box | None = None) -> None:
        self.levels: tuple[Level, ...] = make_levels(sizes)
        self.size0 = sizes[0]
        self.bounds = bounds

    def read(self, xy0: tuple[int, int], level: int, size_px: tuple[int, int]) -> Pixels:
        """There are no pixels on paper."""
        raise NotImplementedError


@st.composite
def slides(draw: st.DrawFn) -> PaperSlide:
    width, height = draw(st.integers(50, 60_000)), draw(st.integers(50, 60_000))
    factors = draw(st.lists(st.sampled_from([2, 3, 4, 8, 16, 32]), unique=True, max_size=3))
    rounds: Any = draw(st.sampled_from([np.floor, np.ceil, np.round]))
    sizes = [(width, height)]
    sizes += [(max(1, int(rounds(width / f))), max(1, int(rounds(height / f)))) for f in sorted(factors)]
    return PaperSlide(sizes)


MPPS = st.floats(0.1, 2.0)


@settings(deadline=None, max_examples=150)
@given(slides(), MPPS, st.floats(0.8, 1.25), st.floats(0.1, 8), st.integers(32, 1024))
def test_plan_is_as_exact_as_whole_pixels_allow(
    slide: PaperSlide, x: float, anisotropy: float, wanted: float, tile_px: int
) -> None:
    mpp = Mpp(x, x * anisotropy, "test")
    try:
        plan = plan_read(slide, mpp, TileSettings(mpp=wanted, tile_px=tile_px))
    except SlideError:
        assert max(mpp.x, mpp.y) > wanted * 1.1
        return
    level = slide.levels[plan.level]
    for axis, mpp0 in enumerate((mpp.x, mpp.y)):
        level_mpp = mpp0 * level.downsample[axis]
        assert abs(plan.mpp_effective[axis] * tile_px - wanted * tile_px) <= level_mpp / 2 + 1e-9
        assert plan.side0[axis] == pytest.approx(plan.read_px[axis] * level.downsample[axis])
        assert plan.level == 0 or level_mpp <= wanted * (1 + TOLERANCE) + 1e-12
    coarser = [one for one in slide.levels if one.downsample > level.downsample]
    for one in coarser:
        assert max(mpp.x * one.downsample[0], mpp.y * one.downsample[1]) > wanted * (1 + TOLERANCE), "a coarser fits"


@settings(deadline=None, max_examples=200)
@given(st.integers(0, 500), st.integers(1, 50_000), st.floats(8, 2000), st.floats(0.2, 1.0))
def test_positions_against_a_plain_loop(start: int, length: int, side: float, step: float) -> None:
    stride = side * step
    slow = []
    k = 0
    while k * stride + side <= length + 1e-9 * stride:
        if round(k * stride) + side <= length + 0.5:
            slow.append(start + round(k * stride))
        k += 1
    assert positions(start, length, side, stride).tolist() == slow


@settings(deadline=None, max_examples=100)
@given(st.integers(0, 500), st.integers(1, 50_000), st.floats(8, 2000), st.sampled_from([2, 4, 16]), st.booleans())
def test_positions_on_the_pixels_of_a_coarser_level(start: int, length: int, side: float, step: int, pad: bool) -> None:
    """Never between two pixels that are read, never one of them from where it should be, inside or covering."""
    side = max(side, step)  # a tile has at least one pixel
    found = positions(start, length, side, side, pad, step)
    origin = -(-start // step) * step
    assert (found % step == 0).all() and (found >= start).all()
    wanted = origin + np.arange(len(found)) * side
    assert ((wanted - found >= -1e-6) & (wanted - found < step)).all()
    if pad:
        assert not len(found) or found[-1] + side >= start + length - 1
    else:
        assert (found + side <= start + length + 0.5).all()
        assert len(found) >= int((start + length - origin) / side), "one that fits is missing"


@settings(deadline=None, max_examples=60)
@given(slides(), MPPS, st.integers(64, 512))
def test_grid_without_overlap_covers_once_in_raster_order(slide: PaperSlide, x: float, tile_px: int) -> None:
    options = TileSettings(mpp=max(x, 0.5), tile_px=tile_px, min_tissue=0)
    plan = plan_read(slide, Mpp(x, x, "test"), options)
    mask = TissueMask(np.ones((1, 1), bool), (float(slide.size0[0]), float(slide.size0[1])), Mpp(x, x, "t"), 0)
    grid = make_grid(slide, plan, mask, options)
    if not len(grid.xy0):
        assert min(slide.size0) < max(plan.side0) + 1
        return
    assert np.lexsort((grid.xy0[:, 0], grid.xy0[:, 1])).tolist() == list(range(len(grid.xy0)))
    assert (grid.xy0 >= 0).all() and (grid.xy0 + np.floor(plan.side0) <= slide.size0).all()
    for axis in (0, 1):
        starts = np.unique(grid.xy0[:, axis])
        down = plan.downsample[axis]
        read0 = max(1.0, round(down)) if abs(down - round(down)) < 1e-6 else 1.0
        off = 0.5 if read0 == 1 else read0
        assert np.abs(starts - np.arange(len(starts)) * plan.stride0[axis]).max() <= off, "positions drift"
        assert (starts % read0 == 0).all()
        rest = slide.size0[axis] - starts[-1] - plan.side0[axis]
        assert rest < plan.stride0[axis] + 1, "room for another tile was left"


def test_bounds_limit_the_grid_and_small_slides_are_empty() -> None:
    slide = PaperSlide([(10_000, 8_000)], Box(1000, 2000, 1030, 600))
    options = TileSettings(mpp=0.5, tile_px=256, min_tissue=0)
    plan = plan_read(slide, Mpp(0.5, 0.5, "t"), options)
    mask = TissueMask(np.ones((80, 100), bool), (100.0, 100.0), Mpp(0.5, 0.5, "t"), 0)
    grid = make_grid(slide, plan, mask, options)
    assert grid.xy0.tolist() == [[1000 + 256 * c, 2000 + 256 * r] for r in range(2) for c in range(4)]
    small = PaperSlide([(200, 8_000)])
    empty = make_grid(small, plan_read(small, Mpp(0.5, 0.5, "t"), options), mask, options)
    assert len(empty.xy0) == 0 and "smaller than a tile (128 um)" in (empty.empty_reason or "")


@settings(deadline=None, max_examples=150)
@given(st.integers(1, 24), st.integers(1, 24), st.floats(0.05, 0.95), st.integers(0, 2**32 - 1), st.floats(0.5, 70))
def test_mask_to_polygons_and_back_is_lossless(h: int, w: int, share: float, seed: int, scale: float) -> None:
    mask = np.random.default_rng(seed).random((h, w)) < share
    scale0 = (scale, scale * 1.07)
    assert np.array_equal(fill(trace(mask, scale0), scale0, mask.shape), mask)


@settings(deadline=None, max_examples=40)
@given(st.integers(1, 12), st.integers(1, 12), st.integers(0, 2**32 - 1), st.integers(1, 30), st.integers(1, 30))
def test_fraction_against_counting_pixels(h: int, w: int, seed: int, side_x: int, side_y: int) -> None:
    rng = np.random.default_rng(seed)
    mask = rng.random((h, w)) < 0.5
    scale = 4  # level-0 px per mask px: counting level-0 px one by one is the reference
    fine = np.pad(mask.repeat(scale, 0).repeat(scale, 1), ((0, 40), (0, 40)))
    xy0 = np.stack([rng.integers(0, w * scale, 5), rng.integers(0, h * scale, 5)], axis=1)
    slow = [fine[y : y + side_y, x : x + side_x].sum() / (side_x * side_y) for x, y in xy0]
    found = TissueMask(mask, (4.0, 4.0), Mpp(1, 1, "t"), 0).fraction(xy0, (float(side_x), float(side_y)))
    assert found.tolist() == pytest.approx(slow, abs=1e-6)
