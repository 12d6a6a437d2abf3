"""CLAM's rules against a plain reading of them: its presets, its areas, its holes."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy import ndimage

from pathpipe.errors import SettingsError, SlideError
from pathpipe.settings import TissueSettings
from pathpipe.slides.slide import Mpp
from pathpipe.tissue.method import View, tissue_method
from pathpipe.tissue.methods.clam import closed, nearest_odd
from pathpipe.tissue.methods.nested import filter_areas
from pathpipe.tissue.segment import segment_thumbnail
from pathpipe.tissue.thumbnail import Thumbnail

EIGHT = np.ones((3, 3))


def plain_filter(tissue: np.ndarray, piece_px: float, hole_px: float, most_holes: int) -> np.ndarray:
    """What CLAM's description says, piece by piece and hole by hole."""
    result = np.zeros_like(tissue)
    labels, count = ndimage.label(tissue, EIGHT)
    for piece in range(1, count + 1):
        own = labels == piece
        if own.sum() <= piece_px:
            continue
        outline = ndimage.binary_fill_holes(own)
        holes, n_holes = ndimage.label(outline & ~own)
        regions = sorted((holes == hole for hole in range(1, n_holes + 1)), key=lambda hole: -hole.sum())
        for hole in regions[:most_holes]:
            if hole.sum() > hole_px:
                outline &= ~hole
        result |= outline
    return result


def view(pixels: np.ndarray, scale0: float) -> View:
    return View(pixels, scale0 * 0.25, (scale0, scale0), np.zeros(pixels.shape[:2], bool))


@settings(max_examples=150, deadline=None)
@given(arrays(bool, (14, 17), elements=st.booleans()), st.integers(0, 30), st.integers(0, 6))
def test_random_masks_are_filtered_as_the_rules_say(tissue: np.ndarray, piece_px: int, hole_px: int) -> None:
    many = filter_areas(tissue, piece_px, hole_px, 100)
    assert (many == plain_filter(tissue, piece_px, hole_px, 100)).all()


def test_nested_rings_are_filtered_as_the_rules_say() -> None:
    rng = np.random.default_rng(0)
    for _ in range(60):
        tissue = np.zeros((60, 70), bool)
        for radius in (28, 24, 19, 15, 9, 4):
            value = rng.random() < 0.6
            centre = (int(rng.integers(30, 40)), int(rng.integers(25, 35)))
            tissue[cv2.circle(np.zeros(tissue.shape, np.uint8), centre, radius, 1, -1) > 0] = value
        for piece_px, hole_px in [(0, 0), (100, 50), (600, 200), (50, 2000)]:
            expected = plain_filter(tissue, piece_px, hole_px, 100)
            assert (filter_areas(tissue, piece_px, hole_px, 100) == expected).all()


def test_only_the_largest_holes_of_each_piece_stay() -> None:
    tissue = np.zeros((40, 100), bool)
    tissue[2:38, 2:48] = tissue[2:38, 52:98] = True
    for left in (0, 50):
        for number, side in enumerate((2, 3, 4, 5)):
            tissue[10 : 10 + side, left + 5 + 10 * number : left + 5 + 10 * number + side] = False
    two = filter_areas(tissue, 10, 3, 2)
    assert tissue.sum() == 2 * (36 * 46 - 4 - 9 - 16 - 25)
    assert two.sum() == 2 * (36 * 46 - 16 - 25), "the two largest stay bare, the others are filled"
    assert filter_areas(tissue, 10, 16, 8).sum() == 2 * (36 * 46 - 25), "larger than, not as large as"
    assert filter_areas(tissue, 10, 0, 0).sum() == 2 * 36 * 46


@pytest.mark.parametrize("side", [1, 2, 3, 4, 7])
def test_closing_stays_in_place(side: int) -> None:
    rng = np.random.default_rng(side)
    binary = (ndimage.gaussian_filter(rng.random((60, 60)), 2) > 0.5).astype(np.uint8)
    binary[:10] = binary[-10:] = 0
    binary[:, :10] = binary[:, -10:] = 0
    expected = ndimage.binary_closing(binary, np.ones((side, side)))
    assert (closed(binary, side).astype(bool) == expected).all()
    assert (closed(binary, side) >= binary).all()


def test_odd_widths() -> None:
    assert [nearest_odd(width) for width in (0.2, 1, 1.9, 2.1, 7, 14.4, 22)] == [1, 1, 1, 3, 7, 15, 21]


@pytest.mark.parametrize(
    ("preset", "numbers"),
    [
        ("default", (8, 7, 4, False, 100, 16, 8)),
        ("tcga", (8, 7, 4, False, 16, 4, 8)),
        ("biopsy", (15, 11, 2, False, 1, 1, 2)),
        ("resection", (15, 11, 4, False, 100, 16, 8)),
    ],
)
def test_presets_hold_the_numbers_of_the_published_tables(preset: str, numbers: tuple[Any, ...]) -> None:
    options = tissue_method("clam", {"preset": preset}).options  # type: ignore[attr-defined]
    names = ("sthresh", "mthresh", "close", "use_otsu", "a_t", "a_h", "max_n_holes")
    assert tuple(getattr(options, name) for name in names) == numbers
    changed = tissue_method("clam", {"preset": preset, "a_t": 7}).options  # type: ignore[attr-defined]
    assert (changed.a_t, changed.a_h, changed.sthresh) == (7, numbers[5], numbers[0])


def test_options_that_cant_be_are_refused() -> None:
    with pytest.raises(SettingsError, match="mthresh must be odd"):
        tissue_method("clam", {"mthresh": 8})
    with pytest.raises(SettingsError, match="did you mean `sthresh`"):
        tissue_method("clam", {"sthresholds": 8})
    with pytest.raises(SettingsError, match="preset"):
        tissue_method("clam", {"preset": "tgca"})


