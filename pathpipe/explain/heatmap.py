"""Heatmaps: scores painted over a slide, beside the slide and its truth."""

from __future__ import annotations

import io
from dataclasses import dataclass

import matplotlib
import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.patheffects import withStroke

from pathpipe.explain.scores import Scores
from pathpipe.explain.truth import Truth
from pathpipe.settings import HeatmapSettings
from pathpipe.slides.slide import Mpp
from pathpipe.tissue.overlay import format_um, scale_bar_um
from pathpipe.tissue.thumbnail import Thumbnail

Floats = npt.NDArray[np.float64]
_DPI = 100
_TRUTH = "#00c8a0"
_SLACK = 1e-6  # px: a corner this close to a pixel's edge lies on it


@dataclass(frozen=True, eq=False)
class Canvas:
    """What a heatmap is painted on.

    Attributes:
        thumbnail: The slide.
        mpp: Of level 0.
        side0: (width, height) of a tile, level-0 px.
        truth: What is marked on it.
    """

    thumbnail: Thumbnail
    mpp: Mpp
    side0: tuple[float, float]
    truth: Truth


def paint(
    xy0: npt.NDArray[np.int64],
    values: Floats,
    side0: tuple[float, float],
    shape: tuple[int, int],
    scale0: tuple[float, float],
) -> Floats:
    """Values of tiles as a picture: every pixel that a tile touches; where several do, their mean.

    A tile adds +v and -v at its four corners of a difference array, and two cumulative sums fill it: the cost is that
    of the picture, not of tiles times their area.

    Args:
        shape: (H, W) of the picture.
        scale0: Level-0 px per px, (x, y); the picture begins at (0, 0).

    Returns:
        (H, W), NaN where there is no tile.
    """
    (height, width), scale = shape, np.asarray(scale0)
    # Outwards, not to the nearest: rounding would leave hairlines between neighbours whose corners are whole pixels
    # of level 0, and would lose tiles smaller than a pixel.
    start = np.clip(np.floor(xy0 / scale + _SLACK), 0, [width, height]).astype(np.intp)
    end = np.clip(np.ceil((xy0 + np.asarray(side0)) / scale - _SLACK), 0, [width, height]).astype(np.intp)
    total, count = np.zeros((2, height + 1, width + 1))
    for target, value in ((total, values), (count, np.ones(len(xy0)))):
        np.add.at(target, (start[:, 1], start[:, 0]), value)
        np.add.at(target, (end[:, 1], end[:, 0]), value)
        np.add.at(target, (start[:, 1], end[:, 0]), -value)
        np.add.at(target, (end[:, 1], start[:, 0]), -value)
    for array in (total, count):
        np.cumsum(array, axis=0, out=array)
        np.cumsum(array, axis=1, out=array)
    count = np.round(count[:height, :width])
    return np.where(count > 0, total[:height, :width] / np.maximum(count, 1), np.nan)


def paint_scores(scores: Scores, canvas: Canvas, scale: str) -> Floats:
    """(H, W) of the thumbnail: ranks or raw scores, NaN where there is no tile."""
    values = scores.ranks() if scale == "percentile" else scores.score
    height, width = canvas.thumbnail.pixels.shape[:2]
    return paint(scores.xy0, values, canvas.side0, (height, width), canvas.thumbnail.scale0)


def value_range(scores: Scores, scale: str) -> tuple[float, float]:
    """What the ends of the colour map stand for."""
    return (0.0, 1.0) if scale == "percentile" else (float(scores.score.min()), float(scores.score.max()))


def draw_heatmap(canvas: Canvas, scores: Scores, title: str, settings: HeatmapSettings) -> bytes:
    """Two panels: the slide with the truth outlined, and the scores over it.

    Returns:
        A PNG file; equal input gives equal bytes.
    """
    painted = paint_scores(scores, canvas, settings.scale)
    height, width = canvas.thumbnail.pixels.shape[:2]
    panel = settings.width_px / 2 / _DPI
    figure = Figure(figsize=(2 * panel + 0.9, panel * height / width + 0.75), dpi=_DPI, layout="constrained")
    FigureCanvasAgg(figure)
    left, right = figure.subplots(1, 2)
    for axes in (left, right):
        axes.imshow(canvas.thumbnail.pixels, interpolation="lanczos")
        axes.set_xlim(-0.5, width - 0.5)
        axes.set_ylim(height - 0.5, -0.5)
        axes.set_axis_off()
        _outline(axes, canvas)
    colours = matplotlib.colormaps[settings.colours]
    low, high = value_range(scores, settings.scale)
    image = right.imshow(painted, cmap=colours, vmin=low, vmax=high, alpha=settings.opacity, interpolation="nearest")
    bar = figure.colorbar(image, cax=right.inset_axes((1.02, 0, 0.035, 1)))
    unit = "rank within the slide" if settings.scale == "percentile" else "raw"
    bar.set_label(f"{scores.kind}, {unit}", parse_math=False)  # names of classes and slides may hold dollar signs
    if bar.solids is not None:
        bar.solids.set_alpha(1)
    _scale_bar(left, canvas)
    left.set_title("slide" + (" with the truth marked" if canvas.truth else ""), fontsize=10)
    right.set_title(scores.kind, fontsize=10, parse_math=False)
    figure.suptitle(title, fontsize=12, parse_math=False)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", metadata={"Software": None})
    return buffer.getvalue()


def _outline(axes: Axes, canvas: Canvas) -> None:
    for rings in canvas.truth.polygons:
        for ring in rings:
            closed = np.vstack([ring, ring[:1]]) / np.asarray(canvas.thumbnail.scale0) - 0.5
            axes.plot(closed[:, 0], closed[:, 1], color="black", linewidth=2.6)
            axes.plot(closed[:, 0], closed[:, 1], color=_TRUTH, linewidth=1.5)
    if len(canvas.truth.points):
        x, y = (canvas.truth.points / np.asarray(canvas.thumbnail.scale0) - 0.5).T
        axes.plot(x, y, linestyle="none", marker=".", markersize=2, color=_TRUTH, rasterized=True)


def _scale_bar(axes: Axes, canvas: Canvas) -> None:
    height, width = canvas.thumbnail.pixels.shape[:2]
    um_px = canvas.thumbnail.scale0[0] * canvas.mpp.x
    length_um = scale_bar_um(width * um_px / 5)
    x, y = width * 0.03, height * 0.97
    axes.plot([x, x + length_um / um_px], [y, y], color="white", linewidth=5, solid_capstyle="butt")
    axes.plot([x, x + length_um / um_px], [y, y], color="black", linewidth=3, solid_capstyle="butt")
    halo = [withStroke(linewidth=2.5, foreground="white")]
    axes.annotate(format_um(length_um), (x, y), (0, 5), textcoords="offset points", fontsize=9, path_effects=halo)
