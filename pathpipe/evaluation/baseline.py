"""The colour baseline: what six numbers a patient (mean and spread of R, G, B over tissue) already predict.

A model that doesn't beat it has not been shown to see more than colour.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from pathpipe.errors import StoreError
from pathpipe.evaluation.predictions import Predictions

NAME = "colour only (6 numbers)"


def colour_baseline(
    colour: Mapping[str, Sequence[float]],
    labels: Mapping[str, str],
    classes: Sequence[str],
    splits: pd.DataFrame,
) -> Predictions:
    """Logistic regression on standardised colour numbers, over the folds of the model it is compared with.

    Nothing is tuned (C = 1); the standardisation is fitted on training patients alone.

    Args:
        colour: patient_id -> six numbers.
        labels: patient_id -> class.
        splits: Columns fold, patient_id, role.

    Returns:
        Predictions of the validation and test patients that have colours. A class that a fold's training patients
        lack gets probability 0 there.

    Raises:
        StoreError: A fold's training patients have one class, or none.
    """
    index = {name: number for number, name in enumerate(classes)}
    parts = []
    for fold, rows in splits.groupby("fold", sort=True):
        roles = {
            role: [p for p in members["patient_id"] if p in colour and p in labels]
            for role, members in rows.groupby("role")
        }
        targets = [index[labels[p]] for p in roles.get("train", [])]
        if len(set(targets)) < 2:
            raise StoreError(f"fold {fold} trains on fewer than two classes, so no baseline can be fitted")
        model = make_pipeline(StandardScaler(), LogisticRegression(max_iter=10_000))
        model.fit(_matrix(colour, roles["train"]), targets)
        for role in ("val", "test"):
            members = roles.get(role, [])
            if not members:
                continue
            probabilities = np.zeros((len(members), len(classes)))
            probabilities[:, model.classes_] = model.predict_proba(_matrix(colour, members))
            logits = np.log(np.clip(probabilities, 1e-12, 1))
            truth = [labels[p] for p in members]
            parts.append(Predictions.of(classes, members, truth, logits, probabilities, (int(str(fold)), 0, role)))
    return Predictions.concatenate(parts)


def _matrix(colour: Mapping[str, Sequence[float]], patients: Sequence[str]) -> np.ndarray:
    return np.array([colour[patient] for patient in patients], np.float64)
