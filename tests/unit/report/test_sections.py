"""Sections: what each says of what it was given, for every kind of target and for what is missing."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from pathpipe.evaluation.bootstrap import Interval
from pathpipe.evaluation.comparison.comparison import Compared, Comparison, DeLongTest, PairDifference
from pathpipe.evaluation.evaluate import TESTED_AGAIN
from pathpipe.report.blocks import Section
from pathpipe.report.cohort import characteristics, cohort_section, sheet_section
from pathpipe.report.compared import comparison_section, curves_section, renamed, settings_section, short_names
from pathpipe.report.entry import SlideEntry
from pathpipe.report.learning import LearningCurve, learning_section
from pathpipe.report.results import Result, result_section
from pathpipe.report.split import split_section
from pathpipe.report.work import Absent, StageWork, Trouble, absent_section, trouble_section, work_section
from pathpipe.training.audit import Audit, Finding
from pathpipe.training.split_summary import Summary
from tests.unit.report.made_up import KINDS, NAN, binary, interval, regression, several_classes, survival
from tests.unit.report.test_report import Parsed, page_of, rendered, rows_of


def _text(tmp_path: Path, section: Section | None) -> str:
    assert section is not None
    return rendered(tmp_path, page_of(sections=(section,)))


def test_metrics_stand_beside_those_of_the_baseline(tmp_path: Path) -> None:
    other = replace(binary(), metrics={"AUROC": interval(0.6)})
    result = Result("subtype", "", "abmil", binary(), 0.9, "colour only", other)
    text = _text(tmp_path, result_section(result))
    assert rows_of(text, "metrics") == [
        ["metric", "abmil", "interval", "colour only", "its interval"],
        ["AUROC", "0.871", "0.771 to 0.971", "0.600", "0.500 to 0.700"],
        ["Brier score", "0.123", "0.023 to 0.223", "–", "–"],
        ["sensitivity", "–", "–no one is", "–", "–"],
    ]
    assert "intervals (90%)" in text and "<code>yes</code> is predicted above a threshold" in text
    assert "only 9 test patients are <code>yes</code>." in text


def test_folds_stand_side_by_side_with_their_mean(tmp_path: Path) -> None:
    rows = rows_of(_text(tmp_path, result_section(Result("subtype", "", "abmil", binary(), 0.95))), "by-fold")
    assert rows == [
        ["metric", "fold 0", "fold 1", "mean ± sd"],
        ["test patients", "12", "8", "–"],
        ["threshold", "0.450", "0.550", "–"],
        ["AUROC", "0.750", "–", "0.750"],
        ["Brier score", "0.750", "0.250", "0.500 ± 0.354"],
        ["sensitivity", "0.750", "0.250", "–"],
    ]
    again = replace(binary(), notes=(TESTED_AGAIN,))
    for found, who in ((binary(), "Each fold's model on its own test patients"), (again, "by the mean of all models")):
        text = Parsed(_text(tmp_path, result_section(Result("subtype", "", "abmil", found, 0.95)))).text
        assert [one in text for one in ("Each fold's model on its own", "by the mean of all models")].count(True) == 1
        assert who in text


def test_calibration_before_and_after(tmp_path: Path) -> None:
    text = _text(tmp_path, result_section(Result("subtype", "", "abmil", binary(), 0.95)))
    assert rows_of(text, "calibration")[1] == [
        "Brier score",
        "0.123 (0.023 to 0.223)",
        "0.111 (0.011 to 0.211)",
        "0.109 (0.009 to 0.209)",
    ]
    words = Parsed(text).text
    assert "temperature: fold 0: temperature 1.250." in words, "fold 1 has no fit"
    assert "platt: fold 0: slope 0.500, intercept -0.250." in words


def test_subgroups(tmp_path: Path) -> None:
    rows = rows_of(_text(tmp_path, result_section(Result("subtype", "", "abmil", binary(), 0.95))), "subgroups")
    assert rows[1:] == [
        ["sex", "f", "12", "6 no, 6 yes", "0.900 (0.800 to 1.000)"],
        ["sex", "(missing)it lacks a class", "2", "2 no, 0 yes", "–"],
    ]


def test_every_class_against_the_rest(tmp_path: Path) -> None:
    text = _text(tmp_path, result_section(Result("subtype", "", "abmil", several_classes(), 0.95)))
    assert rows_of(text, "by-class")[1:] == [
        ["a", "5", "0.700 (0.600 to 0.800)"],
        ["b<c>", "4", "0.600 (0.500 to 0.700)"],
        ["d", "0", "–"],
    ]
    assert "acting on a" in text and "acting on d" not in text and "most probable class is predicted" in text


def test_curves_that_are_left_out_are_owned_up_to(tmp_path: Path) -> None:
    names = tuple("abcdefgh")
    counts, curves = dict.fromkeys(names, 3), {f"roc of {name}": several_classes().curves["roc of a"] for name in names}
    many = replace(several_classes(), classes=names, patients=counts, confusion=[[0] * 8] * 8, curves=curves)
    shown = [
        "Curves are of the first 6 of 8 classes." in _text(tmp_path, result_section(Result("t", "", "m", one, 0.95)))
        for one in (many, several_classes())
    ]
    assert shown == [True, False]


def test_survival_by_risk(tmp_path: Path) -> None:
    text = _text(tmp_path, result_section(Result("os", "months", "abmil", survival(), 0.95)))
    assert rows_of(text, "risk") == [
        ["risk", "patients", "events", "median months", "interval"],
        ["low", "8", "3", "–", "7.0 to –"],
        ["high", "7", "5", "5.0", "2.0 to 9.0"],
    ]
    words = Parsed(text).text
    assert "chi2 4.20, p 0.040." in words and "Hazard ratio 2.50 (1.10 to 5.70), p < 0.001." in words


@pytest.mark.parametrize(
    ("kind", "plots"),
    [
        ("binary", ["ROC curve", "Precision-recall curve", "Reliability: yes", "Confusion matrix"]),
        ("ordinal", ["Confusion matrix"]),
        ("regression", ["Truth against prediction"]),
        ("survival", ["Kaplan-Meier curves by predicted risk"]),
    ],
)
def test_each_kind_has_its_plots(tmp_path: Path, kind: str, plots: list[str]) -> None:
    section = result_section(Result("t", "u", "m", KINDS[kind](), 0.95, baseline_note="no colour baseline"))
    tags = Parsed(_text(tmp_path, section)).tags
    shown = [str(given["aria-label"]) for tag, given in tags if tag == "figure"]
    assert shown[: len(plots)] == plots


def test_characteristics_by_class() -> None:
    slides = [
        SlideEntry("S1", "P1", "a", "done", tiles=10, tissue_mm2=1.0),
        SlideEntry("S2", "P1", "a", "failed"),
        SlideEntry("S3", "P2", "b", "done", tiles=30, tissue_mm2=2.0),
        SlideEntry("S4", "P3", "", "done", tiles=20, tissue_mm2=3.0),
    ]
    columns = {"sex": {"P1": "f", "P2": "m", "P3": ""}, "none": {}}
    table = characteristics(slides, columns, {"P1": "a", "P2": "b"})
    assert table.columns == ("property", "all", "`a`", "`b`")
    assert table.rows == (
        ("patients", 3, 1, 1),
        ("slides", 4, 2, 1),
        ("slides with a result", 3, 1, 1),
        ("tiles a slide", "20 (15 to 25)", "10 (10 to 10)", "30 (30 to 30)"),
        ("tissue a slide, mm²", "2.00 (1.50 to 2.50)", "1.00 (1.00 to 1.00)", "2.00 (2.00 to 2.00)"),
        ("sex: f", "1 (50%)", "1 (100%)", "0 (0%)"),
        ("sex: m", "1 (50%)", "0 (0%)", "1 (100%)"),
        ("sex: unknown", "1", "0", "0"),
    )
    ages = {f"P{at}": str(40 + at) for at in range(9)}
    many = [SlideEntry(f"S{at}", f"P{at}", "", "done") for at in range(9)]
    assert characteristics(many, {"age": ages}, {}).rows[-1] == ("age", "44.0 (42.0 to 46.0)")
    names = {f"P{at}": f"name {at}" for at in range(14)}
    more = [SlideEntry(f"S{at}", f"P{at}", "", "done") for at in range(14)]
    assert characteristics(more, {"name": names}, {}).rows[-1] == ("name", "14 values")


def test_slides_to_look_at_first_come_first(tmp_path: Path) -> None:
    slides = [
        SlideEntry("good", "P1", "a", "done", tiles=1, tissue_mm2=5.0),
        SlideEntry("odd", "P2", "a", "done", tiles=1, tissue_mm2=5.0, flags=("much pen", "blur"), doubt=2.0),
        SlideEntry("broken", "P3", "a", "failed", reason="no reader opens it"),
    ]
    assert sheet_section(slides, {}, "tiles/") is None
    text = _text(tmp_path, sheet_section(slides, {"good": b"1", "odd": b"2"}, "tiles/"))
    alts = [given["alt"] for tag, given in Parsed(text).tags if tag == "img" and given["alt"]]
    assert alts == ["Tissue and tiles of slide odd", "Tissue and tiles of slide good"]
    assert "odd · 1 tile · much pen (and 1 more)" in text and "Shown: 2 of 3 slides" in text
    rows = rows_of(_text(tmp_path, cohort_section(slides, {}, {}, "label")), "slides")
    assert rows[2][-1] == "much pen; blur" and rows[3][3] == "✘ failed"


def test_what_went_wrong_and_what_to_do(tmp_path: Path) -> None:
    assert trouble_section([], ["P1"]) is None and absent_section([]) is None and work_section([], None) is None
    troubles = [
        Trouble("S1", "tissue", "failed", "ends <early>", "scan again"),
        Trouble("S2", "tile", "empty", "few", ""),
    ]
    text = _text(tmp_path, trouble_section(troubles, ["P1"]))
    assert rows_of(text, "trouble")[1:] == [
        ["S1", "tissue", "✘ failed", "ends <early>scan again"],
        ["S2", "tile", "∅ empty", "few"],
    ]
    assert "1 patient is left without any slide: P1." in text
    missing = _text(tmp_path, absent_section([Absent("evaluation", "it was not made", "pathpipe evaluate RUN")]))
    assert rows_of(missing, "absent")[1] == ["evaluation", "it was not made", "pathpipe evaluate RUN"]


def test_work_adds_up(tmp_path: Path) -> None:
    work = [
        StageWork("extract", {"done": 2, "empty": 1, "failed": 1, "stale": 1}, (10.0, 30.0), 200, "features/uni/"),
        StageWork("split", {"current": 1}, (), 0, "splits/x/"),
    ]
    text = _text(tmp_path, work_section(work, "time: read 90%; bottleneck: read (slow)"))
    assert rows_of(text, "work")[1:] == [
        ["extract", "5", "2", "1", "2", "40 s", "20 s", "5.0", "features/uni/"],
        ["split", "1", "1", "0", "0", "–", "–", "–", "splits/x/"],
    ]
    assert "Encoding: read 90%; bottleneck: read (slow)." in text


def test_splits_and_audit(tmp_path: Path) -> None:
    leak = Finding("same-file", "leak", "two slides are one", "Remove one.", tuple("abcdefghij"), {"pairs": 1.0})
    audit = Audit((leak,), "uni", 10, 9, 3)
    summary = Summary(("fold", "role", "patients"), ((0, "train", 5), (0, "test", 4)))
    text = _text(tmp_path, split_section(summary, ["uneven"], ["P9"], audit))
    assert rows_of(text, "folds")[1:] == [["0", "train", "5"], ["0", "test", "4"]]
    assert rows_of(text, "findings")[1] == [
        "✘ leak",
        "same-file",
        "two slides are oneRemove one.",
        "a; b; c; d; e; f; g; h; and 2 morepairs 1",
    ]
    assert "1 leak, 0 warnings, 0 notes" in text and "1 patient without a label of any target kept out: P9." in text


def test_learning_says_what_was_kept(tmp_path: Path) -> None:
    assert learning_section([]) is None
    curve = LearningCurve(0, 1, (1.0, 0.5), (1.1, 0.7), 2, {"val_auroc": (0.5, 0.75)})
    rows = rows_of(_text(tmp_path, learning_section([curve])), "learning")
    assert rows[1] == ["0", "1", "2", "2", "0.500", "0.700", "0.750"]


def _comparison() -> Comparison:
    pair = PairDifference(
        "m/abmil-er-uni",
        "m/mean-er-uni",
        "AUROC",
        True,
        Interval(0.1, 0.02, 0.2, 100),
        0.01,
        0.02,
        0.04,
        DeLongTest(0.0, 0.2, 2.0, 0.0455),
        None,
        "m/abmil-er-uni",
        "m/abmil-er-uni is better",
    )
    other = replace(
        pair, metric="log loss", difference=Interval(NAN, NAN, NAN, 0), p_holm=NAN, better=None, verdict="undefined: x"
    )
    models = (
        Compared("m/abmil-er-uni", 20, {"AUROC": interval(0.9), "log loss": interval(NAN)}),
        Compared("m/mean-er-uni", 22, {"AUROC": interval(0.8)}),
    )
    return Comparison(
        "er", "classification", ("0", "1"), {"0": 9, "1": 10}, models, (pair, other), NAN, 0.95, ("note",)
    )


def test_models_side_by_side(tmp_path: Path) -> None:
    names = short_names(["m/abmil-er-uni", "m/mean-er-uni"])
    assert list(names.values()) == ["abmil", "mean"]
    text = _text(tmp_path, comparison_section("Differences", {"er": renamed(_comparison(), names)}))
    assert rows_of(text, "models") == [
        ["metric", "abmil", "mean"],
        ["AUROC", "0.900 (0.800 to 1.000)", "0.800 (0.700 to 0.900)"],
        ["log loss", "–", "–"],
        ["patients it tested", "20", "22"],
    ]
    assert rows_of(text, "pairs")[1:] == [
        ["AUROC", "abmil less mean", "+0.100", "0.020 to 0.200", "abmil is better", "0.020", "0.040", "0.010", "0.045"],
        ["log loss", "abmil less mean", "–", "–", "undefined: x", "0.020", "–", "0.010", "0.045"],
    ]
    assert "On the 19 patients that all of them tested (9 0, 10 1)" in text


@pytest.mark.parametrize(
    ("names", "short"),
    [
        (["a", "b"], ["a", "b"]),
        (["run1/abmil-er-uni", "run2/abmil-er-uni"], ["run1", "run2"]),
        (["abmil-er", "abmil-er-2"], ["er", "er-2"]),
        (["er", "er-er"], ["er", "er-er"]),
        (["x-a-y", "x-b-y", "x-c-y"], ["a", "b", "c"]),
    ],
)
def test_short_names(names: list[str], short: list[str]) -> None:
    assert list(short_names(names).values()) == short


def test_settings_that_differ(tmp_path: Path) -> None:
    models = {"a": {"x": "1", "y": "2"}, "b": {"x": "1", "y": "3", "z": "4"}}
    assert rows_of(_text(tmp_path, settings_section(models)), "settings")[1:] == [["y", "2", "3"], ["z", "–", "4"]]
    same = _text(tmp_path, settings_section({"a": {"x": "1"}, "b": {"x": "1"}}))
    assert "All settings that decide results are the same." in same


def test_curves_of_all_models_lie_in_one_plot(tmp_path: Path) -> None:
    text = _text(tmp_path, curves_section({"abmil": binary(), "mean": binary()}, "", ""))
    captions = [str(given["aria-label"]) for tag, given in Parsed(text).tags if tag == "figure"]
    assert captions == ["ROC", "precision-recall", "Reliability, as they are"]
    assert Parsed(text).text.count("mean") >= 3
    numbers = curves_section({"abmil": regression(), "mean": regression()}, "", "age")
    captions = [str(given["aria-label"]) for tag, given in Parsed(_text(tmp_path, numbers)).tags if tag == "figure"]
    assert captions == ["abmil", "mean"]
    assert curves_section({"a": KINDS["ordinal"]()}, "", "") is None


def test_names_are_left_as_they_are() -> None:
    curves = {"roc of macrocyte": several_classes().curves["roc of a"]}
    found = curves_section({"m": replace(several_classes(), curves=curves, calibration=None)}, "", "")
    assert found is not None
    assert [one.caption for block in found.blocks for one in getattr(block, "plots", ())] == ["ROC of macrocyte"]
    one = _comparison()
    pair = replace(one.differences[0], first="s", better="s", verdict="s is better")
    assert renamed(replace(one, differences=(pair,)), {"s": "small"}).differences[0].verdict == "small is better"
