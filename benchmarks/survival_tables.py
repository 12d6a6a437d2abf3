"""Survival heads on gene tables alone: Cox and discrete time against lifelines and scikit-learn on the same folds.

    .venv-peers/bin/python benchmarks/survival_tables.py DATA/survival [--draws 500]

Three TCGA cohorts with their published five folds by patient (whose `val` column is who is tested). A patient is a bag
of one instance: standardised expression (UCEC's table has none: its mutations), clipped at 5 standard deviations. The
model is `mean` with a hidden layer of 64; 15% of the training patients choose the epoch. Baselines see the same
training patients: 20 principal components in lifelines' Cox model with a ridge penalty of 0.1, and logistic regression
of an event before the training events' median. Numbers are Harrell's C within folds, averaged; intervals by bootstrap
over the patients of each fold.
"""

from __future__ import annotations

import argparse
import os
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import pandas as pd
from sklearn.decomposition import PCA
from sklearn.linear_model import LogisticRegression

from pathpipe.evaluation.survival.concordance import harrell
from pathpipe.mil.bag import Bag
from pathpipe.settings import TrainSettings
from pathpipe.tasks.build import task_from_target
from pathpipe.training.fold import FoldData
from pathpipe.training.trainer import train_fold

COHORTS = ("luad", "ucec", "blca")
SETTINGS = {"epochs": 60, "min_epochs": 10, "patience": 15, "lr": 5e-4, "weight_decay": 1e-2, "batch_size": 64}
VAL_SHARE = 0.15


@dataclass(frozen=True)
class Fold:
    """Rows of one fold; features standardised by its training rows."""

    features: np.ndarray
    time: np.ndarray
    event: np.ndarray
    train: np.ndarray
    val: np.ndarray
    test: np.ndarray

    @property
    def fitted(self) -> np.ndarray:
        """Whom the baselines see: they choose no epoch."""
        return np.concatenate([self.train, self.val])


def read_folds(folder: Path, cohort: str) -> list[Fold]:
    """One row a patient, in the published folds."""
    table = pd.read_csv(folder / f"tcga_{cohort}_all_clean.csv.zip", low_memory=False)
    table = table.drop_duplicates("case_id").sort_values("case_id", ignore_index=True)
    names = [name for name in table.columns[10:] if name.endswith("_rnaseq")]
    features = table[names or list(table.columns[10:])].to_numpy(np.float32)
    time, event = table["survival_months"].to_numpy(float), table["censorship"].to_numpy() == 0
    rows = {case: row for row, case in enumerate(table["case_id"])}
    folds = []
    for number in range(5):
        split = pd.read_csv(folder / "splits" / f"tcga_{cohort}" / f"splits_{number}.csv")
        train, test = (np.array([rows[c] for c in split[name].dropna() if c in rows]) for name in ("train", "val"))
        train = np.random.default_rng(number).permutation(train)
        val = np.concatenate([train[event[train] == seen][: _count(event[train] == seen)] for seen in (True, False)])
        train = np.setdiff1d(train, val)
        mean, std = features[train].mean(0), features[train].std(0)
        std[std == 0] = 1.0
        scaled = ((features - mean) / std).clip(-5, 5)
        folds.append(Fold(scaled, time, event, train, val, test))
    return folds


def _count(members: np.ndarray) -> int:
    return max(1, round(VAL_SHARE * int(members.sum())))


