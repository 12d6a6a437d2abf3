"""The selective scan against its definition, published numbers, finite differences and the kernels' interface."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from torch import Tensor
from torch.nn.functional import silu, softplus

from pathpipe.mil import recurrence, scan
from pathpipe.mil.scan import ScanInputs, kernel_scan, piecewise_scan, selective_scan, sequential_scan

LENGTHS = (700, 1, 2, 797)


@pytest.fixture
def short_lanes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Lanes of 2 steps, used from 2 lanes on, so that few steps make many."""
    monkeypatch.setattr(recurrence, "LANE", 2)
    monkeypatch.setattr(recurrence, "_FEW", 2)


def inputs(steps: int, width: int, state: int, dtype: torch.dtype = torch.float32) -> ScanInputs:
    random = torch.Generator().manual_seed(0)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=random, dtype=torch.float64).to(dtype)

    a = -normal(width, state).abs() - 0.1
    return ScanInputs(
        normal(steps, width), normal(steps, width).abs(), a, normal(steps, state), normal(steps, state), normal(width)
    )


def ramp(*shape: int, scale: float, shift: float = 0.0) -> Tensor:
    count = torch.Size(shape).numel()
    return (scale * torch.sin(torch.arange(1, count + 1, dtype=torch.float64)) + shift).reshape(shape)


def test_published_numbers() -> None:
    """Numbers worked out once in NumPy: L = 5, two channels, two states, softplus with bias, gate SiLU(z)."""
    dt = softplus(ramp(2, 5, scale=0.5, shift=0.2) + torch.tensor([[0.1], [-0.2]], dtype=torch.float64))
    a = -torch.tensor([[1.0, 2.0], [1.0, 2.0]], dtype=torch.float64)
    b, c = ramp(2, 5, scale=1.0, shift=0.3).T, ramp(2, 5, scale=0.7, shift=-0.1).T
    given = ScanInputs(ramp(2, 5, scale=1.0).T, dt.T, a, b, c, torch.ones(2, dtype=torch.float64))
    expected = torch.tensor(
        [
            [1.1148636317, 1.9212630531, 0.0335449268, 0.3161249953, 0.4273316885],
            [0.0560134786, 0.7070086544, 1.7824768677, 0.1408033, 0.2047314985],
        ],
        dtype=torch.float64,
    ).T
    gate = silu(ramp(2, 5, scale=1.3)).T
    torch.testing.assert_close(selective_scan(given, [5]) * gate, expected, rtol=0, atol=1e-9)
    outputs, last = sequential_scan(given, [5])
    torch.testing.assert_close(outputs * gate, expected, rtol=0, atol=1e-9)
    states = torch.tensor([[0.707468778, 0.063768592], [0.2839537438, 0.2363573581]], dtype=torch.float64)
    torch.testing.assert_close(last[0], states, rtol=0, atol=1e-9)


@pytest.mark.parametrize("steps", [None, 1, 100, 513])
def test_pieces_and_lanes_are_the_definition(steps: int | None) -> None:
    given = inputs(sum(LENGTHS), 3, 2)
    torch.testing.assert_close(
        piecewise_scan(given, LENGTHS, steps), sequential_scan(given, LENGTHS)[0], rtol=1e-5, atol=1e-5
    )


@pytest.mark.usefixtures("short_lanes")
@pytest.mark.parametrize("steps", [None, 1, 4, 5, 9])
def test_gradient_is_the_finite_difference(steps: int | None) -> None:
    given = tuple(values.requires_grad_() for values in inputs(13, 3, 2, torch.float64))
    assert torch.autograd.gradcheck(lambda *all: piecewise_scan(ScanInputs(*all), [4, 1, 8], steps), given)


