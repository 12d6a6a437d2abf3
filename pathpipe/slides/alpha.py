"""Transparency: what the scanner did not see is shown as glass."""

from __future__ import annotations

import cv2
import numpy as np

from pathpipe.slides.slide import Pixels


def over_white(rgba: Pixels, premultiplied: bool = False) -> Pixels:
    """Lay (H, W, 4) uint8 RGBA over white.

    Args:
        premultiplied: Whether R, G and B have been multiplied by alpha already.

    Returns:
        (H, W, 3) uint8.
    """
    if not rgba.size:
        return rgba[..., :3]
    alpha = rgba[..., 3]
    rgb = np.asarray(cv2.cvtColor(rgba, cv2.COLOR_RGBA2RGB), np.uint8)
    if alpha.min() == 255:
        return rgb
    wide = alpha[..., None].astype(np.uint16)
    if premultiplied:
        return np.minimum(rgb.astype(np.uint16) + (255 - wide), 255).astype(np.uint8)
    mixed = (rgb.astype(np.uint16) * wide + 255 * (255 - wide) + 127) // 255
    return np.asarray(mixed, dtype=np.uint8)
