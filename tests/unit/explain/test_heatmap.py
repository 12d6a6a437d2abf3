"""Heatmaps: every pixel has the mean of the tiles over it, and the picture shows what it says."""

from __future__ import annotations

import io
from dataclasses import replace

import matplotlib
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from pathpipe.explain.heatmap import Canvas, draw_heatmap, paint
from pathpipe.explain.truth import Truth
from pathpipe.settings import HeatmapSettings
from pathpipe.slides.slide import Mpp
from pathpipe.tissue.thumbnail import Thumbnail
from tests.unit.explain.made_up import scores

SQUARE = np.array([[100.0, 100.0], [400.0, 100.0], [400.0, 400.0], [100.0, 400.0]])


def _thumbnail(height: int, width: int, scale0: tuple[float, float], grey: int = 255) -> Thumbnail:
    return Thumbnail(np.full((height, width, 3), grey, np.uint8), scale0)


@given(
    corners=st.lists(st.tuples(st.integers(-30, 260), st.integers(-30, 190)), min_size=1, max_size=25),
    side0=st.tuples(st.floats(1, 70), st.floats(1, 70)),
    scale0=st.tuples(st.floats(1.5, 9), st.floats(1.5, 9)),
    seed=st.integers(0, 99),
)
@settings(max_examples=60, deadline=None)
def test_painting_equals_a_loop_over_tiles(
    corners: list[tuple[int, int]], side0: tuple[float, float], scale0: tuple[float, float], seed: int
) -> None:
    xy0 = np.array(corners, np.int64)
    values = np.random.default_rng(seed).random(len(xy0))
    height, width = 21, 33
    total, count = np.zeros((height, width)), np.zeros((height, width))
    for (x0, y0), value in zip(xy0, values, strict=True):
        left, right = np.floor(x0 / scale0[0] + 1e-6), np.ceil((x0 + side0[0]) / scale0[0] - 1e-6)
        top, bottom = np.floor(y0 / scale0[1] + 1e-6), np.ceil((y0 + side0[1]) / scale0[1] - 1e-6)
        for row in range(max(0, int(top)), min(height, int(bottom))):
            for column in range(max(0, int(left)), min(width, int(right))):
                total[row, column] += value
                count[row, column] += 1
    painted = paint(xy0, values, side0, (height, width), scale0)
    np.testing.assert_array_equal(np.isnan(painted), count == 0)
    np.testing.assert_allclose(painted[count > 0], total[count > 0] / count[count > 0], atol=1e-12)


def test_neighbours_leave_no_hairline() -> None:
    # stride 51.3 with corners at whole pixels: round(k * 51.3), as the grid has it
    xy0 = np.array([(round(column * 51.3), round(row * 51.3)) for row in range(6) for column in range(9)])
    for scale0 in (1.0, 1.7, 8.0, 60.0):
        side = int(6 * 51.3 / scale0), int(9 * 51.3 / scale0)
        painted = paint(xy0, np.ones(54), (51.3, 51.3), (max(1, side[0]), max(1, side[1])), (scale0, scale0))
        assert not np.isnan(painted).any(), scale0
        np.testing.assert_allclose(painted, 1, atol=1e-12)


def test_a_hundred_thousand_tiles_need_no_loop() -> None:
    xy0 = np.stack(np.divmod(np.arange(100_000), 400), axis=1) * 256
    painted = paint(xy0, np.arange(100_000.0), (256.0, 256.0), (800, 500), (128.0, 128.0))
    assert painted[0, 0] == 0 and painted[2, 0] == pytest.approx(1) and painted[799, 499] == pytest.approx(99_999)


def _canvas(truth: bool = False) -> Canvas:
    thumbnail = _thumbnail(128, 128, (8.0, 8.0), grey=240)
    return Canvas(thumbnail, Mpp(0.5, 0.5, "test"), (512.0, 512.0), Truth([[SQUARE * 2]] if truth else []))


