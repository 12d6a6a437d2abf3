"""What is done about artefacts: left out, only flagged, or kept because leaving them out would take too much."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import cv2
import numpy as np

from pathpipe.settings import TissueSettings
from pathpipe.tissue.holes import drop_small
from pathpipe.tissue.quality.density import BoolArray, opened

NOTABLE = 0.05  # of the tissue found: more than this is worth a person's look
BETWEEN_UM = 250.0  # ink with tissue that near on two sides lies on tissue
RIM_UM = 32.0  # narrower is the rim of a stroke that was taken for tissue
MAX_RIM = 0.1  # of ink
NAMES = {"pen": "pen marks", "shadow": "shadow", "edge": "an edge of glass or a fibre", "blur": "out of focus"}


@dataclass(frozen=True)
class Verdict:
    """What becomes of the tissue found.

    Attributes:
        excluded: (H, W) bool, pixels that are to be no tissue, now and after gaps and holes are closed.
        taken_px: Kind -> pixels of the tissue found that are left out for it.
        flags: Sentences a person should read.
    """

    excluded: BoolArray
    taken_px: dict[str, int]
    flags: tuple[str, ...]


def judge(
    found: BoolArray,
    artefacts: Mapping[str, BoolArray],
    settings: TissueSettings,
    pixel_um: float,
    inks: tuple[str, ...] = (),
) -> Verdict:
    """Weigh artefacts against the tissue found.

    Where all `exclude`d kinds together would take more than `max_rejected` of the tissue, nothing is left out. Ink on
    glass is no tissue, though a method may have found it: of pen marks only what lies between tissue is weighed, and a
    slide with no tissue to speak of beside its ink has no tissue.

    Args:
        found: (H, W) bool, what the method calls tissue.
        artefacts: Kind -> (H, W) bool, disjoint.
        pixel_um: Side of a pixel, um.
        inks: Colours of pen marks.
    """
    total = int(np.count_nonzero(found))
    taken_px = {kind: int(np.count_nonzero(found & mask)) for kind, mask in artefacts.items()}
    chosen = [kind for kind in artefacts if getattr(settings, kind) == "exclude"]
    excluded = np.logical_or.reduce([*(artefacts[kind] for kind in chosen), np.zeros(found.shape, bool)])
    weighed_px = {kind: taken_px[kind] for kind in chosen if taken_px[kind]}
    flags: list[str] = []
    told: set[str] = set()
    only_ink = False
    if "pen" in weighed_px:
        rest = found & ~excluded
        sturdy = drop_small(opened(rest, RIM_UM / pixel_um), settings.min_area_um2 / pixel_um**2)
        only_ink = not sturdy.any() and int(np.count_nonzero(rest)) < MAX_RIM * total
        between = _between(sturdy if sturdy.any() else rest, BETWEEN_UM / pixel_um)
        weighed_px["pen"] = int(np.count_nonzero(found & artefacts["pen"] & between))
        total -= taken_px["pen"] - weighed_px["pen"]
    if only_ink:
        flags.append(f"nothing but {_name('pen', inks)}: no tissue beside them")
        told = {"pen"}
    elif sum(weighed_px.values()) > settings.max_rejected * total:
        flags.append(_too_much({kind: count / total for kind, count in weighed_px.items() if count}, inks))
        told, chosen, excluded = set(chosen), [], np.zeros(found.shape, bool)
    for kind, count in taken_px.items():
        share = count / max(1, int(np.count_nonzero(found)))
        if share > NOTABLE and kind not in told:
            fate = "left out" if kind in chosen else "kept"
            flags.append(f"{_name(kind, inks)}: {share:.0%} of the tissue found, {fate}")
    return Verdict(excluded, {kind: taken_px[kind] for kind in chosen if taken_px[kind]}, tuple(flags))


def _between(tissue: BoolArray, reach_px: float) -> BoolArray:
    """Tissue and what lies between two parts of it."""
    side = 2 * max(1, round(reach_px)) + 1
    padded = cv2.copyMakeBorder(tissue.view(np.uint8), side, side, side, side, cv2.BORDER_CONSTANT, value=0)
    closed = cv2.morphologyEx(padded, cv2.MORPH_CLOSE, np.ones((side, side), np.uint8))
    return np.ascontiguousarray(closed[side:-side, side:-side]).view(bool)


def _too_much(shares: Mapping[str, float], inks: tuple[str, ...]) -> str:
    reasons = ", ".join(f"{_name(kind, inks)} {share:.0%}" for kind, share in shares.items())
    return (
        f"quality control would have taken {sum(shares.values()):.0%} of the tissue ({reasons}): all of it was kept; "
        "look at the overlay, and raise max_rejected if quality control is right"
    )


def _name(kind: str, inks: tuple[str, ...]) -> str:
    return f"{NAMES[kind]} ({', '.join(inks)})" if kind == "pen" and inks else NAMES[kind]
