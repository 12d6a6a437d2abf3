"""Training one fold with one seed: the loop, top to bottom."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import pandas as pd
import torch
from torch import Tensor

from pathpipe.errors import SettingsError
from pathpipe.mil.bag import Bag, Bags
from pathpipe.mil.model import MILModule
from pathpipe.progress import Notify, Progress, silent
from pathpipe.settings import TrainSettings
from pathpipe.tasks.task import Task
from pathpipe.training.distributed import Group
from pathpipe.training.familiarity import Distances, feature_moments, known_distances
from pathpipe.training.fit import Conditions, Fit, Part
from pathpipe.training.fold import FoldData
from pathpipe.training.sampling import ahead
from pathpipe.training.state import Standing

_ALONE = Group()
_PLAIN = Conditions()


@dataclass(frozen=True, eq=False)
class TrainedFold:
    """A trained model and what it says of the patients it wasn't fitted to.

    Attributes:
        model: On the host, in evaluation mode, with the weights of the best epoch.
        history: One row an epoch: epoch (from 1), train_loss, val_loss, val_<metric>, lr (of its last step).
        best_epoch: The epoch that `monitor` chose on validation, from 1.
        logits: Role -> (P, C) float32, rows in the order of `patients`: `val`, and `test` unless it was not asked for.
        patients: The same roles -> patient ids.
        feature_mean: (D,) float32 over the training tiles; every bag counts alike.
        feature_std: (D,) float32 likewise.
        distances: How far training and validation slides lie from that mean, as `known_distances` gives it.
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
    distances: Distances


def train_fold(
    data: FoldData,
    task: Task,
    settings: TrainSettings,
    seed: int,
    device: torch.device | str = "cpu",
    notify: Notify = silent,
    how: Conditions = _PLAIN,
) -> TrainedFold:
    """Fit a model to the training patients; stop early and choose the epoch by the validation patients.

    Test patients are only predicted, once, at the end. Equal arguments give equal bits on a CPU, however often the
    training was cut off and gone on with from `how.keep`.

    Raises:
        SettingsError: The model or an option is unknown, settings don't fit the task or the device, or the loss stops
            being finite.
    """
    train, val = _part(data, "train", task), _part(data, "val", task)
    _refuse_blind(task, val, settings.monitor)
    with _own_randomness(seed, device):
        fit = Fit.of(train, task, settings, seed, torch.device(device), how)
        now = fit.resume()
        while not _finished(now, settings):
            loss, lr = _train_epoch(fit, now)
            with fit.averaged():
                val_loss, metrics = _validate(fit, val, now.epoch)
                now.epoch, now.step, now.loss = now.epoch + 1, 0, torch.zeros_like(now.loss)
                score = _score(settings.monitor, val_loss, metrics)
                if not now.best or score > now.best:
                    now.best_epoch, now.best = now.epoch, score
                    now.weights = {name: value.detach().clone() for name, value in fit.model.state_dict().items()}
            measured = {f"val_{name}": value for name, value in metrics.items()}
            row = {"epoch": now.epoch, "train_loss": loss, "val_loss": val_loss, **measured, "lr": lr}
            now.history.append(row)
            for log in how.logs:
                log.epoch(row)
            fit.keep(now)
            key, note = f"fold-{data.fold}-seed-{seed}", f"validation loss {val_loss:.3f}"
            notify(Progress("train", key, now.epoch, settings.epochs, note))

        fit.model.load_state_dict(now.weights)
        logits = {
            role: predict_logits(fit.model, [data.bags[p] for p in data.roles[role]], device, how.group)
            for role in how.predict
        }

    mean, std = feature_moments(train.bags)
    return TrainedFold(
        fold=data.fold,
        seed=seed,
        model=fit.model.deployed().cpu().eval(),
        history=pd.DataFrame(now.history),
        best_epoch=now.best_epoch,
        logits=logits,
        patients={role: data.roles[role] for role in how.predict},
        feature_mean=mean,
        feature_std=std,
        distances=known_distances(train.bags, val.bags, mean, std),
    )


def _part(data: FoldData, role: str, task: Task) -> Part:
    members = data.roles[role]
    return Part([data.bags[p] for p in members], task.encode([data.labels[p] for p in members]))


def _refuse_blind(task: Task, val: Part, monitor: str) -> None:
    """Cox's loss is 0 whatever a model says, and so chooses the first epoch, where no two patients can be compared."""
    if task.kind == "cox" and monitor == "loss":
        measured = task.metrics(torch.zeros(len(val), task.outputs), val.targets)
        if all(math.isnan(value) for value in measured.values()):
            raise SettingsError(
                "no two validation patients can be compared by Cox's loss: none had the event before another",
                where="train.monitor",
                hint="use a larger --val-fraction, fewer folds, or a discrete-time target (`TIME/EVENT:survival`)",
            )


def _finished(now: Standing, settings: TrainSettings) -> bool:
    """Whether all epochs are through, or enough of them in which nothing got better."""
    waited = now.epoch - now.best_epoch >= settings.patience
    return now.epoch >= settings.epochs or (waited and now.epoch >= settings.min_epochs)


def _train_epoch(fit: Fit, now: Standing) -> tuple[float, float]:
    """One pass over the training bags in a new order; returns the mean loss and the last learning rate."""
    if now.step == 0:
        fit.begin_epoch(now.epoch)
    now.loss, loss = now.loss.to(fit.device), torch.zeros((), device=fit.device)
    for one, batch in ahead(fit.passes(now), fit.batch):
        if one.first:
            fit.begin_step(one.step)
            loss = torch.zeros_like(loss)
        loss += one.weight * fit.add_gradient(one, batch)
        if one.last:
            now.loss += fit.end_step(one, batch, loss) * one.bags
            now.step += 1
            fit.keep(now)
    return _finite(now.loss / len(fit.train), "training", now.epoch), fit.rate((now.epoch + 1) * fit.steps - 1)


def _validate(fit: Fit, val: Part, epoch: int) -> tuple[float, dict[str, float]]:
    """The task's loss, weighted as in training, and its metrics."""
    logits = predict_logits(fit.model, val.bags, fit.device, fit.how.group)
    loss = _finite(fit.task.loss(logits, val.targets, fit.weights), "validation", epoch)
    return loss, fit.task.metrics(logits, val.targets)


def _score(monitor: str, loss: float, metrics: Mapping[str, float]) -> tuple[float, float]:
    """What the best epoch has most of: the metric, and where that ties, little loss.

    Raises:
        SettingsError: The metric can't be told on these validation patients.
    """
    if monitor == "loss":
        return (-loss, 0.0)
    value = metrics[monitor]
    if math.isnan(value):
        raise SettingsError(
            f"{monitor} is not defined on the validation patients: a class is absent, or they are too few",
            where="train.monitor",
            hint="use `--monitor loss`, or a larger --val-fraction",
        )
    return (value, -loss)


def predict_logits(
    model: MILModule, bags: Sequence[Bag], device: torch.device | str = "cpu", group: Group = _ALONE
) -> Tensor:
    """(P, C) float32 logits on the host, the model left in evaluation mode.

    One bag at a time: a bag's logits then don't depend, even in the last bit, on which others are predicted with it.
    Several processes share the bags.
    """
    model.eval()
    logits = torch.zeros(len(bags), model.dim_out, device=device)
    mine = range(group.rank, len(bags), group.size)
    with torch.no_grad():
        for index, batch in ahead(mine, lambda index: Bags.pack([bags[index]], device)):
            logits[index] = model(batch).logits[0].float()
    return group.sum(logits).cpu()


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
