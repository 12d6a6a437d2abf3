"""Logs: who else is told of every epoch. `history.csv` is always written; these are asked for by name.

They are for people to watch and hold times, so they lie beside the results (`RUN/logs/`) and are part of none.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any, Protocol

from pathpipe.errors import MissingError


@dataclass(frozen=True)
class Story:
    """What a log is about.

    Attributes:
        run: Name of the run's folder.
        name: Of the trained model.
        unit: `fold-N-seed-M`.
        fingerprint: Of what is trained: one that goes on after a kill is the same story.
        settings: Of training, flat, for the logs that show them.
        folder: Where files go.
    """

    run: str
    name: str
    unit: str
    fingerprint: str
    settings: Mapping[str, Any]
    folder: Path


class Log(Protocol):
    """One place that follows a training."""

    def epoch(self, row: Mapping[str, float]) -> None:
        """A row of the history, as soon as it is there."""

    def close(self, finished: bool) -> None:
        """The training is through, or was cut off by a failure."""


class TensorBoardLog:
    """Event files under the story's folder; epochs that are done again replace the former."""

    def __init__(self, story: Story) -> None:
        _package("tensorboard", "tensorboard")
        from torch.utils.tensorboard import SummaryWriter

        self._folder = str(story.folder / "tensorboard")
        self._writer_of = SummaryWriter
        self._writer: Any = None

    def epoch(self, row: Mapping[str, float]) -> None:
        """One point on each curve."""
        step = int(row["epoch"])
        if self._writer is None:
            self._writer = self._writer_of(self._folder, purge_step=step)
        for name, value in _measures(row).items():
            self._writer.add_scalar(name.replace("_", "/", 1), value, step)
        self._writer.flush()

    def close(self, finished: bool) -> None:
        """End the file."""
        if self._writer is not None:
            self._writer.close()


class WandbLog:
    """A run of Weights & Biases in the project of the run's name; where it goes is for its own environment to say."""

    def __init__(self, story: Story) -> None:
        wandb = _package("wandb", "wandb")
        story.folder.mkdir(parents=True, exist_ok=True)
        self._run = wandb.init(
            project=story.run,
            group=story.name,
            name=f"{story.name}/{story.unit}",
            id=story.fingerprint,
            resume="allow",
            config=dict(story.settings),
            dir=str(story.folder),
            reinit="create_new",
        )

    def epoch(self, row: Mapping[str, float]) -> None:
        """One row of its table."""
        self._run.log(dict(row), step=int(row["epoch"]))

    def close(self, finished: bool) -> None:
        """Tell it how it ended."""
        self._run.finish(exit_code=0 if finished else 1)


class MlflowLog:
    """A run of MLflow in the experiment of the run's name: on the server its environment names, or in the folder."""

    def __init__(self, story: Story) -> None:
        mlflow = _package("mlflow", "mlflow")
        import os

        uri = os.environ.get("MLFLOW_TRACKING_URI")
        if uri is None:
            story.folder.mkdir(parents=True, exist_ok=True)
            uri = f"sqlite:///{story.folder.absolute() / 'mlflow.db'}"
        self._client = mlflow.MlflowClient(tracking_uri=uri)
        found = self._client.get_experiment_by_name(story.run)
        experiment = found.experiment_id if found else self._client.create_experiment(story.run)
        query = f"tags.pathpipe = '{story.fingerprint}'"
        runs: Sequence[Any] = self._client.search_runs([experiment], filter_string=query)
        if runs:
            self._id = runs[0].info.run_id
            return
        tags = {"pathpipe": story.fingerprint, "mlflow.runName": f"{story.name}/{story.unit}"}
        self._id = self._client.create_run(experiment, tags=tags).info.run_id
        for name, value in story.settings.items():
            self._client.log_param(self._id, _spelt(name), value)

    def epoch(self, row: Mapping[str, float]) -> None:
        """One point on each curve."""
        for name, value in _measures(row).items():
            self._client.log_metric(self._id, _spelt(name), value, step=int(row["epoch"]))

    def close(self, finished: bool) -> None:
        """Tell it how it ended."""
        self._client.set_terminated(self._id, "FINISHED" if finished else "FAILED")


KINDS: Mapping[str, type[Log]] = {"tensorboard": TensorBoardLog, "wandb": WandbLog, "mlflow": MlflowLog}


def open_logs(names: Sequence[str], story: Story) -> tuple[Log, ...]:
    """The logs asked for.

    Raises:
        MissingError: A package is not installed.
    """
    return tuple(KINDS[name](story) for name in names)  # type: ignore[call-arg]


def refuse_missing(names: Sequence[str]) -> None:
    """Say now that a package is not installed.

    Raises:
        MissingError: It isn't.
    """
    for name in names:
        _package(name, name)


def _measures(row: Mapping[str, float]) -> dict[str, float]:
    return {name: value for name, value in row.items() if name != "epoch"}


def _spelt(name: str) -> str:
    """A name that MLflow takes, where metrics of several targets are called `age:regression r2`."""
    return re.sub(r"[^\w./-]", "_", name)


def _package(name: str, extra: str) -> Any:
    try:
        return import_module(name)
    except ModuleNotFoundError as error:
        raise MissingError(
            f"the package `{error.name or name}` is not installed",
            where=f"--log {extra}",
            hint=f'pip install "pathpipe[{extra}]"',
        ) from None
