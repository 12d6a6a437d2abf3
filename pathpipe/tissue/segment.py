"""From a slide to its tissue: a method finds it, artefacts are weighed and left out, gaps, holes and crumbs settled."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from pathpipe.settings import TissueSettings
from pathpipe.slides.slide import Mpp, Slide
from pathpipe.tissue.holes import close_gaps, drop_small, fill_holes
from pathpipe.tissue.mask import BoolArray, TissueMask, tissue_colour
from pathpipe.tissue.method import METHODS, View, tissue_method
from pathpipe.tissue.quality.blur import find_blur
from pathpipe.tissue.quality.policy import judge
from pathpipe.tissue.quality.seen import Seen, find_artefacts
from pathpipe.tissue.thumbnail import Thumbnail, read_thumbnail

MAX_MASK_BYTES = 700_000_000  # what finding tissue may take: memory stays below 1 GiB on any slide


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
    scale0 = settings.mpp / mpp.mean
    most_px = MAX_MASK_BYTES / METHODS[settings.method].bytes_a_pixel
    least0 = float(np.sqrt(slide.size0[0] / most_px * slide.size0[1]))
    thumbnail = read_thumbnail(slide, max(scale0, least0))
    found = segment_thumbnail(thumbnail, mpp, settings, slide)
    if scale0 >= least0:
        return found
    coarse = f"the slide is too large for a mask of {settings.mpp:g} um/px: {least0 * mpp.mean:.3g} um/px was taken"
    return replace(found, flags=(coarse, *found.flags))


def segment_thumbnail(
    thumbnail: Thumbnail, mpp: Mpp, settings: TissueSettings, slide: Slide | None = None
) -> TissueMask:
    """Find the tissue in a thumbnail.

    Args:
        slide: Where finer pixels come from; without it nothing is said of focus.
    """
    pixels, scale0 = thumbnail.pixels, thumbnail.scale0
    pixel_um2 = scale0[0] * mpp.x * scale0[1] * mpp.y
    pixel_um = float(np.sqrt(pixel_um2))
    seen = find_artefacts(pixels, pixel_um, settings)
    ink = np.logical_or.reduce([*seen.masks.values(), np.zeros(pixels.shape[:2], bool)])
    method = tissue_method(settings.method, settings.method_settings)
    found = method.find(View(pixels, pixel_um, scale0, ink))
    flags = [found.note] if found.note else []
    if slide is not None and settings.blur != "off":
        seen, remarks = _with_blur(seen, found.mask & ~ink, slide, thumbnail, mpp, settings)
        flags += remarks
    verdict = judge(found.mask, seen.masks, settings, pixel_um, seen.inks)
    removed = {kind: count * pixel_um2 for kind, count in verdict.taken_px.items()}
    mask = found.mask & ~verdict.excluded
    if not found.finished:
        mask = close_gaps(mask, settings.close_um / pixel_um) & ~verdict.excluded
        mask = fill_holes(mask, settings.max_hole_um2 / pixel_um2) & ~verdict.excluded
        kept = drop_small(mask, settings.min_area_um2 / pixel_um2)
        removed["small pieces"] = float(np.count_nonzero(mask & ~kept)) * pixel_um2
        mask = kept
    elif found.dropped is not None:
        removed["small pieces"] = float(np.count_nonzero(found.dropped)) * pixel_um2
    return TissueMask(
        mask=mask,
        scale0=scale0,
        mpp=mpp,
        threshold=found.threshold,
        method=settings.method,
        artefacts=seen.masks,
        removed_um2=removed,
        colour=tissue_colour(pixels, mask),
        flags=(*flags, *verdict.flags),
    )


def _with_blur(
    seen: Seen, tissue: BoolArray, slide: Slide, thumbnail: Thumbnail, mpp: Mpp, settings: TissueSettings
) -> tuple[Seen, list[str]]:
    """What was seen and, of the tissue beside it, what is out of focus; and what is to be said of the check itself."""
    focus = find_blur(slide, mpp, tissue, thumbnail.scale0)
    if focus is None:
        coarse = "focus was not judged: the slide has no level finer than 2 um/px"
        return seen, [coarse] if settings.blur == "exclude" else []
    unread = f"{focus.unreadable} places could not be read to judge their focus: the file may be damaged"
    blurred = focus.blurred & tissue
    masks = {**seen.masks, "blur": blurred} if blurred.any() else seen.masks
    return Seen(masks, seen.inks), [unread] if focus.unreadable else []
