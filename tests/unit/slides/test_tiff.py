"""TIFF facts: OME-XML is believed, files that end early are refused before a decoder can paint over the loss."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile

from pathpipe.errors import PathpipeError, SlideError
from pathpipe.slides.open import open_slide
from pathpipe.slides.resolution import resolve_mpp
from pathpipe.slides.tiff import ome_mpp, read_tiff_facts
from pathpipe.testing.slides import cut_short, plain_tiff, position_pixels, position_slide

PIXELS = position_pixels((320, 256))
TILED: dict[str, Any] = {"tile": (64, 64), "photometric": "rgb"}


def _write_ome(path: Path, unit: str, x: float, y: float, subifd: bool = False, **options: Any) -> Path:
    metadata = {
        "axes": "YXS",
        "PhysicalSizeX": x,
        "PhysicalSizeXUnit": unit,
        "PhysicalSizeY": y,
        "PhysicalSizeYUnit": unit,
    }
    with tifffile.TiffWriter(path, ome=True) as writer:
        writer.write(PIXELS, subifds=int(subifd), metadata=metadata, **TILED, **options)
        if subifd:
            writer.write(np.ascontiguousarray(PIXELS[::2, ::2]), subfiletype=1, **TILED)
    return path


@pytest.mark.parametrize("subifd", [False, True], ids=["one level", "two levels"])
@pytest.mark.parametrize(("unit", "factor"), [("µm", 1.0), ("nm", 1e3), ("mm", 1e-3)])
def test_ome_sizes_are_read_in_their_unit(tmp_path: Path, unit: str, factor: float, subifd: bool) -> None:
    path = _write_ome(tmp_path / "a.ome.tif", unit, 0.25 * factor, 0.26 * factor, subifd)
    with open_slide(path) as slide:
        mpp = resolve_mpp(slide, None, "error")
        assert (mpp.x, mpp.y, mpp.source) == (pytest.approx(0.25), pytest.approx(0.26), "OME PhysicalSize")
        assert len(slide.levels) == 1 + subifd
        assert np.array_equal(slide.read((64, 32), 0, (50, 40)), PIXELS[32:72, 64:114])


def test_ome_is_believed_over_the_dpi_of_a_screen(tmp_path: Path) -> None:
    path = _write_ome(tmp_path / "a.ome.tif", "µm", 0.5, 0.5, resolution=(72, 72), resolutionunit="INCH")
    with open_slide(path) as slide:
        assert resolve_mpp(slide, None, "error").x == 0.5


def test_ome_and_tags_that_agree(tmp_path: Path) -> None:
    path = _write_ome(tmp_path / "a.ome.tif", "µm", 0.5, 0.5, resolution=(20_000, 20_000), resolutionunit="CENTIMETER")
    with open_slide(path) as slide:
        assert (slide.reader, resolve_mpp(slide, None, "error").x) == ("direct", 0.5)


@pytest.mark.parametrize(
    "pixels",
    [
        "",
        'PhysicalSizeX="0.5"',
        'PhysicalSizeX="0" PhysicalSizeY="0"',
        'PhysicalSizeX="half" PhysicalSizeY="0.5"',
        'PhysicalSizeX="1" PhysicalSizeY="1" PhysicalSizeXUnit="pixel" PhysicalSizeYUnit="pixel"',
    ],
)
def test_ome_that_states_nothing_usable(pixels: str) -> None:
    schema = "http://www.openmicroscopy.org/Schemas/OME/2016-06"
    assert ome_mpp(f'<OME xmlns="{schema}"><Image><Pixels {pixels}/></Image></OME>') is None
    assert ome_mpp("<OME") is None and ome_mpp(None) is None
    stated = 'PhysicalSizeX="0.5" PhysicalSizeY="0.25"'
    assert ome_mpp(f'<OME xmlns="{schema}"><Image><Pixels {stated}/></Image></OME>') == (0.5, 0.25), "default is um"


def test_tags_without_a_unit_state_nothing(tmp_path: Path) -> None:
    options = {**TILED, "resolution": (40_000, 40_000), "resolutionunit": "NONE", "metadata": None}
    tifffile.imwrite(tmp_path / "a.tif", PIXELS, **options)
    for reader in ("openslide", "tiffslide"):
        with open_slide(tmp_path / "a.tif", reader) as slide, pytest.raises(SlideError, match="has no resolution"):
            resolve_mpp(slide, None, "error")


@pytest.mark.parametrize("compression", ["jpeg", "zlib"])
@pytest.mark.parametrize("reader", ["auto", "tiffslide"])
def test_a_tile_that_is_half_there_is_refused_with_its_place(tmp_path: Path, compression: str, reader: str) -> None:
    noise = np.random.default_rng(0).integers(0, 200, (384, 512, 3)).astype(np.uint8)
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, noise, tile=(128, 128), photometric="rgb", compression=compression, metadata=None)
    assert len(read_tiff_facts(path).level_sizes) == 1
    path.write_bytes(path.read_bytes()[:-100])  # the last tile is written last
    with pytest.raises(SlideError) as caught:
        open_slide(path, reader)
    assert caught.value.what == (
        "damaged: the file ends early: 1 of 12 tiles of level 0 are missing, the first at (384, 256)"
    )


def test_a_lost_lower_level_is_refused_in_level_0_px(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 200, (512, 512, 3)).astype(np.uint8)
    half = np.ascontiguousarray(noise[::2, ::2])
    path = plain_tiff(tmp_path / "a.tif", noise, (0.5, 0.5), [half])
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(SlideError, match=r"1 of 16 tiles of level 1 .*first at \(384, 384\)"):
        open_slide(path)


def test_strips_are_counted_too(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 200, (256, 256, 3)).astype(np.uint8)
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, noise, photometric="rgb", compression="zlib", rowsperstrip=32, metadata=None)
    path.write_bytes(path.read_bytes()[:-10])
    with pytest.raises(SlideError, match=r"1 of 8 strips of level 0 are missing, the first at \(0, 224\)"):
        open_slide(path)


def test_what_is_not_8_bit_interleaved_rgb_is_named(tmp_path: Path) -> None:
    planes = np.ascontiguousarray(PIXELS.transpose(2, 0, 1))
    tifffile.imwrite(tmp_path / "a.tif", planes, photometric="rgb", planarconfig="separate", tile=(64, 64))
    tifffile.imwrite(tmp_path / "b.tif", PIXELS.astype(np.uint16), **TILED, metadata=None)
    for name, words in (("a.tif", "8-bit RGB, stored colour by colour"), ("b.tif", "16-bit RGB")):
        with pytest.raises(SlideError, match=f"not an RGB slide: {words}"):
            open_slide(tmp_path / name)


@pytest.mark.filterwarnings("ignore")
def test_flipped_bytes_never_give_an_error_we_cannot_explain(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    whole = [
        plain_tiff(tmp_path / "plain.tif", PIXELS, (0.5, 0.5), [np.ascontiguousarray(PIXELS[::2, ::2])]).read_bytes(),
        _write_ome(tmp_path / "ome.tif", "µm", 0.5, 0.5).read_bytes(),
        position_slide(tmp_path / "a.svs", [(256, 192), (64, 48)]).read_bytes(),
    ]
    refused = 0
    for number in range(150):
        content = bytearray(whole[number % len(whole)])
        for at in rng.integers(0, min(len(content), 600), rng.integers(1, 10)):
            content[at] = rng.integers(0, 256)
        path = tmp_path / "flipped.tif"
        path.write_bytes(content)
        try:
            with open_slide(path) as slide:
                slide.read((0, 0), len(slide.levels) - 1, (64, 64))
        except PathpipeError as error:
            refused += 1
            assert "\n" not in error.what
    assert 20 < refused < 150, "the bytes that were flipped matter for some files, and not for all"


def test_a_cut_file_is_not_read_as_a_slide_of_fewer_levels_with_other_pixels(tmp_path: Path) -> None:
    path = position_slide(tmp_path / "a.svs", [(512, 384), (128, 96)])
    for keep in (0.5, 0.8, 0.95):
        cut = tmp_path / "cut.svs"
        cut.write_bytes(path.read_bytes())
        cut_short(cut, keep)
        try:
            with open_slide(cut) as slide:
                whole = slide.read((0, 0), 0, (512, 384))
        except SlideError:
            continue
        assert np.array_equal(whole, PIXELS_512)


PIXELS_512 = position_pixels((512, 384))


@pytest.mark.parametrize("reader", ["auto", "direct", "tiffslide"])
def test_a_file_that_lost_its_last_images_is_refused_though_level_0_is_whole(tmp_path: Path, reader: str) -> None:
    path = position_slide(tmp_path / "a.svs", [(512, 384), (128, 96), (64, 48)])
    with tifffile.TiffFile(path) as file:
        directories = [page.offset for page in file.pages]  # levels and thumbnail
        ends = max(page.dataoffsets[-1] + page.databytecounts[-1] for page in file.pages[:1])
    whole = path.read_bytes()
    assert ends < directories[2]
    for number, offset in enumerate(directories[1:], 2):
        path.write_bytes(whole[: offset + 1])
        with pytest.raises(SlideError) as caught:
            open_slide(path, reader)
        words = f"image {number} of the file and what comes after it are missing"
        assert caught.value.what == f"damaged: the file ends early: {words}"


def test_a_level_in_a_subifd_that_is_lost(tmp_path: Path) -> None:
    half = np.ascontiguousarray(PIXELS[::2, ::2])
    path = plain_tiff(tmp_path / "a.tif", PIXELS, (0.5, 0.5), [half])
    with tifffile.TiffFile(path) as file:
        (offset,) = file.pages.first.subifds or ()
    path.write_bytes(path.read_bytes()[:offset])
    with pytest.raises(SlideError, match="ends early"):
        open_slide(path)
