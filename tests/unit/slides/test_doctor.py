"""The doctor: what it says of sound slides is true, and what is wrong is found with its place."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from pathpipe.cohort import SlideRow
from pathpipe.settings import RunSettings
from pathpipe.slides.doctor import Examination, _places, examine, with_duplicates
from pathpipe.slides.identity import slide_fingerprint
from pathpipe.slides.open import open_slide
from pathpipe.slides.slide import Box
from pathpipe.slides.writer import SvsFormat, write_svs
from pathpipe.stages.plan import find_conflicts, plan_slide
from pathpipe.testing.slides import position_slide, position_zarr


def _row(path: Path, mpp: float | None = None) -> SlideRow:
    return SlideRow(path.stem, path, path.stem, mpp=mpp)


def _noise(path: Path, levels: int = 1) -> Path:
    noise = np.random.default_rng(1).integers(0, 200, (600, 800, 3)).astype(np.uint8)
    images = [np.ascontiguousarray(noise[:: 2**k, :: 2**k]) for k in range(levels)]
    write_svs(path, images, 0.5, 20, SvsFormat(quality=80, tile_px=128))
    return path


def test_a_sound_slide(tmp_path: Path) -> None:
    path = position_slide(tmp_path / "a.svs", [(1200, 900), (300, 225)], mpp=0.25, objective=40)
    found = examine(_row(path), Examination(tiles=3))
    assert (found.state, found.damage, found.mpp_problem) == ("sound", (), None)
    assert (found.vendor, found.size_px, found.objective) == ("aperio", (1200, 900), 40)
    assert found.mpp is not None and (found.mpp.x, found.mpp.source) == (0.25, "aperio property")
    assert [level.downsample for level in found.levels] == [(1, 1), (4, 4)]
    assert found.tiles_read == 2 * (1 + 3)
    assert "thumbnail" in found.associated and found.may_identify == ()
    assert found.fingerprint == slide_fingerprint(path)


def test_label_and_macro_are_called_private(shared_data: Path) -> None:
    found = examine(_row(shared_data / "slides" / "aperio_CMU-1-Small-Region.svs"), Examination(tiles=0))
    assert set(found.may_identify) == {"label", "macro"} and "thumbnail" in found.associated


def test_resolution_is_judged_as_the_pipeline_does(tmp_path: Path) -> None:
    silent = position_slide(tmp_path / "a.svs", [(64, 64)], mpp=None, objective=40)
    found = examine(_row(silent), Examination())
    assert found.state == "sound" and found.mpp is None and "has no resolution" in str(found.mpp_problem)
    stated = examine(_row(silent, mpp=0.3), Examination())
    assert stated.mpp is not None and (stated.mpp.x, stated.mpp.source, stated.mpp_problem) == (0.3, "cohort", None)
    by_power = examine(_row(silent), Examination(mpp_policy="objective"))
    assert by_power.mpp is not None and by_power.mpp.source == "objective 40x"


def test_places_lie_inside_the_scanned_part_and_follow_the_seed(tmp_path: Path) -> None:
    path = position_slide(tmp_path / "a.svs", [(4000, 3000), (1000, 750), (250, 188)])
    with open_slide(path) as slide:
        slide.bounds = Box(1000, 500, 2000, 1500)
        for level in slide.levels:
            corners = _places(slide, level, Examination(tiles=40))
            assert corners[0][0] == (0, 0) and len(corners) == (2 if level.index == 2 else 41), "each place once"
            assert corners == _places(slide, level, Examination(tiles=40))
            other = _places(slide, level, Examination(tiles=40, seed=1))
            assert (corners == other) == (level.index == 2)
            for (x0, y0), (w, h) in corners[1:]:
                assert 1000 <= x0 <= 3000 and 500 <= y0 <= 2000
                if w * level.downsample[0] < 2000:
                    assert x0 + w * level.downsample[0] <= 3001 and y0 + h * level.downsample[1] <= 2001


@pytest.mark.parametrize("keep", [0.3, 0.7, 0.97])
def test_a_file_that_ends_early_is_damaged_wherever_the_tiles_fell(tmp_path: Path, keep: float) -> None:
    path = tmp_path / "a.tif"
    import tifffile

    noise = np.random.default_rng(1).integers(0, 200, (640, 640, 3)).astype(np.uint8)
    tifffile.imwrite(path, noise, tile=(64, 64), photometric="rgb", compression="zlib", metadata=None)
    whole = path.read_bytes()
    path.write_bytes(whole[: int(len(whole) * keep)])
    found = examine(_row(path), Examination(tiles=0))
    assert found.state in ("damaged", "unreadable")
    assert "the file ends early" in found.damage[0].reason and "the first at (" in found.damage[0].reason


def test_damage_inside_is_found_with_level_and_place(tmp_path: Path) -> None:
    path = position_zarr(tmp_path / "a.zarr", [(512, 512), (128, 128)])
    for chunk in ("1/0/0/0", "0/0/7/7"):
        (path / chunk).write_bytes(b"garbage")
    found = examine(_row(path), Examination(tiles=0))
    assert found.state == "damaged" and found.tiles_read == 1
    (one,) = found.damage
    assert (one.level, one.xy0) == (1, (0, 0)) and "level 1 can't be read at (0, 0)" in one.reason
    many = examine(_row(path), Examination(tiles=30))
    hit = [one for one in many.damage if one.level == 0]
    assert hit and all(one.xy0 is not None and one.xy0[0] + 256 > 448 and one.xy0[1] + 256 > 448 for one in hit)


def test_what_does_not_open_is_reported_not_raised(tmp_path: Path) -> None:
    (tmp_path / "zero.svs").touch()
    found = examine(_row(tmp_path / "zero.svs"), Examination())
    assert (found.state, found.damage[0].reason) == ("unreadable", "is empty (0 bytes)")
    assert found.damage[0].hint == "copy the file again from its source"
    gone = examine(_row(tmp_path / "gone.svs"), Examination())
    assert gone.damage[0].reason == "there is no such file"
    missing = examine(_row(_noise(tmp_path / "a.svs")), Examination(reader="wsidicom"))
    assert missing.state == "unreadable"


def test_copies_are_named_after_the_first(tmp_path: Path) -> None:
    first = _noise(tmp_path / "a.svs")
    shutil.copy(first, tmp_path / "copy.svs")
    other = position_slide(tmp_path / "other.svs", [(64, 64)])
    bad = [tmp_path / "zero.svs", tmp_path / "nil.svs"]
    for path in bad:
        path.touch()
    rows = [_row(path) for path in (first, other, tmp_path / "copy.svs", *bad)]
    found = with_duplicates([examine(row, Examination(tiles=1)) for row in rows])
    assert [one.duplicate_of for one in found] == [None, None, "a", None, None], "two that don't open are no copies"


def test_a_file_that_stops_being_read_is_damaged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(path: Path) -> str:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr("pathpipe.slides.doctor.slide_fingerprint", fail)
    found = examine(_row(_noise(tmp_path / "a.svs")), Examination(tiles=0))
    assert found.state == "damaged" and found.damage[0].reason.endswith("can't be read: Input/output error")


def test_a_reader_that_does_not_know_of_other_pictures(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = _noise(tmp_path / "a.svs")

    def older(path: Path, reader: str) -> object:
        slide = open_slide(path, "openslide")
        del slide.associated
        return slide

    monkeypatch.setattr("pathpipe.slides.doctor.open_slide", older)
    assert examine(_row(path), Examination(tiles=0)).associated == ()


def test_json_is_plain_and_whole(tmp_path: Path) -> None:
    import json

    found = examine(_row(_noise(tmp_path / "a.svs", 2)), Examination(tiles=1))
    said = json.loads(json.dumps(replace(found, duplicate_of="b").as_json()))
    assert said["size_px"] == [800, 600] and said["mpp"] == {"x": 0.5, "y": 0.5, "source": "aperio property"}
    assert said["levels"][1] == {"level": 1, "size_px": [400, 300], "downsample": [2.0, 2.0]}
    assert (said["duplicate_of"], said["damage"], said["bounds_px"]) == ("b", [], None)
    broken = examine(_row(tmp_path / "gone.svs"), Examination()).as_json()
    assert broken["damage"][0]["reason"] == "there is no such file" and broken["levels"] == []
    assert set(broken) == set(said)


def test_files_of_one_dicom_series_are_one_slide(shared_data: Path) -> None:
    folder = shared_data / "slides"
    names = (
        "openslide_python_fixtures/boxes_0.dcm",
        "openslide_python_fixtures/boxes_1.dcm",
        "dicom_camelyon_jpeg.dcm",
    )
    rows = [SlideRow(Path(name).stem, folder / name, name, labels={}) for name in names]
    found = with_duplicates([examine(row, Examination(tiles=1)) for row in rows])
    assert [one.duplicate_of for one in found] == [None, "boxes_0", None]
    assert len({one.fingerprint for one in found}) == 2, "whichever file of the series is named"
    plans = [plan_slide(row, RunSettings()) for row in rows]
    (conflict,) = [one for one in find_conflicts(plans) if one.kind == "duplicate"]
    assert (conflict.slide_id, conflict.reason) == ("boxes_1", "is a file of the same DICOM series as boxes_0")
