"""The picture to look at: tissue, artefacts, regions and the grid of tiles over the slide, and what they amount to."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt
from PIL import Image

from pathpipe.slides.slide import Box, Pixels, Slide
from pathpipe.tissue.artefacts import artefact_colour, artefact_name
from pathpipe.tissue.geojson import Polygon, Ring
from pathpipe.tissue.legend import Entry, Rgb, with_footer
from pathpipe.tissue.mask import BoolArray, TissueMask
from pathpipe.tissue.polygons import TISSUE, trace
from pathpipe.tissue.rois import Rois
from pathpipe.tissue.thumbnail import read_thumbnail

HOLE: Rgb = (200, 90, 0)
GRID: Rgb = (20, 60, 160)
INCLUDE: Rgb = (240, 170, 0)
EXCLUDE: Rgb = (200, 0, 30)
_SHIFT = 4
_MAX_THUMBNAIL = 4  # a scanned part may be so many times smaller than the slide before it loses sharpness


@dataclass(frozen=True)
class Canvas:
    """A picture and where it lies: px (0, 0) begins at `start0`, level-0 px, and a px is `scale0` of them."""

    pixels: Pixels
    start0: tuple[float, float]
    scale0: tuple[float, float]

    def points(self, xy0: npt.NDArray[np.float64]) -> npt.NDArray[np.int32]:
        """Level-0 positions in the fixed-point px that cv2 draws at."""
        px = (xy0 - np.asarray(self.start0)) / np.asarray(self.scale0) - 0.5
        return np.clip(np.round(px * (1 << _SHIFT)), -(1 << 24), 1 << 24).astype(np.int32)


def draw_overlay(
    slide: Slide,
    mask: TissueMask,
    xy0: npt.NDArray[np.int64],
    side0: tuple[float, float],
    width_px: int,
    rois: Rois | None = None,
) -> bytes:
    """Draw tissue, holes, artefacts, regions of interest and tiles over the slide, or its scanned part.

    Args:
        xy0: (N, 2) tile corners, level-0 px.
        side0: (width, height) of a tile, level-0 px.
        width_px: Longest side of the picture.

    Returns:
        A JPEG file. Its comment holds the size of the picture without its footer, `WxH`.
    """
    canvas = _canvas(slide, width_px)
    _draw_artefacts(canvas, mask)
    canvas = _with_tiles(canvas, xy0, side0)
    thickness = max(2, width_px // 600)
    polygons = trace(mask.mask, mask.scale0)
    for outer, *holes in polygons:
        _outline(canvas, [outer], TISSUE, thickness)
        _outline(canvas, holes, HOLE, thickness)
    if rois is not None:
        _draw_regions(canvas, rois, thickness)
    height, width = canvas.pixels.shape[:2]
    entries = _entries(canvas, mask, len(xy0), any(len(rings) > 1 for rings in polygons), rois)
    picture = with_footer(canvas.pixels, entries, mask.flags)
    return _jpeg(picture, f"{width}x{height}")


def _canvas(slide: Slide, width_px: int) -> Canvas:
    """The scanned part of a slide, its longest side `width_px`: small slides are shown large enough for lines."""
    box = slide.bounds or Box(0, 0, *slide.size0)
    finest = max(slide.size0) / (_MAX_THUMBNAIL * width_px)
    thumbnail = read_thumbnail(slide, max(max(box.w, box.h) / width_px, finest))
    x, y = thumbnail.scale0
    left, top = max(0, int(box.x0 / x)), max(0, int(box.y0 / y))
    right, below = int(np.ceil((box.x0 + box.w) / x)), int(np.ceil((box.y0 + box.h) / y))
    part = thumbnail.pixels[top:below, left:right]
    height, width = part.shape[:2]
    factor = width_px / max(height, width)
    size = (max(1, round(width * factor)), max(1, round(height * factor)))
    how = cv2.INTER_AREA if factor < 1 else cv2.INTER_CUBIC
    pixels = np.asarray(cv2.resize(np.ascontiguousarray(part), size, interpolation=how), np.uint8)
    return Canvas(pixels, (left * x, top * y), (x * width / size[0], y * height / size[1]))


def _draw_artefacts(canvas: Canvas, mask: TissueMask) -> None:
    height, width = canvas.pixels.shape[:2]
    rows, columns = np.ogrid[:height, :width]
    stripes = (rows + columns) // max(3, max(height, width) // 250) % 2 == 0
    for kind, where in mask.artefacts.items():
        if not where.any():
            continue
        colour = artefact_colour(kind)
        here = _on_canvas(canvas, where, mask.scale0)
        for part, opacity in ((here & stripes, 0.6), (here & ~stripes, 0.2)):
            tinted = canvas.pixels[part] * (1 - opacity) + np.asarray(colour) * opacity
            canvas.pixels[part] = np.round(tinted).astype(np.uint8)
        for polygon in trace(where, mask.scale0):
            _outline(canvas, polygon, colour, 1)


def _on_canvas(canvas: Canvas, mask: BoolArray, scale0: tuple[float, float]) -> BoolArray:
    """A mask at the px of the canvas, by the nearest."""
    height, width = canvas.pixels.shape[:2]
    x = ((np.arange(width) + 0.5) * canvas.scale0[0] + canvas.start0[0]) / scale0[0]
    y = ((np.arange(height) + 0.5) * canvas.scale0[1] + canvas.start0[1]) / scale0[1]
    columns, rows = np.minimum(x.astype(int), mask.shape[1] - 1), np.minimum(y.astype(int), mask.shape[0] - 1)
    return mask[rows[:, None], columns[None, :]]


def _with_tiles(canvas: Canvas, xy0: npt.NDArray[np.int64], side0: tuple[float, float]) -> Canvas:
    """Tiles tinted, and outlined where they are large enough for their lines not to hide the slide."""
    if not len(xy0):
        return canvas
    side_px = side0[0] / canvas.scale0[0]
    covered = _covered(canvas, xy0, side0)
    opacity = 0.1 if side_px >= 6 else 0.25
    shaded = np.where(covered[..., None], np.asarray(GRID, np.uint8), canvas.pixels)
    pixels = np.asarray(cv2.addWeighted(canvas.pixels, 1 - opacity, shaded, opacity, 0), np.uint8)
    if side_px >= 6:
        unit = np.array([[0, 0], [1, 0], [1, 1], [0, 1]], np.float64)
        corners = canvas.points(xy0[:, None, :] + unit[None] * np.asarray(side0))
        lined = pixels.copy()
        cv2.polylines(lined, list(corners), True, GRID, 1, cv2.LINE_AA, _SHIFT)
        opacity = min(1.0, side_px / 24)
        pixels = np.asarray(cv2.addWeighted(pixels, 1 - opacity, lined, opacity, 0), np.uint8)
    return Canvas(pixels, canvas.start0, canvas.scale0)


def _covered(canvas: Canvas, xy0: npt.NDArray[np.int64], side0: tuple[float, float]) -> BoolArray:
    """Px under a tile or more, however they overlap: corners are counted up and down, and summed."""
    height, width = canvas.pixels.shape[:2]
    first = np.round((xy0 - np.asarray(canvas.start0)) / np.asarray(canvas.scale0)).astype(np.int64)
    after = np.round((xy0 + np.asarray(side0) - np.asarray(canvas.start0)) / np.asarray(canvas.scale0)).astype(np.int64)
    after = np.maximum(after, first + 1)
    (left, top), (right, below) = (np.clip(at, 0, [width, height]).T for at in (first, after))
    change = np.zeros((height + 1, width + 1), np.int32)
    for row, column, step in ((top, left, 1), (top, right, -1), (below, left, -1), (below, right, 1)):
        np.add.at(change, (row, column), step)
    return np.asarray(change.cumsum(axis=0).cumsum(axis=1)[:-1, :-1] > 0)


def _draw_regions(canvas: Canvas, rois: Rois, thickness: int) -> None:
    for polygons, colour in ((rois.include or [], INCLUDE), (rois.exclude, EXCLUDE)):
        for polygon in polygons:
            _outline(canvas, polygon, (255, 255, 255), thickness + 3)
            _outline(canvas, polygon, colour, thickness + 1)


def _outline(canvas: Canvas, rings: Sequence[Ring], colour: Rgb, thickness: int) -> None:
    cv2.polylines(canvas.pixels, [canvas.points(ring) for ring in rings], True, colour, thickness, cv2.LINE_AA, _SHIFT)


def _entries(canvas: Canvas, mask: TissueMask, tiles: int, holes: bool, rois: Rois | None) -> list[Entry]:
    um_px = canvas.scale0[0] * mask.mpp.x
    length_um = scale_bar_um(canvas.pixels.shape[1] * um_px / 5)
    entries = [
        Entry(format_um(length_um), "bar", length_px=length_um / um_px),
        Entry(f"{mask.area_um2 / 1e6:.2f} mm² tissue", "line", TISSUE),
        Entry(f"{tiles:,} {'tile' if tiles == 1 else 'tiles'}", "box", GRID),
    ]
    if holes:
        entries.insert(2, Entry("hole", "line", HOLE))
    for kind, where in mask.artefacts.items():
        area_mm2 = float(where.sum()) * mask.pixel_um2 / 1e6
        if area_mm2:
            text = f"{artefact_name(kind).lower()} {area_mm2:.2f} mm²"
            left_out = mask.removed_um2.get(kind, 0) / 1e6
            text += f" ({left_out:.2f} left out)" if left_out else ""
            entries.append(Entry(text, "hatch", artefact_colour(kind)))
    parts: list[tuple[Sequence[Polygon], str, Rgb]] = []
    if rois is not None:
        parts = [(rois.include or [], "region wanted", INCLUDE), (rois.exclude, "region left out", EXCLUDE)]
    entries += [Entry(name, "line", colour) for polygons, name, colour in parts if polygons]
    return entries


def scale_bar_um(at_most_um: float) -> float:
    """The longest of 1, 2, 5 x 10^n um that fits."""
    power = 10.0 ** np.floor(np.log10(at_most_um))
    return float(max(step * power for step in (1, 2, 5) if step * power <= at_most_um))


def format_um(length_um: float) -> str:
    """`500 µm`, `2 mm`."""
    return f"{length_um / 1000:g} mm" if length_um >= 1000 else f"{length_um:g} µm"


def _jpeg(picture: Pixels, comment: str) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(picture).save(buffer, "JPEG", quality=88, comment=comment)
    return buffer.getvalue()
