"""Ways of finding tissue on pictures whose truth is known: pale stain, brown stain, fat, single cells, bare glass."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from scipy import ndimage
from skimage.color import hdx_from_rgb, separate_stains
from skimage.data import immunohistochemistry
from skimage.filters import threshold_otsu

from pathpipe.errors import SettingsError
from pathpipe.samples import BUNDLED_SLIDE
from pathpipe.slides.open import open_slide
from pathpipe.tissue.method import METHODS, Found, View, missing_files, pinned, tissue_method, without_files
from pathpipe.tissue.methods.glass import as_bright_as_glass, find_glass, otsu_threshold, white_of
from pathpipe.tissue.methods.ihc import density, unmix
from pathpipe.tissue.thumbnail import read_thumbnail

GLASS = (241, 240, 238)
CLASSICAL = ["otsu", "hsv", "clam", "texture", "ihc", "cytology"]


def find(name: str, pixels: np.ndarray, um: float = 8.0, ink: np.ndarray | None = None, **options: Any) -> Found:
    ink = np.zeros(pixels.shape[:2], bool) if ink is None else ink
    view = View(np.ascontiguousarray(pixels), um, (um / 0.25, um / 0.25), ink)
    return tissue_method(name, options).find(view)


def scanned(picture: np.ndarray, seed: int = 0, noise: float = 1.2) -> np.ndarray:
    """With sensor noise, through JPEG with colour at half the resolution."""
    noisy = np.clip(picture + np.random.default_rng(seed).normal(0, noise, (*picture.shape[:2], 1)), 0, 255)
    _, data = cv2.imencode(".jpg", noisy.astype(np.uint8)[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 85])
    decoded = cv2.imdecode(data, cv2.IMREAD_COLOR)
    assert decoded is not None
    return np.ascontiguousarray(decoded[..., ::-1])


def bare(shape: tuple[int, int] = (240, 300)) -> np.ndarray:
    return np.broadcast_to(np.array(GLASS, float), (*shape, 3)).copy()


def disc(shape: tuple[int, int], centre: tuple[int, int], radius: int) -> np.ndarray:
    return cv2.circle(np.zeros(shape, np.uint8), centre, radius, 1, -1) > 0


def tiled(texture: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    """A texture over a whole picture; edges meet as in a mirror."""
    return np.pad(texture, [(0, shape[0]), (0, shape[1]), (0, 0)], mode="reflect")[: shape[0], : shape[1]]


@pytest.mark.parametrize("name", CLASSICAL)
def test_bare_glass_is_empty_and_results_repeat(name: str) -> None:
    glass = scanned(bare())
    options: dict[str, Any] = {"saturation_min": 12} if name == "hsv" else {}
    assert find(name, glass, **options).mask.mean() < 1e-3
    with_tissue = bare()
    with_tissue[60:160, 80:200] = (200, 120, 170)
    pixels = scanned(with_tissue)
    before = pixels.copy()
    first, again = find(name, pixels), find(name, pixels)
    assert first.mask.dtype == bool and first.mask.shape == pixels.shape[:2]
    assert (first.mask == again.mask).all() and (pixels == before).all()


def test_glass_and_otsu_of_a_histogram() -> None:
    rng = np.random.default_rng(0)
    signal = np.concatenate([rng.normal(20, 3, 9000), rng.uniform(24, 90, 3000), rng.normal(150, 9, 4000)])
    values = signal.clip(0, 255).round().astype(np.uint8)
    glass, otsu = find_glass(values)
    assert glass is not None
    assert glass.level == pytest.approx(20, abs=1)
    assert glass.spread == pytest.approx(3, rel=0.15), "what lies above glass doesn't widen it"
    counts = np.bincount(values, minlength=256).astype(float)
    assert otsu == otsu_threshold(counts)
    assert otsu == pytest.approx(threshold_otsu(values), abs=1)
    assert find_glass(values, np.ones(values.shape, bool))[0] is None
    assert find_glass(np.full(50, 7, np.uint8))[0].level == 7  # type: ignore[union-attr]


def test_otsu_leaves_out_colour_that_bled_over_the_edge() -> None:
    truth = disc((240, 300), (150, 120), 70)
    picture = bare()
    picture[truth] = (150, 60, 150)
    bled = cv2.cvtColor(picture.astype(np.uint8), cv2.COLOR_RGB2YCrCb)
    bled[..., 1:] = cv2.GaussianBlur(bled[..., 1:], (0, 0), 5)  # colour wider than what absorbs
    pixels = np.asarray(cv2.cvtColor(bled, cv2.COLOR_YCrCb2RGB), np.uint8)
    found = find("otsu", pixels).mask
    coloured = cv2.cvtColor(pixels, cv2.COLOR_RGB2HSV)[..., 1] > 20
    assert coloured.sum() > 1.1 * truth.sum()
    assert found.sum() == pytest.approx(truth.sum(), rel=0.04)
    assert as_bright_as_glass(pixels, truth)[~ndimage.binary_dilation(truth, iterations=3)].all()


def test_otsu_keeps_pale_beside_strong_stain_and_ignores_ink() -> None:
    strong, pale = disc((240, 300), (80, 120), 50), disc((240, 300), (220, 120), 50)
    picture = bare()
    picture[strong], picture[pale] = (120, 40, 130), (232, 208, 222)
    picture[:30] = (30, 60, 170)
    ink = np.zeros(strong.shape, bool)
    ink[:34] = True
    found = find("otsu", scanned(picture), ink=ink)
    assert found.mask[strong].mean() > 0.98 and found.mask[pale].mean() > 0.98
    assert found.mask[~(strong | pale) & ~ink].mean() < 0.03
    fixed = find("otsu", scanned(picture), threshold=60)
    assert fixed.threshold == 60 and not fixed.mask[pale].any()


@pytest.mark.parametrize(
    ("options", "kept"),
    [
        ({}, {"pink", "purple"}),
        ({"hue_low": 330, "hue_high": 60}, {"pink", "brown"}),
        ({"hue_low": 0, "hue_high": 360, "saturation_min": 100}, {"purple", "brown"}),
        ({"hue_low": 0, "hue_high": 360, "value_min": 0, "value_max": 120}, {"dark"}),
        ({"hue_low": 0, "hue_high": 360, "saturation_max": 60, "saturation_min": 20}, {"pink"}),
    ],
)
def test_hsv_keeps_what_lies_in_its_ranges(options: dict[str, Any], kept: set[str]) -> None:
    # hue in degrees, saturation and value 0-255
    colours = {"pink": (340, 50, 230), "purple": (280, 130, 180), "brown": (30, 140, 150), "dark": (260, 200, 90)}
    for name, (hue, saturation, value) in colours.items():
        hsv = np.full((20, 20, 3), (hue // 2, saturation, value), np.uint8)
        found = find("hsv", cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB), **options).mask
        assert found.all() == found.any() == (name in kept), name


def test_hsv_refuses_ranges_that_hold_nothing() -> None:
    with pytest.raises(SettingsError, match="smallest value is above its largest"):
        tissue_method("hsv", {"saturation_min": 50, "saturation_max": 20})
    with pytest.raises(SettingsError, match="median_px must be odd"):
        tissue_method("hsv", {"median_px": 4})


def _fat(shape: tuple[int, int], um: float) -> tuple[np.ndarray, np.ndarray]:
    """Fat: walls of 8 um around bare cells about 80 um wide, in a disc; and a solid pale disc beside it."""
    rng = np.random.default_rng(1)
    centres = np.argwhere(np.ones((shape[0] // 10 + 2, shape[1] // 10 + 2))) * 80.0 / um + rng.normal(0, 15 / um, 2)
    centres += rng.normal(0, 12 / um, centres.shape)
    grid = np.zeros((shape[0] + 20, shape[1] + 20), bool)
    inside = np.round(centres).astype(int)
    ok = (inside >= 0).all(1) & (inside < grid.shape).all(1)
    grid[tuple(inside[ok].T)] = True
    nearest = ndimage.distance_transform_edt(~grid, return_distances=False, return_indices=True)
    owner = nearest[0] * grid.shape[1] + nearest[1]
    walls = (np.diff(owner, axis=0, append=0) != 0) | (np.diff(owner, axis=1, append=0) != 0)
    fat, solid = disc(shape, (90, 120), 75), disc(shape, (230, 120), 40)
    picture = bare(shape)
    picture[walls[: shape[0], : shape[1]] & fat] = (222, 205, 215)
    picture[solid] = (226, 196, 214)
    return picture, fat


def test_texture_keeps_the_inside_of_fat() -> None:
    picture, fat = _fat((240, 300), 8.0)
    pixels = scanned(picture)
    found, colour = find("texture", pixels).mask, find("otsu", pixels).mask
    core = ndimage.binary_erosion(fat, iterations=8)
    away = ~ndimage.binary_dilation(fat | disc(fat.shape, (230, 120), 40), iterations=6)
    assert found[core].mean() > 0.99
    assert colour[core].mean() < 0.6, "the case that otsu is too narrow for"
    assert found[disc(fat.shape, (230, 120), 36)].all(), "what is coloured and smooth stays too"
    assert found[away].mean() < 0.002
    assert find("texture", pixels, bridge_um=0).mask[core].mean() < 0.9


def _ihc_slide(amount: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Counterstain alone on a large disc, its density scaled; strong DAB on a small one. At 8 um/px."""
    real = immunohistochemistry()[..., :3].astype(float)
    stroma = np.log10(real[304:384, 384:464] / 239).clip(max=0) * amount  # without any brown
    shape = (300, 400)
    small = lambda image: cv2.resize(image, None, fx=1 / 16, fy=1 / 16, interpolation=cv2.INTER_AREA)  # noqa: E731
    pale = tiled(small(tiled(stroma, (1600, 1600))), shape)
    brown = tiled(small(real), shape)
    counterstained, positive = disc(shape, (140, 150), 110), disc(shape, (330, 100), 35)
    picture = bare(shape)
    picture[counterstained] = (np.array(GLASS) * 10**pale)[counterstained]
    picture[positive] = brown[positive]
    return scanned(picture), counterstained, positive


