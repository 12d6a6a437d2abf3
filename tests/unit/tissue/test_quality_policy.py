"""Policies: what is left out is counted exactly, what would take too much is kept, and sentences carry the numbers."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
import pytest

from pathpipe.settings import TissueSettings
from pathpipe.slides.slide import Mpp, Pixels
from pathpipe.tissue.mask import BoolArray, TissueMask
from pathpipe.tissue.quality.policy import Verdict, judge
from pathpipe.tissue.segment import segment_thumbnail
from pathpipe.tissue.suspicion import suspicion, suspicion_terms
from pathpipe.tissue.thumbnail import Thumbnail

MPP = Mpp(0.5, 0.5, "test")
BARE = {"min_area_um2": 0.0, "close_um": 0.0, "max_hole_um2": 0.0}


def _box(top: int, below: int, left: int, right: int) -> BoolArray:
    mask = np.zeros((200, 200), bool)
    mask[top:below, left:right] = True
    return mask


FOUND = _box(0, 100, 0, 200)  # 20,000 px


def _judge(artefacts: dict[str, BoolArray], **settings: str | float) -> Verdict:
    return judge(FOUND, artefacts, TissueSettings(**settings), 8.0, ("blue",))


def test_kinds_are_counted_apart_and_exactly() -> None:
    artefacts = {"pen": _box(0, 110, 0, 30), "shadow": _box(0, 10, 50, 60), "blur": _box(50, 60, 100, 120)}
    verdict = _judge(artefacts, blur="exclude")
    assert verdict.taken_px == {"pen": 3000, "shadow": 100, "blur": 200}
    assert np.array_equal(verdict.excluded, artefacts["pen"] | artefacts["shadow"] | artefacts["blur"])
    assert verdict.flags == ("pen marks (blue): 15% of the tissue found, left out",)


def test_flagged_stays_and_is_told() -> None:
    verdict = _judge({"blur": _box(0, 100, 0, 60), "edge": _box(0, 100, 70, 75)}, blur="flag", edge="flag")
    assert verdict.taken_px == {} and not verdict.excluded.any()
    assert verdict.flags == ("out of focus: 30% of the tissue found, kept",), "2.5% of edge isn't worth a look"


@pytest.mark.parametrize(("limit", "kept"), [(0.5, True), (0.59, True), (0.61, False), (1.0, False)])
def test_too_much_is_kept_whole(limit: float, kept: bool) -> None:
    artefacts = {"edge": _box(0, 100, 180, 200), "blur": _box(0, 100, 0, 100)}  # 10% and 50%
    verdict = _judge(artefacts, blur="exclude", max_rejected=limit)
    assert verdict.excluded.any() != kept and (verdict.taken_px == {}) == kept
    if kept:
        assert verdict.flags == (
            "quality control would have taken 60% of the tissue (an edge of glass or a fibre 10%, out of focus 50%): "
            "all of it was kept; look at the overlay, and raise max_rejected if quality control is right",
        )
    else:
        assert verdict.taken_px == {"edge": 2000, "blur": 10000} and len(verdict.flags) == 2


def test_ink_on_glass_is_no_tissue_to_lose() -> None:
    """Ink that a method took for tissue: beside the tissue it goes, between the tissue it is weighed."""
    beside = {"pen": _box(0, 100, 60, 200)}
    assert _judge(beside).taken_px == {"pen": 14_000}
    stripes = FOUND & (np.arange(200) % 20 < 14)[None, :]  # a blue stain: but for the last stripe, tissue on two sides
    verdict = _judge({"pen": stripes}, min_area_um2=0.0)
    assert verdict.taken_px == {} and "would have taken 68% of the tissue" in verdict.flags[0]
    fine = FOUND & (np.arange(200) % 10 < 8)[None, :]
    assert _judge({"pen": fine}).taken_px == {}


def test_nothing_but_ink_is_no_tissue() -> None:
    verdict = _judge({"pen": _box(0, 99, 0, 200)})
    assert verdict.taken_px == {"pen": 19_800}
    assert verdict.flags == ("nothing but pen marks (blue): no tissue beside them",)


def test_no_tissue_and_no_artefacts_need_no_words() -> None:
    nothing = np.zeros((50, 50), bool)
    for artefacts in ({}, {"pen": ~nothing}, {"blur": nothing}):
        verdict = judge(nothing, artefacts, TissueSettings(), 8.0)
        assert verdict.flags == () and verdict.taken_px == {}


def _slide() -> Pixels:
    """A disc of tissue, a blue stroke through it, and a dark line beside the stroke."""
    picture = np.full((400, 400, 3), 244, np.uint8)
    cv2.circle(picture, (200, 200), 120, (200, 120, 170), -1)
    cv2.line(picture, (0, 180), (399, 180), (38, 62, 170), 16)
    cv2.line(picture, (0, 250), (399, 260), (30, 30, 30), 4)
    return picture


def _mask(**settings: str | float) -> TissueMask:
    return segment_thumbnail(Thumbnail(_slide(), (16, 16)), MPP, TissueSettings(**settings))


def test_tissue_is_what_was_found_less_what_was_left_out() -> None:
    without = _mask(pen="off", edge="off", **BARE)
    found = _mask(pen="flag", edge="flag", **BARE)
    left = _mask(**BARE)
    assert set(left.artefacts) == set(found.artefacts) == {"pen", "edge"} and without.artefacts == {}
    assert np.array_equal(left.mask, found.mask & ~left.artefacts["pen"] & ~left.artefacts["edge"])
    removed = {kind: area for kind, area in left.removed_um2.items() if kind != "small pieces"}
    assert sum(removed.values()) == pytest.approx(found.area_um2 - left.area_um2)
    assert found.removed_um2.get("pen") is None and removed["pen"] > 100_000 and removed["edge"] > 10_000


def test_closing_and_filling_do_not_bring_artefacts_back() -> None:
    left = _mask(close_um=400.0, max_hole_um2=1e7)
    assert not (left.mask & (left.artefacts["pen"] | left.artefacts["edge"])).any()


def _clean(**changes: Any) -> TissueMask:
    mask = np.zeros((100, 100), bool)
    mask[20:60, 20:60] = True
    facts: dict[str, Any] = {"mask": mask, "scale0": (16, 16), "mpp": MPP, "colour": {"mean": [200.0, 120.0, 170.0]}}
    return TissueMask(**{**facts, **changes})


def test_a_plain_slide_is_not_suspicious() -> None:
    assert suspicion(_clean()) == 0


def test_each_oddity_counts_as_documented() -> None:
    whole, mask = np.ones((100, 100), bool), _clean().mask
    pixel_um2 = 64.0
    dots = np.zeros((100, 100), bool)
    dots[::10, ::10] = True
    assert suspicion(_clean(flags=("a", "b"))) == 2
    assert suspicion(_clean(mask=~whole)) == 3
    assert suspicion_terms(_clean(artefacts={"blur": _top(mask, 20)}))["artefacts"] == 0.5
    removed = _clean(artefacts={"pen": ~mask}, removed_um2={"pen": 400 * pixel_um2, "small pieces": 1e9})
    assert suspicion_terms(removed)["artefacts"] == pytest.approx(400 / 2000)
    assert suspicion_terms(_clean(mask=whole))["full"] == 1 and suspicion_terms(_clean(mask=whole))["border"] == 1
    assert suspicion_terms(_clean(mask=_top(mask, 1)))["scarce"] == pytest.approx(0.6)
    assert suspicion_terms(_clean(mask=dots))["pieces"] == 1
    assert suspicion_terms(_clean(colour={"mean": [255 * 10**-0.06] * 3}))["pale"] == pytest.approx(0.6)


def _top(mask: BoolArray, rows: int) -> BoolArray:
    """The first rows of a square that begins at row 20."""
    top = mask.copy()
    top[20 + rows :] = False
    return top
