"""Fixed ranges of hue, saturation and value: no threshold is fitted, so every slide is judged alike."""

from __future__ import annotations

from typing import Self

import cv2
import numpy as np
from pydantic import Field, model_validator

from pathpipe.settings import Settings
from pathpipe.tissue.method import Found, TissueMethod, View


class Hsv(TissueMethod):
    """Pixels within fixed ranges of hue, saturation and value.

    The defaults are the ranges with which tiles of several foundation models were chosen, (90, 8, 103) to
    (180, 255, 255) in OpenCV's units: blue, purple and pink. Brown (DAB) lies outside of them, at 15 to 45 degrees.
    """

    class Options(Settings):
        """Options of `hsv`."""

        hue_low: float = Field(180.0, ge=0, le=360, description="First hue, degrees; above hue_high: through red")
        hue_high: float = Field(360.0, ge=0, le=360, description="Last hue, degrees")
        saturation_min: int = Field(8, ge=0, le=255, description="Smallest saturation, 0-255")
        saturation_max: int = Field(255, ge=0, le=255, description="Largest saturation, 0-255")
        value_min: int = Field(103, ge=0, le=255, description="Smallest value (brightest primary), 0-255")
        value_max: int = Field(255, ge=0, le=255, description="Largest value, 0-255")
        median_px: int = Field(3, ge=1, le=31, description="Median filter before, odd px of the mask; 1: none")

        @model_validator(mode="after")
        def _ranges_hold_something(self) -> Self:
            if self.saturation_min > self.saturation_max or self.value_min > self.value_max:
                raise ValueError("a range's smallest value is above its largest")
            if self.median_px % 2 == 0:
                raise ValueError("median_px must be odd")
            return self

    def __init__(self, options: Options) -> None:
        self.options = options

    def find(self, view: View) -> Found:
        """See `TissueMethod`."""
        chosen = self.options
        pixels = cv2.medianBlur(view.pixels, chosen.median_px) if chosen.median_px > 1 else view.pixels
        hsv = cv2.cvtColor(pixels, cv2.COLOR_RGB2HSV)
        low, high = chosen.hue_low / 2, chosen.hue_high / 2  # OpenCV's hue is 0 to 180
        parts = [(low, high)] if low <= high else [(low, 180.0), (0.0, high)]
        mask = np.zeros(hsv.shape[:2], bool)
        for first, last in parts:
            below = np.array([np.ceil(first), chosen.saturation_min, chosen.value_min])
            above = np.array([np.floor(last), chosen.saturation_max, chosen.value_max])
            mask |= np.asarray(cv2.inRange(hsv, below, above), bool)
        return Found(mask)
