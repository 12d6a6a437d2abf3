"""Focus: real tissue blurred by known amounts is found where it was blurred, and sharp tissue of any stain is not."""

from __future__ import annotations

import re
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image
from skimage.data import immunohistochemistry

from pathpipe.errors import SlideError
from pathpipe.samples import BUNDLED_SLIDE
from pathpipe.settings import TissueSettings
from pathpipe.slides.open import open_slide
from pathpipe.slides.slide import Mpp, Pixels
from pathpipe.slides.writer import SvsFormat, write_svs
from pathpipe.testing.slides import position_slide
from pathpipe.tissue.mask import BoolArray, TissueMask
from pathpipe.tissue.quality import blur
from pathpipe.tissue.quality.blur import find_blur, focus_um
from pathpipe.tissue.segment import segment

MPP_UM = 0.499


@pytest.fixture(scope="module")
def sharp() -> Pixels:
    with open_slide(BUNDLED_SLIDE) as slide:
        return slide.read((0, 0), 0, slide.size0)


def _blurred(pixels: Pixels, sigma_um: float) -> Pixels:
    return np.asarray(cv2.GaussianBlur(pixels, (0, 0), sigma_um / MPP_UM)) if sigma_um else pixels


@pytest.fixture(scope="module")
def quarters(tmp_path_factory: pytest.TempPathFactory, sharp: Pixels) -> Path:
    """A slide of four times the same tissue: sharp, and blurred by 2, 4 and 8 um, with a camera's noise over all."""
    upper = np.hstack([sharp, _blurred(sharp, 2)])
    lower = np.hstack([_blurred(sharp, 4), _blurred(sharp, 8)])
    picture = np.vstack([upper, lower])
    noise = 2 * np.random.default_rng(0).standard_normal(picture.shape, np.float32)
    path = tmp_path_factory.mktemp("blur") / "a.svs"
    write_svs(path, [(picture + noise).clip(0, 255).astype(np.uint8)], MPP_UM, 20, SvsFormat(quality=85))
    return path


def _segment(path: Path, **settings: str | float) -> TissueMask:
    with open_slide(path) as slide:
        assert slide.mpp is not None
        return segment(slide, slide.mpp, TissueSettings(**settings))


def _by_quarter(mask: BoolArray, tissue: BoolArray) -> list[float]:
    """Share of each quarter's tissue: upper left, upper right, lower left, lower right."""
    rows, columns = mask.shape[0] // 2, mask.shape[1] // 2
    return [
        float((mask & tissue)[y, x].sum() / tissue[y, x].sum())
        for y in (slice(0, rows), slice(rows, None))
        for x in (slice(0, columns), slice(columns, None))
    ]


def test_blur_is_found_where_it_is(quarters: Path) -> None:
    found = _segment(quarters)
    shares = _by_quarter(found.artefacts["blur"], found.mask)
    assert shares[0] < 0.02 and shares[1] > 0.85 and min(shares[2:]) > 0.95
    assert found.removed_um2.get("blur") is None, "the default only flags"
    assert len(found.flags) == 1
    assert re.fullmatch(r"out of focus: 7\d% of the tissue found, kept", found.flags[0])


def test_excluding_blur_takes_exactly_what_was_found(quarters: Path) -> None:
    kept = _segment(quarters, min_area_um2=0, close_um=0, max_hole_um2=0, blur="off")
    left = _segment(quarters, min_area_um2=0, close_um=0, max_hole_um2=0, blur="exclude", max_rejected=1)
    assert kept.artefacts == {}
    assert np.array_equal(left.mask, kept.mask & ~left.artefacts["blur"])
    assert left.removed_um2["blur"] == pytest.approx((kept.mask.sum() - left.mask.sum()) * kept.pixel_um2)


def test_a_slide_mostly_out_of_focus_is_kept_and_says_why(quarters: Path) -> None:
    found = _segment(quarters, blur="exclude")
    assert np.array_equal(found.mask, _segment(quarters, blur="off").mask)
    assert len(found.flags) == 1 and "blur" not in found.removed_um2
    assert "would have taken" in found.flags[0] and "out of focus" in found.flags[0] and "kept" in found.flags[0]


def test_the_same_slide_gives_the_same_verdict(quarters: Path) -> None:
    first, second = _segment(quarters), _segment(quarters)
    assert np.array_equal(first.artefacts["blur"], second.artefacts["blur"]) and first.flags == second.flags


def _windows(pixels: Pixels, shrink: int) -> np.ndarray:
    """Every window of 64 px that fits, green, shrunk to about 1 um/px."""
    height, width = pixels.shape[0] // shrink, pixels.shape[1] // shrink
    green = cv2.resize(pixels[..., 1], (width, height), interpolation=cv2.INTER_AREA)
    rows, columns = height // 64, width // 64
    return np.stack([green[64 * r : 64 * r + 64, 64 * c : 64 * c + 64] for r in range(rows) for c in range(columns)])


def _judged(pictures: list[Pixels], um: float) -> np.ndarray:
    width_um, contrast = focus_um(np.concatenate([_windows(one, 2) for one in pictures]), um)
    return width_um[contrast >= blur.MIN_CONTRAST]


