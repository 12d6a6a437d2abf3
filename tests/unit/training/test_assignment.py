"""Assignment of units, labels and patients to folds, against brute force and hand-made cases."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest

from pathpipe.training import assignment
from pathpipe.training.assignment import assign_units, cost_of, deal, stratify_iteratively


def _units(seed: int, count: int, strata: int) -> tuple[np.ndarray, np.ndarray]:
    counts = np.random.default_rng(seed).integers(0, 9, (count, strata))
    counts[:, 0] += 1
    return counts, counts.sum(axis=1)


def _plain_cost(counts: np.ndarray, sizes: np.ndarray, fold: tuple[int, ...], shares: list[float]) -> float:
    """The documented cost, with loops."""
    off = []
    for column in [*counts.T.tolist(), sizes.tolist()]:
        for number, share in enumerate(shares):
            inside = sum(value for value, at in zip(column, fold, strict=True) if at == number)
            off.append(abs(inside - share * sum(column)))
    return sum(off) + len(shares) * max(off)


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("shares", [[1 / 2, 1 / 2], [1 / 3, 1 / 3, 1 / 3], [0.2, 0.8]])
def test_units_are_as_even_as_brute_force_finds(seed: int, shares: list[float]) -> None:
    counts, sizes = _units(seed, 7, 2)
    found = assign_units(counts, sizes, np.array(shares), np.random.default_rng(0))
    every = [fold for fold in product(range(len(shares)), repeat=len(counts)) if len(set(fold)) == len(shares)]
    best = min(_plain_cost(counts, sizes, fold, shares) for fold in every)
    assert found.optimal
    assert _plain_cost(counts, sizes, tuple(found.fold.tolist()), shares) == pytest.approx(best)


def test_a_stopped_programme_says_so_and_is_no_worse_than_the_search(monkeypatch: pytest.MonkeyPatch) -> None:
    counts, sizes = _units(3, 12, 3)
    shares, rng = np.full(4, 0.25), np.random.default_rng
    exact = assign_units(counts, sizes, shares, rng(0))
    monkeypatch.setattr(assignment, "_NODES", 1)
    stopped = assign_units(counts, sizes, shares, rng(0))
    monkeypatch.setattr(assignment, "_SMALL", 0)
    monkeypatch.setattr(assignment, "_CELLS", 0)
    searched = assign_units(counts, sizes, shares, rng(0))
    whole = np.column_stack([counts, sizes])
    costs = [cost_of(whole, one.fold, shares) for one in (exact, stopped, searched)]
    assert exact.optimal and not stopped.optimal and not searched.optimal
    assert costs[0] <= costs[1] <= costs[2] < 2 * costs[0]
    assert all(set(one.fold.tolist()) == set(range(4)) for one in (exact, stopped, searched))


def test_the_deviation_is_that_of_the_worst_fold() -> None:
    counts = np.array([[4, 0], [0, 4], [2, 2]])
    found = assign_units(counts, counts.sum(axis=1), np.full(3, 1 / 3), np.random.default_rng(0))
    assert sorted(found.fold.tolist()) == [0, 1, 2]
    assert found.deviation == pytest.approx(2.0)


def test_many_units_are_searched_and_even() -> None:
    rng = np.random.default_rng(5)
    counts = rng.multinomial(1, [0.7, 0.3], size=3000) + rng.multinomial(1, [0.7, 0.3], size=3000)
    found = assign_units(counts, counts.sum(axis=1), np.full(10, 0.1), np.random.default_rng(0))
    assert not found.optimal
    assert found.deviation < 3


def test_dealing_is_even_within_one_patient() -> None:
    strata = np.eye(3, dtype=bool)[np.repeat([0, 1, 2], [7, 5, 11])]
    fold = deal(strata, 4, seed=2)
    for members in (*strata.T, np.ones(23, bool)):
        sizes = np.bincount(fold[members], minlength=4)
        assert np.ptp(sizes) <= 1


def test_iterative_stratification_keeps_each_label_even() -> None:
    rng = np.random.default_rng(1)
    labels = rng.random((400, 4)) < [0.5, 0.25, 0.1, 0.03]
    fold = stratify_iteratively(labels, np.full(5, 0.2), np.random.default_rng(0))
    for column in (*labels.T, np.ones(400, bool)):
        sizes = np.bincount(fold[column], minlength=5)
        assert np.abs(sizes - column.sum() / 5).max() <= 2
    rare = np.bincount(fold[labels[:, 3]], minlength=5)
    assert np.ptp(rare) <= 1, "the rarest label goes first and comes out best"


def test_iterative_stratification_goes_by_shares() -> None:
    labels = np.zeros((50, 2), bool)
    labels[:20, 0] = True
    fold = stratify_iteratively(labels, np.array([0.2, 0.8]), np.random.default_rng(0))
    assert np.bincount(fold).tolist() == [10, 40]
    assert np.bincount(fold[:20]).tolist() == [4, 16]
