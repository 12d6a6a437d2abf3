"""Outcomes of a training on disk: the task, and a table of predictions for each of its targets."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import cast

import torch

from pathpipe.errors import StoreError
from pathpipe.evaluation.columns import Kind
from pathpipe.evaluation.predictions import Predictions
from pathpipe.publish import publish_json
from pathpipe.run import safe_name
from pathpipe.tasks.labels import Label
from pathpipe.tasks.task import Table, Task, task_from_dict
from pathpipe.training.trainer import TrainedFold

TASK, PREDICTIONS = "task.json", "predictions.csv"


def predictions_of(trained: TrainedFold, task: Task, labels: Mapping[str, Label]) -> dict[str, Predictions]:
    """Target -> what a trained fold says of its validation and test patients whose truth is known."""
    parts: dict[str, list[Predictions]] = {}
    for role in ("val", "test"):
        patients = trained.patients[role]
        tables = task.tables(trained.logits[role], [labels[patient] for patient in patients])
        for table in tables:
            one = _of_known(table, patients, (trained.fold, trained.seed, role))
            parts.setdefault(table.target, []).append(one)
    return {target: Predictions.concatenate(found) for target, found in parts.items()}


def _of_known(table: Table, patients: Sequence[str], place: tuple[int, int, str]) -> Predictions:
    def kept(values: Sequence[object]) -> list[object]:
        return [value for value, known in zip(values, table.known, strict=True) if known]

    columns = {name: kept(values) for name, values in table.columns.items()}
    return Predictions.of_columns(table.kind, [str(name) for name in kept(patients)], columns, place)


def write_outcomes(folder: Path, task: Task, predictions: Mapping[str, Predictions]) -> None:
    """Write the task and a table a target."""
    publish_json(folder / TASK, task.to_dict())
    for target, name in table_files(task).items():
        predictions[target].write(folder / name)


def read_outcomes(folder: Path) -> tuple[Task, dict[str, Predictions]]:
    """Read them back: the task, and target -> predictions.

    Raises:
        StoreError: The folder is damaged.
    """
    task = read_task(folder)
    files = table_files(task)
    kinds = {table.target: cast("Kind", table.kind) for table in _tables(task)}
    return task, {target: Predictions.read(folder / name, kinds[target]) for target, name in files.items()}


def read_task(folder: Path) -> Task:
    """The task of a training or an evaluation.

    Raises:
        StoreError: It is missing or damaged.
    """
    try:
        value = json.loads((folder / TASK).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise StoreError(f"can't be read as a task: {error}", where=str(folder / TASK)) from None
    return task_from_dict(value)


def table_files(task: Task) -> dict[str, str]:
    """Target -> name of its table; each label of a multilabel target has its own."""
    targets = [table.target for table in _tables(task)]
    if len(targets) == 1:
        return {targets[0]: PREDICTIONS}
    stem, _, suffix = PREDICTIONS.partition(".")
    return {target: f"{stem}-{safe_name(target)}.{suffix}" for target in targets}


def _tables(task: Task) -> tuple[Table, ...]:
    return task.tables(torch.zeros(0, task.outputs))
