"""Readers: the right pixels, white outside, and one clear sentence for what can't be read."""

from __future__ import annotations

import multiprocessing
import os
import signal
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pathpipe.errors import SlideError
from pathpipe.samples import BUNDLED_SLIDE
from pathpipe.slides.identity import slide_fingerprint
from pathpipe.slides.open import open_slide
from pathpipe.testing.slides import STEP, cut_short, plain_tiff, position_pixels, position_slide


def test_pixels_say_where_they_are(tmp_path: Path) -> None:
    path = position_slide(tmp_path / "p.svs", [(1200, 900), (300, 225)])
    with open_slide(path) as slide:
        assert (slide.reader, slide.vendor, slide.size0) == ("direct", "aperio", (1200, 900))
        assert slide.mpp is not None and (slide.mpp.x, slide.mpp.source) == (0.5, "aperio property")
        region = slide.read((336, 512), 0, (40, 20))
        assert np.array_equal(region, position_pixels((1200, 900))[512:532, 336:376])
        low = slide.read((400, 800), 1, (30, 10))
        assert np.array_equal(low, position_pixels((300, 225), (4, 4), 1)[200:210, 100:130])


@pytest.mark.parametrize("width", [1999, 2001])
def test_downsamples_are_not_truncated(tmp_path: Path, width: int) -> None:
    path = position_slide(tmp_path / "odd.svs", [(width, 1600), (500, 400)])
    with open_slide(path) as slide:
        assert slide.levels[1].downsample[0] == pytest.approx((width / 500 + 4) / 2, abs=1e-9)
        assert int(slide.levels[1].downsample[0] * 10) in (39, 40)


def test_openslide_and_tiffslide_agree(tmp_path: Path) -> None:
    path = position_slide(tmp_path / "p.svs", [(700, 500), (175, 125)])
    with open_slide(path, "openslide") as one, open_slide(path, "tiffslide") as other:
        assert one.levels == other.levels
        assert other.mpp is not None and one.mpp is not None and other.mpp.x == one.mpp.x
        for xy0, level, size in [((-20, -10), 0, (90, 80)), ((333, 444), 0, (65, 64)), ((100, 100), 1, (80, 60))]:
            assert np.array_equal(one.read(xy0, level, size), other.read(xy0, level, size)), (xy0, level)


@pytest.mark.parametrize("reader", ["direct", "openslide", "tiffslide"])
def test_outside_is_white(tmp_path: Path, reader: str) -> None:
    path = position_slide(tmp_path / "p.svs", [(100, 80)])
    with open_slide(path, reader) as slide:
        region = slide.read((90, 70), 0, (30, 30))
        assert (region[10:] == 255).all() and (region[:, 10:] == 255).all()
        assert np.array_equal(region[:10, :10], position_pixels((100, 80))[70:80, 90:100])
        assert (slide.read((500, 500), 0, (5, 5)) == 255).all()


def test_pyramid_in_subifds_is_seen_whole(tmp_path: Path) -> None:
    path = plain_tiff(
        tmp_path / "sub.tif", position_pixels((512, 256)), (0.5, 0.5), [position_pixels((256, 128), (2, 2), 1)]
    )
    with open_slide(path) as slide:
        assert slide.reader == "direct"
        assert [level.size_px for level in slide.levels] == [(512, 256), (256, 128)]
        assert (
            slide.read((128, 64), 1, (3, 2)).tolist() == position_pixels((256, 128), (2, 2), 1)[32:34, 64:67].tolist()
        )


def test_threads_and_fork_read_the_same(tmp_path: Path) -> None:
    path = position_slide(tmp_path / "p.svs", [(1600, 1200)])
    corners = [(int(x), int(y)) for x, y in np.random.default_rng(0).integers(0, 1000, (60, 2))]
    for reader in ("direct", "openslide", "tiffslide"):
        with open_slide(path, reader) as slide:
            alone = [slide.read(xy0, 0, (64, 48)) for xy0 in corners]
            with ThreadPoolExecutor(8) as pool:
                together = list(pool.map(lambda xy0, s=slide: s.read(xy0, 0, (64, 48)), corners))
            assert all(np.array_equal(a, b) for a, b in zip(alone, together, strict=True))
            child, parent = os.pipe()
            pid = os.fork()
            if pid == 0:
                os.write(parent, slide.read(corners[0], 0, (64, 48)).tobytes()[:1000])
                os._exit(0)
            os.waitpid(pid, 0)
            assert os.read(child, 1000) == alone[0].tobytes()[:1000]
            os.close(child)
            os.close(parent)


def _spawned_read(path: str) -> int:
    with open_slide(Path(path)) as slide:
        return int(slide.read((0, 0), 0, (64, 48)).sum())


