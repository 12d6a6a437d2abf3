"""Coordinates of other tools: files built as those tools write them, on a slide whose pixels say where they are."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from pathpipe.errors import PathpipeError, SlideError, StoreError
from pathpipe.settings import TileSettings
from pathpipe.slides.open import open_slide
from pathpipe.slides.slide import Mpp, Slide
from pathpipe.testing.slides import STEP, position_slide
from pathpipe.tiles.foreign import coords_fingerprint, find_coords, lay_foreign
from pathpipe.tiles.stream import stream_tiles
from pathpipe.tissue.mask import TissueMask

SIZE0, SIZE1 = (2048, 1536), (512, 384)
MPP = Mpp(0.25, 0.25, "t")
XY0 = np.array([[1024, 256], [0, 0], [1500, 1200], [512, 768]])  # no raster order
Attributes = dict[str, Any]


@pytest.fixture(scope="module")
def slide(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Slide]:
    with open_slide(position_slide(tmp_path_factory.mktemp("s") / "S1.svs", [SIZE0, SIZE1], 0.25, 40)) as one:
        yield one


@pytest.fixture
def mask() -> TissueMask:
    """The left half is tissue."""
    half = np.zeros((24, 32), bool)
    half[:, :16] = True
    return TissueMask(half, (64.0, 64.0), MPP, 0)


def _coords(path: Path, xy: np.ndarray, attributes: Attributes) -> Path:
    """As CLAM and TRIDENT write them: one row a chunk, rows can be added, attributes on the dataset."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with h5py.File(path, "w") as file:
        coords = file.create_dataset("coords", data=xy, chunks=(1, 2), maxshape=(None, 2))
        coords.attrs.update(attributes)
    return path


def clam(path: Path, level: int = 0, **other: Any) -> Path:
    size, downsample = ((SIZE0, 1.0), (SIZE1, 4.0))[level]
    attributes = {
        "patch_size": 128,
        "patch_level": level,
        "downsample": (downsample, downsample),
        "downsampled_level_dim": size,
        "level_dim": size,
        "name": "S1",
        "save_path": "/data/patches",
    }
    return _coords(path, XY0, {**attributes, **other})


def trident(path: Path, **other: Any) -> Path:
    attributes = {
        "patch_size": 128,
        "patch_size_level0": 256,
        "level0_magnification": 40,
        "target_magnification": 20,
        "overlap": 32,
        "name": "S1",
        "savetodir": "/data/20x_128px_32px_overlap",
        "level0_width": SIZE0[0],
        "level0_height": SIZE0[1],
    }
    return _coords(path, XY0, {name: value for name, value in {**attributes, **other}.items() if value is not ...})


def hs2p(path: Path, **other: Any) -> Path:
    order = np.lexsort((XY0[:, 1], XY0[:, 0]))
    arrays = {
        "tile_index": np.arange(4, dtype=np.int32),
        "x": XY0[order, 0].astype(np.int64),
        "y": XY0[order, 1].astype(np.int64),
        "tissue_fractions": np.full(4, 0.9, np.float32),
    }
    np.savez_compressed(path.with_name(path.name.replace(".meta.json", ".npz")), **arrays)
    tiling = {
        "requested_tile_size_px": 128,
        "requested_spacing_um": 0.5,
        "read_level": 0,
        "read_tile_size_px": 256,
        "read_spacing_um": 0.25,
        "tile_size_lv0": 256,
        "step_px_lv0": 192,
        "overlap": 0.25,
        "n_tiles": 4,
    }
    meta = {
        "provenance": {"sample_id": "S1", "backend": "openslide"},
        "slide": {"dimensions": list(SIZE0), "base_spacing_um": 0.25, "level_downsamples": [1.0, 4.0]},
        "tiling": {**tiling, **other},
        "segmentation": {},
        "filtering": {},
        "artifact": {"coordinate_space": "level0_px", "tile_order": "x_then_y"},
    }
    path.write_text(json.dumps(meta, indent=2, sort_keys=True) + "\n")
    return path


