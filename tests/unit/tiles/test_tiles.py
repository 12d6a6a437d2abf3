"""Tiles: the level and size that are physically right, tables other tools open, pixels where they should be."""

from __future__ import annotations

from pathlib import Path

import h5py
import numpy as np
import pytest

from pathpipe.errors import SlideError, StoreError
from pathpipe.provenance import Provenance, read_provenance
from pathpipe.settings import TileSettings
from pathpipe.slides.open import open_slide
from pathpipe.slides.slide import Mpp
from pathpipe.testing.slides import STEP, cut_short, position_slide
from pathpipe.tiles.attributes import COORDS_ATTRIBUTES, SlideFacts
from pathpipe.tiles.grid import make_grid
from pathpipe.tiles.plan import plan_read
from pathpipe.tiles.stream import resize_tile, stream_tiles
from pathpipe.tiles.table import TileTable, read_tiles, write_tiles
from pathpipe.tissue.mask import TissueMask
from tests.property.test_geometry import PaperSlide

PROVENANCE = Provenance("tile", 1, {"tile": {"mpp": 0.5}}, {"slide": "abc", "tissue": "def"})


@pytest.mark.parametrize(
    ("sizes", "mpp", "wanted", "level", "read"),
    [
        ([(40_000, 30_000), (10_000, 7_500)], 0.25, 1.0, 1, 256),  # exactly the level
        ([(39_999, 30_000), (10_000, 7_500)], 0.25, 1.0, 1, 256),  # 3.9999 is 4
        ([(40_003, 30_000), (10_000, 7_500)], 0.25, 1.0, 1, 256),  # 4.0003 is 4, within the tolerance
        ([(40_000, 30_000), (10_000, 7_500)], 0.25, 0.5, 0, 512),  # 20x from 40x without a 2x level
        ([(40_000, 30_000), (10_000, 7_500)], 0.265, 0.5, 0, 483),  # not 512: 0.265 is not 0.25
        ([(40_000, 30_000), (10_000, 7_500)], 0.2475, 1.0, 1, 259),  # level 1 has 0.99
        ([(40_000, 30_000), (10_000, 7_500)], 0.2549, 1.0, 0, 1004),  # level 1 has 1.0196: coarser than 1% over
    ],
)
def test_level_and_read_size(sizes: list[tuple[int, int]], mpp: float, wanted: float, level: int, read: int) -> None:
    plan = plan_read(PaperSlide(sizes), Mpp(mpp, mpp, "t"), TileSettings(mpp=wanted, tile_px=256))
    assert (plan.level, plan.read_px) == (level, (read, read))
    assert plan.error <= 0.5 / read + 2e-4


def test_anisotropic_pixels_stay_anisotropic() -> None:
    plan = plan_read(PaperSlide([(9000, 9000)]), Mpp(0.25, 0.5, "t"), TileSettings(mpp=0.5, tile_px=200))
    assert plan.read_px == (400, 200) and plan.stride0 == (400.0, 200.0)
    assert plan.mpp_effective == (0.5, 0.5)


def test_enlarging_is_refused_with_the_way_out() -> None:
    with pytest.raises(SlideError, match=r"has 28.97 um/px .*enlarged 57.9 times") as caught:
        plan_read(PaperSlide([(1152, 700)]), Mpp(28.969, 28.968, "DICOM"), TileSettings(mpp=0.5))
    assert "--mpp 28.97" in (caught.value.hint or "")
    close = plan_read(PaperSlide([(1152, 700)]), Mpp(0.54, 0.54, "t"), TileSettings(mpp=0.5))
    assert close.read_px == (237, 237)


