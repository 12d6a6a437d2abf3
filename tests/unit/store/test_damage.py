"""Damaged and foreign HDF5: always one StoreError, and nothing is written that can't be read back."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from pathpipe.errors import StoreError
from pathpipe.store.features import read_features, read_header, write_features
from pathpipe.store.inspect import describe
from pathpipe.tiles.table import read_tiles, write_tiles
from tests.unit.store.test_store import ENCODER, PROVENANCE, _features, _table

Read = Callable[[Path], Any]


def _file(tmp_path: Path, kind: str) -> Path:
    path = tmp_path / f"{kind}.h5"
    if kind == "features":
        write_features(path, _features(5), _table(5), ENCODER, PROVENANCE)
    else:
        write_tiles(path, _table(5), PROVENANCE)
    return path


@pytest.mark.parametrize(
    ("kind", "read"),
    [
        ("features", read_features),
        ("features", read_header),
        ("features", describe),
        ("tiles", read_tiles),
        ("tiles", describe),
    ],
)
def test_a_file_cut_anywhere_is_refused(tmp_path: Path, kind: str, read: Read) -> None:
    path = _file(tmp_path, kind)
    content = path.read_bytes()
    for end in (*range(0, len(content), 61), len(content) - 1):
        path.write_bytes(content[:end])
        with pytest.raises(StoreError):
            read(path)


@pytest.mark.parametrize("which", [0, 1, 2], ids=["root", "first dataset", "second dataset"])
@pytest.mark.parametrize(("kind", "read"), [("features", read_features), ("tiles", read_tiles)])
def test_a_broken_object_header_is_refused(tmp_path: Path, kind: str, read: Read, which: int) -> None:
    path = _file(tmp_path, kind)
    content = bytearray(path.read_bytes())
    headers = [at for at in range(len(content)) if content[at : at + 4] == b"OHDR"]  # HDF5 format, object header v2
    content[headers[which] + 5] ^= 0xFF  # its flags: the checksum no longer fits
    path.write_bytes(content)
    for one in (read, describe):
        with pytest.raises(StoreError):
            one(path)


@pytest.mark.parametrize(
    "features",
    [np.zeros((5, 6)), np.zeros(5, np.float16), np.zeros((5, 2, 3), np.float16), np.zeros((5, 6), np.int8)],
    ids=["float64", "one axis", "three axes", "int8"],
)
def test_what_could_not_be_read_back_is_not_written(tmp_path: Path, features: np.ndarray) -> None:
    with pytest.raises(StoreError, match=r"float16 or float32"):
        write_features(tmp_path / "a.h5", features, _table(5), ENCODER, PROVENANCE)
    assert not (tmp_path / "a.h5").exists()


@pytest.mark.parametrize(("kind", "read"), [("features", read_features), ("tiles", read_tiles)])
def test_another_version_is_named(tmp_path: Path, kind: str, read: Read) -> None:
    path = _file(tmp_path, kind)
    with h5py.File(path, "r+") as file:
        file.attrs["version"] = 99
    with pytest.raises(StoreError, match=f"is pathpipe-{kind} version 99"):
        read(path)


def test_files_as_trident_and_clam_write_them(tmp_path: Path) -> None:
    """Layouts as those tools document and write them: chunked, with their own attributes and no root ones."""
    features, coords = np.ones((6, 8), np.float32), np.arange(12).reshape(6, 2)
    attributes = {
        "patch_size": 256,
        "patch_size_level0": 512,
        "level0_magnification": 40,
        "target_magnification": 20,
        "overlap": 0,
        "name": "S1",
        "savetodir": "/elsewhere",
    }
    with h5py.File(tmp_path / "trident.h5", "w") as file:
        file.create_dataset("features", data=features, chunks=(1, 8))
        file.create_dataset("coords", data=coords, chunks=(1, 2), maxshape=(None, 2)).attrs.update(attributes)
    found = describe(tmp_path / "trident.h5")
    assert (found.layout, found.problems) == ("TRIDENT features", [])
    assert (found.facts["features"], found.facts["tile"]) == ("6x8 float32", "512 x 512 level-0 px")
    with h5py.File(tmp_path / "clam.h5", "w") as file:
        one = file.create_dataset("coords", data=coords, chunks=(1, 2), maxshape=(None, 2))
        one.attrs.update({"patch_size": 256, "patch_level": 1, "downsample": (4.0, 4.0), "name": "S1"})
    found = describe(tmp_path / "clam.h5")
    assert (found.layout, found.facts["coords.patch_level"]) == ("CLAM coordinates", "1")
    with h5py.File(tmp_path / "nan.h5", "w") as file:
        file["features"] = np.full((6, 8), np.nan, np.float32)
        file["coords"] = coords
    found = describe(tmp_path / "nan.h5")
    assert found.problems == ["6 of 6 rows have NaN or infinite features", "doesn't say how large a tile is"]
