"""Reader `direct`: pixels stored in every way, against the array that was written and against OpenSlide."""

from __future__ import annotations

import os
import signal
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import cv2
import imagecodecs
import numpy as np
import pytest
import tifffile
from hypothesis import given, settings
from hypothesis import strategies as st

from pathpipe.errors import SlideError
from pathpipe.samples import BUNDLED_SLIDE
from pathpipe.slides.native.cache import TileCache
from pathpipe.slides.native.index import NotDirect
from pathpipe.slides.open import open_slide
from pathpipe.slides.readers.direct import DirectSlide
from pathpipe.slides.slide import Pixels, read_shrunk
from pathpipe.slides.writer import SvsFormat, write_svs


@pytest.fixture(scope="module")
def tissue() -> Pixels:
    """Real pixels, (620, 900, 3): neither side is a whole number of stored tiles."""
    with open_slide(BUNDLED_SLIDE, "openslide") as slide:
        return slide.read((300, 400), 0, (900, 620))


def _write(path: Path, pixels: Pixels, **options: Any) -> Path:
    form: dict[str, Any] = {"photometric": "rgb", "tile": (128, 128), "metadata": None} | options
    with tifffile.TiffWriter(path) as writer:
        writer.write(pixels, **form)
    return path


LOSSLESS: dict[str, dict[str, Any]] = {
    "none": {"compression": None},
    "lzw": {"compression": "lzw"},
    "lzw-predictor": {"compression": "lzw", "predictor": True},
    "deflate": {"compression": "zlib", "predictor": True},
    "zstd": {"compression": "zstd"},
    "strips": {"tile": None, "compression": "zlib", "rowsperstrip": 50},
    "one-strip": {"tile": None, "compression": None, "rowsperstrip": 620},
    "jpeg2000": {"compression": 33005},
    "big-endian": {"compression": "zlib", "byteorder": ">"},
}


@pytest.mark.parametrize("kind", LOSSLESS)
def test_lossless_pixels_are_those_written(tmp_path: Path, tissue: Pixels, kind: str) -> None:
    options = dict(LOSSLESS[kind])
    order = options.pop("byteorder", "<")
    with tifffile.TiffWriter(tmp_path / "a.tif", byteorder=order) as writer:
        writer.write(tissue, **({"photometric": "rgb", "tile": (128, 128), "metadata": None} | options))
    with open_slide(tmp_path / "a.tif") as slide:
        assert slide.reader == "direct"
        assert np.array_equal(slide.read((0, 0), 0, (900, 620)), tissue)
        assert np.array_equal(slide.read((101, 67), 0, (300, 200)), tissue[67:267, 101:401])
        assert np.array_equal(slide.read((128, 256), 0, (128, 128)), tissue[256:384, 128:256])


JPEG: dict[str, dict[str, Any]] = {
    "rgb": {"compressionargs": {"level": 90, "outcolorspace": "rgb"}, "photometric": "rgb"},
    "ycbcr-444": {"subsampling": (1, 1)},
    "ycbcr-422": {"subsampling": (2, 1)},
    "ycbcr-420": {"subsampling": (2, 2)},
}


def _jpeg_options(kind: str) -> dict[str, Any]:
    return {"compression": "jpeg", "compressionargs": {"level": 90}, "photometric": "rgb"} | JPEG[kind]


@pytest.mark.parametrize("kind", JPEG)
def test_jpeg_pixels_are_openslides(tmp_path: Path, tissue: Pixels, kind: str) -> None:
    path = _write(tmp_path / "a.tif", tissue, **_jpeg_options(kind))
    with open_slide(path, "direct") as direct, open_slide(path, "openslide") as reference:
        for xy0, size in [
            ((0, 0), (900, 620)),
            ((77, 31), (256, 256)),
            ((128, 128), (128, 128)),
            ((800, 500), (200, 200)),
        ]:
            ours, theirs = direct.read(xy0, 0, size).astype(float), reference.read(xy0, 0, size).astype(float)
            assert np.sqrt(np.mean((ours - theirs) ** 2)) < 1, xy0
        assert np.abs(direct.read((0, 0), 0, (900, 620)).astype(float) - tissue).mean() < 4


