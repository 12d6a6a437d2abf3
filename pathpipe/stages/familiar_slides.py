"""Familiar slides: a row a slide that says how like the slides of the training it is."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pandas as pd

from pathpipe.mil.bag import Bag
from pathpipe.stages.predict import Ensemble
from pathpipe.training.familiarity import farthest, percentile_of, slide_distances, slide_means

COLUMNS = ("slide_id", "patient_id", "tiles", "distance", "percentile", "unfamiliar", "remark")


def familiar_slides(bags: Mapping[str, Bag], ensemble: Ensemble, limit: float) -> pd.DataFrame:
    """One row a slide with tiles.

    Args:
        bags: patient_id -> bag.
        limit: Percentile of the training and validation slides' distances from which a slide is unfamiliar.

    Returns:
        Columns slide_id, patient_id, tiles; distance and percentile as `training.familiarity` has them, means over the
        models; unfamiliar (bool); remark: one sentence.
    """
    rows = []
    for patient, bag in bags.items():
        means = slide_means(bag)
        each = [
            slide_distances(means, model.feature_mean.double().numpy(), model.feature_std)
            for model in ensemble.checkpoints
        ]
        known = [model.distances for model in ensemble.checkpoints]
        percentiles = [
            [percentile_of(one, own) for one in found.tolist()] for found, own in zip(each, known, strict=True)
        ]
        tiles = np.bincount(bag.slide, minlength=len(means)) if bag.slide is not None else [len(bag)]
        most = float(np.mean([farthest(own) for own in known]))
        columns = (bag.slide_ids or (patient,), tiles, np.mean(each, axis=0), np.mean(percentiles, axis=0))
        for slide, count, distance, percentile in zip(*columns, strict=True):
            far = bool(percentile >= limit)
            said = _remark(float(distance), float(percentile), most, far)
            rows.append((slide, patient, int(count), float(distance), float(percentile), far, said))
    return pd.DataFrame(rows, columns=list(COLUMNS))


def _remark(distance: float, percentile: float, most: float, far: bool) -> str:
    if np.isnan(percentile):
        return "the model doesn't know how far its own slides lie from their mean"
    if not far:
        return f"as slides of the training are: {percentile:.0f}% of them lie nearer to their mean"
    whom = "all" if percentile >= 100 else f"{percentile:.1f}%"
    return (
        f"unlike the training: its mean feature lies farther out than {whom} of the training's slides "
        f"(distance {distance:.2f}, theirs at most {most:.2f}), so the prediction may not hold"
    )
