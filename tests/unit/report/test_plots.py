"""Plots: the numbers they were given, in an SVG that suits any page."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from itertools import pairwise

import pytest

from pathpipe.evaluation.curves import Curve
from pathpipe.report import plots
from pathpipe.report.data import LearningCurve

CURVE = Curve([0.0, 0.0, 0.5, 1.0], [0.0, 0.5, 1.0, 1.0])
OTHER = Curve([0.0, 1.0], [0.0, 1.0])
LEARNING = LearningCurve("fold 0 <b>", (1.0, 0.6, 0.4), (1.1, 0.7, 0.8), 2)


class _Svg(HTMLParser):
    def __init__(self, text: str) -> None:
        super().__init__()
        self.words: list[str] = []
        self.paths: list[dict[str, str | None]] = []
        self.ids: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        attributes = dict(attrs)
        self.ids += [attributes["id"]] if attributes.get("id") else []  # type: ignore[list-item]
        if tag == "path":
            self.paths.append(attributes)

    def handle_data(self, data: str) -> None:
        self.words += [data.strip()] if data.strip() else []


def _points(svg: str, colour: str) -> list[tuple[float, float]]:
    """Vertices of the first line of a colour (the second is its legend)."""
    for path in _Svg(svg).paths:
        if colour in (path.get("style") or "") and "fill: none" in (path.get("style") or ""):
            pairs = re.findall(r"[ML] ([\d.-]+) ([\d.-]+)", path["d"] or "")
            return [(float(x), float(y)) for x, y in pairs]
    raise AssertionError(f"no line of colour {colour}")


def _drawn() -> dict[str, str]:
    return {
        "roc": plots.roc_plot([("model", CURVE), ("colour", OTHER)]),
        "precision-recall": plots.precision_recall_plot([("model", CURVE)]),
        "reliability": plots.reliability_plot([("model", CURVE)]),
        "confusion": plots.confusion_plot([[5, 1], [2, 7]], ("no", "yes")),
        "learning": plots.learning_plot([LEARNING, LEARNING]),
    }


def test_equal_input_gives_equal_bytes() -> None:
    assert _drawn() == _drawn()


def test_plots_of_one_page_share_no_ids_and_fetch_nothing() -> None:
    drawn = _drawn()
    ids = [name for svg in drawn.values() for name in sorted(set(_Svg(svg).ids))]
    assert len(ids) == len(set(ids))
    for svg in drawn.values():
        assert svg.startswith("<svg") and "http" not in svg and "<metadata" not in svg
        references = set(re.findall(r'(?:href="#|url\(#)([^")]+)', svg))
        assert references and references <= set(_Svg(svg).ids)


def test_lines_and_words_take_the_colour_of_the_page() -> None:
    for svg in _drawn().values():
        assert "currentColor" in svg and plots.GREY not in svg


def test_roc_draws_the_points_it_was_given() -> None:
    points = _points(plots.roc_plot([("model", CURVE)]), plots.MODEL)
    (left, bottom), (right, top) = points[0], points[-1]
    shares = [((x - left) / (right - left), (y - bottom) / (top - bottom)) for x, y in points]
    assert shares == [pytest.approx(pair, abs=1e-3) for pair in zip(CURVE.x, CURVE.y, strict=True)]
    assert right - left == pytest.approx(bottom - top, rel=1e-3)  # a square, y downwards


def test_precision_recall_goes_in_steps() -> None:
    points = _points(plots.precision_recall_plot([("model", Curve([0.0, 0.5, 1.0], [1.0, 1.0, 0.5]))]), plots.MODEL)
    assert all(a[0] == b[0] or a[1] == b[1] for a, b in pairwise(points))


def test_curves_differ_by_more_than_colour() -> None:
    names = [f"class {number}" for number in range(8)]
    svg = plots.roc_plot([(name, CURVE) for name in names])
    assert [word for word in _Svg(svg).words if word in names] == names
    looks = {re.sub(r"stroke-linecap: \w+", "", path.get("style") or "") for path in _Svg(svg).paths}
    dashes = {match[1] for look in looks if (match := re.search(r"stroke-dasharray: ([^;]+)", look))}
    assert len(dashes) >= 3


def test_confusion_shows_counts_and_names() -> None:
    words = _Svg(plots.confusion_plot([[50, 1], [2, 70]], ("no", "a & <b> $x$"))).words
    assert {"50", "1", "2", "70", "no", "a & <b> $x$", "predicted", "true"} <= set(words)


def test_learning_has_a_panel_a_fold_and_a_dot_at_the_best_epoch() -> None:
    svg = plots.learning_plot([LEARNING] * 7)
    assert _Svg(svg).words.count("fold 0 <b>") == 7
    line = _points(svg, plots.MODEL)
    assert len(line) == 3 and line[1][1] > line[2][1] > line[0][1]  # 0.7 lies lowest, y downwards
    dots = re.findall(r'<use xlink:href="[^"]+" x="([\d.]+)" y="([\d.]+)" style="fill: #0e9384', svg)
    assert (float(dots[0][0]), float(dots[0][1])) == pytest.approx(line[1], abs=0.01)
