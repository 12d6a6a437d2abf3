"""The colour baseline: what six numbers a patient (mean and spread of R, G, B over tissue) already predict.

A model that doesn't beat it has not been shown to see more than colour.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from pathpipe.errors import StoreError
from pathpipe.evaluation.arrays import Bools, Floats
from pathpipe.evaluation.columns import SURVIVAL, Kind
from pathpipe.evaluation.predictions import Predictions
from pathpipe.evaluation.survival.cox import cox

NAME = "colour only (6 numbers)"
Say = Callable[[Floats, pd.DataFrame], dict[str, Sequence[Any]]]


@dataclass(frozen=True, eq=False)
class Asked:
    """What a baseline is to predict.

    Attributes:
        truth: Index patient_id; columns target, or time and event; patients whose truth is known.
        classes: Of classes and grades.
        times: At which survival is predicted.
    """

    kind: Kind
    truth: pd.DataFrame
    classes: tuple[str, ...] = ()
    times: tuple[float, ...] = ()


def colour_baseline(colour: Mapping[str, Sequence[float] | Floats], asked: Asked, splits: pd.DataFrame) -> Predictions:
    """A linear model on standardised colour numbers, over the folds of the model it is compared with.

    Logistic regression of classes and grades (C = 1), ridge regression of numbers (alpha = 1), Cox's model of times.
    Nothing is tuned; standardisation too is fitted on training patients alone.

    Args:
        colour: patient_id -> six numbers.
        splits: Columns fold, patient_id, role.

    Returns:
        Predictions of the validation and test patients that have colours. A class that a fold's training patients
        lack gets probability 0 there.

    Raises:
        StoreError: A fold's training patients can't teach it.
    """
    fit = {"regression": _numbers, "survival": _times}.get(asked.kind, _classes)
    parts = []
    for fold, rows in splits.groupby("fold", sort=True):
        roles = {
            role: [p for p in members["patient_id"] if p in colour and p in asked.truth.index]
            for role, members in rows.groupby("role")
        }
        train = roles.get("train", [])
        say = fit(_matrix(colour, train), asked.truth.loc[train], asked, f"fold {fold}")
        for role in ("val", "test"):
            members = roles.get(role, [])
            if members:
                columns = say(_matrix(colour, members), asked.truth.loc[members])
                place = (int(str(fold)), 0, role)
                parts.append(Predictions.of_columns(asked.kind, members, columns, place))
    return Predictions.concatenate(parts)


def _classes(colours: Floats, truth: pd.DataFrame, asked: Asked, where: str) -> Say:
    index = {name: number for number, name in enumerate(asked.classes)}
    targets = [index[str(name)] for name in truth["target"]]
    if len(set(targets)) < 2:
        raise StoreError(f"{where} trains on fewer than two classes, so no baseline can be fitted")
    model = make_pipeline(StandardScaler(), LogisticRegression(max_iter=10_000))
    model.fit(colours, targets)

    def say(values: Floats, of: pd.DataFrame) -> dict[str, Sequence[Any]]:
        probabilities = np.zeros((len(values), len(asked.classes)))
        probabilities[:, model.classes_] = model.predict_proba(values)
        columns: dict[str, Sequence[Any]] = {"target": [str(name) for name in of["target"]]}
        for name, array in (("p", probabilities), ("logit", np.log(np.clip(probabilities, 1e-12, 1)))):
            columns |= {f"{name}_{one}": array[:, at].tolist() for at, one in enumerate(asked.classes)}
        return columns

    return say


def _numbers(colours: Floats, truth: pd.DataFrame, asked: Asked, where: str) -> Say:
    if len(truth) < 2:
        raise StoreError(f"{where} trains on fewer than two patients, so no baseline can be fitted")
    model = make_pipeline(StandardScaler(), Ridge())
    model.fit(colours, truth["target"].to_numpy(np.float64))
    return lambda values, of: {"target": of["target"].tolist(), "prediction": model.predict(values).tolist()}


def _times(colours: Floats, truth: pd.DataFrame, asked: Asked, where: str) -> Say:
    time, event = truth["time"].to_numpy(np.float64), truth["event"].to_numpy(np.int64) == 1
    varied = np.ptp(colours, axis=0) > 0 if len(colours) else np.zeros(0, bool)
    if not varied.any():
        raise StoreError(f"{where} trains on patients of one colour, so no baseline can be fitted")
    scaler = StandardScaler().fit(colours[:, varied])
    fitted = cox(time, event, scaler.transform(colours[:, varied]))
    if fitted.note:
        raise StoreError(f"{where} fits no Cox model of colour: {fitted.note}")
    beta = np.array([one.coefficient for one in fitted.covariates])

    def risk_of(values: Floats) -> Floats:
        return np.asarray(scaler.transform(values[:, varied]) @ beta)

    hazard = _cumulative_hazard(time, event, risk_of(colours), asked.times)

    def say(values: Floats, of: pd.DataFrame) -> dict[str, Sequence[Any]]:
        risk = risk_of(values)
        survival = np.exp(-np.exp(risk)[:, None] * hazard)
        columns = {"time": of["time"].tolist(), "event": of["event"].astype(int).tolist(), "risk": risk.tolist()}
        return columns | {f"{SURVIVAL}{moment:g}": survival[:, at].tolist() for at, moment in enumerate(asked.times)}

    return say


def _cumulative_hazard(time: Floats, event: Bools, risk: Floats, times: Sequence[float]) -> Floats:
    """(T,) Breslow's baseline hazard up to each time.

    Reference: Breslow (1972), JRSS B 34, 216-217, in the discussion of Cox's paper.
    """
    at_risk = (time[None] >= time[event][:, None]) @ np.exp(risk)
    return np.array([np.sum(1 / at_risk[time[event] <= moment]) for moment in times])


def _matrix(colour: Mapping[str, Sequence[float] | Floats], patients: Sequence[str]) -> Floats:
    return np.array([colour[patient] for patient in patients], np.float64).reshape(len(patients), -1)
