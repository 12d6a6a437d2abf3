"""Texture: glass is smooth, tissue is not, however pale it is; thin walls of fat are texture too."""

from __future__ import annotations

import cv2
import numpy as np
import numpy.typing as npt
from pydantic import Field

from pathpipe.settings import Settings
from pathpipe.slides.slide import Pixels
from pathpipe.tissue.holes import close_gaps
from pathpipe.tissue.method import Found, TissueMethod, View
from pathpipe.tissue.methods.glass import find_glass
from pathpipe.tissue.methods.otsu import Otsu

STEPS = 8.0  # steps of the 8-bit signal in one grey level of contrast
FINE_PX = 3
REACH_PX = 2  # by which the three small windows reach over an edge


class Texture(TissueMethod):
    """What `otsu` finds by colour, and what has local contrast over the noise of glass.

    Contrast is the root mean square of the luma's gradient in a small window. Gaps up to the width of a fat cell are
    closed, so the bare inside of fat counts with its walls.
    """

    bytes_a_pixel = 64

    class Options(Settings):
        """Options of `texture`."""

        bridge_um: float = Field(120.0, ge=0, le=1000, description="Bare gaps in texture up to this width count, um")
        contrast: float = Field(1.5, gt=0, le=100, description="Least contrast over glass, grey levels (0-255) a pixel")
        spreads: float = Field(8.0, ge=0, le=50, description="Least contrast over glass, standard deviations of glass")

    def __init__(self, options: Options) -> None:
        self.options = options
        self._coloured = Otsu(Otsu.Options())

    def find(self, view: View) -> Found:
        """See `TissueMethod`."""
        chosen = self.options
        signal = contrast(view.pixels)
        glass, _ = find_glass(signal, view.ink)
        least = chosen.contrast * STEPS
        threshold = least
        if glass is not None and glass.level <= 2 * least:
            threshold = glass.level + max(chosen.spreads * glass.spread, least)
        coloured = self._coloured.find(view).mask
        bridged = close_gaps(coloured | np.asarray(signal > threshold), chosen.bridge_um / view.pixel_um)
        side = 2 * REACH_PX + 1
        within = np.asarray(cv2.erode(bridged.astype(np.uint8), np.ones((side, side), np.uint8)), bool)
        return Found(within | coloured, threshold / STEPS)


def contrast(pixels: Pixels) -> npt.NDArray[np.uint8]:
    """Root mean square of the luma's gradient in a small window, (H, W) uint8 in eighths of a grey level a pixel."""
    luma = cv2.GaussianBlur(cv2.cvtColor(pixels, cv2.COLOR_RGB2GRAY), (3, 3), 0)
    across = cv2.Scharr(luma, cv2.CV_32F, 1, 0, scale=1 / 32)
    down = cv2.Scharr(luma, cv2.CV_32F, 0, 1, scale=1 / 32)
    energy = cv2.multiply(across, across) + cv2.multiply(down, down)
    mean = cv2.boxFilter(energy, -1, (FINE_PX, FINE_PX))
    return np.asarray(cv2.convertScaleAbs(cv2.sqrt(mean), alpha=STEPS), np.uint8)
