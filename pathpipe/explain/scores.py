"""Scores: one number a tile that says how much it mattered to a slide's prediction."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd
import torch

from pathpipe.errors import StoreError
from pathpipe.mil.bag import Bag, Bags
from pathpipe.store.features import Features
from pathpipe.training.checkpoint import Checkpoint

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Scores:
    """Scores of one slide.

    Attributes:
        xy0: (N, 2) level-0 px.
        score: (N,) attention averaged over models, summing to 1; for models without attention the probability that
            the tile alone would be given for the predicted class.
        kind: `attention` or `probability of <class>`.
        classes: Class names.
        logits: (models, C).
        probability: (C,) averaged over models.
    """

    xy0: npt.NDArray[np.int64]
    score: Floats
    kind: str
    classes: tuple[str, ...]
    logits: Floats
    probability: Floats

    @property
    def predicted(self) -> int:
        """Index of the most probable class."""
        return int(self.probability.argmax())

    def ranks(self) -> Floats:
        """(N,) share of tiles that score at most as high: 1 for the highest. Ties share their mean rank."""
        from scipy.stats import rankdata

        return np.asarray(rankdata(self.score) / len(self.score), np.float64)

    def write(self, path: Path) -> None:
        """Write x0, y0, score as CSV."""
        table = pd.DataFrame({"x0": self.xy0[:, 0], "y0": self.xy0[:, 1], "score": self.score})
        table.to_csv(path, index=False)


def slide_scores(checkpoints: Sequence[Checkpoint], features: Features) -> Scores:
    """Score every tile of a slide by an ensemble.

    Raises:
        StoreError: The features are of another encoder, the slide has no tiles, or there are no models, or models of
            different tasks.
    """
    if not checkpoints:
        raise StoreError("there is no model to score the slide with", hint="train one, or name a trained folder")
    if any(checkpoint.task != checkpoints[0].task for checkpoint in checkpoints):
        raise StoreError("the models were trained for different tasks, so their scores have no mean")
    if not len(features.features):
        raise StoreError(f"the slide has no tiles: {features.empty_reason}")
    bags = Bags.pack([Bag(features.features, features.xy0)])
    logits, probabilities, attentions, instances = [], [], [], []
    for checkpoint in checkpoints:
        checkpoint.refuse_other_encoder(features.encoder)
        task = checkpoint.load_task()
        with torch.no_grad():
            output = checkpoint.build()(bags)
        logits.append(output.logits[0].double().numpy())
        probabilities.append(task.scores(output.logits)[0].double().numpy())
        if output.attention is not None:
            attentions.append(output.attention_per_bag(bags)[0].double().mean(dim=-1).numpy())
        elif output.instance_logits is not None:
            instances.append(task.scores(output.instance_logits).double().numpy())
    classes = tuple(checkpoints[0].task["classes"])
    probability = np.mean(probabilities, axis=0)
    if attentions:
        score, kind = np.mean(attentions, axis=0), "attention"
    elif instances:
        chosen = int(probability.argmax())
        score, kind = np.mean(instances, axis=0)[:, chosen], f"probability of {classes[chosen]}"
    else:
        raise StoreError(f"model `{checkpoints[0].model}` gives no score per tile")
    return Scores(features.xy0, score, kind, classes, np.stack(logits), probability)
