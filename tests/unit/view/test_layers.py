"""Layers: what the page gets is what the files say, in level-0 px."""

from __future__ import annotations

import base64
import json
from pathlib import Path

import numpy as np
import pytest

from pathpipe.errors import SettingsError, StoreError
from pathpipe.run import Run
from pathpipe.view import layers
from tests.unit.view.conftest import MODEL, ODD, write_scores, write_tile_table


def _array(text: str, kind: str) -> np.ndarray:
    return np.frombuffer(base64.b64decode(text), kind)


def test_tissue_is_moved_to_level_0(run: Run) -> None:
    (group,) = layers.tissue_layer(run.tissue(ODD))["groups"]
    (polygon,) = group["polygons"]
    ring = np.array(polygon[0]).reshape(-1, 2)
    # 5 x 3 mask pixels of 100 px from (100, 100); vertices lie a quarter of a pixel inside
    assert ring.min(axis=0).tolist() == [125, 125] and ring.max(axis=0).tolist() == [575, 375]
    assert group["name"] == "Tissue" and group["colour"] == [0, 128, 96]


def test_artefacts_have_their_own_colour(tmp_path: Path, run: Run) -> None:
    content = json.loads(run.tissue(ODD).read_text())
    content["features"].append({**content["features"][0], "properties": {"classification": {"name": "Pen"}}})
    (tmp_path / "two.geojson").write_text(json.dumps(content))
    groups = layers.tissue_layer(tmp_path / "two.geojson")["groups"]
    assert [(one["name"], one["colour"]) for one in groups] == [("Tissue", [0, 128, 96]), ("Pen", [230, 60, 200])]


def test_truth_is_as_drawn(run: Run) -> None:
    truth = run.cohort[ODD].truth
    assert truth is not None
    (group,) = layers.truth_layer(truth)["groups"]
    assert group["polygons"] == [[[100, 100, 300, 100, 300, 200, 100, 200]]]


def test_tiles_are_corners(run: Run) -> None:
    found = layers.tiles_layer(run.tiles(ODD))
    assert found["xy0"] == [100, 100, 200, 100, 100, 200] and found["side0"] == [100, 100]
    assert (found["count"], found["tile_px"], found["mpp"]) == (3, 100, [0.5, 0.5])


def test_a_slide_without_tiles_says_why(run: Run) -> None:
    write_tile_table(run.tiles("S2"), np.empty((0, 2)))
    found = layers.tiles_layer(run.tiles("S2"))
    assert found["count"] == 0 and found["empty_reason"] == "no tissue found"


def test_heat_holds_rank_and_value_of_every_tile(run: Run) -> None:
    found = layers.heat_layer(run.heatmap(MODEL, ODD) / "scores.csv", "score", run.tiles(ODD), "inferno")
    assert found["size"] == [2, 2] and found["origin0"] == (100, 100) and found["cell0"] == (100, 100)
    ranks = _array(found["ranks"], "u1").reshape(2, 2)
    third, two = 1 + round(254 / 3), 1 + round(254 * 2 / 3)
    assert ranks.tolist() == [[255, third], [two, 0]]
    values = _array(found["values"], "<f4").reshape(2, 2)
    assert np.allclose(values, [[0.7, 0.1], [0.2, np.nan]], equal_nan=True)
    assert (found["low"], found["high"]) == (0.1, 0.7)
    palette = _array(found["palette"], "u1").reshape(256, 3)
    assert palette[0].tolist() == [0, 0, 4] and palette[255].tolist() == [252, 255, 164]  # inferno's ends


def test_a_second_score_is_a_second_column(run: Run) -> None:
    path = run.heatmap(MODEL, ODD) / "scores.csv"
    path.write_text("x0,y0,score,gradient\n100,100,1,5\n200,100,2,-7\n")
    assert layers.score_names(path) == ["score", "gradient"]
    found = layers.heat_layer(path, "gradient", run.tiles(ODD), "inferno")
    assert (found["low"], found["high"]) == (-7, 5)


@pytest.mark.parametrize(
    "text", ["x0,y0,score\n1,2\n", "x0,y0,score\n1,2,three\n", "x0,y0,score\n1,2,nan\n", "x0,y0,score\n"]
)
def test_a_damaged_table_of_scores_is_an_error(run: Run, text: str) -> None:
    path = run.heatmap(MODEL, ODD) / "scores.csv"
    path.write_text(text)
    with pytest.raises(StoreError, match="score"):
        layers.heat_layer(path, "score", run.tiles(ODD), "inferno")


def test_an_unknown_colour_map_is_an_error(run: Run) -> None:
    with pytest.raises(SettingsError, match="no colour map `bright`"):
        layers.heat_layer(run.heatmap(MODEL, ODD) / "scores.csv", "score", run.tiles(ODD), "bright")


def test_what_is_no_table_has_no_scores(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_bytes(b"\xff\xfe\x00")
    (tmp_path / "b.csv").write_text("patient,score\n")
    assert [layers.score_names(tmp_path / name) for name in ("a.csv", "b.csv", "none.csv")] == [[], [], []]


def test_damaged_outlines_are_an_error(run: Run) -> None:
    run.tissue(ODD).write_text(
        '{"features": [{"geometry": {"type": "Polygon", "coordinates": [[[0]]]}}], "pathpipe": 1}'
    )
    with pytest.raises(StoreError, match="tissue outlines"):
        layers.tissue_layer(run.tissue(ODD))


def test_a_hundred_thousand_tiles_are_quick(run: Run) -> None:
    import time

    rows, columns = np.divmod(np.arange(100_000), 400)
    xy0 = np.stack([columns, rows], axis=1) * 100
    write_tile_table(run.tiles("S2"), xy0)
    write_scores(run, "S2", xy0, np.random.default_rng(0).random(len(xy0)))
    started = time.process_time()
    tiles = json.dumps(layers.tiles_layer(run.tiles("S2")))
    heat = json.dumps(layers.heat_layer(run.heatmap(MODEL, "S2") / "scores.csv", "score", run.tiles("S2"), "inferno"))
    assert time.process_time() - started < 5  # half a second here
    assert len(tiles) < 1_500_000 and len(heat) < 800_000
    assert np.count_nonzero(_array(json.loads(heat)["ranks"], "u1")) == 100_000
