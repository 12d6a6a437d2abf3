"""Compare: which of some models is better, and is it more than chance?"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from itertools import combinations

import numpy as np

from pathpipe.errors import StoreError
from pathpipe.evaluation.arrays import Floats, ones
from pathpipe.evaluation.bootstrap import Counts, draw_weights
from pathpipe.evaluation.comparison.comparison import Compared, Comparison, DeLongTest, PairDifference
from pathpipe.evaluation.comparison.delong import DeLong
from pathpipe.evaluation.comparison.matching import Entrant, Matched, match
from pathpipe.evaluation.comparison.paired import bootstrap_difference, permutation_test
from pathpipe.evaluation.comparison.significance import FoldTest, corrected_t_test, holm
from pathpipe.evaluation.evaluate import measure_all
from pathpipe.evaluation.measures import Measure
from pathpipe.evaluation.unseen import HEADLINES, Unseen, knows_order_alone
from pathpipe.settings import EvaluateSettings

AREA = "AUROC"
_UNDEFINED = "undefined"
_ROUNDING = 1e-12  # 1 - 0.95 is a little more than 0.05


def compare(target: str, entrants: Sequence[Entrant], settings: EvaluateSettings) -> Comparison:
    """Compare every pair of models on their common test patients, by the metrics of the target's kind.

    The permutation test decides, corrected by Holm: it suits every metric and is right in small samples. All tests by
    patients take the models as given; the t-test across folds also sees what other training would change.

    Args:
        target: As typed.
        entrants: Two or more; of one name each.

    Raises:
        StoreError: They can't be compared.
    """
    names = [one.name for one in entrants]
    if len(set(names)) < len(names) or len(names) < 2:
        raise StoreError(f"a comparison takes two or more models with names of their own, not {', '.join(names)}")
    matched = match(entrants, settings)
    strata = matched.models[0].strata
    weights = draw_weights(strata, settings.bootstrap, settings.seed)
    measured = [_headlines(one) for one in matched.models]
    areas = _areas(matched)
    differences = [
        _difference((names[one], names[two]), (one, two), metric, matched, weights, areas, settings)
        for metric in measured[0]
        if all(metric in named for named in measured)
        for one, two in combinations(range(len(names)), 2)
    ]
    return Comparison(
        target=target,
        kind=matched.models[0].kind,
        classes=matched.models[0].classes,
        patients=matched.models[0].counts,
        models=tuple(
            Compared(name, tested, measure_all(named, weights, strata, settings))
            for name, tested, named in zip(names, matched.tested, measured, strict=True)
        ),
        differences=_corrected(differences, settings.confidence),
        all_equal_p=areas.all_equal()[2] if areas is not None and len(names) > 2 else math.nan,
        confidence=settings.confidence,
        notes=matched.notes,
    )


def _headlines(tested: Unseen) -> dict[str, Measure]:
    named = tested.measures()
    return {name: named[name] for name in HEADLINES[tested.kind] if name in named}


def _areas(matched: Matched) -> DeLong | None:
    first = matched.models[0]
    if first.kind != "classification" or len(first.classes) != 2:
        return None
    return DeLong.of(first.whole("targets"), np.stack([one.of("probabilities")[:, 1] for one in matched.models]))


def _difference(
    names: tuple[str, str],
    places: tuple[int, int],
    metric: str,
    matched: Matched,
    weights: Counts,
    areas: DeLong | None,
    settings: EvaluateSettings,
) -> PairDifference:
    first, second = (matched.models[place] for place in places)
    one, two = _headlines(first)[metric], _headlines(second)[metric]
    drawn = bootstrap_difference(
        one,
        two,
        weights,
        settings.confidence,
        method=settings.interval,
        strata=first.strata,
        undefined=one.undefined,
    )
    pair = (first.ranked(), second.ranked()) if knows_order_alone(metric) else (first, second)
    stacked = _headlines(pair[0].above(pair[1]))[metric]
    exchanged = permutation_test(stacked, len(first.patients), settings.bootstrap, settings.seed, one.undefined)
    return PairDifference(
        first=names[0],
        second=names[1],
        metric=metric,
        higher_is_better=bool(one.higher_is_better),
        difference=drawn.interval,
        p_bootstrap=drawn.p,
        p_permutation=exchanged.p,
        p_holm=math.nan,
        delong=_delong(areas, places, settings.confidence) if areas is not None and metric == AREA else None,
        across_folds=_across_folds(metric, first, second, matched, settings.confidence),
        better=None,
        verdict=_UNDEFINED,
        note=exchanged.note,
    )


def _delong(areas: DeLong, places: tuple[int, int], confidence: float) -> DeLongTest:
    found = areas.difference(*places, confidence)
    return DeLongTest(found.low, found.high, found.z, found.p, found.note)


def _across_folds(metric: str, first: Unseen, second: Unseen, matched: Matched, confidence: float) -> FoldTest | None:
    if not matched.same_folds or not matched.share_tested > 0:
        return None

    def by_fold(tested: Unseen) -> Floats:
        parts = [tested.take(tested.folds == fold) for fold in np.unique(tested.folds)]
        return np.array([_headlines(part)[metric](ones(len(part.patients)))[0] for part in parts])

    return corrected_t_test(by_fold(first) - by_fold(second), matched.share_tested, confidence)


def _corrected(differences: Sequence[PairDifference], confidence: float) -> tuple[PairDifference, ...]:
    """With Holm's p in the two families, and the verdicts."""
    first = [one.metric == differences[0].metric for one in differences]
    p = np.array([one.p_permutation for one in differences], np.float64)
    corrected = np.full(len(p), np.nan)
    for family in (np.array(first, bool), ~np.array(first, bool)):
        corrected[family] = holm(p[family])
    return tuple(_judged(one, float(value), 1 - confidence) for one, value in zip(differences, corrected, strict=True))


def _judged(one: PairDifference, p_holm: float, level: float) -> PairDifference:
    if math.isnan(p_holm):
        return replace(one, verdict=f"{_UNDEFINED}: {one.note or one.difference.note}")
    if p_holm > level - _ROUNDING or one.difference.value == 0:
        return replace(one, p_holm=p_holm, verdict="no difference shown")
    better = one.first if (one.difference.value > 0) == one.higher_is_better else one.second
    return replace(one, p_holm=p_holm, better=better, verdict=f"{better} is better")
