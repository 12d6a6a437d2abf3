"""Edges of coverslips, rims of air bubbles and fibres: long thin dark lines without colour."""

from __future__ import annotations

import cv2
import numpy as np

from pathpipe.tissue.quality.density import BoolArray, Density, grown, pieces

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
    labels, statistics = pieces(np.asarray(narrow > MIN_CONTRAST))
    extent_um = np.hypot(statistics[:, cv2.CC_STAT_WIDTH], statistics[:, cv2.CC_STAT_HEIGHT]) * um
    width_um = statistics[:, cv2.CC_STAT_AREA] * um**2 / extent_um
    line = (extent_um >= MIN_LENGTH_UM) & (extent_um >= MIN_SLENDERNESS * width_um)
    line[0] = False
    return grown(np.asarray(line[labels]), MARGIN_UM / um)
