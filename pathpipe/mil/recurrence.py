"""First-order linear recurrence h_t = a_t h_{t-1} + b_t along the first axis, in parallel lanes.

A lane is a run of consecutive steps. All lanes advance together from zero; then the state that enters each lane
follows from the decays and ends of those before it, and the lanes run again from there. Only products of decays are
formed, never quotients, so that decays in [0, 1] can't overflow: a decay of 0 cuts the past off, which is how bags
that lie end to end are kept apart.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

LANE = 64  # steps
_FEW = 8  # lanes; with fewer, running twice costs more than it saves


def linear_recurrence(decay: Tensor, drive: Tensor, start: Tensor) -> Tensor:
    """States h_1 ... h_L of h_t = decay_t * h_{t-1} + drive_t, elementwise; differentiable once.

    Args:
        decay: (L, ...) in [0, 1].
        drive: (L, ...).
        start: (...) h_0.

    Returns:
        (L, ...).
    """
    states: Tensor = _Recurrence.apply(decay, drive, start)
    return states


class _Recurrence(torch.autograd.Function):
    """The adjoint g_t = grad_t + decay_{t+1} g_{t+1} is the same recurrence backwards."""

    @staticmethod
    def forward(ctx: Any, decay: Tensor, drive: Tensor, start: Tensor) -> Tensor:
        states = torch.empty_like(drive)
        recur(decay, drive, start, states)
        ctx.save_for_backward(decay, states, start)
        return states

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        decay, states, start = ctx.saved_tensors
        later = torch.cat([decay[1:], torch.zeros_like(decay[:1])])
        adjoint = torch.empty_like(states)
        recur(later, grad, torch.zeros_like(start), adjoint, backwards=True)
        before = torch.cat([start[None], states[:-1]])
        return adjoint * before, adjoint, decay[0] * adjoint[0]


def recur(decay: Tensor, drive: Tensor, start: Tensor, states: Tensor, backwards: bool = False) -> None:
    """Fill `states` (L, ...), other memory than `drive`: from the last step to the first if `backwards`."""
    lanes = len(drive) // LANE
    if lanes < _FEW:
        _steps(decay, drive, start, states, backwards)
        return
    inside = lanes * LANE
    if backwards and inside < len(drive):
        _steps(decay[inside:], drive[inside:], start, states[inside:], backwards)
        start = states[inside]
    shape = (lanes, LANE)
    decays, drives, inner = (values[:inside].unflatten(0, shape) for values in (decay, drive, states))
    _lanes(decays, drives, inner, start, backwards)
    if not backwards and inside < len(drive):
        _steps(decay[inside:], drive[inside:], states[inside - 1], states[inside:], backwards)


def _lanes(decay: Tensor, drive: Tensor, states: Tensor, start: Tensor, backwards: bool) -> None:
    """The same on (lanes, LANE, ...)."""
    by_step = [values.transpose(0, 1) for values in (decay, drive, states)]
    _steps(by_step[0], by_step[1], torch.zeros_like(drive[:, 0]), by_step[2], backwards)
    through = decay.prod(1)
    entering = torch.empty_like(through)
    order = _order(len(drive), backwards)
    end = 0 if backwards else -1
    entering[order[0]] = start
    for before, lane in pairwise(order):
        torch.addcmul(states[before, end], through[before], entering[before], out=entering[lane])
    _steps(by_step[0], by_step[1], entering, by_step[2], backwards)


def _steps(decay: Tensor, drive: Tensor, state: Tensor, states: Tensor, backwards: bool) -> None:
    for step in _order(len(drive), backwards):
        torch.addcmul(drive[step], decay[step], state, out=states[step])
        state = states[step]


def _order(count: int, backwards: bool) -> range:
    return range(count - 1, -1, -1) if backwards else range(count)
