"""What a thumbnail shows besides tissue: pen marks, shadows and edges, each pixel of one kind."""

from __future__ import annotations

from dataclasses import dataclass, field

import cv2
import numpy as np

from pathpipe.settings import TissueSettings
from pathpipe.slides.slide import Pixels
from pathpipe.tissue.quality.density import BoolArray, measure_density
from pathpipe.tissue.quality.edge import find_edge
from pathpipe.tissue.quality.pen import find_pen
from pathpipe.tissue.quality.shadow import find_shadow, find_unscanned

RESOLUTION_UM = 16.0  # strokes, shades and edges are wider, and a quarter of the pixels is a quarter of the time


@dataclass(frozen=True)
class Seen:
    """Artefacts of a thumbnail.

    Attributes:
        masks: Kind -> (H, W) bool, in the order in which a pixel is given to a kind, each pixel to the first.
        inks: Colours of pen marks.
    """

    masks: dict[str, BoolArray] = field(default_factory=dict)
    inks: tuple[str, ...] = ()


def find_artefacts(pixels: Pixels, pixel_um: float, settings: TissueSettings) -> Seen:
    """Find pen marks, then shadows, then edges, whichever of them aren't `off`.

    Args:
        pixels: (H, W, 3) uint8, the whole slide.
        pixel_um: Side of a pixel, um.
    """
    wanted = {kind: getattr(settings, kind) != "off" for kind in ("pen", "shadow", "edge")}
    factor = max(1, int(RESOLUTION_UM * 1.01 / pixel_um))
    small = (-(-pixels.shape[1] // factor), -(-pixels.shape[0] // factor))
    if not any(wanted.values()) or min(small) < 3:
        return Seen()
    density = measure_density(_shrunk(pixels, factor, small), pixel_um * factor)
    unscanned = find_unscanned(density)
    inks = find_pen(density, unscanned) if wanted["pen"] else {}
    found: dict[str, BoolArray] = {}
    if inks:
        found["pen"] = np.logical_or.reduce(list(inks.values()))
    if wanted["shadow"]:
        found["shadow"] = find_shadow(density) | unscanned
    if wanted["edge"]:
        found["edge"] = find_edge(density)
    taken = np.zeros(density.red.shape, bool)
    masks = {}
    for kind, mask in found.items():
        own = mask & ~taken
        taken |= own
        if own.any():
            whole = cv2.resize(
                own.view(np.uint8), (small[0] * factor, small[1] * factor), interpolation=cv2.INTER_NEAREST
            )
            masks[kind] = np.ascontiguousarray(whole[: pixels.shape[0], : pixels.shape[1]]).view(bool)
    return Seen(masks, tuple(inks))


def _shrunk(pixels: Pixels, factor: int, small: tuple[int, int]) -> Pixels:
    """Means of whole blocks; the last ones repeat the picture's edge."""
    if factor == 1:
        return pixels
    below, right = small[1] * factor - pixels.shape[0], small[0] * factor - pixels.shape[1]
    padded = cv2.copyMakeBorder(pixels, 0, below, 0, right, cv2.BORDER_REPLICATE)
    return np.asarray(cv2.resize(padded, small, interpolation=cv2.INTER_AREA), np.uint8)
