"""Every layout is known by its content and read as it is; what is wrong or missing is said, and nothing is guessed."""

from __future__ import annotations

from pathlib import Path

import h5py
import numpy as np
import pytest
import torch

from pathpipe.errors import StoreError
from pathpipe.store.inspect import describe
from pathpipe.store.layouts.detect import feature_files, read_any
from pathpipe.store.layouts.record import SlideFeatures
from tests.unit.store.peers import XY0, D, N, atlaspatch, clam_features, clam_tiles, rows, slide2vec, stamp, trident


def _one(path: Path, coords: Path | None = None) -> SlideFeatures:
    (record,) = read_any(path, coords)
    return record


def _same(record: SlideFeatures, values: np.ndarray, side: tuple[float, float] | None = (512, 512)) -> None:
    assert np.array_equal(record.features, values) and record.features.dtype == values.dtype
    assert record.places is not None and np.array_equal(record.places.xy, XY0)
    assert (record.places.side, record.places.in_um) == (side, False)


def test_trident(tmp_path: Path) -> None:
    found = _one(trident(tmp_path / "features_uni_v1" / "S1.h5", rows(), overlap=64))
    _same(found, rows())
    assert (found.layout, found.encoder, found.slide_id) == ("TRIDENT features", "uni_v1", "S1")
    assert found.places is not None and found.places.tile_px == 256 and found.places.overlap == 0.25
    assert found.places.size0 == (5120, 4096) and found.problems == ()
    assert "savetodir" not in found.stated and found.stated["target_magnification"] == 20


def test_trident_without_encoder_attribute_takes_its_folder(tmp_path: Path) -> None:
    path = trident(tmp_path / "features_conch_v15" / "S1.h5", rows())
    with h5py.File(path, "r+") as file:
        del file["features"].attrs["encoder"]
    assert _one(path).encoder == "conch_v15"


def test_trident_slide_embedding_is_no_bag(tmp_path: Path) -> None:
    path = trident(tmp_path / "S1.h5", rows())
    with h5py.File(path, "r+") as file:
        del file["features"]
        file["features"] = np.ones(768, np.float32)
    with pytest.raises(StoreError, match="one embedding of a slide, 768 numbers"):
        read_any(path)


def test_empty_trident_slide(tmp_path: Path) -> None:
    path = trident(tmp_path / "S1.h5", np.empty((0, D), np.float32))
    found = _one(path)
    assert found.features.shape == (0, D) and found.problems == ()


def test_clam_h5_takes_the_size_of_a_tile_from_its_patches(tmp_path: Path) -> None:
    h5, pt = clam_features(tmp_path, rows())
    found = _one(h5)
    _same(found, rows(), None)
    assert found.problems == ("doesn't say how large a tile is",) and found.encoder is None
    clam_tiles(tmp_path / "patches" / "S1.h5")
    for path in (h5, pt):
        found = _one(path)
        _same(found, rows())  # 256 px of a level of downsample 2
        assert (found.layout, found.slide_id, found.problems) == ("CLAM features", "S1", ())


def test_clam_pt_and_h5_must_agree(tmp_path: Path) -> None:
    _, pt = clam_features(tmp_path, rows())
    torch.save(torch.from_numpy(rows(seed=1)), pt)
    with pytest.raises(StoreError, match=r"holds other rows than h5_files/S1\.h5"):
        read_any(pt)


def test_clam_pt_alone_needs_coordinates(tmp_path: Path) -> None:
    h5, pt = clam_features(tmp_path, rows())
    h5.unlink()
    assert _one(pt).places is None and "no coordinates" in _one(pt).problems[0]
    _same(_one(pt, clam_tiles(tmp_path / "tiles" / "S1.h5")), rows())
    found = _one(pt, tmp_path / "tiles")  # the folder, by the slide's name
    _same(found, rows())
    assert "taken to be that of the coordinates" in found.stated["order"]


def test_coordinates_of_other_rows_are_refused(tmp_path: Path) -> None:
    h5, _ = clam_features(tmp_path, rows())
    with pytest.raises(StoreError, match="lists 6 places for the 7 rows of features of S1"):
        read_any(h5, clam_tiles(tmp_path / "few.h5", XY0[:-1]))
    with pytest.raises(StoreError, match=r"row 1 lies at \[1024.0, 0.0\], in the features of S1 at \[512.0, 0.0\]"):
        read_any(h5, clam_tiles(tmp_path / "turned.h5", XY0[[0, 2, 1, 3, 4, 5, 6]]))
    (tmp_path / "empty").mkdir()
    with pytest.raises(StoreError, match="S1: has no coordinates in"):
        read_any(h5, tmp_path / "empty")


