"""Scores: one number a tile that says how much it mattered to a slide's prediction."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd
import torch
from torch import Tensor

from pathpipe.errors import StoreError
from pathpipe.mil.bag import Bag, Bags
from pathpipe.mil.covariates import encode_covariates
from pathpipe.mil.wrappers.covariates import covariates_of
from pathpipe.store.features import Features
from pathpipe.tasks.task import Table, Task
from pathpipe.training.checkpoint import Checkpoint

Floats = npt.NDArray[np.float64]
Values = Mapping[str, Mapping[str, str]]
_CLASSES = ("classification", "ordinal")


@dataclass(frozen=True, eq=False)
class Scores:
    """Scores of one slide.

    Attributes:
        xy0: (N, 2) level-0 px.
        score: (N,) attention averaged over models, summing to 1; for models without attention what the tile alone
            would be given: the probability of the predicted class, the number, or the risk.
        kind: `attention`, `probability of <class>`, `prediction` or `risk`.
        classes: Class names; of a number or a time what is said of it: prediction; risk, survival_<t>.
        logits: (models, C).
        probability: What is said, one for each of `classes`, averaged over models: of the first of several targets.
        target_kind: Of that target.
    """

    xy0: npt.NDArray[np.int64]
    score: Floats
    kind: str
    classes: tuple[str, ...]
    logits: Floats
    probability: Floats
    target_kind: str = "classification"

    @property
    def predicted(self) -> int:
        """Index of the most probable class; of a number or a time the first thing that is said."""
        return int(self.probability.argmax()) if self.target_kind in _CLASSES else 0

    @property
    def said(self) -> str:
        """The prediction as people are told it."""
        name, value = self.classes[self.predicted], self.probability[self.predicted]
        return f"predicted {name} ({value:.2f})" if self.target_kind in _CLASSES else f"{name} {value:.3g}"

    def ranks(self) -> Floats:
        """(N,) share of tiles that score at most as high: 1 for the highest. Ties share their mean rank."""
        from scipy.stats import rankdata

        return np.asarray(rankdata(self.score) / len(self.score), np.float64)

    def write(self, path: Path) -> None:
        """Write x0, y0, score as CSV."""
        table = pd.DataFrame({"x0": self.xy0[:, 0], "y0": self.xy0[:, 1], "score": self.score})
        table.to_csv(path, index=False)


def slide_scores(
    checkpoints: Sequence[Checkpoint], features: Features, values: Values | None = None, patient: str = ""
) -> Scores:
    """Score every tile of a slide by an ensemble.

    Args:
        values: Covariates of the cohort, for models that take some: column -> patient_id -> text.
        patient: Whose slide it is.

    Raises:
        StoreError: The features are of another encoder, the slide has no tiles, or there are no models, or models of
            different tasks.
    """
    if not checkpoints:
        raise StoreError("there is no model to score the slide with", hint="train one, or name a trained folder")
    if any(one.load_task().question() != checkpoints[0].load_task().question() for one in checkpoints):
        raise StoreError("the models were trained for different tasks, so their scores have no mean")
    if not len(features.features):
        raise StoreError(f"the slide has no tiles: {features.empty_reason}")
    logits, tables, attentions, instances = [], [], [], []
    for checkpoint in checkpoints:
        checkpoint.refuse_other_encoder(features.encoder)
        task, covariates = checkpoint.load_task(), covariates_of(checkpoint.wrappers)
        numbers = encode_covariates(covariates, values or {}, patient) if covariates else None
        bags = Bags.pack([Bag(features.features, features.xy0, covariates=numbers)])
        with torch.no_grad():
            output = checkpoint.build()(bags)
        logits.append(output.logits[0].double().numpy())
        tables.append(_said(task, output.logits))
        if output.attention is not None:
            attentions.append(output.attention_per_bag(bags)[0].double().mean(dim=-1).numpy())
        elif output.instance_logits is not None:
            instances.append(_said(task, output.instance_logits))
    kind, names = tables[0].kind, tuple(name for name in tables[0].columns if not name.startswith("logit_"))
    found = np.array([np.mean([table.columns[name][0] for table in tables]) for name in names])
    classes = tuple(name.removeprefix("p_") for name in names) if kind in _CLASSES else names
    scores = Scores(features.xy0, np.zeros(0), "attention", classes, np.stack(logits), found, kind)
    if attentions:
        return replace(scores, score=np.mean(attentions, axis=0))
    if not instances:
        raise StoreError(f"model `{checkpoints[0].model}` gives no score per tile")
    column = names[scores.predicted]
    score = np.mean([np.asarray(table.columns[column], np.float64) for table in instances], axis=0)
    said = classes[scores.predicted]
    return replace(scores, score=score, kind=f"probability of {said}" if kind in _CLASSES else said)


def _said(task: Task, logits: Tensor) -> Table:
    """What logits say about the first target."""
    return task.tables(logits)[0]
