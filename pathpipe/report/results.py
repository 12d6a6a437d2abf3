"""Results on a page: what a model is measured at for one target, whatever its kind, with intervals and plots."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from pathpipe.evaluation.bootstrap import Interval
from pathpipe.evaluation.comparison.comparison import Comparison
from pathpipe.evaluation.evaluate import TESTED_AGAIN
from pathpipe.evaluation.evaluation import Evaluation, FoldMean, ReliabilityPoints, RiskGroups
from pathpipe.report.blocks import Block, Cell, Heading, Plot, Plots, Section, Table, Value, Words
from pathpipe.report.compared import verdicts
from pathpipe.report.drawing import Named
from pathpipe.report.outcomes import scatter_plot, survival_plot
from pathpipe.report.plots import confusion_plot, decision_plot, precision_recall_plot, reliability_plot, roc_plot
from pathpipe.report.subgroups import subgroup_blocks
from pathpipe.report.words import gathered, interval_text, number, p_text

_RULES = {
    "ordinal": "The median grade is predicted.",
    "regression": "Numbers are in the target's own unit.",
    "survival": "Risks are compared between patients of one fold only.",
}
_MOST_CLASSES = 6  # whose curves go into one plot


@dataclass(frozen=True)
class Result:
    """A model's numbers for one target, and those of a baseline.

    Attributes:
        target: As the settings name it.
        unit: What the target's numbers are of: the column of a number, the time of a survival.
        model_name: What the model is called on the page.
        baseline: None where there is none, with a note that says why.
        against_baseline: Both compared.
    """

    target: str
    unit: str
    model_name: str
    model: Evaluation
    confidence: float
    baseline_name: str = ""
    baseline: Evaluation | None = None
    baseline_note: str | None = None
    against_baseline: Comparison | None = None


def result_section(result: Result, number_of: int = 0, several: bool = False) -> Section:
    """All that is known of a target.

    Args:
        number_of: Place among the targets: ids on the page must differ.
        several: Whether there are others.
    """
    found, mark = result.model, f"-{number_of}" if number_of else ""
    rule = _rule(found)
    pooled = "Test patients of all folds, each counted once; intervals"
    text = f"{pooled} ({100 * result.confidence:.0f}%) by stratified bootstrap over patients. {rule}"
    blocks: list[Block] = [Words(text), _metrics(result, mark)]
    if result.baseline_note:
        blocks.append(Words(f"{result.baseline_note}."))
    if result.against_baseline is not None:
        blocks += [Words(line, "") for line in verdicts(result.against_baseline)]
    blocks += [Words(f"{note}.") for note in gathered(found.notes)]
    drawn = _plots(result, mark)
    if drawn:
        blocks.append(Plots(tuple(drawn)))
    if len(found.classes) > _MOST_CLASSES and found.curves:
        blocks.append(Words(f"Curves are of the first {_MOST_CLASSES} of {len(found.classes)} classes."))
    blocks += [*_by_class(found, mark), *_calibration(found, mark), *_risk(result, mark)]
    blocks += [Heading("By fold"), *_folds(found, mark)]
    blocks += subgroup_blocks(found, mark)
    title = f"Results: {result.target}" if several else "Results"
    return Section(f"results{mark}", title, tuple(blocks))


def _rule(found: Evaluation) -> str:
    if found.kind in _RULES:
        return _RULES[found.kind]
    if len(found.classes) == 2:
        return f"`{found.classes[1]}` is predicted above a threshold chosen on each fold's validation patients."
    return "The most probable class is predicted; areas are means of each class against the rest."


def _metrics(result: Result, mark: str) -> Table:
    baseline = result.baseline.metrics if result.baseline else {}
    columns = ["metric", f"`{result.model_name}`", "interval"]
    columns += [f"`{result.baseline_name}`", "its interval"] if baseline else []
    rows: list[tuple[Value, ...]] = []
    for name, one in result.model.metrics.items():
        row: list[Value] = [name, _finite(one.value), _interval(one)]
        other = baseline.get(name)
        row += [_finite(other.value) if other else None, _interval(other)] if baseline else []
        rows.append(tuple(row))
    return Table(f"metrics{mark}", tuple(columns), tuple(rows))


def _interval(one: Interval | None) -> Value:
    note = one.note if one is not None else None
    return Cell(interval_text(one), hint=note) if note else interval_text(one)


def _folds(found: Evaluation, mark: str) -> list[Block]:
    """Metrics down, folds across."""
    who = "The test patients of each fold, by the mean of all models that tested them"
    text = who if TESTED_AGAIN in found.notes else "Each fold's model on its own test patients"
    text += "; the mean is over the folds where a number is defined. Folds share training patients, so their spread is "
    text += "no standard error."
    folds = sorted(found.folds)
    rows: list[tuple[Value, ...]] = [("test patients", *(found.fold_patients.get(fold) for fold in folds), None)]
    if found.thresholds:
        rows.append(("threshold", *(found.thresholds.get(fold) for fold in folds), None))
    for name in found.metrics:
        values = [_finite(found.folds[fold].get(name)) for fold in folds]
        if any(value is not None for value in values):
            rows.append((name, *values, _mean(found.fold_means.get(name))))
    columns = ("metric", *(f"fold {fold}" for fold in folds), "mean ± sd")
    return [Words(text), Table(f"by-fold{mark}", columns, tuple(rows))]


def _mean(one: FoldMean | None) -> str | None:
    if one is None or not math.isfinite(one.mean):
        return None
    return f"{number(one.mean)} ± {number(one.sd)}" if math.isfinite(one.sd) else number(one.mean)


def _finite(value: float | None) -> float | None:
    return value if value is not None and math.isfinite(value) else None


def _plots(result: Result, mark: str) -> list[Plot]:
    """Those that the kind of target has."""
    found, drawn = result.model, []
    for key, title, draw in (
        ("roc", "ROC curve", roc_plot),
        ("precision-recall", "Precision-recall curve", precision_recall_plot),
    ):
        curves = _curves(result, key)
        if curves:
            drawn.append(Plot(title, draw(curves, f"{key}{mark}")))
    if found.calibration is not None:
        drawn.append(Plot(f"Reliability: {found.calibration.outcome}", _reliability(found, f"reliability{mark}")))
    if found.confusion:
        drawn.append(Plot("Confusion matrix", confusion_plot(found.confusion, found.classes, f"confusion{mark}")))
    for at, (name, decision) in enumerate(list(found.decisions.items())[:_MOST_CLASSES]):
        if decision.note is None:
            picture = decision_plot(decision, result.model_name, f"decision-{at}{mark}")
            drawn.append(Plot(f"Decision curve: acting on {name}", picture))
    if "scatter" in found.curves:
        points, means = found.curves["scatter"], found.curves.get("calibration")
        drawn.append(Plot("Truth against prediction", scatter_plot(points, means, result.unit, f"scatter{mark}")))
    if found.risk_groups is not None:
        picture = survival_plot(found.risk_groups.groups, result.unit, f"survival{mark}")
        drawn.append(Plot("Kaplan-Meier curves by predicted risk", picture, "double"))
    return drawn


def _curves(result: Result, key: str) -> Named:
    """Of two classes: the model's and the baseline's. Of more: the model's, each class against the rest."""
    classes, found = result.model.classes, result.model.curves
    if len(classes) > 2:
        return [(name, found[f"{key} of {name}"]) for name in classes if f"{key} of {name}" in found][:_MOST_CLASSES]
    named = [(result.model_name, result.model), (result.baseline_name, result.baseline)]
    return [(name, one.curves[key]) for name, one in named if one is not None and key in one.curves]


