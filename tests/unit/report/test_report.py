"""The page: offline, escaped, complete, the same bytes for the same content, quick with a thousand slides."""

from __future__ import annotations

import re
import time
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest

from pathpipe.provenance import Provenance, read_provenance
from pathpipe.report.blocks import (
    Block,
    Card,
    Cell,
    Folded,
    Gallery,
    Heading,
    Page,
    Picture,
    Plot,
    Plots,
    Section,
    Table,
    Value,
    Words,
)
from pathpipe.report.cohort import cohort_section, sheet_section
from pathpipe.report.entry import SlideEntry
from pathpipe.report.page import code_marks, render_page
from pathpipe.report.results import Result, result_section
from pathpipe.report.words import counted, duration, gathered, interval_text, number, p_text
from tests.unit.report.made_up import KINDS, binary

EVIL = "S1</script><script>alert(1)</script><img src=x onerror=alert(2)>'\""
PROVENANCE = Provenance("report", 2, {"note": EVIL}, {"evaluation": "abc"}, {"pathpipe": "1"})


class Parsed(HTMLParser):
    """Tags and words of a page."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.text += data


def page_of(*blocks: Block, **more: object) -> Page:
    """A page of one section, or of those given."""
    sections = more.pop("sections", (Section("one", "One", blocks),))
    given = {"title": "t", "subtitle": "s", "notices": (), "cards": (), "made_by": {"pathpipe": "1.2.3"}, **more}
    return Page(sections=sections, **given)  # type: ignore[arg-type]


def rendered(tmp_path: Path, page: Page) -> str:
    """The page's text."""
    render_page(page, tmp_path / "page.html", PROVENANCE)
    return (tmp_path / "page.html").read_text()


def rows_of(text: str, table: str) -> list[list[str]]:
    """Cells of a table, by its id."""
    found = re.search(rf'<table id="{re.escape(table)}">(.*?)</table>', text, re.DOTALL)
    assert found, table
    rows = re.findall(r"<tr>(.*?)</tr>", found[1], re.DOTALL)
    return [[Parsed(cell).text.strip() for cell in re.findall(r"<t[hd].*?</t[hd]>", row, re.DOTALL)] for row in rows]


def _everything(word: str) -> Page:
    """A page that says a word in every place where a name may stand."""
    rows: tuple[tuple[Value, ...], ...] = ((word, 1, 0.5, None), (Cell(word, "bad", word, True), 2, 0.25, 3.0))
    blocks = (
        Words(word),
        Words(word, "warn"),
        Heading(word),
        Folded(word, word),
        Table("t", (word, "a", "b", "c"), rows, note=(word,)),
        Gallery((Picture(b"jpeg", word, word, "bad"),)),
        Gallery((Picture(b"jpeg", word, word),), wide=True),
        Plots((Plot(word, "<svg><text>x</text></svg>"), Plot(word, "<svg/>", "whole"))),
    )
    section = Section("one", word, blocks, word)
    return page_of(sections=(section,), title=word, subtitle=word, notices=(word,), cards=(Card(word, word),))


def test_names_cannot_break_out(tmp_path: Path) -> None:
    text = rendered(tmp_path, _everything(EVIL))
    said = Parsed(text)
    assert "<script>alert" not in text and "<img src=x" not in text
    assert [tag for tag, _ in said.tags].count("script") == 2, "provenance, and the page's own"
    assert all("onerror" not in attributes for _, attributes in said.tags)
    assert said.text.count(EVIL) == 22
    found = read_provenance(tmp_path / "page.html")
    assert found is not None and found.settings["note"] == EVIL and found.fingerprint == PROVENANCE.fingerprint


def test_names_in_plots_cannot_break_out(tmp_path: Path) -> None:
    made = binary()
    result = Result(EVIL, EVIL, EVIL, made, 0.95, EVIL, made, EVIL)
    text = rendered(tmp_path, page_of(sections=(result_section(result),)))
    assert "<script>alert" not in text and all("onerror" not in given for _, given in Parsed(text).tags)


def test_page_fetches_nothing_and_every_picture_has_words(tmp_path: Path) -> None:
    sections = tuple(
        result_section(Result(name, "months", "abmil", make(), 0.95), at, several=True)
        for at, (name, make) in enumerate(KINDS.items())
    )
    text = rendered(tmp_path, page_of(sections=(*sections, *_everything("word").sections)))
    for tag, attributes in Parsed(text).tags:
        for name in ("src", "href", "xlink:href", "action"):
            value = attributes.get(name) or ""
            assert value == "" or value.startswith(("data:", "#")), (tag, value)
        if tag == "img":
            assert "alt" in attributes
        if tag == "th":
            assert attributes["scope"] in ("row", "col")
    assert not re.search(r"url\(\s*['\"]?(?!#|data:)", text) and "@import" not in text
    assert "default-src 'none'" in text, "and the browser sees to it"


