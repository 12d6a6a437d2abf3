"""Cytology: single cells and clusters on glass, found by local contrast and kept with a margin."""

from __future__ import annotations

import cv2
import numpy as np
import numpy.typing as npt
from pydantic import Field

from pathpipe.settings import Settings
from pathpipe.tissue.holes import drop_small
from pathpipe.tissue.method import BoolArray, Found, TissueMethod, View
from pathpipe.tissue.methods.glass import find_glass, white_of

PER_DENSITY = 400.0  # steps of the 8-bit signal in one unit of optical density
CLUSTER = 4.0  # so many times the contrast of a cell marks the inside of a cluster, whatever surrounds it


class Cytology(TissueMethod):
    """Cells darker than what surrounds them, and clusters darker than glass, widened by a margin.

    What surrounds a cell is the darkness that remains when everything narrower than `cell_um` is taken off (an
    opening), so uneven light and pale smears don't count. Made for masks of 2 to 4 um/px.
    """

    class Options(Settings):
        """Options of `cytology`."""

        cell_um: float = Field(60.0, gt=0, le=500, description="Wider than the widest single cell, um")
        contrast: float = Field(0.05, gt=0, le=1, description="Least contrast of a cell, optical density (log10)")
        spreads: float = Field(8.0, ge=0, le=50, description="Least contrast of a cell, standard deviations of glass")
        min_cell_um2: float = Field(30.0, ge=0, description="Smaller specks are dropped, um2")
        margin_um: float = Field(16.0, ge=0, le=500, description="Margin around cells that counts as theirs, um")

    def __init__(self, options: Options) -> None:
        self.options = options

    def find(self, view: View) -> Found:
        """See `TissueMethod`."""
        chosen = self.options
        dark = density(view)
        width = max(3, round(chosen.cell_um / view.pixel_um) | 1)
        local = cv2.morphologyEx(dark, cv2.MORPH_TOPHAT, np.ones((width, width), np.uint8))
        cell = self._threshold(np.asarray(local, np.uint8), view.ink, 1.0)
        cluster = self._threshold(dark, view.ink, CLUSTER)
        cells = drop_small(np.asarray((local > cell) | (dark > cluster)), chosen.min_cell_um2 / view.pixel_um**2)
        away = cv2.distanceTransform((~cells).view(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_PRECISE)
        near = np.asarray(away <= chosen.margin_um / view.pixel_um) if cells.any() else cells
        return Found(near, round(cell / PER_DENSITY, 4), finished=True)

    def _threshold(self, signal: npt.NDArray[np.uint8], ink: BoolArray, times: float) -> float:
        least = times * self.options.contrast * PER_DENSITY
        glass, _ = find_glass(signal, ink)
        if glass is None:
            return least
        return glass.level + max(self.options.spreads * glass.spread, least)


def density(view: View) -> npt.NDArray[np.uint8]:
    """Optical density of the most absorbed colour over the slide's glass, (H, W) uint8 in 1/400."""
    white = white_of(view.pixels, view.ink)
    values = np.maximum(np.arange(256, dtype=np.float32), 1)[:, None]
    table = np.clip(np.log10(white[None] / values) * PER_DENSITY, 0, 255).round().astype(np.uint8)
    layers = cv2.LUT(view.pixels, np.ascontiguousarray(table.reshape(1, 256, 3)))
    return np.asarray(np.maximum(np.maximum(layers[..., 0], layers[..., 1]), layers[..., 2]), np.uint8)
