"""Levels: whatever the ratio of sizes, a read lands on its pixel; a level that isn't there is never white."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
import tifffile
from PIL import Image

from pathpipe.errors import SlideError
from pathpipe.slides.open import open_slide
from pathpipe.slides.writer import write_svs
from pathpipe.testing.slides import LOSSLESS, STEP, position_slide

# (level 0, level 1): cut and rounded down, up, and up along one side only
ODD = [((1999, 1603), (500, 401)), ((2001, 1597), (500, 400)), ((2003, 1613), (501, 404))]


@pytest.mark.parametrize("reader", ["direct", "openslide", "tiffslide", "image"])
@pytest.mark.parametrize("level", [-1, 1, 7])
def test_a_level_that_is_not_there_is_refused(tmp_path: Path, reader: str, level: int) -> None:
    path = position_slide(tmp_path / "a.svs", [(100, 80)])
    if reader == "image":
        path = tmp_path / "a.png"
        Image.new("RGB", (100, 80)).save(path)
    with open_slide(path, reader) as slide, pytest.raises(SlideError, match=f"has no level {level}"):
        slide.read((0, 0), level, (5, 5))


@pytest.mark.parametrize(("size0", "size1"), ODD)
def test_tiffslide_reads_the_very_pixel_of_an_odd_level(
    tmp_path: Path, size0: tuple[int, int], size1: tuple[int, int]
) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (size1[1], size1[0], 3)).astype(np.uint8)
    write_svs(tmp_path / "a.svs", [np.zeros((size0[1], size0[0], 3), np.uint8), noise], 0.5, 20, LOSSLESS)
    with open_slide(tmp_path / "a.svs", "tiffslide") as slide:
        down_x, down_y = slide.levels[1].downsample
        along = [(x, 5) for x in range(size1[0] - 8)] + [(5, y) for y in range(size1[1] - 8)]
        for x, y in along:
            region = slide.read((round(x * down_x), round(y * down_y)), 1, (8, 8))
            assert np.array_equal(region, noise[y : y + 8, x : x + 8]), (x, y)


@pytest.mark.parametrize("reader", ["direct", "openslide", "tiffslide"])
@pytest.mark.parametrize(("size0", "size1"), ODD)
def test_odd_levels_do_not_drift(tmp_path: Path, reader: str, size0: tuple[int, int], size1: tuple[int, int]) -> None:
    path = position_slide(tmp_path / "a.svs", [size0, size1])
    with open_slide(path, reader) as slide:
        for x0, y0 in [(0, 0), (777, 333), (1501, 1200), (size0[0] - 40, size0[1] - 40)]:
            region = slide.read((x0, y0), 1, (4, 4)).astype(float)
            # the pixel's colour is its level-0 place by STEP: one level pixel and the rounding to STEP are allowed
            place = region[0, 0, :2] * STEP
            assert np.abs(place - (x0, y0)).max() <= STEP + 4, (x0, y0, place)


def test_fluorescence_and_colour_planes_are_refused(tmp_path: Path) -> None:
    channels = np.zeros((3, 128, 128), np.uint8)
    tifffile.imwrite(tmp_path / "channels.tif", channels, tile=(64, 64), photometric="minisblack", metadata=None)
    tifffile.imwrite(tmp_path / "three.ome.tif", channels, photometric="minisblack", metadata={"axes": "CYX"})
    for name in ("channels.tif", "three.ome.tif"):
        with pytest.raises(SlideError) as caught:
            open_slide(tmp_path / name)
        assert caught.value.what.startswith("not an RGB slide"), caught.value.what
        assert "\n" not in caught.value.what


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_what_may_not_be_read_is_said_so(tmp_path: Path) -> None:
    path = position_slide(tmp_path / "a.svs", [(100, 80)])
    path.chmod(0)
    with pytest.raises(SlideError, match="may not be read"):
        open_slide(path)


def test_links_to_slides_are_slides(tmp_path: Path) -> None:
    path = position_slide(tmp_path / "a.svs", [(100, 80)])
    (tmp_path / "link.svs").symlink_to(path)
    with open_slide(tmp_path / "link.svs") as slide:
        assert slide.size0 == (100, 80)
    path.unlink()
    with pytest.raises(SlideError, match="is a link to a file that isn't there"):
        open_slide(tmp_path / "link.svs")
