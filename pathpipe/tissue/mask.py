"""The noun `TissueMask`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from pathpipe.slides.slide import Mpp, Pixels

BoolArray = npt.NDArray[np.bool_]
Integral = npt.NDArray[Any]


@dataclass(frozen=True)
class TissueMask:
    """Where the tissue is.

    Attributes:
        mask: (H, W) bool.
        scale0: Level-0 px per mask px, (x, y), placed as in `Thumbnail`.
        mpp: Resolution of level 0, um/px.
        method: What found it: a tissue method's name, or `given` for polygons from outside.
        threshold: The number that parted tissue from glass, in the method's own unit, or None.
        artefacts: Kind (`pen`, `blur`, ...) -> (H, W) bool, where it was seen, whether it was left out or only flagged.
        removed_um2: Reason -> area left out for it.
        colour: `mean` and `std` of R, G, B over tissue pixels of the mask's resolution; empty without tissue.
        flags: Sentences a person should read.
    """

    mask: BoolArray
    scale0: tuple[float, float]
    mpp: Mpp
    threshold: float | None = None
    method: str = "otsu"
    artefacts: Mapping[str, BoolArray] = field(default_factory=dict)
    removed_um2: Mapping[str, float] = field(default_factory=dict)
    colour: Mapping[str, list[float]] = field(default_factory=dict)
    flags: tuple[str, ...] = ()

    @property
    def pixel_um2(self) -> float:
        """Area of one mask pixel, um2."""
        return self.scale0[0] * self.mpp.x * self.scale0[1] * self.mpp.y

    @property
    def area_um2(self) -> float:
        """Area of the tissue, um2."""
        return float(np.count_nonzero(self.mask)) * self.pixel_um2

    @property
    def empty_reason(self) -> str | None:
        """Why there is nothing, or None where there is something."""
        if self.mask.any():
            return None
        if self.method == "given":
            return "the outlines given for it hold no tissue"
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
        return area_share(self._integral, self.scale0, xy0, side0)

    @cached_property
    def _integral(self) -> Integral:
        return integral(self.mask)  # asked for in blocks of boxes, and again for the tiles of regions


def tissue_colour(pixels: Pixels, mask: BoolArray) -> dict[str, list[float]]:
    """`mean` and `std` of R, G, B over the pixels of a mask; empty where it is."""
    if not mask.any():
        return {}
    mean, std = cv2.meanStdDev(pixels, mask=np.ascontiguousarray(mask).view(np.uint8))
    return {"mean": np.round(mean.ravel(), 4).tolist(), "std": np.round(std.ravel(), 4).tolist()}


def integral(mask: BoolArray) -> Integral:
    """(H + 1, W + 1) sums of a mask over everything above and left of each corner of its pixels."""
    depth = cv2.CV_32S if mask.size < 1 << 31 else cv2.CV_64F
    return np.asarray(cv2.integral(np.ascontiguousarray(mask).view(np.uint8), sdepth=depth))


def area_share(
    sums: Integral, scale0: tuple[float, float], xy0: npt.NDArray[Any], side0: tuple[float, float]
) -> npt.NDArray[np.float32]:
    """Share of boxes that a mask covers, exact for boxes that cut through its pixels.

    Args:
        sums: `integral` of the mask; its px (0, 0) begins at the origin of `xy0`.
        scale0: Level-0 px per mask px, (x, y).
        xy0: (N, 2) top left corners of the boxes, level-0 px.
        side0: (width, height) of every box, level-0 px.

    Returns:
        (N,) float32, 0 to 1. What lies outside the mask counts as bare.
    """
    left, top = xy0[:, 0] / scale0[0], xy0[:, 1] / scale0[1]
    right, below = left + side0[0] / scale0[0], top + side0[1] / scale0[1]
    inside = _at(sums, below, right) - _at(sums, top, right) - _at(sums, below, left) + _at(sums, top, left)
    area = side0[0] / scale0[0] * side0[1] / scale0[1]
    return np.clip(inside / area, 0, 1).astype(np.float32)


def _at(sums: Integral, row: npt.NDArray[np.float64], column: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """The integral between its nodes: bilinear, which is exact because pixels are constant."""
    row = np.clip(row, 0, sums.shape[0] - 1)
    column = np.clip(column, 0, sums.shape[1] - 1)
    r0 = np.minimum(row.astype(np.intp), sums.shape[0] - 2)
    c0 = np.minimum(column.astype(np.intp), sums.shape[1] - 2)
    r, c = row - r0, column - c0
    upper = sums[r0, c0] * (1 - c) + sums[r0, c0 + 1] * c
    lower = sums[r0 + 1, c0] * (1 - c) + sums[r0 + 1, c0 + 1] * c
    return upper * (1 - r) + lower * r
