"""The picture to look at: outlines of tissue, the grid of tiles and a scale bar over the slide."""

from __future__ import annotations

import io
from pathlib import Path

import cv2
import matplotlib
import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFont

from pathpipe.slides.slide import Pixels, Slide
from pathpipe.tissue.mask import TissueMask
from pathpipe.tissue.polygons import trace
from pathpipe.tissue.thumbnail import read_thumbnail

TISSUE = (0, 128, 96)
HOLE = (200, 90, 0)
GRID = (20, 60, 160)
_SHIFT = 4


def draw_overlay(
    slide: Slide, mask: TissueMask, xy0: npt.NDArray[np.int64], side0: tuple[float, float], width_px: int
) -> bytes:
    """Draw tissue outlines, holes and tiles over a thumbnail.

    Args:
        xy0: (N, 2) tile corners, level-0 px.
        side0: (width, height) of a tile, level-0 px.
        width_px: Longest side of the picture.

    Returns:
        A JPEG file.
    """
    thumbnail = read_thumbnail(slide, max(slide.size0) / width_px)
    picture = _grown(thumbnail.pixels, width_px)
    height, width = picture.shape[:2]
    grown = width / thumbnail.pixels.shape[1], height / thumbnail.pixels.shape[0]
    scale0 = (thumbnail.scale0[0] / grown[0], thumbnail.scale0[1] / grown[1])
    shaded = picture.copy()
    corners = np.round(_boxes(xy0, side0) / np.asarray(scale0) * (1 << _SHIFT)).astype(np.int32)
    cv2.fillPoly(shaded, list(corners), GRID, cv2.LINE_AA, _SHIFT)
    picture = np.asarray(cv2.addWeighted(picture, 0.9, shaded, 0.1, 0), np.uint8)
    cv2.polylines(picture, list(corners), True, GRID, 1, cv2.LINE_AA, _SHIFT)
    thickness = max(2, width // 500)
    for outer, *holes in trace(mask.mask, mask.scale0):
        _outline(picture, outer, scale0, TISSUE, thickness)
        for hole in holes:
            _outline(picture, hole, scale0, HOLE, thickness)
    return _jpeg(_with_footer(picture, scale0, mask, len(xy0)))


def _grown(pixels: Pixels, width_px: int) -> Pixels:
    """Small slides are shown large enough to see lines on them."""
    factor = width_px / max(pixels.shape[:2])
    if factor <= 1.5:
        return np.ascontiguousarray(pixels)
    size = (round(pixels.shape[1] * factor), round(pixels.shape[0] * factor))
    return np.asarray(cv2.resize(pixels, size, interpolation=cv2.INTER_CUBIC))


def _boxes(xy0: npt.NDArray[np.int64], side0: tuple[float, float]) -> npt.NDArray[np.float64]:
    unit = np.array([[0, 0], [1, 0], [1, 1], [0, 1]], np.float64)
    return xy0[:, None, :] + unit[None] * np.asarray(side0)


def _outline(
    picture: Pixels,
    ring: npt.NDArray[np.float64],
    scale0: tuple[float, float],
    colour: tuple[int, int, int],
    thickness: int,
) -> None:
    points = np.round(ring / np.asarray(scale0) * (1 << _SHIFT)).astype(np.int32)
    cv2.polylines(picture, [points], True, colour, thickness, cv2.LINE_AA, _SHIFT)


def _with_footer(picture: Pixels, scale0: tuple[float, float], mask: TissueMask, tiles: int) -> Pixels:
    height, width = picture.shape[:2]
    size = max(12, width // 60)
    canvas = Image.new("RGB", (width, height + 2 * size + size // 2), "white")
    canvas.paste(Image.fromarray(picture), (0, 0))
    draw = ImageDraw.Draw(canvas)
    font = _font(size)
    length_um = scale_bar_um(width * scale0[0] * mask.mpp.x / 5)
    length_px = length_um / (scale0[0] * mask.mpp.x)
    y = height + size * 1.25
    draw.line([(size, y), (size + length_px, y)], fill="black", width=max(3, size // 5))
    draw.text((size * 1.5 + length_px, y), format_um(length_um), fill="black", font=font, anchor="lm")
    text = f"{mask.area_um2 / 1e6:.2f} mm² tissue · {tiles:,} tiles"
    pen = mask.removed_um2.get("pen", 0)
    text += f" · {pen / 1e6:.2f} mm² pen left out" if pen else ""
    draw.text((width - size, y), text, fill="black", font=font, anchor="rm")
    return np.asarray(canvas)


def _font(size: int) -> ImageFont.FreeTypeFont:
    """DejaVu Sans, which matplotlib brings along: Pillow's own font lacks µ and ²."""
    return ImageFont.truetype(Path(matplotlib.get_data_path()) / "fonts" / "ttf" / "DejaVuSans.ttf", size)


def scale_bar_um(at_most_um: float) -> float:
    """The longest of 1, 2, 5 x 10^n um that fits."""
    power = 10.0 ** np.floor(np.log10(at_most_um))
    return float(max(step * power for step in (1, 2, 5) if step * power <= at_most_um))


def format_um(length_um: float) -> str:
    """`500 µm`, `2 mm`."""
    return f"{length_um / 1000:g} mm" if length_um >= 1000 else f"{length_um:g} µm"


def _jpeg(picture: Pixels) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(picture).save(buffer, "JPEG", quality=88)
    return buffer.getvalue()
