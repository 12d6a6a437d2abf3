"""Dropout: the rate, the mean, the generator it draws from."""

from __future__ import annotations

import pytest
import torch

from pathpipe.mil.dropout import Dropout


@pytest.mark.parametrize("rate", [0.1, 0.25, 0.5, 0.9])
def test_rate_and_mean(rate: float) -> None:
    torch.manual_seed(0)
    dropped = Dropout(rate)(torch.full((1001, 999), 3.0))
    share = (dropped == 0).float().mean().item()
    assert share == pytest.approx(round(rate * 256) / 256, abs=0.003)
    assert dropped.mean().item() == pytest.approx(3.0, rel=0.01)
    assert len(dropped.unique()) == 2


def test_values_are_dropped_independently() -> None:
    torch.manual_seed(1)
    kept = (Dropout(0.5)(torch.ones(512, 512)) > 0).double()
    centred = kept - 0.5
    for neighbour in (centred.roll(1, 0), centred.roll(1, 1), centred.roll(8, 1)):
        assert (centred * neighbour).mean().abs().item() < 0.003


def test_draws_from_the_global_generator() -> None:
    drop, values = Dropout(0.25), torch.ones(7, 5)
    torch.manual_seed(3)
    first, second = drop(values), drop(values)
    torch.manual_seed(3)
    assert torch.equal(drop(values), first)
    assert not torch.equal(first, second)


def test_gradient_passes_where_values_do() -> None:
    values = torch.ones(40, 40, requires_grad=True)
    dropped = Dropout(0.25)(values)
    dropped.sum().backward()
    assert values.grad is not None
    assert torch.equal(values.grad, dropped.detach())


def test_evaluation_and_rate_0_leave_values_alone() -> None:
    values = torch.randn(4, 4)
    assert Dropout(0.5).eval()(values) is values
    assert Dropout(0.0)(values) is values
    assert Dropout(0.999)(torch.ones(2000)).count_nonzero() > 0
