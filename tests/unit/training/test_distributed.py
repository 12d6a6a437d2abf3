"""Processes of one training: what is shared, and what happens when one fails alone."""

from __future__ import annotations

import threading

import pytest
import torch
from torch import nn

from pathpipe.errors import SettingsError, StoreError
from pathpipe.settings import TrainSettings
from pathpipe.tasks.classification import ClassificationTask
from pathpipe.testing.bags import random_bag
from pathpipe.training import distributed
from pathpipe.training.distributed import Group, in_step, joined_group, local_device, processes_of_torchrun
from pathpipe.training.fit import Conditions, Fit, Part
from pathpipe.training.state import Standing


@pytest.fixture(autouse=True)
def no_torchrun(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(distributed, "_apart", threading.Event())


def test_one_process_is_a_group_of_its_own() -> None:
    assert processes_of_torchrun() == 1 and joined_group() == Group(0, 1)
    group, model = Group(), nn.Linear(1, 1)
    loss = torch.tensor(2.0)
    assert group.sum_gradients(model, loss) is loss and model.weight.grad is None
    assert group.tell("x") == "x" and group.leads


def test_gradients_of_two_processes_are_summed(monkeypatch: pytest.MonkeyPatch) -> None:
    layers = [nn.Linear(2, 1, bias=False), nn.Linear(1, 1, bias=False), nn.Linear(1, 1, bias=False)]
    model = nn.Sequential(*layers)
    first, second, third = (layer.weight for layer in layers)
    first.grad = torch.tensor([[1.0, 2.0]])

    def other_too(message: torch.Tensor) -> None:  # the other process has a gradient of the second layer alone
        message += torch.tensor([0.5, 0.0, 1.0, 0.0, 0.0, 0.0, 4.0, 0.0])

    monkeypatch.setattr("torch.distributed.all_reduce", other_too)
    total = Group(0, 2).sum_gradients(model, torch.tensor(0.25))
    assert total.item() == 0.75
    assert first.grad.tolist() == [[1, 2]] and second.grad is not None and second.grad.tolist() == [[4]]
    assert third.grad is None


def test_processes_start_where_the_leader_does(monkeypatch: pytest.MonkeyPatch) -> None:
    """K-means on the first bags, which are others in each process, puts centroids where the leader's are."""
    said: list[torch.Tensor] = []

    def broadcast(values: torch.Tensor, source: int) -> None:
        if rank == source:
            said.append(values.clone())
        else:
            values.copy_(said.pop(0))

    monkeypatch.setattr("torch.distributed.broadcast", broadcast)
    settings = TrainSettings(model="gnn-vitcap", model_settings={"hidden": 8}, batch_size=2, accumulate=2)
    train = Part([random_bag(30, 5, seed=seed) for seed in range(4)], torch.tensor([0, 1, 0, 1]))
    centroids, members = [], []
    for rank in (0, 1):
        torch.manual_seed(0)
        how = Conditions(group=Group(rank, 2))
        fit = Fit.of(train, ClassificationTask("label", ("a", "b")), settings, 0, torch.device("cpu"), how)
        fit.begin_epoch(0)
        (one,) = fit.passes(Standing())
        fit.add_gradient(one, fit.batch(one))
        centroids.append(fit.model.get_parameter("centroids").detach())
        members.append(one.members.tolist())
    assert not set(members[0]) & set(members[1]) and said == []
    assert torch.equal(*centroids)


def test_a_failure_alone_parts_the_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RANK", "0")
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(SettingsError, match="MASTER_ADDR is not set"):
        joined_group()
    with pytest.raises(SettingsError), in_step():
        raise SettingsError("all meet this")
    with pytest.raises(SettingsError, match="MASTER_ADDR"):
        joined_group()
    with pytest.raises(OSError, match="disk"), in_step():
        raise OSError("disk full")
    with pytest.raises(StoreError, match="lost each other"):
        joined_group()
    assert distributed.dismiss() is False


def test_each_process_takes_the_gpu_of_its_rank(monkeypatch: pytest.MonkeyPatch) -> None:
    assert local_device("auto") == "auto"
    monkeypatch.setenv("RANK", "5")
    monkeypatch.setenv("WORLD_SIZE", "8")
    monkeypatch.setenv("LOCAL_RANK", "3")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert local_device("auto") == "cuda:1" and local_device("cpu") == "cpu" and local_device("cuda:0") == "cuda:0"
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "4")
    with pytest.raises(SettingsError, match="--device: all processes of this machine would share cuda:0"):
        local_device("cuda:0")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert local_device("auto") == "auto"