def stamp(path: Path, **other: Any) -> Path:
    """Version 2.1 and later; `tile_size_um=...` leaves an attribute out."""
    attributes = {
        "stamp_version": "2.3.0",
        "extractor": "uni",
        "unit": "um",
        "tile_size_um": 64.0,
        "tile_size_px": 224,
        "code_hash": "0123abcd",
        "feat_type": "tile",
    }
    with h5py.File(path, "w") as file:
        file["coords"] = (XY0 * 0.25).astype(np.float32)
        file["feats"] = np.zeros((4, 8), np.float16)
        file.attrs.update({name: value for name, value in {**attributes, **other}.items() if value is not ...})
    return path


# writer, file name, layout, side in level-0 px, overlap at 128 px, rows of XY0
CASES: list[tuple[Callable[[Path], Path], str, str, float, int, list[int]]] = [
    (clam, "patches/S1.h5", "CLAM", 128, 0, [0, 1, 2, 3]),
    (lambda path: clam(path, level=1), "S1.h5", "CLAM", 512, 0, [0, 1, 2, 3]),
    (trident, "patches/S1_patches.h5", "TRIDENT", 256, 32, [0, 1, 2, 3]),
    (
        lambda path: trident(path, patch_size_level0=..., level0_width="None", level0_height="None"),
        "S1_patches.h5",
        "TRIDENT",
        256,
        32,
        [0, 1, 2, 3],
    ),
    (hs2p, "S1.coordinates.meta.json", "hs2p", 256, 32, [1, 3, 0, 2]),
    (stamp, "S1.h5", "STAMP", 256, 0, [0, 1, 2, 3]),
    (lambda path: stamp(path, tile_size_um=..., tile_size=64.0), "S1.h5", "STAMP", 256, 0, [0, 1, 2, 3]),
]


@pytest.mark.parametrize(("write", "name", "layout", "side0", "overlap_px", "order"), CASES)
def test_tiles_lie_where_the_file_says_and_show_that_place(
    tmp_path: Path,
    slide: Slide,
    mask: TissueMask,
    write: Callable[[Path], Path],
    name: str,
    layout: str,
    side0: float,
    overlap_px: int,
    order: list[int],
) -> None:
    write(tmp_path / name)
    path = find_coords(tmp_path, "S1")
    found = lay_foreign(path, slide, MPP, mask, TileSettings(tile_px=128))
    grid, plan = found.grid, found.grid.plan
    assert (found.layout, grid.empty_reason) == (layout, None)
    assert grid.xy0.tolist() == XY0[order].tolist(), "in the file's order"
    assert plan.side0 == (side0, side0) and plan.overlap_px == overlap_px
    assert plan.mpp_effective == (side0 * 0.25 / 128,) * 2 and plan.mpp_wanted == side0 * 0.25 / 128
    assert plan.stride0 == (side0 * (1 - overlap_px / 128),) * 2
    left = np.clip((1024 - grid.xy0[:, 0]) / side0, 0, 1) * np.clip((1536 - grid.xy0[:, 1]) / side0, 0, 1)
    assert grid.tissue.tolist() == pytest.approx(left.tolist(), abs=1e-6), "shares of our own mask"
    tiles = np.concatenate([batch.pixels for batch in stream_tiles(slide, plan, grid.xy0, 3)]).astype(int)
    assert (tiles[:, 64, 64, 2][:2] == 50 * plan.level).all()
    assert plan.level == (1 if side0 == 512 else 0)
    per_px = side0 / 128
    for at in (2, 60):
        shown, place = tiles[:, at, at, :2] * STEP, grid.xy0 + at * per_px
        assert np.abs((shown - place + 2048) % 4096 - 2048).max() <= STEP + per_px
    assert coords_fingerprint(path).startswith(f"{layout} ")


