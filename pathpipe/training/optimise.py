"""Optimising: the optimiser, its learning rate over the steps, and a moving average of the weights."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from pathpipe.settings import TrainSettings


def make_optimiser(model: nn.Module, settings: TrainSettings) -> torch.optim.Optimizer:
    """The optimiser that the settings name, over all parameters of the model."""
    parameters = list(model.parameters())
    lr, decay = settings.lr, settings.weight_decay
    match settings.optimiser:
        case "adamw":
            return torch.optim.AdamW(parameters, lr=lr, weight_decay=decay, fused=True)
        case "adam":
            return torch.optim.Adam(parameters, lr=lr, weight_decay=decay, fused=True)
        case "radam":
            return torch.optim.RAdam(parameters, lr=lr, weight_decay=decay)
        case "sgd":
            momentum = settings.momentum
            return torch.optim.SGD(parameters, lr=lr, weight_decay=decay, momentum=momentum, nesterov=momentum > 0)


def learning_rate(settings: TrainSettings, step: int, warmup_steps: int, total_steps: int) -> float:
    """Of one step, from 0: linear from 1/warmup_steps of the peak up to it, then as the schedule says."""
    if step < warmup_steps:
        return settings.lr * (step + 1) / warmup_steps
    done = (step - warmup_steps) / (total_steps - warmup_steps)  # 0 to below 1
    match settings.schedule:
        case "cosine":
            return settings.lr * (1 + math.cos(math.pi * done)) / 2
        case "linear":
            return settings.lr * (1 - done)
        case "constant":
            return settings.lr


class Average:
    """Exponential moving average of the trained parameters; buffers stay as they are.

    Early on the decay is (1 + n) / (10 + n) after n updates where that is smaller, so that the first, random weights
    are soon forgotten.
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        self._model = model
        self._decay = decay
        self._updates = 0
        self._values = {name: p.detach().clone() for name, p in model.named_parameters() if p.requires_grad}

    @torch.no_grad()
    def update(self) -> None:
        """Take the present weights in."""
        decay = min(self._decay, (1 + self._updates) / (10 + self._updates))
        self._updates += 1
        present = dict(self._model.named_parameters())
        for name, value in self._values.items():
            value.lerp_(present[name], 1 - decay)

    @contextmanager
    def applied(self) -> Iterator[None]:
        """The model has the averaged weights inside, and its own again afterwards."""
        self._swap()
        try:
            yield
        finally:
            self._swap()

    @torch.no_grad()
    def _swap(self) -> None:
        present = dict(self._model.named_parameters())
        for name, value in self._values.items():
            kept = value.clone()
            value.copy_(present[name])
            present[name].copy_(kept)

    def state_dict(self) -> dict[str, Any]:
        """What an interrupted training must remember."""
        return {"updates": self._updates, "values": self._values}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Inverse of `state_dict`."""
        self._updates = state["updates"]
        for name, value in self._values.items():
            value.copy_(state["values"][name])


def clip_gradient(model: nn.Module, largest: float | None) -> Tensor | None:
    """Scale the gradient of all parameters down to this norm where it is larger; returns the norm it had."""
    return None if largest is None else nn.utils.clip_grad_norm_(model.parameters(), largest)