def _reliability(found: Evaluation, name: str) -> str:
    assert found.calibration is not None
    points: list[tuple[str, ReliabilityPoints]] = [("as it is", found.calibration.reliability)]
    points += [(f"after {how}", one.reliability) for how, one in found.calibration.recalibrated.items()]
    return reliability_plot(points, name)


def _by_class(found: Evaluation, mark: str) -> list[Block]:
    if not found.by_class:
        return []
    names = list(dict.fromkeys(name for numbers in found.by_class.values() for name in numbers))
    rows = [
        (label, found.patients.get(label), *(_estimate(numbers.get(name)) for name in names))
        for label, numbers in found.by_class.items()
    ]
    table = Table(f"by-class{mark}", ("class", "patients", *names), tuple(rows))
    return [Heading("Each class against the rest"), table]


def _estimate(one: Interval | None) -> Value:
    """Value and interval in one cell."""
    if one is None or not math.isfinite(one.value):
        return None
    return f"{number(one.value)} ({interval_text(one)})"


def _calibration(found: Evaluation, mark: str) -> list[Block]:
    """Before and after corrections."""
    given = found.calibration
    if given is None or not given.recalibrated:
        return []
    corrected = given.recalibrated
    names = list(dict.fromkeys(name for one in corrected.values() for name in one.metrics))
    rows = [
        (name, _estimate(found.metrics.get(name)), *(_estimate(one.metrics.get(name)) for one in corrected.values()))
        for name in names
    ]
    columns = ("of the probabilities", "as they are", *(f"after {how}" for how in corrected))
    text = "Corrections are fitted on each fold's validation patients and applied to its test patients."
    blocks: list[Block] = [Heading("Calibration"), Words(text), Table(f"calibration{mark}", columns, tuple(rows))]
    for how, one in corrected.items():
        fitted = {fold: numbers for fold, numbers in sorted(one.fitted.items()) if _is_known(numbers)}
        said = "; ".join(f"fold {fold}: {_fit(numbers)}" for fold, numbers in fitted.items())
        blocks += [
            *([Words(f"{how}: {said}.")] if said else []),
            *(Words(f"{how}: {note}.") for note in gathered(one.notes)),
        ]
    return blocks


def _is_known(numbers: Mapping[str, float]) -> bool:
    return all(math.isfinite(value) for value in numbers.values())


def _fit(numbers: Mapping[str, float]) -> str:
    return ", ".join(f"{name} {number(value)}" for name, value in numbers.items())


def _risk(result: Result, mark: str) -> list[Block]:
    """Survival by group of predicted risk."""
    given = result.model.risk_groups
    if given is None:
        return []
    rows = [
        (
            one.name,
            one.patients,
            one.events,
            number(one.median, 1),
            f"{number(one.median_low, 1)} to {number(one.median_high, 1)}",
        )
        for one in given.groups
    ]
    columns = ("risk", "patients", "events", f"median {result.unit}", "interval")
    said = "Groups are cut at the median risk of each fold's validation patients."
    table = Table(f"risk{mark}", columns, tuple(rows))
    return [Heading("By predicted risk"), Words(said), table, *(Words(line, "") for line in _log_rank(given))]


def _log_rank(given: RiskGroups) -> list[str]:
    ratio = given.hazard_ratio
    if math.isfinite(given.log_rank_p):
        chi2 = number(given.log_rank_chi2, 2)
        test = f"Log-rank test of high against low, within folds: chi2 {chi2}, p {p_text(given.log_rank_p)}."
    else:
        test = f"No log-rank test: {given.log_rank_note}."
    if math.isfinite(ratio.value):
        low, high = number(ratio.low, 2), number(ratio.high, 2)
        return [test, f"Hazard ratio {number(ratio.value, 2)} ({low} to {high}), p {p_text(ratio.p)}."]
    return [test, f"No hazard ratio: {ratio.note}."]