@pytest.mark.parametrize("corner", [(100, 52), (101, 53), (102, 50), (103, 55), (50, 30)])
def test_corners_between_pixels_are_openslides(tmp_path: Path, tissue: Pixels, corner: tuple[int, int]) -> None:
    small = np.asarray(cv2.resize(tissue[:600], (225, 150), interpolation=cv2.INTER_AREA), np.uint8)
    levels = [tissue[:600], small]
    write_svs(tmp_path / "a.svs", levels, 0.5, 20, SvsFormat(quality=None, tile_px=64))
    with open_slide(tmp_path / "a.svs", "direct") as direct, open_slide(tmp_path / "a.svs", "openslide") as reference:
        ours, theirs = (slide.read(corner, 1, (120, 80)).astype(float) for slide in (direct, reference))
    assert np.sqrt(np.mean((ours - theirs) ** 2)) < 1


def test_tables_shared_by_all_tiles(tmp_path: Path, tissue: Pixels) -> None:
    """Abbreviated streams, as Aperio writes them, built by hand: the tables lie in the tag JPEGTables."""
    path = tmp_path / "a.tif"
    _write(path, tissue, **_jpeg_options("ycbcr-420"))
    with tifffile.TiffFile(path) as file:
        page = file.pages.first
        streams = [
            _split(_segment(file, offset, count))
            for offset, count in zip(page.dataoffsets, page.databytecounts, strict=True)
        ]
        expected = page.asarray()
    tables = streams[0][0]
    with tifffile.TiffWriter(path) as writer:
        writer.write(
            iter([body for _, body in streams]),
            shape=tissue.shape,
            dtype=np.uint8,
            tile=(128, 128),
            photometric="ycbcr",
            subsampling=(2, 2),
            compression="jpeg",
            metadata=None,
            extratags=[(347, 7, len(tables), tables, True)],
        )
    with open_slide(path, "direct") as slide:
        ours = slide.read((0, 0), 0, (900, 620))
    assert np.abs(ours.astype(int) - expected).max() <= 2


def _segment(file: tifffile.TiffFile, offset: int, count: int) -> bytes:
    file.filehandle.seek(offset)
    return bytes(file.filehandle.read(count))


def _split(stream: bytes) -> tuple[bytes, bytes]:
    """(tables, the rest) of one JPEG stream: DQT and DHT segments go to the tables, APPn are dropped."""
    tables, body, at = b"", b"", 2
    while stream[at + 1] != 0xDA:
        marker, length = stream[at + 1], int.from_bytes(stream[at + 2 : at + 4], "big")
        segment = stream[at : at + 2 + length]
        if marker in (0xDB, 0xC4):
            tables += segment
        elif not 0xE0 <= marker <= 0xEF:
            body += segment
        at += 2 + length
    return b"\xff\xd8" + tables + b"\xff\xd9", b"\xff\xd8" + body + stream[at:]


def test_jpeg2000_stored_as_ycbcr(tmp_path: Path, tissue: Pixels) -> None:
    """Aperio's compression 33003: the codec gives Y, Cb and Cr as they are."""
    ycbcr = cv2.cvtColor(tissue[:512, :896], cv2.COLOR_RGB2YCrCb)[..., [0, 2, 1]]
    tiles = [
        bytes(imagecodecs.jpeg2k_encode(np.ascontiguousarray(ycbcr[y : y + 128, x : x + 128]), level=0, mct=False))
        for y in range(0, 512, 128)
        for x in range(0, 896, 128)
    ]
    with tifffile.TiffWriter(tmp_path / "a.tif") as writer:
        writer.write(
            iter(tiles),
            shape=ycbcr.shape,
            dtype=np.uint8,
            tile=(128, 128),
            photometric="rgb",
            compression=33003,
            metadata=None,
        )
    with open_slide(tmp_path / "a.tif", "direct") as slide:
        pixels = slide.read((0, 0), 0, (896, 512))
    assert np.abs(pixels.astype(int) - tissue[:512, :896]).max() <= 3


