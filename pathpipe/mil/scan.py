"""Selective scan of state-space models over bags that lie end to end: pure PyTorch, or `mamba-ssm` kernels.

h_t = exp(dt_t A) h_{t-1} + dt_t B_t u_t and y_t = C_t h_t + D u_t, from h = 0 at the first instance of every bag.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import cache
from importlib import import_module
from itertools import accumulate
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from pathpipe.mil.recurrence import recur

# State elements (steps x S x E) that exist at once. On a CPU they should stay near its caches.
_PIECE_CPU = 2**20
_PIECE_CUDA = 2**26

KernelScan = Callable[..., Tensor]
_Piece = tuple[slice, list[int]]  # its rows, and which of its steps begin a bag


class ScanInputs(NamedTuple):
    """What a selective scan takes: T steps of E channels with S states each.

    Attributes:
        u: (T, E).
        dt: (T, E) step sizes, at least 0.
        a: (E, S), negative.
        b: (T, S).
        c: (T, S).
        d: (E,) weight of the input itself.
    """

    u: Tensor
    dt: Tensor
    a: Tensor
    b: Tensor
    c: Tensor
    d: Tensor


def selective_scan(inputs: ScanInputs, lengths: Sequence[int]) -> Tensor:
    """Outputs y of a selective scan in float32 or wider, whatever the autocast.

    Uses the kernels of `mamba-ssm` on a GPU where that package is installed: equal to about 1e-3. Otherwise
    `piecewise_scan`.

    Args:
        inputs: All bags end to end.
        lengths: Steps of each bag, T in all.

    Returns:
        (T, E).

    Reference: Gu and Dao, Mamba: Linear-Time Sequence Modeling with Selective State Spaces, arXiv:2312.00752.
    """
    with torch.autocast(inputs.u.device.type, enabled=False):
        wide = ScanInputs(*(values if values.dtype == torch.float64 else values.float() for values in inputs))
        kernel = installed_kernel() if wide.u.is_cuda else None
        return piecewise_scan(wide, lengths) if kernel is None else kernel_scan(kernel, wide, lengths)


def piecewise_scan(inputs: ScanInputs, lengths: Sequence[int], steps: int | None = None) -> Tensor:
    """The scan in pieces of `steps` steps (by default as many as suit the device), the state handed on.

    States exist for one piece at a time, in training too: the backward pass computes them again from the state that
    entered the piece. Differentiable once.
    """
    u, dt, a, b, c, d = inputs
    steps = steps or max(1, (_PIECE_CUDA if u.is_cuda else _PIECE_CPU) // a.numel())
    outputs: Tensor = _Scan.apply(u, dt, a.T.contiguous(), b, c, list(_pieces(lengths, steps)))
    return outputs + d * u


class _Scan(torch.autograd.Function):
    """States are (steps, S, E): the long axis last. Buffers are made once and used for every piece."""

    @staticmethod
    def forward(ctx: Any, u: Tensor, dt: Tensor, a: Tensor, b: Tensor, c: Tensor, pieces: list[_Piece]) -> Tensor:
        entering = a.new_zeros(len(pieces) + 1, *a.shape)
        outputs, room = torch.empty_like(u), _Room(a, pieces[0][0].stop)
        for number, (rows, first) in enumerate(pieces):
            states = room.states_of(u[rows], dt[rows], b[rows], first, entering[number])
            outputs[rows] = (c[rows, None, :] @ states).squeeze(1)
            entering[number + 1] = states[-1]
        ctx.save_for_backward(u, dt, a, b, c, entering)
        ctx.pieces = pieces
        return outputs

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        u, dt, a, b, c, entering = ctx.saved_tensors
        grads = [torch.zeros_like(values) for values in (u, dt, a, b, c)]
        du, ddt, da, db, dc = grads
        room, adjoint = _Room(a, ctx.pieces[0][0].stop), torch.zeros_like(a)
        spare = torch.empty_like(room.drive)
        for (rows, first), start in zip(reversed(ctx.pieces), reversed(entering[:-1].unbind()), strict=True):
            states = room.states_of(u[rows], dt[rows], b[rows], first, start)
            dc[rows] = (states @ grad[rows, :, None]).squeeze(2)
            count = len(states)
            drive, g = room.drive[:count], spare[:count]
            torch.mul(c[rows, :, None], grad[rows, None, :], out=drive)
            room.decay[count] = 1.0  # the adjoint that comes in is already one of this piece's last state
            recur(room.decay[1 : count + 1], drive, adjoint, g, backwards=True)
            db[rows] = (g @ (dt[rows] * u[rows])[:, :, None]).squeeze(2)
            inward = (b[rows, None, :] @ g).squeeze(1)
            g.mul_(room.decay[:count])
            adjoint = g[0].clone()
            g[0].mul_(start)
            g[1:].mul_(states[:-1])  # now d loss / d (dt A)
            da += torch.mul(g, dt[rows, None, :], out=drive).sum(0)
            ddt[rows] = torch.mul(g, a, out=drive).sum(1) + u[rows] * inward
            du[rows] = dt[rows] * inward
        return *grads, None


class _Room:
    """Buffers for the states of one piece."""

    def __init__(self, a: Tensor, steps: int) -> None:
        self.a = a
        self.decay = a.new_empty(steps + 1, *a.shape)
        self.drive = a.new_empty(steps, *a.shape)
        self.states = a.new_empty(steps, *a.shape)

    def states_of(self, u: Tensor, dt: Tensor, b: Tensor, first: list[int], start: Tensor) -> Tensor:
        """States (n, S, E) of a piece of n steps, of which `first` begin a bag."""
        count = len(u)
        decay, drive, states = self.decay[:count], self.drive[:count], self.states[:count]
        torch.mul(dt[:, None, :], self.a, out=decay).exp_()
        for step in first:
            decay[step] = 0.0
        torch.mul(b[:, :, None], (dt * u)[:, None, :], out=drive)
        recur(decay, drive, start, states)
        return states


def _pieces(lengths: Sequence[int], steps: int) -> Iterator[_Piece]:
    starts = list(accumulate(lengths, initial=0))
    total = starts.pop()
    for begin in range(0, total, steps):
        end = min(begin + steps, total)
        yield slice(begin, end), [start - begin for start in starts if begin <= start < end]


def sequential_scan(inputs: ScanInputs, lengths: Sequence[int]) -> tuple[Tensor, Tensor]:
    """The definition, step by step, for checks: outputs (T, E) and each bag's last state (B, E, S)."""
    outputs, last = [], []
    for bag in _by_bag(inputs, lengths):
        state = torch.zeros_like(inputs.a)
        for u, dt, b, c in zip(*bag, strict=True):
            state = (dt[:, None] * inputs.a).exp() * state + (dt * u)[:, None] * b
            outputs.append(state @ c + inputs.d * u)
        last.append(state)
    return torch.stack(outputs), torch.stack(last)


def kernel_scan(kernel: KernelScan, inputs: ScanInputs, lengths: Sequence[int]) -> Tensor:
    """The scan by `mamba-ssm`'s `selective_scan_fn`, bag by bag: it takes (1, E, L) and (1, S, L)."""
    outputs = []
    for bag in _by_bag(inputs, lengths):
        u, dt, b, c = (values.T.contiguous()[None] for values in bag)
        outputs.append(kernel(u, dt, inputs.a, b, c, inputs.d)[0].T)
    return torch.cat(outputs)


def _by_bag(inputs: ScanInputs, lengths: Sequence[int]) -> Iterator[tuple[Tensor, ...]]:
    """u, dt, b, c of each bag."""
    return zip(*(values.split(list(lengths)) for values in (inputs.u, inputs.dt, inputs.b, inputs.c)), strict=True)


@cache
def installed_kernel() -> KernelScan | None:
    """`mamba-ssm`'s scan, or None where the package isn't installed or doesn't fit the installed torch."""
    try:
        kernel: KernelScan = import_module("mamba_ssm.ops.selective_scan_interface").selective_scan_fn
    except ImportError:
        return None
    return kernel
