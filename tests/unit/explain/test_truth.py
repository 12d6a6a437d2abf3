"""Truth: shares of tiles against a point-by-point count, and how well a score finds them."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from matplotlib.path import Path as Outline
from sklearn.metrics import roc_auc_score

from pathpipe.errors import StoreError
from pathpipe.explain.truth import Truth, instance_auroc, marked, read_truth, share_inside

Ring = np.ndarray


def _box(x: float, y: float, width: float, height: float) -> Ring:
    return np.array([[x, y], [x + width, y], [x + width, y + height], [x, y + height]], np.float64)


def _by_points(xy0: np.ndarray, side0: tuple[float, float], polygons: list[list[Ring]], points: int = 64) -> np.ndarray:
    offsets = (np.arange(points) + 0.5) / points
    shares = []
    for corner in xy0:
        x, y = np.meshgrid(corner[0] + offsets * side0[0], corner[1] + offsets * side0[1])
        dots = np.stack([x.ravel(), y.ravel()], axis=1)
        inside = np.zeros(len(dots), bool)
        for outer, *holes in polygons:
            here = Outline(outer).contains_points(dots)
            for hole in holes:
                here &= ~Outline(hole).contains_points(dots)
            inside |= here
        shares.append(inside.mean())
    return np.array(shares)


def _blob(centre: tuple[float, float], radius: float, seed: int) -> Ring:
    angles = np.sort(np.random.default_rng(seed).uniform(0, 2 * np.pi, 12))
    radii = radius * np.random.default_rng(seed + 1).uniform(0.6, 1.0, 12)
    return np.stack([centre[0] + radii * np.cos(angles), centre[1] + radii * np.sin(angles)], axis=1)


GRID = np.stack(np.divmod(np.arange(30), 5)[::-1], axis=1) * 200 + [40, 90]


@given(
    blobs=st.lists(
        st.tuples(st.floats(-100, 1200), st.floats(-100, 1400), st.floats(30, 500), st.integers(0, 99)),
        min_size=1,
        max_size=4,
    )
)
@settings(max_examples=25, deadline=None)
def test_shares_equal_a_count_of_points(blobs: list[tuple[float, float, float, int]]) -> None:
    polygons = [[_blob((x, y), radius, seed)] for x, y, radius, seed in blobs]
    found = share_inside(GRID, (200.0, 200.0), polygons)
    # a straight edge through a tile is off by at most half a cell of the raster, and blobs have several
    np.testing.assert_allclose(found, _by_points(GRID, (200.0, 200.0), polygons), atol=2 / 16)


def test_whole_half_and_no_tile() -> None:
    xy0 = np.array([[0, 0], [256, 0], [512, 0], [0, 4096]])
    share = share_inside(xy0, (256.0, 256.0), [[_box(0, -50, 384, 400)]])
    np.testing.assert_allclose(share, [1, 0.5, 0, 0], atol=1 / 16)


def test_holes_are_outside_and_a_polygon_inside_a_hole_is_not() -> None:
    xy0 = np.array([[0, 0], [100, 0], [100, 100], [200, 200]])
    ring, hole, island = _box(0, 0, 300, 300), _box(100, 0, 200, 200), _box(100, 100, 100, 100)
    for polygons in ([[ring, hole], [island]], [[island], [ring, hole]]):
        np.testing.assert_allclose(share_inside(xy0, (100.0, 100.0), polygons), [1, 0, 1, 1], atol=2 / 16)


def test_overlapping_polygons_count_once() -> None:
    xy0 = np.array([[0, 0]])
    share = share_inside(xy0, (100.0, 100.0), [[_box(0, 0, 50, 100)], [_box(0, 0, 50, 100)]])
    np.testing.assert_allclose(share, [0.5], atol=1 / 16)


def test_sides_that_are_no_whole_number_and_not_square() -> None:
    side0 = (51.3, 102.6)
    xy0 = np.array([(round(c * side0[0]), round(r * side0[1])) for r in range(4) for c in range(6)])
    polygons = [[_blob((150, 200), 140, 3)]]
    np.testing.assert_allclose(share_inside(xy0, side0, polygons), _by_points(xy0, side0, polygons), atol=2 / 16)


def test_nothing_to_find() -> None:
    assert share_inside(GRID, (200.0, 200.0), []).tolist() == [0.0] * 30
    assert share_inside(np.zeros((0, 2), np.int64), (200.0, 200.0), [[_box(0, 0, 9, 9)]]).shape == (0,)


def test_instance_auroc() -> None:
    rng = np.random.default_rng(0)
    score, share = np.round(rng.random(50), 1), rng.random(50)
    expected = roc_auc_score(share >= 0.5, score)
    assert instance_auroc(score, share) == pytest.approx(expected, abs=1e-12)
    assert instance_auroc(np.array([0.9, 0.1]), np.array([0.5, 0.49])) == 1.0
    assert np.isnan(instance_auroc(score, np.zeros(50)))
    assert np.isnan(instance_auroc(score, np.ones(50)))


def _geojson(geometry: dict[str, object]) -> str:
    return json.dumps({"type": "FeatureCollection", "features": [{"type": "Feature", "geometry": geometry}]})


def test_reads_polygons_and_multipolygons(tmp_path: Path) -> None:
    ring, hole = [[0, 0], [9, 0], [9, 9], [0, 0]], [[2, 2], [3, 2], [3, 3], [2, 2]]
    (tmp_path / "t.geojson").write_text(_geojson({"type": "Polygon", "coordinates": [ring, hole]}))
    (polygon,) = read_truth(tmp_path / "t.geojson").polygons
    assert [part.tolist() for part in polygon] == [ring[:-1], hole[:-1]]
    (tmp_path / "t.geojson").write_text(_geojson({"type": "MultiPolygon", "coordinates": [[ring], [hole]]}))
    assert [[part.tolist() for part in rings] for rings in read_truth(tmp_path / "t.geojson").polygons] == [
        [ring[:-1]],
        [hole[:-1]],
    ]
    (tmp_path / "t.geojson").write_text('{"type": "FeatureCollection", "features": []}')
    assert not read_truth(tmp_path / "t.geojson")


@pytest.mark.parametrize(
    "content",
    ["", "{", "[1]", "{}", '{"features": [{"geometry": null}]}', '{"features": [{"geometry": {"type": "Polygon"}}]}'],
)
def test_refuses_what_is_no_geojson(tmp_path: Path, content: str) -> None:
    (tmp_path / "t.geojson").write_text(content)
    with pytest.raises(StoreError, match="can't be read as GeoJSON polygons"):
        read_truth(tmp_path / "t.geojson")


def test_points_count_tiles_that_hold_one() -> None:
    side0 = (51.3, 102.6)
    xy0 = np.array([(round(c * 40), round(r * 102.6)) for r in range(4) for c in range(6)])  # tiles overlap along x
    points = np.random.default_rng(2).uniform(0, 400, (15, 2))
    points = np.vstack([points, [40.0, 60.0]])  # on the left edge of a tile, which is inside
    found = marked(Truth(points=points), xy0, side0)
    inside = [
        float(any(x <= px < x + side0[0] and y <= py < y + side0[1] for px, py in points)) for x, y in xy0.tolist()
    ]
    assert 0 < sum(inside) < len(inside)
    assert found.tolist() == inside


def test_a_point_on_the_border_belongs_to_the_tile_that_begins_there() -> None:
    xy0 = np.array([[0, 0], [100, 0], [0, 100], [100, 100]])
    assert marked(Truth(points=np.array([[100.0, 50.0]])), xy0, (100.0, 100.0)).tolist() == [0, 1, 0, 0]
    assert marked(Truth(points=np.array([[100.0, 100.0]])), xy0, (100.0, 100.0)).tolist() == [0, 0, 0, 1]


def test_points_and_regions_together() -> None:
    xy0 = np.array([[0, 0], [100, 0], [200, 0]])
    truth = Truth([[_box(0, 0, 50, 100)]], np.array([[250.0, 50.0]]))
    np.testing.assert_allclose(marked(truth, xy0, (100.0, 100.0)), [0.5, 0, 1], atol=1 / 16)


def test_reads_points_of_both_formats_and_their_classes(tmp_path: Path) -> None:
    features = [
        {
            "type": "Feature",
            "geometry": {"type": "Point", "coordinates": [3, 4]},
            "properties": {"classification": "a"},
        },
        {"type": "Feature", "geometry": {"type": "MultiPoint", "coordinates": [[5, 6], [7, 8.5]]}},
    ]
    (tmp_path / "t.geojson").write_text(json.dumps({"type": "FeatureCollection", "features": features}))
    assert read_truth(tmp_path / "t.geojson").points.tolist() == [[3, 4], [5, 6], [7, 8.5]]
    assert read_truth(tmp_path / "t.geojson", "a").points.tolist() == [[3, 4]]
    (tmp_path / "t.csv").write_text("x,y,type\n1,2.5,epithelial\n3,4,other\n")
    assert read_truth(tmp_path / "t.csv").points.tolist() == [[1, 2.5], [3, 4]]
    assert read_truth(tmp_path / "t.csv", "other").points.tolist() == [[3, 4]]
    assert not read_truth(tmp_path / "t.csv", "tumour")  # a slide may have none


@pytest.mark.parametrize("content", ["", "a,b\n1,2\n", "x,y\n1,two\n", "x,y\n1,\n"])
def test_refuses_tables_without_places(tmp_path: Path, content: str) -> None:
    (tmp_path / "t.csv").write_text(content)
    with pytest.raises(StoreError, match=r"points|place"):
        read_truth(tmp_path / "t.csv")


def test_refuses_to_look_for_a_class_where_none_is_named(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("x,y\n1,2\n")
    with pytest.raises(StoreError, match="names no classes"):
        read_truth(tmp_path / "t.csv", "tumour")
