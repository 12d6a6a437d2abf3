"""Immunohistochemistry: brown and blue unmixed, each judged by itself, so that strong brown can't hide pale blue."""

from __future__ import annotations

import cv2
import numpy as np
import numpy.typing as npt
from pydantic import Field
from skimage.color import hdx_from_rgb

from pathpipe.settings import Settings
from pathpipe.slides.slide import Pixels
from pathpipe.tissue.method import BoolArray, Found, TissueMethod, View
from pathpipe.tissue.methods.glass import as_bright_as_glass, find_glass, white_of

Floats = npt.NDArray[np.float32]
ZERO = 32  # of the 8-bit signal: noise goes below no stain
PER_DENSITY = 512.0  # steps of the 8-bit signal in one unit of optical density


class Ihc(TissueMethod):
    """Haematoxylin or DAB above the noise of glass, by colour deconvolution.

    Each stain has a threshold of its own, set by the noise of the slide's own glass and not by the amount of stain.
    Grey isn't left out: blue and brown together are grey. Shadows are for the quality control to find.

    Reference: Ruifrok & Johnston (2001), Anal. Quant. Cytol. Histol. 23(4), 291-299; vectors of scikit-image.
    """

    bytes_a_pixel = 90

    class Options(Settings):
        """Options of `ihc`."""

        density: float = Field(0.025, gt=0, le=1, description="Least stain over glass, optical density (log10)")
        spreads: float = Field(6.0, ge=0, le=50, description="Least stain over glass, standard deviations of glass")
        smooth_um: float = Field(16.0, ge=0, le=200, description="Width (sigma) over which stain is averaged, um")

    def __init__(self, options: Options) -> None:
        self.options = options

    def find(self, view: View) -> Found:
        """See `TissueMethod`."""
        amounts = density(view.pixels, white_of(view.pixels, view.ink))
        sigma = self.options.smooth_um / view.pixel_um
        if sigma > 0.3:
            amounts = np.asarray(cv2.GaussianBlur(amounts, (0, 0), sigma), np.float32)
        mask = np.zeros(view.ink.shape, bool)
        weakest = np.inf
        for amount in unmix(amounts):
            signal = np.clip(amount * PER_DENSITY + ZERO, 0, 255).astype(np.uint8)
            threshold = self._threshold(signal, view.ink)
            mask |= np.asarray(signal > threshold)
            weakest = min(weakest, (threshold - ZERO) / PER_DENSITY)
        mask &= ~as_bright_as_glass(view.pixels, mask | view.ink)
        return Found(mask, round(weakest, 4))

    def _threshold(self, signal: npt.NDArray[np.uint8], ink: BoolArray) -> float:
        least = self.options.density * PER_DENSITY
        glass, _ = find_glass(signal, ink)
        if glass is None or glass.level > ZERO + least:  # tissue to the edges: there is no glass to measure
            return ZERO + least
        return glass.level + max(self.options.spreads * glass.spread, least)


def density(pixels: Pixels, white: Floats) -> Floats:
    """Optical density (log10) under that glass, (H, W, 3) float32; negative where it is brighter."""
    values = np.maximum(np.arange(256, dtype=np.float32), 1)[:, None]
    table = np.log10(white[None] / values).astype(np.float32)
    return np.asarray(cv2.LUT(pixels, np.ascontiguousarray(table.reshape(1, 256, 3))), np.float32)


def unmix(amounts: Floats) -> tuple[Floats, Floats]:
    """Haematoxylin and DAB in optical density, each (H, W) float32; negative where a colour is opposite.

    Args:
        amounts: (H, W, 3) float32, optical density.
    """
    stains = np.asarray(cv2.transform(amounts, np.ascontiguousarray(hdx_from_rgb.T, np.float32)[:2]), np.float32)
    return stains[..., 0], stains[..., 1]
