"""Outlines given from outside, and where viewers of bounded slides put the origin."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from pathpipe.errors import SettingsError, StoreError
from pathpipe.provenance import Provenance
from pathpipe.settings import TissueSettings
from pathpipe.slides.slide import Box, Closing, Mpp, Pixels, make_levels
from pathpipe.tissue.given import (
    find_tissue,
    given_digest,
    given_mask,
    origin0,
    read_given,
    refuse_foreign,
    refuse_useless_folder,
)
from pathpipe.tissue.polygons import outlines_fingerprint, read_tissue, write_tissue

MPP = Mpp(0.5, 0.5, "test")
PROVENANCE = Provenance("tissue", 1, {}, {})
SETTINGS = TissueSettings()  # a mask px is 8 um: 16 level-0 px


class FakeSlide(Closing):
    """White, with a pink square at (640, 320) to (960, 640)."""

    path, reader, vendor = Path("fake"), "fake", "fake"
    size0 = (1600, 1280)
    mpp, objective, properties = MPP, None, SimpleNamespace()

    def __init__(self, bounds: Box | None = None) -> None:
        self.bounds = bounds
        self.levels = make_levels([self.size0])

    def read(self, xy0: tuple[int, int], level: int, size_px: tuple[int, int]) -> Pixels:
        pixels = np.full((self.size0[1], self.size0[0], 3), 244, np.uint8)
        pixels[320:640, 640:960] = (200, 120, 170)
        x0, y0 = xy0
        part = pixels[y0 : y0 + size_px[1], x0 : x0 + size_px[0]]
        rest = ((0, size_px[1] - part.shape[0]), (0, size_px[0] - part.shape[1]), (0, 0))
        return np.pad(part, rest, constant_values=255)


def _box(x0: int, y0: int, x1: int, y1: int, name: str | None = None) -> dict[str, Any]:
    ring = [[x0, y0], [x1, y0], [x1, y1], [x0, y1], [x0, y0]]
    properties = {"classification": {"name": name}} if name else {}
    return {"type": "Feature", "properties": properties, "geometry": {"type": "Polygon", "coordinates": [ring]}}


def _file(folder: Path, *features: Any, name: str = "S1") -> Path:
    path = folder / f"{name}.geojson"
    path.write_text(json.dumps({"type": "FeatureCollection", "features": list(features)}))
    return path


def _cover(low: tuple[int, int], high: tuple[int, int]) -> np.ndarray:
    mask = np.zeros((80, 100), bool)
    mask[low[1] : high[1], low[0] : high[0]] = True
    return mask


def test_the_tissue_is_what_the_file_says(tmp_path: Path) -> None:
    path = _file(tmp_path, _box(640, 320, 800, 640, "Tumor"), _box(800, 320, 832, 336), _box(160, 160, 320, 320, "PEN"))
    found = given_mask(path, FakeSlide(), MPP, SETTINGS)  # type: ignore[arg-type]
    assert np.array_equal(found.mask, _cover((40, 20), (50, 40)) | _cover((50, 20), (52, 21)))
    assert np.array_equal(found.artefacts["pen"], _cover((10, 10), (20, 20))) and set(found.artefacts) == {"pen"}
    assert (found.method, found.threshold, found.scale0) == ("given", None, (16.0, 16.0))
    assert found.colour == {"mean": [200.0, 120.0, 170.0], "std": [0.0, 0.0, 0.0]}
    assert found.area_um2 == (10 * 20 + 2) * 64


def test_only_a_slide_with_a_file_is_given(tmp_path: Path) -> None:
    _file(tmp_path, _box(0, 0, 160, 160))
    settings = TissueSettings(mask_dir=str(tmp_path), min_area_um2=0)
    given = find_tissue("S1", FakeSlide(), MPP, settings)  # type: ignore[arg-type]
    found = find_tissue("S2", FakeSlide(), MPP, settings)  # type: ignore[arg-type]
    assert np.array_equal(given.mask, _cover((0, 0), (10, 10))) and given.method == "given"
    assert found.method == "otsu" and found.mask[30, 50] and not found.mask[5, 5]


def test_an_empty_file_says_there_is_no_tissue(tmp_path: Path) -> None:
    for features in ([], [_box(0, 0, 160, 160, "Pen")]):
        found = given_mask(_file(tmp_path, *features), FakeSlide(), MPP, SETTINGS)  # type: ignore[arg-type]
        assert found.empty_reason == "the outlines given for it hold no tissue"


def test_outlines_of_another_slide_are_refused(tmp_path: Path) -> None:
    for box in (_box(1700, 0, 1800, 100), _box(-300, 0, -100, 100)):
        with pytest.raises(StoreError, match="lie off the slide"):
            given_mask(_file(tmp_path, box), FakeSlide(), MPP, SETTINGS)  # type: ignore[arg-type]
    part = given_mask(_file(tmp_path, _box(1440, 0, 9000, 160)), FakeSlide(), MPP, SETTINGS)  # type: ignore[arg-type]
    assert np.array_equal(part.mask, _cover((90, 0), (100, 10)))


BOUNDS = Box(320, 160, 800, 640)


@pytest.fixture(params=["slide", "bounds"])
def settings(request: pytest.FixtureRequest) -> Iterator[TissueSettings]:
    yield TissueSettings(geojson_origin=request.param)


def test_given_outlines_are_moved_from_the_origin_of_the_viewer(tmp_path: Path, settings: TissueSettings) -> None:
    path = _file(tmp_path, _box(320, 160, 640, 480))
    found = given_mask(path, FakeSlide(BOUNDS), MPP, settings)  # type: ignore[arg-type]
    low = (40, 20) if settings.geojson_origin == "bounds" else (20, 10)
    assert np.array_equal(found.mask, _cover(low, (low[0] + 20, low[1] + 20)))
    unbounded = given_mask(path, FakeSlide(), MPP, settings)  # type: ignore[arg-type]
    assert np.array_equal(unbounded.mask, _cover((20, 10), (40, 30))), "a slide without bounds isn't affected"


def test_written_outlines_begin_at_the_origin_of_the_viewer(tmp_path: Path, settings: TissueSettings) -> None:
    slide: Any = FakeSlide(BOUNDS)
    moved = settings.geojson_origin == "bounds"
    assert origin0(slide, settings) == ((320.0, 160.0) if moved else (0.0, 0.0))
    assert origin0(FakeSlide(), settings) == (0.0, 0.0)  # type: ignore[arg-type]
    given = _file(tmp_path, _box(320, 160, 640, 480) if moved else _box(640, 320, 960, 640))
    mask = given_mask(given, slide, MPP, settings)
    path = tmp_path / "written.geojson"
    write_tissue(path, mask, PROVENANCE, origin0(slide, settings))
    content = json.loads(path.read_text())
    assert content["pathpipe"]["origin0"] == ([320, 160] if moved else [0, 0])
    corners = np.asarray(content["features"][0]["geometry"]["coordinates"][0])
    first = np.array([320, 160] if moved else [640, 320]) + 4  # a quarter of a mask px inside
    assert corners.min(axis=0).tolist() == first.tolist()
    assert np.array_equal(read_tissue(path).mask, mask.mask), "it knows its own origin"
    (back,) = read_given(path, (7777.0, 7777.0))
    assert back.polygons[0][0].min(axis=0).tolist() == [644, 324], "also when it is given back with another setting"


@pytest.mark.parametrize("text", ["", "{", "{}", "[1]", '{"features": [{"geometry": null}]}', "[" * 5000])
def test_a_file_that_is_no_geojson_is_named(tmp_path: Path, text: str) -> None:
    (tmp_path / "S1.geojson").write_text(text)
    with pytest.raises(StoreError, match=r"S1\.geojson: can't be read as GeoJSON"):
        read_given(tmp_path / "S1.geojson", (0, 0))


def test_a_byte_order_mark_is_no_obstacle(tmp_path: Path) -> None:
    path = _file(tmp_path, _box(0, 0, 9, 9))
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes())
    assert len(read_given(path, (0, 0))) == 1


def test_digest_follows_the_content_alone(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        _file(tmp_path / name, _box(0, 0, 9, 9))
    first, second = (given_digest(str(tmp_path / name), "S1", None) for name in ("a", "b"))
    assert first == second and first is not None
    _file(tmp_path / "b", _box(0, 0, 9, 10))
    assert given_digest(str(tmp_path / "b"), "S1", None) != first
    assert given_digest(str(tmp_path / "a"), "S2", "recorded") is None
    assert given_digest(None, "S1", "recorded") is None
    assert given_digest(str(tmp_path / "gone"), "S1", "recorded") == "recorded", "archived away since"


def test_a_folder_that_cannot_be_meant_stops_the_command(tmp_path: Path) -> None:
    _file(tmp_path, _box(0, 0, 9, 9), name="S7")
    refuse_useless_folder(None, "--mask-dir", ["S1"], made=False)
    refuse_useless_folder(str(tmp_path), "--mask-dir", ["S1", "S7"], made=False)
    refuse_useless_folder(str(tmp_path / "gone"), "--mask-dir", ["S1"], made=True)
    with pytest.raises(SettingsError, match="no such folder"):
        refuse_useless_folder(str(tmp_path / "gone"), "--mask-dir", ["S1"], made=False)
    with pytest.raises(SettingsError, match="no file for any slide") as error:
        refuse_useless_folder(str(tmp_path), "--include", ["S1", "S2"], made=True)
    assert "S1.geojson" in (error.value.hint or "")


def test_a_file_of_another_program_is_not_made_over(tmp_path: Path) -> None:
    path = _file(tmp_path, _box(0, 0, 9, 9))
    with pytest.raises(StoreError, match="another program"):
        refuse_foreign(path)
    for text in ("", "{", '{"pathpipe": 5, "features": []}', '{"type": "FeatureCollection", "features": []}'):
        path.write_text(text)
        refuse_foreign(path)
    refuse_foreign(tmp_path / "none.geojson")


def test_an_edit_is_noticed_and_formatting_is_none(tmp_path: Path) -> None:
    path = tmp_path / "S1.geojson"
    write_tissue(path, given_mask(_file(tmp_path, _box(0, 0, 320, 320)), FakeSlide(), MPP, SETTINGS), PROVENANCE)  # type: ignore[arg-type]
    assert outlines_fingerprint(path) is None
    content = json.loads(path.read_text())
    path.write_text(json.dumps(content, indent=1))
    assert outlines_fingerprint(path) is None
    content["features"][0]["geometry"]["coordinates"][0][0][0] += 1
    path.write_text(json.dumps(content))
    edited = outlines_fingerprint(path)
    assert edited is not None and len(edited) == 32
    path.write_text("{}")
    with pytest.raises(StoreError, match="damaged"):
        outlines_fingerprint(path)
