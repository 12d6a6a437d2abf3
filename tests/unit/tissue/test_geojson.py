"""Outlines in every shape a file may have: what QuPath, TRIDENT and people write."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from pathpipe.tissue.geojson import feature, read_features

SQUARE = [[0, 0], [10, 0], [10, 10], [0, 10], [0, 0]]
HOLE = [[2, 2], [4, 2], [4, 4], [2, 2]]
FAR = [[20, 20], [30, 20], [30, 30], [20, 20]]


def _feature(geometry: Any, **properties: Any) -> dict[str, Any]:
    return {"type": "Feature", "geometry": geometry, "properties": properties}


def _polygon(*rings: Any) -> dict[str, Any]:
    return {"type": "Polygon", "coordinates": list(rings)}


def _plain(content: Any) -> list[list[list[list[float]]]]:
    return [[ring.tolist() for ring in polygon] for one in read_features(content) for polygon in one.polygons]


ONE = [[SQUARE[:-1], HOLE[:-1]]]


@pytest.mark.parametrize(
    "content",
    [
        {"type": "FeatureCollection", "features": [_feature(_polygon(SQUARE, HOLE))]},
        {
            "type": "FeatureCollection",
            "crs": {"type": "name", "properties": {"name": "urn:ogc:def:crs:EPSG::3857"}},
            "features": [_feature(_polygon(SQUARE, HOLE), tissue_id=0)],
        },
        [_feature(_polygon(SQUARE, HOLE))],
        _feature(_polygon(SQUARE, HOLE)),
        _polygon(SQUARE, HOLE),
        {"type": "MultiPolygon", "coordinates": [[SQUARE, HOLE]]},
        {
            "type": "GeometryCollection",
            "geometries": [_polygon(SQUARE, HOLE), {"type": "Point", "coordinates": [1, 1]}],
        },
        [_feature(_polygon(SQUARE[:-1], HOLE[:-1]))],
        [_feature(_polygon([[*corner, 7.5] for corner in SQUARE], HOLE))],
        [_feature(_polygon(SQUARE, HOLE)), _feature({"type": "LineString", "coordinates": SQUARE})],
        [_feature(_polygon(SQUARE, HOLE)), _feature(_polygon()), _feature({"type": "MultiPolygon", "coordinates": []})],
    ],
    ids=[
        "collection",
        "TRIDENT, with a CRS",
        "bare list",
        "one feature",
        "bare geometry",
        "multipolygon",
        "geometry collection",
        "unclosed rings",
        "third coordinate",
        "a line is no area",
        "empty polygons",
    ],
)
def test_one_polygon_in_every_wrapping(content: Any) -> None:
    assert _plain(content) == ONE


def test_a_collection_inside_a_collection_keeps_every_part() -> None:
    inner = {"type": "GeometryCollection", "geometries": [{"type": "MultiPolygon", "coordinates": [[SQUARE], [FAR]]}]}
    found = read_features([_feature({"type": "GeometryCollection", "geometries": [inner, _polygon(HOLE)]})])
    assert [len(one.polygons) for one in found] == [3]


@pytest.mark.parametrize(
    ("properties", "name"),
    [
        ({"classification": {"name": "Tumor", "color": [200, 0, 0]}, "objectType": "annotation"}, "Tumor"),
        ({"classification": {"name": "Stroma", "colorRGB": -6895466}, "isLocked": True, "measurements": []}, "Stroma"),
        ({"classification": {"names": ["Tumor", "Positive"]}}, "Tumor: Positive"),
        ({"classification": "Necrosis"}, "Necrosis"),
        ({"classification": None}, None),
        ({"classification": {}}, None),
        ({"name": "left piece"}, None),
        ({}, None),
    ],
)
def test_class_names(properties: dict[str, Any], name: str | None) -> None:
    assert [one.name for one in read_features([_feature(_polygon(SQUARE), **properties)])] == [name]


def test_a_feature_without_properties_has_no_name() -> None:
    bare = {"type": "Feature", "geometry": _polygon(SQUARE)}
    assert [one.name for one in read_features([bare, {**bare, "properties": None}])] == [None, None]


@pytest.mark.parametrize(
    "content",
    [None, 5, "features", {}, {"features": 5}, {"features": [1]}, [_feature(None)], [_feature({"type": "Polygon"})]]
    + [_polygon(ring) for ring in ([], [[0, 0]], [[0, 0], [1, 1], [0, 0]], [[0], [1], [2]], [0, 1, 2], [[0, "a"]] * 4)]
    + [_polygon([[0, 0], [1, float("nan")], [1, 1]]), _polygon([[0, 0], [float("inf"), 0], [1, 1]])],
)
def test_what_is_no_outline_is_refused(content: Any) -> None:
    with pytest.raises((ValueError, TypeError, KeyError, IndexError)):
        read_features(content)


def test_written_coordinates_carry_no_needless_digits() -> None:
    ring = np.array([[4.0, 8.25], [20.0, 8.25], [20.0, 1 / 3]])
    written = feature("Pen", (1, 2, 3), [ring], decimals=2)
    assert written["geometry"]["coordinates"] == [[[4, 8.25], [20, 8.25], [20, 0.33], [4, 8.25]]]
    kinds = {type(value) for value in written["geometry"]["coordinates"][0][0]}
    assert kinds == {int, float}
    assert written["properties"] == {
        "objectType": "annotation",
        "classification": {"name": "Pen", "color": [1, 2, 3]},
    }
    whole = feature("Pen", (1, 2, 3), [ring[:, :1] * [1, 1]], decimals=2)["geometry"]["coordinates"][0]
    assert {type(value) for corner in whole for value in corner} == {int}
