"""Evaluate: predictions of one model into numbers with intervals, over all folds, by fold, by class and by subgroup."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import partial
from statistics import fmean, stdev

import numpy as np

from pathpipe.evaluation import metrics
from pathpipe.evaluation.arrays import ones
from pathpipe.evaluation.bootstrap import Counts, Interval, draw_weights
from pathpipe.evaluation.curves import Curve, precision_recall, reliability, roc, scatter
from pathpipe.evaluation.decision import decision_curve
from pathpipe.evaluation.evaluation import Decision, Evaluation, FoldMean, RiskGroups
from pathpipe.evaluation.measures import Measure, one_against_rest
from pathpipe.evaluation.predictions import Predictions
from pathpipe.evaluation.recalibrated import calibrate
from pathpipe.evaluation.subgroups import FEW, subgroups
from pathpipe.evaluation.survival.measures import Horizon
from pathpipe.evaluation.survival.risk_groups import risk_groups
from pathpipe.evaluation.unseen import OF_SEVERAL_FOLDS, Unseen, unseen_patients
from pathpipe.settings import EvaluateSettings

DECISION_THRESHOLDS = tuple(round(0.02 * step, 2) for step in range(1, 50))
ONE_SCALE = (
    "risks of different folds come from different models, which needn't agree on a scale: only what is compared within "
    "folds says how well a model orders patients"
)
TESTED_AGAIN = (
    "patients are tested in several folds: each counts once, in the first of them, with the mean of what all those "
    "folds' models say"
)
MIXED = (
    "not all patients of a fold are tested by the same models, so that even there risks needn't be on one scale: draw "
    "folds that test each patient once"
)


@dataclass(frozen=True)
class Surroundings:
    """What an evaluation takes beside predictions.

    Attributes:
        horizon: Of the training patients of a survival target; without it there is Harrell's C alone.
        columns: Cohort column -> patient_id -> value, to measure the groups of.
    """

    horizon: Horizon | None = None
    columns: Mapping[str, Mapping[str, str]] = field(default_factory=dict)


def evaluate_predictions(
    predictions: Predictions, settings: EvaluateSettings, around: Surroundings | None = None
) -> Evaluation:
    """Measure a model on the patients it never saw, each counted once.

    Classes are called by thresholds chosen on each fold's validation patients, never on test.

    Raises:
        StoreError: No patient was tested.
    """
    around = around or Surroundings()
    tested, chosen = unseen_patients(predictions, settings, around.horizon)
    weights = draw_weights(tested.strata, settings.bootstrap, settings.seed)
    notes = [*_few(tested), *_tested_again(predictions), *chosen.notes]
    groups = None
    if tested.kind == "survival":
        groups, more = _risk_groups(predictions, tested, settings)
        notes += [*([ONE_SCALE] if len(np.unique(tested.folds)) > 1 else []), *more]
    classes = tested.kind == "classification"
    gauge = partial(measure_all, weights=weights, strata=tested.strata, settings=settings)
    folds = {int(fold): tested.take(tested.folds == fold) for fold in np.unique(tested.folds)}
    by_fold = {fold: _values(part) for fold, part in folds.items()}
    return Evaluation(
        kind=tested.kind,
        classes=tested.classes,
        patients=tested.counts,
        metrics=gauge(tested.measures()),
        folds=by_fold,
        fold_patients={fold: len(part.patients) for fold, part in folds.items()},
        fold_means=_means(by_fold.values()),
        confusion=_confusion(tested),
        thresholds=dict(chosen.thresholds),
        curves=_curves(tested),
        by_class=_by_class(tested, settings, weights),
        calibration=calibrate(predictions, gauge, settings.confidence) if classes else None,
        decisions=_decisions(tested, settings, weights) if classes else {},
        risk_groups=groups,
        subgroups=subgroups(tested, around.columns, partial(_of_part, settings=settings)),
        notes=tuple(notes),
    )


def measure_all(
    named: Mapping[str, Measure], weights: Counts, strata: np.ndarray, settings: EvaluateSettings
) -> dict[str, Interval]:
    """Every measure on all patients, with its interval."""
    return {name: one.interval(weights, settings.confidence, settings.interval, strata) for name, one in named.items()}


def _of_part(part: Unseen, names: tuple[str, ...], settings: EvaluateSettings) -> dict[str, Interval]:
    weights = draw_weights(part.strata, settings.bootstrap, settings.seed)
    named = part.measures()
    return measure_all({name: named[name] for name in names if name in named}, weights, part.strata, settings)


def _tested_again(predictions: Predictions) -> list[str]:
    """How patients are counted whom several models tested."""
    if all(speaking == (fold,) for fold, speaking in predictions.speaking().items()):
        return []
    return [TESTED_AGAIN, *([MIXED] if predictions.kind == "survival" and predictions.mixed else [])]


def _few(tested: Unseen) -> list[str]:
    """Warnings of classes too small to say much about."""
    notes = []
    for name, count in tested.counts.items():
        patients = "test patient is" if count == 1 else "test patients are"
        what = f"`{name}`" if tested.classes else "seen to have the event"
        if tested.kind == "regression":
            patients, what = patients.rpartition(" ")[0], "there"
        if (tested.kind, name) == ("survival", "censored"):  # nothing needs one
            continue
        if count == 0:
            notes.append(f"no test patient is {what}: numbers that need one are undefined")
        elif count < FEW:
            notes.append(f"only {count} {patients} {what}: the intervals are narrower than the truth")
    return notes


def _risk_groups(
    predictions: Predictions, tested: Unseen, settings: EvaluateSettings
) -> tuple[RiskGroups, tuple[str, ...]]:
    times = tested.horizon.times if tested.horizon else np.array(settings.horizons, np.float64)
    return risk_groups(predictions, tested.timed(), times, settings.confidence)


def _values(part: Unseen) -> dict[str, float]:
    whole = ones(len(part.patients))
    return {name: float(one(whole)[0]) for name, one in part.measures().items() if name not in OF_SEVERAL_FOLDS}


def _means(folds: Iterable[Mapping[str, float]]) -> dict[str, FoldMean]:
    rows = list(folds)
    means = {}
    for name in rows[0]:
        known = [row[name] for row in rows if math.isfinite(row[name])]
        spread = stdev(known) if len(known) > 1 else math.nan
        means[name] = FoldMean(fmean(known) if known else math.nan, spread, len(known))
    return means


def _confusion(tested: Unseen) -> list[list[int]]:
    if not tested.classes:
        return []
    found = metrics.confusion(tested.whole("targets"), tested.whole("predicted"), len(tested.classes))
    return [[int(count) for count in row] for row in found]


def _by_class(tested: Unseen, settings: EvaluateSettings, weights: Counts) -> dict[str, dict[str, Interval]]:
    if tested.kind != "classification" or len(tested.classes) == 2:
        return {}
    arrays = tested.whole("targets"), tested.of("probabilities"), tested.whole("predicted")
    return {
        name: measure_all(one_against_rest(*arrays, index), weights, tested.strata, settings)
        for index, name in enumerate(tested.classes)
    }


def _decisions(tested: Unseen, settings: EvaluateSettings, weights: Counts) -> dict[str, Decision]:
    targets, probabilities = tested.whole("targets"), tested.of("probabilities")
    at = np.array(DECISION_THRESHOLDS)
    found = {}
    for index in [1] if len(tested.classes) == 2 else range(len(tested.classes)):
        positive = (targets == index).astype(np.int64)
        curve = decision_curve(positive, probabilities[:, index], at, weights, settings.confidence)
        found[tested.classes[index]] = Decision(
            thresholds=at.tolist(),
            model=curve.model.value.tolist(),
            model_low=curve.model.low.tolist(),
            model_high=curve.model.high.tolist(),
            everyone=curve.everyone.value.tolist(),
            gain=curve.gain.value.tolist(),
            gain_low=curve.gain.low.tolist(),
            gain_high=curve.gain.high.tolist(),
            note=curve.note,
        )
    return found


def _curves(tested: Unseen) -> dict[str, Curve]:
    if tested.kind == "regression":
        return scatter(tested.of("predicted"), tested.of("targets"))
    if tested.kind != "classification":
        return {}
    targets, probabilities, binary = tested.whole("targets"), tested.of("probabilities"), len(tested.classes) == 2
    curves = {}
    for index in [1] if binary else range(len(tested.classes)):
        name, positive, score = tested.classes[index], targets == index, probabilities[:, index]
        if positive.all() or not positive.any():
            continue
        for kind, draw in (("roc", roc), ("precision-recall", precision_recall), ("reliability", reliability)):
            curves[kind if binary else f"{kind} of {name}"] = draw(positive, score)
    return curves
