"""Conversions: the way there is readable by others, the way back gives the same file, and losses are said first."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import torch

from pathpipe.cohort import Cohort
from pathpipe.errors import SettingsError
from pathpipe.store.convert import WRITERS, Conversion, Converted, SlideOrigin, convert_files
from pathpipe.store.features import Features, read_features, read_header, write_features, write_hdf5
from pathpipe.store.layouts import native
from pathpipe.store.layouts.detect import feature_files, read_any
from pathpipe.store.origins import one_mpp, origins_of_slides
from pathpipe.tiles.grid import Regions
from tests.unit.store.peers import XY0, atlaspatch, clam_features, clam_tiles, rows, stamp, trident
from tests.unit.store.test_store import ENCODER, PROVENANCE, _features, _table


def _native(folder: Path, count: int = 23, dtype: str = "float16", **changes: Any) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    write_features(folder / "S1.h5", _features(count, dtype), _table(count), ENCODER, PROVENANCE)
    if changes:
        write_hdf5(folder / "S1.h5", replace(read_features(folder / "S1.h5"), **changes))
    return folder / "S1.h5"


def _do(source: Path, layout: str, out: Path, **options: Any) -> Converted:
    (done,) = convert_files([source], Conversion(layout, out, **options))
    return done


def _done(source: Path, layout: str, out: Path, **options: Any) -> Converted:
    done = _do(source, layout, out, **options)
    assert done.error is None, done.error
    return done


REGIONS = Regions(np.repeat(np.arange(5, dtype=np.int32), 4), np.arange(10).reshape(5, 2), 2)


@pytest.mark.parametrize("layout", list(WRITERS))
@pytest.mark.parametrize("count", [0, 20])
@pytest.mark.parametrize("regions", [None, REGIONS], ids=["tiles", "regions"])
def test_the_way_back_gives_the_same_bytes(tmp_path: Path, layout: str, count: int, regions: Regions | None) -> None:
    if regions is not None and not count:
        regions = Regions(regions.index[:0], regions.xy0[:0], 2)
    source = _native(tmp_path / "a", count, regions=regions)
    there = _done(source, layout, tmp_path / "b")
    back = _done(there.files[0], "native", tmp_path / "c")
    assert back.files[0].read_bytes() == source.read_bytes()
    assert (back.rows, back.slide_id, there.lost) == (count, "S1", ())


def test_written_twice_gives_the_same_bytes(tmp_path: Path) -> None:
    source = _native(tmp_path / "a")
    for layout in WRITERS:
        one, two = (_done(source, layout, tmp_path / name / layout).files for name in ("b", "c"))
        for first, second in zip(one, two, strict=True):
            files = [first] if first.is_file() else sorted(path for path in first.rglob("*") if path.is_file())
            for file in files:
                twin = second if first.is_file() else second / file.relative_to(first)
                assert file.read_bytes() == twin.read_bytes(), file


def test_clam_reads_what_is_written_for_it(tmp_path: Path) -> None:
    source = _native(tmp_path / "a")
    h5, pt, patches = _done(source, "clam", tmp_path / "b").files
    assert [path.relative_to(tmp_path / "b" / "vit").as_posix() for path in (h5, pt, patches)] == [
        "h5_files/S1.h5",
        "pt_files/S1.pt",
        "patches/S1.h5",
    ]
    bag = torch.load(pt, weights_only=True)
    assert bag.dtype == torch.float32 and np.array_equal(bag.numpy(), _features(23).astype(np.float32))
    with h5py.File(h5) as file:
        assert file["features"].dtype == np.float32 and file["coords"].dtype == np.int32
        assert np.array_equal(file["coords"][:], _table(23).grid.xy0)
        assert (file["features"].chunks, file["features"].maxshape) == ((32, 6), (None, 6))
    with h5py.File(patches) as file:
        about = file["coords"].attrs
        assert about["patch_size"] * about["downsample"][0] == 512  # what CLAM reads is what was read
        assert about["patch_level"] == 0 and file["coords"].dtype == np.int64


def test_trident_reads_what_is_written_for_it(tmp_path: Path) -> None:
    features, patches = _done(_native(tmp_path / "a"), "trident", tmp_path / "b").files
    assert features == tmp_path / "b" / "20x_256px_0px_overlap" / "features_vit" / "S1.h5"
    assert patches == tmp_path / "b" / "20x_256px_0px_overlap" / "patches" / "S1_patches.h5"
    with h5py.File(features) as file:
        assert file["features"].dtype == np.float32 and file["features"].attrs["encoder"] == "vit"
        about = file["coords"].attrs
        assert (about["patch_size"], about["patch_size_level0"], about["target_magnification"]) == (256, 512, 20)
        assert (about["level0_width"], about["level0_height"], about["name"]) == (5120, 4096, "S1")
    with h5py.File(patches) as file:
        assert np.array_equal(file["coords"][:], _table(23).grid.xy0)


@pytest.mark.parametrize(
    ("name", "extractor"), [("uni", "mahmood-uni"), ("prov-gigapath", "gigapath"), ("mine", "mine")]
)
def test_stamp_reads_what_is_written_for_it(tmp_path: Path, name: str, extractor: str) -> None:
    source = _native(tmp_path / "a", encoder={**ENCODER, "name": name})
    (path,) = _done(source, "stamp", tmp_path / "b").files
    assert path == tmp_path / "b" / extractor / "S1.h5"
    with h5py.File(path) as file:
        about = file.attrs
        assert (about["extractor"], about["unit"], about["feat_type"]) == (extractor, "um", "tile")
        assert (about["tile_size_um"], about["tile_size_px"], about["stamp_version"]) == (128.0, 256, "2.1.0")
        assert np.array_equal(file["coords"][:], _table(23).grid.xy0 * 0.25) and file["coords"].dtype == np.float32
        assert np.array_equal(file["feats"][:], _features(23)) and file["feats"].chunks is None


def test_losses_are_said_and_only_taken_when_asked(tmp_path: Path) -> None:
    source = _native(tmp_path / "a", dtype="float32")
    refused = _do(source, "stamp", tmp_path / "b")
    assert refused.error is not None and "float32 features: STAMP stores float16" in str(refused.error)
    assert refused.error.hint == "pass --lossy to leave that out" and not (tmp_path / "b").exists()
    done = _done(source, "stamp", tmp_path / "b", lossy=True)
    assert done.lost == ("float32 features: STAMP stores float16",)
    plan = replace(read_features(source).plan, side0=(512.0, 600.0))
    long = _native(tmp_path / "long", plan=plan)
    for layout in ("clam", "trident", "stamp"):
        error = _do(long, layout, tmp_path / "c").error
        assert error is not None and "squares only" in error.what
    assert _done(long, "anndata", tmp_path / "c").lost == ()


def test_float32_that_float16_holds_is_no_loss(tmp_path: Path) -> None:
    whole = np.round(_features(23, "float32") * 8) / 8
    source = _native(tmp_path / "a", features=whole.astype(np.float32))
    there = _done(source, "stamp", tmp_path / "b")
    assert _done(there.files[0], "native", tmp_path / "c").files[0].read_bytes() == source.read_bytes()


def _foreign(tmp_path: Path) -> Features:
    path = trident(tmp_path / "features_uni" / "S1.h5", rows(), encoder="uni", overlap=64)
    return read_features(_done(path, "native", tmp_path / "n", origin=one_mpp(0.25)).files[0])


def test_trident_to_native(tmp_path: Path) -> None:
    found = _foreign(tmp_path)
    assert np.array_equal(found.features, rows()) and np.array_equal(found.xy0, XY0)
    assert found.plan.side0 == (512, 512) and found.plan.tile_px == 256 and found.plan.overlap_px == 64
    assert found.plan.mpp_wanted == 0.5 and found.plan.mpp0 == (0.25, 0.25) and found.plan.stride0 == (384, 384)
    assert dict(found.encoder) == {"name": "uni", "revision": "", "weights_sha256": "", "transform": "", "dim": 6}
    assert (found.provenance.stage, found.provenance.settings["layout"]) == ("convert", "TRIDENT features")
    assert "savetodir" not in found.provenance.settings["stated"]
    assert found.slide is not None and (found.slide.slide_id, found.slide.size0) == ("S1", (5120, 4096))


@pytest.mark.parametrize("layout", ["clam", "trident", "stamp", "anndata", "zarr"])
def test_foreign_features_go_through_any_layout(tmp_path: Path, layout: str) -> None:
    first = tmp_path / "n" / "uni" / "S1.h5"
    _foreign(tmp_path)
    there = _done(first, layout, tmp_path / "b", lossy=True)
    back = read_features(_done(there.files[0], "native", tmp_path / "c").files[0])
    assert np.array_equal(back.xy0, XY0) and back.plan == read_features(first).plan
    assert np.array_equal(back.features, rows().astype(np.float16) if layout == "stamp" else rows())


@pytest.mark.parametrize("layout", ["clam", "trident"])
def test_coordinates_that_other_features_count_on_are_kept(tmp_path: Path, layout: str) -> None:
    done = _done(_native(tmp_path / "a"), layout, tmp_path / "b")
    (patches,) = [path for path in done.files if path.parent.name == "patches"]
    again = _done(_native(tmp_path / "a", encoder={**ENCODER, "name": "another"}), layout, tmp_path / "b")
    assert layout == "clam" or patches in again.files, "the same tiles serve two encoders"
    for path in done.files:
        if path != patches:
            path.unlink()
    with h5py.File(patches, "r+") as file:
        file["coords"][0] = [7, 7]
    before = patches.read_bytes()
    refused = _do(_native(tmp_path / "a"), layout, tmp_path / "b")
    assert refused.error is not None and refused.error.where == str(patches)
    assert "holds other tiles" in refused.error.what and patches.read_bytes() == before
    assert not any(path.exists() for path in done.files if path != patches), "nothing is written by halves"


def test_features_too_large_for_stamp_are_refused(tmp_path: Path) -> None:
    source = _native(tmp_path / "a", 3, "float32", features=np.array([[1.5], [7e4], [2]], np.float32))
    refused = _do(source, "stamp", tmp_path / "b", lossy=True)
    assert refused.error is not None and refused.error.where == "S1"
    assert refused.error.what.startswith("1 rows have features too large for float16")
    assert not list((tmp_path / "b").rglob("*.h5"))


def test_stamp_um_to_level0_px(tmp_path: Path) -> None:
    path = stamp(
        tmp_path / "S1.h5", XY0 * 0.2527, unit="um", tile_size_um=128.0, tile_size_px=224, extractor="virchow2"
    )
    found = read_features(_done(path, "native", tmp_path / "n", origin=one_mpp(0.2527)).files[0])
    assert np.array_equal(found.xy0, XY0)
    assert found.plan.side0[0] == pytest.approx(128 / 0.2527) and found.plan.mpp_wanted == pytest.approx(128 / 224)


def test_several_encoders_of_one_file(tmp_path: Path) -> None:
    path = atlaspatch(tmp_path / "S1.h5", {"uni_v2": rows(), "conch": rows(dim=4)})
    done = list(convert_files([path], Conversion("native", tmp_path / "n")))  # the file states its um/px
    assert [one.files[0].relative_to(tmp_path / "n").as_posix() for one in done] == ["conch/S1.h5", "uni_v2/S1.h5"]
    assert read_header(done[0].files[0])[0].plan.mpp0 == (0.25, 0.25)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"encoder": "uni", "origin": one_mpp(0.25)}, "doesn't say how large a tile is"),
        ({"encoder": "uni", "coords": "t"}, "doesn't say its um/px of level 0"),
        ({"coords": "t", "origin": one_mpp(0.25)}, "doesn't say which encoder made it"),
    ],
)
def test_what_is_unknown_is_asked_for(tmp_path: Path, options: dict[str, Any], message: str) -> None:
    h5, _ = clam_features(tmp_path / "clam", rows())
    clam_tiles(tmp_path / "t" / "S1.h5")
    if "coords" in options:
        options = {**options, "coords": tmp_path / "t"}
    error = _do(h5, "native", tmp_path / "n", **options).error
    assert error is not None and message in error.what and error.hint and "`--" in error.hint
    whole = {"encoder": "uni", "origin": one_mpp(0.25), "coords": tmp_path / "t"}
    assert _done(h5, "native", tmp_path / "n", **whole).rows == 7


def test_one_bad_file_costs_the_others_nothing(tmp_path: Path) -> None:
    good = _native(tmp_path / "a")
    bad = tmp_path / "bad.h5"
    bad.write_bytes(good.read_bytes()[:500])
    nan = trident(tmp_path / "nan.h5", np.full((7, 6), np.nan, np.float32))
    done = list(convert_files([bad, nan, good], Conversion("clam", tmp_path / "o", origin=one_mpp(0.25))))
    assert [one.error is None for one in done] == [False, False, True]
    assert "NaN or infinite" in str(done[1].error)


def test_one_bad_encoder_costs_the_others_of_its_file_nothing(tmp_path: Path) -> None:
    bad = np.full((7, 4), np.nan, np.float32)
    path = atlaspatch(tmp_path / "S1.h5", {"conch": bad, "uni_v2": rows()})
    first, second = convert_files([path], Conversion("native", tmp_path / "n"))
    assert "NaN" in str(first.error) and second.error is None and second.rows == 7


def test_two_files_of_one_slide_and_its_own_place_are_refused(tmp_path: Path) -> None:
    one, two = _native(tmp_path / "vit"), _native(tmp_path / "b")
    done = list(convert_files([one, two], Conversion("zarr", tmp_path / "o")))
    assert done[0].error is None and "are both of slide S1 by vit" in str(done[1].error)
    assert "own conversion" in str(_do(one, "native", tmp_path).error)


@pytest.mark.parametrize("layout", list(WRITERS))
def test_other_features_are_never_replaced(tmp_path: Path, layout: str) -> None:
    source = _native(tmp_path / "a")
    there = _done(source, layout, tmp_path / "o").files[0]
    before = there.read_bytes() if there.is_file() else None
    assert _done(source, layout, tmp_path / "o").files[0] == there  # again is fine
    other = replace(read_features(source).provenance, version=2)
    error = _do(_native(tmp_path / "b", 5, provenance=other), layout, tmp_path / "o").error
    assert error is not None and "is there already" in error.what
    assert there.exists() and (before is None or there.read_bytes() == before)
    if there.is_file() and layout != "native":  # nor what another tool wrote
        clam_tiles(there)
        assert "is there already" in str(_do(source, layout, tmp_path / "o").error)


def test_unknown_layout(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="no layout `clma`"):
        list(convert_files([_native(tmp_path / "a")], Conversion("clma", tmp_path)))


def test_changed_rows_are_not_taken_for_the_original(tmp_path: Path) -> None:
    h5 = _done(_native(tmp_path / "a"), "clam", tmp_path / "b").files[0]
    with h5py.File(h5, "r+") as file:
        file["features"][3, 2] = 1 / 3
    assert "no longer the float16 values" in str(_do(h5, "native", tmp_path / "c").error)


def test_the_slide_says_what_the_file_does_not(tmp_path: Path, shared_data: Path) -> None:
    slides = tmp_path / "cohort.csv"
    slide = shared_data / "slides" / "aperio_CMU-1-Small-Region.svs"
    slides.write_text(f"slide_id,path\nS1,{slide}\n")
    path = stamp(tmp_path / "S1.h5", XY0 * 0.499, unit="um", tile_size_um=256.0, extractor="virchow2")
    done = _done(path, "native", tmp_path / "n", origin=origins_of_slides(slides))
    found = read_features(done.files[0])
    assert np.array_equal(found.xy0, XY0) and found.plan.mpp0 == (0.499, 0.499)
    assert found.slide is not None and found.slide.size0 == (2220, 2967) and len(found.slide_fingerprint) == 32
    assert origins_of_slides(slides)("other") is None and len(Cohort.read(slides)) == 1


def test_anndata_is_listed_and_read(tmp_path: Path) -> None:
    (path,) = _done(_native(tmp_path / "a"), "anndata", tmp_path / "b").files
    (record,) = read_any(path)
    assert record.layout == "AnnData features" and feature_files(tmp_path / "b") == [path]
    with h5py.File(path) as file:
        assert np.array_equal(file["obsm/spatial"][:], _table(23).grid.xy0)
        assert re.fullmatch(r"S1-\d+", file["obs/_index"][22].decode())


def test_unknown_sizes_are_left_out_not_invented(tmp_path: Path) -> None:
    path = trident(tmp_path / "S1.h5", rows())
    with h5py.File(path, "r+") as file:
        for name in ("level0_width", "level0_height"):
            del file["coords"].attrs[name]
    found = _done(path, "native", tmp_path / "n", origin=lambda _: SlideOrigin((0.25, 0.25))).files[0]
    with h5py.File(found) as file:
        assert "level0_width" not in file["coords"].attrs and "level_dim" not in file["coords"].attrs
    assert native.read(found)[0].places is not None and read_features(found).slide is not None
