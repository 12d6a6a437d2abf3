"""Sampling: which bags are in which step, which of their instances take part, how two bags are mixed.

All randomness is drawn from generators seeded by what it is for and how far training is, never handed on: a step draws
the same whether training was interrupted before it, runs in several processes, or reads ahead.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Literal, TypeVar

import numpy as np
import torch
from torch import Tensor

from pathpipe.errors import SettingsError
from pathpipe.mil.bag import Bag, Bags
from pathpipe.settings import TrainSettings

T = TypeVar("T")
R = TypeVar("R")
_AHEAD = 1  # batches read and converted while one is trained on: more would only take memory

Purpose = Literal["order", "epoch", "instances", "forward", "step"]
_PURPOSES: tuple[Purpose, ...] = ("order", "epoch", "instances", "forward", "step")


@dataclass(frozen=True)
class Draws:
    """Seeds of one training, each a function of what is drawn and when."""

    seed: int

    def seed_of(self, purpose: Purpose, number: int) -> int:
        """A seed of 63 bits; `number` counts epochs, forward passes or steps."""
        words = np.random.SeedSequence((self.seed, _PURPOSES.index(purpose), number)).generate_state(1, np.uint64)
        return int(words[0] >> np.uint64(1))

    def seed_models(self, purpose: Purpose, number: int, device: torch.device) -> None:
        """Seed the global generators that models draw from there (`torch.manual_seed` looks for all other devices)."""
        seed = self.seed_of(purpose, number)
        torch.default_generator.manual_seed(seed)
        if device.type == "cuda":
            torch.cuda.manual_seed(seed)

    def generator(self, purpose: Purpose, number: int) -> torch.Generator:
        """A host generator with that seed."""
        return torch.Generator().manual_seed(self.seed_of(purpose, number))


@dataclass(frozen=True, eq=False)
class Pass:
    """One forward and backward pass of a step.

    Attributes:
        step: Optimiser step over all epochs, from 0.
        number: Pass over all epochs, from 0.
        members: (B,) int64 indices of the bags.
        bags: Bags of the whole step.
        weight: Share of the step's loss; 0 for a process that has nothing to do in this step and must only keep pace.
        first: Whether it opens its step, for this process.
        last: Whether the optimiser steps after it.
    """

    step: int
    number: int
    members: Tensor
    bags: int
    weight: float
    first: bool = True
    last: bool = True


def order_of_epoch(bags: int, classes: Tensor | None, generator: torch.Generator) -> Tensor:
    """Every bag once in random order; or, by classes, as many draws in which each class has the same chance.

    Args:
        classes: (bags,) class of each bag for balanced draws with replacement, -1 where unknown: never drawn.
    """
    if classes is None:
        return torch.randperm(bags, generator=generator)
    counts = torch.bincount(classes[classes >= 0])
    chances = torch.where(classes >= 0, 1 / counts[classes.clamp(min=0)].double(), 0.0)
    return torch.multinomial(chances, bags, replacement=True, generator=generator)


def passes_of_epoch(
    order: Tensor, settings: TrainSettings, epoch: int, first_step: int = 0, process: tuple[int, int] = (0, 1)
) -> list[Pass]:
    """The passes of one epoch, from `first_step` on.

    Args:
        process: (rank, size): the passes of a step are dealt out among the processes.
    """
    members = order.split(settings.batch_size)
    starts = range(0, len(members), settings.accumulate)
    rank, size = process
    passes: list[Pass] = []
    for step, start in list(enumerate(starts, start=epoch * len(starts)))[first_step:]:
        group = list(enumerate(members[start : start + settings.accumulate], start=epoch * len(members) + start))
        bags = sum(len(part) for _, part in group)
        own = [Pass(step, number, part, bags, len(part) / bags) for number, part in group[rank::size]]
        own = own or [Pass(step, *group[0], bags, 0.0)]
        passes += [replace(one, first=one is own[0], last=one is own[-1]) for one in own]
    return passes


def steps_of_epoch(bags: int, settings: TrainSettings) -> int:
    """Optimiser steps of one epoch."""
    return -(-bags // (settings.batch_size * settings.accumulate))


def classes_to_balance(kind: str, targets: Tensor) -> Tensor:
    """(P,) class of each bag.

    Raises:
        SettingsError: The target has no classes.
    """
    classes = targets if kind in ("classification", "ordinal") else None
    if classes is None:
        raise SettingsError(
            f"a target of kind {kind} has no classes to draw evenly from",
            where="train.balance",
            hint="use `balance: weights` or `none`",
        )
    return classes


def thin(bag: Bag, settings: TrainSettings, generator: torch.Generator) -> Bag:
    """The instances of a bag that take part in a step, in their order; at least one."""
    rows = None
    if settings.instance_dropout:
        kept = torch.rand(len(bag), generator=generator) >= settings.instance_dropout
        rows = kept.nonzero().squeeze(1) if kept.any() else torch.randint(len(bag), (1,), generator=generator)
    left = len(bag) if rows is None else len(rows)
    if settings.max_instances is not None and left > settings.max_instances:
        some = torch.randperm(left, generator=generator)[: settings.max_instances].sort().values
        rows = some if rows is None else rows[some]
    return bag if rows is None else bag.take(rows.numpy())


@dataclass(frozen=True, eq=False)
class Mixture:
    """What each bag of a batch was mixed with.

    Attributes:
        partner: (B,) int64 bag of the batch.
        share: (B,) what is left of the bag's own, at least one half.
    """

    partner: Tensor
    share: Tensor

    def to(self, device: torch.device | str) -> Mixture:
        """On another device."""
        return Mixture(self.partner.to(device), self.share.to(device))


def mix(bags: Bags, alpha: float, generator: torch.Generator) -> tuple[Bags, Mixture]:
    """Each bag mixed with another one: share x own features + (1 - share) x the partner's.

    A bag keeps its number of instances and its places. Each of its instances meets one of the partner's, drawn
    without replacement while there are enough, else with; so a large partner is sampled and a small one is repeated.
    Covariates are mixed alike. The share is Beta(alpha, alpha), or its complement: never less than one half.

    Reference: mixup, Zhang et al., ICLR 2018, arXiv:1710.09412, here between the instances of two bags.
    """
    count = len(bags)
    partner = torch.randperm(count, generator=generator)
    rng = np.random.default_rng(int(torch.randint(2**62, (1,), generator=generator)))
    drawn = rng.beta(alpha, alpha, count)
    share = torch.from_numpy(np.maximum(drawn, 1 - drawn)).float()
    starts, lengths = bags.offsets[:-1].tolist(), bags.lengths
    rows = []
    for other, wanted in zip(partner.tolist(), lengths, strict=True):
        there = lengths[other]
        chosen = (
            torch.randperm(there, generator=generator)[:wanted]
            if wanted <= there
            else torch.randint(there, (wanted,), generator=generator)
        )
        rows.append(chosen + starts[other])
    device = bags.features.device
    per_instance = torch.repeat_interleave(share, torch.tensor(lengths))[:, None].to(device)
    mixed = torch.lerp(bags.features[torch.cat(rows).to(device)], bags.features, per_instance)
    covariates = bags.covariates
    if covariates is not None:
        covariates = torch.lerp(covariates[partner.to(device)], covariates, share[:, None].to(device))
    return replace(bags, features=mixed, covariates=covariates), Mixture(partner, share).to(device)


def ahead(items: Iterable[T], make: Callable[[T], R]) -> Iterator[tuple[T, R]]:
    """Each item with what is made of it, the next ones made in a thread meanwhile: training never waits for a disk."""
    waiting: deque[tuple[T, Future[R]]] = deque()
    with ThreadPoolExecutor(1, thread_name_prefix="pathpipe-bags") as pool:
        try:
            for item in items:
                waiting.append((item, pool.submit(make, item)))
                if len(waiting) > _AHEAD:
                    first, future = waiting.popleft()
                    yield first, future.result()
            while waiting:
                first, future = waiting.popleft()
                yield first, future.result()
        finally:
            pool.shutdown(wait=True, cancel_futures=True)
