"""Transparency over white, against Pillow's compositing."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import tifffile
from PIL import Image

from pathpipe.slides.alpha import over_white
from pathpipe.slides.open import open_slide


def _rgba() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (40, 50, 4)).astype(np.uint8)


def test_straight_alpha_against_pillow() -> None:
    rgba = _rgba()
    white = Image.new("RGBA", (50, 40), "white")
    expected = np.asarray(Image.alpha_composite(white, Image.fromarray(rgba)).convert("RGB")).astype(int)
    assert np.abs(over_white(rgba).astype(int) - expected).max() <= 1
    rgba[..., 3] = 255
    assert np.array_equal(over_white(rgba), rgba[..., :3])


def test_premultiplied_alpha_gives_what_straight_gives() -> None:
    rgba = _rgba()
    share = rgba[..., 3:].astype(float) / 255
    premultiplied = np.dstack([np.round(rgba[..., :3] * share), rgba[..., 3]]).astype(np.uint8)
    assert np.abs(over_white(premultiplied, premultiplied=True).astype(int) - over_white(rgba)).max() <= 1


@pytest.mark.parametrize("reader", ["openslide", "tiffslide"])
@pytest.mark.parametrize("kind", ["unassalpha", "assocalpha"])
def test_readers_show_what_is_transparent_as_glass(tmp_path: Path, reader: str, kind: str) -> None:
    rgba = np.full((128, 128, 4), (180, 90, 140, 255), np.uint8)
    rgba[:, :64] = 0  # both ways of writing "nothing here"
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, rgba, photometric="rgb", extrasamples=[kind], tile=(64, 64), metadata=None)
    with open_slide(path, reader) as slide:
        region = slide.read((0, 0), 0, (128, 128))
    assert (region[:, :64] == 255).all() and (region[:, 64:] == (180, 90, 140)).all()
