"""Dropout whose random numbers don't cost a sixth of a training step on a CPU."""

from __future__ import annotations

import torch
from torch import Tensor, nn

_LEVELS = 256  # values of a random byte


class Dropout(nn.Dropout):
    """Dropout; on a CPU each value takes one random byte, so that the rate is a whole number of 256ths there.

    torch draws a whole number of its generator for each value, one after the other, which for a bag's embedding takes
    as long as a quarter of its matrix product. Kept values are divided by the share that is really kept, so the mean
    stays. Random bytes come from torch's global generator, as in `torch.nn.Dropout`.
    """

    def forward(self, input: Tensor) -> Tensor:
        """Values of any shape."""
        values = input
        if not self.training or self.p == 0:
            return values
        if values.device.type != "cpu":
            return nn.functional.dropout(values, self.p)
        dropped = min(round(self.p * _LEVELS), _LEVELS - 1)
        count = values.numel()
        words = torch.empty(-(-count // 8), dtype=torch.int64).random_(-(2**63), None)  # all 64 bits
        kept = words.view(torch.uint8)[:count].view(values.shape) >= dropped
        return values * kept.to(values.dtype).mul_(_LEVELS / (_LEVELS - dropped))