STAMP_UM = XY0 / 2.0  # level 0 of 0.5 um/px


@pytest.mark.parametrize(
    ("attributes", "px"),
    [
        ({"extractor": "mahmood-uni-1a2b3c4d", "unit": "um", "tile_size": 256.0}, None),
        ({"extractor": "mahmood-uni", "unit": "um", "tile_size_um": 256.0, "tile_size_px": 224}, 224),
    ],
    ids=["v2.0", "v2.1"],
)
def test_stamp_in_um(tmp_path: Path, attributes: dict[str, object], px: int | None) -> None:
    path = stamp(tmp_path / "S1.h5", STAMP_UM, stamp_version="2.1.0", feat_type="tile", **attributes)
    found = _one(path)
    assert found.places is not None and found.places.in_um and found.places.side == (256.0, 256.0)
    assert np.array_equal(found.places.xy, STAMP_UM) and found.places.tile_px == px
    assert (found.encoder, found.problems, found.features.dtype) == ("uni", (), np.float16)


def test_stamp_before_2_is_known_by_its_stride(tmp_path: Path) -> None:
    """Coordinates in px of tiles of 256 um and 224 px."""
    found = _one(stamp(tmp_path / "S1.h5", XY0 / 512 * 224, extractor="STAMP-xiyuewang-ctranspath"))
    assert found.places is not None and np.allclose(found.places.xy, XY0 / 2) and found.places.side == (256, 256)
    assert found.problems == ()
    odd = _one(stamp(tmp_path / "odd.h5", XY0, extractor="x"))
    assert odd.places is not None and odd.places.side is None
    assert odd.problems == ("is older than STAMP 2 and its tiles lie 512 apart, not 224: nobody says in which unit",)


def test_stamp_that_contradicts_itself(tmp_path: Path) -> None:
    found = _one(stamp(tmp_path / "S1.h5", XY0 / 512 * 224, unit="um", tile_size_um=256.0))
    assert found.problems == (
        "says tiles of 256 um but they lie 224 apart: the coordinates may be px of the tiles, not um",
    )
    found = _one(stamp(tmp_path / "S2.h5", STAMP_UM, unit="px", tile_size=256.0))
    assert found.problems == ("gives coordinates in `px`, which no STAMP writes",)


def test_stamp_embedding_of_a_patient_is_no_bag(tmp_path: Path) -> None:
    path = stamp(tmp_path / "S1.h5", STAMP_UM, feat_type="patient")
    with pytest.raises(StoreError, match="is an embedding of a patient"):
        read_any(path)


@pytest.mark.parametrize("kind", ["pt", "npz"])
def test_slide2vec(tmp_path: Path, kind: str) -> None:
    found = _one(slide2vec(tmp_path, rows("float16"), kind))
    _same(found, rows("float16"))
    assert (found.layout, found.encoder, found.problems) == ("slide2vec features", "virchow2", ())
    assert found.places is not None and (found.places.tile_px, found.places.size0) == (224, (5120, 4096))


def test_slide2vec_problems(tmp_path: Path) -> None:
    path = slide2vec(tmp_path, rows())
    (tmp_path / "tiles" / "S1.coordinates.meta.json").rename(tmp_path / "gone.json")
    assert "aren't where it says" in _one(path).problems[0] and _one(path).places is None
    torch.save(torch.from_numpy(rows()[:3]), path)
    with pytest.raises(StoreError, match="holds 3 x 6 features, its description says 7 x 6"):
        read_any(path)


def test_atlaspatch_holds_several_encoders(tmp_path: Path) -> None:
    uni, conch = read_any(
        atlaspatch(tmp_path / "S1.h5", {"uni_v2": rows(), "conch": rows(dim=4, seed=2)}),
    )[::-1]
    assert (uni.encoder, conch.encoder) == ("uni_v2", "conch")
    _same(uni, rows())
    _same(conch, rows(dim=4, seed=2))
    assert uni.places is not None and (uni.places.mpp, uni.places.overlap, uni.places.tile_px) == (0.25, 0.25, 256)
    assert "creation_date" not in uni.stated and "wsi_path" not in uni.stated
    found = describe(tmp_path / "S1.h5")
    assert found.facts["encoders"] == "conch, uni_v2" and found.facts["conch: features"] == "7x4 float32"


