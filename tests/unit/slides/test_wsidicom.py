"""Reader `wsidicom`: the same pixels as OpenSlide, asked where OpenSlide refuses, named where it is absent."""

from __future__ import annotations

import importlib.util
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest

from pathpipe.errors import MissingError, SlideError
from pathpipe.slides.open import READERS, open_slide

INSTALLED = importlib.util.find_spec("wsidicom") is not None
needs_wsidicom = pytest.mark.skipif(not INSTALLED, reason='needs the extra: pip install "pathpipe[dicom]"')
FILES = ["dicom_camelyon_jpeg.dcm", "dicom_highdicom_sm_image.dcm", "openslide_python_fixtures/boxes_0.dcm"]


@needs_wsidicom
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", FILES)
def test_same_pixels_as_openslide(shared_data: Path, name: str) -> None:
    path = shared_data / "slides" / name
    with open_slide(path, "openslide") as one, open_slide(path, "wsidicom") as other:
        assert other.levels == one.levels and other.mpp is not None and one.mpp is not None
        assert (other.mpp.x, other.mpp.y) == (pytest.approx(one.mpp.x), pytest.approx(one.mpp.y))
        assert (other.mpp.source, other.objective, other.vendor) == (one.mpp.source, one.objective, one.vendor)
        for level in one.levels:
            width, height = level.size_px
            for xy0, size in [((0, 0), (width, height)), ((-7, -3), (20, 15)), ((width - 5, height - 9), (20, 20))]:
                a, b = (slide.read(xy0, level.index, size).astype(float) for slide in (one, other))
                assert np.sqrt(((a - b) ** 2).mean()) < 1, (name, xy0)
                assert a.std() > 0


@needs_wsidicom
@pytest.mark.filterwarnings("ignore")
def test_the_thumbnail_beside_it_is_found_and_a_broken_neighbour_ignored(shared_data: Path, tmp_path: Path) -> None:
    folder = shared_data / "slides" / "openslide_python_fixtures"
    for name in ("boxes_0.dcm", "boxes_1.dcm"):
        shutil.copy(folder / name, tmp_path / name)
    (tmp_path / "broken.dcm").write_bytes(bytes(128) + b"DICM" + b"\x02\x00garbage")
    with open_slide(tmp_path / "boxes_0.dcm", "wsidicom") as slide:
        assert slide.associated == ("thumbnail",)
    (tmp_path / "boxes_1.dcm").unlink()
    with open_slide(tmp_path / "boxes_0.dcm", "wsidicom") as slide:
        assert slide.associated == ()


@needs_wsidicom
@pytest.mark.filterwarnings("ignore")
def test_asked_where_openslide_refuses(shared_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(path: Path) -> None:
        raise SlideError("not a format OpenSlide knows", where=path.name)

    monkeypatch.setattr("pathpipe.slides.readers.openslide.OpenSlideSlide", refuse)
    path = Path(shutil.copy(shared_data / "slides" / FILES[0], tmp_path / "a.dcm"))
    with open_slide(path) as slide:
        assert slide.reader == "wsidicom" and slide.size0 == (1152, 700)
    whole = path.read_bytes()
    for kept, words in ((len(whole) // 2, r"damaged: level 0 can't be read at \(0, 0\)"), (400, "wsidicom: ")):
        path.write_bytes(whole[:kept])
        with pytest.raises(SlideError, match=words) as caught, open_slide(path) as slide:
            slide.read((0, 0), 0, (1152, 700))
        assert "\n" not in caught.value.what


def test_where_it_is_absent_the_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "wsidicom", None)
    path = tmp_path / "a.dcm"
    path.write_bytes(bytes(128) + b"DICM" + bytes(500))
    with pytest.raises(MissingError, match="needs the package wsidicom") as missing:
        READERS["wsidicom"](path)
    assert missing.value.hint == 'pip install "pathpipe[dicom]"'
    with pytest.raises(SlideError, match=r"openslide: .*; wsidicom: reader `wsidicom` needs the package") as caught:
        open_slide(path)
    assert caught.value.hint == missing.value.hint


def test_what_is_no_dicom_is_not_opened(tmp_path: Path) -> None:
    (tmp_path / "a.dcm").write_bytes(bytes(500))
    with pytest.raises(SlideError, match="not a DICOM file"):
        open_slide(tmp_path / "a.dcm", "wsidicom")