def test_ids_are_unique_and_links_lead_somewhere(tmp_path: Path) -> None:
    sections = tuple(
        result_section(Result(name, "months", "abmil", make(), 0.95), at, several=True)
        for at, (name, make) in enumerate(KINDS.items())
    )
    tags = Parsed(rendered(tmp_path, page_of(sections=sections))).tags
    own = [attributes["id"] for _, attributes in tags if "id" in attributes]
    assert len(own) == len(set(own))
    links = [str(attributes["href"]) for tag, attributes in tags if tag == "a"]
    assert len(links) == len(KINDS) and {link.removeprefix("#") for link in links} <= set(map(str, own))


def test_cells(tmp_path: Path) -> None:
    rows: tuple[tuple[Value, ...], ...] = (
        ("a", 1234, 0.12345, None, Cell("x", hint="why")),
        ("b", 5, float("nan"), 2.0, "y"),
        ("all", 1239, 0.5, None, None),
    )
    table = Table(
        "t", ("name", "count", "value", "gap", "text"), rows, digits=2, note=("`code` and <i>",), summary=True
    )
    text = rendered(tmp_path, page_of(table))
    assert rows_of(text, "t") == [
        ["name", "count", "value", "gap", "text"],
        ["a", "1,234", "0.12", "–", "xwhy"],
        ["b", "5", "–", "2.00", "y"],
        ["all", "1,239", "0.50", "–", "–"],
    ]
    assert [table.is_number(column) for column in range(5)] == [False, True, True, True, False]
    assert '<p class="soft"><code>code</code> and &lt;i&gt;</p>' in text
    assert "<tfoot>" in text


def test_same_content_same_bytes(tmp_path: Path) -> None:
    assert rendered(tmp_path, _everything("a")) == rendered(tmp_path, _everything("a"))


def test_a_thousand_slides_are_quick(tmp_path: Path) -> None:
    slides = [
        SlideEntry(f"S{at}", f"P{at // 2}", "yes", "done", tiles=at, tissue_mm2=1.5, mpp="0.25") for at in range(1000)
    ]
    shown = {slide.slide_id: b"j" * 20_000 for slide in slides[:120]}
    columns = {"age": {f"P{at}": str(40 + at % 50) for at in range(500)}}
    sheet = sheet_section(slides, shown, "tiles/")
    assert sheet is not None
    started = time.process_time()  # of this process alone: other workers share the machine
    text = rendered(tmp_path, page_of(sections=(cohort_section(slides, columns, {}, "label"), sheet)))
    assert time.process_time() - started < 3
    assert len(text) < 120 * 20_000 * 1.4 + 600_000 and len(rows_of(text, "slides")) == 1001
    assert "120 of 1,000 slides" in text and text.count('loading="lazy" decoding="async"') == 120


def test_code_marks() -> None:
    assert code_marks("pass `--mpp <x>` & go") == "pass <code>--mpp &lt;x&gt;</code> &amp; go"
    assert code_marks("`a` and `b`") == "<code>a</code> and <code>b</code>"
    assert code_marks("a lone ` <i>") == "a lone ` &lt;i&gt;"
    assert code_marks("") == ""


@pytest.mark.parametrize(("value", "text"), [(None, "–"), (np.nan, "–"), (0.12345, "0.123"), (1234.5, "1,234.500")])
def test_numbers(value: float | None, text: str) -> None:
    assert number(value) == text
    assert interval_text(None) == "–"


def test_words() -> None:
    assert [counted(1, "slide"), counted(1000, "slide"), counted(0, "child", "children")] == [
        "1 slide",
        "1,000 slides",
        "0 children",
    ]
    assert [duration(s) for s in (0.04, 9.94, 59, 200, 7500, 3599.9)] == [
        "0.0 s",
        "9.9 s",
        "59 s",
        "3 min 20 s",
        "2 h 05 min",
        "1 h 00 min",
    ]
    assert [p_text(p) for p in (0.0004, 0.04, np.nan)] == ["< 0.001", "0.040", "–"]
    assert gathered(["fold 0: a", "b", "fold 2: a", "fold 1: c"]) == ["folds 0, 2: a", "b", "fold 1: c"]