def test_a_table_of_pathpipe_is_taken_with_its_regions(tmp_path: Path, slide: Slide, mask: TissueMask) -> None:
    from pathpipe.provenance import Provenance
    from pathpipe.tiles.attributes import SlideFacts
    from pathpipe.tiles.grid import make_grid
    from pathpipe.tiles.plan import plan_read
    from pathpipe.tiles.table import TileTable, write_tiles

    options = TileSettings(mpp=0.5, tile_px=64, region_tiles=3)
    made = make_grid(slide, plan_read(slide, MPP, options), mask, options)
    write_tiles(tmp_path / "S1.h5", TileTable(made, SlideFacts("S1", SIZE0, SIZE0)), Provenance("tile", 1, {}, {}))
    again = lay_foreign(tmp_path / "S1.h5", slide, MPP, mask, TileSettings(tile_px=64))
    assert again.layout == "pathpipe" and again.grid.plan == made.plan
    assert np.array_equal(again.grid.xy0, made.xy0) and np.array_equal(again.grid.tissue, made.tissue)
    assert again.grid.regions is not None and made.regions is not None
    assert np.array_equal(again.grid.regions.xy0, made.regions.xy0) and again.grid.regions.side == 3
    few = lay_foreign(tmp_path / "S1.h5", slide, MPP, mask, TileSettings(tile_px=64, max_tiles=5))
    assert len(few.grid.xy0) == 5 and few.grid.regions is None


def test_pixels_and_cap_are_ours_to_choose(tmp_path: Path, slide: Slide, mask: TissueMask) -> None:
    path = trident(tmp_path / "S1.h5")
    grid = lay_foreign(path, slide, MPP, mask, TileSettings(tile_px=64, max_tiles=2)).grid
    assert (grid.plan.level, grid.plan.read_px, grid.plan.tile_px) == (1, (64, 64), 64)
    assert grid.plan.mpp_effective == (1.0, 1.0) and len(grid.xy0) == 2
    with pytest.raises(SlideError, match=r"256 x 256 level-0 px, would be enlarged 2\.0 times to 512 px") as caught:
        lay_foreign(path, slide, MPP, mask, TileSettings(tile_px=512))
    assert "--tile-px 256" in (caught.value.hint or "")


def test_without_a_mask_every_tile_is_all_tissue(tmp_path: Path, slide: Slide) -> None:
    none = TissueMask(np.zeros((24, 32), bool), (64.0, 64.0), MPP, 0)
    grid = lay_foreign(trident(tmp_path / "S1.h5"), slide, MPP, none, TileSettings(tile_px=128)).grid
    assert grid.tissue.tolist() == [1, 1, 1, 1]


def test_an_empty_file_is_an_empty_slide(tmp_path: Path, slide: Slide, mask: TissueMask) -> None:
    hs2p(tmp_path / "S1.coordinates.meta.json", n_tiles=0)
    (tmp_path / "S1.coordinates.npz").unlink()
    attributes = {"patch_size": 128, "patch_size_level0": 256}
    nothing = _coords(tmp_path / "b" / "S1.h5", np.empty((0, 2), np.int64), attributes)
    for path in (tmp_path / "S1.coordinates.meta.json", nothing):
        found = lay_foreign(path, slide, MPP, mask, TileSettings(tile_px=128))
        assert found.grid.xy0.shape == (0, 2)
        assert found.grid.empty_reason == f"its {found.layout} coordinates list no tile"


def test_unequal_pixels_keep_their_shape(tmp_path: Path, slide: Slide, mask: TissueMask) -> None:
    """Tiles of TRIDENT are square in level-0 px, those of STAMP in um of the horizontal axis."""
    grid = lay_foreign(trident(tmp_path / "S1.h5"), slide, Mpp(0.25, 0.5, "t"), mask, TileSettings(tile_px=128)).grid
    assert grid.plan.side0 == (256, 256) and grid.plan.mpp_effective == (0.5, 1.0)
    assert grid.plan.mpp_wanted == pytest.approx(0.5**0.5)


