"""Training one fold with one seed: the loop, top to bottom."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from pathpipe.errors import SettingsError
from pathpipe.mil.bag import Bag, Bags, Labels
from pathpipe.mil.model import MILModule, MILOutput, TrainContext
from pathpipe.mil.registry import Recipe, build_model
from pathpipe.progress import Notify, Progress, silent
from pathpipe.settings import TrainSettings
from pathpipe.tasks.task import Task
from pathpipe.training.distributed import Group
from pathpipe.training.fold import FoldData
from pathpipe.training.logs import Log
from pathpipe.training.monitor import better, score_of
from pathpipe.training.optimise import Average, clip_gradient, learning_rate, make_optimiser
from pathpipe.training.sampling import (
    Draws,
    Mixture,
    Pass,
    ahead,
    classes_to_balance,
    mix,
    order_of_epoch,
    passes_of_epoch,
    steps_of_epoch,
    thin,
)
from pathpipe.training.state import Standing, StateFile

_TYPES = {"fp32": None, "bf16": torch.bfloat16, "fp16": torch.float16}


@dataclass(frozen=True, eq=False)
class TrainedFold:
    """A trained model and what it says of the patients it wasn't fitted to.

    Attributes:
        model: On the host, in evaluation mode, with the weights of the best epoch.
        history: One row an epoch: epoch (from 1), train_loss, val_loss, val_<metric>, lr (of its last step).
        best_epoch: The epoch that `monitor` chose on validation, from 1.
        logits: `val` and `test` -> (P, C) float32, rows in the order of `patients`.
        patients: `val` and `test` -> patient ids.
        feature_mean: (D,) float32 over the training tiles; every bag counts alike.
        feature_std: (D,) float32 likewise.
    """

    fold: int
    seed: int
    model: MILModule
    history: pd.DataFrame
    best_epoch: int
    logits: Mapping[str, Tensor]
    patients: Mapping[str, tuple[str, ...]]
    feature_mean: Tensor
    feature_std: Tensor


@dataclass(frozen=True, eq=False)
class Conditions:
    """How a training is done; never what comes out of it.

    Attributes:
        keep: Where it is saved while it is under way.
        logs: Who is told of every epoch, beside the history.
        group: The processes it is done in.
        compile: Whether torch.compile fuses the model.
        roles: Roles that are predicted in the end.
    """

    keep: StateFile | None = None
    logs: Sequence[Log] = ()
    group: Group = field(default_factory=Group)
    compile: bool = False
    roles: tuple[str, ...] = ("val", "test")


def train_fold(
    data: FoldData,
    task: Task,
    settings: TrainSettings,
    seed: int,
    device: torch.device | str = "cpu",
    notify: Notify = silent,
    how: Conditions = Conditions(),  # noqa: B008 - frozen
) -> TrainedFold:
    """Fit a model to the training patients; stop early and choose the epoch by the validation patients.

    Test patients are only predicted, once, at the end. Equal arguments give equal bits on a CPU, however often the
    training was cut off and gone on with from `how.keep`.

    Raises:
        SettingsError: The model or an option is unknown, settings don't fit the task or the device, or the loss stops
            being finite.
    """
    parts = {role: _Part.of(data, role, task) for role in ("train", "val", *how.roles)}
    train, val = parts["train"], parts["val"]
    with _own_randomness(seed, device):
        fit = _Fit.of(train, task, settings, seed, device, how)
        now = fit.resume()
        while not _finished(now, settings):
            loss, lr = _train_epoch(fit, train, now)
            with fit.averaged():
                val_loss, metrics = _validate(fit, val, now.epoch)
                score = score_of(settings.monitor, val_loss, metrics)
                now.epoch, now.step, now.loss = now.epoch + 1, 0, 0.0
                if better(score, now.best):
                    now.best_epoch, now.best = now.epoch, score
                    now.weights = {name: value.detach().clone() for name, value in fit.model.state_dict().items()}
            measured = {f"val_{name}": value for name, value in metrics.items()}
            row = {"epoch": now.epoch, "train_loss": loss, "val_loss": val_loss, **measured, "lr": lr}
            now.history.append(row)
            for log in how.logs:
                log.epoch(row)
            fit.save(now)
            key, note = f"fold-{data.fold}-seed-{seed}", f"validation loss {val_loss:.3f}"
            notify(Progress("train", key, now.epoch, settings.epochs, note))

        fit.model.load_state_dict(now.weights)
        logits = {role: predict_logits(fit.model, parts[role].bags, device, how.group) for role in how.roles}

    mean, std = _moments(train.bags)
    return TrainedFold(
        fold=data.fold,
        seed=seed,
        model=fit.model.deployed().cpu().eval(),
        history=pd.DataFrame(now.history),
        best_epoch=now.best_epoch,
        logits=logits,
        patients={role: data.roles[role] for role in how.roles},
        feature_mean=mean,
        feature_std=std,
    )


def _finished(now: Standing, settings: TrainSettings) -> bool:
    """Whether all epochs are through, or enough of them in which nothing got better."""
    waited = now.epoch - now.best_epoch >= settings.patience
    return now.epoch >= settings.epochs or (waited and now.epoch >= settings.min_epochs)


@dataclass(frozen=True, eq=False)
class _Part:
    """The bags and targets of one role, in one order."""

    bags: Sequence[Bag]
    targets: Tensor

    @classmethod
    def of(cls, data: FoldData, role: str, task: Task) -> _Part:
        """One role of a fold."""
        members = data.roles[role]
        return cls([data.bags[p] for p in members], task.encode([data.labels[p] for p in members]))

    def __len__(self) -> int:
        return len(self.bags)


@dataclass(frozen=True, eq=False)
class _Fit:
    """What stays the same over the epochs of one fold and seed."""

    model: MILModule
    forward: Callable[[Bags], MILOutput]
    optimiser: torch.optim.Optimizer
    scaler: torch.amp.GradScaler
    average: Average | None
    task: Task
    settings: TrainSettings
    weights: Tensor | None
    classes: Tensor | None
    draws: Draws
    device: torch.device
    bags: int
    how: Conditions

    @classmethod
    def of(
        cls, train: _Part, task: Task, settings: TrainSettings, seed: int, device: torch.device | str, how: Conditions
    ) -> _Fit:
        """A fresh model and all it takes to fit it."""
        device = torch.device(device)
        _refuse(task, settings, device, how.group)
        recipe = Recipe(settings.model, settings.model_settings, settings.wrappers)
        model = build_model(recipe, train.bags[0].dim, task.outputs).to(device)
        return cls(
            model=model,
            forward=torch.compile(model, dynamic=True) if how.compile else model,
            optimiser=make_optimiser(model, settings),
            scaler=torch.amp.GradScaler(device.type, enabled=settings.precision == "fp16"),
            average=Average(model, settings.average) if settings.average else None,
            task=task,
            settings=settings,
            weights=task.weights(train.targets) if settings.balance == "weights" else None,
            classes=classes_to_balance(task.kind, train.targets) if settings.balance == "sampling" else None,
            draws=Draws(seed),
            device=device,
            bags=len(train),
            how=how,
        )

    def context(self, epoch: int, step: int, generator: torch.Generator) -> TrainContext:
        """Where training stands, for the model's hooks."""
        total_steps = self.settings.epochs * steps_of_epoch(self.bags, self.settings)
        return TrainContext(epoch, self.settings.epochs, step, total_steps, generator)

    def begin_epoch(self, epoch: int) -> None:
        """Tell the model."""
        self.model.train()
        torch.manual_seed(self.draws.seed_of("epoch", epoch))
        step = epoch * steps_of_epoch(self.bags, self.settings)
        self.model.on_epoch(self.context(epoch, step, self.draws.generator("epoch", epoch)))

    def averaged(self) -> Any:
        """The weights that validate and predict, inside."""
        return nullcontext() if self.average is None else self.average.applied()

    def autocast(self) -> Any:
        """The arithmetic asked for."""
        kind = _TYPES[self.settings.precision]
        return nullcontext() if kind is None else torch.autocast(self.device.type, kind)

    def resume(self) -> Standing:
        """Set the model up; go on from where an earlier attempt was cut off."""
        self.model.setup(self.context(0, 0, self.draws.generator("epoch", 0)))
        saved = self.how.keep.read() if self.how.keep else None
        if saved is None:
            return Standing()
        now = Standing(**saved["standing"])
        if now.step:  # the model heard of this epoch; what that did to its weights and buffers comes with them
            self.begin_epoch(now.epoch)
        self.model.load_state_dict(saved["model"])
        self.optimiser.load_state_dict(saved["optimiser"])
        self.scaler.load_state_dict(saved["scaler"])
        if self.average is not None:
            self.average.load_state_dict(saved["average"])
        return now

    def save(self, now: Standing) -> None:
        """Keep all it takes to go on, from time to time."""
        if self.how.keep is not None and self.how.group.leads:
            self.how.keep.save(
                lambda: {
                    "standing": dict(vars(now)),
                    "model": self.model.state_dict(),
                    "optimiser": self.optimiser.state_dict(),
                    "scaler": self.scaler.state_dict(),
                    "average": None if self.average is None else self.average.state_dict(),
                }
            )


