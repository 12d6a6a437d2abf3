"""From a slide to its tissue: a method finds it, artefacts are taken out of it, gaps, holes and crumbs are settled."""

from __future__ import annotations

import numpy as np

from pathpipe.settings import TissueSettings
from pathpipe.slides.slide import Mpp, Slide
from pathpipe.tissue.holes import close_gaps, drop_small, fill_holes
from pathpipe.tissue.mask import TissueMask, tissue_colour
from pathpipe.tissue.method import View, tissue_method
from pathpipe.tissue.quality.pen import find_pen
from pathpipe.tissue.thumbnail import Thumbnail, read_thumbnail

MAX_REJECTED = 0.5


def segment(slide: Slide, mpp: Mpp, settings: TissueSettings) -> TissueMask:
    """Find the tissue of a slide.

    Args:
        mpp: Resolution of level 0.

    Returns:
        A mask; all False, with its reason, where there is no tissue.

    Raises:
        SlideError: The slide can't be read.
        SettingsError: The method or one of its options doesn't exist.
    """
    return segment_thumbnail(read_thumbnail(slide, settings.mpp / mpp.mean), mpp, settings)


def segment_thumbnail(thumbnail: Thumbnail, mpp: Mpp, settings: TissueSettings) -> TissueMask:
    """Find the tissue in a thumbnail."""
    pixels, scale0 = thumbnail.pixels, thumbnail.scale0
    pixel_um2 = scale0[0] * mpp.x * scale0[1] * mpp.y
    pixel_um = float(np.sqrt(pixel_um2))
    method = tissue_method(settings.method, settings.method_settings)
    pen = find_pen(pixels, pixel_um) if settings.pen != "off" else np.zeros(pixels.shape[:2], bool)
    found = method.find(View(pixels, pixel_um, scale0, pen))
    coloured, flags, removed = found.mask, [found.note] if found.note else [], {}
    if (coloured & pen).sum() > MAX_REJECTED * coloured.sum() and (coloured & ~pen).any():
        flags.append("pen detection took most of the tissue and was ignored: look at the overlay")
        pen = np.zeros_like(pen)
    if pen.any():
        removed["pen"] = float((coloured & pen).sum()) * pixel_um2
    mask = coloured & ~pen
    if not found.finished:
        mask = close_gaps(mask, settings.close_um / pixel_um) & ~pen
        mask = fill_holes(mask, settings.max_hole_um2 / pixel_um2) & ~pen
        kept = drop_small(mask, settings.min_area_um2 / pixel_um2)
        removed["small pieces"] = float(mask.sum() - kept.sum()) * pixel_um2
        mask = kept
    return TissueMask(
        mask=mask,
        scale0=scale0,
        mpp=mpp,
        threshold=found.threshold,
        method=settings.method,
        artefacts={"pen": pen} if pen.any() else {},
        removed_um2=removed,
        colour=tissue_colour(pixels, mask),
        flags=tuple(flags),
    )
