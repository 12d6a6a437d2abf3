"""Bags of made-up features for tests."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from pathpipe.mil.bag import Bag


def random_bag(instances: int, dim: int, seed: int = 0, name: str = "bag") -> Bag:
    """Normal features on a square grid of 256-px tiles."""
    rng = np.random.default_rng([seed, instances])
    features = rng.standard_normal((instances, dim), dtype=np.float32)
    return Bag(features, _square_grid(instances), bag_id=name, patient_id=name)


def _square_grid(instances: int) -> np.ndarray:
    """(N, 2) int64 corners of 256-px tiles, row by row."""
    side = int(np.ceil(np.sqrt(instances)))
    return np.stack(np.divmod(np.arange(instances), side)[::-1], axis=1) * np.int64(256)


@dataclass(frozen=True)
class WitnessBags:
    """Bags of which every second holds one instance that makes it positive.

    Attributes:
        labels: 0 or 1 for each bag.
        witness: Row of the deciding instance, -1 in negative bags.
    """

    bags: tuple[Bag, ...]
    labels: tuple[int, ...]
    witness: tuple[int, ...]


def witness_bags(count: int = 16, instances: int = 200, dim: int = 32, seed: int = 0) -> WitnessBags:
    """Normal instances of standard deviation 0.3; a witness is 8 long along one fixed direction.

    With more noise the bags can be told apart by heart, and a model that does so need not find the witness.
    """
    rng = np.random.default_rng(seed)
    direction = rng.standard_normal(dim)
    direction *= 8.0 / np.linalg.norm(direction)
    bags, witness = [], []
    for number in range(count):
        features = rng.normal(0.0, 0.3, (instances, dim))
        witness.append(int(rng.integers(instances)) if number % 2 else -1)
        if number % 2:
            features[witness[-1]] = direction
        name = f"bag-{number}"
        bags.append(Bag(features.astype(np.float32), _square_grid(instances), bag_id=name, patient_id=name))
    return WitnessBags(tuple(bags), tuple(number % 2 for number in range(count)), tuple(witness))
