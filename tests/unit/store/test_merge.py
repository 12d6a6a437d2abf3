"""Merging: what doesn't belong together is refused before anything is written."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from pathpipe.errors import StoreError
from pathpipe.store.aligned import read_aligned
from pathpipe.store.features import read_features, write_features, write_hdf5
from pathpipe.store.merge import merge_encoders, merge_slides
from pathpipe.training.loading import load_bags
from tests.unit.store.peers import rows, trident
from tests.unit.store.test_store import ENCODER, PROVENANCE, _features, _table

OTHER = {**ENCODER, "name": "uni", "weights_sha256": "cd" * 32, "dim": 4}


def _put(folder: Path, name: str, encoder: dict[str, object] = ENCODER, count: int = 23, suffix: str = ".h5") -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    values = _features(count)[:, : int(str(encoder["dim"]))]
    write_features(folder / f"{name}{suffix}", values, _table(count), encoder, PROVENANCE)
    return folder / f"{name}{suffix}"


def test_slides_of_several_folders(tmp_path: Path) -> None:
    one, two = _put(tmp_path / "a", "S1"), _put(tmp_path / "b", "S2", count=5)
    zarr = _put(tmp_path / "b", "S3", suffix=".zarr")
    shutil.copytree(tmp_path / "b", tmp_path / "c")  # stands twice, with the same bytes
    written = merge_slides([tmp_path / "a", tmp_path / "b", tmp_path / "c"], tmp_path / "o")
    assert [path.relative_to(tmp_path / "o").as_posix() for path in written] == [
        "vit/S1.h5",
        "vit/S2.h5",
        "vit/S3.zarr",
    ]
    assert [path.read_bytes() for path in written[:2]] == [one.read_bytes(), two.read_bytes()]
    assert np.array_equal(read_features(written[2]).features, read_features(zarr).features)
    assert merge_slides([tmp_path / "o"], tmp_path / "o") == written  # onto itself


def test_what_is_there_is_not_replaced(tmp_path: Path) -> None:
    _put(tmp_path / "a", "S1")
    there = _put(tmp_path / "o" / "vit", "S1", count=5)
    before = there.read_bytes()
    with pytest.raises(StoreError, match="is there already and differs"):
        merge_slides([tmp_path / "a"], tmp_path / "o")
    assert there.read_bytes() == before


@pytest.mark.parametrize("kind", ["encoder", "content", "foreign"])
def test_slides_that_dont_belong_together(tmp_path: Path, kind: str) -> None:
    _put(tmp_path / "a", "S1")
    if kind == "encoder":
        _put(tmp_path / "b", "S2", {**ENCODER, "revision": "other"})
    elif kind == "content":
        _put(tmp_path / "b", "S1", count=5)
    else:
        trident(tmp_path / "b" / "S2.h5", rows())
    message = {"encoder": "two encoders", "content": "two different files of one slide", "foreign": "store convert"}
    with pytest.raises(StoreError, match=message[kind]):
        merge_slides([tmp_path / "a", tmp_path / "b"], tmp_path / "o")
    assert not (tmp_path / "o").exists()


def test_encoders_side_by_side(tmp_path: Path) -> None:
    one, two = _put(tmp_path / "vit", "S1"), _put(tmp_path / "uni", "S1", OTHER)
    (path,) = merge_encoders([tmp_path / "vit", tmp_path / "uni"], tmp_path / "o")
    assert path == tmp_path / "o" / "vit+uni" / "S1.h5"
    found = read_features(path)
    assert np.array_equal(found.features, np.hstack([_features(23), _features(23)[:, :4]]))
    assert found.encoder["name"] == "vit+uni" and found.encoder["dim"] == 10
    assert found.encoder["parts"] == [ENCODER, OTHER]
    assert set(found.provenance.inputs) == {"slide", "features of vit", "features of uni"}
    bag = load_bags({"S1": path}, {"S1": "p"}).bags["p"]  # training reads it as any other
    assert bag.dim == 10
    assert np.array_equal(read_aligned([two, one]).features[:, 4:], _features(23))


def test_encoders_of_other_tiles_are_refused(tmp_path: Path) -> None:
    one, two = _put(tmp_path / "vit", "S1"), _put(tmp_path / "uni", "S1", OTHER, count=22)
    with pytest.raises(StoreError, match="have 23 and 22 tiles"):
        read_aligned([one, two])
    whole = read_features(_put(tmp_path / "uni", "S1", OTHER))
    cases = {
        "at two places": replace(whole, xy0=whole.xy0[::-1].copy()),
        "of different slides": replace(whole, slide_fingerprint="other"),
        "tiles of 512 and 1024": replace(whole, plan=replace(whole.plan, side0=(1024.0, 1024.0))),
        "of the same encoder": replace(whole, encoder={**OTHER, "name": "vit"}),
    }
    for message, changed in cases.items():
        write_hdf5(two, changed)
        with pytest.raises(StoreError, match=message):
            read_aligned([one, two])


def test_a_slide_missing_of_one_encoder_is_named(tmp_path: Path) -> None:
    for name in ("S1", "S2"):
        _put(tmp_path / "vit", name)
    _put(tmp_path / "uni", "S1", OTHER)
    with pytest.raises(StoreError, match=r"S2: isn't in .*uni"):
        merge_encoders([tmp_path / "vit", tmp_path / "uni"], tmp_path / "o")
    with pytest.raises(StoreError, match="at least two places"):
        merge_encoders([tmp_path / "vit"], tmp_path / "o")
    assert not (tmp_path / "o").exists()
