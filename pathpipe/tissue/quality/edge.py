"""Edges of coverslips, rims of air bubbles and fibres: long thin dark lines without colour."""

from __future__ import annotations

import cv2
import numpy as np
import numpy.typing as npt

from pathpipe.tissue.quality.density import BoolArray, Density, grown, kept_pieces

MAX_WIDTH_UM = 320.0  # wider is a shadow or a pen stroke
MIN_LENGTH_UM = 2_000.0  # folds, crushed nuclei and pigment are shorter
MIN_SLENDERNESS = 12.0  # length over mean width
MIN_CONTRAST = 12  # hundredths of optical density over what lies on both sides
MARGIN_UM = 16.0  # light bends beside an edge


def find_edge(density: Density) -> BoolArray:
    """Where a long thin neutral line runs, straight or bent.

    The neutral density of the picture less its morphological opening holds what is dark and narrow. Of that, a piece
    counts whose extent (the diagonal of its bounding box) is long, and whose mean width (area by extent) is a small
    part of its length: a straight or bent line, a ring or a tangle of cracks, and no spot or texture.

    Returns:
        (H, W) bool.
    """
    um = density.pixel_um
    neutral = np.where(density.neutral, density.least, 0).astype(np.uint8)
    side = 2 * round(MAX_WIDTH_UM / um / 2) + 1
    narrow = cv2.morphologyEx(neutral, cv2.MORPH_TOPHAT, np.ones((side, side), np.uint8))

    def is_line(found: npt.NDArray[np.int32]) -> npt.NDArray[np.bool_]:
        extent_um = np.hypot(found[:, cv2.CC_STAT_WIDTH], found[:, cv2.CC_STAT_HEIGHT]) * um
        width_um = found[:, cv2.CC_STAT_AREA] * um**2 / extent_um
        return np.asarray((extent_um >= MIN_LENGTH_UM) & (extent_um >= MIN_SLENDERNESS * width_um))

    return grown(kept_pieces(np.asarray(narrow > MIN_CONTRAST), is_line), MARGIN_UM / um)
