"""What is done about artefacts: left out, only flagged, or kept because leaving them out would take too much."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from pathpipe.settings import TissueSettings
from pathpipe.tissue.quality.density import BoolArray

NOTABLE = 0.05  # of the tissue found: more than this is worth a person's look
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
    min_px: float,
    inks: tuple[str, ...] = (),
) -> Verdict:
    """Weigh artefacts against the tissue found.

    Args:
        found: (H, W) bool, what the method calls tissue.
        artefacts: Kind -> (H, W) bool, disjoint.
        min_px: Pixels of the smallest piece of tissue that counts.
        inks: Colours of pen marks.

    Where all `exclude`d kinds together would take more than `max_rejected` of the tissue found, nothing is left out.
    The one exception is ink beside which there is no tissue to speak of: a slide with nothing but pen marks on it.
    """
    total = int(np.count_nonzero(found))
    on_tissue = {kind: int(np.count_nonzero(found & mask)) for kind, mask in artefacts.items()}
    shares = {kind: count / total for kind, count in on_tissue.items() if count}
    left_out = [kind for kind in shares if getattr(settings, kind) == "exclude"]
    rejected = sum(shares[kind] for kind in left_out)
    only_ink = "pen" in left_out and total - on_tissue["pen"] < min_px
    kept_by_limit = rejected > settings.max_rejected and not only_ink
    flags = []
    if kept_by_limit:
        flags.append(_too_much(shares, left_out, rejected, inks))
        left_out = []
    for kind, share in shares.items():
        if share > NOTABLE and not (kept_by_limit and getattr(settings, kind) == "exclude"):
            fate = "left out" if kind in left_out else "kept"
            flags.append(f"{_name(kind, inks)}: {share:.0%} of the tissue found, {fate}")
    if only_ink:
        flags.append(f"nothing but {_name('pen', inks)}: no tissue beside them")
    excluded = np.zeros(found.shape, bool)
    if not kept_by_limit:
        for kind, mask in artefacts.items():
            if getattr(settings, kind) == "exclude":
                excluded |= mask
    return Verdict(excluded, {kind: on_tissue[kind] for kind in left_out}, tuple(flags))


def _too_much(shares: Mapping[str, float], left_out: list[str], rejected: float, inks: tuple[str, ...]) -> str:
    reasons = ", ".join(f"{_name(kind, inks)} {shares[kind]:.0%}" for kind in left_out)
    return (
        f"quality control would have taken {rejected:.0%} of the tissue found ({reasons}): all of it was kept; look at "
        "the overlay, and raise max_rejected if it is right"
    )


def _name(kind: str, inks: tuple[str, ...]) -> str:
    return f"{NAMES[kind]} ({', '.join(inks)})" if kind == "pen" and inks else NAMES[kind]