def test_spawned_process_reads_the_same(tmp_path: Path) -> None:
    path = position_slide(tmp_path / "p.svs", [(200, 200)])
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        assert pool.apply(_spawned_read, (str(path),)) == _spawned_read(str(path))


def test_flat_pictures(tmp_path: Path) -> None:
    pixels = position_pixels((300, 200))
    Image.fromarray(pixels).save(tmp_path / "flat.png")
    rgba = np.dstack([pixels, np.full(pixels.shape[:2], 255, np.uint8)])
    rgba[:50, :50, 3] = 0
    Image.fromarray(rgba).save(tmp_path / "holes.png")
    with open_slide(tmp_path / "flat.png") as slide:
        assert (slide.reader, slide.vendor, slide.mpp) == ("image", "png", None)
        assert np.array_equal(slide.read((10, 20), 0, (64, 32)), pixels[20:52, 10:74])
        assert (slide.read((-5, -5), 0, (5, 5)) == 255).all()
    with open_slide(tmp_path / "holes.png") as slide:
        assert (slide.read((0, 0), 0, (50, 50)) == 255).all()


def test_refusals_are_one_clear_sentence(tmp_path: Path) -> None:
    (tmp_path / "folder.svs").mkdir()
    (tmp_path / "zero.svs").touch()
    (tmp_path / "garbage.svs").write_bytes(os.urandom(4000))
    (tmp_path / "loop.svs").symlink_to(tmp_path / "loop.svs")
    Image.fromarray(np.zeros((50, 50), np.uint8)).save(tmp_path / "grey.png")
    plain_tiff(tmp_path / "grey16.tif", np.zeros((128, 128), np.uint16))
    plain_tiff(tmp_path / "grey8.tif", np.zeros((128, 128), np.uint8))
    (tmp_path / "text.tif").write_text("not an image at all")
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (90, 90, 3)).astype(np.uint8)).save(tmp_path / "half.png")
    cut_short(tmp_path / "half.png", 0.5)
    expected = {
        "none.svs": "there is no such file",
        "folder.svs": "is a folder, not a slide",
        "zero.svs": "is empty (0 bytes)",
        "garbage.svs": "no reader opens it",
        "loop.svs": "can't be reached",
        "grey.png": "not an RGB slide: picture mode L",
        "grey16.tif": "not an RGB slide: 16-bit grey",
        "grey8.tif": "not an RGB slide: 8-bit grey",
        "text.tif": "no reader opens it",
        "half.png": "damaged",
    }
    for name, words in expected.items():
        with pytest.raises(SlideError) as caught, open_slide(tmp_path / name) as slide:
            slide.read((0, 0), 0, (10, 10))
        assert words in caught.value.what, (name, caught.value)
        assert name in str(caught.value.where)
        assert "\n" not in caught.value.what


@pytest.mark.parametrize("keep", [0.05, 0.3, 0.6, 0.9])
def test_a_slide_cut_short_never_gives_white_for_lost_pixels(tmp_path: Path, keep: float) -> None:
    rng = np.random.default_rng(1)
    noise = rng.integers(0, 200, (600, 800, 3)).astype(np.uint8)  # nothing in it is white
    from pathpipe.slides.writer import SvsFormat, write_svs

    path = tmp_path / "cut.svs"
    write_svs(path, [noise], 0.5, 20, SvsFormat(quality=80, tile_px=128))
    cut_short(path, keep)
    try:
        slide = open_slide(path)
    except SlideError as error:
        assert "damaged" in error.what or "opens it" in error.what
        return
    with slide:
        for y0 in range(0, 600, 128):
            for x0 in range(0, 800, 128):
                size = (min(128, 800 - x0), min(128, 600 - y0))
                try:
                    region = slide.read((x0, y0), 0, size)
                except SlideError as error:
                    assert "can't be read at" in error.what
                    return
                assert (region.mean(axis=(0, 1)) < 180).all(), "lost pixels came back as glass"
    pytest.fail("a cut slide was read whole")


def test_awkward_names_and_identity(tmp_path: Path) -> None:
    path = position_slide(tmp_path / "Schnitt Nr. 7 (日本) é.svs", [(200, 160)])
    with open_slide(path) as slide:
        assert slide.read((STEP * 3, 0), 0, (1, 1))[0, 0, 0] == 3
    before = slide_fingerprint(path)
    moved = path.rename(tmp_path / "elsewhere.svs")
    other = position_slide(tmp_path / "other.svs", [(200, 176)])
    assert slide_fingerprint(moved) == before
    assert slide_fingerprint(moved) != slide_fingerprint(other)