@dataclass(frozen=True, eq=False)
class _Batch:
    """What one pass takes: bags with their labels, and what they were mixed with."""

    bags: Bags
    targets: Tensor
    mixture: Mixture | None


def _train_epoch(fit: _Fit, train: _Part, now: Standing) -> tuple[float, float]:
    """One pass over the training bags in a new order; returns the mean loss and the last learning rate."""
    settings, epoch, group = fit.settings, now.epoch, fit.how.group
    if now.step == 0:
        fit.begin_epoch(epoch)
    fit.model.train()
    steps = steps_of_epoch(len(train), settings)
    order = order_of_epoch(len(train), fit.classes, fit.draws.generator("order", epoch))
    passes = passes_of_epoch(order, settings, epoch, now.step, (group.rank, group.size))
    lr, loss = 0.0, torch.zeros((), device=fit.device)
    total = torch.tensor(now.loss, dtype=torch.float64)
    for one, batch in ahead(passes, partial(_prepare, fit, train)):
        step = epoch * steps + one.step
        if one.first:
            lr = learning_rate(settings, step, settings.warmup_epochs * steps, settings.epochs * steps)
            for group_of_parameters in fit.optimiser.param_groups:
                group_of_parameters["lr"] = lr
            fit.optimiser.zero_grad()
            loss = torch.zeros((), device=fit.device)
        loss += one.weight * _forward_and_backward(fit, one, batch, fit.context(epoch, step, fit.draws.generator("forward", one.number)))
        if one.last:
            ...
    return 0.0, lr
