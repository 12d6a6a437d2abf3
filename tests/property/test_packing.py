"""Packing and padding lose nothing, and no model can tell them apart."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from pathpipe.mil.bag import Bags
from pathpipe.mil.pooling import max_over_instances, mean_over_instances, softmax_over_instances, sum_over_instances
from pathpipe.mil.registry import MODELS, Recipe, build_model
from pathpipe.testing.bags import random_bag

SIZES = st.lists(st.integers(1, 40), min_size=1, max_size=6)
SMALLER = {"transmil": {"landmarks": 16}}  # short bags are filled up to as many
CASES = settings(max_examples=40, deadline=None)


@CASES
@given(SIZES, st.integers(1, 9))
def test_round_trips(sizes: list[int], dim: int) -> None:
    bags = [random_bag(size, dim, seed=place) for place, size in enumerate(sizes)]
    packed = Bags.pack(bags)
    for batch in (packed, packed.to_padded(), packed.to_padded().to_packed()):
        assert batch.lengths == tuple(sizes)
        assert batch.xy0 is not None
        for bag, features, xy0 in zip(bags, batch.split(batch.features), batch.split(batch.xy0), strict=True):
            np.testing.assert_array_equal(features, bag.features)
            np.testing.assert_array_equal(xy0, bag.xy0)
    padded = packed.to_padded()
    assert padded.mask is not None
    assert padded.mask.sum(1).tolist() == sizes
    assert not padded.features[~padded.mask].any()


@CASES
@given(SIZES)
def test_poolings_equal_a_plain_loop(sizes: list[int]) -> None:
    bags = [random_bag(size, 3, seed=place) for place, size in enumerate(sizes)]
    arrays = [np.asarray(bag.features, np.float64) for bag in bags]
    for batch in (Bags.pack(bags), Bags.pad(bags)):
        weights = softmax_over_instances(batch.features, batch)
        sums = sum_over_instances(weights, batch.features, batch)
        for place, array in enumerate(arrays):
            share = np.exp(array) / np.exp(array).sum(0)
            np.testing.assert_allclose(sums[place], share.T @ array, atol=1e-5)
            np.testing.assert_allclose(mean_over_instances(batch.features, batch)[place], array.mean(0), atol=1e-5)
            np.testing.assert_allclose(max_over_instances(batch.features, batch)[place], array.max(0), atol=1e-6)


@pytest.mark.parametrize("name", MODELS.names())
@settings(max_examples=15, deadline=None)
@given(sizes=SIZES)
def test_padded_packed_and_loop_give_the_same_logits_and_gradients(name: str, sizes: list[int]) -> None:
    torch.manual_seed(0)
    model = build_model(Recipe(name, {"hidden": 16, **SMALLER.get(name, {})}), 5, 3).eval()
    bags = [random_bag(size, 5, seed=place) for place, size in enumerate(sizes)]
    results = []
    for batches in ([Bags.pack(bags)], [Bags.pad(bags)], [Bags.pack([bag]) for bag in bags]):
        model.zero_grad()
        logits = torch.cat([model(batch).logits for batch in batches])
        logits.square().sum().backward()
        results.append([logits, *(p.grad.clone() for p in model.parameters() if p.grad is not None)])
    for other in results[1:]:
        for one, two in zip(results[0], other, strict=True):
            torch.testing.assert_close(one, two, rtol=1e-4, atol=1e-5)
