"""Feature files that other tools open, row files that survive anything, and what `store inspect` sees."""

from __future__ import annotations

import json
import re
import zlib
from pathlib import Path

import h5py
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pathpipe.errors import StoreError
from pathpipe.provenance import Provenance, read_provenance
from pathpipe.store.features import (
    ROOT_ATTRIBUTES,
    read_features,
    read_header,
    write_features,
)
from pathpipe.store.inspect import describe
from pathpipe.store.rows import MAGIC, RowFile, RowLayout, refuse_non_finite
from pathpipe.testing.slides import cut_short
from pathpipe.tiles.attributes import COORDS_ATTRIBUTES, SlideFacts
from pathpipe.tiles.grid import Regions, TileGrid
from pathpipe.tiles.plan import ReadPlan
from pathpipe.tiles.table import TileTable, read_tiles, write_tiles

ENCODER = {"name": "vit", "revision": "", "weights_sha256": "ab" * 32, "transform": "resize 224", "dim": 6}
PROVENANCE = Provenance("extract", 1, {"extract": {"dtype": "float16"}}, {"slide": "s", "tiles": "t", "encoder": "e"})
PLAN = ReadPlan(256, 0, 0.5, (0.25, 0.25), 0, (1.0, 1.0), (512, 512), (512.0, 512.0), (512.0, 512.0))