def _plain(path: Path, root: Attributes | None = None, **datasets: Any) -> Path:
    with h5py.File(path, "w") as file:
        for name, data in datasets.items():
            file[name] = data
        file.attrs.update(root or {})
    return path


def _text(path: Path) -> Path:
    path.write_text("x,y\n0,0\n")
    return path


REFUSED: list[tuple[Callable[[Path], Path], str]] = [
    (lambda path: clam(path, level_dim=(4096, 1536)), "made for another slide: level 0 of 4096 x 1536 px, here 2048"),
    (lambda path: clam(path, patch_level=3), "reads level 3, the slide has 2"),
    (lambda path: trident(path, level0_width=2000), "made for another slide: level 0 of 2000 x 1536 px"),
    (lambda path: clam(path, patch_size_level0=999), "says two sizes of a tile: 999 level-0 px as TRIDENT reads it"),
    (lambda path: _plain(path, coords=np.zeros((3, 2), np.int32)), "its coords don't say how large a tile is"),
    (lambda path: _plain(path, coords=np.zeros((3, 5), np.int32)), r"coords of shape \(3, 5\), not \(N, 2\)"),
    (lambda path: _plain(path, features=np.zeros((3, 5))), r"holds no `coords` \(datasets: features\)"),
    (lambda path: stamp(path, tile_size_um=...), "doesn't say the size of a tile in um"),
    (lambda path: _coords(path, XY0 + 0.5, {"patch_size_level0": 256}), "aren't whole level-0 px"),
    (
        lambda path: _coords(path, XY0 + np.array([0, 1000]), {"patch_size_level0": 256}),
        r"2 tiles lie outside .* at \(1500, 2200\)",
    ),
    (lambda path: _coords(path, XY0, {"patch_size_level0": 0}), "says a tile is 0 x 0 large"),
    (_text, "can't be read as tile coordinates"),
]


@pytest.mark.parametrize(("write", "words"), REFUSED)
def test_files_that_cant_be_meant_are_refused(
    tmp_path: Path, slide: Slide, mask: TissueMask, write: Callable[[Path], Path], words: str
) -> None:
    path = write(tmp_path / "S1.h5")
    with pytest.raises(PathpipeError, match=words):
        lay_foreign(path, slide, MPP, mask, TileSettings(tile_px=128))


def test_hs2p_files_that_contradict_themselves_are_refused(tmp_path: Path, slide: Slide, mask: TissueMask) -> None:
    path = hs2p(tmp_path / "S1.coordinates.meta.json", n_tiles=5)
    with pytest.raises(StoreError, match="says 5 tiles, the arrays hold 4"):
        lay_foreign(path, slide, MPP, mask, TileSettings(tile_px=128))
    path.write_text("{}")
    with pytest.raises(StoreError, match="can't be read as tile coordinates"):
        lay_foreign(path, slide, MPP, mask, TileSettings(tile_px=128))


def test_one_file_a_slide(tmp_path: Path) -> None:
    with pytest.raises(SlideError, match="S1: there are no coordinates for it in") as caught:
        find_coords(tmp_path, "S1")
    assert "S1.h5, S1_patches.h5, S1.coordinates.meta.json" in (caught.value.hint or "")
    clam(tmp_path / "patches" / "S1.h5")
    trident(tmp_path / "S1_patches.h5")
    with pytest.raises(SlideError, match=r"more than one file of coordinates in .*: S1_patches\.h5 and patches/S1\.h5"):
        find_coords(tmp_path, "S1")


def test_the_digest_follows_the_content(tmp_path: Path) -> None:
    path = hs2p(tmp_path / "S1.coordinates.meta.json")
    first = coords_fingerprint(path)
    assert coords_fingerprint(path) == first
    np.savez(tmp_path / "S1.coordinates.npz", x=XY0[:, 0] + 1, y=XY0[:, 1])
    assert coords_fingerprint(path) != first
