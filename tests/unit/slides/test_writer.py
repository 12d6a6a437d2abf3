"""Writer: what is written is what every reader gives back, and the same pixels give the same bytes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from pathpipe.slides.identity import slide_fingerprint
from pathpipe.slides.open import open_slide
from pathpipe.slides.writer import SvsFormat, shrink, write_svs
from pathpipe.testing.slides import LOSSLESS


def _noise(width: int, height: int) -> np.ndarray:
    return np.random.default_rng(width).integers(0, 256, (height, width, 3)).astype(np.uint8)


@pytest.mark.parametrize("reader", ["openslide", "tiffslide"])
def test_lossless_levels_come_back_to_the_bit(tmp_path: Path, reader: str) -> None:
    levels = [_noise(600, 450), _noise(300, 225), _noise(150, 113)]
    write_svs(tmp_path / "a.svs", levels, 0.25, 40, LOSSLESS)
    with open_slide(tmp_path / "a.svs", reader) as slide:
        assert [level.size_px for level in slide.levels] == [(600, 450), (300, 225), (150, 113)]
        assert slide.mpp is not None and (slide.mpp.x, slide.mpp.y, slide.objective) == (0.25, 0.25, 40)
        for level, pixels in zip(slide.levels, levels, strict=True):
            assert np.array_equal(slide.read((0, 0), level.index, level.size_px), pixels), level


def test_jpeg_is_close_and_closer_with_quality(tmp_path: Path) -> None:
    ramp = np.linspace(0, 255, 256)
    smooth = np.dstack([np.add.outer(ramp, ramp) / 2, np.tile(ramp, (256, 1)), np.full((256, 256), 90)])
    errors = []
    for quality in (40, 95):
        write_svs(tmp_path / "a.svs", [smooth.astype(np.uint8)], 0.5, form=SvsFormat(quality=quality, tile_px=128))
        with open_slide(tmp_path / "a.svs") as slide:
            assert slide.vendor == "aperio" and slide.objective is None
            errors.append(float(np.abs(slide.read((0, 0), 0, (256, 256)) - smooth).mean()))
    assert errors[1] < errors[0] < 6 and errors[1] < 2


def test_same_pixels_same_bytes_and_same_identity(tmp_path: Path) -> None:
    for name in ("a.svs", "b.svs"):
        write_svs(tmp_path / name, [_noise(256, 192)], 0.5)
    assert (tmp_path / "a.svs").read_bytes() == (tmp_path / "b.svs").read_bytes()
    before = slide_fingerprint(tmp_path / "a.svs")
    moved = (tmp_path / "a.svs").rename(tmp_path / "elsewhere.svs")
    assert slide_fingerprint(moved) == before == slide_fingerprint(tmp_path / "b.svs")
    content = bytearray(moved.read_bytes())
    content[len(content) // 2] ^= 1
    moved.write_bytes(content)
    assert slide_fingerprint(moved) != before


@pytest.mark.parametrize("factor", [1, 2, 5])
def test_shrink_is_the_mean_of_whole_blocks(factor: int) -> None:
    image = _noise(53, 37)
    height, width = 37 // factor, 53 // factor
    slow = image[: height * factor, : width * factor].reshape(height, factor, width, factor, 3).mean(axis=(1, 3))
    found = shrink(image, factor)
    assert found.shape == slow.shape and np.abs(found - slow).max() <= 0.5 + 1e-6
