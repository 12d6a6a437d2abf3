"""What QuPath is told of every tile, in whole pixels of its own frame."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import pytest

from pathpipe.explain import qupath
from pathpipe.explain.qupath import Frame, write_quantiles, write_tiles
from pathpipe.explain.scores import Scores
from pathpipe.explain.truth import share_inside
from pathpipe.provenance import Provenance, read_provenance
from pathpipe.tissue.geojson import read_features
from tests.unit.explain.made_up import scores

MADE = Provenance("heatmap", 2, {}, {"features": "f"})
FRAME = Frame((102.6, 102.6), (102.6, 102.6), (1000.0, 500.0))


def _grid(count: int, columns: int = 20, stride: float = 102.6) -> np.ndarray:
    rows, column = np.divmod(np.arange(count), columns)
    return np.column_stack([1000 + np.round(column * stride), 500 + np.round(rows * stride)]).astype(np.int64)


def _scores(count: int = 60) -> Scores:
    values = np.random.default_rng(3).random(count)
    return scores(values.tolist(), _grid(count), alone=np.linspace(0, 1, count))


def _read(path: Path) -> dict[str, Any]:
    return dict(json.loads(path.read_text(encoding="utf-8")))


def test_every_tile_has_its_place_numbers_and_colour(tmp_path: Path) -> None:
    given = _scores()
    assert write_tiles(tmp_path / "h.geojson", given, FRAME, "inferno", MADE) == [tmp_path / "h.geojson"]
    content = _read(tmp_path / "h.geojson")
    assert content["type"] == "FeatureCollection" and len(content["features"]) == 60
    ranks = given.ranks()
    for number, one in enumerate(content["features"]):
        (ring,) = one["geometry"]["coordinates"]
        assert ring[0] == ring[-1] and all(isinstance(place, int) for corner in ring for place in corner)
        x, y = (given.xy0[number] - [1000, 500]).tolist()
        right, below = round(x + 102.6), round(y + 102.6)
        assert ring[:-1] == [[x, y], [right, y], [right, below], [x, below]]
        properties = one["properties"]
        assert properties["objectType"] == "tile"
        measured = properties["measurements"]
        assert list(measured) == ["score", "percentile", "probability"]
        assert measured["score"] == pytest.approx(given.score[number], rel=1e-5)
        assert measured["percentile"] == pytest.approx(100 * ranks[number], rel=1e-5)
        tenth = int(np.ceil(10 * ranks[number] - 1e-9)) - 1
        assert properties["classification"]["name"] == f"high {10 * tenth}-{10 * tenth + 10}%"
        colour = np.round(255 * np.array(matplotlib.colormaps["inferno"]((tenth + 0.5) / 10))[:3])
        assert properties["classification"]["color"] == colour.tolist()
    made = read_provenance(tmp_path / "h.geojson")
    assert made is not None and made.fingerprint == MADE.fingerprint


def test_tiles_read_back_with_the_project_s_reader(tmp_path: Path) -> None:
    write_tiles(tmp_path / "h.geojson", _scores(), FRAME, "inferno", MADE)
    features = read_features(_read(tmp_path / "h.geojson"))
    assert len(features) == 60 and all(len(one.polygons) == 1 for one in features)
    assert features[0].polygons[0][0].tolist() == [[0, 0], [103, 0], [103, 103], [0, 103]]


def test_a_hundred_thousand_tiles_are_parted_in_files_qupath_can_read(tmp_path: Path) -> None:
    given = _scores(100_000)
    paths = write_tiles(tmp_path / "h.geojson", given, FRAME, "inferno", MADE)
    assert [path.name for path in paths] == ["h.geojson", "h-2.geojson"]
    assert all(path.stat().st_size <= qupath.MAX_BYTES + 2000 for path in paths)
    assert sum(path.read_text().count('"objectType":"tile"') for path in paths) == 100_000
    write_quantiles(tmp_path / "q.geojson", given, FRAME, "inferno", MADE)
    assert (tmp_path / "q.geojson").stat().st_size < qupath.MAX_BYTES


def test_tenths_cover_their_tiles_and_nothing_else(tmp_path: Path) -> None:
    given = _scores(200)
    write_quantiles(tmp_path / "q.geojson", given, FRAME, "viridis", MADE)
    content = _read(tmp_path / "q.geojson")
    assert [one["properties"]["objectType"] for one in content["features"]] == ["annotation"] * 10
    here = given.xy0 - np.array([1000, 500])
    tenths = np.ceil(10 * given.ranks() - 1e-9).astype(int) - 1
    for number, one in enumerate(read_features(content)):
        assert one.name == f"high {10 * number}-{10 * number + 10}%"
        covered = share_inside(here, (102.6, 102.6), one.polygons)
        np.testing.assert_array_equal(covered > 0.8, tenths == number)
        # tiles of 102.6 px begin at whole px, and the raster of `share_inside` has cells of 6 px
        assert (covered[tenths != number] < 0.3).all()
        inside = 100 * given.ranks()[tenths == number].mean()
        assert content["features"][number]["properties"]["measurements"]["mean percentile"] == pytest.approx(inside)


def test_places_under_several_tiles_have_their_mean(tmp_path: Path) -> None:
    xy0 = np.array([[0, 0], [50, 0]])
    frame = Frame((100.0, 100.0), (50.0, 50.0))
    write_quantiles(tmp_path / "q.geojson", scores([0.2, 0.8], xy0), frame, "inferno", MADE)
    ranges = {
        one.name: (one.polygons[0][0][:, 0].min(), one.polygons[0][0][:, 0].max())
        for one in read_features(_read(tmp_path / "q.geojson"))
    }
    # ranks are 0.5 and 1: their mean where they overlap, 0.75
    assert ranges == {"high 40-50%": (0, 50), "high 70-80%": (50, 100), "high 90-100%": (100, 150)}


def test_one_tile_and_names_with_quotes(tmp_path: Path) -> None:
    write_tiles(tmp_path / "h.geojson", scores([1.0]), Frame((512.0, 512.0), (512.0, 512.0)), "inferno", MADE)
    (one,) = _read(tmp_path / "h.geojson")["features"]
    assert list(one["properties"]["measurements"]) == ["score", "percentile"]


def test_equal_input_gives_equal_bytes(tmp_path: Path) -> None:
    for name in ("a", "b"):
        write_tiles(tmp_path / f"{name}.geojson", _scores(), FRAME, "inferno", MADE)
        write_quantiles(tmp_path / f"{name}q.geojson", _scores(), FRAME, "inferno", MADE)
    assert (tmp_path / "a.geojson").read_bytes() == (tmp_path / "b.geojson").read_bytes()
    assert (tmp_path / "aq.geojson").read_bytes() == (tmp_path / "bq.geojson").read_bytes()
