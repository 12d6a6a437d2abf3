"""Polygons drawn by hand: overlaps count once, islands and holes stay, and what is no ring is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pathpipe.errors import StoreError
from pathpipe.provenance import Provenance
from pathpipe.slides.slide import Mpp
from pathpipe.tissue.mask import BoolArray, TissueMask
from pathpipe.tissue.polygons import read_tissue, write_tissue

SCALE = 16


def _square(low: int, high: int) -> list[list[float]]:
    a, b = low * SCALE, high * SCALE
    return [[a, a], [b, a], [b, b], [a, b], [a, a]]


def _polygon(*rings: Any) -> dict[str, Any]:
    return {"type": "Polygon", "coordinates": list(rings)}


def _read(tmp_path: Path, *geometries: Any) -> BoolArray:
    """The mask of a file of pathpipe, 40 x 40 px, whose polygons a person has replaced."""
    path = tmp_path / "S1.geojson"
    blank = TissueMask(np.zeros((40, 40), bool), (SCALE, SCALE), Mpp(0.5, 0.5, "t"), 20.0)
    write_tissue(path, blank, Provenance("tissue", 1, {}, {}))
    content = json.loads(path.read_text())
    content["features"] = [{"type": "Feature", "properties": {}, "geometry": one} for one in geometries]
    path.write_text(json.dumps(content))
    return read_tissue(path).mask


def _box(low: int, high: int) -> BoolArray:
    mask = np.zeros((40, 40), bool)
    mask[low:high, low:high] = True
    return mask


def test_island_in_a_hole_whatever_the_order(tmp_path: Path) -> None:
    ring, island = _polygon(_square(5, 35), _square(10, 30)), _polygon(_square(16, 24))
    for order in ((ring, island), (island, ring)):
        mask = _read(tmp_path, *order)
        assert mask[20, 20] and mask[7, 7] and not mask[13, 13] and not mask[2, 2]


@pytest.mark.parametrize("reverse", [False, True])
def test_a_larger_polygon_over_the_hole_of_another_fills_it(tmp_path: Path, reverse: bool) -> None:
    ring, over = _polygon(_square(5, 30), _square(10, 25)), _polygon(_square(8, 39))
    mask = _read(tmp_path, *((over, ring) if reverse else (ring, over)))
    assert mask[_box(9, 38)].all(), "the union of two polygons holds all of either"
    assert mask[6, 6] and not mask[2, 2]


def test_multipolygon_and_third_coordinate(tmp_path: Path) -> None:
    high = [[x, y, 7.0] for x, y in _square(4, 12)]
    mask = _read(tmp_path, {"type": "MultiPolygon", "coordinates": [[high], [_square(20, 30)]]})
    middle = _box(5, 11) | _box(21, 29)
    assert mask[middle].all() and not mask[~(_box(3, 13) | _box(19, 31))].any()


def test_other_geometry_is_no_tissue(tmp_path: Path) -> None:
    assert not _read(tmp_path, {"type": "Point", "coordinates": [100, 100]}).any()
    assert not _read(tmp_path).any()


NAN = float("nan")


@pytest.mark.parametrize(
    "ring",
    [
        [],
        [[100, 100]],
        [[100, 100], [200, 200], [100, 100]],
        [[NAN, 0], [100, 0], [100, 100], [NAN, 0]],
        [["a", "b"], ["c", "d"], ["e", "f"], ["a", "b"]],
        [[1, 2], [1, 2, 3], [4], [1, 2]],
    ],
    ids=["empty", "one point", "two points", "nan", "text", "ragged"],
)
def test_what_is_no_ring_is_refused(tmp_path: Path, ring: list[Any]) -> None:
    with pytest.raises(StoreError, match="damaged"):
        _read(tmp_path, _polygon(ring))


@pytest.mark.parametrize("geometry", [None, {}, {"type": "Polygon"}, {"type": "Polygon", "coordinates": 5}])
def test_geometry_without_coordinates_is_refused(tmp_path: Path, geometry: Any) -> None:
    with pytest.raises(StoreError, match="damaged"):
        _read(tmp_path, geometry)


def test_a_cut_file_is_refused_at_every_length(tmp_path: Path) -> None:
    _read(tmp_path, _polygon(_square(5, 35)))
    path = tmp_path / "S1.geojson"
    content = path.read_bytes()
    for end in range(len(content)):
        path.write_bytes(content[:end])
        with pytest.raises(StoreError):
            read_tissue(path)
    with pytest.raises(StoreError):
        read_tissue(tmp_path / "none.geojson")
