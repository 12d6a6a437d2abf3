"""First-order linear recurrence h_t = a_t h_{t-1} + b_t along the first axis, in parallel lanes, with its gradient.

A lane is a run of consecutive steps. All lanes advance together from zero; then the state that enters each lane
follows from the decays and ends of those before it, and the lanes run again from there. Only products of decays are
formed, never quotients, so that decays in [0, 1] can't overflow: a decay of 0 cuts the past off, which is how bags
that lie end to end are kept apart.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

LANE = 64  # steps
_FEW = 8  # lanes; with fewer, running twice costs more than it saves


def linear_recurrence(decay: Tensor, drive: Tensor, start: Tensor) -> Tensor:
    """States h_1 ... h_L of h_t = decay_t * h_{t-1} + drive_t, elementwise.

    Args:
        decay: (L, ...) in [0, 1].
        drive: (L, ...).
        start: (...) h_0.

    Returns:
        (L, ...).
    """
    states: Tensor = _Recurrence.apply(decay, drive, start)  # type: ignore[no-untyped-call]
    return states


class _Recurrence(torch.autograd.Function):
    """The adjoint g_t = grad_t + decay_{t+1} g_{t+1} is the same recurrence backwards."""

    @staticmethod
    def forward(ctx: Any, decay: Tensor, drive: Tensor, start: Tensor) -> Tensor:
        states = _run(decay, drive, start)
        ctx.save_for_backward(decay, states, start)
        return states

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        decay, states, start = ctx.saved_tensors
        later = torch.cat([decay[1:], torch.zeros_like(decay[:1])]).flip(0)
        adjoint = _run(later, grad.flip(0), torch.zeros_like(start)).flip(0)
        before = torch.cat([start[None], states[:-1]])
        return adjoint * before, adjoint, decay[0] * adjoint[0]


def _run(decay: Tensor, drive: Tensor, start: Tensor) -> Tensor:
    """Lanes where there are enough of them, then what is left over, step by step."""
    lanes = len(drive) // LANE
    states = torch.empty_like(drive)
    if lanes < _FEW:
        _steps(decay, drive, start, states)
        return states
    inside = lanes * LANE
    shape = (lanes, LANE, *drive.shape[1:])
    folded = [values[:inside].reshape(shape).transpose(0, 1) for values in (decay, drive, states)]
    _steps(folded[0], folded[1], torch.zeros_like(drive[:lanes]), folded[2])
    through = decay[:inside].reshape(shape).prod(1)
    entering = torch.empty_like(through)
    entering[0] = start
    for lane in range(1, lanes):
        torch.addcmul(folded[2][-1, lane - 1], through[lane - 1], entering[lane - 1], out=entering[lane])
    _steps(folded[0], folded[1], entering, folded[2])
    _steps(decay[inside:], drive[inside:], states[inside - 1], states[inside:])
    return states


def _steps(decay: Tensor, drive: Tensor, start: Tensor, states: Tensor) -> None:
    """Fill `states` step by step."""
    state = start
    for step in range(len(drive)):
        torch.addcmul(drive[step], decay[step], state, out=states[step])
        state = states[step]
