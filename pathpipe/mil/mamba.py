"""Mamba blocks over bags that lie end to end: forward only, in both directions, or with a strided second order."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn.functional import conv1d, linear, silu, softplus
from torch.utils.checkpoint import checkpoint

from pathpipe.mil.scan import ScanInputs, selective_scan

Kind = Literal["mamba", "bimamba", "srmamba"]
Scan = Callable[[ScanInputs], Tensor]

_KERNEL = 4  # steps that the causal convolution sees
_STEP_RANGE = (1e-3, 1e-1)
_KEPT = 2**22  # elements T x E above which a path's activations are computed again for the gradient


@dataclass(frozen=True, eq=False)
class Order:
    """Another order of the instances of bags that lie end to end, perhaps with empty places between them.

    Attributes:
        places: (T,) int64, where each instance goes.
        lengths: Places of each bag, empty ones included.
    """

    places: Tensor
    lengths: tuple[int, ...]

    def apply(self, values: Tensor) -> Tensor:
        """(T, ...) -> (sum of lengths, ...), zeros in empty places."""
        return values.new_zeros(sum(self.lengths), *values.shape[1:]).index_copy(0, self.places, values)

    def undo(self, values: Tensor) -> Tensor:
        """Inverse of `apply`."""
        return values[self.places]


def backward_order(lengths: Sequence[int], device: torch.device) -> Order:
    """Each bag from its last instance to its first."""
    return Order(_places(lengths, lambda rows: len(rows) - 1 - rows, lengths).to(device), tuple(lengths))


def strided_order(lengths: Sequence[int], rate: int, device: torch.device) -> Order:
    """Instances 0, R, 2R, ... of a bag, then 1, R + 1, ...: those `rate` = R apart become neighbours.

    A bag is filled with empty places at its end up to a multiple of R.

    Reference: Yang et al., MambaMIL, MICCAI 2024, arXiv:2403.06800, sequence reordering.
    """
    filled = [-(-length // rate) * rate for length in lengths]
    places = _places(lengths, lambda rows: rows % rate * -(-len(rows) // rate) + rows // rate, filled)
    return Order(places.to(device), tuple(filled))


def _places(lengths: Sequence[int], place: Callable[[Tensor], Tensor], filled: Sequence[int]) -> Tensor:
    starts = torch.tensor([0, *filled[:-1]]).cumsum(0)
    return torch.cat([start + place(torch.arange(n)) for start, n in zip(starts, lengths, strict=True)])


class SelectivePath(nn.Module):
    """Causal convolution, selective scan and gate: what a block does along one order.

    Args:
        width: Channels E.
        state: States S of a channel.
        rank: Width of the projection that the step sizes come from.

    Reference: Gu and Dao, Mamba: Linear-Time Sequence Modeling with Selective State Spaces, arXiv:2312.00752, fig. 3.
    """

    def __init__(self, width: int, state: int, rank: int) -> None:
        super().__init__()
        self.state, self.rank = state, rank
        self.conv = nn.Conv1d(width, width, _KERNEL, groups=width)
        self.select = nn.Linear(width, rank + 2 * state, bias=False)
        self.step = nn.Linear(rank, width)
        self.log_decay = nn.Parameter(torch.arange(1.0, state + 1).log().repeat(width, 1))
        self.skip = nn.Parameter(torch.ones(width))
        self.init_step()

    @torch.no_grad()
    def init_step(self) -> None:
        """First step sizes log-uniform between 0.001 and 0.1, as Mamba has them."""
        nn.init.uniform_(self.step.weight, -(self.rank**-0.5), self.rank**-0.5)
        low, high = (math.log(end) for end in _STEP_RANGE)
        first = (torch.rand_like(self.step.bias) * (high - low) + low).exp()
        self.step.bias.copy_(first + (-(-first).expm1()).log())  # inverse of softplus

    def forward(self, both: Tensor, lengths: Sequence[int], scan: Scan) -> Tensor:
        """Gated outputs (T, E) of `both` (T, 2 E), inputs and gates, along `lengths`; `scan` may run another way."""
        inputs, gate = both.chunk(2, dim=-1)
        u = silu(causal_conv(inputs, self.conv, lengths))
        step, b, c = self.select(u).split([self.rank, self.state, self.state], dim=-1)
        dt = softplus(linear(step, self.step.weight).float() + self.step.bias)
        return scan(ScanInputs(u, dt, -self.log_decay.exp(), b, c, self.skip)) * silu(gate)


def causal_conv(values: Tensor, conv: nn.Conv1d, lengths: Sequence[int]) -> Tensor:
    """Depthwise convolution of (T, E) with what came before in the same bag, zeros before its first instance."""
    reach = conv.kernel_size[0] - 1
    filled = [length + reach for length in lengths]
    order = Order(_places(lengths, lambda rows: rows + reach, filled).to(values.device), tuple(filled))
    outputs = conv1d(order.apply(values).T[None], conv.weight, conv.bias, groups=conv.groups)[0].T
    return outputs[order.places - reach]


class MambaBlock(nn.Module):
    """Input projection, one or two selective paths, their sum, output projection.

    The second path runs backwards (`bimamba`) or in strided order (`srmamba`) with weights of its own; both projections
    are shared.

    Args:
        dim: Width of a token; the paths are twice as wide.
        kind: Which paths.
        state: States of a channel.
        rate: Stride of `srmamba`.

    Reference: Yang et al., MambaMIL, MICCAI 2024, arXiv:2403.06800.
    """

    def __init__(self, dim: int, kind: Kind = "mamba", state: int = 16, rate: int = 10) -> None:
        super().__init__()
        self.kind, self.rate = kind, rate
        width, rank = 2 * dim, -(-dim // 16)
        self.project_in = nn.Linear(dim, 2 * width, bias=False)
        self.paths = nn.ModuleList(SelectivePath(width, state, rank) for _ in range(1 if kind == "mamba" else 2))
        self.project_out = nn.Linear(width, dim, bias=False)

    def forward(self, tokens: Tensor, lengths: Sequence[int], scan: Scan | None = None) -> Tensor:
        """(T, dim) -> (T, dim) for bags of `lengths` end to end; `scan` replaces the first path's."""
        both = self.project_in(tokens)
        mixed = _run(self.paths[0], both, lengths, scan)
        if len(self.paths) > 1:
            order = self._second_order(lengths, tokens.device)
            mixed = mixed + order.undo(_run(self.paths[1], order.apply(both), order.lengths, None))
        return self.project_out(mixed)

    def _second_order(self, lengths: Sequence[int], device: torch.device) -> Order:
        if self.kind == "bimamba":
            return backward_order(lengths, device)
        return strided_order(lengths, self.rate, device)


def _run(path: nn.Module, both: Tensor, lengths: Sequence[int], scan: Scan | None) -> Tensor:
    """A path's outputs; a long one's activations are not kept."""
    scan = scan or partial(selective_scan, lengths=lengths)
    if torch.is_grad_enabled() and both.numel() > 2 * _KEPT:
        return checkpoint(path, both, lengths, scan, use_reentrant=False, preserve_rng_state=False)
    return path(both, lengths, scan)
