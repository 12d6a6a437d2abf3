"""Grid and stream: which tiles are kept and why none is, where they lie on odd pyramids, how a broken tile is met."""

from __future__ import annotations

import threading
from pathlib import Path

import numpy as np
import pytest

from pathpipe.errors import SlideError
from pathpipe.settings import TileSettings
from pathpipe.slides.open import open_slide
from pathpipe.slides.slide import Box, Mpp, Pixels
from pathpipe.testing.slides import STEP, position_slide
from pathpipe.tiles.grid import TileGrid, make_grid
from pathpipe.tiles.plan import plan_read
from pathpipe.tiles.stream import stream_tiles
from pathpipe.tissue.mask import TissueMask
from tests.property.test_geometry import PaperSlide

MPP = Mpp(0.5, 0.5, "t")
SIZE0 = (1000, 700)


def _mask(seed: int = 0, share: float = 0.4) -> TissueMask:
    """One mask px is 20 x 20 px of level 0."""
    return TissueMask(np.random.default_rng(seed).random((35, 50)) < share, (20.0, 20.0), MPP, 0)


def _grid(mask: TissueMask, options: TileSettings, bounds: Box | None = None) -> TileGrid:
    slide = PaperSlide([SIZE0], bounds)
    return make_grid(slide, plan_read(slide, MPP, options), mask, options)


@pytest.mark.parametrize("overlap_px", [0, 24])
@pytest.mark.parametrize("min_tissue", [0.0, 0.353, 0.503])
@pytest.mark.parametrize("bounds", [None, Box(130, 70, 600, 500)])
def test_grid_against_a_plain_loop(overlap_px: int, min_tissue: float, bounds: Box | None) -> None:
    options = TileSettings(mpp=0.5, tile_px=72, overlap_px=overlap_px, min_tissue=min_tissue)
    mask, box, stride = _mask(), bounds or Box(0, 0, *SIZE0), 72 - overlap_px
    fine = mask.mask.repeat(20, 0).repeat(20, 1)
    slow = []
    for y0 in range(box.y0, box.y0 + box.h - 71, stride):
        for x0 in range(box.x0, box.x0 + box.w - 71, stride):
            share = fine[y0 : y0 + 72, x0 : x0 + 72].mean()
            assert abs(share - min_tissue) > 1e-5, "a share on the limit proves nothing"
            if share > min_tissue:
                slow.append(((x0, y0), share))
    grid = _grid(mask, options, bounds)
    assert slow and grid.xy0.tolist() == [list(xy0) for xy0, _ in slow]
    assert grid.tissue.tolist() == pytest.approx([share for _, share in slow], abs=1e-6)
    assert grid.xy0.dtype == np.int64 and grid.tissue.dtype == np.float32 and grid.empty_reason is None


def test_bare_glass_is_never_a_tile() -> None:
    half = np.zeros((35, 50), bool)
    half[:, :25] = True
    grid = _grid(TissueMask(half, (20.0, 20.0), MPP, 0), TileSettings(mpp=0.5, tile_px=100, min_tissue=0))
    assert grid.xy0[:, 0].max() == 400 and len(grid.xy0) == 5 * 7


def test_why_there_are_no_tiles() -> None:
    options = TileSettings(mpp=0.5, tile_px=100, min_tissue=0.9)
    reasons = [_grid(_mask(share=share), options).empty_reason for share in (0.0, 0.4)]
    assert reasons == ["no tissue found", "no tile has 90% tissue"]
    grid = _grid(_mask(), TileSettings(mpp=0.5, tile_px=800))
    assert grid.empty_reason == "the slide (500 x 350 um) is smaller than a tile (400 um)"
    assert grid.xy0.shape == (0, 2) and grid.tissue.shape == (0,)
    exact = _grid(_mask(), TileSettings(mpp=0.5, tile_px=700, min_tissue=0))
    assert exact.xy0.tolist() == [[0, 0]], "a slide as high as a tile holds one"


@pytest.mark.parametrize("reader", ["openslide", "tiffslide"])
@pytest.mark.parametrize("size1", [(1000, 750), (1001, 750), (1000, 751)])
def test_tiles_of_odd_pyramids_show_their_place(tmp_path: Path, reader: str, size1: tuple[int, int]) -> None:
    path = position_slide(tmp_path / "p.svs", [(3999, 2999), size1], mpp=0.25)
    options = TileSettings(mpp=1.0, tile_px=120, min_tissue=0)
    with open_slide(path, reader) as slide:
        assert slide.mpp is not None
        plan = plan_read(slide, slide.mpp, options)
        assert plan.level == 1
        grid = make_grid(slide, plan, TissueMask(np.ones((3, 4), bool), (1000.0, 1000.0), slide.mpp, 0), options)
        tiles = np.concatenate([batch.pixels for batch in stream_tiles(slide, plan, grid.xy0, 5)]).astype(int)
    assert len(tiles) == 8 * 6
    assert (tiles[:, 60, 60, 2] == 50).all(), "read from level 1"
    for at in (2, 60, 117):  # level-0 place of tile px `at`, known to a step and one level pixel
        shown = tiles[:, at, at, :2] * STEP
        assert np.abs((shown - (grid.xy0 + at * 4) + 2048) % 4096 - 2048).max() <= STEP + 4, at


class _BrokenAt(PaperSlide):
    """Every tile can be read but one."""

    def __init__(self, broken: tuple[int, int]) -> None:
        super().__init__([SIZE0])
        self.broken = broken

    def read(self, xy0: tuple[int, int], level: int, size_px: tuple[int, int]) -> Pixels:
        if xy0 == self.broken:
            raise SlideError(f"damaged: level {level} can't be read at {xy0}", "p.svs")
        return np.full((size_px[1], size_px[0], 3), xy0[0] // 50, np.uint8)


@pytest.mark.parametrize("threads", [1, 2, 3])
def test_tiles_before_a_broken_one_come_first(threads: int) -> None:
    options = TileSettings(mpp=0.5, tile_px=50)
    xy0 = np.array([[50 * column, 0] for column in range(19)])
    slide, seen = _BrokenAt((500, 0)), []
    before = threading.active_count()
    with pytest.raises(SlideError, match=r"at \(500, 0\)"):
        for batch in stream_tiles(slide, plan_read(slide, MPP, options), xy0, 4, threads=threads, start=2):
            seen += batch.pixels[:, 0, 0, 0].tolist()
    assert seen == list(range(2, 10)), "the two whole batches before it"
    assert threading.active_count() == before, "no reader is left running"


def test_nothing_left_to_read_is_no_batch() -> None:
    slide = _BrokenAt((0, 0))
    plan = plan_read(slide, MPP, TileSettings(mpp=0.5, tile_px=50))
    assert list(stream_tiles(slide, plan, np.array([[0, 0]]), 4, start=1)) == []
    assert list(stream_tiles(slide, plan, np.empty((0, 2), np.int64), 4)) == []
