"""OME-Zarr: both versions, any order of axes, um/px in any unit, and one sentence for what isn't RGB or isn't whole."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr

from pathpipe.cohort import Cohort
from pathpipe.errors import SlideError
from pathpipe.slides import identity
from pathpipe.slides.identity import slide_fingerprint
from pathpipe.slides.open import open_slide
from pathpipe.slides.resolution import resolve_mpp
from pathpipe.testing.slides import position_pixels, position_zarr


def _edit(folder: Path, change: Any) -> None:
    """Change the attributes of the group in place."""
    name = "zarr.json" if (folder / "zarr.json").exists() else ".zattrs"
    whole = json.loads((folder / name).read_text())
    change(whole["attributes"]["ome"] if name == "zarr.json" else whole)
    (folder / name).write_text(json.dumps(whole))


@pytest.mark.parametrize("form", [2, 3])
@pytest.mark.parametrize("axes", ["cyx", "tczyx", "yxc"])
def test_pixels_levels_and_resolution(tmp_path: Path, form: int, axes: str) -> None:
    path = position_zarr(tmp_path / "a.zarr", [(700, 500), (175, 125)], (0.25, 0.26), form, axes)
    with open_slide(path) as slide:
        assert (slide.reader, slide.vendor, slide.size0) == ("omezarr", "ome-zarr", (700, 500))
        assert slide.properties["ome-zarr.version"] == ("0.4" if form == 2 else "0.5")
        mpp = resolve_mpp(slide, None, "error")
        assert (mpp.x, mpp.y, mpp.source) == (0.25, 0.26, "OME-Zarr scale")
        assert [level.downsample for level in slide.levels] == [(1, 1), (4, 4)]
        assert np.array_equal(slide.read((336, 250), 0, (100, 90)), position_pixels((700, 500))[250:340, 336:436])
        low = position_pixels((175, 125), (4, 4), 1)
        assert np.array_equal(slide.read((401, 200), 1, (30, 10)), low[50:60, 100:130])
        edge = slide.read((690, -5), 0, (20, 20))
        assert (edge[:5] == 255).all() and (edge[:, 10:] == 255).all()
        assert np.array_equal(edge[5:, :10], position_pixels((700, 500))[:15, 690:])
        assert (slide.read((5000, 0), 0, (3, 3)) == 255).all()
        with pytest.raises(SlideError, match="has no level 2"):
            slide.read((0, 0), 2, (1, 1))


@pytest.mark.parametrize(("unit", "factor"), [("nanometer", 1e3), ("millimeter", 1e-3), ("µm", 1), ("meter", 1e-6)])
def test_units_and_the_scale_of_the_whole_image(tmp_path: Path, unit: str, factor: float) -> None:
    path = position_zarr(tmp_path / "a.zarr", [(100, 80)], (0.125 * factor, 0.15 * factor))

    def change(attributes: dict[str, Any]) -> None:
        image = attributes["multiscales"][0]
        for axis in image["axes"][1:]:
            axis["unit"] = unit
        image["coordinateTransformations"] = [
            {"type": "scale", "scale": [1, 2, 2]},
            {"type": "translation", "translation": [0, 9, 9]},
        ]

    _edit(path, change)
    with open_slide(path) as slide:
        assert slide.mpp is not None
        assert (slide.mpp.x, slide.mpp.y) == (pytest.approx(0.25), pytest.approx(0.3))


@pytest.mark.parametrize("unit", [None, "pixel"])
def test_without_a_length_there_is_no_resolution(tmp_path: Path, unit: str | None) -> None:
    path = position_zarr(tmp_path / "a.zarr", [(100, 80)], None)
    if unit:
        _edit(path, lambda attributes: [axis.update(unit=unit) for axis in attributes["multiscales"][0]["axes"]])
    with open_slide(path) as slide, pytest.raises(SlideError, match="has no resolution"):
        resolve_mpp(slide, None, "error")


def test_downsample_is_the_stated_one_where_sizes_allow(tmp_path: Path) -> None:
    path = position_zarr(tmp_path / "a.zarr", [(703, 501), (176, 126), (44, 32)])
    scales = [[1, 1, 1], [1, 4, 4], [1, 3, 3]]  # the last can't be: 501 / 3 isn't 32

    def change(attributes: dict[str, Any]) -> None:
        for dataset, scale in zip(attributes["multiscales"][0]["datasets"], scales, strict=True):
            dataset["coordinateTransformations"][0]["scale"] = scale

    _edit(path, change)
    with open_slide(path) as slide:
        assert slide.levels[1].downsample == (4, 4), "not 703 / 176 = 3.994"
        assert slide.levels[2].downsample[0] == pytest.approx((703 / 44 + 501 / 32) / 2)


def test_transparent_is_white(tmp_path: Path) -> None:
    path = position_zarr(tmp_path / "a.zarr", [(64, 64)])
    shutil.rmtree(path / "0")
    array = zarr.create_array(str(path / "0"), shape=(4, 64, 64), chunks=(1, 32, 32), dtype="uint8", zarr_format=2)
    array[:3] = 90
    array[3, :, 32:] = 255
    with open_slide(path) as slide:
        region = slide.read((0, 0), 0, (64, 64))
    assert (region[:, :32] == 255).all() and (region[:, 32:] == 90).all()


def _series(root: Path, xml: bool) -> Path:
    position_zarr(root / "0", [(120, 90)], (0.5, 0.5), axes="tczyx")
    position_zarr(root / "1", [(30, 20)], None)
    position_zarr(root / "2", [(40, 20)], None)
    (root / ".zattrs").write_text(json.dumps({"bioformats2raw.layout": 3}))
    (root / ".zgroup").write_text(json.dumps({"zarr_format": 2}))
    if xml:
        (root / "OME").mkdir()
        images = "".join(
            f'<Image ID="Image:{n}" Name="{name}"/>' for n, name in enumerate(("", "label image", "macro"))
        )
        space = "http://www.openmicroscopy.org/Schemas/OME/2016-06"
        (root / "OME" / "METADATA.ome.xml").write_text(f'<OME xmlns="{space}">{images}</OME>')
    return root


@pytest.mark.parametrize("xml", [True, False])
def test_first_of_a_series_and_the_names_of_the_others(tmp_path: Path, xml: bool) -> None:
    with open_slide(_series(tmp_path / "a.zarr", xml)) as slide:
        assert slide.size0 == (120, 90) and slide.mpp is not None
        assert slide.associated == (("label image", "macro") if xml else ("1", "2"))


def _replace(path: Path, shape: tuple[int, ...], dtype: str = "uint8") -> None:
    shutil.rmtree(path / "0")
    zarr.create_array(str(path / "0"), shape=shape, chunks=shape, dtype=dtype, zarr_format=2)[...] = 1


@pytest.mark.parametrize(
    ("shape", "dtype", "words"),
    [
        ((5, 64, 64), "uint8", "8-bit, 5 channels, axes cyx"),
        ((1, 64, 64), "uint8", "8-bit, 1 channels, axes cyx"),
        ((3, 64, 64), "uint16", "16-bit, 3 channels, axes cyx"),
        ((3, 64, 64), "float32", "float32, 3 channels, axes cyx"),
        ((64, 64), "uint8", "axes cyx"),
    ],
)
def test_other_than_rgb_is_refused(tmp_path: Path, shape: tuple[int, ...], dtype: str, words: str) -> None:
    path = position_zarr(tmp_path / "a.zarr", [(64, 64)])
    _replace(path, shape, dtype)
    with pytest.raises(SlideError, match="not an RGB slide") as caught:
        open_slide(path)
    assert words in caught.value.what and caught.value.where == "a.zarr"


def test_stacks_are_refused(tmp_path: Path) -> None:
    path = position_zarr(tmp_path / "a.zarr", [(64, 64)], axes="tczyx")
    _replace(path, (1, 3, 7, 64, 64))
    with pytest.raises(SlideError, match="8-bit, 3 channels, 7 planes, axes tczyx"):
        open_slide(path)


def test_three_stains_are_not_red_green_and_blue(tmp_path: Path) -> None:
    path = position_zarr(tmp_path / "a.zarr", [(64, 64)])
    colours = ["0000FF", "00FF00", "FF0000"]
    _edit(path, lambda attributes: attributes.update(omero={"channels": [{"color": c} for c in colours]}))
    with pytest.raises(SlideError, match="shown in the colours 0000FF, 00FF00, FF0000"):
        open_slide(path)
    _edit(path, lambda attributes: attributes.update(omero={"channels": [{"color": c} for c in colours[::-1]]}))
    open_slide(path).close()


@pytest.mark.parametrize("form", [2, 3])
def test_damage_is_named_with_its_place(tmp_path: Path, form: int) -> None:
    path = position_zarr(tmp_path / "a.zarr", [(256, 128)], form=form)
    chunk = path / "0" / ("0/1/2" if form == 2 else "c/0/1/2")
    chunk.write_bytes(chunk.read_bytes()[:9])
    with open_slide(path) as slide:
        assert np.array_equal(slide.read((0, 0), 0, (128, 128)), position_pixels((128, 128)))
        with pytest.raises(SlideError, match=r"damaged: level 0 can't be read at \(130, 70\)") as caught:
            slide.read((130, 70), 0, (10, 10))
        assert "\n" not in caught.value.what


def test_damaged_metadata_is_one_sentence(tmp_path: Path) -> None:
    path = position_zarr(tmp_path / "a.zarr", [(64, 64)])
    whole = (path / ".zattrs").read_text()
    for text in (
        whole.replace('"scale": [1.0, 0.5, 0.5]', '"scale": [1.0]'),
        whole.replace("0.5, 0.5]", "0.0, NaN]"),
        whole.replace('"axes"', '"axis"'),
        whole.replace('"path": "0"', '"path": "7"'),
    ):
        assert text != whole
        (path / ".zattrs").write_text(text)
        with pytest.raises(SlideError) as caught:
            open_slide(path)
        assert "damaged" in caught.value.what and "\n" not in caught.value.what
    (path / ".zattrs").write_text(whole[:40])
    with pytest.raises(SlideError, match=r"or its metadata is damaged .JSONDecodeError"):
        open_slide(path)
    for reader, words in (("tiffslide", "is a folder"), ("omezarr", "metadata is damaged")):
        (path / ".zattrs").write_text('{"multiscales": []}')
        with pytest.raises(SlideError, match=words):
            open_slide(path, reader)


def test_only_the_chunks_that_are_needed_are_read(tmp_path: Path) -> None:
    path = position_zarr(tmp_path / "a.zarr", [(640, 640)])
    kept = {path / "0" / f"{c}/3/{x}" for c in range(3) for x in (2, 3)}
    for chunk in (path / "0").rglob("*"):
        if chunk.is_file() and not chunk.name.startswith(".z") and chunk not in kept:
            chunk.write_bytes(b"garbage")
    with open_slide(path) as slide:
        region = slide.read((128, 192), 0, (128, 64))
        assert np.array_equal(region, position_pixels((640, 640))[192:256, 128:256])
        with pytest.raises(SlideError, match="damaged"):
            slide.read((127, 192), 0, (128, 64))


@pytest.mark.parametrize("form", [2, 3])
def test_identity_is_of_content_not_of_place(tmp_path: Path, form: int) -> None:
    path = position_zarr(tmp_path / "a.zarr", [(256, 192), (64, 48)], form=form)
    first = slide_fingerprint(path)
    moved = shutil.copytree(path, tmp_path / "elsewhere" / "b.zarr")
    assert slide_fingerprint(moved) == first
    (moved / "labels").mkdir()
    (moved / "labels" / ".zgroup").write_text("{}")
    (moved / ".DS_Store").touch()
    assert slide_fingerprint(moved) == first, "labels and clutter are not the slide"
    chunk = moved / "1" / ("0/0/0" if form == 2 else "c/0/0/0")
    whole = chunk.read_bytes()
    chunk.write_bytes(whole[:-1] + b"?")
    assert slide_fingerprint(moved) != first
    chunk.write_bytes(whole)
    assert slide_fingerprint(moved) == first
    (moved / "0" / ("1/1/1" if form == 2 else "c/1/1/1")).unlink()
    assert slide_fingerprint(moved) != first, "a lost chunk"
    _edit(path, lambda attributes: attributes["multiscales"][0]["axes"][1].update(unit="nanometer"))
    assert slide_fingerprint(path) != first, "another unit"


def test_identity_of_many_chunks_opens_few(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = position_zarr(tmp_path / "a.zarr", [(512, 512)], chunk_px=16)
    opened = []

    def counted(file: Path) -> str:
        opened.append(file)
        return "x"

    monkeypatch.setattr(identity, "sampled_digest", counted)
    slide_fingerprint(path)
    assert sum(1 for _ in (path / "0").rglob("*") if _.is_file()) > 1900
    assert len(opened) == 2 + 2 + 16


def test_a_cohort_takes_image_folders_and_no_other_zarrs(tmp_path: Path) -> None:
    position_zarr(tmp_path / "slides" / "one.ome.zarr", [(64, 64)])
    position_zarr(tmp_path / "slides" / "two.zarr", [(64, 64)], form=3)
    _series(tmp_path / "slides" / "three.zarr", xml=False)
    table = tmp_path / "slides" / "two-tiles.zarr"  # as another tool lays one beside its slide
    zarr.create_group(str(table), zarr_format=3, attributes={"spatialdata_attrs": {"version": "0.1"}})
    (table / "images").mkdir()
    (table / "images" / "inside.png").touch()
    cohort = Cohort.read(tmp_path / "slides")
    assert [row.slide_id for row in cohort.slides] == ["one.ome", "three", "two"]
    assert [row.slide_id for row in Cohort.read(tmp_path / "slides" / "two.zarr").slides] == ["two"]
    with pytest.raises(SlideError, match="is a zarr folder, but holds no OME-Zarr image"):
        open_slide(table)
