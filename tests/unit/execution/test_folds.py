"""How many trainings run at once, and where."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch

from pathpipe.cohort import Cohort
from pathpipe.execution import folds
from pathpipe.execution.folds import devices_of_folds, threads_of_fold
from pathpipe.run import Run
from pathpipe.settings import RunSettings, merge


def _settings(**execution: Any) -> RunSettings:
    return merge(RunSettings, [("test", {"execution": execution})])[0]


@pytest.fixture
def run(tmp_path: Path) -> Run:
    (tmp_path / "a.svs").write_bytes(b"")
    pd.DataFrame({"path": ["a.svs"], "label": ["x"]}).to_csv(tmp_path / "cohort.csv", index=False)
    run = Run.create(tmp_path / "run", Cohort.read(tmp_path / "cohort.csv"))
    features = run.features("efficientnet-lite0", "a")
    features.parent.mkdir(parents=True)
    features.write_bytes(bytes(1000))
    return run


@pytest.fixture(autouse=True)
def eight_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(folds, "cores", lambda: 8)
    for name in ("RANK", "WORLD_SIZE"):
        monkeypatch.delenv(name, raising=False)


@pytest.mark.parametrize(("units", "count"), [(0, 1), (1, 1), (3, 1), (4, 2), (15, 7), (40, 8)])
def test_processes_follow_from_units_and_cores(units: int, count: int, run: Run) -> None:
    assert devices_of_folds(run, _settings(device="cpu"), units) == ["cpu"] * count


def test_as_many_as_asked_for_but_not_more_than_units(run: Run) -> None:
    assert devices_of_folds(run, _settings(device="cpu", workers=3), 40) == ["cpu"] * 3
    assert devices_of_folds(run, _settings(device="cpu", workers=30), 5) == ["cpu"] * 5


def test_no_more_than_fit_the_memory(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.sysconf", lambda name: {"SC_PAGE_SIZE": 1, "SC_PHYS_PAGES": 6400}[name])
    assert devices_of_folds(run, _settings(device="cpu"), 40) == ["cpu"] * 3  # half of 6400 bytes, 1000 each
    monkeypatch.setattr("pathpipe.store.pack.fresh_pack", lambda files: object())  # mapped: one copy for all
    assert devices_of_folds(run, _settings(device="cpu"), 40) == ["cpu"] * 8


def test_features_of_several_encoders_are_copied_into_each_process(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    other = run.features("resnet50", "a")
    other.parent.mkdir(parents=True)
    other.write_bytes(bytes(600))
    monkeypatch.setattr("os.sysconf", lambda name: {"SC_PAGE_SIZE": 1, "SC_PHYS_PAGES": 6400}[name])
    monkeypatch.setattr("pathpipe.store.pack.fresh_pack", lambda files: object())
    values = {"train": {"encoders": ["efficientnet-lite0", "resnet50"]}, "execution": {"device": "cpu"}}
    settings = merge(RunSettings, [("test", values)])[0]
    assert devices_of_folds(run, settings, 40) == ["cpu"] * 2  # half of 6400 bytes, 1600 each


def test_several_folds_on_each_gpu(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    found = devices_of_folds(run, _settings(gpus="all", folds_per_gpu=2), 10)
    assert sorted(found) == ["cuda:0", "cuda:0", "cuda:1", "cuda:1"]
    assert devices_of_folds(run, _settings(gpus="all", folds_per_gpu=2), 2) == ["cuda:0", "cuda:1"]


def test_one_process_for_each_of_torchrun(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RANK", "0")
    monkeypatch.setenv("WORLD_SIZE", "4")
    assert devices_of_folds(run, _settings(device="cpu", workers=4), 10) == ["cpu"]


def test_threads_are_shared() -> None:
    assert [threads_of_fold(count) for count in (1, 2, 3, 8, 20)] == [8, 4, 2, 1, 1]
