"""The Zarr form has the same content, is sharded and uncompressed, and says when a piece is missing."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from pathpipe.errors import StoreError
from pathpipe.provenance import read_provenance
from pathpipe.run import Run
from pathpipe.store.features import Features, read_features, read_header, read_rows, write_features, write_zarr
from pathpipe.store.inspect import describe
from pathpipe.store.zarr import open_zarr, write_zarr_group
from tests.unit.store.test_store import ENCODER, PROVENANCE, _features, _table


def _both(folder: Path, count: int = 23) -> tuple[Path, Path]:
    for name in ("S1.h5", "S1.zarr"):
        write_features(folder / name, _features(count), _table(count), ENCODER, PROVENANCE)
    return folder / "S1.h5", folder / "S1.zarr"


def _same(one: Features, two: Features) -> None:
    for name in ("features", "xy0"):
        first, second = getattr(one, name), getattr(two, name)
        assert np.array_equal(first, second) and first.dtype == second.dtype
    for name in ("encoder", "plan", "slide_fingerprint", "empty_reason", "slide", "provenance"):
        assert getattr(one, name) == getattr(two, name), name


@pytest.mark.parametrize("count", [0, 1, 23])
def test_same_content_as_hdf5(tmp_path: Path, count: int) -> None:
    hdf5, zarr = _both(tmp_path, count)
    _same(read_features(hdf5), read_features(zarr))
    (one, rows), (two, more) = read_header(hdf5), read_header(zarr)
    assert rows == more == count and len(two.features) == 0 and one.plan == two.plan
    assert read_provenance(zarr) == PROVENANCE
    assert describe(zarr).facts == describe(hdf5).facts and describe(zarr).layout == "pathpipe features"


def test_rows_in_any_order(tmp_path: Path) -> None:
    wanted = np.array([5, 1, 22, 1])
    for path in _both(tmp_path):
        found = read_rows(path, wanted[:3])
        assert np.array_equal(found.features, _features(23)[wanted[:3]])
        assert np.array_equal(found.xy0, _table(23).grid.xy0[wanted[:3]])
        assert np.array_equal(read_rows(path, slice(3, 9)).features, _features(23)[3:9])


def test_stored_as_specified(tmp_path: Path) -> None:
    """Zarr v3, one codec: shards of plain little-endian chunks of about 4 MiB."""
    values = np.arange(3000 * 512, dtype=np.float32).reshape(3000, 512)
    write_zarr_group(tmp_path / "a.zarr", {"features": (values, {"name": "S1"})}, {"format": "x"})
    about = json.loads((tmp_path / "a.zarr" / "features" / "zarr.json").read_text())
    assert (about["zarr_format"], about["data_type"], about["attributes"]) == (3, "float32", {"name": "S1"})
    assert about["chunk_grid"]["configuration"]["chunk_shape"] == [4096, 512]
    (codec,) = about["codecs"]
    assert codec["name"] == "sharding_indexed" and codec["configuration"]["chunk_shape"] == [2048, 512]
    assert [inner["name"] for inner in codec["configuration"]["codecs"]] == ["bytes"]
    shard = tmp_path / "a.zarr" / "features" / "c" / "0" / "0"
    assert np.array_equal(np.fromfile(shard, np.float32, 3000 * 512).reshape(3000, 512), values)
    with open_zarr(tmp_path / "a.zarr") as group:
        assert np.array_equal(group["features"][:], values)


def test_rows_of_zeros_are_rows(tmp_path: Path) -> None:
    write_features(tmp_path / "S1.zarr", np.zeros((23, 6), np.float16), _table(23), ENCODER, PROVENANCE)
    assert not read_features(tmp_path / "S1.zarr").features.any()


def test_a_missing_piece_is_damage_not_zeros(tmp_path: Path) -> None:
    _, zarr = _both(tmp_path)
    (zarr / "features" / "c" / "0" / "0").unlink()
    for read in (read_features, read_header):
        with pytest.raises(StoreError, match=r"array `features` has lost the piece features/c/0/0"):
            read(zarr)


def test_damage_is_one_error(tmp_path: Path) -> None:
    for name in ("zarr.json", "features/zarr.json", "coords/zarr.json", "features/c/0/0"):
        folder = tmp_path / name.replace("/", "-")
        folder.mkdir()
        _, zarr = _both(folder)
        content = (zarr / name).read_bytes()
        (zarr / name).write_bytes(content[: len(content) // 2])
        with pytest.raises(StoreError):
            read_features(zarr)


def test_what_could_not_be_read_back_is_not_written(tmp_path: Path) -> None:
    hdf5, _ = _both(tmp_path)
    whole = read_features(hdf5)
    with pytest.raises(StoreError, match="float16 or float32"):
        write_zarr(tmp_path / "b.zarr", replace(whole, features=whole.features.astype(np.float64)))
    assert not (tmp_path / "b.zarr").exists()


def test_a_run_finds_its_features_in_either_form(tmp_path: Path) -> None:
    run = Run(tmp_path)
    folder = tmp_path / "features" / "vit"
    folder.mkdir(parents=True)
    assert run.features("vit", "S1") == folder / "S1.h5"
    hdf5, zarr = _both(folder)
    assert run.features("vit", "S1") == hdf5
    hdf5.unlink()
    assert run.features("vit", "S1") == zarr and run.rows("vit", "S1") == folder / "S1.rows"
