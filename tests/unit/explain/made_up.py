"""Members and scores written by hand, for tests of explanations."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch

from pathpipe.explain.aims import Aim, aims_of
from pathpipe.explain.probing import Member
from pathpipe.explain.scores import Scores
from pathpipe.mil.bag import Bag
from pathpipe.mil.registry import Recipe, build_model
from pathpipe.tasks.classification import ClassificationTask
from pathpipe.tasks.task import Task

TASK = ClassificationTask("grade", ("low", "mid", "high"))
DIM = 6


def bag(tiles: int = 23, seed: int = 4, slides: int = 1) -> Bag:
    """A bag on a grid; of several slides, whose tiles stand one slide after the other."""
    rng = np.random.default_rng(seed)
    features = rng.standard_normal((tiles, DIM)).astype(np.float32)
    rows, columns = np.divmod(np.arange(tiles), 5)
    xy0 = np.stack([columns, rows], axis=1).astype(np.int64) * 256
    slide = (np.arange(tiles) * slides // tiles).astype(np.int32)
    return Bag(features, xy0, "P", "P", slide, tuple(f"S{number}" for number in range(slides)))


def member(
    model: str = "abmil",
    seed: int = 0,
    task: Task = TASK,
    given: Bag | None = None,
    options: Mapping[str, int] | None = None,
) -> Member:
    """A model with random weights and a bag."""
    torch.manual_seed(seed)
    built = build_model(Recipe(model, {"hidden": 9, **(options or {})}), DIM, task.outputs).eval()
    return Member(f"fold-{seed}-seed-0", built, task, bag() if given is None else given, torch.full((DIM,), 0.1))


def aim(name: str = "high", task: Task = TASK) -> Aim:
    """One of the task's aims."""
    return next(one for one in aims_of(task) if one.name == name)


def scores(values: Sequence[float], xy0: np.ndarray | None = None, alone: np.ndarray | None = None) -> Scores:
    """Scores of tiles of 512 px, the first four in a square."""
    if xy0 is None:
        xy0 = np.array([[0, 0], [512, 0], [0, 512], [512, 512]], np.int64)[: len(values)]
    return Scores(aim(), "attention", xy0, np.array(values, np.float64), alone)
