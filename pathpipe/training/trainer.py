"""Training one fold with one seed: the loop, top to bottom."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from pathpipe.errors import SettingsError
from pathpipe.mil.bag import Bag, Bags, Labels
from pathpipe.mil.model import MILModule, TrainContext
from pathpipe.mil.registry import Recipe, build_model
from pathpipe.progress import Notify, Progress, silent
from pathpipe.settings import TrainSettings
from pathpipe.tasks.task import Task
from pathpipe.training.fold import FoldData


@dataclass(frozen=True, eq=False)
class TrainedFold:
    """A trained model and what it says of the patients it wasn't fitted to.

    Attributes:
        model: On the host, in evaluation mode, with the weights of the best epoch.
        history: One row an epoch: epoch (from 1), train_loss, val_loss, val_<metric>, lr (of its last step).
        best_epoch: The epoch with the lowest validation loss, from 1.
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


def train_fold(
    data: FoldData,
    task: Task,
    settings: TrainSettings,
    seed: int,
    device: torch.device | str = "cpu",
    notify: Notify = silent,
) -> TrainedFold:
    """Fit a model to the training patients; stop early and choose the epoch by the loss on the validation patients.

    Test patients are only predicted, once, at the end. Equal arguments give equal bits on a CPU.

    Raises:
        SettingsError: The model or an option is unknown, or the loss stops being finite.
    """
    parts = {role: _Part.of(data, role, task) for role in ("train", "val", "test")}
    weights = task.weights(parts["train"].targets) if settings.class_weights else None
    rows: list[dict[str, float]] = []
    best_epoch, best_loss = 0, math.inf
    best_state: dict[str, Tensor] = {}

    with _own_randomness(seed, device):
        dim = parts["train"].bags[0].dim
        recipe = Recipe(settings.model, settings.model_settings, settings.wrappers)
        model = build_model(recipe, dim, task.outputs).to(device)
        optimiser = torch.optim.AdamW(model.parameters(), lr=settings.lr, weight_decay=settings.weight_decay)
        fit = _Fit(model, optimiser, task, settings, weights, torch.Generator().manual_seed(seed), device)
        model.setup(fit.context(0, 0, len(parts["train"])))

        for epoch in range(settings.epochs):
            train_loss, lr = _train_epoch(fit, parts["train"], epoch)
            val_loss, metrics = _validate(fit, parts["val"], epoch)
            rows.append({"epoch": epoch + 1, "train_loss": train_loss, "val_loss": val_loss, **metrics, "lr": lr})
            if val_loss < best_loss:
                best_epoch, best_loss = epoch + 1, val_loss
                best_state = {name: value.detach().clone() for name, value in model.state_dict().items()}
            key, note = f"fold-{data.fold}-seed-{seed}", f"validation loss {val_loss:.3f}"
            notify(Progress("train", key, epoch + 1, settings.epochs, note))
            if epoch + 1 - best_epoch >= settings.patience:
                break

        model.load_state_dict(best_state)
        logits = {role: predict_logits(model, parts[role].bags, device) for role in ("val", "test")}

    mean, std = _moments(parts["train"].bags)
    return TrainedFold(
        fold=data.fold,
        seed=seed,
        model=model.deployed().cpu().eval(),
        history=pd.DataFrame(rows),
        best_epoch=best_epoch,
        logits=logits,
        patients={role: data.roles[role] for role in ("val", "test")},
        feature_mean=mean,
        feature_std=std,
    )


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
    optimiser: torch.optim.Optimizer
    task: Task
    settings: TrainSettings
    weights: Tensor | None
    generator: torch.Generator
    device: torch.device | str

    def context(self, epoch: int, step: int, bags: int) -> TrainContext:
        """Where training stands, for the model's hooks."""
        total_steps = self.settings.epochs * math.ceil(bags / self.settings.batch_size)
        return TrainContext(epoch, self.settings.epochs, step, total_steps, self.generator)


