"""DeepZoom: every tile against a plain pyramid of the whole picture, and against OpenSlide's own generator."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import openslide
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from openslide.deepzoom import DeepZoomGenerator
from PIL import Image

from pathpipe.samples.cohort import _textures
from pathpipe.slides.open import open_slide
from pathpipe.slides.slide import Pixels, Slide, read_shrunk
from pathpipe.slides.writer import SvsFormat, shrink, write_svs
from pathpipe.testing.slides import LOSSLESS, position_slide
from pathpipe.view import deepzoom
from pathpipe.view.deepzoom import DeepZoom, Part, Pyramid, read_part

Sizes = st.integers(1, 5000)


def _noise(width: int, height: int) -> Pixels:
    return np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)


def _reference(whole: Pixels, below: int) -> Pixels:
    """The picture shrunk at once: blocks of 2^below pixels, the edge repeated where the last block reaches past it."""
    by = 1 << below
    height, width = whole.shape[:2]
    padded = np.pad(whole, ((0, -height % by), (0, -width % by), (0, 0)), mode="edge").astype(np.float64)
    return padded.reshape(padded.shape[0] // by, by, padded.shape[1] // by, by, 3).mean(axis=(1, 3))


@given(width=Sizes, height=Sizes, tile=st.sampled_from([64, 254, 512]), overlap=st.integers(0, 3))
@settings(max_examples=60, deadline=None)
def test_levels_and_tiles_are_those_of_openslide(width: int, height: int, tile: int, overlap: int) -> None:
    ours = DeepZoom((width, height), tile, overlap)
    picture = Image.new("RGB", (width, height))
    theirs = DeepZoomGenerator(openslide.ImageSlide(picture), tile_size=tile, overlap=overlap)
    assert ours.top == theirs.level_count - 1
    assert [ours.level_size(level) for level in range(ours.top + 1)] == list(theirs.level_dimensions)
    assert [ours.level_tiles(level) for level in range(ours.top + 1)] == list(theirs.level_tiles)
    for level in range(ours.top + 1):
        columns, rows = ours.level_tiles(level)
        part = ours.part(level, columns - 1, rows - 1)
        assert part is not None
        assert (part.w, part.h) == theirs.get_tile_dimensions(level, (columns - 1, rows - 1))


@pytest.mark.parametrize(
    ("level", "column", "row"), [(-1, 0, 0), (99, 0, 0), (10, 5, 0), (10, 0, 4), (10, -1, 0), (0, 1, 0)]
)
def test_there_is_no_tile_outside(level: int, column: int, row: int) -> None:
    assert DeepZoom((1024, 700), 256, 1).part(level, column, row) is None


def test_the_last_tile_counts() -> None:
    assert DeepZoom((1024, 700), 256, 1).part(10, 3, 2) == Part(767, 511, 257, 189)


@pytest.mark.parametrize("overlap", [0, 1])
def test_every_tile_is_cut_from_a_plain_pyramid(tmp_path: Path, overlap: int) -> None:
    whole = _noise(1501, 1103)
    write_svs(tmp_path / "one.svs", [whole], 0.5, 20, LOSSLESS)
    with open_slide(tmp_path / "one.svs") as slide:
        pyramid = Pyramid(slide, DeepZoom(slide.size0, 256, overlap))
        for level in range(pyramid.deepzoom.top + 1):
            expected = _reference(whole, pyramid.deepzoom.top - level)
            columns, rows = pyramid.deepzoom.level_tiles(level)
            for column in range(columns):
                for row in range(rows):
                    tile = pyramid.tile(level, column, row)
                    left, top = max(0, column * 256 - overlap), max(0, row * 256 - overlap)
                    cut = expected[top : (row + 1) * 256 + overlap, left : (column + 1) * 256 + overlap]
                    assert tile is not None and tile.shape == cut.shape
                    # a mean is rounded along each axis; small levels are made from the overview, which was rounded too
                    assert np.abs(tile - cut).max() <= (1.5 if level < 10 else 1.001), (level, column, row)


def test_tiles_agree_with_openslide_on_a_pyramid(tmp_path: Path) -> None:
    tissue, _ = _textures()
    whole = np.ascontiguousarray(np.tile(tissue, (6, 6, 1))[:2200, :2600])
    write_svs(tmp_path / "p.svs", [whole, shrink(whole, 4)], 0.5, 20, LOSSLESS)
    theirs = DeepZoomGenerator(openslide.OpenSlide(tmp_path / "p.svs"), tile_size=512, overlap=1)
    with open_slide(tmp_path / "p.svs") as slide:
        pyramid = Pyramid(slide)
        for level in range(7, pyramid.deepzoom.top + 1):
            columns, rows = pyramid.deepzoom.level_tiles(level)
            for column in range(columns):
                for row in range(rows):
                    expected = np.asarray(theirs.get_tile(level, (column, row)), np.float64)
                    tile = pyramid.tile(level, column, row)
                    assert tile is not None
                    difference = np.abs(tile - expected)
                    if level in (pyramid.deepzoom.top, pyramid.deepzoom.top - 2):  # levels of the file: nothing resized
                        assert difference.max() == 0
                    else:  # it resizes by Lanczos, we by the mean; a pixel further off they agree far less
                        off_by_one = np.abs(np.roll(tile, 1, axis=1) - expected).mean()
                        assert difference.mean() < 0.8 * off_by_one, level


def test_levels_of_odd_sizes_lie_where_they_should(tmp_path: Path) -> None:
    # 4000 / 1001 = 3.996: the third level isn't the picture four times smaller
    position_slide(tmp_path / "odd.svs", [(4000, 3000), (1001, 751), (250, 187)])
    with open_slide(tmp_path / "odd.svs") as slide:
        pyramid = Pyramid(slide, DeepZoom(slide.size0, 256, 0))
        for level in range(8, 13):
            by = 2 ** (12 - level)
            columns, rows = pyramid.deepzoom.level_tiles(level)
            tile = pyramid.tile(level, columns - 1, rows - 1)
            assert tile is not None
            x0 = ((columns - 1) * 256 + np.arange(tile.shape[1]) + 0.5) * by
            steps = (tile[tile.shape[0] // 2, :, 0].astype(float) - x0 / 16 + 128) % 256 - 128
            inner = np.abs(steps[:-1])  # each step of the pattern is 16 px
            assert np.median(inner) <= max(0.6, by / 16), level


def test_a_level_that_is_read_in_parts_is_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_svs(tmp_path / "one.svs", [_noise(1501, 1103)], 0.5, 20, LOSSLESS)
    with open_slide(tmp_path / "one.svs") as slide:
        part = Part(3, 5, 90, 60)
        whole = read_part(slide, 4, part)
        monkeypatch.setattr(deepzoom, "_MAX_READ_PX", 1000)
        assert np.array_equal(read_part(slide, 4, part), whole)


def test_memory_is_bounded_where_there_are_no_small_levels(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_svs(tmp_path / "one.svs", [_noise(1500, 1100)], 0.5, 20, LOSSLESS)
    asked: list[int] = []

    def watched(slide: Slide, xy0: tuple[int, int], level: int, size_px: tuple[int, int], shrink: int) -> Pixels:
        asked.append(math.prod(size_px))
        return read_shrunk(slide, xy0, level, size_px, shrink)

    monkeypatch.setattr(deepzoom, "read_shrunk", watched)
    monkeypatch.setattr(deepzoom, "_MAX_READ_PX", 1 << 16)
    with open_slide(tmp_path / "one.svs") as slide:
        Pyramid(slide).tile(3, 0, 0)
    assert max(asked) <= 1 << 16 and sum(asked) >= 1500 * 1100


def test_a_level_that_the_decoder_shrinks_shows_the_same_place(tmp_path: Path) -> None:
    tissue, _ = _textures()
    whole = np.ascontiguousarray(np.tile(tissue, (4, 4, 1))[:2048, :2048])
    write_svs(tmp_path / "j.svs", [whole], 0.5, 20, SvsFormat(quality=95))
    with open_slide(tmp_path / "j.svs") as slide:
        assert len(slide.levels[0].shrinks) > 1
        tile = Pyramid(slide).tile(10, 1, 1)
        assert tile is not None
        assert np.abs(tile - _reference(whole, 1)[511:, 511:]).mean() < 4


def test_the_overview_is_read_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_svs(tmp_path / "one.svs", [_noise(1500, 1100)], 0.5, 20, LOSSLESS)
    with open_slide(tmp_path / "one.svs") as slide:
        pyramid = Pyramid(slide)
        pyramid.tile(10, 0, 0)
        monkeypatch.setattr(deepzoom, "read_part", None)
        for level in range(10):
            assert pyramid.tile(level, 0, 0) is not None
