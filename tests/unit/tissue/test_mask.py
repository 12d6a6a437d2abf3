"""Tissue: thumbnails that are exact means, thresholds against scikit-image, ink out and stain kept."""

from __future__ import annotations

import io
import json
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image
from scipy import ndimage
from skimage.data import immunohistochemistry
from skimage.filters import threshold_otsu

from pathpipe.errors import StoreError
from pathpipe.provenance import Provenance, read_provenance
from pathpipe.samples import BUNDLED_SLIDE
from pathpipe.settings import TissueSettings
from pathpipe.slides.open import open_slide
from pathpipe.slides.slide import Mpp
from pathpipe.slides.writer import SvsFormat, write_svs
from pathpipe.testing.slides import position_slide
from pathpipe.tissue import thumbnail as thumbnails
from pathpipe.tissue.holes import close_gaps, drop_small, fill_holes
from pathpipe.tissue.mask import TissueMask
from pathpipe.tissue.methods.otsu import FLOOR, saturation_threshold
from pathpipe.tissue.overlay import draw_overlay, format_um, scale_bar_um
from pathpipe.tissue.polygons import read_tissue, write_tissue
from pathpipe.tissue.quality.seen import find_artefacts
from pathpipe.tissue.segment import segment, segment_thumbnail
from pathpipe.tissue.thumbnail import Thumbnail, read_thumbnail

SETTINGS = TissueSettings()
MPP = Mpp(0.5, 0.5, "test")
PROVENANCE = Provenance("tissue", 1, {"tissue": {"mpp": 8.0}}, {"slide": "abc"})


@pytest.mark.parametrize("band_bytes", [1, 64 << 20])
def test_thumbnail_pixels_are_means_of_whole_blocks(
    tmp_path: Path, band_bytes: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (130, 103, 3)).astype(np.uint8)
    write_svs(tmp_path / "a.svs", [noise], 0.5, 20, SvsFormat(quality=None, tile_px=64))
    monkeypatch.setattr(thumbnails, "_BAND_BYTES", band_bytes)
    with open_slide(tmp_path / "a.svs") as slide:
        thumbnail = read_thumbnail(slide, 8.0)
    assert thumbnail.scale0 == (8.0, 8.0)
    padded = np.pad(noise, ((0, 6), (0, 1), (0, 0)), mode="edge").astype(float)
    slow = padded.reshape(17, 8, 13, 8, 3).mean(axis=(1, 3))
    assert thumbnail.pixels.shape == slow.shape
    assert np.abs(thumbnail.pixels - slow).max() <= 0.5 + 1e-6


