"""The contact sheet: what comes first, how many pages there are, and what a cell shows."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from pathpipe.report.contact_sheet import CELL_PX, COLUMNS, PER_PAGE, PICTURE_PX, draw_page, pages, sheet_title
from pathpipe.report.entry import SlideEntry
from pathpipe.tissue.legend import WARNING

GOOD = SlideEntry("good", "P", "", "done", tiles=1234, tissue_mm2=12.5)
ENTRIES = [
    GOOD,
    SlideEntry("little", "P", "", "done", tiles=3, tissue_mm2=0.5),
    SlideEntry("doubted", "P", "", "done", tiles=40, tissue_mm2=50.0, flags=("much pen",), doubt=0.9),
    SlideEntry("asked", "P", "", "done", tiles=40, tissue_mm2=60.0, flags=("some pen",), doubt=0.2),
    SlideEntry("empty", "P", "", "empty", "tissue", "no tissue found", tiles=0, tissue_mm2=0.0),
    SlideEntry("broken", "P", "", "failed", "tissue", "is empty (0 bytes)"),
    SlideEntry("old", "P", "", "stale", "tile", "was made from something else", tiles=5, tissue_mm2=1.0),
]


def test_trouble_comes_first_then_doubt_then_the_least_tissue() -> None:
    (page,) = pages(ENTRIES)
    assert [one.slide_id for one in page] == ["broken", "old", "empty", "doubted", "asked", "little", "good"]


def test_ties_keep_the_order_of_the_cohort() -> None:
    (page,) = pages([replace(GOOD, slide_id=f"S{n}") for n in (3, 1, 2)])
    assert [one.slide_id for one in page] == ["S3", "S1", "S2"]


@pytest.mark.parametrize(("slides", "lengths"), [(1, [1]), (PER_PAGE, [PER_PAGE]), (PER_PAGE + 1, [PER_PAGE, 1])])
def test_a_page_holds_so_many(slides: int, lengths: list[int]) -> None:
    found = pages([replace(GOOD, slide_id=f"S{n:04d}") for n in range(slides)])
    assert [len(page) for page in found] == lengths
    assert [one.slide_id for page in found for one in page] == [f"S{n:04d}" for n in range(slides)]


def _red(slide_id: str) -> Image.Image | None:
    return None if slide_id == "old" else Image.new("RGB", (480, 240), (200, 0, 0))


def _cell(sheet: Image.Image, index: int, columns: int) -> np.ndarray:
    x, y = 8 + index % columns * CELL_PX[0], 34 + index // columns * CELL_PX[1]
    return np.asarray(sheet.crop((x - 2, y - 2, x + PICTURE_PX[0] + 2, y + CELL_PX[1] - 10))).astype(int)


def test_cells_show_pictures_reasons_and_frames() -> None:
    (page,) = pages(ENTRIES)
    sheet = draw_page(page, "7 slides", _red)
    assert sheet.size == (3 * CELL_PX[0] + 8, 34 + 3 * CELL_PX[1] + 8)
    broken, old, empty, doubted, _, little, good = (_cell(sheet, index, 3) for index in range(7))
    middle = (102, 122)
    for cell in (empty, doubted, little, good):
        assert np.abs(cell[middle] - [200, 0, 0]).max() == 0
        assert (cell[45:160, 122] == [200, 0, 0]).all() and (cell[30, 122] == 255).all(), "its shape is kept"
    for cell in (broken, old):
        part = cell[4:200, 4:240]
        assert (part == 225).all(axis=2).mean() > 0.8 and (part.max(axis=2) < 60).any(), "grey, with its reason"
    frames = [tuple(cell[0, 120].tolist()) for cell in (broken, old, empty, doubted, good)]
    assert frames == [WARNING, (120, 120, 120), (235, 150, 0), (235, 150, 0), (225, 225, 225)]
    remark = [bool((np.abs(cell[242:] - WARNING).max(axis=2) < 30).any()) for cell in (empty, doubted, good)]
    assert remark == [True, True, False]


def test_the_title_counts() -> None:
    expected = "7 slides · 1 failed · 1 stale · 1 empty · 2 flagged · those to look at first come first"
    assert sheet_title(ENTRIES) == expected
    assert sheet_title([GOOD]) == "1 slide · those to look at first come first"


def test_a_failed_slide_shows_no_picture_of_before() -> None:
    asked: list[str] = []

    def load(slide_id: str) -> Image.Image | None:
        asked.append(slide_id)
        return _red(slide_id)

    draw_page(ENTRIES, "7 slides", load)
    assert "broken" not in asked and len(asked) == 6


def test_pages_are_wide_and_not_wider() -> None:
    sheet = draw_page([replace(GOOD, slide_id=str(n)) for n in range(PER_PAGE)], "", lambda slide_id: None)
    assert sheet.size == (COLUMNS * CELL_PX[0] + 8, 34 + PER_PAGE // COLUMNS * CELL_PX[1] + 8)
    assert sheet.width * sheet.height * 3 < 64 << 20
