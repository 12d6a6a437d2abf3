"""The tile sheet: the right tiles, read at their places."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pathpipe.explain.tile_sheet import TILE_PX, Extremes, draw_sheet, read_tiles_at
from pathpipe.slides.open import open_slide
from pathpipe.testing.slides import position_slide
from pathpipe.tiles.plan import ReadPlan
from tests.unit.explain.made_up import scores

PLAN = ReadPlan(64, 0, 0.5, (0.5, 0.5), 0, (1.0, 1.0), (64, 64), (64.0, 64.0), (64.0, 64.0))


def test_the_outermost_come_first_and_none_twice() -> None:
    given = scores([0.3, 0.9, 0.1, 0.5], np.arange(8).reshape(4, 2))
    found = Extremes.of(given, 2)
    assert (found.highest.tolist(), found.lowest.tolist()) == ([1, 3], [2, 0])
    many = Extremes.of(given, 8)
    assert (many.highest.tolist(), many.lowest.tolist()) == ([1, 3], [2, 0])
    odd = Extremes.of(scores([0.3, 0.9, 0.1], np.arange(6).reshape(3, 2)), 8)
    assert (odd.highest.tolist(), odd.lowest.tolist()) == ([1, 0], [2])
    one = Extremes.of(scores([1.0]), 8)
    assert (one.highest.tolist(), one.lowest.tolist()) == ([0], [])


@pytest.fixture(scope="module")
def slide_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return position_slide(tmp_path_factory.mktemp("slide") / "p.svs", [(640, 512)])


def test_tiles_are_those_of_their_places(slide_path: Path) -> None:
    xy0 = np.array([[448, 384], [0, 0], [128, 64]])
    with open_slide(slide_path, "auto") as slide:
        found = read_tiles_at(slide, PLAN, xy0)
        for pixels, (x, y) in zip(found, xy0.tolist(), strict=True):
            np.testing.assert_array_equal(pixels, slide.read((x, y), 0, (64, 64)))


def test_the_sheet_shows_them_in_order(slide_path: Path) -> None:
    xy0 = np.stack(np.divmod(np.arange(30), 6)[::-1], axis=1) * 64
    given = scores(np.random.default_rng(0).random(30).tolist(), xy0)
    with open_slide(slide_path, "auto") as slide:
        first = draw_sheet(slide, PLAN, given, 4, "S1: predicted high (0.91)")
        assert first == draw_sheet(slide, PLAN, given, 4, "S1: predicted high (0.91)")
        extremes = Extremes.of(given, 4)
        tiles = read_tiles_at(slide, PLAN, given.xy0[np.r_[extremes.highest, extremes.lowest]])
    with Image.open(io.BytesIO(first)) as sheet:
        pixels = np.asarray(sheet.convert("RGB")).astype(float)
    tops = [68, 68 + TILE_PX + 10 + 34 + 34]
    for number, tile in enumerate(tiles):
        x, y = 10 + number % 4 * (TILE_PX + 10), tops[number // 4]
        shown = pixels[y + 4 : y + TILE_PX - 4, x + 4 : x + TILE_PX - 4]
        assert np.abs(shown.mean(axis=(0, 1)) - tile.mean(axis=(0, 1))).max() < 4, number


def test_a_sheet_of_one_tile(slide_path: Path) -> None:
    with (
        open_slide(slide_path, "auto") as slide,
        Image.open(io.BytesIO(draw_sheet(slide, PLAN, scores([1.0]), 8, "S1"))) as sheet,
    ):
        assert sheet.height < 400
