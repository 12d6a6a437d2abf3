"""Answers: what `Task.tables` says of patients, as tensors, so that a graph that leaves Python can say it too."""

from __future__ import annotations

import torch
from torch import Tensor

from pathpipe.errors import SettingsError
from pathpipe.tasks.classification import ClassificationTask
from pathpipe.tasks.cox import CoxTask
from pathpipe.tasks.multilabel import NO_YES, MultilabelTask
from pathpipe.tasks.ordinal import OrdinalTask
from pathpipe.tasks.regression import RegressionTask
from pathpipe.tasks.several import SeveralTask
from pathpipe.tasks.survival import SurvivalTask
from pathpipe.tasks.task import Task


def answers(task: Task, logits: Tensor) -> dict[str, Tensor]:
    """Column -> (P,) float64, named as the columns of `pathpipe predict`, whose mean over folds is an ensemble's.

    Args:
        logits: (P, outputs).

    Raises:
        SettingsError: The task is of a kind that another package brought.
    """
    if isinstance(task, SeveralTask):
        blocks = logits.split([part.outputs for part in task.parts], dim=1)
        return {
            _prefixed(name, part): column
            for part, own in zip(task.parts, blocks, strict=True)
            for name, column in answers(part, own).items()
        }
    if isinstance(task, ClassificationTask | OrdinalTask):
        return dict(zip([f"p_{name}" for name in task.classes], task.scores(logits).unbind(1), strict=True))
    if isinstance(task, MultilabelTask):
        found: dict[str, Tensor] = {}
        for column, held in zip(task.columns, task.scores(logits).unbind(1), strict=True):
            before = f"{column} " if len(task.columns) > 1 else ""
            found |= {f"{before}p_{NO_YES[0]}": 1 - held, f"{before}p_{NO_YES[1]}": held}
        return found
    if isinstance(task, RegressionTask):
        return {"prediction": task.scores(logits)[:, 0]}
    if isinstance(task, SurvivalTask):
        risk, survival = -task.scores(logits).sum(1), task.survival_at(logits, task.times)
        return {"risk": risk, **_at(task.times, survival)}
    if isinstance(task, CoxTask):
        risk = logits[:, 0].double()
        survival = (-torch.tensor(task.hazard, dtype=torch.float64) * risk.exp()[:, None]).exp()
        return {"risk": risk, **_at(task.times[: len(task.hazard)], survival)}
    raise SettingsError(f"a task of kind `{task.kind}` can't be exported", hint="use `pathpipe predict`")


def _prefixed(name: str, part: Task) -> str:
    """A column under its target's name, as several targets have it; labels of a multilabel one have their own."""
    if isinstance(part, MultilabelTask):
        return name if len(part.columns) > 1 else f"{part.columns[0]} {name}"
    return f"{part.target} {name}"


def _at(times: tuple[float, ...], survival: Tensor) -> dict[str, Tensor]:
    return {f"survival_{time:g}": survival[:, at] for at, time in enumerate(times)}
