"""Saturation and Otsu's threshold: stain is coloured, glass is not."""

from __future__ import annotations

import cv2
import numpy as np
import numpy.typing as npt
from pydantic import Field

from pathpipe.settings import Settings
from pathpipe.slides.slide import Pixels
from pathpipe.tissue.method import BoolArray, Found, TissueMethod, View
from pathpipe.tissue.methods.glass import as_bright_as_glass, find_glass, white_of

FLOOR = 12.0  # saturation of JPEG noise on real scans stays below this, and above tinted glass by no more
DARK = 30  # of 255: saturation of what is nearly black means nothing
SPREADS = 6.0  # saturation this many standard deviations above glass is stain


class Otsu(TissueMethod):
    """Pixels more saturated than a threshold found on each slide, and darker than its glass."""

    class Options(Settings):
        """Options of `otsu`."""

        threshold: float | None = Field(None, ge=0, le=255, description="Fixed saturation 0-255 in place of Otsu's")

    def __init__(self, options: Options) -> None:
        self.options = options

    def find(self, view: View) -> Found:
        """See `TissueMethod`."""
        if self.options.threshold is not None:
            return Found(saturation(view.pixels) > self.options.threshold, self.options.threshold)
        saturated = saturation(balanced(view.pixels, view.ink))
        threshold = saturation_threshold(saturated, view.ink)
        mask = saturated > threshold
        return Found(mask & ~as_bright_as_glass(view.pixels, mask | view.ink), threshold)


def balanced(pixels: Pixels, ink: BoolArray) -> Pixels:
    """The picture as if its glass were white: blue counterstain on yellowish glass is grey, and has no saturation."""
    scale = 255 / white_of(pixels, ink)
    table = np.clip(np.rint(np.arange(256)[:, None] * scale), 0, 255).astype(np.uint8)
    return np.asarray(cv2.LUT(pixels, table.reshape(1, 256, 3)), np.uint8)


def saturation(pixels: Pixels) -> npt.NDArray[np.uint8]:
    """Smoothed HSV saturation, (H, W) uint8; what is nearly black counts as unsaturated."""
    hsv = cv2.cvtColor(pixels, cv2.COLOR_RGB2HSV)
    light = cv2.threshold(cv2.extractChannel(hsv, 2), DARK, 255, cv2.THRESH_BINARY)[1]
    saturated = cv2.bitwise_and(cv2.extractChannel(hsv, 1), light)
    return np.asarray(cv2.medianBlur(saturated, 5), np.uint8)


def saturation_threshold(values: npt.NDArray[np.uint8], ignore: BoolArray | None = None) -> float:
    """The saturation that parts tissue from glass on one slide.

    Otsu's threshold finds the glass; it is then lowered to where the glass ends, because Otsu on a slide of strong and
    pale stain calls the pale part glass. The floor keeps an empty slide empty, where Otsu would give half its noise as
    tissue. Where even the lower class is clearly coloured there is no glass, and the floor alone decides.

    Reference: Otsu (1979), IEEE Trans. SMC 9(1), 62-66.
    """
    glass, otsu = find_glass(values, ignore)
    if glass is None or glass.level > 2 * FLOOR:
        return FLOOR
    end = glass.level + max(SPREADS * glass.spread, FLOOR)
    return float(np.clip(end, FLOOR, max(otsu, FLOOR)))