def _table(rows: int) -> TileTable:
    xy0 = np.stack([np.arange(rows) % 10 * 512, np.arange(rows) // 10 * 512], axis=1).astype(np.int64)
    grid = TileGrid(xy0, np.ones(rows, np.float32), PLAN, None if rows else "no tissue found")
    return TileTable(grid, SlideFacts("S1", (5120, 4096), (5120, 4096)))


def _features(rows: int, dtype: str = "float16") -> np.ndarray:
    return np.random.default_rng(0).normal(size=(rows, 6)).astype(dtype)


@pytest.mark.parametrize("dtype", ["float16", "float32"])
def test_round_trip_layout_and_bytes(tmp_path: Path, dtype: str) -> None:
    for name in ("a.h5", "b.h5"):
        write_features(tmp_path / name, _features(23, dtype), _table(23), ENCODER, PROVENANCE)
    assert (tmp_path / "a.h5").read_bytes() == (tmp_path / "b.h5").read_bytes()
    again = read_features(tmp_path / "a.h5")
    assert np.array_equal(again.features, _features(23, dtype)) and again.features.dtype == dtype
    assert np.array_equal(again.xy0, _table(23).grid.xy0)
    assert (dict(again.encoder), again.plan, again.slide_fingerprint) == (ENCODER, PLAN, "s")
    header, rows = read_header(tmp_path / "a.h5")
    assert (rows, len(header.features), header.provenance.fingerprint) == (23, 0, PROVENANCE.fingerprint)
    with h5py.File(tmp_path / "a.h5") as file:
        assert file["features"].chunks is None and file["features"].compression is None
        assert set(file.attrs) == set(ROOT_ATTRIBUTES)
        assert set(file["coords"].attrs) == set(COORDS_ATTRIBUTES)
        assert (file.attrs["mpp_x"], file.attrs["requested_mpp"], file.attrs["tile_size_um"]) == (0.25, 0.5, 128.0)


def test_reads_as_other_tools_read_it(tmp_path: Path) -> None:
    write_features(tmp_path / "S1.h5", _features(23), _table(23), ENCODER, PROVENANCE)
    with h5py.File(tmp_path / "S1.h5") as file:
        # CLAM and its descendants: two datasets with one row a tile
        assert file["features"][:].shape == (23, 6) and file["coords"][:].tolist()[11] == [512, 512]
        # TRIDENT: attributes on both
        assert file["features"].attrs["encoder"] == "vit" and file["features"].attrs["name"] == "S1"
        assert file["coords"].attrs["patch_size_level0"] == 512
        assert file["coords"].attrs["level0_magnification"] == 40


def test_empty_slide_is_a_file_with_its_reason(tmp_path: Path) -> None:
    write_features(tmp_path / "e.h5", np.empty((0, 6), np.float16), _table(0), ENCODER, PROVENANCE)
    again = read_features(tmp_path / "e.h5")
    assert again.features.shape == (0, 6) and again.empty_reason == "no tissue found"


def test_a_file_built_from_the_specification_is_read(tmp_path: Path) -> None:
    """Written with h5py alone, from docs/formats.md."""
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["features"] = np.arange(8, dtype=np.float32).reshape(2, 4)
        file["coords"] = np.array([[0, 0], [512, 0]], np.int64)
        file.attrs.update(
            {
                "format": "pathpipe-features",
                "version": 1,
                "encoder": json.dumps({**ENCODER, "dim": 4}),
                "slide_fingerprint": "f",
                "empty_reason": "",
                "plan": json.dumps(PLAN.to_dict()),
                "provenance": json.dumps({"stage": "extract", "version": 1, "settings": {}, "inputs": {}}),
            }
        )
    found = read_features(tmp_path / "a.h5")
    assert found.features[1].tolist() == [4, 5, 6, 7] and found.plan == PLAN and found.encoder["dim"] == 4


def _in_regions() -> TileTable:
    """Two regions of 2 x 2."""
    corners = np.array([[0, 0], [4096, 1024]], np.int64)
    steps = np.array([[0, 0], [512, 0], [0, 512], [512, 512]], np.int64)
    xy0 = (corners[:, None] + steps).reshape(-1, 2)
    regions = Regions(np.repeat(np.arange(2, dtype=np.int32), 4), corners, 2)
    grid = TileGrid(xy0, np.linspace(0, 1, 8, dtype=np.float32), PLAN, regions=regions)
    return TileTable(grid, SlideFacts("S1", (5120, 4096), (5120, 4096)))


def test_regions_come_back_from_tiles_and_features(tmp_path: Path) -> None:
    table = _in_regions()
    for name in ("a.h5", "b.h5"):
        write_features(tmp_path / name, _features(8), table, ENCODER, PROVENANCE)
        write_tiles(tmp_path / f"tiles-{name}", table, PROVENANCE)
    assert (tmp_path / "a.h5").read_bytes() == (tmp_path / "b.h5").read_bytes()
    for found in (read_features(tmp_path / "a.h5").regions, read_tiles(tmp_path / "tiles-a.h5").grid.regions):
        assert found is not None and table.grid.regions is not None and found.side == 2
        assert np.array_equal(found.index, table.grid.regions.index) and found.index.dtype == np.int32
        assert np.array_equal(found.xy0, table.grid.regions.xy0) and found.xy0.dtype == np.int64
    assert describe(tmp_path / "a.h5").facts["regions"] == "2 of 2 x 2 tiles"
    write_features(tmp_path / "plain.h5", _features(23), _table(23), ENCODER, PROVENANCE)
    assert read_features(tmp_path / "plain.h5").regions is None


@pytest.mark.parametrize("drop", ["region", "side"])
def test_tiles_that_dont_fit_their_regions_are_refused(tmp_path: Path, drop: str) -> None:
    write_features(tmp_path / "a.h5", _features(8), _in_regions(), ENCODER, PROVENANCE)
    with h5py.File(tmp_path / "a.h5", "r+") as file:
        if drop == "region":
            del file["region"]
            file["region"] = np.zeros(7, np.int32)
        else:
            file["regions"].attrs["tiles_per_side"] = 3
    with pytest.raises(StoreError, match=r"has 2 regions of \d x \d tiles for \d tiles"):
        read_features(tmp_path / "a.h5")


def test_a_tile_table_built_from_the_specification_is_read(tmp_path: Path) -> None:
    """Written with h5py alone, from docs/formats.md, with regions."""
    plan = {
        "tile_px": 256,
        "overlap_px": 0,
        "mpp_wanted": 0.5,
        "mpp0": [0.25, 0.25],
        "level": 0,
        "downsample": [1.0, 1.0],
        "shrink": 1,
        "read_px": [512, 512],
        "side0": [512.0, 512.0],
        "stride0": [512.0, 512.0],
    }
    with h5py.File(tmp_path / "t.h5", "w") as file:
        file["coords"] = np.array([[0, 0], [512, 0], [0, 512], [512, 512]], np.int64)
        file["tissue"] = np.array([1, 0.5, 0, 0.25], np.float32)
        file["region"] = np.zeros(4, np.int32)
        file["regions"] = np.array([[0, 0]], np.int64)
        file["regions"].attrs["tiles_per_side"] = 2
        attributes = {"name": "S1", "level0_width": 5120, "level0_height": 4096, "downsampled_level_dim": [5120, 4096]}
        file["coords"].attrs.update(attributes)
        file.attrs.update({"format": "pathpipe-tiles", "version": 1, "plan": json.dumps(plan), "empty_reason": ""})
        made = {"stage": "tile", "version": 1, "settings": {}, "inputs": {}}
        file.attrs["provenance"] = json.dumps(made)
    found = read_tiles(tmp_path / "t.h5")
    assert found.grid.plan == PLAN and found.grid.tissue.tolist() == [1, 0.5, 0, 0.25]
    assert found.grid.regions is not None and found.grid.regions.side == 2
    assert found.slide == SlideFacts("S1", (5120, 4096), (5120, 4096))


def test_documentation_lists_every_attribute(request: pytest.FixtureRequest) -> None:
    text = (Path(request.config.rootpath) / "docs" / "formats.md").read_text()
    coords = dict(re.findall(r"^\| `(\w+)` \| ((?:CLAM|TRIDENT).*?) \| .* \|$", text, re.MULTILINE))
    assert coords == {name: who for name, (who, _) in COORDS_ATTRIBUTES.items()}
    section = text[text.index("## Features: HDF5") : text.index("## Rows")]
    assert dict(re.findall(r"^\| `(\w+)` \| (.+) \|$", section, re.MULTILINE)) == ROOT_ATTRIBUTES


def test_refusals(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="22 rows of features for 23 tiles"):
        write_features(tmp_path / "a.h5", _features(22), _table(23), ENCODER, PROVENANCE)
    with pytest.raises(StoreError, match="no such feature file"):
        read_features(tmp_path / "none.h5")
    path = tmp_path / "cut.h5"
    write_features(path, _features(2000), _table(2000), ENCODER, PROVENANCE)
    cut_short(path, 0.8)
    with pytest.raises(StoreError, match="damaged"):
        read_header(path)
    assert read_provenance(path) is None


def test_non_finite_rows_are_named() -> None:
    features = _features(23)
    refuse_non_finite(features, _table(23).grid.xy0)
    features[12, 3] = np.inf
    with pytest.raises(StoreError, match=r"for 1 tiles, the first at level-0 \(1024, 512\)"):
        refuse_non_finite(features, _table(23).grid.xy0)


LAYOUT = RowLayout(3, "float32", "fp")


def _all(rows: RowFile) -> np.ndarray:
    return np.concatenate([np.empty((0, rows.shape[1]), rows.dtype), *rows.blocks()])


def _blocks() -> list[np.ndarray]:
    return [np.arange(n * 3, dtype=np.float32).reshape(n, 3) + 100 * n for n in (4, 1, 3)]


def _written(path: Path) -> np.ndarray:
    rows = RowFile.resume(path, LAYOUT)
    for block in _blocks():
        rows.append(block)
    rows.close()
    return np.concatenate(_blocks())


def test_rows_come_back_and_go_on(tmp_path: Path) -> None:
    path = tmp_path / "a.rows"
    whole = _written(path)
    rows = RowFile.resume(path, LAYOUT)
    assert rows.rows == 8 and np.array_equal(_all(rows), whole)
    rows.append(_blocks()[0])
    assert rows.rows == 12 and np.array_equal(_all(rows)[8:], _blocks()[0])
    rows.close()


def test_row_file_is_as_specified(tmp_path: Path) -> None:
    _written(tmp_path / "a.rows")
    content = (tmp_path / "a.rows").read_bytes()
    assert content.startswith(MAGIC)
    length = int.from_bytes(content[8:12], "little")
    assert json.loads(content[12 : 12 + length]) == {"dim": 3, "dtype": "float32", "fingerprint": "fp"}
    frame = content[12 + length :]
    assert [int.from_bytes(frame[at : at + 8], "little") for at in (0, 8)] == [0, 4]
    payload = frame[20 : 20 + 4 * 12]
    assert int.from_bytes(frame[16:20], "little") == zlib.crc32(frame[:16] + payload)
    assert np.array_equal(np.frombuffer(payload, np.float32).reshape(4, 3), _blocks()[0])


def test_a_torn_tail_costs_only_its_block(tmp_path: Path) -> None:
    path = tmp_path / "a.rows"
    whole = _written(path)
    content = path.read_bytes()
    seen = set()
    for end in range(len(content) + 1):
        path.write_bytes(content[:end])
        rows = RowFile.resume(path, LAYOUT)
        seen.add(rows.rows)
        assert np.array_equal(_all(rows), whole[: rows.rows])
        rows.append(_blocks()[1])
        assert np.array_equal(_all(rows)[-1:], _blocks()[1])
        rows.close()
    assert seen == {0, 4, 5, 8}


@settings(deadline=None, max_examples=200)
@given(st.data())
def test_a_flipped_bit_never_becomes_a_row(tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
    path = tmp_path_factory.mktemp("rows") / "a.rows"
    whole = _written(path)
    content = bytearray(path.read_bytes())
    at = data.draw(st.integers(0, len(content) - 1))
    content[at] ^= 1 << data.draw(st.integers(0, 7))
    path.write_bytes(content)
    rows = RowFile.resume(path, LAYOUT)
    assert rows.rows < 8 and np.array_equal(_all(rows), whole[: rows.rows])
    rows.close()


@pytest.mark.parametrize(
    "other", [RowLayout(3, "float32", "else"), RowLayout(4, "float32", "fp"), RowLayout(3, "float16", "fp")]
)
def test_rows_of_something_else_are_not_used(tmp_path: Path, other: RowLayout) -> None:
    _written(tmp_path / "a.rows")
    rows = RowFile.resume(tmp_path / "a.rows", other)
    assert rows.rows == 0
    with pytest.raises(StoreError, match="doesn't fit"):
        rows.append(np.zeros((2, 9), np.float32))
    rows.close()


def test_describe_own_files(tmp_path: Path) -> None:
    write_features(tmp_path / "f.h5", _features(23), _table(23), ENCODER, PROVENANCE)
    write_tiles(tmp_path / "t.h5", _table(23), PROVENANCE)
    features, tiles = describe(tmp_path / "f.h5"), describe(tmp_path / "t.h5")
    assert (features.layout, tiles.layout) == ("pathpipe features", "pathpipe tiles")
    assert features.facts["features"] == "23x6 float16" and features.facts["encoder name"] == "vit"
    assert "resize" in features.facts["CLAM's field of view"] and features.problems == []
    broken = _features(23)
    broken[0, 0] = np.nan
    write_features(tmp_path / "n.h5", broken, _table(23), ENCODER, PROVENANCE)
    assert describe(tmp_path / "n.h5").problems == ["1 of 23 rows have NaN or infinite features"]


def test_describe_files_of_others(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "clam.h5", "w") as file:  # CLAM: chunked float32, no attributes
        file.create_dataset("features", data=np.zeros((5, 1024), np.float32), chunks=(1, 1024))
        file.create_dataset("coords", data=np.zeros((4, 2), np.int32))
    found = describe(tmp_path / "clam.h5")
    assert found.layout == "CLAM features"
    assert found.problems == ["has 5 rows of features for 4 coordinates"]
    with h5py.File(tmp_path / "trident.h5", "w") as file:
        file["coords"] = np.zeros((5, 2), np.int64)
        file["coords"].attrs["patch_size_level0"] = 512
    assert describe(tmp_path / "trident.h5").layout == "TRIDENT coordinates"
    with h5py.File(tmp_path / "stamp.h5", "w") as file:
        file["feats"] = np.zeros((5, 8), np.float16)
        file.attrs["stamp_version"] = "2.1.0"
    found = describe(tmp_path / "stamp.h5")
    assert (found.layout, found.problems) == ("STAMP features", ["has no coordinates"])
    with h5py.File(tmp_path / "other.h5", "w") as file:
        file["pixels"] = np.zeros(3)
    with pytest.raises(StoreError, match=r"neither tiles nor features \(datasets: pixels\)"):
        describe(tmp_path / "other.h5")
    (tmp_path / "no.h5").write_text("text")
    with pytest.raises(StoreError, match="can't be opened as HDF5"):
        describe(tmp_path / "no.h5")


def test_rows_in_a_file_are_written_as_rows_in_memory(tmp_path: Path) -> None:
    rows = RowFile.resume(tmp_path / "a.rows", RowLayout(6, "float16", "fp"))
    whole = _features(23)
    for first in range(0, 23, 5):
        rows.append(whole[first : first + 5])
    for name in ("a.h5", "a.zarr"):
        write_features(tmp_path / name, rows, _table(23), ENCODER, PROVENANCE)
        assert np.array_equal(read_features(tmp_path / name).features, whole)
    write_features(tmp_path / "b.h5", whole, _table(23), ENCODER, PROVENANCE)
    assert (tmp_path / "a.h5").read_bytes() == (tmp_path / "b.h5").read_bytes()
    rows.append(whole[:1])
    with pytest.raises(StoreError, match="24 rows of features for 23 tiles"):
        write_features(tmp_path / "c.h5", rows, _table(23), ENCODER, PROVENANCE)
    rows.close()
