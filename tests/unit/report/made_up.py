"""Evaluations of every kind of target, made by hand: every number that a page shows is known."""

from __future__ import annotations

import math

from pathpipe.evaluation.bootstrap import Interval
from pathpipe.evaluation.curves import Curve
from pathpipe.evaluation.evaluation import (
    Calibration,
    Decision,
    Evaluation,
    FoldMean,
    Ratio,
    Recalibrated,
    ReliabilityPoints,
    RiskGroup,
    RiskGroups,
    Subgroup,
)

NAN = math.nan
POINTS = ReliabilityPoints([0.1, 0.5, 0.9], [0.2, 0.4, 0.8], [0.1, 0.3, 0.6], [0.4, 0.6, 0.9], [10, 12, 9])
BETTER = ReliabilityPoints([0.2, 0.5, 0.8], [0.2, 0.5, 0.8], [0.1, 0.3, 0.6], [0.4, 0.7, 0.9], [10, 12, 9])
CURVE = Curve([0.0, 0.0, 0.5, 1.0], [0.0, 0.5, 1.0, 1.0])


def interval(value: float, width: float = 0.1, note: str | None = None) -> Interval:
    """`value` in the middle."""
    return Interval(value, value - width, value + width, 100, note)


def _decision(note: str | None = None) -> Decision:
    at = [0.1, 0.3, 0.5]
    low, high = [0.3, 0.1, 0.0], [0.5, 0.3, 0.2]
    return Decision(at, [0.4, 0.2, 0.1], low, high, [0.35, 0.0, -0.3], [0.05, 0.2, 0.1], [0.0, 0.1, 0.0], high, note)


def _folds(*names: str) -> dict[int, dict[str, float]]:
    return {0: dict.fromkeys(names, 0.75), 1: {name: NAN if name == names[0] else 0.25 for name in names}}


def binary() -> Evaluation:
    """Two classes with everything there is."""
    metrics = {"AUROC": interval(0.871), "Brier score": interval(0.123), "sensitivity": interval(NAN, note="no one is")}
    corrected = {
        "temperature": Recalibrated(
            {0: {"temperature": 1.25}, 1: {"temperature": NAN}}, {"Brier score": interval(0.111)}, BETTER
        ),
        "platt": Recalibrated(
            {0: {"slope": 0.5, "intercept": -0.25}}, {"Brier score": interval(0.109)}, BETTER, ("few",)
        ),
    }
    return Evaluation(
        ("no", "yes"),
        {"no": 11, "yes": 9},
        metrics,
        _folds(*metrics),
        [[7, 4], [2, 7]],
        {0: 0.45, 1: 0.55},
        {"roc": CURVE, "precision-recall": CURVE},
        ("only 9 test patients are `yes`",),
        fold_patients={0: 12, 1: 8},
        fold_means={"AUROC": FoldMean(0.75, NAN, 1), "Brier score": FoldMean(0.5, 0.3536, 2)},
        calibration=Calibration("yes", POINTS, corrected),
        decisions={"yes": _decision()},
        subgroups=(
            Subgroup("sex", "f", 12, {"no": 6, "yes": 6}, {"AUROC": interval(0.9)}),
            Subgroup("sex", "(missing)", 2, {"no": 2, "yes": 0}, {"AUROC": interval(NAN)}, "it lacks a class"),
        ),
    )


def several_classes() -> Evaluation:
    """Three classes, one never tested."""
    metrics = {"AUROC": interval(0.66), "accuracy": interval(0.5)}
    return Evaluation(
        ("a", "b<c>", "d"),
        {"a": 5, "b<c>": 4, "d": 0},
        metrics,
        _folds(*metrics),
        [[3, 1, 1], [1, 2, 1], [0, 0, 0]],
        {},
        {"roc of a": CURVE, "roc of b<c>": CURVE, "precision-recall of a": CURVE},
        by_class={"a": {"AUROC": interval(0.7)}, "b<c>": {"AUROC": interval(0.6)}, "d": {"AUROC": interval(NAN)}},
        calibration=Calibration("the most probable class is right", POINTS, {}),
        decisions={"a": _decision(), "d": _decision("a class is absent")},
    )


def ordinal() -> Evaluation:
    """Grades."""
    metrics = {"quadratic kappa": interval(0.58), "MAE (classes)": interval(0.4)}
    confusion = [[5, 1, 0], [2, 4, 1], [0, 2, 3]]
    return Evaluation(
        ("1", "2", "3"), {"1": 6, "2": 7, "3": 5}, metrics, _folds(*metrics), confusion, {}, {}, kind="ordinal"
    )


def regression() -> Evaluation:
    """A number."""
    metrics = {"MAE": interval(4.25, 1), "R2": interval(0.31)}
    curves = {
        "scatter": Curve([50.0, 61.5, 70.0, 42.0], [48.0, 66.0, 71.0, 40.0]),
        "calibration": Curve([46.0, 65.75], [44.0, 68.5]),
    }
    return Evaluation((), {"patients": 4}, metrics, _folds(*metrics), [], {}, curves, kind="regression")


def survival() -> Evaluation:
    """A time that may be censored."""
    metrics = {"C-index (Harrell)": interval(0.64), "integrated Brier score": interval(0.2)}
    time, at_risk = [2.0, 5.0, 9.0], [8, 5, 2]
    low = RiskGroup("low", 8, 3, time, [0.9, 0.8, 0.6], [0.7, 0.5, 0.3], [1.0, 0.9, 0.8], at_risk, NAN, 7.0, NAN)
    high = RiskGroup("high", 7, 5, time, [0.7, 0.5, 0.1], [0.4, 0.2, 0.0], [0.9, 0.8, 0.4], at_risk, 5.0, 2.0, 9.0)
    groups = RiskGroups({0: 0.1, 1: -0.2}, (low, high), 4.2, 0.04, None, Ratio(2.5, 1.1, 5.7, 0.0004), [2.0, 5.0])
    return Evaluation(
        (), {"censored": 7, "event": 8}, metrics, _folds(*metrics), [], {}, {}, kind="survival", risk_groups=groups
    )


KINDS = {
    "binary": binary,
    "several classes": several_classes,
    "ordinal": ordinal,
    "regression": regression,
    "survival": survival,
}