@pytest.mark.parametrize(("wanted", "level"), [(0.5, 0), (2.0, 1)])
def test_every_tile_shows_the_place_it_claims(tmp_path: Path, wanted: float, level: int) -> None:
    path = position_slide(tmp_path / "p.svs", [(2048, 1536), (512, 384)], mpp=0.5)
    options = TileSettings(mpp=wanted, tile_px=64, min_tissue=0)
    with open_slide(path) as slide:
        assert slide.mpp is not None
        plan = plan_read(slide, slide.mpp, options)
        assert plan.level == level
        full = TissueMask(np.ones((96, 128), bool), (16.0, 16.0), slide.mpp, 0)
        grid = make_grid(slide, plan, full, options)
        tiles = np.concatenate([batch.pixels for batch in stream_tiles(slide, plan, grid.xy0, 7)])
    assert len(tiles) == len(grid.xy0) == (2048 // (64 * 4**level)) * (1536 // (64 * 4**level))
    corner = tiles[:, 0, 0].astype(int)
    assert np.array_equal(corner[:, 0], grid.xy0[:, 0] // STEP % 256)
    assert np.array_equal(corner[:, 1], grid.xy0[:, 1] // STEP % 256)
    assert (corner[:, 2] == 50 * level).all()


@pytest.mark.parametrize("threads", [1, 2, 5])
@pytest.mark.parametrize("batch", [1, 4, 100])
def test_stream_equals_plain_reads(tmp_path: Path, threads: int, batch: int) -> None:
    path = position_slide(tmp_path / "p.svs", [(900, 700)], mpp=0.25)
    xy0 = np.random.default_rng(0).integers(0, 600, (19, 2))
    with open_slide(path) as slide:
        plan = plan_read(slide, Mpp(0.25, 0.25, "t"), TileSettings(mpp=0.4, tile_px=50))
        plain = [resize_tile(slide.read((int(x), int(y)), plan.level, plan.read_px), 50) for x, y in xy0]
        batches = list(stream_tiles(slide, plan, xy0, batch, threads=threads, start=3))
    assert [one.start for one in batches] == list(range(3, 19, batch))
    assert np.array_equal(np.concatenate([one.pixels for one in batches]), np.stack(plain[3:]))


def test_stream_can_be_left_and_errors_name_the_place(tmp_path: Path) -> None:
    path = position_slide(tmp_path / "p.svs", [(2000, 2000)], mpp=0.5)
    xy0 = np.array([[x, y] for y in range(0, 1900, 64) for x in range(0, 1900, 64)])
    with open_slide(path) as slide:
        plan = plan_read(slide, Mpp(0.5, 0.5, "t"), TileSettings(mpp=0.5, tile_px=64))
        stream = stream_tiles(slide, plan, xy0, 8)
        next(stream)
        stream.close()  # type: ignore[attr-defined]

    class Broken(PaperSlide):
        def read(self, xy0: tuple[int, int], level: int, size_px: tuple[int, int]) -> np.ndarray:
            raise SlideError(f"damaged: level {level} can't be read at {xy0}", "p.svs")

    with pytest.raises(SlideError, match=r"at \(0, 0\)"):
        list(stream_tiles(Broken([(2000, 2000)]), plan, xy0, 8))


def test_resize_keeps_means_and_leaves_right_sizes_alone() -> None:
    region = np.random.default_rng(0).integers(0, 256, (128, 128, 3)).astype(np.uint8)
    half = resize_tile(region, 64)
    slow = region.reshape(64, 2, 64, 2, 3).mean(axis=(1, 3))
    assert np.abs(half - slow).max() <= 0.5
    assert resize_tile(region, 128) is region


def test_rectangular_pixels_shrink_along_one_axis_as_means() -> None:
    region = np.random.default_rng(0).integers(0, 256, (64, 128, 3)).astype(np.uint8)
    slow = region.reshape(64, 64, 2, 3).mean(axis=2)
    assert np.abs(resize_tile(region, 64) - slow).max() <= 0.5
    turned = resize_tile(np.ascontiguousarray(region.swapaxes(0, 1)), 64).swapaxes(0, 1)
    assert np.abs(turned - slow).max() <= 0.5


def _table(tmp_path: Path) -> TileTable:
    path = position_slide(tmp_path / "p.svs", [(2048, 1024), (512, 256)], mpp=0.25)
    options = TileSettings(mpp=0.5, tile_px=128, overlap_px=32, min_tissue=0.3)
    with open_slide(path) as slide:
        assert slide.mpp is not None
        plan = plan_read(slide, slide.mpp, options)
        mask = TissueMask(np.random.default_rng(0).random((8, 16)) < 0.5, (128.0, 128.0), slide.mpp, 0)
        grid = make_grid(slide, plan, mask, options)
        return TileTable(grid, SlideFacts("S1", slide.size0, slide.levels[plan.level].size_px))


def test_table_round_trip_and_bytes(tmp_path: Path) -> None:
    table = _table(tmp_path)
    assert len(table.grid.xy0) > 3 and (table.grid.tissue >= 0.3).all()
    for name in ("a.h5", "b.h5"):
        write_tiles(tmp_path / name, table, PROVENANCE)
    assert (tmp_path / "a.h5").read_bytes() == (tmp_path / "b.h5").read_bytes()
    again = read_tiles(tmp_path / "a.h5")
    assert np.array_equal(again.grid.xy0, table.grid.xy0) and again.grid.xy0.dtype == np.int64
    assert np.array_equal(again.grid.tissue, table.grid.tissue)
    assert (again.grid.plan, again.slide) == (table.grid.plan, table.slide)
    found = read_provenance(tmp_path / "a.h5")
    assert found is not None and found.fingerprint == PROVENANCE.fingerprint


def test_table_reads_as_clam_and_trident_read_it(tmp_path: Path) -> None:
    write_tiles(tmp_path / "a.h5", _table(tmp_path), PROVENANCE)
    with h5py.File(tmp_path / "a.h5") as file:
        attributes = dict(file["coords"].attrs)
        assert set(attributes) == set(COORDS_ATTRIBUTES)
        # CLAM: read patch_size px of patch_level at coords
        assert attributes["patch_level"] == 0 and list(attributes["downsample"]) == [1.0, 1.0]
        # TRIDENT: its own tile side in level-0 px, magnifications as whole numbers
        assert attributes["patch_size_level0"] == 256 and attributes["patch_size"] == 128
        assert (attributes["level0_magnification"], attributes["target_magnification"]) == (40, 20)
        assert (attributes["overlap"], attributes["name"]) == (32, "S1")
        assert (attributes["level0_width"], attributes["level0_height"]) == (2048, 1024)
        assert file["coords"].dtype == np.int64


def test_damaged_tables_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.h5"
    write_tiles(path, _table(tmp_path), PROVENANCE)
    cut_short(path, 0.7)
    with pytest.raises(StoreError, match="damaged"):
        read_tiles(path)
    with h5py.File(path, "w") as file:
        file.create_dataset("coords", data=np.zeros((3, 2)))
    with pytest.raises(StoreError, match="isn't a tile table"):
        read_tiles(path)
    assert read_provenance(path) is None
