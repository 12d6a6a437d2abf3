"""Regions of interest: shares of tiles against hand-computed values and a slow reference, and the rules on them."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from matplotlib.path import Path as Outline

from pathpipe.errors import StoreError
from pathpipe.settings import TileSettings
from pathpipe.tissue import rois as module
from pathpipe.tissue.geojson import Polygon
from pathpipe.tissue.rois import Rois, polygon_share, read_rois


def _box(x0: float, y0: float, x1: float, y1: float) -> Polygon:
    return [np.array([[x0, y0], [x1, y0], [x1, y1], [x0, y1]], float)]


XY0 = np.array([[0, 0], [128, 0], [256, 0], [0, 128]], np.int64)
SIDE0 = (128.0, 128.0)


@pytest.mark.parametrize(
    ("polygons", "shares"),
    [
        ([_box(0, 0, 192, 64)], [0.5, 0.25, 0, 0]),
        ([_box(32, 32, 96, 96)], [0.25, 0, 0, 0]),
        ([_box(0, 0, 256, 256)], [1, 1, 0, 1]),
        ([_box(-5000, -5000, 5000, 5000)], [1, 1, 1, 1]),
        ([_box(0, 0, 64, 128), _box(32, 0, 96, 128)], [0.75, 0, 0, 0]),
        ([[*_box(0, 0, 128, 128), *_box(32, 32, 96, 96)]], [0.75, 0, 0, 0]),
        ([_box(1000, 1000, 2000, 2000)], [0, 0, 0, 0]),
        ([], [0, 0, 0, 0]),
    ],
    ids=["cut", "inside", "whole", "far beyond", "overlap counts once", "hole", "elsewhere", "none"],
)
def test_shares_are_what_one_computes_by_hand(polygons: list[Polygon], shares: list[float]) -> None:
    assert polygon_share(polygons, XY0, SIDE0).tolist() == shares


@settings(deadline=None, max_examples=40)
@given(st.integers(0, 2**32 - 1), st.integers(3, 12), st.floats(20, 700), st.floats(60, 300))
def test_shares_agree_with_counting_points(seed: int, corners: int, radius: float, side: float) -> None:
    rng = np.random.default_rng(seed)
    angles = np.sort(rng.uniform(0, 2 * np.pi, corners))
    reach = radius * rng.uniform(0.3, 1, corners)
    ring = np.stack([np.cos(angles) * reach, np.sin(angles) * reach], axis=1) + rng.uniform(0, 1500, 2)
    xy0 = rng.integers(0, 1500, (6, 2))
    found = polygon_share([[ring]], xy0, (side, side * 1.1))
    places = (np.arange(150) + 0.5) / 150
    x, y = np.meshgrid(places * side, places * side * 1.1)
    inside = Outline(np.vstack([ring, ring[:1]]))
    slow = [inside.contains_points(np.stack([x.ravel(), y.ravel()], axis=1) + corner).mean() for corner in xy0]
    assert found == pytest.approx(slow, abs=0.03)


def test_large_regions_are_measured_on_larger_cells_in_bounded_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_MAX_CELLS", 1 << 12)
    side = np.arange(0, 20_000, 500)
    xy0 = np.stack(np.meshgrid(side, side), axis=-1).reshape(-1, 2)
    coarse = polygon_share([_box(0, 0, 10_100, 20_000)], xy0, (500.0, 500.0))
    monkeypatch.undo()
    fine = polygon_share([_box(0, 0, 10_100, 20_000)], xy0, (500.0, 500.0))
    assert fine[xy0[:, 0] == 10_000] == pytest.approx(0.2, abs=1e-2)
    assert 0 < np.abs(coarse - fine).max() < 0.3
    assert (coarse[(xy0 < 9000).all(axis=1)] == 1).all() and (coarse[xy0[:, 0] > 11_000] == 0).all()


def test_ten_thousand_tiles_and_a_hundred_regions_take_no_time() -> None:
    side = np.arange(100) * 400
    xy0 = np.stack(np.meshgrid(side, side), axis=-1).reshape(-1, 2)
    polygons = [_box(x, y, x + 1500, y + 900) for x in range(0, 40_000, 4000) for y in range(0, 40_000, 4000)]
    started = time.perf_counter()
    share = polygon_share(polygons, xy0, (400.0, 400.0))
    assert time.perf_counter() - started < 5
    assert share.sum() * 400**2 == pytest.approx(100 * 1500 * 900, rel=0.01)


def test_included_by_half_and_excluded_by_a_touch() -> None:
    rois = Rois(include=[_box(0, 0, 192, 128)])
    assert rois.keep(XY0, SIDE0).tolist() == [True, True, False, False], "0.5 is enough"
    rois = Rois(include=[_box(0, 0, 190, 128)])
    assert rois.keep(XY0, SIDE0).tolist() == [True, False, False, False]
    rois = Rois(exclude=[_box(0, 0, 130, 64)])
    assert rois.keep(XY0, SIDE0).tolist() == [False, False, True, True]
    rois = Rois(exclude=[_box(0, 0, 130, 64)], max_excluded=0.25)
    assert rois.keep(XY0, SIDE0).tolist() == [False, True, True, True]
    both = Rois(include=[_box(0, 0, 256, 128)], exclude=[_box(160, 0, 256, 128)])
    assert both.keep(XY0, SIDE0).tolist() == [True, False, False, False]


def _write(folder: Path, name: str, *boxes: tuple[str | None, Polygon]) -> str:
    folder.mkdir(exist_ok=True)
    features: list[Any] = [
        {
            "type": "Feature",
            "properties": {"classification": {"name": kind}} if kind else {},
            "geometry": {"type": "Polygon", "coordinates": [ring.tolist() for ring in polygon]},
        }
        for kind, polygon in boxes
    ]
    (folder / f"{name}.geojson").write_text(json.dumps(features))
    return str(folder)


def test_files_give_the_regions_of_a_class(tmp_path: Path) -> None:
    folder = _write(
        tmp_path / "roi", "S1", ("Tumor", _box(0, 0, 9, 9)), ("Necrosis", _box(3, 3, 5, 5)), (None, _box(7, 7, 8, 8))
    )
    assert read_rois("S1", TileSettings(), (0, 0)) is None
    everything = read_rois("S1", TileSettings(include=folder), (0, 0))
    assert everything is not None and everything.include is not None and len(everything.include) == 3
    options = TileSettings(include=folder, include_class="tumor", exclude=folder, exclude_class="Necrosis", min_roi=0.7)
    some = read_rois("S1", options, (100, 10))
    assert some is not None and some.include is not None
    assert [ring.tolist() for ring in some.include[0]] == [[[100, 10], [109, 10], [109, 19], [100, 19]]], "moved"
    assert [ring.tolist() for ring in some.exclude[0]] == [[[103, 13], [105, 13], [105, 15], [103, 15]]]
    assert (some.min_roi, some.max_excluded) == (0.7, 0.0)


def test_a_slide_without_a_region_to_include_has_a_reason(tmp_path: Path) -> None:
    folder = _write(tmp_path / "roi", "S1", ("Tumor", _box(0, 0, 9, 9)))
    for rois, reason in (
        (read_rois("S2", TileSettings(include=folder), (0, 0)), "no region to include was given for it"),
        (
            read_rois("S1", TileSettings(include=folder, include_class="Stroma"), (0, 0)),
            "no region of class `Stroma` to include was given for it",
        ),
    ):
        assert rois is not None and rois.empty_reason == reason
        assert not rois.keep(XY0, SIDE0).any()
    excluded = read_rois("S2", TileSettings(exclude=folder), (0, 0))
    assert excluded is not None and excluded.empty_reason is None and excluded.keep(XY0, SIDE0).all()


def test_a_broken_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "S1.geojson").write_text("{")
    with pytest.raises(StoreError, match=r"S1\.geojson: can't be read as GeoJSON"):
        read_rois("S1", TileSettings(exclude=str(tmp_path)), (0, 0))
