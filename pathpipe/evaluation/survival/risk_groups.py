"""Do patients of high risk fare worse than those of low risk? Groups cut on validation, measured on test."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from pathpipe.evaluation.arrays import Bools, Floats
from pathpipe.evaluation.evaluation import Ratio, RiskGroup, RiskGroups
from pathpipe.evaluation.predictions import Predictions
from pathpipe.evaluation.survival.cox import cox
from pathpipe.evaluation.survival.kaplan_meier import kaplan_meier
from pathpipe.evaluation.survival.logrank import log_rank
from pathpipe.evaluation.survival.measures import Timed

_NAN = float("nan")
_NO_GROUPS = "no patient is in a risk group"


def risk_groups(
    predictions: Predictions, timed: Timed, horizons: Floats, confidence: float
) -> tuple[RiskGroups, tuple[str, ...]]:
    """Test patients above and not above the median risk of their fold's validation patients.

    Log-rank test and hazard ratio compare patients within folds (strata), whose risks come from one model.

    Args:
        predictions: Of survival, with validation patients.
        timed: The test patients.
        horizons: Times a reader will ask about; kept for the plot.

    Returns:
        The groups, and notes on folds without a cut.
    """
    cuts = _cuts(predictions)
    notes = [f"fold {fold}: it has no validation patient to cut risks by" for fold, cut in cuts.items() if cut != cut]
    cut = np.array([cuts[int(fold)] for fold in timed.folds], np.float64)
    known = np.isfinite(cut)
    high = np.where(known, timed.risk > cut, False)
    names = np.where(high, "high", "low")[known]
    time, event, folds = timed.time[known], timed.event[known], timed.folds[known]
    test = log_rank(time, event, names, folds) if known.any() else None
    groups = [_group("low", timed, known & ~high, confidence), _group("high", timed, known & high, confidence)]
    return (
        RiskGroups(
            cuts=dict(cuts),
            groups=(*groups, _group("all", timed, np.ones(len(known), bool), confidence)),
            log_rank_chi2=test.chi2 if test else _NAN,
            log_rank_p=test.p if test else _NAN,
            log_rank_note=test.note if test else _NO_GROUPS,
            hazard_ratio=_ratio(time, event, high[known], folds, confidence),
            horizons=horizons.tolist(),
        ),
        tuple(notes),
    )


def _cuts(predictions: Predictions) -> Mapping[int, float]:
    """Fold -> median risk of the validation patients of the models that speak in it; NaN where there are none."""
    val = predictions.averaged("val")
    cuts = {}
    for fold, rows in predictions.deciding(tuple(val["patient_id"]), val["fold"].to_numpy(np.int64)).items():
        risks = val.loc[rows, "risk"].to_numpy(np.float64)
        cuts[fold] = float(np.median(risks)) if len(risks) else _NAN
    return cuts


def _group(name: str, timed: Timed, rows: Bools, confidence: float) -> RiskGroup:
    found = kaplan_meier(timed.time[rows], timed.event[rows], confidence)
    return RiskGroup(
        name=name,
        patients=int(rows.sum()),
        events=int(timed.event[rows].sum()),
        time=found.time.tolist(),
        survival=found.survival.tolist(),
        low=found.low.tolist(),
        high=found.high.tolist(),
        at_risk=found.at_risk.tolist(),
        median=found.median,
        median_low=found.median_low,
        median_high=found.median_high,
    )


def _ratio(time: Floats, event: Bools, high: Bools, folds: np.ndarray, confidence: float) -> Ratio:
    if not len(time):
        return Ratio(_NAN, _NAN, _NAN, _NAN, _NO_GROUPS)
    fit = cox(time, event, high.astype(np.float64), folds, confidence)
    found = fit.covariates[0]
    return Ratio(found.ratio, found.low, found.high, found.p, fit.note)