def test_long_decays_neither_overflow_nor_vanish_wrongly() -> None:
    """Products of decays underflow; what lies within reach must still be exact."""
    given = inputs(2000, 2, 2, torch.float64)._replace(dt=torch.full((2000, 2), 50.0, dtype=torch.float64))
    expected = sequential_scan(given, [2000])[0]
    assert torch.isfinite(expected).all()
    torch.testing.assert_close(piecewise_scan(given, [2000]), expected)
    exact = given._replace(dt=torch.zeros(2000, 2, dtype=torch.float64))
    torch.testing.assert_close(piecewise_scan(exact, [2000]), given.u * given.d)


def test_later_steps_and_other_bags_are_not_felt() -> None:
    given = inputs(200, 3, 2)
    moved = given._replace(u=given.u.index_fill(0, torch.arange(120, 200), 9.0))
    before, after = piecewise_scan(given, [150, 50]), piecewise_scan(moved, [150, 50])
    assert torch.equal(before[:120], after[:120])
    only = given._replace(u=given.u.index_fill(0, torch.arange(150), 9.0))
    torch.testing.assert_close(piecewise_scan(only, [150, 50])[150:], before[150:])
    assert not torch.allclose(piecewise_scan(only, [200])[150:], piecewise_scan(given, [200])[150:])


def test_autocast_does_not_narrow_it() -> None:
    given = inputs(100, 4, 2)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        narrow = selective_scan(given, [100])
    assert narrow.dtype == torch.float32
    assert torch.equal(narrow, selective_scan(given, [100]))


def test_training_keeps_no_states_but_those_between_pieces() -> None:
    """20,000 steps of 128 channels with 16 states are 41 million states; kept are the inputs and one state a piece."""
    leaves = ScanInputs(*(values.requires_grad_() for values in inputs(20_000, 128, 16)))
    kept: dict[int, int] = {}

    def keep(values: Tensor) -> Tensor:
        kept[values.data_ptr()] = values.numel()
        return values

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda values: values):
        piecewise_scan(leaves, [20_000])
    pieces = -(-20_000 // (2**20 // (128 * 16)))
    assert sum(kept.values()) <= sum(map(torch.numel, leaves)) + (pieces + 2) * 128 * 16


def documented_kernel(u: Tensor, delta: Tensor, A: Tensor, B: Tensor, C: Tensor, D: Tensor) -> Tensor:
    """What `selective_scan_fn` of mamba-ssm documents: u, delta (B, E, L), A (E, S), B and C (B, S, L), D (E,)."""
    state = u.new_zeros(u.shape[0], *A.shape)
    outputs = []
    for at in range(u.shape[2]):
        decay = torch.exp(delta[:, :, at, None] * A)
        state = decay * state + (delta[:, :, at] * u[:, :, at])[..., None] * B[:, None, :, at]
        outputs.append((state * C[:, None, :, at]).sum(-1) + D * u[:, :, at])
    return torch.stack(outputs, -1)


def test_kernels_get_what_they_document() -> None:
    given = inputs(30, 4, 2)
    torch.testing.assert_close(
        kernel_scan(documented_kernel, given, [10, 1, 19]), sequential_scan(given, [10, 1, 19])[0]
    )


@pytest.fixture
def forgotten() -> Iterator[None]:
    scan.installed_kernel.cache_clear()
    yield
    scan.installed_kernel.cache_clear()


@pytest.mark.usefixtures("forgotten")
def test_absent_or_unfit_kernels_are_no_kernels(monkeypatch: pytest.MonkeyPatch) -> None:
    def unfit(name: str) -> None:
        raise ImportError(f"{name}: undefined symbol")

    monkeypatch.setattr(scan, "import_module", unfit)
    assert scan.installed_kernel() is None


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_gpu_and_kernels_agree_with_the_definition() -> None:
    given = inputs(1500, 16, 16)
    expected = sequential_scan(given, LENGTHS)[0]
    on_gpu = ScanInputs(*(values.cuda() for values in given))
    torch.testing.assert_close(piecewise_scan(on_gpu, LENGTHS).cpu(), expected, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(selective_scan(on_gpu, LENGTHS).cpu(), expected, rtol=1e-3, atol=1e-3)
