"""The noun `Evaluation`: all that is known of one model and one target, as plain numbers that JSON can hold."""

from __future__ import annotations

from dataclasses import dataclass, field

from pathpipe.evaluation.bootstrap import Interval
from pathpipe.evaluation.curves import Curve
from pathpipe.evaluation.records import Record


@dataclass(frozen=True)
class FoldMean:
    """One number over the folds that have it.

    Attributes:
        sd: Sample standard deviation; NaN of fewer than two folds. Folds share training patients, so it is no standard
            error.
        folds: How many have it.
    """

    mean: float
    sd: float
    folds: int


@dataclass(frozen=True)
class ReliabilityPoints:
    """One point a bin of equally many patients, with Wilson's interval of the observed share."""

    predicted: list[float]
    observed: list[float]
    low: list[float]
    high: list[float]
    count: list[int]


@dataclass(frozen=True)
class Recalibrated:
    """Probabilities after a correction that was fitted on each fold's validation patients.

    Attributes:
        fitted: Fold -> its numbers: `temperature`, or `slope` and `intercept`; NaN where there is no fit, and the
            fold's probabilities are left as they are.
        metrics: Of the corrected probabilities, under the names they have in `Evaluation.metrics`.
    """

    fitted: dict[int, dict[str, float]]
    metrics: dict[str, Interval]
    reliability: ReliabilityPoints
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Calibration:
    """Whether probabilities are right, and what corrections make of them.

    Attributes:
        outcome: What the probabilities are of: a class, or that the most probable class is right.
        reliability: Of the probabilities as they are.
        recalibrated: `temperature` and, of two classes, `platt`.
    """

    outcome: str
    reliability: ReliabilityPoints
    recalibrated: dict[str, Recalibrated]


@dataclass(frozen=True)
class Decision:
    """A decision curve: net benefit by threshold probability, with bootstrap intervals point by point.

    Attributes:
        everyone: Of acting on all patients; acting on no one has 0.
        gain: Of the model less the better of everyone and no one.
        note: Why there is none.
    """

    thresholds: list[float]
    model: list[float]
    model_low: list[float]
    model_high: list[float]
    everyone: list[float]
    gain: list[float]
    gain_low: list[float]
    gain_high: list[float]
    note: str | None = None


@dataclass(frozen=True)
class RiskGroup:
    """Patients of similar risk and their Kaplan-Meier curve: a step at each of `time`.

    Attributes:
        survival: After each time; 1 before the first.
        at_risk: Patients with at least that time.
        median: NaN when survival stays above a half.
    """

    name: str
    patients: int
    events: int
    time: list[float]
    survival: list[float]
    low: list[float]
    high: list[float]
    at_risk: list[int]
    median: float
    median_low: float
    median_high: float


@dataclass(frozen=True)
class Ratio:
    """Hazard ratio of the high-risk group to the low one, with its Wald interval; NaN with the reason."""

    value: float
    low: float
    high: float
    p: float
    note: str | None = None


@dataclass(frozen=True)
class RiskGroups:
    """Test patients above and below a risk chosen on validation.

    Attributes:
        cuts: Fold -> median risk of its validation patients; above it is high.
        groups: `low` and `high`, and `all` patients, those of folds without a cut too.
        log_rank_p: Of low against high, within folds; NaN with `log_rank_note`.
    """

    cuts: dict[int, float]
    groups: tuple[RiskGroup, ...]
    log_rank_chi2: float
    log_rank_p: float
    log_rank_note: str | None
    hazard_ratio: Ratio
    horizons: list[float]


@dataclass(frozen=True)
class Subgroup:
    """Test patients with one value of a cohort column.

    Attributes:
        value: `(missing)` of patients without one, `(several)` of patients whose slides differ.
        counts: Patients of each class, or with and without the event.
        note: That the group is small, or lacks a class.
    """

    column: str
    value: str
    patients: int
    counts: dict[str, int]
    metrics: dict[str, Interval]
    note: str | None = None


@dataclass(frozen=True)
class Evaluation(Record):
    """What is known of a model.

    Attributes:
        classes: In the order of the confusion matrix; none of a number or a time.
        patients: Test patients of each class; `censored` and `event` of a time; `patients` of a number.
        metrics: Name -> number with interval, over the test patients of all folds, by patient. The first is the one to
            judge by.
        folds: Fold -> metric -> value on that fold's test patients.
        confusion: Rows are truth, columns are predictions.
        thresholds: Fold -> probability of class 1 above which it is predicted; chosen on that fold's validation
            patients. Empty for other than two classes.
        curves: `roc`, `precision-recall` and `reliability` of class 1; of more than two classes `roc of <class>` and
            so on, each class against the rest; none of a class that is absent. Of numbers `scatter` (prediction,
            truth) and `calibration` (their means in bins).
        notes: What a reader must know.
        kind: classification, ordinal, regression or survival.
        fold_patients: Fold -> test patients.
        fold_means: Metric -> its mean over folds.
        by_class: Class -> metric -> number, each class against the rest; of more than two classes.
        decisions: Class -> decision curve of acting on it; class 1 alone of two.
    """

    classes: tuple[str, ...]
    patients: dict[str, int]
    metrics: dict[str, Interval]
    folds: dict[int, dict[str, float]]
    confusion: list[list[int]]
    thresholds: dict[int, float]
    curves: dict[str, Curve]
    notes: tuple[str, ...] = field(default_factory=tuple)
    kind: str = "classification"
    fold_patients: dict[int, int] = field(default_factory=dict)
    fold_means: dict[str, FoldMean] = field(default_factory=dict)
    by_class: dict[str, dict[str, Interval]] = field(default_factory=dict)
    calibration: Calibration | None = None
    decisions: dict[str, Decision] = field(default_factory=dict)
    risk_groups: RiskGroups | None = None
    subgroups: tuple[Subgroup, ...] = ()
