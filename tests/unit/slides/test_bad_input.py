"""Bad input: whatever a path leads to, one clear sentence says what it is, for reading and for identity alike."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import simplejpeg
import tifffile
from PIL import Image

from pathpipe.cohort import Cohort
from pathpipe.errors import SlideError
from pathpipe.slides.identity import slide_fingerprint
from pathpipe.slides.open import open_slide
from pathpipe.slides.readers.direct import DirectSlide
from pathpipe.slides.resolution import resolve_mpp
from pathpipe.testing.slides import plain_tiff, position_pixels, position_slide, sparse_tiff


def _channels(path: Path, count: int, dtype: type, photometric: str = "minisblack") -> Path:
    pixels: np.ndarray = np.zeros((128, 96, count) if count > 1 else (128, 96), dtype)
    options: dict[str, Any] = {"planarconfig": "contig"} if count > 1 else {}
    tifffile.imwrite(path, pixels, tile=(64, 64), photometric=photometric, metadata=None, **options)
    return path


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda path: _channels(path, 1, np.uint8), "not an RGB slide: 8-bit grey"),
        (lambda path: _channels(path, 1, np.uint16), "not an RGB slide: 16-bit grey"),
        (lambda path: _channels(path, 3, np.uint16, "rgb"), "not an RGB slide: 16-bit RGB"),
        (lambda path: _channels(path, 5, np.uint8), "not an RGB slide: 8-bit, 5 samples"),
        (lambda path: _channels(path, 5, np.uint16), "not an RGB slide: 16-bit, 5 samples"),
        (lambda path: _channels(path, 2, np.uint8), "not an RGB slide: 8-bit, 2 samples"),
        (lambda path: _channels(path, 1, np.float32), "not an RGB slide: 32-bit grey"),
        (lambda path: path.touch(), "is empty (0 bytes)"),
        (lambda path: path.write_text("not an image at all"), "no reader opens it"),
        (lambda path: path.write_bytes(b"II*\0" + bytes(60)), "damaged"),
        (lambda path: path.mkdir(), "is a folder, not a slide"),
        (lambda path: path.symlink_to(path), "can't be reached: Too many levels of symbolic links"),
        (lambda path: path.symlink_to(path.parent / "gone"), "is a link to a file that isn't there"),
        (lambda path: None, "there is no such file"),
        (lambda path: os.mkfifo(path), "is not a file with content but a pipe, socket or device"),
    ],
)
def test_one_sentence_each(tmp_path: Path, make: Callable[[Path], object], words: str) -> None:
    path = tmp_path / "what is this, é.tif"
    make(path)
    with pytest.raises(SlideError) as caught:
        open_slide(path)
    assert words in caught.value.what, caught.value.what
    assert "\n" not in caught.value.what and caught.value.hint != ""
    assert path.name in str(caught.value.where)


@pytest.mark.parametrize(
    "make",
    [
        lambda path: path.touch(),
        lambda path: path.mkdir(),
        lambda path: path.symlink_to(path),
        lambda path: os.mkfifo(path),
        lambda path: None,
    ],
)
def test_identity_refuses_with_the_same_words(tmp_path: Path, make: Callable[[Path], object]) -> None:
    path = tmp_path / "a.svs"
    make(path)
    with pytest.raises(SlideError) as opening:
        open_slide(path)
    with pytest.raises(SlideError) as naming:
        slide_fingerprint(path)
    assert naming.value.reason == opening.value.reason


@pytest.mark.parametrize("suffix", [".scn", ".mrxs.tif", ".png", ".dcm", ".xyz", ""])
def test_content_decides_not_the_name(tmp_path: Path, suffix: str) -> None:
    slide = position_slide(tmp_path / f"slide{suffix}", [(300, 200)])
    with open_slide(slide) as opened:
        assert opened.vendor == "aperio"
        assert np.array_equal(opened.read((40, 30), 0, (50, 60)), position_pixels((300, 200))[30:90, 40:90])
    picture = tmp_path / f"picture{suffix}"
    Image.fromarray(position_pixels((300, 200))).save(picture, "PNG")
    with open_slide(picture) as opened:
        assert opened.reader == "image"


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody else")
@pytest.mark.parametrize("place", ["file", "folder"])
def test_what_may_not_be_read_is_said_to_somebody_else(place: str) -> None:
    with tempfile.TemporaryDirectory() as name:  # not tmp_path, whose parents are closed to others
        folder = Path(name)
        folder.chmod(0o755)
        path = position_slide(folder / "a.svs", [(100, 80)])
        open_slide(path).close()  # what it imports must be there before rights are given up
        (path if place == "file" else folder).chmod(0o600 if place == "file" else 0o700)
        ours, theirs = os.pipe()
        pid = os.fork()
        if pid == 0:
            os.setgid(65534)
            os.setuid(65534)
            said = []
            for work in (open_slide, slide_fingerprint):
                try:
                    work(path)
                except SlideError as error:
                    said.append(error.what)
            os.write(theirs, "|".join(said).encode())
            os._exit(0)
        os.waitpid(pid, 0)
        os.close(theirs)
        assert os.read(ours, 1000).decode() == "may not be read|may not be read"
        os.close(ours)


@pytest.mark.parametrize(
    ("stated", "words"), [(0.0, "has no resolution"), (float("nan"), "has no resolution"), (264.6, "can't be true")]
)
def test_resolutions_that_say_nothing(tmp_path: Path, stated: float, words: str) -> None:
    path = position_slide(tmp_path / "a.svs", [(100, 80)], mpp=stated, objective=None)
    for reader in ("auto", "openslide", "tiffslide"):
        with open_slide(path, reader) as slide, pytest.raises(SlideError, match=words):
            resolve_mpp(slide, None, "error")


def test_a_loop_of_folders_ends(tmp_path: Path) -> None:
    (tmp_path / "slides" / "deep").mkdir(parents=True)
    position_slide(tmp_path / "slides" / "deep" / "a.svs", [(64, 64)])
    (tmp_path / "slides" / "deep" / "up").symlink_to(tmp_path / "slides")
    assert [row.slide_id for row in Cohort.read(tmp_path / "slides").slides] == ["a"]


@pytest.mark.parametrize("reader", ["auto", "direct", "openslide"])
def test_what_is_not_stored_is_glass(tmp_path: Path, reader: str) -> None:
    tile = np.full((128, 128, 3), 90, np.uint8)
    path = sparse_tiff(tmp_path / "a.tif", 2048, tile, (1024, 1024, 1088, 1088), (1, 4))
    with open_slide(path, reader) as slide:
        assert (slide.read((400, 1500), 0, (300, 200)) == 255).all()
        edge = slide.read((1000, 1000), 0, (60, 60)).astype(int)
        assert (edge[:24] == 255).all() and (edge[:, :24] == 255).all()
        assert np.abs(edge[24:, 24:] - 90).max() <= 2
        low = slide.read((1024, 1024), 1, (8, 8)).astype(int)
        assert np.abs(low - 90).max() <= 2


def test_the_reader_that_would_show_it_black_refuses(tmp_path: Path) -> None:
    path = sparse_tiff(tmp_path / "a.tif", 1024, np.full((128, 128, 3), 90, np.uint8), (512, 512, 576, 576), (1,))
    with pytest.raises(SlideError, match="62 of its tiles aren't stored, and tiffslide would show them black"):
        open_slide(path, "tiffslide")


@pytest.mark.parametrize("compression", [None, "zlib", "lzw"])
def test_flat_tiffs_in_strips_are_slides_of_one_level(tmp_path: Path, compression: str | None) -> None:
    pixels = position_pixels((300, 200))
    path = tmp_path / "strips.tif"
    options: dict[str, Any] = {"resolution": (20_000, 20_000), "resolutionunit": "CENTIMETER", "metadata": None}
    tifffile.imwrite(path, pixels, photometric="rgb", rowsperstrip=16, compression=compression, **options)
    with open_slide(path) as slide:
        assert slide.size0 == (300, 200) and len(slide.levels) == 1
        assert resolve_mpp(slide, None, "error").x == pytest.approx(0.5)
        assert np.array_equal(slide.read((250, 150), 0, (50, 50)), pixels[150:, 250:])
        assert (slide.read((290, 190), 0, (20, 20))[10:] == 255).all()


def test_a_copy_that_is_still_being_written(tmp_path: Path) -> None:
    whole = plain_tiff(tmp_path / "whole.tif", position_pixels((640, 480)), (0.5, 0.5)).read_bytes()
    path = tmp_path / "copy.tif"
    for share in (0.02, 0.2, 0.6, 0.99):
        path.write_bytes(whole[: int(len(whole) * share)])
        with pytest.raises(SlideError, match="damaged") as caught:
            open_slide(path)
        assert "\n" not in caught.value.what
    shutil.copy(tmp_path / "whole.tif", path)
    open_slide(path).close()


def _grey_jpeg(side: int) -> bytes:
    return simplejpeg.encode_jpeg(np.full((side, side, 3), 200, np.uint8), 90, "RGB", "444")


@pytest.mark.parametrize(
    ("stored", "sound"),
    [
        (_grey_jpeg(64), True),
        (_grey_jpeg(80), False),
        (_grey_jpeg(48), False),
        (_grey_jpeg(64).replace(b"\xff\xc4", b"rest between markers\xff\xc4", 1), False),
    ],
    ids=["as listed", "larger", "smaller", "broken header"],
)
def test_a_stored_tile_that_is_not_as_listed_never_shows_what_memory_held(
    tmp_path: Path, stored: bytes, sound: bool
) -> None:
    """Flipped bits in a JPEG's own header: what such a tile leaves bare would be any bytes at all."""
    form: dict[str, Any] = {"tile": (64, 64), "compression": "jpeg", "photometric": "ycbcr", "subsampling": (1, 1)}
    tiles = [stored if place == 5 else _grey_jpeg(64) for place in range(16)]
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, iter(tiles), shape=(256, 256, 3), dtype=np.uint8, metadata=None, **form)
    for xy0, size in (((64, 64), 64), ((0, 0), 256), ((100, 100), 28)):
        out = np.full((size, size, 3), 7, np.uint8)
        with DirectSlide(path) as slide:
            if sound:
                slide.read_into(out, xy0, 0, 1)
                assert (out == 200).all()
            else:
                with pytest.raises(SlideError, match=r"damaged: level 0 can't be read at \(64, 64\): "):
                    slide.read_into(out, xy0, 0, 1)


@pytest.mark.parametrize("tag", ["TileLength", "TileWidth"])
def test_tiles_of_an_absurd_size_are_handed_to_nobody(tmp_path: Path, tag: str) -> None:
    """Another reader would ask for the memory they are said to take, and die of it."""
    path = plain_tiff(tmp_path / "a.tif", position_pixels((256, 256)))
    with tifffile.TiffFile(path, mode="r+") as file:
        file.pages.first.tags[tag].overwrite(1 << 30, dtype="I")
    with pytest.raises(SlideError, match="damaged: 16 tiles are listed where 4 belong"):
        open_slide(path)
