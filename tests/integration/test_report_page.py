"""The report in a browser: it opens fast with a thousand slides, fetches nothing, sorts, filters, enlarges, prints."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pathpipe.provenance import Provenance
from pathpipe.report.blocks import Page
from pathpipe.report.cohort import cohort_section, sheet_section
from pathpipe.report.entry import SlideEntry
from pathpipe.report.explained import Explained, chosen, explained_section
from pathpipe.report.origins import origins_section
from pathpipe.report.page import render_page
from pathpipe.report.results import Result, result_section
from pathpipe.report.work import Trouble, trouble_section
from pathpipe.stages.shown import HEATMAP_PX, SHEET, SHEET_PX, TILES_PX
from tests.integration.chromium import Chromium, find_chromium
from tests.unit.report.made_up import binary

SLIDES = 1000


def _jpeg(width: int, height: int, seed: int) -> bytes:
    """A picture as hard to compress as stained tissue."""
    rng = np.random.default_rng(seed)
    coarse = Image.fromarray(rng.integers(90, 255, (height // 6 + 1, width // 6 + 1, 3), dtype=np.uint8))
    buffer = io.BytesIO()
    coarse.resize((width, height), Image.Resampling.BICUBIC).save(buffer, "JPEG", quality=78)
    return buffer.getvalue()


def _explained(at: int) -> Explained:
    aim, right = ("yes", "no")[at % 2], at % 7 > 0
    return Explained(
        f"S{at:04d}", aim, aim, aim, "class", "attention", 1 / (at + 1), 500, right, None, None, {}, {}, "h", "t"
    )


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """All sections of a run of a thousand slides, with as many pictures as a report holds."""
    slides = [
        SlideEntry(f"S{at:04d}", f"P{at // 2:03d}", "yes", "failed" if at % 50 == 0 else "done", tiles=9999 - at)
        for at in range(SLIDES)
    ]
    explained = [_explained(at) for at in range(SLIDES)]
    shown = {slide.slide_id: _jpeg(SHEET_PX, SHEET_PX * 3 // 4, at) for at, slide in enumerate(slides[-SHEET:])}
    heatmaps = {
        one.key: (_jpeg(HEATMAP_PX, HEATMAP_PX // 2, at), _jpeg(TILES_PX, TILES_PX // 3, at))
        for at, one in enumerate(one for members in chosen(explained).values() for one in members)
    }
    troubles = [Trouble(one.slide_id, "tissue", "failed", "ends early", "") for one in slides if one.state == "failed"]
    sections = (
        trouble_section(troubles, []),
        result_section(Result("label", "", "abmil", binary(), 0.95)),
        explained_section(explained, heatmaps, None, "heatmaps/m/"),
        cohort_section(slides, {}, {}, "label"),
        sheet_section(slides, shown, "tiles/"),
        origins_section(["pathpipe report"], "a: 1\n", [], {}),
    )
    whole = Page("many", "slides", (), (), tuple(one for one in sections if one is not None), {})
    path = tmp_path_factory.mktemp("page") / "report.html"
    render_page(whole, path, Provenance("report", 2, {}, {}, {}))
    return path


@pytest.fixture(scope="module")
def browser(page: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Chromium]:
    """A browser that has opened it."""
    binary = find_chromium()
    if binary is None:
        pytest.skip("there is no Chromium")
    with Chromium(binary, tmp_path_factory.mktemp("profile")) as one:
        one.prefer(prefers_color_scheme="light")
        one.go(page.as_uri())
        yield one


def _column(browser: Chromium, table: str, column: int, most: int = 3) -> list[str]:
    rows = f"[...document.querySelectorAll('#{table} tbody tr')].filter(row => !row.hidden)"
    found: list[str] = browser.value(f"{rows}.slice(0, {most}).map(row => row.cells[{column}].textContent.trim())")
    return found


def test_it_opens_fast_and_is_not_too_large(page: Path, browser: Chromium) -> None:
    assert page.stat().st_size < 12e6
    # two seconds where nothing else runs (0.6 s measured); here other tests share the machine
    assert browser.value("performance.getEntriesByType('navigation')[0].loadEventEnd") < 6000
    assert (
        browser.value("performance.getEntriesByType('resource').filter(one => !one.name.startsWith('data:')).length")
        == 0
    )
    assert browser.complaints == []


def test_tables_sort_by_number_and_by_name(browser: Chromium) -> None:
    press = "document.querySelectorAll('#slides th button')[{}].click()"
    browser.value(press.format(4))
    assert _column(browser, "slides", 4) == ["9,000", "9,001", "9,002"]
    browser.value(press.format(4))
    assert _column(browser, "slides", 4) == ["9,999", "9,998", "9,997"]
    assert browser.value("document.querySelectorAll('#slides th')[4].getAttribute('aria-sort')") == "descending"
    browser.value(press.format(0))
    assert _column(browser, "slides", 0) == ["S0000", "S0001", "S0002"]


def test_gaps_stay_last_whichever_way(browser: Chromium) -> None:
    for _ in range(2):
        browser.value("document.querySelectorAll('#metrics th button')[1].click()")
        assert _column(browser, "metrics", 0)[-1] == "sensitivity", "which has no value"


def test_tables_filter(browser: Chromium) -> None:
    field = "document.querySelector('#slides').closest('.scroll').previousElementSibling.querySelector('input')"
    browser.value(f"{field}.value = 'FAILED p47'; {field}.dispatchEvent(new Event('input'))")
    assert (
        _column(browser, "slides", 0, 9) == ["S0950"]
        and browser.value(f"{field}.nextSibling.value") == "1 of 1000 rows"
    )
    browser.value(f"{field}.value = ''; {field}.dispatchEvent(new Event('input'))")
    assert browser.value("[...document.querySelectorAll('#slides tbody tr')].filter(row => row.hidden).length") == 0


def test_pictures_enlarge(browser: Chromium) -> None:
    assert browser.value("document.querySelectorAll('.sheet img').length") == SHEET + 20
    browser.value("document.querySelector('.sheet img').focus()")
    browser.press("Enter")
    assert browser.value("document.getElementById('large').open")
    assert browser.value("document.querySelector('#large img').src === document.querySelector('.sheet img').src")
    browser.press("Escape")
    browser.wait("!document.getElementById('large').open")


def test_light_and_dark(browser: Chromium) -> None:
    paper = "getComputedStyle(document.body).backgroundColor"
    assert browser.value(paper) == "rgb(251, 251, 250)"
    browser.prefer(prefers_color_scheme="dark")
    assert browser.value(paper) == "rgb(20, 24, 26)" and browser.value("theme.textContent") == "Light"
    browser.value("theme.click()")
    assert browser.value(paper) == "rgb(251, 251, 250)" and browser.value("theme.textContent") == "Dark"
    browser.prefer(prefers_color_scheme="light")


def test_nothing_is_cut_off_on_a_narrow_screen(browser: Chromium) -> None:
    browser.resize(420, 900)
    assert browser.value("document.documentElement.scrollWidth") == 420
    browser.resize(1400, 900)


def test_it_prints_all_pages(browser: Chromium) -> None:
    pdf = base64.b64decode(browser.call("Page.printToPDF", preferCSSPageSize=True)["data"])
    pages = sum(pdf.count(b"/Type /Page" + end) for end in (b"\n", b" ", b">", b"/"))
    assert pdf.startswith(b"%PDF") and pages > 25
    assert browser.value("document.querySelectorAll('details[open]').length") == 0, "opened for print alone"


def test_it_reads_without_scripts(page: Path, browser: Chromium) -> None:
    browser.call("Emulation.setScriptExecutionDisabled", value=True)
    browser.go(f"{page.as_uri()}?again")
    assert browser.value("document.querySelectorAll('#slides tbody tr').length") == SLIDES
    assert browser.value("document.querySelectorAll('th button, .filter').length") == 0
    assert browser.value("theme.hidden")
    browser.call("Emulation.setScriptExecutionDisabled", value=False)
