"""Resolution: who may say it, in which order, and what is refused."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest

from pathpipe.errors import SlideError
from pathpipe.slides.open import open_slide
from pathpipe.slides.readers.openslide import _bounds
from pathpipe.slides.resolution import resolve_mpp, stated_number
from pathpipe.slides.slide import Box, Closing, Mpp, Pixels, make_levels
from pathpipe.testing.slides import plain_tiff, position_pixels, position_slide


def _resolve(path: Path, override: float | None = None, policy: str = "error") -> tuple[float, float, str]:
    with open_slide(path) as slide:
        mpp = resolve_mpp(slide, override, policy)
    return mpp.x, mpp.y, mpp.source


def test_chain(tmp_path: Path) -> None:
    stated = position_slide(tmp_path / "a.svs", [(64, 64)], mpp=0.2524)
    assert _resolve(stated) == (0.2524, 0.2524, "aperio property")
    assert _resolve(stated, override=0.4) == (0.4, 0.4, "cohort")
    assert _resolve(stated, policy="default=1")[2] == "aperio property", "a default must not replace a statement"


def test_policies_speak_only_when_nobody_else_does(tmp_path: Path) -> None:
    silent = position_slide(tmp_path / "a.svs", [(64, 64)], mpp=None, objective=40)
    with pytest.raises(SlideError, match=r"has no resolution.*objective power is 40") as caught:
        _resolve(silent)
    assert "--mpp-policy objective" in (caught.value.hint or "")
    assert _resolve(silent, policy="objective") == (0.25, 0.25, "objective 40x")
    assert _resolve(silent, policy="default=0.3") == (0.3, 0.3, "default of --mpp-policy")
    nothing = position_slide(tmp_path / "b.svs", [(64, 64)], mpp=None, objective=None)
    with pytest.raises(SlideError, match="no objective power"):
        _resolve(nothing, policy="objective")


def test_tiff_tags_keep_x_and_y_apart(tmp_path: Path) -> None:
    path = plain_tiff(tmp_path / "a.tif", position_pixels((64, 64)), (0.25, 0.27))
    x, y, source = _resolve(path)
    assert (x, y, source) == (pytest.approx(0.25), pytest.approx(0.27), "TIFF resolution tags")


@pytest.mark.parametrize("value", [0.0, -1.0, float("nan"), float("inf"), 264.6, 0.01])
def test_what_cannot_be_true_is_refused(tmp_path: Path, value: float) -> None:
    path = position_slide(tmp_path / "a.svs", [(64, 64)])
    with pytest.raises(SlideError, match="can't be true"):
        _resolve(path, override=value)


def test_printer_resolution_is_not_believed(tmp_path: Path) -> None:
    dpi_72 = 25_400 / 72
    path = plain_tiff(tmp_path / "a.tif", np.zeros((64, 64, 3), np.uint8), (dpi_72, dpi_72))
    with pytest.raises(SlideError, match=r"352\.778 um/px"):
        _resolve(path)
    odd = plain_tiff(tmp_path / "b.tif", np.zeros((64, 64, 3), np.uint8), (0.25, 1.0))
    with pytest.raises(SlideError, match=r"pixels of 0.25 x 1 um"):
        _resolve(odd)


class _Stated(Closing):
    """A slide that states what it is told to."""

    reader = vendor = "paper"
    path = Path("paper.svs")
    size0 = (100, 100)
    levels = make_levels([(100, 100)])
    bounds: Box | None = None
    properties: Mapping[str, str] = {}
    associated: tuple[str, ...] = ()

    def __init__(self, mpp: Mpp | None, objective: float | None = None) -> None:
        self.mpp, self.objective = mpp, objective

    def read(self, xy0: tuple[int, int], level: int, size_px: tuple[int, int]) -> Pixels:
        """There are no pixels on paper."""
        raise NotImplementedError


FILE = Mpp(0.25, 0.26, "aperio property")


@pytest.mark.parametrize(
    ("stated", "objective", "override", "policy", "expected"),
    [
        (FILE, 40, 0.5, "error", Mpp(0.5, 0.5, "cohort")),
        (FILE, 40, None, "objective", FILE),
        (FILE, 20, None, "default=1", FILE),
        (None, 40, 0.5, "default=1", Mpp(0.5, 0.5, "cohort")),
        (None, 63, None, "objective", Mpp(10 / 63, 10 / 63, "objective 63x")),
        (None, 1.25, None, "objective", Mpp(8.0, 8.0, "objective 1.25x")),
        (None, 40, None, "default=0.3", Mpp(0.3, 0.3, "default of --mpp-policy")),
        (None, None, None, "default=0.3", Mpp(0.3, 0.3, "default of --mpp-policy")),
    ],
)
def test_who_is_heard_first(
    stated: Mpp | None, objective: float | None, override: float | None, policy: str, expected: Mpp
) -> None:
    found = resolve_mpp(_Stated(stated, objective), override, policy)
    assert found == expected


@pytest.mark.parametrize("policy", ["error", "objective", "default=0.25"])
def test_a_statement_that_cannot_be_true_is_not_passed_over(policy: str) -> None:
    """Somebody should look: a wrong statement must not be replaced by a guess."""
    with pytest.raises(SlideError, match=r"264.58 um/px .aperio property. can't be true"):
        resolve_mpp(_Stated(Mpp(264.58, 264.58, "aperio property"), 40), None, policy)


@pytest.mark.parametrize(("x", "y", "credible"), [
    (0.05, 0.05, True), (40, 40, True), (0.0499, 0.0499, False), (40.01, 40.01, False), (28.969, 28.968, True),
    (0.25, 0.375, True), (0.25, 0.376, False), (0.376, 0.25, False), (0.5, math.nan, False), (math.inf, 0.5, False),
])  # fmt: skip
def test_bounds_of_what_can_be_true(x: float, y: float, credible: bool) -> None:
    slide = _Stated(Mpp(x, y, "test"))
    if credible:
        assert resolve_mpp(slide, None, "error") == Mpp(x, y, "test"), "x and y stay apart"
    else:
        with pytest.raises(SlideError, match="can't be true"):
            resolve_mpp(slide, None, "error")


def test_an_objective_that_cannot_be_true_is_refused() -> None:
    with pytest.raises(SlideError, match=r"a resolution of 0.01 um/px \(objective 1000x\)"):
        resolve_mpp(_Stated(None, 1000), None, "objective")


@pytest.mark.parametrize(
    ("text", "number"),
    [("0.25", 0.25), (" 40 ", 40), ("2.5e-1", 0.25), ("0", None), ("-1", None), ("nan", None), ("", None), (None, None),
     ("0,25", 0.25), ("1,000.5", None), ("40x", None)],
)  # fmt: skip
def test_numbers_as_files_state_them(text: str | None, number: float | None) -> None:
    assert stated_number(text) == number


def test_dicom_states_millimetres(shared_data: Path) -> None:
    x, y, source = _resolve(shared_data / "slides" / "dicom_camelyon_jpeg.dcm")
    assert (x, y, source) == (pytest.approx(28.969), pytest.approx(28.968), "DICOM pixel spacing")


@pytest.mark.parametrize(
    ("size0", "size1", "downsample"),
    [
        ((99_997, 79_998), (25_000, 20_000), 3.99989),
        ((100_007, 60_005), (25_000, 15_000), 4.000306667),
        ((60_005, 100_007), (15_000, 25_000), 4.000306667),
        ((46_000, 32_914), (2_875, 2_057), 16.000486145),
    ],
)
def test_downsamples_are_the_mean_of_both_sides_and_not_rounded(
    size0: tuple[int, int], size1: tuple[int, int], downsample: float
) -> None:
    x, y = make_levels([size0, size1])[1].downsample
    assert x == y == pytest.approx(downsample, abs=1e-9)


def test_levels_that_shrink_x_and_y_apart_keep_both() -> None:
    assert make_levels([(4000, 4000), (1000, 2000)])[1].downsample == (4, 2)


@pytest.mark.parametrize(
    ("properties", "expected"),
    [
        ({"x": "1000", "y": "2000", "width": "500", "height": "400"}, Box(1000, 2000, 500, 400)),
        ({"x": "1000", "y": "2000"}, None),
        ({"x": "0", "y": "0", "width": "0", "height": "400"}, None),
        ({"x": "a", "y": "0", "width": "5", "height": "400"}, None),
        ({}, None),
    ],
)
def test_scanned_part_as_mirax_slides_state_it(properties: dict[str, str], expected: Box | None) -> None:
    assert _bounds({f"openslide.bounds-{key}": value for key, value in properties.items()}) == expected
