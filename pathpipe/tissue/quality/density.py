"""Optical density of a thumbnail in whole numbers, and the few shapes every kind of artefact is told by."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

from pathpipe.slides.slide import Pixels

DensityArray = npt.NDArray[np.int16]
BoolArray = npt.NDArray[np.bool_]

WHITE = 245.0  # glass of usual scans; a darker glass adds a little to all three


@dataclass(frozen=True)
class Density:
    """How much of each primary a thumbnail absorbs, in hundredths of optical density; 0 where brighter than glass.

    Attributes:
        red: (H, W) int16.
        green: (H, W) int16.
        blue: (H, W) int16.
        least: (H, W) int16, the least of the three.
        most: (H, W) int16, the most of the three.
        pixel_um: Side of a pixel, um.
    """

    red: DensityArray
    green: DensityArray
    blue: DensityArray
    least: DensityArray
    most: DensityArray
    pixel_um: float

    @property
    def neutral(self) -> BoolArray:
        """Where the three are nearly alike, as in a shadow and never in stain."""
        return np.asarray(self.most - self.least < self.least // 2 + 3)


def measure_density(pixels: Pixels, pixel_um: float) -> Density:
    """The density of a thumbnail, free of single odd pixels."""
    red, green, blue = (cv2.LUT(cv2.medianBlur(one, 3), _TABLE) for one in cv2.split(pixels))
    least, most = cv2.min(cv2.min(red, green), blue), cv2.max(cv2.max(red, green), blue)
    red, green, blue, least, most = (one.astype(np.int16) for one in (red, green, blue, least, most))
    return Density(red, green, blue, least, most, pixel_um)


def pieces(mask: BoolArray) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.int32]]:
    """Label of every pixel (0 = none, 8-connected) and the statistics OpenCV gives of each label."""
    _, labels, statistics, _ = cv2.connectedComponentsWithStats(mask.view(np.uint8), connectivity=8, ltype=cv2.CV_32S)
    return np.asarray(labels, np.int32), np.asarray(statistics, np.int32)


def kept_pieces(mask: BoolArray, keep: Callable[[npt.NDArray[np.int32]], npt.NDArray[np.bool_]]) -> BoolArray:
    """The pieces of a mask that a rule on their statistics keeps."""
    if not mask.any():  # as on most slides, for most artefacts
        return mask
    labels, statistics = pieces(mask)
    kept = keep(statistics)
    kept[0] = False
    return np.asarray(np.take(kept, labels))


def opened(mask: BoolArray, width_px: float) -> BoolArray:
    """What of a mask is at least that wide both ways."""
    side = max(1, round(width_px))
    return np.asarray(cv2.morphologyEx(mask.view(np.uint8), cv2.MORPH_OPEN, np.ones((side, side), np.uint8))).view(bool)


def grown(mask: BoolArray, reach_px: float) -> BoolArray:
    """A mask and what lies within about that distance of it."""
    if reach_px < 1 or not mask.any():
        return mask
    if reach_px < 4:
        side = 2 * round(reach_px) + 1
        kernel = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (side, side))
        return np.asarray(cv2.dilate(mask.view(np.uint8), kernel)).view(bool)
    # one pass however far, where a dilation costs the area of its kernel
    away = cv2.distanceTransform((~mask).view(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_3)
    return np.asarray(away <= reach_px)


_TABLE = np.round(-np.log10(np.clip(np.arange(256), 1, WHITE) / WHITE) * 100).astype(np.uint8)
