"""Shadows: dark smooth ground without colour that reaches the border of the scan, and what was never scanned."""

from __future__ import annotations

import cv2
import numpy as np

from pathpipe.tissue.quality.density import BoolArray, Density, grown, opened, pieces

MIN_DENSITY = 5  # hundredths: 11% darker than the glass of this slide
MAX_TINT = 2  # hundredths by which the primaries may differ, and a tenth of the density
MAX_ROUGHNESS = 3  # hundredths: range within 3 x 3 px; and a quarter of the density, as shadows are slow ramps
MIN_WIDTH_UM = 100.0
MIN_AREA_UM2 = 100_000.0
BORDER_UM = 100.0
BLACK = 180  # hundredths: no light at all


def find_shadow(density: Density) -> BoolArray:
    """Where the light is missing and not the glass stained.

    Two things count: smooth neutral ground darker than the glass, broad, that reaches the border of the picture (the
    slide's own edge, a holder's shade, vignetting, dirt far from focus); and areas of pure even black, wherever they lie,
    as scanners write for what they didn't scan.

    Returns:
        (H, W) bool.
    """
    um = density.pixel_um
    glass = _glass(density)
    tint = density.most - density.least
    rough = cv2.dilate(density.least, _SQUARE) - cv2.erode(density.least, _SQUARE)
    smooth = rough <= MAX_ROUGHNESS + density.least // 4
    dark = (density.least > glass + MIN_DENSITY) & (tint <= MAX_TINT + density.least // 10) & smooth
    shade = _broad(np.asarray(dark), um)
    unscanned = _broad(np.asarray((density.least >= BLACK) & (rough == 0)), um)
    return _reaching_border(shade, BORDER_UM / um) | grown(unscanned, 2)


def _glass(density: Density) -> int:
    """Density of the most common bright neutral shade; 0 where there is too little of any to be glass."""
    bright = density.least[(density.most < 20) & density.neutral]
    counts = np.bincount(bright, minlength=1)
    return int(counts.argmax()) if bright.size > density.least.size / 50 else 0


def _broad(mask: BoolArray, pixel_um: float) -> BoolArray:
    labels, statistics = pieces(opened(mask, MIN_WIDTH_UM / pixel_um))
    large = statistics[:, cv2.CC_STAT_AREA] * pixel_um**2 >= MIN_AREA_UM2
    large[0] = False
    return np.asarray(large[labels])


def _reaching_border(mask: BoolArray, within_px: float) -> BoolArray:
    rim = max(1, round(within_px))
    labels, statistics = pieces(mask)
    left, top = statistics[:, cv2.CC_STAT_LEFT], statistics[:, cv2.CC_STAT_TOP]
    right, below = left + statistics[:, cv2.CC_STAT_WIDTH], top + statistics[:, cv2.CC_STAT_HEIGHT]
    reaches = (left < rim) | (top < rim) | (right > mask.shape[1] - rim) | (below > mask.shape[0] - rim)
    reaches[0] = False
    return np.asarray(reaches[labels])


_SQUARE = np.ones((3, 3), np.uint8)
