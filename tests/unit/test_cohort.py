"""Cohort tables: what is taken, and what is refused with row and column."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from pathpipe.cohort import Cohort
from pathpipe.errors import CohortError
from pathpipe.slides.identity import slide_fingerprint


def _table(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "cohort.csv"
    path.write_text(text, encoding="utf-8-sig")
    return path


def test_table_with_everything(tmp_path: Path) -> None:
    cohort = Cohort.read(
        _table(tmp_path, "path,patient_id,site,mpp,label\nslides/a b.svs,P1,X,0.25,yes\n/abs/ü.svs,P2,,,no\n")
    )
    first, second = cohort.slides
    assert first.slide_id == "a b"
    assert first.path == tmp_path / "slides" / "a b.svs"
    assert (first.patient_id, first.site, first.mpp) == ("P1", "X", 0.25)
    assert (second.slide_id, second.path, second.site, second.mpp) == ("ü", Path("/abs/ü.svs"), None, None)
    assert cohort.labels_by_patient("label") == {"P1": "yes", "P2": "no"}


def test_patient_defaults_to_slide_and_written_table_reads_the_same(tmp_path: Path) -> None:
    cohort = Cohort.read(_table(tmp_path, "slide_id,path,mpp,grade\nS1,a.svs,0.1234567890123,NA\nS2,b.svs,,\n"))
    assert cohort.patients == {"S1": "S1", "S2": "S2"}
    cohort.write(tmp_path / "elsewhere" / "cohort.csv")
    again = Cohort.read(tmp_path / "elsewhere" / "cohort.csv")
    assert again == cohort
    assert again.labels_by_patient("grade") == {"S1": "NA"}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("slide,label\na,1\n", r"no column `path` \(columns: slide, label\)"),
        ("path\n", "no rows"),
        ("path,label\n,1\n", "row 2: the path is empty"),
        ("path,mpp\na.svs,0.25\nb.svs,half\n", "row 3, column `mpp`: `half` is not a number"),
        ("path,mpp\n\na.svs,0.25\n,\nb.svs,half\n", "row 5, column `mpp`"),  # blank rows count, as in a spreadsheet
        ("path,label\n\na.svs,1,2\n", "row 3: has 3 values for 2 columns"),
        ("path\nx/a.svs\n\ny/a.svs\n", "rows 2 and 4 have the same slide_id: a"),
        ("path\nx/a.svs\ny/a.svs\n", "rows 2 and 3 have the same slide_id: a"),
        ("slide_id,path\nS1,a.svs\nS2,a.svs\n", "rows 2 and 3 have the same path"),
        ("slide_id,path\n../S1,a.svs\n", "can't be a file name"),
        ("", "can't be read as a table"),
    ],
)
def test_refusals_name_row_and_column(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(CohortError, match=message):
        Cohort.read(_table(tmp_path, text))


def test_blank_columns_of_a_spreadsheet_are_none(tmp_path: Path) -> None:
    (slide,) = Cohort.read(_table(tmp_path, "path,label,,\na.svs,1,,\n,,,\n")).slides
    assert slide.labels == {"label": "1"}
    with pytest.raises(CohortError, match="two columns ``"):  # a value without a name is no such thing
        Cohort.read(_table(tmp_path, "path,label,,\na.svs,1,,2\n"))


def test_a_name_that_is_no_text_is_named(tmp_path: Path) -> None:
    (tmp_path / os.fsdecode(b"caf\xe9.svs")).write_text("pixels")
    with pytest.raises(CohortError, match=r"/caf\\udce9\.svs: the name .* isn't UTF-8 \(hint: rename it"):
        Cohort.read(tmp_path)


def test_label_trouble(tmp_path: Path) -> None:
    cohort = Cohort.read(_table(tmp_path, "path,patient_id,label,empty\na.svs,P1,x,\nb.svs,P1,y,\n"))
    with pytest.raises(CohortError, match="P1 has both `x` and `y`"):
        cohort.labels_by_patient("label")
    with pytest.raises(CohortError, match="no slide has a value"):
        cohort.labels_by_patient("empty")
    with pytest.raises(CohortError, match="did you mean `label`"):
        cohort.labels_by_patient("labl")


def test_folder_gives_unique_ids_and_skips_other_files(tmp_path: Path) -> None:
    for name in ("x/a.svs", "y/a.svs", "b.TIF", "notes.txt", ".hidden.svs"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    cohort = Cohort.read(tmp_path)
    assert [slide.slide_id for slide in cohort.slides] == ["b", "x--a.svs", "y--a.svs"]


def test_links_that_lead_nowhere_cost_only_themselves(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "real" / "a.svs").touch()
    folder = tmp_path / "slides"
    folder.mkdir()
    (folder / "a.svs").symlink_to(tmp_path / "real" / "a.svs")
    (folder / "gone.svs").symlink_to(tmp_path / "gone.svs")
    (folder / "loop.svs").symlink_to(folder / "loop.svs")
    paths = {row.slide_id: row.path for row in Cohort.read(folder).slides}
    assert paths["a"] == tmp_path / "real" / "a.svs"
    assert (paths["gone"], paths["loop"]) == (folder / "gone.svs", folder / "loop.svs")


def test_folder_without_slides_and_missing_source(tmp_path: Path) -> None:
    with pytest.raises(CohortError, match="holds no slide"):
        Cohort.read(tmp_path)
    with pytest.raises(CohortError, match="no such cohort"):
        Cohort.read(tmp_path / "nothing.csv")


def test_one_slide_is_a_cohort(tmp_path: Path) -> None:
    slide = tmp_path / "one.svs"
    slide.touch()
    assert [row.slide_id for row in Cohort.read(slide).slides] == ["one"]


def test_files_of_one_dicom_series_are_one_slide(tmp_path: Path, shared_data: Path) -> None:
    source = shared_data / "slides" / "openslide_python_fixtures"
    for name in ("boxes_0.dcm", "boxes_1.dcm"):
        (tmp_path / name).write_bytes((source / name).read_bytes())
    (tmp_path / "other.dcm").write_bytes((source.parent / "dicom_highdicom_sm_image.dcm").read_bytes())
    (tmp_path / "broken.dcm").write_bytes(b"no DICOM")
    assert [slide.slide_id for slide in Cohort.read(tmp_path).slides] == ["boxes_0", "broken", "other"]
    assert slide_fingerprint(tmp_path / "boxes_0.dcm") == slide_fingerprint(tmp_path / "boxes_1.dcm")
    before = slide_fingerprint(tmp_path / "other.dcm")
    (tmp_path / "boxes_1.dcm").unlink()
    assert slide_fingerprint(tmp_path / "other.dcm") == before, "another slide lies beside it"
    (tmp_path / "boxes_1.dcm").write_bytes((source / "boxes_1.dcm").read_bytes())
    (tmp_path / "cohort.csv").write_text("path\nboxes_0.dcm\nother.dcm\nboxes_1.dcm\n")
    with pytest.raises(CohortError, match="rows 2 and 4 are files of one DICOM series"):
        Cohort.read(tmp_path / "cohort.csv")