def test_sharp_tissue_of_many_kinds_is_not_blurred(sharp: Pixels, shared_data: Path) -> None:
    folder = shared_data / "bags" / "crchisto_colon_100"
    files = sorted(path for path in folder.rglob("*") if path.suffix in (".png", ".bmp", ".jpg"))
    colon = [np.asarray(Image.open(path).convert("RGB")) for path in files[::2]]
    assert len(colon) == 50
    for pictures, um in (([sharp], 1.0), (colon, 1.1), ([immunohistochemistry()], 1.0)):
        width_um = _judged(pictures, um)
        assert len(width_um) >= 16 and (width_um > blur.BLURRED_UM).mean() < 0.01


def test_width_is_that_of_the_blur_whatever_the_strength_of_the_stain(sharp: Pixels) -> None:
    part = sharp[900:2100]
    pale = np.round(245 * (part / 245.0) ** 0.5).clip(0, 255).astype(np.uint8)
    for picture in (part, pale):
        for sigma_um in (2.0, 4.0, 6.0):
            assert np.median(_judged([_blurred(picture, sigma_um)], 2 * MPP_UM)) == pytest.approx(sigma_um, rel=0.3)


def test_ground_without_contrast_is_not_judged() -> None:
    flat = np.full((3, 64, 64), 180, np.uint8) + np.random.default_rng(0).integers(0, 3, (3, 64, 64), dtype=np.uint8)
    assert (focus_um(flat, 1.0)[1] < blur.MIN_CONTRAST).all()


def test_isolated_verdicts_do_not_count() -> None:
    grid = np.array([[1, -1, 0, 0, 0], [-1, -1, 0, 1, 1], [0, 0, 0, -1, -1], [1, 0, 0, 0, 0]], np.int8)
    kept = blur._supported(grid)
    assert kept.tolist() == [
        [False, False, False, False, False],
        [False, False, False, True, True],
        [False, False, False, False, False],
        [True, False, False, False, False],
    ]


def test_windows_are_bounded_and_spread(quarters: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each cell with enough tissue has one window, whatever the limit; no part of the tissue goes without."""
    tissue = np.zeros((1000, 800), bool)
    tissue[100:900, 50:700] = True
    monkeypatch.setattr(blur, "MAX_WINDOWS", 40)
    side, spots = blur._spots(tissue, (8.0, 8.0), 64.0)
    assert 30 <= len(spots) <= 40 and tissue[tuple(spots.T)].all()
    assert len({(row // side, column // side) for row, column in spots.tolist()}) == len(spots)
    away = cv2.distanceTransform((~_points(tissue.shape, spots)).astype(np.uint8), cv2.DIST_L2, 5)
    assert away[tissue].max() < 2 * side
    assert len(blur._spots(np.zeros((50, 50), bool), (8.0, 8.0), 64.0)[1]) == 0


def _points(shape: tuple[int, int], spots: np.ndarray) -> BoolArray:
    mask = np.zeros(shape, bool)
    mask[tuple(spots.T)] = True
    return mask


@pytest.mark.parametrize(
    ("mpp_um", "level", "um"), [(0.25, 1, 1.0), (0.5, 0, 1.0), (1.0, 0, 1.0), (2.0, 0, 2.0), (0.1, 1, 0.8)]
)
def test_windows_come_from_the_coarsest_pixels_that_are_fine_enough(
    tmp_path: Path, mpp_um: float, level: int, um: float
) -> None:
    path = position_slide(tmp_path / "a.svs", [(1024, 1024), (256, 256), (64, 64)], mpp=mpp_um)
    with open_slide(path, "openslide") as slide:
        source = blur._source(slide, Mpp(mpp_um, mpp_um, "test"))
    assert source is not None
    assert source.level.index == level and source.mean_um == pytest.approx(um)


def test_a_slide_too_coarse_is_not_judged_and_says_so_if_asked(tmp_path: Path, sharp: Pixels) -> None:
    path = tmp_path / "a.svs"
    write_svs(path, [sharp[::4, ::4].copy()], 4.0, None, SvsFormat(quality=None))
    assert _segment(path, blur="flag").flags == ()
    assert _segment(path, blur="exclude").flags == ("focus was not judged: the slide has no level finer than 2 um/px",)


def test_windows_that_cannot_be_read_are_counted_and_not_judged(
    quarters: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise SlideError("damaged", where="a.svs")

    tissue = np.ones((370, 270), bool)
    monkeypatch.setattr(blur, "_window", refuse)
    with open_slide(quarters) as slide:
        focus = find_blur(slide, Mpp(MPP_UM, MPP_UM, "test"), tissue, (16.0, 16.0))
    assert focus is not None and focus.unreadable > 20 and focus.judged == 0 and not focus.blurred.any()
    assert "could not be read" in _segment(quarters).flags[0]


def test_windows_lie_on_the_tissue_they_stand_for(tmp_path: Path, sharp: Pixels) -> None:
    """A window's centre is the mask pixel's, also where level 0 is not square."""
    path = position_slide(tmp_path / "a.svs", [(2048, 1024)], mpp=1.0)
    tissue = np.zeros((128, 256), bool)
    tissue[40:60, 100:120] = True
    with open_slide(path, "openslide") as slide:
        source = blur._source(slide, Mpp(1.0, 1.0, "test"))
        assert source is not None
        _, spots = blur._spots(tissue, (8.0, 8.0), 64.0)
        row, column = spots[0]
        window = blur._window(slide, source, ((column + 0.5) * 8, (row + 0.5) * 8))
    top = round((row + 0.5) * 8 - 32)
    assert window.shape == (64, 64) and tissue[row, column]
    assert window[:, 0].tolist() == [(top + y) // 16 % 256 for y in range(64)], "green says the row"
