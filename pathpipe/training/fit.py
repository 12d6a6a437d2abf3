"""Fit: a model under training with its optimiser; one pass, one step, and how an interrupted one is gone on with."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from pathpipe.errors import SettingsError
from pathpipe.mil.bag import Bag, Bags, Labels
from pathpipe.mil.model import MILModule, MILOutput, TrainContext
from pathpipe.mil.registry import Recipe, build_model
from pathpipe.registry import suggest
from pathpipe.settings import TrainSettings
from pathpipe.tasks.task import Task
from pathpipe.training.distributed import Group
from pathpipe.training.logs import Log
from pathpipe.training.optimise import Average, clip_gradient, learning_rate, make_optimiser
from pathpipe.training.sampling import (
    Draws,
    Mixture,
    Pass,
    classes_to_balance,
    mix,
    order_of_epoch,
    passes_of_epoch,
    steps_of_epoch,
    thin,
)
from pathpipe.training.state import Standing, StateFile

_TYPES = {"bf16": torch.bfloat16, "fp16": torch.float16}


@dataclass(frozen=True, eq=False)
class Conditions:
    """How a training is done; never what comes out of it.

    Attributes:
        keep: Where it is saved while it is under way.
        logs: Who is told of every epoch, beside the history.
        group: The processes it is done in.
        compile: Whether torch.compile fuses the model.
        predict: Roles that are predicted in the end.
    """

    keep: StateFile | None = None
    logs: Sequence[Log] = ()
    group: Group = field(default_factory=Group)
    compile: bool = False
    predict: tuple[str, ...] = ("val", "test")


@dataclass(frozen=True, eq=False)
class Part:
    """The bags and targets of one role, in one order."""

    bags: Sequence[Bag]
    targets: Tensor

    def __len__(self) -> int:
        return len(self.bags)


@dataclass(frozen=True, eq=False)
class Batch:
    """What one pass takes.

    Attributes:
        bags: With labels, on the device; of mixed bags the label of the larger share.
        targets: (B, ...) as the task encodes them.
        mixture: What the bags were mixed with.
    """

    bags: Bags
    targets: Tensor
    mixture: Mixture | None


@dataclass(frozen=True, eq=False)
class Fit:
    """What stays the same over the epochs of one fold and seed. Make one with `Fit.of`."""

    model: MILModule
    forward: Callable[[Bags], MILOutput]
    optimiser: torch.optim.Optimizer
    scaler: torch.amp.GradScaler
    average: Average | None
    train: Part
    task: Task
    settings: TrainSettings
    weights: Tensor | None
    classes: Tensor | None
    draws: Draws
    device: torch.device
    how: Conditions

    @classmethod
    def of(
        cls, train: Part, task: Task, settings: TrainSettings, seed: int, device: torch.device, how: Conditions
    ) -> Fit:
        """A fresh model and all it takes to fit it.

        Raises:
            SettingsError: An unknown model or option, or settings that don't fit the task or the device.
        """
        _refuse(settings, device, how.group)
        recipe = Recipe(settings.model, settings.model_settings, settings.wrappers)
        model = build_model(recipe, train.bags[0].dim, task.outputs).to(device)
        refuse_unfit(model, task, settings)
        if task.relative:
            model.level(task.relative)
        weights = task.weights(train.targets) if settings.balance == "weights" else None
        return cls(
            model=model,
            forward=torch.compile(model, dynamic=True) if how.compile else model,
            optimiser=make_optimiser(model, settings),
            scaler=torch.amp.GradScaler(device.type, enabled=settings.precision == "fp16"),
            average=Average(model, settings.average) if settings.average else None,
            train=train,
            task=task,
            settings=settings,
            weights=weights,
            classes=classes_to_balance(task.kind, train.targets) if settings.balance == "sampling" else None,
            draws=Draws(seed),
            device=device,
            how=how,
        )

    @property
    def steps(self) -> int:
        """Optimiser steps of an epoch."""
        return steps_of_epoch(len(self.train), self.settings)

    def resume(self) -> Standing:
        """Set the model up, and go on from where an earlier attempt was cut off."""
        self.model.setup(self._context(0, self.draws.generator("epoch", 0)))
        saved = self.how.keep.read() if self.how.keep else None
        if saved is None:
            return Standing()
        now = Standing(**saved["standing"])
        if now.step:  # the model must hear of the epoch; what that did to its weights and buffers comes with them
            self.begin_epoch(now.epoch)
        self.model.load_state_dict(saved["model"])
        self.optimiser.load_state_dict(saved["optimiser"])
        self.scaler.load_state_dict(saved["scaler"])
        if self.average is not None:
            self.average.load_state_dict(saved["average"])
        return now

    def keep(self, now: Standing) -> None:
        """Save all it takes to go on, if it is time to."""
        if self.how.keep is None or not self.how.group.leads:
            return
        self.how.keep.save(
            lambda: {
                "standing": dict(vars(now)),
                "model": self.model.state_dict(),
                "optimiser": self.optimiser.state_dict(),
                "scaler": self.scaler.state_dict(),
                "average": None if self.average is None else self.average.state_dict(),
            }
        )

    def begin_epoch(self, epoch: int) -> None:
        """Tell the model."""
        self.draws.seed_models("epoch", epoch, self.device)
        self.model.train()
        self.model.on_epoch(self._context(epoch * self.steps, self.draws.generator("epoch", epoch)))

    def passes(self, now: Standing) -> list[Pass]:
        """What this process has left to do of the epoch."""
        order = order_of_epoch(len(self.train), self.classes, self.draws.generator("order", now.epoch))
        group = self.how.group
        return passes_of_epoch(order, self.settings, now.epoch, now.step, (group.rank, group.size))

    def batch(self, one: Pass) -> Batch:
        """The bags of a pass, thinned, packed and mixed."""
        draw = self.draws.generator("instances", one.number)
        bags = [thin(self.train.bags[index], self.settings, draw) for index in one.members.tolist()]
        targets = self.train.targets[one.members].to(self.device)
        packed, mixture = Bags.pack(bags, self.device), None
        if self.settings.mixup and len(bags) > 1:
            packed, mixture = mix(packed, self.settings.mixup, draw)
        return Batch(replace(packed, labels=Labels(self.task.kind, targets)), targets, mixture)

    def add_gradient(self, one: Pass, batch: Batch) -> Tensor:
        """Forward and backward; returns the mean loss over the pass's bags, on the device."""
        self.draws.seed_models("forward", one.number, self.device)
        self.model.pre_step(batch.bags, self._context(one.step, self.draws.generator("forward", one.number)))
        if one.step == 0 and one.first:
            self.how.group.share_start(self.model)
        kind = _TYPES.get(self.settings.precision)
        arithmetic: AbstractContextManager[object] = torch.autocast(self.device.type, kind) if kind else nullcontext()
        with arithmetic:
            output = self.forward(batch.bags)
        loss = output.total_loss(lambda logits, bag, share: self._criterion(batch, logits, bag, share))
        self.scaler.scale(loss * one.weight).backward()
        return loss.detach()

    def rate(self, step: int) -> float:
        """Learning rate of a step, counted over all epochs."""
        return learning_rate(self.settings, step, self.settings.warmup_epochs * self.steps, self._total_steps)

    def begin_step(self, step: int) -> None:
        """No gradient, and the step's learning rate."""
        for parameters in self.optimiser.param_groups:
            parameters["lr"] = self.rate(step)
        self.optimiser.zero_grad()

    def end_step(self, one: Pass, batch: Batch, loss: Tensor) -> Tensor:
        """Step along the gradient of all processes; returns the loss of all."""
        loss = self.how.group.sum_gradients(self.model, loss)
        self.scaler.unscale_(self.optimiser)
        clip_gradient(self.model, self.settings.clip)
        self.scaler.step(self.optimiser)
        self.scaler.update()
        if self.average is not None:
            self.average.update()
        self.draws.seed_models("step", one.step, self.device)
        self.model.post_step(batch.bags, self._context(one.step, self.draws.generator("step", one.step)))
        self.how.group.share_buffers(self.model)
        return loss

    def averaged(self) -> AbstractContextManager[None]:
        """The weights that validate and predict, inside."""
        return nullcontext() if self.average is None else self.average.applied()

    @property
    def _total_steps(self) -> int:
        return self.settings.epochs * self.steps

    def _context(self, step: int, generator: torch.Generator) -> TrainContext:
        return TrainContext(step // self.steps, self.settings.epochs, step, self._total_steps, generator)

    def _criterion(self, batch: Batch, logits: Tensor, bag: Tensor | None, share: Tensor | None) -> Tensor:
        """The task's loss of one row of logits a bag, or of rows that say whose target they have."""
        logits, targets, mixture = logits.float(), batch.targets, batch.mixture
        weights = None if self.weights is None else self.weights.to(self.device)
        if mixture is None:
            return self.task.loss(logits, targets if bag is None else targets[bag], weights, share)
        rows = torch.arange(len(targets), device=logits.device) if bag is None else bag
        whole = torch.ones(len(rows), device=logits.device) if share is None else share
        own = mixture.share[rows]
        return self.task.loss(
            torch.cat([logits, logits]),
            torch.cat([targets[rows], targets[mixture.partner[rows]]]),
            weights,
            torch.cat([whole * own, whole * (1 - own)]),
        )


def refuse_unfit(model: MILModule, task: Task, settings: TrainSettings) -> None:
    """Make sure that model and settings suit the target.

    Raises:
        SettingsError: The model takes no such target, batches are too small for it, targets can't be mixed or balanced
            by draws, or the task has no metric of the name monitored.
    """
    if model.card.needs_classes and task.kind != "classification":
        raise SettingsError(
            f"model `{settings.model}` learns from classes and takes no {task.kind} target",
            where="train.model",
            hint="`pathpipe models NAME` says what a model needs",
        )
    cox = "cox" in [task.kind, *(part.kind for part in getattr(task, "parts", ()))]
    if cox and settings.batch_size == 1:
        raise SettingsError(
            "Cox's loss compares the patients of a batch, and a batch of one teaches nothing",
            where="train.batch_size",
            hint="use `--batch-size 32`, or a discrete-time target (`TIME/EVENT:survival`)",
        )
    if cox and settings.mixup:
        raise SettingsError(
            "a bag's Cox loss depends on the others at risk, so targets can't be mixed",
            where="train.mixup",
            hint="use a discrete-time target (`TIME/EVENT:survival`), or no mixup",
        )
    nobody = task.encode([])
    if settings.balance == "sampling":
        classes_to_balance(task.kind, nobody)
    known = ["loss", *task.metrics(torch.zeros(0, task.outputs), nobody)]
    if settings.monitor not in known:
        hint = suggest(settings.monitor, known)
        raise SettingsError(f"the task measures no `{settings.monitor}`", where="train.monitor", hint=hint)


def _refuse(settings: TrainSettings, device: torch.device, group: Group) -> None:
    """What would only fail later, or worse, not fail."""
    if settings.precision == "fp16" and device.type != "cuda":
        raise SettingsError("fp16 trains on a GPU only", where="train.precision", hint="use fp32, or bf16")
    if settings.accumulate % group.size:
        raise SettingsError(
            f"the {settings.accumulate} passes of a step can't be shared evenly by {group.size} processes",
            where="train.accumulate",
            hint=f"use `--accumulate {group.size}`, and a smaller --batch-size for the same step",
        )