def _train_epoch(fit: _Fit, train: _Part, epoch: int) -> tuple[float, float]:
    """One pass over the training bags in a new order; returns the mean loss and the last learning rate."""
    settings = fit.settings
    batches = torch.randperm(len(train), generator=fit.generator).split(settings.batch_size)
    fit.model.train()
    fit.model.on_epoch(fit.context(epoch, epoch * len(batches), len(train)))
    total_loss = lr = 0.0
    for step, members in enumerate(batches, start=epoch * len(batches)):
        context = fit.context(epoch, step, len(train))
        lr = settings.lr * _schedule(step, settings.warmup_epochs * len(batches), context.total_steps)
        for group in fit.optimiser.param_groups:
            group["lr"] = lr
        chosen = [_subsample(train.bags[index], settings.max_instances, fit.generator) for index in members.tolist()]
        targets = train.targets[members].to(fit.device)
        batch = replace(Bags.pack(chosen, fit.device), labels=Labels(fit.task.kind, targets))
        fit.model.pre_step(batch, context)
        loss = fit.model(batch).total_loss(partial(_criterion, fit, targets))
        fit.optimiser.zero_grad()
        loss.backward()
        fit.optimiser.step()
        fit.model.post_step(batch, context)
        total_loss += _finite(loss, "training", epoch) * len(members)
    return total_loss / len(train), lr


def _criterion(fit: _Fit, targets: Tensor, logits: Tensor, bag: Tensor | None, share: Tensor | None) -> Tensor:
    """The task's loss of one row of logits a bag, or of rows that say whose target they have."""
    weights = None if fit.weights is None else fit.weights.to(fit.device)
    return fit.task.loss(logits, targets if bag is None else targets[bag], weights, share)


def _validate(fit: _Fit, val: _Part, epoch: int) -> tuple[float, dict[str, float]]:
    """The task's loss, weighted as in training, and its metrics under `val_` names."""
    logits = predict_logits(fit.model, val.bags, fit.device)
    loss = _finite(fit.task.loss(logits, val.targets, fit.weights), "validation", epoch)
    return loss, {f"val_{name}": value for name, value in fit.task.metrics(logits, val.targets).items()}


def predict_logits(model: MILModule, bags: Sequence[Bag], device: torch.device | str = "cpu") -> Tensor:
    """(P, C) float32 logits on the host, the model left in evaluation mode.

    One bag at a time: a bag's logits then don't depend, even in the last bit, on which others are predicted with it.
    """
    model.eval()
    with torch.no_grad():
        return torch.cat([model(Bags.pack([bag], device)).logits.float().cpu() for bag in bags])


def _schedule(step: int, warmup_steps: int, total_steps: int) -> float:
    """Share of the peak learning rate: linear from 1/warmup_steps up to 1, then a half cosine towards 0."""
    if step < warmup_steps:
        return (step + 1) / warmup_steps
    return (1 + math.cos(math.pi * (step - warmup_steps) / (total_steps - warmup_steps))) / 2


def _subsample(bag: Bag, largest: int | None, generator: torch.Generator) -> Bag:
    if largest is None or len(bag) <= largest:
        return bag
    rows = torch.randperm(len(bag), generator=generator)[:largest].sort().values
    return bag.take(rows.numpy())


@contextmanager
def _own_randomness(seed: int, device: torch.device | str) -> Iterator[None]:
    """Seed torch's global generators (initial weights, dropout) inside, and leave them as they were."""
    cuda = [torch.device(device)] if torch.device(device).type == "cuda" else []
    with torch.random.fork_rng(devices=cuda):
        torch.manual_seed(seed)
        yield


def _finite(loss: Tensor, part: str, epoch: int) -> float:
    value = loss.item()
    if not math.isfinite(value):
        raise SettingsError(f"the {part} loss is {value} in epoch {epoch + 1}", hint="lower train.lr")
    return value


def _moments(bags: Sequence[Bag]) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation of the features, bags weighing alike however many tiles they have."""
    mean = np.mean([np.asarray(bag.features).mean(0, dtype=np.float64) for bag in bags], axis=0)
    squares = [np.square(np.asarray(bag.features, np.float32) - mean.astype(np.float32)).mean(0) for bag in bags]
    std = np.sqrt(np.mean(squares, axis=0, dtype=np.float64))
    return torch.from_numpy(mean).float(), torch.from_numpy(std).float()
