"""Resolution: which um/px a slide has, who says so, and when nobody credible does."""

from __future__ import annotations

import math

from pathpipe.errors import SlideError
from pathpipe.slides.slide import Mpp, Slide

MIN_MPP, MAX_MPP = 0.05, 40.0
MAX_ANISOTROPY = 1.5
OBJECTIVE_UM = 10.0  # um/px times objective power, for the usual scanner cameras


def resolve_mpp(slide: Slide, override: float | None, policy: str) -> Mpp:
    """The um/px of level 0: cohort override, else the file's own statement, else what the policy allows.

    Args:
        override: The cohort's `mpp`, um/px, or None.
        policy: `error`, `objective` (10 / objective power) or `default=X`; only asked when nothing else speaks.

    Raises:
        SlideError: Nobody states a resolution, or what is stated isn't credible.
    """
    if override is not None:
        return _credible(Mpp(override, override, "cohort"), slide)
    if slide.mpp is not None:
        return _credible(slide.mpp, slide)
    if policy == "objective" and slide.objective:
        value = OBJECTIVE_UM / slide.objective
        return _credible(Mpp(value, value, f"objective {slide.objective:g}x"), slide)
    if policy.startswith("default="):
        value = float(policy.removeprefix("default="))
        return _credible(Mpp(value, value, "default of --mpp-policy"), slide)
    power = f"; its objective power is {slide.objective:g}" if slide.objective else ", and no objective power"
    raise SlideError(
        f"has no resolution: no mpp in vendor properties, TIFF or OME tags or the cohort{power}",
        where=slide.path.name,
        hint="add a column `mpp` to the cohort table, or pass `--mpp-policy objective` or `--mpp-policy default=0.25` "
        "if you know the scanner",
    )


def stated_number(text: str | None) -> float | None:
    """A positive number as a file states it, or None where there is none.

    Scanning software writes `0,2498` where its country does: OpenSlide reads a comma as a point, and so is done here.
    """
    try:
        value = float((text or "").replace(",", "."))
    except ValueError:
        return None
    return value if value > 0 else None


def by_tiff_tags(x: float | None, y: float | None, unit_um: float | None) -> Mpp | None:
    """What XResolution, YResolution (px per unit) and the unit's length state; None where they can't be meant.

    A vendor's file that leaves out its own property often carries the resolution of a screen here: only what a slide
    may have counts. Reference: TIFF 6.0, section 8.
    """
    if x is None or y is None or unit_um is None or x <= 0 or y <= 0:
        return None
    mpp = Mpp(unit_um / x, unit_um / y, "TIFF resolution tags")
    return mpp if all(MIN_MPP <= value <= MAX_MPP for value in (mpp.x, mpp.y)) else None


def _credible(mpp: Mpp, slide: Slide) -> Mpp:
    for value in (mpp.x, mpp.y):
        if not (math.isfinite(value) and MIN_MPP <= value <= MAX_MPP):
            raise SlideError(
                f"a resolution of {value:g} um/px ({mpp.source}) can't be true: slides have {MIN_MPP} to {MAX_MPP:g}",
                where=slide.path.name,
                hint="give the right value in a column `mpp` of the cohort table",
            )
    if max(mpp.x, mpp.y) / min(mpp.x, mpp.y) > MAX_ANISOTROPY:
        raise SlideError(
            f"pixels of {mpp.x:g} x {mpp.y:g} um ({mpp.source}) can't be true",
            where=slide.path.name,
            hint="give the right value in a column `mpp` of the cohort table",
        )
    return mpp
