"""Our tile tables as other tools read them: by the keys they look up, down to the pixels they would see."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import h5py
import numpy as np
import openslide
import pytest

from pathpipe.provenance import Provenance
from pathpipe.settings import TileSettings
from pathpipe.slides.open import open_slide
from pathpipe.testing.slides import position_slide
from pathpipe.tiles.attributes import SlideFacts
from pathpipe.tiles.grid import make_grid
from pathpipe.tiles.plan import plan_read
from pathpipe.tiles.stream import stream_tiles
from pathpipe.tiles.table import TileTable, write_tiles
from pathpipe.tissue.mask import TissueMask

PROVENANCE = Provenance("tile", 1, {}, {"slide": "s"})


def _written(folder: Path, wanted: float, **options: Any) -> tuple[Path, Path, TileTable, np.ndarray]:
    """Slide, tile table, its content, and the pixels pathpipe reads for it. The slide has a level at 0.25 and at 1."""
    path = position_slide(folder / "S1.svs", [(2048, 1536), (512, 384)], mpp=0.25, objective=40)
    settings = TileSettings(mpp=wanted, tile_px=64, min_tissue=0, **options)
    with open_slide(path) as slide:
        assert slide.mpp is not None
        plan = plan_read(slide, slide.mpp, settings)
        grid = make_grid(slide, plan, TissueMask(np.ones((6, 8), bool), (256.0, 256.0), slide.mpp, 0), settings)
        table = TileTable(grid, SlideFacts("S1", slide.size0, slide.levels[plan.level].size_px))
        pixels = np.concatenate([batch.pixels for batch in stream_tiles(slide, plan, grid.xy0, 16)])
    write_tiles(folder / "S1.h5", table, PROVENANCE)
    return path, folder / "S1.h5", table, pixels


@pytest.mark.parametrize("wanted", [0.25, 1.0])
def test_clam_reads_the_very_tiles(tmp_path: Path, wanted: float) -> None:
    """CLAM's bag of a slide: `patch_size` px of `patch_level` at each of `coords`, straight from OpenSlide."""
    path, table_path, table, pixels = _written(tmp_path, wanted)
    wsi = openslide.OpenSlide(path)
    with h5py.File(table_path, "r") as file:
        coords = file["coords"]
        level, size = coords.attrs["patch_level"], coords.attrs["patch_size"]
        assert isinstance(level, np.integer) and isinstance(size, np.integer)
        assert coords.dtype == np.int64 and coords.shape == table.grid.xy0.shape
        for row in (0, len(coords) // 2, len(coords) - 1):
            region = wsi.read_region(coords[row], int(level), (int(size), int(size))).convert("RGB")
            assert np.array_equal(np.asarray(region), pixels[row])
        assert size * coords.attrs["downsample"][0] == coords.attrs["patch_size_level0"] == table.grid.plan.side0[0]
        assert tuple(coords.attrs["downsampled_level_dim"]) == wsi.level_dimensions[level]
    wsi.close()


@pytest.mark.parametrize(("wanted", "overlap_px"), [(0.25, 0), (0.5, 16), (1.0, 32)])
def test_trident_lays_the_very_tiles(tmp_path: Path, wanted: float, overlap_px: int) -> None:
    """TRIDENT's reader: px at the target magnification, times the ratio of magnifications, at each of `coords`."""
    _, table_path, table, _ = _written(tmp_path, wanted, overlap_px=overlap_px)
    with h5py.File(table_path, "r") as file:
        attributes, coords = dict(file["coords"].attrs), file["coords"][:]
    ratio = attributes["level0_magnification"] / attributes["target_magnification"]
    assert round(attributes["patch_size"] * ratio) == attributes["patch_size_level0"] == table.grid.plan.side0[0]
    assert round(attributes["overlap"] * ratio) == overlap_px * wanted / 0.25
    # a raster of TRIDENT: steps of the side less the overlap
    step = int(attributes["patch_size_level0"] - round(attributes["overlap"] * ratio))
    assert np.unique(coords[:, 0]).tolist() == list(range(0, 2048 - int(attributes["patch_size_level0"]) + 1, step))
    assert all(isinstance(attributes[name], str) for name in ("name", "savetodir"))
    # TITAN and its kin scale places by this
    assert (coords // attributes["patch_size_level0"]).max() <= 2048 // attributes["patch_size_level0"]


def test_with_a_resize_trident_is_right_and_clam_would_see_less(tmp_path: Path) -> None:
    """0.5 from a slide with levels at 0.25 and 1: the limit that docs/formats.md states."""
    _, table_path, table, _ = _written(tmp_path, 0.5)
    with h5py.File(table_path, "r") as file:
        attributes = file["coords"].attrs
        assert attributes["patch_size_level0"] == table.grid.plan.side0[0] == 128
        assert attributes["patch_size"] * attributes["downsample"][0] == 64
