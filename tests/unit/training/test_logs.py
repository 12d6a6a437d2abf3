"""Logs hear every epoch; those of packages that aren't here are tried on stand-ins with the packages' own calls."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from pathpipe.errors import MissingError
from pathpipe.training.fit import Conditions
from pathpipe.training.logs import Story, open_logs, refuse_missing
from pathpipe.training.trainer import train_fold
from tests.unit.training.test_trainer import QUICK, TASK, _data

MLFLOW_NAME = r"[/\w.\- ]*"  # what MLflow 2 lets metrics and parameters be called; newer ones take a colon too
ROWS = [{"epoch": 1, "train_loss": 0.5, "val_auroc": 0.75, "lr": 0.01}, {"epoch": 2, "train_loss": 0.25, "lr": 0.02}]


@pytest.fixture
def story(tmp_path: Path) -> Story:
    return Story("cohort", "abmil-label", "fold-1-seed-0", "f00d", {"lr": 0.01}, tmp_path / "logs")


def test_training_tells_every_epoch() -> None:
    class Heard:
        def __init__(self) -> None:
            self.rows: list[dict[str, float]] = []

        def epoch(self, row: Any) -> None:
            self.rows.append(dict(row))

        def close(self, finished: bool) -> None:
            raise AssertionError("whoever opened it closes it")

    log = Heard()
    trained = train_fold(_data(), TASK, QUICK, 0, how=Conditions(logs=[log]))
    assert log.rows == trained.history.to_dict("records")


def test_tensorboard_events_can_be_read_back(story: Story) -> None:
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    for rows in (ROWS[:1], ROWS):  # cut off after one epoch, which is done again
        (log,) = open_logs(["tensorboard"], story)
        for row in rows:
            log.epoch(row)
        log.close(True)
    events = EventAccumulator(str(story.folder / "tensorboard"))
    events.Reload()
    assert set(events.Tags()["scalars"]) == {"train/loss", "val/auroc", "lr"}
    assert [(one.step, one.value) for one in events.Scalars("train/loss")] == [(1, 0.5), (2, 0.25)]


def test_wandb(story: Story, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[Any] = []
    run = SimpleNamespace(
        log=lambda row, step: calls.append((row, step)), finish=lambda exit_code: calls.append(exit_code)
    )

    def init(**named: Any) -> Any:
        calls.append(named)
        return run

    module = ModuleType("wandb")
    module.init = init  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "wandb", module)
    (log,) = open_logs(["wandb"], story)
    for row in ROWS:
        log.epoch(row)
    log.close(False)
    asked, *rest = calls
    assert asked["project"] == "cohort" and asked["id"] == "f00d" and asked["resume"] == "allow"
    assert asked["config"] == {"lr": 0.01} and asked["dir"] == str(story.folder)
    assert rest == [(ROWS[0], 1), (ROWS[1], 2), 1]


class FakeMlflow:
    """A tracking server that remembers."""

    runs: dict[str, dict[str, Any]]

    def __init__(self) -> None:
        self.runs = {}

    def __call__(self, tracking_uri: str) -> FakeMlflow:
        self.uri = tracking_uri
        return self

    def get_experiment_by_name(self, name: str) -> Any:
        return SimpleNamespace(experiment_id="7") if self.runs else None

    def create_experiment(self, name: str) -> str:
        return "7"

    def search_runs(self, experiments: list[str], filter_string: str) -> list[Any]:
        found = [key for key, one in self.runs.items() if f"'{one['tags']['pathpipe']}'" in filter_string]
        return [SimpleNamespace(info=SimpleNamespace(run_id=key)) for key in found]

    def create_run(self, experiment: str, tags: dict[str, str]) -> Any:
        self.runs["r1"] = {"tags": tags, "params": {}, "metrics": [], "status": ""}
        return SimpleNamespace(info=SimpleNamespace(run_id="r1"))

    def log_param(self, run: str, name: str, value: Any) -> None:
        assert re.fullmatch(MLFLOW_NAME, name)
        self.runs[run]["params"][name] = value

    def log_metric(self, run: str, name: str, value: float, step: int) -> None:
        assert re.fullmatch(MLFLOW_NAME, name)
        self.runs[run]["metrics"].append((name, value, step))

    def set_terminated(self, run: str, status: str) -> None:
        self.runs[run]["status"] = status


def test_mlflow_goes_on_with_the_run_it_began(story: Story, monkeypatch: pytest.MonkeyPatch) -> None:
    client, module = FakeMlflow(), ModuleType("mlflow")
    module.MlflowClient = client  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "mlflow", module)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    for row in ROWS:
        (log,) = open_logs(["mlflow"], story)
        log.epoch(row)
    log.close(True)
    assert client.uri == f"sqlite:///{story.folder / 'mlflow.db'}" and list(client.runs) == ["r1"]
    assert client.runs["r1"] == {
        "tags": {"pathpipe": "f00d", "mlflow.runName": "abmil-label/fold-1-seed-0"},
        "params": {"lr": 0.01},
        "metrics": [
            ("train_loss", 0.5, 1), ("val_auroc", 0.75, 1), ("lr", 0.01, 1), ("train_loss", 0.25, 2), ("lr", 0.02, 2)
        ],
        "status": "FINISHED",
    }  # fmt: skip
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://server:5000")
    open_logs(["mlflow"], story)
    assert client.uri == "http://server:5000"


def test_mlflow_takes_the_metrics_of_several_targets(story: Story, monkeypatch: pytest.MonkeyPatch) -> None:
    client, module = FakeMlflow(), ModuleType("mlflow")
    module.MlflowClient = client  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "mlflow", module)
    (log,) = open_logs(["mlflow"], story)
    log.epoch({"epoch": 1, "val_er/pr:multilabel auroc": 0.5, "val_t/!c:survival cindex": 0.75})
    named = [name for name, _, _ in client.runs["r1"]["metrics"]]
    assert named == ["val_er/pr_multilabel_auroc", "val_t/_c_survival_cindex"]


@pytest.mark.parametrize("name", ["tensorboard", "wandb", "mlflow"])
def test_says_how_to_install_what_is_missing(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(MissingError, match=rf'--log {name}: .*pip install "pathpipe\[{name}\]"'):
        refuse_missing([name])
