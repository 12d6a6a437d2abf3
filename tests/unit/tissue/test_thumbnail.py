"""Thumbnails of awkward pyramids: the same picture in one band or in many, block means from any level."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from pathpipe.slides.open import open_slide
from pathpipe.slides.writer import write_svs
from pathpipe.testing.slides import LOSSLESS, position_pixels
from pathpipe.tissue import thumbnail as thumbnails
from pathpipe.tissue.thumbnail import Thumbnail, read_thumbnail

BANDS = [1, 20_000, 64 << 20]


def _thumbnail(path: Path, reader: str, scale0: float, band_bytes: int, patch: pytest.MonkeyPatch) -> Thumbnail:
    patch.setattr(thumbnails, "_BAND_BYTES", band_bytes)
    with open_slide(path, reader) as slide:
        return read_thumbnail(slide, scale0)


@pytest.mark.parametrize("band_bytes", BANDS)
@pytest.mark.parametrize("reader", ["openslide", "tiffslide"])
def test_block_means_of_a_lower_level(
    tmp_path: Path, reader: str, band_bytes: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (101, 131, 3)).astype(np.uint8)
    write_svs(tmp_path / "a.svs", [np.zeros((404, 524, 3), np.uint8), noise], 0.5, 20, LOSSLESS)
    found = _thumbnail(tmp_path / "a.svs", reader, 27.0, band_bytes, monkeypatch)  # 27 / 4 is no whole number: 7
    assert found.scale0 == (28.0, 28.0)
    padded = np.pad(noise, ((0, 105 - 101), (0, 133 - 131), (0, 0)), mode="edge").astype(float)
    slow = padded.reshape(15, 7, 19, 7, 3).mean(axis=(1, 3))
    assert found.pixels.shape == slow.shape and np.abs(found.pixels - slow).max() <= 0.5 + 1e-6


@pytest.mark.parametrize("band_bytes", BANDS[:2])
@pytest.mark.parametrize(("size0", "size1"), [((1999, 1603), (500, 401)), ((2001, 1597), (500, 400))])
def test_tiffslide_bands_meet_to_the_pixel_on_odd_pyramids(
    tmp_path: Path, size0: tuple[int, int], size1: tuple[int, int], band_bytes: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (size1[1], size1[0], 3)).astype(np.uint8)
    write_svs(tmp_path / "a.svs", [np.zeros((size0[1], size0[0], 3), np.uint8), noise], 0.5, 20, LOSSLESS)
    whole = _thumbnail(tmp_path / "a.svs", "tiffslide", 8.0, BANDS[-1], monkeypatch)
    banded = _thumbnail(tmp_path / "a.svs", "tiffslide", 8.0, band_bytes, monkeypatch)
    assert np.array_equal(whole.pixels, banded.pixels) and whole.scale0 == banded.scale0


def test_openslide_bands_meet_within_a_level_pixel_on_odd_pyramids(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """OpenSlide interpolates between pixels where a level-0 place falls between two of a level."""
    ramp = position_pixels((500, 400))  # 16 px a step: a neighbour differs by one at most
    write_svs(tmp_path / "a.svs", [np.zeros((1597, 2001, 3), np.uint8), ramp], 0.5, 20, LOSSLESS)
    whole = _thumbnail(tmp_path / "a.svs", "openslide", 8.0, BANDS[-1], monkeypatch).pixels.astype(int)
    banded = _thumbnail(tmp_path / "a.svs", "openslide", 8.0, 1, monkeypatch).pixels.astype(int)
    inside = (slice(1, -1), slice(1, -1))
    assert whole.max() > 20 and np.abs(whole - banded)[inside].max() <= 1