@pytest.mark.parametrize("shrink", [2, 4, 8])
@pytest.mark.parametrize("kind", ["rgb", "ycbcr-420"])
def test_shrinking_while_decoding_is_close_to_block_means(
    tmp_path: Path, tissue: Pixels, kind: str, shrink: int
) -> None:
    path = _write(tmp_path / "a.tif", tissue, **_jpeg_options(kind))
    with open_slide(path, "direct") as slide:
        assert slide.levels[0].shrinks == (1, 2, 4, 8)
        whole = slide.read((0, 0), 0, (896, 616))
        size = (896 // shrink, 616 // shrink)
        means = cv2.resize(whole, size, interpolation=cv2.INTER_AREA).astype(float)
        shrunk = read_shrunk(slide, (0, 0), 0, size, shrink).astype(float)
        assert np.sqrt(np.mean((means - shrunk) ** 2)) < 4
        assert abs((means - shrunk).mean()) < 0.3
        part = read_shrunk(slide, (32 * shrink, 16 * shrink), 0, (40, 30), shrink)
        assert np.array_equal(part, shrunk[16:46, 32:72].astype(np.uint8))


def test_other_codings_cannot_shrink(tmp_path: Path, tissue: Pixels) -> None:
    with open_slide(_write(tmp_path / "a.tif", tissue, compression="zlib")) as slide:
        assert slide.levels[0].shrinks == (1,)


@settings(max_examples=40, deadline=None)
@given(
    x=st.integers(-200, 1000),
    y=st.integers(-200, 700),
    width=st.integers(1, 400),
    height=st.integers(1, 400),
    tile=st.sampled_from([(16, 16), (64, 128), (128, 64), None]),
)
def test_any_region(
    tmp_path_factory: pytest.TempPathFactory, x: int, y: int, width: int, height: int, tile: tuple[int, int] | None
) -> None:
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 255, (620, 900, 3)).astype(np.uint8)
    path = tmp_path_factory.getbasetemp() / f"any-{tile}.tif"
    if not path.exists():
        _write(path, pixels, tile=tile, compression="zlib")
    canvas = np.full((620 + 2000, 900 + 2000, 3), 255, np.uint8)
    canvas[1000:1620, 1000:1900] = pixels
    with open_slide(path, "direct") as slide:
        region = slide.read((x, y), 0, (width, height))
    assert np.array_equal(region, canvas[1000 + y : 1000 + y + height, 1000 + x : 1000 + x + width])


def test_tiles_that_were_never_stored_are_white(tmp_path: Path, tissue: Pixels) -> None:
    path = _write(tmp_path / "a.tif", tissue, compression="zlib")
    with tifffile.TiffFile(path, mode="r+") as file:
        tag = file.pages.first.tags["TileByteCounts"]
        tag.overwrite([0, *tag.value[1:]])
    with open_slide(path, "direct") as slide:
        region = slide.read((0, 0), 0, (200, 128))
    assert (region[:, :128] == 255).all() and np.array_equal(region[:, 128:], tissue[:128, 128:200])


