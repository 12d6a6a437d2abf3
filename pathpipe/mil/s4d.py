"""S4D: a diagonal state space model as one long causal convolution."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn.functional import gelu, glu

from pathpipe.mil.bag import Bags


class S4DKernel(nn.Module):
    """The convolution kernel of H independent diagonal state space models, discretised by zero-order hold.

    K_l = 2 Re sum_n C_n (e^(dt A_n) - 1) / A_n e^(dt A_n l). With l = i b + j the exponential falls into two factors,
    so that the (H, n, N) powers are never held: a product of (H, N / b, n) and (H, n, b) matrices gives all N values.

    Args:
        dim: H.
        modes: Complex modes n a channel; half the state, the other half are their conjugates.

    Reference: Gu et al., On the Parameterization and Initialization of Diagonal State Space Models, NeurIPS 2022,
    arXiv:2206.11893; initialisation S4D-Lin.
    """

    def __init__(self, dim: int, modes: int) -> None:
        super().__init__()
        low, high = math.log(1e-3), math.log(1e-1)
        self.log_dt = nn.Parameter(torch.rand(dim) * (high - low) + low)
        self.c = nn.Parameter(torch.view_as_real(torch.randn(dim, modes, dtype=torch.cfloat)))
        self.log_decay = nn.Parameter(torch.full((dim, modes), math.log(0.5)))
        self.frequency = nn.Parameter(math.pi * torch.arange(modes).float().repeat(dim, 1))

    def forward(self, length: int) -> Tensor:
        """(H, length)."""
        block = math.isqrt(length - 1) + 1
        rate = torch.complex(-self.log_decay.exp(), self.frequency)  # (H, n)
        step = rate * self.log_dt.exp()[:, None]
        weight = 2 * torch.view_as_complex(self.c) * (step.exp() - 1) / rate
        within = torch.arange(block, device=step.device)
        starts = within * block
        rows = weight[:, None] * (step[:, None] * starts[:, None]).exp()  # (H, block, n)
        columns = (step[..., None] * within).exp()  # (H, n, block)
        # Real part of the complex product, as one real product.
        real = torch.cat([rows.real, -rows.imag], 2) @ torch.cat([columns.real, columns.imag], 1)
        return real.flatten(1)[:, :length]


class S4D(nn.Module):
    """Causal state space layer: y = K * u + D u, GELU, then a gated linear unit over channels."""

    def __init__(self, dim: int, modes: int) -> None:
        super().__init__()
        self.kernel = S4DKernel(dim, modes)
        self.skip = nn.Parameter(torch.randn(dim))
        self.mix = nn.Linear(dim, 2 * dim)

    def forward(self, tokens: Bags) -> Bags:
        """Outputs in the layout of `tokens`; an instance's depends on it and those before it in its bag."""
        with torch.autocast(tokens.features.device.type, enabled=False):
            kernel = self.kernel(max(tokens.lengths))
        parts = [causal_convolution(kernel, part.T).T for part in tokens.split(tokens.features)]
        states = tokens.join(parts) + tokens.features * self.skip
        return tokens.with_features(glu(self.mix(gelu(states))))


def causal_convolution(kernel: Tensor, signal: Tensor) -> Tensor:
    """(H, M) kernels, (H, N) signals, M >= N -> (H, N) by FFT, in float32 or better."""
    length = signal.shape[1]
    with torch.autocast(signal.device.type, enabled=False):
        wide = signal if signal.dtype == torch.float64 else signal.float()
        # Room for both, or the end would wrap around to the beginning.
        spectrum = torch.fft.rfft(kernel[:, :length], 2 * length) * torch.fft.rfft(wide, 2 * length)
        return torch.fft.irfft(spectrum, 2 * length)[:, :length]
