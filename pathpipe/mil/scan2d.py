"""Selective scan over a plane, and the plane: tiles laid out on the grid that their corners lie on.

The state runs along each row, h_ij = a_ij h_i,j-1 + b_ij u_ij, and the result down each column,
v_ij = a_ij v_i-1,j + h_ij, with the same decays a: a cell hears of all cells above and left of it.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from pathpipe.mil.recurrence import linear_recurrence
from pathpipe.mil.scan import ScanInputs

_BAND = 2**22  # state elements of the rows that exist at once
_CELLS_A_TILE = 64  # a grid with more cells for each tile is made coarser


@dataclass(frozen=True, eq=False)
class Plane:
    """A grid with tiles on it.

    Attributes:
        cell: (N,) int64 the cell of each tile, row by row.
        height: Rows.
        width: Columns.
        counts: (height * width,) float32 tiles of each cell.
    """

    cell: Tensor
    height: int
    width: int
    counts: Tensor

    def spread(self, values: Tensor, empty: Tensor) -> Tensor:
        """(N, L) -> (height * width, L): the mean of a cell's tiles, `empty` (L,) where there are none."""
        sums = values.new_zeros(len(self.counts), values.shape[1]).index_add(0, self.cell, values)
        return torch.where(self.counts[:, None] > 0, sums / self.counts.clamp_min(1)[:, None], empty.to(values.dtype))


def plane_of(xy0: Tensor) -> Plane:
    """The smallest grid that holds the tiles of one bag, with `tile_step` as its pitch.

    Tiles of several slides, and tiles that overlap, can share a cell.

    Args:
        xy0: (N, 2) int64 upper left corners, level-0 px.
    """
    xy0 = xy0.to("cpu", torch.int64)
    column, row = ((xy0 - xy0.min(0).values) // tile_step(xy0)).unbind(1)
    height, width = int(row.max()) + 1, int(column.max()) + 1
    cell = row * width + column
    return Plane(cell, height, width, torch.bincount(cell, minlength=height * width).float())


def tile_step(xy0: Tensor) -> int:
    """Pitch of the grid that tiles were cut on, level-0 px: the commonest gap between neighbours of a row or column.

    Where no two tiles share a row or column it is the smallest gap between corners. Tiles without a grid, e.g. around
    nuclei, get the finest one with 64 cells a tile.

    Args:
        xy0: (N, 2) int64 on the host.
    """
    gaps = torch.cat([_gaps(xy0[:, 0], xy0[:, 1]), _gaps(xy0[:, 1], xy0[:, 0])])
    if len(gaps) == 0:
        gaps = torch.cat([axis.unique().diff() for axis in xy0.unbind(1)])
        step = int(gaps.min()) if len(gaps) else 1
    else:
        values, counts = gaps.unique(return_counts=True)
        step = int(values[counts.argmax()])
    span = (xy0.max(0).values - xy0.min(0).values).tolist()
    most = max(_CELLS_A_TILE * len(xy0), 1)
    while (span[0] // step + 1) * (span[1] // step + 1) > most:
        step = step + max(1, step // 8)
    return step


def _gaps(along: Tensor, across: Tensor) -> Tensor:
    """Positive distances between tiles that follow each other along one axis at the same place of the other."""
    order = torch.argsort(along, stable=True)
    order = order[torch.argsort(across[order], stable=True)]
    along, across = along[order], across[order]
    steps = along.diff()
    return steps[(across.diff() == 0) & (steps > 0)]


def plane_scan(inputs: ScanInputs, width: int) -> Tensor:
    """Outputs y = C v + D u of a scan over a plane, in float32 or wider, whatever the autocast.

    States exist for a few rows at a time, in training too: rows are computed again for their gradients.

    Args:
        inputs: All cells row by row, T = height * width.
        width: Columns.

    Returns:
        (T, E).

    Reference: Zhang et al., 2DMamba, CVPR 2025, arXiv:2412.00678.
    """
    with torch.autocast(inputs.u.device.type, enabled=False):
        u, dt, a, b, c, d = (values if values.dtype == torch.float64 else values.float() for values in inputs)
        rows = max(1, _BAND // (a.numel() * width))
        a = a.T.contiguous()  # (S, E)
        above = a.new_zeros(width, *a.shape)
        outputs = []
        for band in zip(*(values.split(rows * width) for values in (u, dt, b, c)), strict=True):
            if len(u) <= rows * width:
                y, above = _band(*band, a, above)
            else:
                y, above = checkpoint(_band, *band, a, above, use_reentrant=False, preserve_rng_state=False)
            outputs.append(y)
        return torch.cat(outputs) + d * u


def _band(*tensors: Tensor) -> tuple[Tensor, Tensor]:
    """Outputs without D u of some rows, and the states of the last; arguments as in `plane_scan`."""
    u, dt, b, c, a, above = tensors
    width = len(above)
    decay = (dt[:, None, :] * a).exp()  # (cells, S, E)
    drive = b[:, :, None] * (dt * u)[:, None, :]
    states = plane_recurrence(decay.unflatten(0, (-1, width)), drive.unflatten(0, (-1, width)), above)
    # A view would keep all the states of the band.
    return (c[:, None, :] @ states.flatten(0, 1)).squeeze(1), states[-1].clone()


def plane_recurrence(decay: Tensor, drive: Tensor, above: Tensor) -> Tensor:
    """States along rows, then down columns.

    The authors' step-by-step code adds the states above and left of a cell instead, which is another recurrence: their
    kernel, the paper and this are the same.

    Args:
        decay: (H, W, ...) in [0, 1].
        drive: (H, W, ...).
        above: (W, ...) states of the row before the first.

    Returns:
        (H, W, ...).
    """
    height, width = decay.shape[:2]
    first = torch.arange(height * width, device=decay.device) % width == 0
    cut = decay.flatten(0, 1).masked_fill(first.view(-1, *[1] * (decay.ndim - 2)), 0.0)
    along = linear_recurrence(cut, drive.flatten(0, 1), torch.zeros_like(above[0]))
    return linear_recurrence(decay, along.unflatten(0, (height, width)), above)
