"""A big slide for benchmarks, from the bundled one: 40x, levels 1, 4 and 16, real tissue in islands on bare glass."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import tifffile

from pathpipe.samples import BUNDLED_SLIDE
from pathpipe.slides.open import open_slide
from pathpipe.slides.slide import Pixels

TILE = 256
MPP = 0.25
COARSE = 64  # px of the slide per px of the outline
GLASS = 243
TISSUE_SHARE = 0.3
BAND = 4 * TILE


def write_mosaic(path: Path, side_px: int) -> None:
    """Write a square slide of `side_px`, band by band; the same bytes every time."""
    with open_slide(BUNDLED_SLIDE) as slide:
        texture = slide.read((0, 0), 0, slide.size0)
    texture = np.asarray(cv2.resize(texture, None, fx=2, fy=2, interpolation=cv2.INTER_CUBIC), np.uint8)
    outline = _outline(side_px // COARSE + 2)
    level4 = np.empty((side_px // 4, side_px // 4, 3), np.uint8)
    text = (
        f"Aperio Image Library v12.0.0\r\n{side_px}x{side_px} [0,0 {side_px}x{side_px}] ({TILE}x{TILE}) JPEG/RGB Q=80"
    )
    options: dict[str, Any] = {
        "tile": (TILE, TILE),
        "photometric": "rgb",  # converted to YCbCr when it is written
        "subsampling": (2, 2),
        "compression": "jpeg",
        "compressionargs": {"level": 80},
        "metadata": None,
        "software": False,
        "dtype": np.uint8,
        "maxworkers": 2,
    }
    with tifffile.TiffWriter(path, bigtiff=True) as writer:
        tiles = _level0(texture, outline, side_px, level4)
        writer.write(tiles, shape=(side_px, side_px, 3), description=f"{text}|AppMag = 40|MPP = {MPP}", **options)
        small = cv2.resize(level4, (1024, 1024), interpolation=cv2.INTER_AREA)
        strips = {**options, "tile": None, "rowsperstrip": 16}
        writer.write(small, description=text, **strips)  # Aperio's second page is a small striped thumbnail
        for factor in (4, 16):
            side = side_px // factor
            level = level4 if factor == 4 else cv2.resize(level4, (side, side), interpolation=cv2.INTER_AREA)
            writer.write(level, description=f"{text} -> {side}x{side}", subfiletype=0, **options)


def _level0(texture: Pixels, outline: Pixels, side_px: int, level4: Pixels) -> Iterator[Pixels]:
    tops = range(0, side_px, BAND)
    with ThreadPoolExecutor(1) as ahead:
        waiting = ahead.submit(_band, texture, outline, side_px, 0)
        for top in tops:
            band = waiting.result()
            if top + BAND < side_px:
                waiting = ahead.submit(_band, texture, outline, side_px, top + BAND)
            rows = band.shape[0] // 4
            quarter = cv2.resize(band[: rows * 4], (side_px // 4, rows), interpolation=cv2.INTER_AREA)
            level4[top // 4 : top // 4 + rows] = quarter
            padded = np.pad(band, ((0, -band.shape[0] % TILE), (0, -side_px % TILE), (0, 0)), mode="edge")
            for y in range(0, padded.shape[0], TILE):
                for x in range(0, padded.shape[1], TILE):
                    yield padded[y : y + TILE, x : x + TILE]


def _band(texture: Pixels, outline: Pixels, side_px: int, top: int) -> Pixels:
    """Rows of the slide: the texture mirrored over and over, blended into glass along the outline, with noise."""
    height = min(BAND, side_px - top)
    rows, columns = (
        _mirrored(start, n, side) for start, n, side in zip((top, 0), (height, side_px), texture.shape[:2], strict=True)
    )
    first = top // COARSE
    here = outline[first : first + height // COARSE + 2]
    size = (outline.shape[1] * COARSE, here.shape[0] * COARSE)
    inside = cv2.resize(here, size, interpolation=cv2.INTER_LINEAR)[:height, :side_px].astype(np.float32) / 255
    glass = np.full((height, side_px, 3), GLASS, np.uint8)
    picture = cv2.blendLinear(np.ascontiguousarray(texture[rows][:, columns]), glass, inside, 1 - inside)
    noise = np.random.default_rng(top).normal(0, 1.6, (height, 512, 3)).round().astype(np.int16)
    tiled = np.tile(noise, (1, side_px // 512 + 1, 1))[:, :side_px]
    return np.asarray(cv2.add(picture, np.ascontiguousarray(tiled), dtype=cv2.CV_8U), np.uint8)


def _mirrored(start: int, count: int, period: int) -> np.ndarray:
    index = np.arange(start, start + count) % (2 * period)
    return np.where(index < period, index, 2 * period - 1 - index)


def _outline(side: int) -> Pixels:
    """Islands: the upper part of a smooth random field, with soft edges and glass all round."""
    rng = np.random.default_rng(0)
    field = np.zeros((side, side), np.float32)
    for wavelength, weight in ((14, 1.0), (80, 0.3)):
        smooth = cv2.GaussianBlur(rng.normal(size=(side, side)).astype(np.float32), (0, 0), side / wavelength)
        field += weight * (smooth - smooth.mean()) / smooth.std()
    margin = max(1, side // 16)
    field[:margin] = field[-margin:] = -9
    field[:, :margin] = field[:, -margin:] = -9
    threshold = np.quantile(field, 1 - TISSUE_SHARE)
    return np.clip((field - threshold) * 6 * 255, 0, 255).astype(np.uint8)


def main() -> None:
    """Write one from the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("path", type=Path)
    parser.add_argument("--side", type=int, default=40_000, help="width and height, px")
    arguments = parser.parse_args()
    write_mosaic(arguments.path, arguments.side)


if __name__ == "__main__":
    main()