def _colours(png: bytes) -> tuple[np.ndarray, np.ndarray]:
    """Left and right half of the picture."""
    with Image.open(io.BytesIO(png)) as picture:
        pixels = np.asarray(picture.convert("RGB")).astype(int)
    middle = round((pixels.shape[1] - 90) / 2)
    return pixels[:, :middle], pixels[:, middle:]


def _share(pixels: np.ndarray, colour: np.ndarray) -> float:
    return float((np.abs(pixels - colour).max(axis=-1) <= 3).mean())


def test_scores_have_their_colours_in_the_right_panel_only() -> None:
    options = HeatmapSettings(scale="raw", opacity=1.0, width_px=600)
    left, right = _colours(draw_heatmap(_canvas(), scores([0.0, 0.25, 0.5, 1.0]), "S1", options))
    colours = np.round(np.asarray(matplotlib.colormaps["inferno"]([0.0, 0.25, 0.5, 1.0]))[:, :3] * 255)
    for colour in colours[1:]:  # black also is the colour of text
        assert _share(right, colour) > 0.1
        assert _share(left, colour) < 0.001
    assert _share(left, np.array([240, 240, 240])) > 0.5


def test_percentiles_spread_scores_that_raw_hides() -> None:
    values = [1e-9, 2e-9, 3e-9, 1.0]
    top = np.round(np.asarray(matplotlib.colormaps["inferno"](0.75))[:3] * 255)
    for scale, shown in (("percentile", True), ("raw", False)):
        options = HeatmapSettings(scale=scale, opacity=1.0, width_px=600)
        _, right = _colours(draw_heatmap(_canvas(), scores(values), "S1", options))
        assert (_share(right, top) > 0.1) is shown


def test_truth_is_outlined_in_both_panels() -> None:
    options = HeatmapSettings(opacity=0.3, width_px=600)
    outline = np.array([0, 200, 160])
    for truth in (True, False):
        halves = _colours(draw_heatmap(_canvas(truth), scores([0.1, 0.2, 0.3, 0.4]), "S1", options))
        for half in halves:
            assert bool((np.abs(half - outline).max(axis=-1) < 25).sum() > 100) is truth


def test_equal_input_gives_equal_bytes_without_a_maker_or_a_time() -> None:
    options = HeatmapSettings(width_px=400)
    first = draw_heatmap(_canvas(True), scores([0.1, 0.2, 0.3, 0.4]), "S1", options)
    assert first == draw_heatmap(_canvas(True), scores([0.1, 0.2, 0.3, 0.4]), "S1", options)
    assert b"Software" not in first and b"tIME" not in first
    assert first != draw_heatmap(_canvas(True), scores([0.1, 0.2, 0.3, 0.4]), "S2", options)


@pytest.mark.parametrize("scale", ["raw", "percentile"])
def test_one_tile_is_enough(scale: str) -> None:
    options = HeatmapSettings(scale=scale, width_px=400)
    with Image.open(io.BytesIO(draw_heatmap(_canvas(), scores([1.0]), "S1", options))) as picture:
        assert picture.width == 490  # two panels and the colour bar


def test_a_title_with_markup_or_dollars_is_shown_as_it_is() -> None:
    options = HeatmapSettings(width_px=400)
    shown = draw_heatmap(_canvas(), scores([1.0]), r"S$\frac$_1 <b>", options)
    assert shown != draw_heatmap(_canvas(), scores([1.0]), "S1", options)


def test_ranks_share_ties() -> None:
    assert scores([0.3, 0.1, 0.3, 0.9]).ranks().tolist() == [2.5 / 4, 1 / 4, 2.5 / 4, 1.0]


def test_points_of_the_truth_are_shown() -> None:
    options = HeatmapSettings(opacity=0.3, width_px=600)
    canvas = replace(_canvas(), truth=Truth(points=np.array([[300.0, 300.0], [700.0, 650.0]])))
    for half in _colours(draw_heatmap(canvas, scores([0.1, 0.2, 0.3, 0.4]), "S1", options)):
        assert (np.abs(half - np.array([0, 200, 160])).max(axis=-1) < 60).sum() >= 2
