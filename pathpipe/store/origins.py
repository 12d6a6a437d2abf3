"""Origins: what a slide itself says, for features whose file says less."""

from __future__ import annotations

from collections.abc import Callable

from pathpipe.cohort import Cohort
from pathpipe.slides.identity import slide_fingerprint
from pathpipe.slides.open import open_slide
from pathpipe.slides.resolution import resolve_mpp
from pathpipe.store.convert import SlideOrigin
from pathpipe.url import Place


def origins_of_slides(source: Place, policy: str = "error") -> Callable[[str], SlideOrigin | None]:
    """slide_id -> what its slide says; None for a slide that isn't in the cohort.

    Args:
        source: A cohort table, a folder of slides or one slide.
        policy: `mpp_policy` of the slide settings.

    Raises:
        CohortError: The source can't be read. Opening a slide later raises SlideError.
    """
    cohort = Cohort.read(source)
    known = {row.slide_id: row for row in cohort.slides}

    def origin(slide_id: str) -> SlideOrigin | None:
        row = known.get(slide_id)
        if row is None:
            return None
        with open_slide(row.path) as slide:
            mpp = resolve_mpp(slide, row.mpp, policy)
            return SlideOrigin((mpp.x, mpp.y), slide.size0, slide_fingerprint(row.path))

    return origin


def one_mpp(mpp: float) -> Callable[[str], SlideOrigin | None]:
    """The same um/px of level 0 for every slide."""
    return lambda _: SlideOrigin((mpp, mpp))
