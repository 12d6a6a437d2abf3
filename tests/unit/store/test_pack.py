"""A pack gives the bags that its files give, in one file, and is never used when a file has changed."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch

from pathpipe.errors import StoreError
from pathpipe.store.features import read_features, write_features
from pathpipe.store.inspect import describe
from pathpipe.store.pack import changed_sources, fresh_pack, open_pack, pack_path, renew_pack, write_pack
from pathpipe.testing.slides import cut_short
from pathpipe.training.loading import load_bags
from tests.unit.store.test_store import ENCODER, PROVENANCE, _table

COUNTS = {"a": 5, "b": 0, "c": 9, "d": 1}
PATIENTS = {"a": "p", "b": "p", "c": "q", "d": "p"}


def _folder(parent: Path, suffix: str = ".h5") -> dict[str, Path]:
    folder = parent / "vit"
    folder.mkdir(parents=True)
    files = {}
    for seed, (slide_id, count) in enumerate(COUNTS.items()):
        values = np.random.default_rng(seed).normal(size=(count, 6)).astype(np.float16)
        files[slide_id] = folder / f"{slide_id}{suffix}"
        write_features(files[slide_id], values, _table(count), ENCODER, PROVENANCE)
    return files


def _packed(files: dict[str, Path]) -> Path:
    target = pack_path(files["a"].parent)
    write_pack(list(files.values()), target)
    return target


@pytest.mark.parametrize("suffix", [".h5", ".zarr"])
def test_bags_are_the_same_with_and_without(tmp_path: Path, suffix: str) -> None:
    files = _folder(tmp_path, suffix)
    without = load_bags(files, PATIENTS)
    _packed(files)
    pack = fresh_pack(files)
    assert pack is not None and isinstance(pack.features, np.memmap)
    packed = load_bags(files, PATIENTS)
    assert (packed.encoder, packed.skipped) == (without.encoder, without.skipped)
    for patient, bag in without.bags.items():
        other = packed.bags[patient]
        assert np.array_equal(bag.features, other.features) and bag.features.dtype == other.features.dtype
        assert bag.xy0 is not None and other.xy0 is not None and np.array_equal(bag.xy0, other.xy0)
        assert (bag.slide_ids, bag.bag_id) == (other.slide_ids, other.bag_id)
    assert torch.from_numpy(np.asarray(packed.bags["q"].features)).shape == (9, 6)  # without a warning


def test_file_is_as_specified_and_deterministic(tmp_path: Path) -> None:
    one, two = _packed(_folder(tmp_path / "1")), _packed(_folder(tmp_path / "2"))
    assert one.name == "vit.pack" and one.read_bytes() == two.read_bytes()
    with h5py.File(one) as file:
        assert file["features"].shape == (15, 6) and file["features"].chunks is None
        assert file["offsets"][:].tolist() == [0, 5, 5, 14, 15]
        assert file["coords"][5].tolist() == [0, 0]
    assert list(open_pack(one).sources) == ["a.h5", "b.h5", "c.h5", "d.h5"]


def test_only_what_is_wanted_must_be_unchanged(tmp_path: Path) -> None:
    files = _folder(tmp_path)
    _packed(files)
    assert fresh_pack({"a": files["a"]}) is not None
    write_features(files["d"], np.ones((1, 6), np.float16), _table(1), ENCODER, PROVENANCE)
    assert fresh_pack({"a": files["a"]}) is not None and fresh_pack(files) is None
    assert np.array_equal(load_bags(files, PATIENTS).bags["p"].features[-1], np.ones(6))
    assert describe(pack_path(files["a"].parent)).problems == ["1 of 4 sources have changed since: d.h5"]


def test_one_changed_byte_of_the_same_size_is_seen(tmp_path: Path) -> None:
    files = _folder(tmp_path)
    pack = open_pack(_packed(files))
    content = bytearray(files["c"].read_bytes())
    content[-1] ^= 1
    files["c"].write_bytes(content)
    assert changed_sources(pack, list(files.values())) == ["c.h5"]


def test_a_copied_run_keeps_its_pack(tmp_path: Path) -> None:
    """Other times of change, the same bytes: the bytes decide, with and without the note of the times."""
    files = _folder(tmp_path)
    target = _packed(files)
    for path in files.values():
        os.utime(path, (1, 1))
    assert fresh_pack(files) is not None
    target.with_name("vit.pack.seen").unlink()
    assert fresh_pack(files) is not None
    _, made = renew_pack(list(files.values()), target)
    assert not made and target.with_name("vit.pack.seen").exists()


def test_renewing(tmp_path: Path) -> None:
    files = _folder(tmp_path)
    target = pack_path(files["a"].parent)
    assert renew_pack(list(files.values()), target)[1] and not renew_pack(list(files.values()), target)[1]
    shutil.copy(files["a"], files["a"].with_name("e.h5"))
    pack, made = renew_pack([*files.values(), files["a"].with_name("e.h5")], target)
    assert made and len(pack.sources) == 5
    cut_short(target, 0.5)
    assert renew_pack(list(files.values()), target)[1]


def test_no_pack_no_use(tmp_path: Path) -> None:
    files = _folder(tmp_path)
    assert fresh_pack(files) is None
    (tmp_path / "other").mkdir()
    moved = shutil.copy(files["a"], tmp_path / "other" / "a.h5")
    _packed(files)
    assert fresh_pack({"a": Path(moved), "c": files["c"]}) is None


def test_what_doesnt_belong_together_is_not_packed(tmp_path: Path) -> None:
    files = _folder(tmp_path)
    target = pack_path(files["a"].parent)
    write_features(files["d"], np.ones((1, 6), np.float32), _table(1), ENCODER, PROVENANCE)
    with pytest.raises(StoreError, match="stored as float16 and float32"):
        write_pack(list(files.values()), target)
    write_features(files["d"], np.ones((1, 6), np.float16), _table(1), {**ENCODER, "revision": "2"}, PROVENANCE)
    with pytest.raises(StoreError, match="two encoders"):
        write_pack(list(files.values()), target)
    write_features(files["d"], np.full((1, 6), np.inf, np.float16), _table(1), ENCODER, PROVENANCE)
    with pytest.raises(StoreError, match="NaN or infinity"):
        write_pack(list(files.values()), target)
    assert not target.exists()


def test_what_is_written_to_a_bag_stays_in_memory(tmp_path: Path) -> None:
    files = _folder(tmp_path)
    target = _packed(files)
    before = target.read_bytes()
    pack = fresh_pack(files)
    assert pack is not None
    pack.bag("a.h5").features[:] = 0
    assert target.read_bytes() == before
    assert np.array_equal(open_pack(target).bag("a.h5").features, read_features(files["a"]).features)


@pytest.mark.parametrize("keep", [0.1, 0.5, 0.95])
def test_a_damaged_pack_is_refused(tmp_path: Path, keep: float) -> None:
    target = cut_short(_packed(_folder(tmp_path)), keep)
    with pytest.raises(StoreError, match="delete it and pack again"):
        open_pack(target)
