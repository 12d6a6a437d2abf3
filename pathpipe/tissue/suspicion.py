"""How much a slide's tissue deserves a look: what orders a contact sheet."""

from __future__ import annotations

import cv2
import numpy as np

from pathpipe.tissue.mask import TissueMask

SCARCE = 0.01  # of the slide; less tissue is suspicious
FULL = 0.9  # of the slide; with more, glass may have been taken for tissue
PALE = 0.15  # mean optical density of tissue; paler stain is hard to tell from glass
CRUMBS = 50  # so many pieces say more of a threshold than of tissue


def suspicion(mask: TissueMask) -> float:
    """0 where nothing is odd; the higher, the sooner a person should look. The sum of `suspicion_terms`."""
    return round(sum(suspicion_terms(mask).values()), 4)


def suspicion_terms(mask: TissueMask) -> dict[str, float]:
    """What a slide's suspicion is made of. Only asks what the file of a mask keeps.

    Returns:
        `flags`: their number. `empty`: 3 without tissue. And, between 0 and 1 each, `artefacts`: their share of the
        tissue found, left out or not; `scarce` and `full`: below 1% or above 90% of the slide is tissue; `border`:
        share of the border that tissue touches; `pieces`: their number over 50; `pale`: mean density under 0.15.
    """
    terms = {"flags": float(len(mask.flags)), "artefacts": _artefact_share(mask)}
    share = float(mask.mask.mean()) if mask.mask.size else 0.0
    if not share:
        return {**terms, "empty": 3.0}
    pieces = cv2.connectedComponents(mask.mask.astype(np.uint8), connectivity=8)[0] - 1
    rim = np.concatenate([mask.mask[0], mask.mask[-1], mask.mask[1:-1, 0], mask.mask[1:-1, -1]])
    return {
        **terms,
        "scarce": max(0.0, 1 - share / SCARCE),
        "full": max(0.0, (share - FULL) / (1 - FULL)),
        "border": float(rim.mean()),
        "pieces": min(1.0, (pieces - 1) / CRUMBS),
        "pale": max(0.0, 1 - _density(mask) / PALE),
    }


def _artefact_share(mask: TissueMask) -> float:
    """Artefacts on tissue over the tissue there was."""
    kept = np.zeros(mask.mask.shape, bool)
    removed = 0.0
    for kind, where in mask.artefacts.items():
        removed += mask.removed_um2.get(kind, 0.0)
        kept |= where & mask.mask
    found = mask.area_um2 + removed
    return (float(kept.sum()) * mask.pixel_um2 + removed) / found if found else 0.0


def _density(mask: TissueMask) -> float:
    """Mean optical density of the tissue's mean colour; infinite where none is kept."""
    mean = mask.colour.get("mean")
    if not mean:
        return float("inf")
    return float(np.mean(-np.log10(np.clip(mean, 1, 255) / 255)))
