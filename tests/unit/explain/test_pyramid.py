"""The pyramid: read back by tifffile, OpenSlide, tiffslide and the project's own reader, in the slide's frame."""

from __future__ import annotations

from pathlib import Path
from xml.etree import ElementTree

import matplotlib
import numpy as np
import openslide
import pytest
import tifffile

from pathpipe.explain.heatmap import Canvas
from pathpipe.explain.pyramid import Naming, write_pyramid
from pathpipe.explain.truth import Truth
from pathpipe.settings import HeatmapSettings
from pathpipe.slides.open import open_slide
from pathpipe.slides.slide import Mpp
from pathpipe.tissue.thumbnail import Thumbnail
from tests.unit.explain.made_up import scores

SCALE = (8.0, 8.0)
NAMING = Naming("S1", (5600, 4400), "f" * 32)
RAW = HeatmapSettings(scale="raw", opacity=1.0)


def _canvas() -> Canvas:
    pixels = np.full((550, 701, 3), 240, np.uint8)
    return Canvas(Thumbnail(pixels, SCALE), Mpp(0.25, 0.5, "test"), (800.0, 800.0), Truth())


@pytest.fixture
def written(tmp_path: Path) -> Path:
    path = tmp_path / "h.ome.tif"
    xy0 = np.array([[0, 0], [800, 0], [1600, 1600], [4000, 2400]])
    write_pyramid(path, _canvas(), scores([0.0, 0.5, 0.25, 1.0], xy0), NAMING, RAW)
    return path


def test_colours_and_scores_lie_where_the_tiles_are(written: Path) -> None:
    with tifffile.TiffFile(written) as file:
        assert file.is_ome
        picture, numbers = file.series
        assert [level.shape for level in picture.levels] == [(550, 701, 3), (275, 351, 3), (138, 176, 3)]
        assert [level.shape for level in numbers.levels] == [(550, 701), (275, 351), (138, 176)]
        assert numbers.dtype == np.float32
        for level, step in zip(numbers.levels, (1, 2, 4), strict=True):
            values = level.asarray()
            side = 100 // step
            for (x, y), score in zip(((0, 0), (100, 0), (200, 200), (500, 300)), (0.0, 0.5, 0.25, 1.0), strict=True):
                assert (values[y // step : y // step + side, x // step : x // step + side] == score).all()
            assert np.isnan(values[-1, -1]) and np.isfinite(values).sum() == 4 * side * side
        pixels = picture.levels[0].asarray().astype(int)
    colours = np.round(255 * np.asarray(matplotlib.colormaps["inferno"]([0.5, 1.0]))[:, :3])
    assert np.abs(pixels[50, 150] - colours[0]).max() <= 6  # JPEG
    assert np.abs(pixels[350, 550] - colours[1]).max() <= 6
    assert np.abs(pixels[500, 650] - 240).max() <= 3


def test_physical_size_and_frame_are_said(written: Path) -> None:
    with tifffile.TiffFile(written) as file:
        text = file.ome_metadata
        assert text is not None and ElementTree.fromstring(text).tag.endswith("OME")
        for part in ('PhysicalSizeX="2.0"', 'PhysicalSizeY="4.0"', "µm", '<M K="level0_px_per_px_x">8.0</M>'):
            assert part in text
        assert '<M K="level0_width">5600</M>' in text and 'Name="score"' in text
        assert file.pages.first.tags["ImageWidth"].value == 701


@pytest.mark.parametrize("reader", ["direct", "openslide", "tiffslide"])
def test_slide_readers_open_it(written: Path, reader: str) -> None:
    with open_slide(written, reader) as slide:
        assert slide.size0 == (701, 550)
        assert slide.mpp is not None and (slide.mpp.x, slide.mpp.y) == pytest.approx((2.0, 4.0), rel=1e-3)
        yellow = 255 * np.asarray(matplotlib.colormaps["inferno"](1.0))[:3]
        assert np.abs(slide.read((550, 350), 0, (4, 4)).astype(float) - yellow).max() <= 6
        if reader != "openslide":  # which sees no SubIFDs
            assert [level.size_px for level in slide.levels] == [(701, 550), (351, 275), (176, 138)]
    assert openslide.OpenSlide(written).dimensions == (701, 550)


def test_percentiles_are_blended_over_the_slide(tmp_path: Path) -> None:
    options = HeatmapSettings(opacity=0.5, colours="gray")
    write_pyramid(tmp_path / "h.ome.tif", _canvas(), scores([1e-9, 1.0], np.array([[0, 0], [800, 0]])), NAMING, options)
    with tifffile.TiffFile(tmp_path / "h.ome.tif") as file:
        pixels = file.series[0].levels[0].asarray().astype(int)
    assert np.abs(pixels[50, 50] - (240 + 128) / 2).max() <= 4  # rank 0.5 of two
    assert np.abs(pixels[50, 150] - (240 + 255) / 2).max() <= 4


def test_equal_input_gives_equal_bytes(tmp_path: Path) -> None:
    for name in ("a", "b"):
        write_pyramid(tmp_path / name, _canvas(), scores([0.5], np.array([[0, 0]])), NAMING, RAW)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()