@pytest.mark.parametrize("amount", [1.0, 0.5, 0.35])
def test_ihc_finds_weak_counterstain_beside_strong_brown(amount: float) -> None:
    pixels, counterstained, positive = _ihc_slide(amount)
    found = find("ihc", pixels).mask
    assert found[ndimage.binary_erosion(counterstained, iterations=3)].mean() > 0.95
    assert found[ndimage.binary_erosion(positive, iterations=2)].mean() > 0.97
    assert found[~ndimage.binary_dilation(counterstained | positive, iterations=4)].mean() < 1e-3
    if amount < 1:
        assert find("otsu", pixels).mask[counterstained].mean() < 0.1, "the case that otsu is blind to"


def test_otsu_sees_blue_on_yellowish_glass() -> None:
    glass, blue = np.array([240, 239, 231.0]), 10 ** (-0.1 * np.array([0.65, 0.70, 0.29]))
    picture = np.broadcast_to(glass, (200, 200, 3)).copy()
    picture[60:140, 60:140] *= blue
    pixels = scanned(picture)
    plain = cv2.cvtColor(pixels, cv2.COLOR_RGB2HSV)[..., 1]
    assert np.median(plain[70:130, 70:130]) < 12 + np.median(plain[:50]), "as colours go, it is hardly there"
    found = find("otsu", pixels).mask
    assert found[63:137, 63:137].mean() > 0.97 and found.sum() < 1.1 * 80**2


