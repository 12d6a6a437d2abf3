"""Scores: one number a tile that says how much it mattered to what is predicted of a patient."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import pandas as pd
import torch

from pathpipe.errors import StoreError
from pathpipe.explain.aims import Aim, aims_of, choose
from pathpipe.explain.attribution import gradient_norm, integrated_gradients, neighbours, occlusion
from pathpipe.explain.probing import Member
from pathpipe.mil.bag import Bag
from pathpipe.mil.model import MILOutput
from pathpipe.run import safe_name
from pathpipe.settings import HeatmapSettings

Floats = npt.NDArray[np.float64]
Method = Literal["attention", "instance", "gradient", "integrated", "occlusion"]


@dataclass(frozen=True, eq=False)
class Scores:
    """Scores of tiles for one aim.

    Attributes:
        aim: What is explained.
        method: What they are.
        xy0: (N, 2) level-0 px.
        score: (N,) higher matters more: the mean over models.
        alone: (N,) what the models say of each tile alone: probability, number or risk; None where they say nothing.
        grouped: Tiles that share a score, in the largest group; 1 where each has its own.
    """

    aim: Aim
    method: Method
    xy0: npt.NDArray[np.int64]
    score: Floats
    alone: Floats | None = None
    grouped: int = 1

    @property
    def kind(self) -> str:
        """What they are, for people."""
        aim = {"class": f"log-odds of {self.aim.label}"}.get(self.aim.kind, self.aim.label)
        of = "probability of " if self.aim.kind == "class" else ""
        return {
            "attention": "attention",
            "instance": f"{of}{self.aim.label}, tile alone",
            "gradient": f"gradient x features, {aim}",
            "integrated": f"integrated gradients, {aim}",
            "occlusion": f"loss without the tile, {aim}",
        }[self.method]

    def ranks(self) -> Floats:
        """(N,) share of tiles that score at most as high: 1 for the highest. Ties share their mean rank."""
        from scipy.stats import rankdata

        return np.asarray(rankdata(self.score) / len(self.score), np.float64)

    @property
    def weights(self) -> Floats:
        """(N,) how much of the whole each tile has, summing to 1: what is below 0 has nothing."""
        positive = np.maximum(self.score, 0)
        total = positive.sum()
        return np.asarray(positive / total if total > 0 else np.full(len(positive), 1 / len(positive)))

    def take(self, rows: npt.NDArray[np.bool_]) -> Scores:
        """Those of some of the tiles."""
        alone = None if self.alone is None else self.alone[rows]
        return replace(self, xy0=self.xy0[rows], score=self.score[rows], alone=alone)


@dataclass(frozen=True, eq=False)
class Explanation:
    """What an ensemble says of a patient, and why.

    Attributes:
        aims: All there are.
        values: Of each aim: the mean over models.
        logits: (models, outputs) float32, bag by bag as in prediction.
        scores: Of the whole bag, for each aim that was asked for, the first to be shown first.
    """

    aims: tuple[Aim, ...]
    values: tuple[float, ...]
    logits: npt.NDArray[np.float32]
    scores: tuple[Scores, ...]

    def value(self, aim: Aim) -> float:
        """What is predicted."""
        return self.values[self.aims.index(aim)]


def explain_bag(members: Sequence[Member], settings: HeatmapSettings) -> Explanation:
    """Score every tile of a patient by an ensemble.

    Raises:
        StoreError: There are no models, or models of different tasks; or the score asked for isn't theirs.
        SettingsError: The class asked for is none.
    """
    if not members:
        raise StoreError("there is no model to score the slide with", hint="train one, or name a trained folder")
    if any(member.task.question() != members[0].task.question() for member in members):
        raise StoreError("the models were trained for different tasks, so their scores have no mean")
    outputs = [member.forward() for member in members]
    own = [aims_of(member.task) for member in members]  # a fold has its own mean, spread or bins
    said = [_values(aims, output.logits) for aims, output in zip(own, outputs, strict=True)]
    values = tuple(np.mean(said, axis=0).tolist())
    method = _method(settings, outputs[0], members[0].model.name)
    chosen = [own[0].index(aim) for aim in choose(own[0], settings.target_class, values)]
    if method == "attention":  # it is the same whatever is asked
        chosen = chosen[:1]
    aims = [[every[at] for at in chosen] for every in own]
    alone = None
    if outputs[0].instance_logits is not None:
        alone = np.mean([_alone(part, output) for part, output in zip(aims, outputs, strict=True)], axis=0)
    xy0 = members[0].bag.xy0
    if xy0 is None:
        raise StoreError("the tiles have no coordinates")
    score, grouped = _scored(method, members, aims, outputs, settings)
    if method == "instance":
        assert alone is not None
        score = alone
    if not np.isfinite(score).all():
        raise StoreError(f"the {method} of some tiles is no finite number", hint="use another `--score`")
    scores = tuple(
        Scores(aim, method, xy0, score[at], None if alone is None else alone[at], grouped)
        for at, aim in enumerate(aims[0])
    )
    return Explanation(own[0], values, np.stack([output.logits[0].numpy() for output in outputs]), scores)


def _values(aims: Sequence[Aim], logits: torch.Tensor) -> list[float]:
    return [float(aim.value(logits)[0]) for aim in aims]


def _alone(aims: Sequence[Aim], output: MILOutput) -> Floats:
    """(A, N)."""
    assert output.instance_logits is not None
    return np.stack([aim.value(output.instance_logits).numpy() for aim in aims])


def _method(settings: HeatmapSettings, output: MILOutput, model: str) -> Method:
    """The score asked for, or the first that the model has.

    Raises:
        StoreError: It has no such score.
    """
    attentive = output.scores is not None or output.attention is not None
    if settings.score == "auto":
        return "attention" if attentive else "gradient" if output.instance_logits is None else "instance"
    missing = {"attention": not attentive, "instance": output.instance_logits is None}.get(settings.score, False)
    if missing:
        what = "attention" if settings.score == "attention" else "prediction of single tiles"
        raise StoreError(f"model `{model}` has no {what}", hint="use `--score gradient` or `--score occlusion`")
    return settings.score


def _scored(
    method: Method,
    members: Sequence[Member],
    aims: Sequence[Sequence[Aim]],
    outputs: Sequence[MILOutput],
    settings: HeatmapSettings,
) -> tuple[Floats, int]:
    """(A, N) mean over models, and the size of the largest group of tiles that share a score."""
    bag, grouped = members[0].bag, 1
    if method == "occlusion":
        assert bag.xy0 is not None
        groups = neighbours(bag.xy0, bag.slide, settings.occlusion_groups)
        grouped = int(np.bincount(groups).max())
        parts = [occlusion(member, own, groups) for member, own in zip(members, aims, strict=True)]
    elif method == "gradient":
        parts = [gradient_norm(member, own) for member, own in zip(members, aims, strict=True)]
    elif method == "integrated":
        parts = [integrated_gradients(member, own) for member, own in zip(members, aims, strict=True)]
    else:
        parts = [np.stack([_attention(output, len(bag))] * len(aims[0])) for output in outputs]
    return np.mean(parts, axis=0), grouped


def _attention(output: MILOutput, tiles: int) -> Floats:
    """(N,) the model's own score of tiles, or the mean of its attention maps."""
    if output.scores is not None:
        return np.asarray(output.scores.double().numpy())
    if output.attention is not None:
        return np.asarray(output.attention.double().mean(dim=-1).numpy())
    return np.zeros(tiles)


def cut_slide(scores: Scores, bag: Bag, slide_id: str) -> Scores:
    """Those of one of the patient's slides.

    Raises:
        StoreError: The bag holds no tile of it.
    """
    if bag.slide is None or slide_id not in bag.slide_ids:
        raise StoreError("the patient's bag holds no tile of the slide", where=slide_id)
    return scores.take(bag.slide == bag.slide_ids.index(slide_id))


def columns_of(scores: Sequence[Scores]) -> list[str]:
    """A column's name for each aim: `score` for the first, `score_<name>` for others."""
    names: list[str] = []
    for number, one in enumerate(scores):
        name = "score" if number == 0 else f"score_{safe_name(one.aim.label)}"
        names.append(name if name not in names else f"{name}_{number}")
    return names


def write_scores(path: Path, scores: Sequence[Scores]) -> None:
    """Write x0, y0 and a column of scores for each aim as CSV."""
    table: dict[str, npt.NDArray[Any]] = {"x0": scores[0].xy0[:, 0], "y0": scores[0].xy0[:, 1]}
    table |= {name: one.score for name, one in zip(columns_of(scores), scores, strict=True)}
    pd.DataFrame(table).to_csv(path, index=False)
