"""The page: offline, escaped, complete, the same bytes for the same run."""

from __future__ import annotations

import re
import time
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest

from pathpipe.evaluation.evaluate import evaluate_predictions
from pathpipe.provenance import Provenance, read_provenance
from pathpipe.report.data import HeatmapView, LearningCurve, ReportData
from pathpipe.report.entry import SlideEntry
from pathpipe.report.page import interval_text, number, render_report
from pathpipe.settings import EvaluateSettings
from tests.unit.evaluation.test_evaluate import _binary

EVIL = "S1</script><script>alert(1)</script>"
PROVENANCE = Provenance("report", 1, {"note": EVIL}, {"evaluation": "abc"}, {"pathpipe": "1"})


def _data(slides: int = 3) -> ReportData:
    found = evaluate_predictions(_binary(), EvaluateSettings(bootstrap=100))
    entries = [
        SlideEntry(f"S{i}", f"P{i}", "yes", "done", tiles=10 + i, tissue_mm2=1.5, overlay=b"jpeg")
        for i in range(slides)
    ]
    entries.append(SlideEntry(EVIL, "P<9>", "no", "failed", "tissue", "ends early & badly", "scan again"))
    return ReportData(
        title="subtype from 4 slides",
        target="subtype",
        notices=("This is a demonstration.",),
        slides=tuple(entries),
        classes=("no", "yes"),
        split=((0, "train", (5, 6)), (0, "test", (2, 2))),
        curves=(LearningCurve("fold 0", (1.0, 0.5), (1.1, 0.7), 2),),
        model_name="abmil",
        model=found,
        baseline_name="colour only",
        baseline=found,
        baseline_note=None,
        confidence=0.95,
        heatmaps=(HeatmapView("S0", "S0: 10 tiles", b"jpeg"),),
        settings_yaml="tile:\n  mpp: 0.5\n",
        made_by={"pathpipe": "1.2.3"},
        hashes={"input evaluation": "abc"},
    )


class _Page(HTMLParser):
    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.text += data


def _render(tmp_path: Path, data: ReportData) -> str:
    render_report(data, tmp_path / "report.html", PROVENANCE)
    return (tmp_path / "report.html").read_text()


def test_page_fetches_nothing_and_every_picture_has_words(tmp_path: Path) -> None:
    text = _render(tmp_path, _data())
    page = _Page(text)
    for tag, attributes in page.tags:
        for name in ("src", "href", "xlink:href", "action"):
            value = attributes.get(name) or ""
            assert value == "" or value.startswith(("data:", "#")), (tag, value)
        if tag == "img":
            assert "alt" in attributes
    assert not re.search(r"url\(\s*['\"]?(?!#|data:)", text) and "@import" not in text
    assert sum(tag == "svg" for tag, _ in page.tags) == 5


def test_what_is_shown(tmp_path: Path) -> None:
    data = _data()
    page = _Page(_render(tmp_path, data))
    auroc = data.model.metrics["AUROC"]
    for words in (
        "This is a demonstration.",
        f"{auroc.value:.3f}",
        f"{auroc.low:.3f} to {auroc.high:.3f}",
        "3 of 4",
        "1 failed",
        "ends early & badly",
        "positive class",
        "mpp: 0.5",
        "pathpipe 1.2.3",
        "S0: 10 tiles",
    ):
        assert words in page.text, words


def test_names_cannot_break_out(tmp_path: Path) -> None:
    text = _render(tmp_path, _data())
    assert "<script>alert" not in text
    assert EVIL in _Page(text).text
    found = read_provenance(tmp_path / "report.html")
    assert found is not None and found.settings["note"] == EVIL and found.fingerprint == PROVENANCE.fingerprint


def test_same_run_same_bytes(tmp_path: Path) -> None:
    assert _render(tmp_path, _data()) == _render(tmp_path, _data())


def test_parts_without_data_are_left_out(tmp_path: Path) -> None:
    data = replace(_data(), heatmaps=(), curves=(), baseline=None, baseline_note="no colour baseline: no colours")
    text = _render(tmp_path, data)
    assert "Heatmaps" not in text and "learning curves" not in text and "colour only" not in text
    assert "no colour baseline: no colours" in text


def test_a_thousand_slides_are_quick(tmp_path: Path) -> None:
    data = _data(1000)
    started = time.process_time()  # of this process alone: other workers share the machine
    text = _render(tmp_path, data)
    assert time.process_time() - started < 3
    assert len(text) < 2_000_000 and text.count("Tissue and tiles of slide") == 1000


@pytest.mark.parametrize(("value", "text"), [(None, "–"), (np.nan, "–"), (0.12345, "0.123"), (1234.5, "1,234.500")])
def test_numbers(value: float | None, text: str) -> None:
    assert number(value) == text
    assert interval_text(None) == "–"
