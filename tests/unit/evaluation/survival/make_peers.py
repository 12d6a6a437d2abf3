"""Write `peers.json`: numbers of other packages on small survival data with ties, for the tests to agree with.

Not run by the tests: lifelines needs an older pandas than pathpipe's environment has, and scikit-survival's licence
(GPL) keeps it out. In an environment of their own:

    python -m venv peers && peers/bin/pip install lifelines==0.30.3 scikit-survival==0.28.0
    peers/bin/python tests/unit/evaluation/survival/make_peers.py lifelines
    peers/bin/python tests/unit/evaluation/survival/make_peers.py scikit-survival
"""

from __future__ import annotations

import json
import sys
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

FILE = Path(__file__).parent / "peers.json"


def cohort(seed: int, patients: int, crossed: bool) -> dict[str, list[float]]:
    """Tied times and tied risks. `crossed`: events and censored share times; otherwise never."""
    rng = np.random.default_rng(seed)
    risk = np.round(rng.normal(size=patients), 1)
    event_at, censored_at = rng.exponential(3 * np.exp(-0.7 * risk)), rng.exponential(4, patients)
    event = event_at <= censored_at
    tenths = np.ceil(np.minimum(event_at, censored_at) * (5 if crossed else 2.5))
    time = tenths / 5 if crossed else (2 * tenths - event) / 5  # odd fifths are events, even ones are censored
    group = rng.integers(0, 3, patients)
    return {
        "time": np.round(time, 1).tolist(),
        "event": event.astype(int).tolist(),
        "risk": risk.tolist(),
        "group": group.tolist(),
        "stratum": rng.integers(0, 2, patients).tolist(),
    }


def arrays(data: dict[str, list[float]]) -> tuple[np.ndarray, ...]:
    """time, event, risk, group, stratum"""
    event = np.array(data["event"], bool)
    return np.array(data["time"]), event, np.array(data["risk"]), np.array(data["group"]), np.array(data["stratum"])


def of_lifelines(crossed: dict[str, list[float]]) -> dict[str, Any]:
    """Kaplan-Meier with log-log interval, log-rank of three groups, Cox by Efron, Harrell's C."""
    import pandas as pd
    from lifelines import CoxPHFitter, KaplanMeierFitter
    from lifelines.statistics import multivariate_logrank_test
    from lifelines.utils import concordance_index, median_survival_times

    time, event, risk, group, stratum = arrays(crossed)
    km = KaplanMeierFitter().fit(time, event)
    bounds = km.confidence_interval_.to_numpy()[1:]
    median = median_survival_times(km.confidence_interval_).to_numpy().ravel()
    rank = multivariate_logrank_test(time, group, event)
    table = pd.DataFrame({"time": time, "event": event, "risk": risk, "one": (group == 1) * 1.0, "stratum": stratum})
    fits = {}
    for name, strata in (("plain", None), ("stratified", ["stratum"])):
        columns = table if strata else table.drop(columns="stratum")
        fit = CoxPHFitter().fit(columns, "time", "event", strata=strata, fit_options={"precision": 1e-12})
        fits[name] = {
            "coefficients": fit.params_.tolist(),
            "errors": fit.standard_errors_.tolist(),
            "p": fit.summary["p"].tolist(),
            "low": fit.summary["exp(coef) lower 95%"].tolist(),
            "high": fit.summary["exp(coef) upper 95%"].tolist(),
            "log_likelihood": float(fit.log_likelihood_),
            "likelihood_ratio_p": float(fit.log_likelihood_ratio_test().p_value),
        }
    return {
        "version": version("lifelines"),
        "kaplan_meier": {
            "time": km.survival_function_.index[1:].tolist(),
            "survival": km.survival_function_.to_numpy().ravel()[1:].tolist(),
            "low": bounds[:, 0].tolist(),
            "high": bounds[:, 1].tolist(),
            "median": float(km.median_survival_time_),
            "median_low": float(median[0]),
            "median_high": float(median[1]),
        },
        "log_rank": {"chi2": float(rank.test_statistic), "p": float(rank.p_value)},
        "cox": fits,
        "harrell": float(concordance_index(time, -risk, event)),
    }


def of_scikit_survival(train: dict[str, list[float]], test: dict[str, list[float]], crossed: Any) -> dict[str, Any]:
    """Harrell's and Uno's C, dynamic AUC and its mean, Brier score and its integral."""
    from sksurv import metrics
    from sksurv.util import Surv

    def surv(time: np.ndarray, event: np.ndarray) -> np.ndarray:
        return Surv.from_arrays(event, time)

    past, present = surv(*arrays(train)[:2]), surv(*arrays(test)[:2])
    risk = arrays(test)[2]
    times = np.array([0.5, 1.0, 1.5, 2.0, 3.0])
    survival = np.exp(-np.exp(0.7 * risk)[:, None] * times / 3)
    auc, mean_auc = metrics.cumulative_dynamic_auc(past, present, risk, times)
    moving = metrics.cumulative_dynamic_auc(past, present, -survival, times)
    brier = metrics.brier_score(past, present, survival, times)[1]
    both = arrays(crossed)
    return {
        "version": version("scikit-survival"),
        "harrell": float(metrics.concordance_index_censored(both[1], both[0], both[2])[0]),
        "uno": {
            str(tau): float(metrics.concordance_index_ipcw(past, present, risk, tau)[0]) for tau in (1.0, 2.0, 3.0)
        },
        "times": times.tolist(),
        "dynamic_auc": auc.tolist(),
        "mean_dynamic_auc": float(mean_auc),
        "dynamic_auc_of_survival": moving[0].tolist(),
        "brier": brier.tolist(),
        "integrated_brier": float(metrics.integrated_brier_score(past, present, survival, times)),
    }


def main(peer: str) -> None:
    """Write the data if they aren't there, and one peer's numbers."""
    made: dict[str, Any] = json.loads(FILE.read_text()) if FILE.is_file() else {}
    if "train" not in made:
        made |= {"train": cohort(1, 90, False), "test": cohort(2, 60, False), "crossed": cohort(3, 60, True)}
    if peer == "lifelines":
        made[peer] = of_lifelines(made["crossed"])
    else:
        made[peer] = of_scikit_survival(made["train"], made["test"], made["crossed"])
    FILE.write_text(json.dumps(made) + "\n")


if __name__ == "__main__":
    main(sys.argv[1])