def test_mrxs_identity_is_that_of_its_folder(tmp_path: Path) -> None:
    (tmp_path / "a.mrxs").write_text("x")
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "Data0000.dat").write_text("pixels")
    before = slide_fingerprint(tmp_path / "a.mrxs")
    (tmp_path / "a" / "Data0000.dat").write_text("PIXELS")
    assert slide_fingerprint(tmp_path / "a.mrxs") != before


def test_the_cover_of_an_mrxs_slide_is_not_taken_for_the_slide(tmp_path: Path) -> None:
    cover = tmp_path / "a.mrxs"  # a JPEG picture of the slide
    Image.fromarray(position_pixels((300, 200))).save(cover, "JPEG")
    with pytest.raises(SlideError, match="the folder `a` that belongs beside it is missing"):
        open_slide(cover)
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "Slidedat.ini").write_text("[GENERAL]\n")
    with pytest.raises(SlideError, match=r"no reader opens it .openslide"):
        open_slide(cover)


def test_tiffslide_takes_the_nearest_pixel_of_a_level(tmp_path: Path) -> None:
    ramp = np.zeros((128, 512, 3), np.uint8)
    ramp[..., 0] = np.arange(512) // 2
    low = np.ascontiguousarray(ramp[::4, ::4])  # red is 2 x column
    path = plain_tiff(tmp_path / "a.tif", ramp, (0.5, 0.5), [low])
    with open_slide(path, "tiffslide") as slide:
        first = [int(slide.read((x0, 40), 1, (3, 2))[0, 0, 0]) for x0 in (200, 201, 202, 203, 204)]
        assert first == [100, 100, 102, 102, 102]
        assert slide.read((-4, 0), 1, (3, 1))[0, :, 0].tolist() == [255, 0, 2]


def test_a_lock_held_while_forking_does_not_stop_the_child(tmp_path: Path) -> None:
    path = position_slide(tmp_path / "a.svs", [(128, 128)])
    with open_slide(path, "tiffslide") as slide:
        lock = slide._own[1]  # type: ignore[attr-defined]
        with lock:  # as another thread of the parent may
            pid = os.fork()
            if pid == 0:
                signal.alarm(5)  # ends a child that waits for ever
                os._exit(0 if np.array_equal(slide.read((0, 0), 0, (9, 9)), position_pixels((9, 9))) else 3)
            assert os.waitpid(pid, 0)[1] == 0


def test_bundled_slide() -> None:
    with open_slide(BUNDLED_SLIDE) as slide:
        assert slide.size0 == (2220, 2967)
        assert slide.mpp is not None and slide.mpp.x == 0.499 and slide.objective == 20


# What each real slide does: (reader, um/px) or the words of its refusal.
REAL = {
    "aperio_CMU-1-Small-Region.svs": ("direct", 0.499),
    "derived_from_real/CMU-1-Small-Region.ome.tif": ("direct", 0.499),
    "derived_from_real/CMU-1-Small-Region.pyramid.tif": ("direct", 0.499),
    "dicom_camelyon_jpeg.dcm": ("openslide", 28.969),
    "dicom_highdicom_sm_image.dcm": ("openslide", 0.499),
    "openslide_python_fixtures/small.svs": ("direct", 0.499),
    "openslide_python_fixtures/boxes_0.dcm": ("openslide", 0.499),
    "openslide_python_fixtures/boxes.tiff": "352.778 um/px (TIFF resolution tags) can't be true",
    "openslide_python_fixtures/unopenable.tiff": "Unsupported TIFF compression",
    "openslide_python_fixtures/unreadable.svs": "damaged: level 0 can't be read at (0, 0)",
    "pathml_smalltif.tif": "not an RGB slide: 16-bit grey",
    "vectra_small.qptiff": "not an RGB slide: 8-bit, 3 channels",
    "ometiff_multi-channel-z-series.ome.tif": "not an RGB slide",
}


@pytest.mark.parametrize("name", REAL)
def test_real_slides(shared_data: Path, name: str) -> None:
    from pathpipe.slides.resolution import resolve_mpp

    expected = REAL[name]
    path = shared_data / "slides" / name
    if isinstance(expected, str):
        with pytest.raises(SlideError) as caught, open_slide(path) as slide:
            resolve_mpp(slide, None, "error")
            slide.read((0, 0), 0, (10, 10))
        assert expected in caught.value.what
        return
    with open_slide(path) as slide:
        assert (slide.reader, resolve_mpp(slide, None, "error").x) == (expected[0], pytest.approx(expected[1]))
        assert slide.read((0, 0), 0, (16, 16)).shape == (16, 16, 3)


def test_a_path_may_be_text(tmp_path: Path) -> None:
    path = position_slide(tmp_path / "a.svs", [(64, 48)])
    with open_slide(str(path)) as slide:
        assert (slide.size0, slide.path) == ((64, 48), path)
