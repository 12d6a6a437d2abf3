"""Pen marks by the colour of ink: pure blue, green, red or black, in strokes wider than cells."""

from __future__ import annotations

import cv2
import numpy as np
import numpy.typing as npt

from pathpipe.slides.slide import Pixels

MIN_WIDTH_UM = 24.0  # no nucleus, pigment grain or red cell is as wide; every pen stroke is
MIN_AREA_UM2 = 20_000.0
HALO_UM = 48.0  # ink bleeds


def find_pen(pixels: Pixels, pixel_um: float) -> npt.NDArray[np.bool_]:
    """Pixels covered by ink.

    Ink absorbs two of the three primaries nearly whole and the third little; stains absorb all three, and never green
    least. Haematoxylin is a blue that keeps much red, eosin and DAB keep more red than ink does relative to blue.

    Args:
        pixels: (H, W, 3) uint8.
        pixel_um: Side of a pixel, um.

    Returns:
        (H, W) bool.
    """
    smooth = cv2.medianBlur(pixels, 3).astype(np.int16)
    red, green, blue = smooth[..., 0], smooth[..., 1], smooth[..., 2]
    bluish = (blue > red + 60) & (blue > green + 30) & (red < 120) & (green < 150)
    greenish = (green > red + 25) & (green > blue + 5) & (red < 160)
    reddish = (red > 140) & (green < 75) & (blue < 90) & (red > blue + 70)
    blackish = (smooth.max(axis=2) < 70) & (smooth.max(axis=2) - smooth.min(axis=2) < 25)
    found = np.zeros(red.shape, bool)
    for ink in (bluish, greenish, reddish, blackish):
        found |= _strokes(ink, pixel_um)
    if not found.any():
        return found
    reach = max(1, round(HALO_UM / pixel_um))
    kernel = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * reach + 1, 2 * reach + 1))
    return np.asarray(cv2.dilate(found.astype(np.uint8), kernel), dtype=bool)


def _strokes(ink: npt.NDArray[np.bool_], pixel_um: float) -> npt.NDArray[np.bool_]:
    """The pieces of ink that are as wide and as large as a stroke."""
    width = max(1, round(MIN_WIDTH_UM / pixel_um))
    opened = cv2.morphologyEx(ink.astype(np.uint8), cv2.MORPH_OPEN, np.ones((width, width), np.uint8))
    count, labels, stats, _ = cv2.connectedComponentsWithStats(opened, connectivity=8)
    large = stats[:, cv2.CC_STAT_AREA] * pixel_um**2 >= MIN_AREA_UM2
    large[0] = False
    return np.asarray(large[labels]) if count > 1 else np.zeros(ink.shape, bool)