def head(kind: str) -> Callable[[Fold, int], np.ndarray]:
    """Risk of the test patients by pathpipe's trainer, `survival` or `cox`."""

    def risk(fold: Fold, number: int) -> np.ndarray:
        name = "p{:04d}".format
        members = {"train": fold.train, "val": fold.val, "test": fold.test}
        roles = {role: tuple(map(name, rows)) for role, rows in members.items()}
        used = np.concatenate(list(members.values()))
        labels = {name(row): (str(fold.time[row]), str(int(fold.event[row]))) for row in used}
        bags = {name(row): Bag(fold.features[row : row + 1], bag_id=name(row), patient_id=name(row)) for row in used}
        data = FoldData(number, bags, labels, roles, {})
        task = task_from_target(f"time/event:{kind}", labels).fit([labels[patient] for patient in roles["train"]])
        settings = TrainSettings(
            model="mean", model_settings={"hidden": 64, "dropout": 0.5}, balance="none", **SETTINGS
        )
        trained = train_fold(data, task, settings, seed=number)
        (table,) = task.finish(trained.logits["val"], task.encode([labels[p] for p in roles["val"]])).tables(
            trained.logits["test"]
        )
        return np.asarray(table.columns["risk"], float)

    return risk


def lifelines_cox(fold: Fold, number: int) -> np.ndarray:
    """Principal components in lifelines' penalised Cox model."""
    from lifelines import CoxPHFitter

    parts = PCA(20, random_state=0).fit(fold.features[fold.fitted])
    frame = pd.DataFrame(parts.transform(fold.features[fold.fitted])).add_prefix("pc")
    frame = frame / frame.std()
    spread = parts.transform(fold.features[fold.fitted]).std(0, ddof=1)
    frame["time"], frame["event"] = fold.time[fold.fitted], fold.event[fold.fitted]
    fitted = CoxPHFitter(penalizer=0.1).fit(frame, "time", "event")
    wanted = pd.DataFrame(parts.transform(fold.features[fold.test]) / spread).add_prefix("pc")
    return fitted.predict_log_partial_hazard(wanted).to_numpy()


def early_event(fold: Fold, number: int) -> np.ndarray:
    """Logistic regression of an event before the median time of the events; who is censored before it is left out."""
    rows = fold.fitted
    limit = np.median(fold.time[rows][fold.event[rows]])
    known = fold.event[rows] | (fold.time[rows] >= limit)
    early = fold.event[rows] & (fold.time[rows] < limit)
    fitted = LogisticRegression(C=1e-3, max_iter=2000).fit(fold.features[rows][known], early[known])
    return fitted.decision_function(fold.features[fold.test])


METHODS: dict[str, Callable[[Fold, int], np.ndarray]] = {
    "pathpipe, Cox": head("cox"),
    "pathpipe, discrete time": head("survival"),
    "lifelines, Cox on 20 components": lifelines_cox,
    "scikit-learn, early event": early_event,
}


def concordance(folds: list[Fold], risks: list[np.ndarray], draws: int) -> tuple[float, float, float]:
    """Mean C over folds with its interval."""
    rng = np.random.default_rng(0)
    values = []
    for fold, risk in zip(folds, risks, strict=True):
        size = len(fold.test)
        weights = np.vstack([np.ones(size), rng.multinomial(size, np.full(size, 1 / size), draws)]).astype(float)
        values.append(harrell(fold.time[fold.test], fold.event[fold.test], risk, weights))
    mean = np.nanmean(values, axis=0)
    low, high = np.quantile(mean[1:], [0.025, 0.975])
    return float(mean[0]), float(low), float(high)


def main() -> None:
    """Fit everything and print the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--draws", type=int, default=500)
    given = parser.parse_args()
    warnings.simplefilter("ignore")
    folds = {cohort: read_folds(given.folder, cohort) for cohort in COHORTS}
    print("| method | " + " | ".join(f"{name.upper()} ({len(folds[name][0].time)})" for name in COHORTS) + " |")
    print("|---|" + "---|" * len(COHORTS))
    for name, method in METHODS.items():
        cells = []
        for cohort in COHORTS:
            risks = [method(fold, number) for number, fold in enumerate(folds[cohort])]
            cells.append("{:.3f} ({:.3f}-{:.3f})".format(*concordance(folds[cohort], risks, given.draws)))
        print(f"| {name} | " + " | ".join(cells) + " |", flush=True)


if __name__ == "__main__":
    main()
