"""Selective scan of state-space models over bags that lie end to end: pure PyTorch, or `mamba-ssm` kernels.

h_t = exp(dt_t A) h_{t-1} + dt_t B_t u_t and y_t = C_t h_t + D u_t, from h = 0 at the first instance of every bag.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache
from importlib import import_module
from typing import NamedTuple

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from pathpipe.mil.recurrence import linear_recurrence

# State elements (steps x S x E) that exist at once. On a CPU they should stay near its caches.
_WAVE_CPU = 2**20
_WAVE_CUDA = 2**26

KernelScan = Callable[..., Tensor]


class ScanInputs(NamedTuple):
    """What a selective scan takes, T steps of E channels with S states each.

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

    Uses the kernels of `mamba-ssm` on a GPU where that package is installed: equal to about 1e-3. Otherwise memory
    for states is that of a piece of the sequence, in training too: pieces are computed again for their gradients.

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
        if kernel is not None:
            return kernel_scan(kernel, wide, lengths)
        return piecewise_scan(wide, lengths)


def piecewise_scan(inputs: ScanInputs, lengths: Sequence[int], steps: int | None = None) -> Tensor:
    """The scan in pieces of `steps` steps (by default as many as suit the device), the state handed on."""
    wave = _WAVE_CUDA if inputs.u.is_cuda else _WAVE_CPU
    steps = steps or max(1, wave // inputs.a.numel())
    first = first_steps(lengths, inputs.u.device)
    a = inputs.a.T.contiguous()  # (S, E)
    state = torch.zeros_like(a)
    pieces = []
    cut = (values.split(steps) for values in (inputs.u, inputs.dt, inputs.b, inputs.c, first))
    for piece in zip(*cut, strict=True):
        y, state = checkpoint(_piece, *piece, a, state, use_reentrant=False, preserve_rng_state=False)
        pieces.append(y)
    return torch.cat(pieces) + inputs.d * inputs.u


def _piece(*tensors: Tensor) -> tuple[Tensor, Tensor]:
    """Outputs without D u, and the last state: arguments as in `piecewise_scan`."""
    u, dt, b, c, first, a, state = tensors
    decay, drive = discretised(u, dt, b, a)
    states = linear_recurrence(decay.masked_fill(first[:, None, None], 0.0), drive, state)
    # A view would keep all the states of the piece.
    return read_out(states, c), states[-1].clone()


def discretised(u: Tensor, dt: Tensor, b: Tensor, a: Tensor) -> tuple[Tensor, Tensor]:
    """Decays exp(dt A) and drives dt B u, each (T, S, E), from u and dt (T, E), b (T, S), a (S, E)."""
    return (dt[:, None, :] * a).exp(), b[:, :, None] * (dt * u)[:, None, :]


def read_out(states: Tensor, c: Tensor) -> Tensor:
    """(T, E) from states (T, S, E) and c (T, S)."""
    return (c[:, None, :] @ states).squeeze(1)


def first_steps(lengths: Sequence[int], device: torch.device) -> Tensor:
    """(T,) bool, True at the first step of each bag."""
    first = torch.zeros(sum(lengths), dtype=torch.bool)
    first[torch.tensor([0, *lengths[:-1]]).cumsum(0)] = True
    return first.to(device)


def sequential_scan(inputs: ScanInputs, lengths: Sequence[int]) -> tuple[Tensor, Tensor]:
    """The definition, step by step, for checks: outputs (T, E) and each bag's last state (B, E, S)."""
    outputs, last = [], []
    for bag in zip(*(values.split(list(lengths)) for values in _stepwise(inputs)), strict=True):
        state = torch.zeros_like(inputs.a)
        for u, dt, b, c in zip(*bag, strict=True):
            state = (dt[:, None] * inputs.a).exp() * state + (dt * u)[:, None] * b
            outputs.append(state @ c + inputs.d * u)
        last.append(state)
    return torch.stack(outputs), torch.stack(last)


def kernel_scan(kernel: KernelScan, inputs: ScanInputs, lengths: Sequence[int]) -> Tensor:
    """The scan by `mamba-ssm`'s `selective_scan_fn`, bag by bag: it takes (1, E, L) and (1, S, L)."""
    outputs = []
    for bag in zip(*(values.split(list(lengths)) for values in _stepwise(inputs)), strict=True):
        u, dt, b, c = (values.T.contiguous()[None] for values in bag)
        outputs.append(kernel(u, dt, inputs.a, b, c, inputs.d)[0].T)
    return torch.cat(outputs)


def _stepwise(inputs: ScanInputs) -> tuple[Tensor, ...]:
    return inputs.u, inputs.dt, inputs.b, inputs.c


@cache
def installed_kernel() -> KernelScan | None:
    """`mamba-ssm`'s scan, or None where the package isn't installed or doesn't fit the installed torch."""
    try:
        return import_module("mamba_ssm.ops.selective_scan_interface").selective_scan_fn
    except ImportError:
        return None
