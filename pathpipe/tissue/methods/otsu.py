"""Saturation and Otsu's threshold: stain is coloured, glass is not."""

from __future__ import annotations

import cv2
import numpy as np
import numpy.typing as npt
from pydantic import Field

from pathpipe.settings import Settings
from pathpipe.slides.slide import Pixels
from pathpipe.tissue.method import Found, View

FLOOR = 12.0  # saturation of JPEG noise and of tinted glass on real scans stays below this
DARK = 30  # of 255: saturation of what is nearly black means nothing


class Otsu:
    """Pixels more saturated than a threshold found on each slide."""

    class Options(Settings):
        """Options of `otsu`."""

        threshold: float | None = Field(None, ge=0, le=255, description="Fixed saturation 0-255 in place of Otsu's")

    def __init__(self, options: Options) -> None:
        self.options = options

    def fingerprint(self) -> str:
        """See `TissueMethod`."""
        return ""

    def find(self, view: View) -> Found:
        """See `TissueMethod`."""
        saturated = saturation(view.pixels)
        threshold = self.options.threshold
        if threshold is None:
            threshold = saturation_threshold(saturated[~view.ink])
        return Found(saturated > threshold, float(threshold))


def saturation(pixels: Pixels) -> npt.NDArray[np.uint8]:
    """Smoothed HSV saturation, (H, W) uint8; what is nearly black counts as unsaturated."""
    hsv = cv2.cvtColor(pixels, cv2.COLOR_RGB2HSV)
    saturated = np.where(hsv[..., 2] > DARK, hsv[..., 1], 0).astype(np.uint8)
    return np.asarray(cv2.medianBlur(saturated, 5))


def saturation_threshold(values: npt.NDArray[np.uint8]) -> float:
    """The saturation that parts tissue from glass on one slide.

    Otsu's threshold finds the glass; it is then lowered to where the glass ends (median + 6 robust standard
    deviations of the lower class), because Otsu on a slide of strong and pale stain calls the pale part glass.
    The floor keeps an empty slide empty, where Otsu would give half its noise as tissue. Where even the lower class is
    clearly coloured there is no glass, and the floor alone decides.

    Reference: Otsu (1979), IEEE Trans. SMC 9(1), 62-66.
    """
    if not values.size:
        return FLOOR
    otsu, _ = cv2.threshold(values.reshape(-1, 1), 0, 255, cv2.THRESH_BINARY + cv2.THRESH_OTSU)
    glass = values[values <= otsu].astype(np.float64)
    middle = float(np.median(glass)) if glass.size else 0.0
    if middle > 2 * FLOOR:
        return FLOOR
    spread = 1.4826 * float(np.median(np.abs(glass - middle))) if glass.size else 0.0
    return float(np.clip(middle + 6 * max(spread, 1.0), FLOOR, max(otsu, FLOOR)))