@pytest.mark.parametrize("name", ["S1.npy", "S1.npz", "S1.pt", "dict.pt", "bf16.pt"])
def test_plain_arrays(tmp_path: Path, name: str) -> None:
    path, values = tmp_path / name, rows()
    if name == "S1.npy":
        np.save(path, values)
    elif name == "S1.npz":
        np.savez(path, features=values, labels=np.zeros(N))
    elif name == "bf16.pt":
        values = torch.from_numpy(values).bfloat16().float().numpy()
        torch.save(torch.from_numpy(values).bfloat16(), path)
    else:
        tensor = torch.from_numpy(values)
        torch.save({"features": tensor} if name == "dict.pt" else tensor, path)
    found = _one(path)
    assert np.array_equal(found.features, values) and found.places is None
    assert found.problems == ("has no coordinates (`--coords` takes them from a file beside)",)
    np.save(tmp_path / "xy.npy", XY0)
    _same(_one(path, tmp_path / "xy.npy"), values, None)


def test_nothing_in_a_pickle_is_run(tmp_path: Path) -> None:
    class Evil:
        def __reduce__(self) -> tuple[object, tuple[str]]:
            return print, ("run",)

    torch.save(Evil(), tmp_path / "evil.pt")
    with pytest.raises(StoreError, match="can't be read as an array"):
        read_any(tmp_path / "evil.pt")


@pytest.mark.parametrize(
    ("values", "problem"),
    [
        (np.where(np.arange(N)[:, None] == 3, np.nan, rows()), "1 of 7 rows have NaN or infinite features"),
        (rows("float64"), "features are float64, not float16 or float32"),
    ],
)
def test_problems_of_rows(tmp_path: Path, values: np.ndarray, problem: str) -> None:
    assert problem in _one(trident(tmp_path / "S1.h5", values)).problems


def test_problems_of_places(tmp_path: Path) -> None:
    path = trident(tmp_path / "S1.h5", rows(), level0_width=1024)
    assert _one(path).problems == ("2 tiles lie outside of the 1024 x 4096 px the file states",)
    with h5py.File(path, "r+") as file:
        file["coords"][1] = file["coords"][0]
    assert "1 coordinates stand twice" in _one(path).problems[0]
    h5, _ = clam_features(tmp_path, rows(), XY0)
    with h5py.File(h5, "r+") as file:
        del file["coords"]
        file["coords"] = XY0 * 0.2527
    assert "aren't whole numbers: they may be um" in _one(h5).problems[0]


def test_what_contradicts_itself_is_a_problem_not_a_choice(tmp_path: Path) -> None:
    """CLAM's and TRIDENT's attributes in one file, with two sizes of a tile."""
    path = trident(tmp_path / "S1.h5", rows(), patch_level=0, downsample=(1.0, 1.0))
    found = _one(path)
    assert found.places is not None and found.places.side is None
    assert "says two sizes of a tile: 512" in found.problems[-1]


def test_unknown_files_are_refused(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("text")
    with h5py.File(tmp_path / "b.h5", "w") as file:
        file["pixels"] = np.zeros(3)
    (tmp_path / "c.npy").write_bytes(b"\x93NUMPY cut")
    for name, message in (
        ("a.txt", "any layout"),
        ("b.h5", "any layout"),
        ("c.npy", "can't be read"),
        ("d", "no such"),
    ):
        with pytest.raises(StoreError, match=message):
            read_any(tmp_path / name)


def test_every_cut_of_a_foreign_file_is_one_clear_error(tmp_path: Path) -> None:
    path = trident(tmp_path / "S1.h5", rows())
    content = path.read_bytes()
    for end in range(0, len(content) - 1, 331):
        path.write_bytes(content[:end])
        with pytest.raises(StoreError):
            read_any(path)


def test_folders_list_features_and_nothing_else(tmp_path: Path) -> None:
    h5, pt = clam_features(tmp_path / "clam", rows())
    clam_tiles(tmp_path / "clam" / "patches" / "S1.h5")
    first = trident(tmp_path / "trident" / "features_uni" / "S1.h5", rows())
    second = slide2vec(tmp_path / "s2v", rows())
    assert feature_files(tmp_path) == [h5, second, first]
    assert feature_files(pt) == [pt]
    h5.unlink()
    assert feature_files(tmp_path / "clam") == [pt]
    with pytest.raises(StoreError, match="holds no files of features"):
        feature_files(tmp_path / "clam" / "h5_files")
