"""Pooling by hand-computed values, in both layouts."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from pathpipe.mil import pooling
from pathpipe.mil.bag import Bag, Bags
from pathpipe.mil.pooling import (
    max_over_instances,
    mean_over_instances,
    softmax_over_instances,
    sum_over_instances,
)

BAGS = [Bag(np.array([[1.0, -5.0], [3.0, -1.0], [2.0, -9.0]])), Bag(np.array([[-4.0, 6.0]]))]


@pytest.fixture(params=["packed", "padded"])
def batch(request: pytest.FixtureRequest) -> Bags:
    return Bags.pack(BAGS) if request.param == "packed" else Bags.pad(BAGS)


def test_softmax(batch: Bags) -> None:
    raw = (batch.features[..., :1] - 1) * float(np.log(2))  # 0, ln 4, ln 2 in the first bag
    first, second = batch.split(softmax_over_instances(raw, batch))
    torch.testing.assert_close(first[:, 0], torch.tensor([1 / 7, 4 / 7, 2 / 7]))
    assert second.tolist() == [[1.0]]


def test_softmax_of_large_scores(batch: Bags) -> None:
    first, _ = batch.split(softmax_over_instances(batch.features[..., :1] * 1e4, batch))
    assert first[:, 0].tolist() == [0, 1, 0]


def test_columns_are_independent(batch: Bags) -> None:
    both = softmax_over_instances(batch.features, batch)
    for column in range(2):
        alone = softmax_over_instances(batch.features[..., column : column + 1], batch)
        torch.testing.assert_close(both[..., column : column + 1], alone)


def test_weighted_sum(batch: Bags) -> None:
    weights = torch.where(batch.features < 0, 0.5, 2.0)
    if batch.mask is not None:
        weights = weights * batch.mask[..., None]
    sums = sum_over_instances(weights, batch.features, batch)
    assert sums.tolist() == [[[12, -30], [3, -7.5]], [[-2, 3], [-8, 12]]]


def test_mean(batch: Bags) -> None:
    torch.testing.assert_close(mean_over_instances(batch.features, batch), torch.tensor([[2.0, -5.0], [-4.0, 6.0]]))


@pytest.mark.parametrize("at_once", [0, 1 << 20])
def test_mean_of_many_half_precision_values(at_once: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Their sum, 120,000, is more than float16 holds."""
    monkeypatch.setitem(pooling._AT_ONCE, "cpu", at_once)
    bags = [Bag(torch.full((length, 1), 3.0)) for length in (40_000, *[2] * 8)]
    for batch in (Bags.pack(bags), Bags.pad(bags)):
        with torch.autocast("cpu", dtype=torch.float16):
            mean = mean_over_instances(batch.features.half(), batch)
        assert mean.dtype == torch.float16 and mean.tolist() == [[3.0]] * 9


def test_max_of_negative_values_ignores_padding(batch: Bags) -> None:
    assert max_over_instances(batch.features, batch).tolist() == [[3, -1], [-4, 6]]


def test_gradient_of_max_goes_to_one_of_equals(batch: Bags) -> None:
    values = torch.zeros_like(batch.features).requires_grad_()
    max_over_instances(values, batch).sum().backward()
    assert values.grad is not None
    for gradient in batch.split(values.grad):
        assert gradient.sum(0).tolist() == [1, 1]
        assert (gradient != 0).sum() == 2


def test_gradient_is_finite_and_absent_on_padding() -> None:
    batch = Bags.pad(BAGS)
    assert batch.mask is not None
    raw = torch.full((2, 3, 1), 1e30).requires_grad_()
    values = batch.features.clone().requires_grad_()
    weights = softmax_over_instances(raw, batch)
    (sum_over_instances(weights, values, batch) ** 2).sum().backward()
    gradients: list[Tensor | None] = [raw.grad, values.grad]
    for gradient in gradients:
        assert gradient is not None and torch.isfinite(gradient).all()
        assert not gradient[~batch.mask].any()
        assert gradient[batch.mask].any()


POOLINGS = {
    "softmax": lambda values, bags: softmax_over_instances(values[:, :3], bags),
    "sum": lambda values, bags: sum_over_instances(softmax_over_instances(values[:, :2], bags), values, bags),
    "mean": mean_over_instances,
    "max": max_over_instances,
}


@pytest.mark.parametrize("name", POOLINGS)
def test_all_bags_at_once_as_bag_by_bag(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    generator = torch.Generator().manual_seed(0)
    lengths = [5, 1, 17, 9, 2, 2, 30, 11, 4]
    bags = Bags.pack([Bag(torch.zeros(length, 6)) for length in lengths])
    start = torch.randn(sum(lengths), 6, generator=generator)
    start[5] = start[6]  # a tie inside a bag
    found = []
    for at_once in (1 << 20, 0):
        monkeypatch.setitem(pooling._AT_ONCE, "cpu", at_once)
        values = start.clone().requires_grad_()
        result = POOLINGS[name](values, bags)
        weights = torch.arange(result.numel(), dtype=torch.float32).view_as(result).cos()
        (result * weights).sum().backward()
        found.append((result.detach(), values.grad))
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-6)


def test_padded_maximum_sends_its_gradient_to_one_instance(monkeypatch: pytest.MonkeyPatch) -> None:
    values = torch.tensor([[2.0], [2.0], [1.0], [-3.0]], requires_grad=True)
    bags = Bags.pack([Bag(torch.zeros(3, 1)), Bag(torch.zeros(1, 1))])
    assert pooling._fits_padded(bags) and not pooling._fits_padded(
        Bags.pack([Bag(torch.zeros(9, 1)), *[Bag(torch.zeros(1, 1))] * 4])
    )
    monkeypatch.setattr(pooling, "_on_cpu", lambda values: False)
    largest = max_over_instances(values, bags)
    largest.sum().backward()
    assert largest.tolist() == [[2], [-3]]
    assert values.grad is not None and values.grad.sum() == 2 and values.grad.count_nonzero() == 2


def test_short_bags_of_a_batch_go_at_once_and_long_ones_do_not() -> None:
    short = Bags.pack([Bag(torch.zeros(30, 1))] * 16)
    assert pooling._all_at_once(short, torch.zeros(480, 1))
    assert not pooling._all_at_once(short, torch.zeros(480, 8))
    assert not pooling._all_at_once(Bags.pack([Bag(torch.zeros(400, 1))] * 16), torch.zeros(6400, 1))
    assert not pooling._all_at_once(Bags.pack([Bag(torch.zeros(30, 1))] * 4), torch.zeros(120, 1))
