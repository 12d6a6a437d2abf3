"""Familiarity: distances by their definition, each training patient against the others, percentiles by counting."""

from __future__ import annotations

from math import isnan, sqrt

import numpy as np
import pytest
import torch

from pathpipe.mil.bag import Bag
from pathpipe.testing.bags import random_bag
from pathpipe.training.familiarity import (
    SHRINKAGE,
    farthest,
    feature_moments,
    known_distances,
    percentile_of,
    slide_distances,
    slide_means,
)

DIM = 5


def _bags(count: int, seed: int = 0) -> list[Bag]:
    rng = np.random.default_rng(seed)
    return [Bag(rng.normal(rng.normal(size=DIM), 1.0, (4 + n, DIM)).astype(np.float32)) for n in range(count)]


def test_distance_by_hand() -> None:
    std = torch.tensor([1.0, 2.0])
    variances = [0.9 * 1 + 0.1 * 2.5, 0.9 * 4 + 0.1 * 2.5]
    assert SHRINKAGE == 0.1
    found = slide_distances(np.array([[3.0, 1.0], [1.0, 1.0]]), np.array([1.0, 1.0]), std)
    assert found == pytest.approx([sqrt(2.0**2 / variances[0] / 2), 0.0])
    assert variances[1] == pytest.approx(3.85)


def test_a_feature_that_never_varied_does_not_decide_alone() -> None:
    std = torch.tensor([0.0, 1.0])
    assert slide_distances(np.array([[0.01, 0.0]]), np.zeros(2), std)[0] < 0.04
    assert np.isfinite(slide_distances(np.array([[0.0, 0.0]]), np.zeros(2), torch.zeros(2))).all()


def test_slides_of_a_patient_have_their_own_means_in_any_order() -> None:
    features = np.arange(12, dtype=np.float16).reshape(6, 2)
    bag = Bag(features, slide=np.array([1, 0, 1, 0, 0, 1], np.int32), slide_ids=("a", "b"))
    assert slide_means(bag).tolist() == [[(2 + 6 + 8) / 3, (3 + 7 + 9) / 3], [(0 + 4 + 10) / 3, (1 + 5 + 11) / 3]]
    assert slide_means(Bag(features)).tolist() == [[5.0, 6.0]]


def test_training_slides_are_measured_from_the_other_patients() -> None:
    train, val = _bags(6), _bags(4, seed=1)
    train[2] = Bag(
        np.concatenate([np.asarray(train[2].features), np.full((3, DIM), 9, np.float32)]),
        slide=np.array([0] * 6 + [1] * 3, np.int32),
        slide_ids=("one", "two"),
    )
    mean, std = feature_moments(train)
    means = [np.asarray(bag.features, np.float64).mean(0) for bag in train]
    distances = []
    for number, bag in enumerate(train):
        others = np.mean([own for at, own in enumerate(means) if at != number], axis=0)
        distances += slide_distances(slide_means(bag), others, std).tolist()
    found = known_distances(train, val, mean, std)
    assert found["train"]["slides"] == 7 and found["val"]["slides"] == 4
    np.testing.assert_allclose(found["train"]["quantiles"], np.quantile(distances, np.linspace(0, 1, 101)), rtol=1e-5)
    assert farthest(found) == pytest.approx(max(distances), rel=1e-5), "the slide of nines"
    alone = known_distances(train[:1], val, mean, std)
    assert list(alone) == ["val"], "the one training patient has no others"


def test_percentile_counts_training_and_validation_slides_alike() -> None:
    train, val = _bags(40), _bags(10, seed=1)
    mean, std = feature_moments(train)
    known = known_distances(train, val, mean, std)
    centre, count = mean.double().numpy(), len(train)
    every = [
        slide_distances(slide_means(bag), (count * centre - slide_means(bag)[0]) / (count - 1), std)[0] for bag in train
    ]
    every += [slide_distances(slide_means(bag), centre, std)[0] for bag in val]
    for distance in np.linspace(0, max(every) * 1.2, 25):
        counted = 100 * np.mean(np.array(every) < distance)
        assert percentile_of(distance, known) == pytest.approx(counted, abs=4), "quantiles lie between slides"
    assert percentile_of(0.0, known) == 0 and percentile_of(max(every) * 1.01, known) == 100
    assert isnan(percentile_of(1.0, {})) and isnan(farthest({}))


def test_like_slides_are_usual_and_shifted_ones_are_not() -> None:
    train = [random_bag(60, 16, seed=number) for number in range(30)]
    mean, std = feature_moments(train)
    known = known_distances(train, [], mean, std)
    fresh = np.stack([slide_means(random_bag(60, 16, seed=100 + number))[0] for number in range(200)])
    usual = [percentile_of(one, known) for one in slide_distances(fresh, mean.double().numpy(), std)]
    assert 35 < np.mean(usual) < 65, "as likely to be near as far"
    shifted = slide_distances(fresh + 1.0, mean.double().numpy(), std)
    assert all(percentile_of(one, known) == 100 for one in shifted)