def test_thumbnail_takes_the_coarsest_level_that_serves(tmp_path: Path) -> None:
    path = position_slide(tmp_path / "a.svs", [(1024, 512), (256, 128), (64, 32)])
    with open_slide(path) as slide:
        levels = [int(np.median(read_thumbnail(slide, scale).pixels[..., 2])) // 50 for scale in (3.0, 4.0, 15.0, 16.1)]
    assert levels == [0, 1, 1, 2]


def test_otsu_is_otsu_where_the_classes_are_wide() -> None:
    rng = np.random.default_rng(0)
    values = np.concatenate([rng.normal(22, 8, 5000), rng.normal(100, 12, 3000)]).clip(0, 255).astype(np.uint8)
    # glass this noisy reaches past Otsu's threshold, which then stands
    assert saturation_threshold(values) == pytest.approx(threshold_otsu(values), abs=1)


def test_threshold_stays_above_glass_and_below_pale_stain() -> None:
    rng = np.random.default_rng(0)
    glass, pale, strong = rng.normal(3, 1, 9000), rng.normal(28, 4, 800), rng.normal(130, 20, 3000)
    threshold = saturation_threshold(np.concatenate([glass, pale, strong]).clip(0, 255).astype(np.uint8))
    assert glass.max() < threshold < np.percentile(pale, 2)
    assert saturation_threshold(glass.clip(0, 255).astype(np.uint8)) == FLOOR
    assert saturation_threshold(strong.clip(0, 255).astype(np.uint8)) == FLOOR, "no glass: all of it is tissue"


def test_empty_slide_has_no_tissue_and_says_so() -> None:
    noise = np.random.default_rng(0).normal(243, 1.5, (200, 200, 3)).clip(0, 255).astype(np.uint8)
    mask = segment_thumbnail(Thumbnail(noise, (16, 16)), MPP, SETTINGS)
    assert not mask.mask.any() and mask.empty_reason == "no tissue found" and mask.colour == {}


def test_tissue_too_small_to_keep_is_named_as_the_reason() -> None:
    picture = np.full((100, 100, 3), 244, np.uint8)
    picture[40:50, 40:50] = (200, 120, 170)  # 10 x 10 px of 8 um, less 12 that smoothing takes off the corners
    mask = segment_thumbnail(Thumbnail(picture, (16, 16)), MPP, SETTINGS)
    assert mask.empty_reason == "no tissue found but pieces too small to keep (5632 um2)"


def _disc() -> np.ndarray:
    picture = np.full((300, 300, 3), 244, np.uint8)
    cv2.circle(picture, (150, 150), 100, (200, 120, 170), -1)
    return picture


def test_disc_is_found_with_its_area_and_colour() -> None:
    mask = segment_thumbnail(Thumbnail(_disc(), (16, 16)), MPP, SETTINGS)
    assert mask.area_um2 == pytest.approx(np.pi * 100**2 * 64, rel=0.02)
    assert mask.colour["mean"] == pytest.approx([200, 120, 170], abs=2)


@pytest.mark.parametrize(
    "ink", [(38, 62, 170), (20, 110, 60), (200, 30, 50), (25, 25, 28)], ids=["blue", "green", "red", "black"]
)
def test_ink_is_left_out(ink: tuple[int, int, int]) -> None:
    picture = _disc()
    cv2.line(picture, (20, 30), (280, 60), ink, 8)
    plain = segment_thumbnail(Thumbnail(_disc(), (16, 16)), MPP, SETTINGS)
    with_ink = segment_thumbnail(Thumbnail(picture, (16, 16)), MPP, SETTINGS)
    assert not with_ink.mask[25:45, 20:60].any()
    assert with_ink.area_um2 == pytest.approx(plain.area_um2, rel=0.06)
    kept = segment_thumbnail(Thumbnail(picture, (16, 16)), MPP, TissueSettings(pen="off"))
    assert kept.area_um2 > plain.area_um2 or ink[0] < 30  # black has no saturation: it was never tissue


def test_stain_is_not_ink() -> None:
    with open_slide(BUNDLED_SLIDE) as slide:
        he = read_thumbnail(slide, 16).pixels
    for pixels, um in ((he, 8.0), (immunohistochemistry(), 0.5), (immunohistochemistry()[::8, ::8], 4.0)):
        assert not find_artefacts(np.ascontiguousarray(pixels), um, SETTINGS).masks


def test_small_biopsy_beside_much_ink_is_kept_and_the_ink_is_not() -> None:
    picture = np.full((300, 300, 3), 244, np.uint8)
    cv2.line(picture, (20, 30), (280, 60), (38, 62, 170), 30)
    cv2.circle(picture, (150, 200), 22, (200, 120, 170), -1)
    mask = segment_thumbnail(Thumbnail(picture, (16, 16)), MPP, SETTINGS)
    assert mask.area_um2 == pytest.approx(np.pi * 22**2 * 64, rel=0.05) and mask.mask[200, 150]
    assert "pen marks (blue)" in mask.flags[0] and "left out" in mask.flags[0]
    only_ink = segment_thumbnail(Thumbnail(picture[:120], (16, 16)), MPP, SETTINGS)
    assert only_ink.empty_reason and only_ink.flags == ("nothing but pen marks (blue): no tissue beside them",)


def test_holes_and_crumbs_by_area() -> None:
    rng = np.random.default_rng(3)
    mask = ndimage.gaussian_filter(rng.random((120, 150)), 2) > 0.5
    labels, count = ndimage.label(mask, np.ones((3, 3)))
    areas = ndimage.sum(mask, labels, range(1, count + 1))
    expected = np.isin(labels, 1 + np.flatnonzero(areas >= 60))
    assert 0 < expected.sum() < mask.sum()
    assert np.array_equal(drop_small(mask, 60), expected)

    holes, count = ndimage.label(~mask)
    rim = set(np.concatenate([holes[0], holes[-1], holes[:, 0], holes[:, -1]]))
    small = [n for n in range(1, count + 1) if n not in rim and (holes == n).sum() <= 40]
    assert small
    assert np.array_equal(fill_holes(mask, 40), mask | np.isin(holes, small))


def test_closing_joins_across_a_gap_and_not_across_a_wider_one() -> None:
    mask = np.zeros((40, 60), bool)
    mask[10:30, 5:20] = mask[10:30, 24:40] = mask[10:30, 50:58] = True
    closed = close_gaps(mask, 7)
    assert closed[20, 21] and not closed[20, 45]
    assert (closed | mask == closed).all() and not closed[0].any()
    assert close_gaps(mask, 0) is mask


def test_fraction_is_exact_for_cut_pixels() -> None:
    mask = TissueMask(np.array([[True, False], [False, True]]), (10.0, 10.0), MPP, 0)
    xy0 = np.array([[0, 0], [5, 0], [5, 5], [0, 0], [15, 15]], np.int64)
    assert mask.fraction(xy0, (10.0, 10.0)).tolist() == [1.0, 0.5, 0.5, 1.0, 0.25]
    assert mask.fraction(np.array([[0, 0]]), (20.0, 20.0)).tolist() == [0.5]


def _mask() -> TissueMask:
    rng = np.random.default_rng(5)
    noise = cv2.GaussianBlur(rng.random((60, 80)).astype(np.float32), (0, 0), 2) > 0.5
    return TissueMask(
        noise, (16.3, 15.9), Mpp(0.25, 0.26, "x"), 21.0, "otsu", {}, {"pen": 12.5}, {"mean": [1.0]}, ("look",)
    )


def test_file_round_trip_and_provenance(tmp_path: Path) -> None:
    path = tmp_path / "S1.geojson"
    write_tissue(path, _mask(), PROVENANCE)
    again = read_tissue(path)
    assert np.array_equal(again.mask, _mask().mask)
    assert (again.scale0, again.mpp, again.threshold) == (_mask().scale0, _mask().mpp, 21.0)
    assert (again.removed_um2, again.colour, again.flags) == ({"pen": 12.5}, {"mean": [1.0]}, ("look",))
    found = read_provenance(path)
    assert found is not None and found.fingerprint == PROVENANCE.fingerprint
    first = path.read_bytes()
    write_tissue(path, _mask(), PROVENANCE)
    assert path.read_bytes() == first


def test_edited_polygons_count(tmp_path: Path) -> None:
    path = tmp_path / "S1.geojson"
    write_tissue(path, _mask(), PROVENANCE)
    content = json.loads(path.read_text())
    square = [[160.0, 160.0], [800.0, 160.0], [800.0, 640.0], [160.0, 640.0], [160.0, 160.0]]
    hole = [[320.0, 320.0], [480.0, 320.0], [480.0, 480.0], [320.0, 480.0], [320.0, 320.0]]
    geometry = {"type": "MultiPolygon", "coordinates": [[square, hole]]}
    content["features"] = [{"type": "Feature", "properties": {}, "geometry": geometry}]
    path.write_text(json.dumps(content))
    mask = read_tissue(path)
    assert mask.mask.sum() * 16.3 * 15.9 == pytest.approx(640 * 480 - 160 * 160, rel=0.03)
    assert not mask.mask[25, 24] and mask.mask[25, 40]


RAGGED = (
    '{"pathpipe": {"format": "pathpipe-tissue", "version": 1, "mask": {"shape": [4, 4], "scale0": [1, 1]}}, '
    '"features": [{"geometry": {"type": "Polygon", "coordinates": [[[1, 2], [3], [1, 2]]]}}]}'
)


@pytest.mark.parametrize("text", [RAGGED, "", "{}", '{"pathpipe": 1}', '{"pathpipe": {"format": "x", "version": 1}}'])
def test_damaged_files_are_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "S1.geojson"
    path.write_text(text)
    with pytest.raises(StoreError):
        read_tissue(path)


def test_overlay_shows_slide_tissue_and_tiles() -> None:
    with open_slide(BUNDLED_SLIDE) as slide:
        assert slide.mpp is not None
        mask = segment(slide, slide.mpp, SETTINGS)
        none = draw_overlay(slide, mask, np.empty((0, 2), np.int64), (256, 256), 1000)
        some = draw_overlay(slide, mask, np.array([[1000, 1000]]), (256, 256), 1000)
    before, after = (np.asarray(Image.open(io.BytesIO(one))).astype(int) for one in (none, some))
    assert before.shape == after.shape and before.shape[1] == round(1000 * 2220 / 2967)
    changed = np.abs(before - after).sum(axis=2) > 90
    rows, columns = np.nonzero(changed[: int(before.shape[0] * 0.9)])
    scale = before.shape[1] / 2220
    assert rows.min() == pytest.approx(1000 * scale, abs=4) and rows.max() == pytest.approx(1256 * scale, abs=6)
    assert columns.min() == pytest.approx(1000 * scale, abs=6)


def test_scale_bar_lengths() -> None:
    assert [scale_bar_um(x) for x in (1.0, 3.9, 4999, 5000)] == [1, 2, 2000, 5000]
    assert (format_um(500), format_um(2000)) == ("500 µm", "2 mm")
