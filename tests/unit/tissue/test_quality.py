"""Artefacts: found on real pictures that have them and where they are painted, not found where there are none."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from PIL import Image
from skimage.data import immunohistochemistry

from pathpipe.samples import BUNDLED_SLIDE
from pathpipe.settings import TissueSettings
from pathpipe.slides.open import open_slide
from pathpipe.slides.slide import Pixels
from pathpipe.tissue.mask import BoolArray
from pathpipe.tissue.quality.seen import Seen, find_artefacts
from pathpipe.tissue.thumbnail import read_thumbnail

SETTINGS = TissueSettings()
RESOLUTION = {"diagnostic-slide-thumb-rgb": 40.0, "ibm_498-rgb": 24.0}  # um/px of what isn't about 8
CLEAN = ["histoqc_TCGA-EJ-5509_thumb", "histoqc_template1", "histoqc_template3", "ibm_498-rgb", "tcga-lung-rgb"]
WITHOUT_PEN = [*CLEAN, "histoqc_coverslip_edge_he_coverslip_edge"]


def _picture(shared_data: Path, name: str) -> Pixels:
    return np.asarray(Image.open(shared_data / "thumbnails" / f"{name}.png").convert("RGB"))


def _seen(pixels: Pixels, um: float = 8.0, **settings: Any) -> Seen:
    return find_artefacts(pixels, um, TissueSettings(**settings))


def _overlap(found: BoolArray, truth: BoolArray) -> float:
    return float((found & truth).sum() / (found | truth).sum())


def _painted() -> Pixels:
    """Glass with noise, and real haematoxylin and eosin on it."""
    rng = np.random.default_rng(0)
    picture = rng.normal(243, 1.5, (420, 520, 3)).clip(0, 255).astype(np.uint8)
    with open_slide(BUNDLED_SLIDE) as slide:
        tissue = read_thumbnail(slide, 16).pixels
    picture[110 : 110 + tissue.shape[0], 180 : 180 + tissue.shape[1]] = tissue
    return picture


def _with_ink(picture: Pixels, ink: tuple[int, int, int], strength: float) -> tuple[Pixels, BoolArray]:
    """A stroke over glass and tissue: the light that passes both."""
    stroke = np.zeros(picture.shape[:2], np.uint8)
    cv2.polylines(stroke, [np.array([[40, 60], [200, 150], [300, 330], [480, 380]])], False, 1, 40)
    passed = (np.asarray(ink) / 245) ** strength
    inked = np.where(stroke[..., None] > 0, picture * passed, picture)
    return np.round(cv2.GaussianBlur(inked, (0, 0), 1)).astype(np.uint8), stroke.astype(bool)


INKS = {"blue": (38, 62, 170), "green": (30, 110, 95), "red": (205, 35, 55), "black": (25, 25, 28)}


@pytest.mark.parametrize("colour", INKS)
def test_ink_is_found_and_named_whether_strong_or_faint(colour: str) -> None:
    picture, stroke = _with_ink(_painted(), INKS[colour], 1.0)
    seen = _seen(picture)
    assert colour in seen.inks
    assert _overlap(seen.masks["pen"], stroke) > 0.7
    assert seen.masks["pen"][stroke].mean() > 0.97
    # a stroke that pales from full strength to a quarter of it
    pale, _ = _with_ink(_painted(), INKS[colour], 0.45)
    fading = picture.copy()
    fading[:, 260:] = pale[:, 260:]
    faint = stroke.copy()
    faint[:, :275] = False
    assert _seen(fading).masks["pen"][faint].mean() > 0.6


@pytest.mark.parametrize(
    ("name", "inks", "share"),
    [
        ("histoqc_1k_version_pen_black", {"black"}, (0.16, 0.21)),
        ("histoqc_1k_version_pen_red", {"red"}, (0.035, 0.075)),
        ("tcga-red-pen", {"red"}, (0.22, 0.36)),
        ("diagnostic-slide-thumb-rgb", {"black", "green", "red"}, (0.30, 0.42)),
    ],
)
def test_pen_on_real_slides(shared_data: Path, name: str, inks: set[str], share: tuple[float, float]) -> None:
    seen = _seen(_picture(shared_data, name), RESOLUTION.get(name, 8.0))
    assert set(seen.inks) == inks
    assert share[0] < seen.masks["pen"].mean() < share[1]


def test_pen_lies_where_it_is_seen(shared_data: Path) -> None:
    """Places read off the pictures by eye: (x, y), inked or not."""
    seen = _seen(_picture(shared_data, "histoqc_1k_version_pen_red"))
    for x, y, inked in [
        (121, 435, True),  # a full stroke on glass
        (78, 836, True),
        (200, 126, True),  # faint, over tissue
        (540, 113, True),  # dry, on glass
        (801, 644, True),
        (365, 191, False),  # eosin
        (696, 400, False),
        (522, 522, False),
        (435, 870, False),
        (600, 950, False),  # glass
    ]:
        assert seen.masks["pen"][y - 2 : y + 3, x - 2 : x + 3].any() == inked, (x, y)


@pytest.mark.parametrize("name", WITHOUT_PEN)
def test_no_pen_on_clean_slides(shared_data: Path, name: str) -> None:
    picture = _picture(shared_data, name)
    for um in {8.0, RESOLUTION.get(name, 8.0)}:
        assert "pen" not in _seen(picture, um).masks


@pytest.mark.parametrize("name", CLEAN)
def test_no_edge_and_no_shadow_on_clean_slides(shared_data: Path, name: str) -> None:
    assert not _seen(_picture(shared_data, name), RESOLUTION.get(name, 8.0)).masks


def _stained(colours: dict[tuple[int, int, int], int]) -> Pixels:
    """Discs of 800 um in colours of stain and pigment, noisy, on glass."""
    rng = np.random.default_rng(1)
    picture = np.full((300, 700, 3), 243, np.uint8)
    for index, (colour, radius) in enumerate(colours.items()):
        cv2.circle(picture, (80 + 110 * index, 150), radius, colour, -1)
    return (picture + rng.normal(0, 4, picture.shape)).clip(0, 255).astype(np.uint8)


def test_stain_pigment_and_blood_are_not_ink(shared_data: Path) -> None:
    with open_slide(BUNDLED_SLIDE) as slide:
        he = read_thumbnail(slide, 16).pixels
    ihc = immunohistochemistry()
    for pixels, um in ((he, 8.0), (ihc, 8.0), (ihc, 0.5), (np.ascontiguousarray(ihc[::8, ::8]), 4.0)):
        assert not _seen(pixels, um).masks
    colours = {
        (85, 60, 130): 50,  # dense haematoxylin
        (225, 90, 140): 50,  # dense eosin
        (110, 60, 25): 50,  # DAB
        (85, 55, 38): 50,  # melanin
        (165, 60, 75): 50,  # packed red cells
        (120, 130, 165): 50,  # haematoxylin alone
    }
    assert not _seen(_stained(colours)).masks


def test_stain_of_a_hundred_real_pictures_is_not_ink(shared_data: Path) -> None:
    folder = shared_data / "bags" / "crchisto_colon_100"
    files = sorted(path for path in folder.rglob("*") if path.suffix in (".png", ".bmp", ".jpg"))
    assert len(files) == 100
    opened = [np.asarray(Image.open(path).convert("RGB")) for path in files]
    pictures = [cv2.resize(picture, (50, 50), interpolation=cv2.INTER_AREA) for picture in opened]
    mosaic = np.vstack([np.hstack(pictures[row : row + 10]) for row in range(0, 100, 10)])
    assert "pen" not in _seen(np.asarray(mosaic, np.uint8)).masks


def test_coverslip_edge_on_a_real_slide(shared_data: Path) -> None:
    seen = _seen(_picture(shared_data, "histoqc_coverslip_edge_he_coverslip_edge"))
    edge = seen.masks["edge"]
    assert set(seen.masks) == {"edge"}
    for x, y in [(115, 5), (103, 120), (94, 211), (76, 320), (51, 460), (20, 560)]:  # along the black line, by eye
        assert edge[y - 4 : y + 5, x - 12 : x + 13].any(), (x, y)
    assert not edge[:, 200:].any(), "nothing in the tissue, and not the shade right of it"
    assert 0.01 < edge.mean() < 0.04


def test_line_and_bubble_are_edges_and_short_or_wide_things_are_not() -> None:
    picture, line, ring = _painted(), np.zeros((420, 520), np.uint8), np.zeros((420, 520), np.uint8)
    cv2.ellipse(line, (700, 200), (600, 500), 0, 140, 220, 1, 5)  # bent, 6 mm long
    cv2.circle(ring, (400, 300), 100, 1, 4)
    for mask in (line, ring):
        picture[mask > 0] = (picture[mask > 0] * 0.35).astype(np.uint8)
    picture[20:40, 300:360] = 90  # a smudge
    picture[60:64, 380:480] = 60  # a short hair, 0.8 mm
    edge = _seen(picture).masks["edge"]
    assert edge[line > 0].mean() > 0.95 and edge[ring > 0].mean() > 0.9
    near = cv2.dilate(line | ring, np.ones((13, 13), np.uint8)) > 0
    assert not edge[~near].any()


def test_shadow_at_the_border_is_one_and_a_grey_spot_inside_is_not() -> None:
    picture = _painted()
    ramp = np.linspace(0.35, 0.9, 60)[::-1]
    picture[-60:] = (picture[-60:] * ramp[:, None, None]).astype(np.uint8)
    cv2.circle(picture, (90, 100), 40, (150, 150, 150), -1)
    seen = _seen(picture)
    shadow = seen.masks["shadow"]
    assert set(seen.masks) == {"shadow"}
    assert shadow[-45:].mean() > 0.9 and not shadow[:340].any()


def test_area_that_was_not_scanned_is_a_shadow_and_no_ink() -> None:
    picture = _painted()
    picture[20:90, 30:150] = 0
    seen = _seen(picture)
    truth = np.zeros(picture.shape[:2], bool)
    truth[20:90, 30:150] = True
    assert "pen" not in seen.masks
    assert _overlap(seen.masks["shadow"], truth) > 0.8


@pytest.mark.parametrize("kind", ["pen", "edge", "shadow"])
def test_what_is_off_is_not_looked_for(kind: str) -> None:
    picture, _ = _with_ink(_painted(), INKS["blue"], 1.0)
    cv2.line(picture, (2, 120), (170, 415), (60, 60, 60), 4)
    picture[:25] = 120
    assert set(_seen(picture).masks) == {"pen", "edge", "shadow"}
    settings: dict[str, Any] = {kind: "off"}
    assert set(_seen(picture, **settings).masks) == {"pen", "edge", "shadow"} - {kind}


def test_each_pixel_is_of_one_kind_and_the_same_in_every_run() -> None:
    picture, _ = _with_ink(_painted(), INKS["black"], 1.0)
    cv2.line(picture, (5, 5), (5, 400), (60, 60, 60), 4)
    picture[:25] = 120
    first, second = _seen(picture), _seen(picture)
    assert np.sum(list(first.masks.values()), axis=0).max() == 1
    assert all(np.array_equal(first.masks[kind], second.masks[kind]) for kind in first.masks)


@pytest.mark.parametrize("size", [(1, 1), (2, 700), (5, 5)])
def test_tiny_pictures_have_no_artefacts(size: tuple[int, int]) -> None:
    assert not _seen(np.full((*size, 3), 0, np.uint8)).masks