def test_a_damaged_tile_names_its_place_and_spares_the_rest(tmp_path: Path, tissue: Pixels) -> None:
    path = _write(tmp_path / "a.tif", tissue, **_jpeg_options("ycbcr-420"))
    with tifffile.TiffFile(path) as file:
        offset, count = file.pages.first.dataoffsets[9], file.pages.first.databytecounts[9]
    with open(path, "r+b") as raw:
        raw.seek(offset + count // 2)
        raw.write(b"\xff\xd9" * (count // 4))  # an end of image too early
    with open_slide(path, "direct") as slide:
        with pytest.raises(SlideError, match=r"level 0 can't be read at \(128, 128\)"):
            slide.read((130, 130), 0, (20, 20))
        assert slide.read((300, 300), 0, (20, 20)).std() > 0


@pytest.mark.parametrize("kind", ["is_ndpi", "is_scn", "is_bif", "is_philips"])
def test_formats_with_rules_of_their_own_are_left_to_openslide(
    tmp_path: Path, tissue: Pixels, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = _write(tmp_path / "a.tif", tissue)
    monkeypatch.setattr(tifffile.TiffFile, kind, True, raising=False)
    with pytest.raises(NotDirect):
        DirectSlide(path)


def test_gaps_in_an_aperio_pyramid_are_left_to_openslide(tmp_path: Path, tissue: Pixels) -> None:
    write_svs(tmp_path / "a.svs", [tissue], 0.5, 20, SvsFormat(tile_px=128))
    with tifffile.TiffFile(tmp_path / "a.svs", mode="r+") as file:
        tag = file.pages.first.tags["TileByteCounts"]
        tag.overwrite([0, *tag.value[1:]])
    with open_slide(tmp_path / "a.svs") as slide:
        assert slide.reader == "openslide"


def test_threads_and_a_fork_get_the_same_pixels(tmp_path: Path, tissue: Pixels) -> None:
    path = _write(tmp_path / "a.tif", tissue, **_jpeg_options("ycbcr-420"))
    corners = [(int(x), int(y)) for x, y in np.random.default_rng(0).integers(0, 500, (80, 2))]
    with DirectSlide(path) as slide:
        alone = [slide.read(xy0, 0, (150, 130)) for xy0 in corners]
        with ThreadPoolExecutor(8) as pool:
            together = list(pool.map(lambda xy0: slide.read(xy0, 0, (150, 130)), corners))
        assert all(np.array_equal(a, b) for a, b in zip(alone, together, strict=True))
        with slide._cache()._lock:  # as another thread of the parent may, while it forks
            pid = os.fork()
            if pid == 0:
                signal.alarm(10)
                os._exit(0 if np.array_equal(slide.read(corners[0], 0, (150, 130)), alone[0]) else 3)
            assert os.waitpid(pid, 0)[1] == 0


def test_cache_is_bounded_and_makes_each_tile_once() -> None:
    cache = TileCache(max_bytes=5 * 300)
    made: list[int] = []
    under_way = threading.Event()

    def make(number: int) -> Pixels:
        made.append(number)
        under_way.wait(0.01)
        return np.full((10, 10, 3), number, np.uint8)

    with ThreadPoolExecutor(8) as pool:
        tiles = list(pool.map(lambda number: cache.get(number, lambda: make(number)), [1, 2, 3, 4] * 10))
    assert sorted(made) == [1, 2, 3, 4]
    assert [int(tile[0, 0, 0]) for tile in tiles] == [1, 2, 3, 4] * 10
    for number in range(10, 30):
        cache.get(number, lambda number=number: make(number))  # type: ignore[misc]
    assert sum(cache.peek(number) is not None for number in range(30)) == 5
    assert cache.peek(29) is not None and cache.peek(1) is None


def test_a_tile_that_cannot_be_made_is_tried_again() -> None:
    cache = TileCache(1000)

    def fail() -> Pixels:
        raise ValueError("no")

    for _ in range(2):
        with pytest.raises(ValueError, match="no"):
            cache.get("a", fail)
    assert cache.get("a", lambda: np.ones((1, 1, 3), np.uint8)).sum() == 3


@pytest.mark.parametrize("reader", ["direct", "openslide"])
@pytest.mark.parametrize(("per_cm", "mpp"), [(40_000, 0.25), (28, None)])
def test_aperio_without_its_own_mpp(
    tmp_path: Path, tissue: Pixels, reader: str, per_cm: int, mpp: float | None
) -> None:
    """The next in the chain is asked; the 72 dpi of a screen don't count."""
    with tifffile.TiffWriter(tmp_path / "a.svs") as writer:
        writer.write(
            tissue,
            photometric="rgb",
            tile=(128, 128),
            metadata=None,
            description="Aperio Image Library v12\r\n900x620 [0,0 900x620] -> 900x620|AppMag = 40",
            resolution=(per_cm, per_cm),
            resolutionunit="CENTIMETER",
        )
    with open_slide(tmp_path / "a.svs", reader) as slide:
        assert slide.vendor == "aperio"
        assert (slide.mpp.x if slide.mpp else None) == (pytest.approx(mpp) if mpp else None)


@pytest.mark.parametrize("reader", ["direct", "openslide"])
def test_a_decimal_comma_is_no_reason_to_ask_the_next(tmp_path: Path, tissue: Pixels, reader: str) -> None:
    path, about = tmp_path / "a.svs", "Aperio Image Library v12\r\n900x620 [0,0 900x620]|AppMag = 40|MPP = 0,2498"
    per_cm = (20_000, 20_000)  # of something else: half of it would be a wrong magnification
    _write(path, tissue, compression="zlib", description=about, resolution=per_cm, resolutionunit="CENTIMETER")
    with open_slide(path, reader) as slide:
        assert slide.mpp is not None and (slide.mpp.x, slide.mpp.y) == (0.2498, 0.2498)
        assert slide.mpp.source == "aperio property"


def test_an_svs_called_ndpi_is_opened_for_what_it_is(tmp_path: Path, tissue: Pixels) -> None:
    write_svs(tmp_path / "a.svs", [tissue], 0.5, 20, SvsFormat(tile_px=128))
    (tmp_path / "a.svs").rename(tmp_path / "a.ndpi")
    with open_slide(tmp_path / "a.ndpi") as slide:
        assert (slide.vendor, slide.reader) == ("aperio", "openslide")
