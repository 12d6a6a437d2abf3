"""Plots: the numbers they were given, in an SVG that suits any page."""

from __future__ import annotations

import math
import re
from dataclasses import replace
from html.parser import HTMLParser
from itertools import pairwise

import pytest

from pathpipe.evaluation.curves import Curve
from pathpipe.report import drawing, outcomes, plots
from pathpipe.report.learning import LearningCurve, learning_plot
from tests.unit.report.made_up import BETTER, POINTS, binary, regression, survival

CURVE = Curve([0.0, 0.0, 0.5, 1.0], [0.0, 0.5, 1.0, 1.0])
OTHER = Curve([0.0, 1.0], [0.0, 1.0])
LEARNING = LearningCurve(0, 0, (1.0, 0.6, 0.4), (1.1, 0.7, 0.8), 2)


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


def _survival() -> str:
    groups = survival().risk_groups
    assert groups is not None
    return outcomes.survival_plot(groups.groups, "months")


def _drawn() -> dict[str, str]:
    return {
        "roc": plots.roc_plot([("model", CURVE), ("colour", OTHER)]),
        "precision-recall": plots.precision_recall_plot([("model", CURVE)]),
        "reliability": plots.reliability_plot([("model", POINTS), ("after", BETTER)]),
        "decision": plots.decision_plot(binary().decisions["yes"], "model"),
        "confusion": plots.confusion_plot([[5, 1], [2, 7]], ("no", "yes")),
        "learning": learning_plot([LEARNING, LEARNING]),
        "scatter": outcomes.scatter_plot(regression().curves["scatter"], regression().curves["calibration"], "age"),
        "survival": _survival(),
        "forest": outcomes.forest_plot([("all", 0.5, 0.25, 0.75), ("f <b>", 0.6, math.nan, math.nan)], "AUROC", 0.5),
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
        assert references <= set(_Svg(svg).ids)


def test_lines_and_words_take_the_colour_of_the_page() -> None:
    for svg in _drawn().values():
        assert "currentColor" in svg and drawing.GREY not in svg


def test_roc_draws_the_points_it_was_given() -> None:
    points = _points(plots.roc_plot([("model", CURVE)]), drawing.MODEL)
    (left, bottom), (right, top) = points[0], points[-1]
    shares = [((x - left) / (right - left), (y - bottom) / (top - bottom)) for x, y in points]
    assert shares == [pytest.approx(pair, abs=1e-3) for pair in zip(CURVE.x, CURVE.y, strict=True)]
    assert right - left == pytest.approx(bottom - top, rel=1e-3)  # a square, y downwards


def test_precision_recall_goes_in_steps() -> None:
    points = _points(plots.precision_recall_plot([("model", Curve([0.0, 0.5, 1.0], [1.0, 1.0, 0.5]))]), drawing.MODEL)
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
    svg = learning_plot([LearningCurve(fold, 0, (1.0, 0.6, 0.4), (1.1, 0.7, 0.8), 2) for fold in range(7)])
    assert [word for word in _Svg(svg).words if "fold" in word] == [f"fold {fold}" for fold in range(7)]
    line = _points(svg, drawing.MODEL)
    assert len(line) == 3 and line[1][1] > line[2][1] > line[0][1]  # 0.7 lies lowest, y downwards
    dots = re.findall(r'<use xlink:href="[^"]+" x="([\d.]+)" y="([\d.]+)" style="fill: #0e9384', svg)
    assert (float(dots[0][0]), float(dots[0][1])) == pytest.approx(line[1], abs=0.01)


def test_seeds_of_a_fold_share_a_panel() -> None:
    svg = learning_plot([LEARNING, LearningCurve(0, 3, (1.0,), (math.nan,), 1)])
    assert [word for word in _Svg(svg).words if "fold" in word] == ["fold 0"]
    assert drawing.COLOURS[1] in svg


def test_survival_falls_in_steps_to_the_numbers_given() -> None:
    points = _points(_survival(), drawing.MODEL)
    (left, top) = points[0]
    assert [points[1], points[2]] == [pytest.approx((points[1][0], top)), pytest.approx((points[1][0], points[2][1]))]
    steps = [(b[0] - left, b[1] - top) for a, b in pairwise(points) if a[0] == b[0]]
    falls = [fall / steps[0][1] for _, fall in steps]
    assert falls == [pytest.approx(value, abs=1e-3) for value in (1, 2, 4)]  # survival 0.9, 0.8, 0.6
    assert [at / steps[0][0] for at, _ in steps] == [pytest.approx(value, abs=1e-3) for value in (1, 2.5, 4.5)]


def test_survival_of_patients_lost_at_once_is_drawn() -> None:
    groups = survival().risk_groups
    assert groups is not None
    at_once = replace(groups.groups[0], name="all", time=[0.0], survival=[1.0], low=[1.0], high=[1.0], at_risk=[4])
    words = _Svg(outcomes.survival_plot([at_once], "months")).words
    assert "4" in words and "months" in words


def test_numbers_at_risk_stand_under_their_times() -> None:
    words = _Svg(_survival()).words
    at = words.index("at risk")
    assert words[at + 1 : at + 7] == ["low", "8", "8", "5", "2", "2"]  # at 0, 2, 4, 6, 8
    assert "low (3 of 8)" in words and "high (5 of 7)" in words


def test_scatter_draws_every_patient() -> None:
    curve = regression().curves["scatter"]
    svg = outcomes.scatter_plot(curve, None, "age")
    dots = re.findall(r'<use xlink:href="[^"]+" x="([\d.]+)" y="([\d.]+)" style="fill: #0e9384', svg)
    assert len(dots) == 4
    (x0, y0), (x1, y1) = [(float(x), float(y)) for x, y in dots[:2]]
    assert (x1 - x0) / (y0 - y1) == pytest.approx(11.5 / 18, rel=1e-3)  # both axes in one unit, y downwards


def test_decision_curve_is_cut_where_everyone_falls_without_end() -> None:
    svg = plots.decision_plot(binary().decisions["yes"], "model")
    model, everyone = _points(svg, drawing.MODEL), _points(svg, drawing.COLOURS[1])
    assert len(model) == len(everyone) == 3
    assert everyone[0][1] > model[0][1] and everyone[2][1] > model[2][1]  # lower on the page is less