def _section(side: int) -> np.ndarray:
    """Pink squares whose sides are 1/4, 1/8 and 1/16 of the picture, the largest with two holes."""
    picture = np.full((side, side, 3), 240, np.uint8)
    unit = side // 64
    for x, y, size in [(4, 4, 32), (44, 4, 8), (44, 44, 4)]:
        picture[y * unit : (y + size) * unit, x * unit : (x + size) * unit] = (200, 120, 170)
    for x, y, size in [(10, 10, 8), (26, 26, 2)]:
        picture[y * unit : (y + size) * unit, x * unit : (x + size) * unit] = 240
    return picture


@pytest.mark.parametrize("scale0", [64.0, 32.0, 16.0])
def test_areas_mean_the_same_whatever_the_resolution(scale0: float) -> None:
    # a unit of the picture is 256 level-0 px here, so a square of 512 px is 4 of them
    pixels = _section(int(64 * 256 / scale0))
    unit = int(256 / scale0)

    def units(**options: Any) -> int:
        found = tissue_method("clam", {"mthresh": 1, "close": 0, "seg_downsample": scale0, **options}).find(
            view(pixels, scale0)
        )
        assert found.finished
        assert found.mask.sum() % unit**2 == 0
        return int(found.mask.sum()) // unit**2

    whole, hole, crack, middle, small = 32**2, 8**2, 2**2, 8**2, 4**2
    assert units(a_t=3.9, a_h=0.9) == whole - hole - crack + middle + small
    assert units(a_t=3.9, a_h=1.0) == whole - hole + middle + small
    assert units(a_t=4.0, a_h=1.0) == whole - hole + middle
    assert units(a_t=16.0, a_h=16.0) == whole
    assert units(a_t=(whole - hole - crack) / 4) == 0, "the area of tissue is without its holes"
    assert units(a_t=1, a_h=0.5, max_n_holes=1) == whole - hole + middle + small


def test_blur_threshold_and_closing_follow_clam_at_its_own_level() -> None:
    rng = np.random.default_rng(0)
    soft = ndimage.gaussian_filter(rng.random((150, 180)), 3)
    hue = np.full(soft.shape, 150, np.uint8)
    saturated = np.clip((soft - 0.5) * 600 + 12, 0, 80).astype(np.uint8)
    pixels = cv2.cvtColor(np.dstack([hue, saturated, np.full(soft.shape, 250, np.uint8)]), cv2.COLOR_HSV2RGB)
    saturation = cv2.cvtColor(pixels, cv2.COLOR_RGB2HSV)[..., 1]
    binary = ndimage.median_filter(saturation, 7, mode="nearest") > 8
    binary = ndimage.binary_closing(np.pad(binary, 8), np.ones((4, 4)))[8:-8, 8:-8]
    square = 512**2 / 64**2
    expected = plain_filter(binary, 2 * square, 1 * square, 8)
    found = tissue_method("clam", {"a_t": 2, "a_h": 1}).find(view(pixels, 64.0))
    assert 0.2 < expected.mean() < 0.9
    assert (found.mask == expected)[5:-5, 5:-5].mean() > 0.999
    assert found.threshold == 8


def test_otsu_replaces_the_threshold() -> None:
    from skimage.filters import threshold_otsu

    rng = np.random.default_rng(0)
    pixels = np.full((200, 200, 3), (235, 215, 225), np.uint8)
    pixels[50:150, 50:150] = (190, 90, 150)
    pixels = np.clip(pixels + rng.normal(0, 6, pixels.shape), 0, 255).astype(np.uint8)
    plain = tissue_method("clam", {"preset": "tcga"}).find(view(pixels, 64.0))
    otsu = tissue_method("clam", {"preset": "tcga", "use_otsu": True}).find(view(pixels, 64.0))
    saturation = cv2.medianBlur(cv2.cvtColor(pixels, cv2.COLOR_RGB2HSV)[..., 1], 7)
    assert plain.mask.mean() == 1, "glass this coloured is over 8"
    assert otsu.threshold == pytest.approx(threshold_otsu(saturation), abs=1)
    assert otsu.mask.mean() == pytest.approx(0.25, rel=0.03)


def test_a_median_wider_than_can_be_counted_is_refused_in_one_sentence() -> None:
    pixels = _section(64)
    assert tissue_method("clam", {"mthresh": 99, "a_t": 0}).find(view(pixels, 64 / 2.5)) is not None  # 247 px
    with pytest.raises(SlideError, match=r"median filter 449 px wide, and the widest is 255.*seg_downsample=1"):
        tissue_method("clam", {}).find(view(pixels, 1.0))


def test_pieces_that_it_drops_are_the_reason_for_an_empty_mask() -> None:
    pixels = _section(256)  # 2048 um wide: its pieces are 0.82, 0.07 and 0.02 mm2, a_t is 1.6 mm2
    thumbnail = Thumbnail(pixels, (32.0, 32.0))
    options = TissueSettings(method="clam", method_settings={"seg_downsample": 32, "close": 0, "mthresh": 1})
    mask = segment_thumbnail(thumbnail, Mpp(0.25, 0.25, "test"), options)
    unit_um2 = (4 * 8.0) ** 2
    dropped = (32**2 - 8**2 - 2**2 + 8**2 + 4**2) * unit_um2
    assert mask.removed_um2["small pieces"] == dropped
    assert mask.empty_reason == f"no tissue found but pieces too small to keep ({dropped:.0f} um2)"
