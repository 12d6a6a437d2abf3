"""Shadows: dark smooth ground without colour that reaches the border of the scan, and what was never scanned."""

from __future__ import annotations

import cv2
import numpy as np
import numpy.typing as npt

from pathpipe.tissue.quality.density import BoolArray, Density, grown, kept_pieces, opened

MIN_DENSITY = 5  # hundredths: 11% darker than the glass of this slide
MAX_TINT = 2  # hundredths by which the primaries may differ, and a tenth of the density
MAX_ROUGHNESS = 3  # hundredths: range within 3 x 3 px; and a quarter of the density, as shadows are slow ramps
MIN_WIDTH_UM = 100.0
MIN_AREA_UM2 = 100_000.0
BORDER_UM = 100.0
BLACK = 180  # hundredths: no light at all


def find_shadow(density: Density) -> BoolArray:
    """Where the light is missing and not the glass stained.

    Smooth neutral ground, broad, darker than the glass, that reaches the border of the picture: the slide's own edge,
    a holder's shade, vignetting.

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
    return _reaching_border(shade, BORDER_UM / um)


def find_unscanned(density: Density) -> BoolArray:
    """Areas of pure even black, wherever they lie, as scanners write for what they didn't scan; (H, W) bool."""
    black = density.least >= BLACK
    if not black.any():
        return black
    even = cv2.dilate(density.least, _SQUARE) == cv2.erode(density.least, _SQUARE)
    return grown(_broad(np.asarray(black & even), density.pixel_um), 2)


def _glass(density: Density) -> int:
    """Density of the most common bright neutral shade; 0 where there is too little of any to be glass."""
    bright = density.least[(density.most < 20) & density.neutral]
    counts = np.bincount(bright, minlength=1)
    return int(counts.argmax()) if bright.size > density.least.size / 50 else 0


def _broad(mask: BoolArray, pixel_um: float) -> BoolArray:
    broad = opened(mask, MIN_WIDTH_UM / pixel_um)
    return kept_pieces(broad, lambda found: found[:, cv2.CC_STAT_AREA] * pixel_um**2 >= MIN_AREA_UM2)


def _reaching_border(mask: BoolArray, within_px: float) -> BoolArray:
    rim = max(1, round(within_px))

    def reaches(found: npt.NDArray[np.int32]) -> npt.NDArray[np.bool_]:
        left, top, width, height = found[:, :4].T
        below, right = mask.shape[0] - rim, mask.shape[1] - rim
        return np.asarray((left < rim) | (top < rim) | (left + width > right) | (top + height > below))

    return kept_pieces(mask, reaches)


_SQUARE = np.ones((3, 3), np.uint8)
