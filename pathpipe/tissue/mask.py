"""The noun `TissueMask`, and its making from a slide."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from pathpipe.settings import TissueSettings
from pathpipe.slides.slide import Mpp, Pixels, Slide
from pathpipe.tissue.holes import close_gaps, drop_small, fill_holes
from pathpipe.tissue.otsu import saturation, saturation_threshold
from pathpipe.tissue.pen import find_pen
from pathpipe.tissue.thumbnail import read_thumbnail

BoolArray = npt.NDArray[np.bool_]
MAX_PEN_SHARE = 0.5


@dataclass(frozen=True)
class TissueMask:
    """Where the tissue is.

    Attributes:
        mask: (H, W) bool.
        scale0: Level-0 px per mask px, (x, y), placed as in `Thumbnail`.
        mpp: Resolution of level 0, um/px.
        threshold: Saturation (0-255) above which a pixel is tissue.
        removed_um2: Reason -> area left out for it.
        colour: `mean` and `std` of R, G, B over tissue pixels of the mask's resolution; empty without tissue.
        warning: Something a person should look at.
    """

    mask: BoolArray
    scale0: tuple[float, float]
    mpp: Mpp
    threshold: float
    removed_um2: Mapping[str, float] = field(default_factory=dict)
    colour: Mapping[str, list[float]] = field(default_factory=dict)
    warning: str | None = None

    @property
    def pixel_um2(self) -> float:
        """Area of one mask pixel, um2."""
        return self.scale0[0] * self.mpp.x * self.scale0[1] * self.mpp.y

    @property
    def area_um2(self) -> float:
        """Area of the tissue, um2."""
        return float(self.mask.sum()) * self.pixel_um2

    @property
    def empty_reason(self) -> str | None:
        """Why there is nothing, or None where there is something."""
        if self.mask.any():
            return None
        dropped = self.removed_um2.get("small pieces", 0)
        return f"no tissue found but pieces too small to keep ({dropped:.0f} um2)" if dropped else "no tissue found"

    def fraction(self, xy0: npt.NDArray[np.int64], side0: tuple[float, float]) -> npt.NDArray[np.float32]:
        """Share of tissue in boxes, exact for boxes that cut through mask pixels.

        Args:
            xy0: (N, 2) top left corners, level-0 px.
            side0: (width, height) of every box, level-0 px.

        Returns:
            (N,) float32, 0 to 1. What lies outside the mask counts as bare.
        """
        height, width = self.mask.shape
        integral = np.zeros((height + 1, width + 1))
        integral[1:, 1:] = self.mask.cumsum(0, dtype=np.float64).cumsum(1)
        left, top = xy0[:, 0] / self.scale0[0], xy0[:, 1] / self.scale0[1]
        right, below = left + side0[0] / self.scale0[0], top + side0[1] / self.scale0[1]
        inside = (
            _at(integral, below, right)
            - _at(integral, top, right)
            - _at(integral, below, left)
            + _at(integral, top, left)
        )
        area = side0[0] / self.scale0[0] * side0[1] / self.scale0[1]
        return np.clip(inside / area, 0, 1).astype(np.float32)


def _at(
    integral: npt.NDArray[np.float64], row: npt.NDArray[np.float64], column: npt.NDArray[np.float64]
) -> npt.NDArray[np.float64]:
    """The integral image between its nodes: bilinear, which is exact because pixels are constant."""
    row = np.clip(row, 0, integral.shape[0] - 1)
    column = np.clip(column, 0, integral.shape[1] - 1)
    r0 = np.minimum(row.astype(np.intp), integral.shape[0] - 2)
    c0 = np.minimum(column.astype(np.intp), integral.shape[1] - 2)
    r, c = row - r0, column - c0
    upper = integral[r0, c0] * (1 - c) + integral[r0, c0 + 1] * c
    lower = integral[r0 + 1, c0] * (1 - c) + integral[r0 + 1, c0 + 1] * c
    return upper * (1 - r) + lower * r


def segment(slide: Slide, mpp: Mpp, settings: TissueSettings) -> TissueMask:
    """Find the tissue of a slide by saturation.

    Args:
        mpp: Resolution of level 0.

    Returns:
        A mask; all False, with its reason, where there is no tissue.

    Raises:
        SlideError: The slide can't be read.
    """
    thumbnail = read_thumbnail(slide, settings.mpp / mpp.mean)
    return segment_pixels(thumbnail.pixels, thumbnail.scale0, mpp, settings)


def segment_pixels(pixels: Pixels, scale0: tuple[float, float], mpp: Mpp, settings: TissueSettings) -> TissueMask:
    """Find the tissue in a thumbnail, (H, W, 3) uint8."""
    pixel_um2 = scale0[0] * mpp.x * scale0[1] * mpp.y
    pixel_um = float(np.sqrt(pixel_um2))
    saturated = saturation(pixels)
    pen = find_pen(pixels, pixel_um) if settings.pen else np.zeros(saturated.shape, bool)
    threshold = settings.threshold
    if threshold is None:
        threshold = saturation_threshold(saturated[~pen])
    coloured = saturated > threshold
    removed, warning = {}, None
    if pen.any() and (coloured & pen).sum() > MAX_PEN_SHARE * coloured.sum() and (coloured & ~pen).any():
        pen, warning = (
            np.zeros_like(pen),
            "pen detection took most of the tissue and was ignored: look at the overlay",
        )
    if pen.any():
        removed["pen"] = float((coloured & pen).sum()) * pixel_um2
    mask = close_gaps(coloured & ~pen, settings.close_um / pixel_um) & ~pen
    mask = fill_holes(mask, settings.max_hole_um2 / pixel_um2) & ~pen
    kept = drop_small(mask, settings.min_area_um2 / pixel_um2)
    removed["small pieces"] = float(mask.sum() - kept.sum()) * pixel_um2
    return TissueMask(kept, scale0, mpp, float(threshold), removed, _colour(pixels, kept), warning)


def _colour(pixels: Pixels, mask: BoolArray) -> dict[str, list[float]]:
    inside = pixels[mask].astype(np.float64)
    if not len(inside):
        return {}
    return {"mean": np.round(inside.mean(0), 4).tolist(), "std": np.round(inside.std(0), 4).tolist()}
