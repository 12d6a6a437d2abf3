"""The noun `Comparison`: models on the same patients, every pair of them, and which differences are real."""

from __future__ import annotations

from dataclasses import dataclass

from pathpipe.evaluation.bootstrap import Interval
from pathpipe.evaluation.comparison.significance import FoldTest
from pathpipe.evaluation.records import Record


@dataclass(frozen=True)
class Compared:
    """One model of a comparison.

    Attributes:
        patients: It tested, before those that not all models tested were left out.
        metrics: On the common patients.
    """

    name: str
    patients: int
    metrics: dict[str, Interval]


@dataclass(frozen=True)
class DeLongTest:
    """Difference of two areas by DeLong; NaN with the reason."""

    low: float
    high: float
    z: float
    p: float
    note: str | None = None


@dataclass(frozen=True)
class PairDifference:
    """One metric of a first model less that of a second one.

    Attributes:
        difference: With its bootstrap interval over patients.
        p_bootstrap: Twice the smaller share of draws on the far side of 0.
        p_permutation: Of exchanging the two models patient by patient: the test that decides.
        p_holm: That, corrected for the number of pairs; see `Comparison`.
        delong: Of AUROC of two classes.
        across_folds: Corrected resampled t-test; None where the models' folds differ.
        better: Name of the model that is better for real, None where that isn't shown.
        verdict: The same in words.
        note: Why there is no test, or what a reader must know of it.
    """

    first: str
    second: str
    metric: str
    higher_is_better: bool
    difference: Interval
    p_bootstrap: float
    p_permutation: float
    p_holm: float
    delong: DeLongTest | None
    across_folds: FoldTest | None
    better: str | None
    verdict: str
    note: str | None = None


@dataclass(frozen=True)
class Comparison(Record):
    """All pairs of some models.

    P-values are corrected by Holm in two families: all pairs in the first metric, by which one judges; and all pairs
    in all other metrics together. A difference is real when its corrected p is below 1 - `confidence`.

    Attributes:
        target: As typed.
        patients: Common test patients of each class, as in `Evaluation.patients`.
        models: In the order given.
        differences: By metric, the first metric first, then by pair.
        all_equal_p: DeLong's test that all areas are one; NaN unless there are two classes and three models or more.
    """

    target: str
    kind: str
    classes: tuple[str, ...]
    patients: dict[str, int]
    models: tuple[Compared, ...]
    differences: tuple[PairDifference, ...]
    all_equal_p: float
    confidence: float
    notes: tuple[str, ...] = ()