def test_white_is_the_glass_and_never_pale_tissue() -> None:
    ink = np.zeros((240, 300), bool)
    picture = bare()
    picture[60:160, 80:200] = (200, 120, 170)
    assert np.abs(white_of(scanned(picture), ink) - GLASS).max() <= 1
    to_the_edges = np.broadcast_to(np.array([226, 196, 214.0]), (240, 300, 3))
    assert (white_of(scanned(to_the_edges), ink) == 255).all()
    assert find("otsu", scanned(to_the_edges)).mask.mean() > 0.99


def test_stains_are_unmixed_as_scikit_image_does() -> None:
    real = np.maximum(immunohistochemistry()[::7, ::7, :3], 1)
    expected = separate_stains(real, hdx_from_rgb)  # in units of 6 powers of ten
    haematoxylin, dab = unmix(density(np.ascontiguousarray(real), np.full(3, 255, np.float32)))
    shown = expected[..., :2] > 0.02  # scikit-image cuts off below nought
    assert np.abs(haematoxylin / 6 - expected[..., 0])[shown[..., 0]].max() < 1e-4
    assert np.abs(dab / 6 - expected[..., 1])[shown[..., 1]].max() < 1e-4


def cytology_slide(side: int, singles: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Nuclei of the bundled slide, alone and in two clusters, on unevenly lit glass. At 0.5 um/px.

    Returns:
        (side, side, 3) uint8 and (N, 2) centres, x and y.
    """
    rng = np.random.default_rng(seed)
    with open_slide(BUNDLED_SLIDE, "openslide") as slide:
        source = slide.read((780, 1740), 0, (900, 1200)).astype(np.float32)
    luma = cv2.blur(source.mean(axis=2), (13, 13))
    yy, xx = np.mgrid[-1 : 1 : side * 1j, -1 : 1 : side * 1j]
    picture = (np.array(GLASS) * (1 - 0.05 * (xx**2 + yy**2))[..., None]).astype(np.float32)
    places = [rng.uniform(60, side - 60, 2) for _ in range(singles)]
    for cluster in rng.uniform(0.3 * side, 0.7 * side, (2, 2)):
        places += [cluster + rng.normal(0, 45, 2).clip(-120, 120) for _ in range(25)]
    centres = np.round(places).astype(int)
    for x, y in centres:
        spots = rng.integers(40, (860, 1160), (12, 2))
        sx, sy = min(spots, key=lambda spot: luma[spot[1], spot[0]])
        radius = int(rng.integers(10, 15))
        soft = np.zeros((32, 32), np.float32)
        cv2.ellipse(soft, (16, 16), (radius, radius - 2), float(rng.uniform(0, 180)), 0, 360, 1, -1)
        soft = np.asarray(cv2.GaussianBlur(soft, (0, 0), 1.5), np.float32)[..., None]
        here = picture[y - 16 : y + 16, x - 16 : x + 16]
        here[:] = here * (1 - soft) + source[sy - 16 : sy + 16, sx - 16 : sx + 16] * soft
    return np.clip(picture + rng.normal(0, 1.5, picture.shape), 0, 255).astype(np.uint8), centres


@pytest.mark.parametrize("um", [2.0, 4.0])
def test_cytology_keeps_every_cell_with_its_margin(um: float) -> None:
    picture, centres = cytology_slide(1600, singles=25)
    factor = int(um / 0.5)
    pixels = cv2.resize(picture, None, fx=1 / factor, fy=1 / factor, interpolation=cv2.INTER_AREA)
    found = find("cytology", pixels, um)
    at = np.minimum(centres // factor, pixels.shape[0] - 1)
    assert found.finished
    assert found.mask[at[:, 1], at[:, 0]].all()
    cells = np.zeros(found.mask.shape, bool)
    cells[at[:, 1], at[:, 0]] = True
    distance_um = ndimage.distance_transform_edt(~cells) * um
    assert not found.mask[distance_um > 8 + 16 + 3 * um].any(), "nothing but cells and their margin"
    assert found.mask[distance_um <= 16].mean() > 0.99, "the margin is there"
    tight = find("cytology", pixels, um, margin_um=0).mask
    assert 0.002 < tight.mean() < 0.4 * found.mask.mean()
    assert tight[distance_um <= um].mean() > 0.95


def test_cytology_drops_specks_and_fills_clusters() -> None:
    picture = bare((300, 300))
    dots = np.zeros((300, 300), bool)
    dots[::50, ::50] = True
    picture[dots] = (90, 60, 120)  # one px of 2 um: 4 um2
    solid = disc((300, 300), (170, 170), 60)  # 240 um wide: far wider than a cell
    picture[solid] = (120, 80, 150)
    found = find("cytology", picture.astype(np.uint8), 2.0, margin_um=0).mask
    assert (found == solid).mean() > 0.999
    assert found[solid].all()
    kept = find("cytology", picture.astype(np.uint8), 2.0, margin_um=0, min_cell_um2=4).mask
    assert kept[dots].all()


def test_every_method_runs_on_a_real_slide() -> None:
    with open_slide(BUNDLED_SLIDE, "openslide") as slide:
        pixels = read_thumbnail(slide, 16).pixels
    tissue = find("otsu", pixels).mask
    assert tissue.mean() == pytest.approx(0.37, abs=0.03)
    for name, agreement in {"hsv": 0.88, "ihc": 0.88, "texture": 0.75}.items():
        other = find(name, pixels).mask
        assert (tissue & other).sum() / (tissue | other).sum() > agreement, name


def test_camelyon_fat_is_no_carpet_of_tissue(shared_data: Path) -> None:
    with open_slide(shared_data / "slides" / "dicom_camelyon_jpeg.dcm") as slide:
        pixels = read_thumbnail(slide, 1).pixels
    found = find("otsu", pixels, 28.97).mask
    assert found.mean() == pytest.approx(0.26, abs=0.02)
    dark = cv2.medianBlur(cv2.cvtColor(pixels, cv2.COLOR_RGB2GRAY), 5) < 170
    assert found[dark & ~ndimage.binary_dilation(~dark, iterations=2)].mean() > 0.995
    assert found[:30].mean() < 0.01


def test_unknown_methods_and_options_say_what_was_meant() -> None:
    with pytest.raises(SettingsError, match="did you mean `otsu`"):
        tissue_method("otsuu", {})
    for name in METHODS.names():
        needed = {"file": "net.pt", "mpp": 8} if missing_files(name, {}) else {}
        with pytest.raises(SettingsError, match="there is no such setting"):
            tissue_method(name, {"thresholdd": 1, **needed})


def test_files_are_known_by_content_and_not_by_place() -> None:
    options = {"file": "a/net.pt", "mpp": 8.0}
    assert without_files("torchscript", options) == {"mpp": 8.0}
    assert without_files("otsu", {"threshold": 3}) == {"threshold": 3}
    assert missing_files("onnx", {"mpp": 8.0}) == ["file"] and missing_files("onnx", options) == []
    assert pinned("onnx", {"mpp": 8.0}, "ab") == {"mpp": 8.0, "sha256": "ab"}
    assert pinned("onnx", {"mpp": 8.0}, None) == {"mpp": 8.0} and pinned("otsu", {}, "ab") == {}
