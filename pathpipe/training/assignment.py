"""Assignment: which fold everyone goes to, so that each fold has its share of every stratum.

Patients alone are dealt; patients with several labels go by iterative stratification; units that must stay whole
(families, sites) by an integer programme. The same inputs and seed give the same folds on any machine: the programme
is bounded by nodes, not by time.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import sparse
from scipy.optimize import Bounds, LinearConstraint, milp

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]
_NODES = 3000
_SMALL = 60  # units times folds up to which the programme takes no time
_CELLS = 1200  # ... above which it takes too long
_NEAR = 3.0  # patients: where a search comes as close with many units, the programme has next to nothing to gain
_SWAPS = 200  # units up to which every pair is tried
_PASSES = 50


@dataclass(frozen=True, eq=False)
class Assigned:
    """Folds of units, and how even they are.

    Attributes:
        fold: (U,) fold of each unit.
        deviation: Patients too many or too few of one stratum in one fold, at most.
        optimal: Whether no assignment is more even (by the cost of `cost_of`).
    """

    fold: Ints
    deviation: float
    optimal: bool


def deal(strata: npt.NDArray[np.bool_], folds: int, seed: int) -> Ints:
    """Deal patients that are in one stratum each: a fold's share of a stratum, and of all, is off by less than one.

    Args:
        strata: (P, S), one True a row.

    Returns:
        (P,) fold.
    """
    fold = np.zeros(len(strata), np.int64)
    start = 0
    for members in strata.T:
        # Dealing goes on where the last stratum stopped, so that folds have equal sizes over all strata too.
        shuffled = np.random.default_rng([seed, start]).permutation(np.flatnonzero(members))
        fold[shuffled] = (start + np.arange(len(shuffled))) % folds
        start += len(shuffled)
    return fold


def stratify_iteratively(labels: npt.NDArray[np.bool_], shares: Floats, rng: np.random.Generator) -> Ints:
    """Distribute patients with several labels: rarest label first, each patient to the fold that lacks it most.

    Args:
        labels: (P, L) which labels hold.
        shares: (F,) share of the patients each fold should have; they add up to 1.

    Returns:
        (P,) fold.

    Reference: Sechidis, Tsoumakas & Vlahavas (2011), On the Stratification of Multi-Label Data, algorithm 1.
    """
    fold = np.full(len(labels), -1, np.int64)
    wanted = labels.sum(axis=0)[:, None] * shares[None]
    room = len(labels) * shares
    order = rng.permutation(len(labels))
    while (fold < 0).any():
        left = labels[fold < 0].sum(axis=0)
        alive = np.flatnonzero(left)
        rarest = alive[np.argmin(left[alive])] if len(alive) else None
        for patient in order[fold[order] < 0]:
            if rarest is not None and not labels[patient, rarest]:
                continue
            need = room if rarest is None else wanted[rarest]
            best = np.flatnonzero(need >= need.max() - 1e-9)
            best = best[room[best] >= room[best].max() - 1e-9]
            chosen = int(best[rng.integers(len(best))]) if len(best) > 1 else int(best[0])
            fold[patient] = chosen
            wanted[labels[patient], chosen] -= 1
            room[chosen] -= 1
    return fold


def assign_units(counts: Ints, sizes: Ints, shares: Floats, rng: np.random.Generator) -> Assigned:
    """Distribute units that stay whole so that every fold has its share of each stratum, and at least one unit.

    The folds minimise `cost_of`. A greedy search with moves and swaps comes first; an integer programme follows where
    there are few units or the search left folds uneven. Where it reaches its node limit, the better of both is taken.

    Args:
        counts: (U, S) patients of each unit by stratum; at least as many units as folds.
        sizes: (U,) patients of each unit, which are spread evenly too.
        shares: (F,) share of the patients each fold should have; they add up to 1.

    Reference: Howard et al. (2021), The impact of site-specific digital histology signatures on deep learning model
    accuracy and bias, Nature Communications 12, 4423 (whole sites in folds by quadratic programming; here the cost is
    linear, which a solver without licence takes).
    """
    # Ties are broken by the seed; large units first, as both searches want them.
    order = rng.permutation(len(counts))
    order = order[np.argsort(-sizes[order], kind="stable")]
    padded = np.column_stack([counts[order], sizes[order]])
    fold = _improved(padded, _greedy(padded, shares), shares)
    optimal = False
    cells, off = len(padded) * len(shares), float(np.abs(_surplus(padded, fold, shares)).max())
    if cells <= _SMALL or (cells <= _CELLS and off > _NEAR):
        solved, optimal = _programme(padded, shares)
        if solved is not None and cost_of(padded, solved, shares) < cost_of(padded, fold, shares) - 1e-9:
            fold = solved
    result = np.empty_like(fold)
    result[order] = fold
    return Assigned(result, float(np.abs(_surplus(padded, fold, shares)).max()), optimal)


def cost_of(counts: Ints, fold: Ints, shares: Floats) -> float:
    """How uneven folds are: patients too many or too few over strata and folds, plus F times the largest such number.

    Args:
        counts: (U, S) patients by stratum; a column with all patients makes sizes count too.
        fold: (U,).
        shares: (F,).
    """
    surplus = np.abs(_surplus(counts, fold, shares))
    return float(surplus.sum() + len(shares) * surplus.max())


def _surplus(counts: Ints, fold: Ints, shares: Floats) -> Floats:
    """(F, S) patients above what is fair."""
    found = np.zeros((len(shares), counts.shape[1]))
    np.add.at(found, fold, counts)
    return found - shares[:, None] * counts.sum(axis=0)[None]


def _cost(surplus: Floats) -> Floats:
    """(..., F, S) -> (...) cost."""
    size = np.abs(surplus)
    return np.asarray(size.sum(axis=(-2, -1)) + surplus.shape[-2] * size.max(axis=(-2, -1)))


def _greedy(counts: Ints, shares: Floats) -> Ints:
    """Each unit, large ones first, to the fold that lacks most of what it brings."""
    fold = np.zeros(len(counts), np.int64)
    surplus = -shares[:, None] * counts.sum(axis=0)[None]
    filled = np.zeros(len(shares), bool)
    for unit, brought in enumerate(counts):
        tried = surplus[None] + np.eye(len(shares))[:, :, None] * brought
        cost = np.abs(tried).sum(axis=(1, 2))
        if len(counts) - unit <= (~filled).sum():  # the last units are for folds without any
            cost[filled] = np.inf
        best = int(np.argmin(cost))
        fold[unit], filled[best] = best, True
        surplus[best] += brought
    return fold


def _improved(counts: Ints, fold: Ints, shares: Floats) -> Ints:
    """Move single units, then swap pairs, as long as that makes folds more even."""
    fold = fold.copy()
    for _ in range(_PASSES):
        moved = _move(counts, fold, shares)
        if not (len(counts) <= _SWAPS and _swap(counts, fold, shares)) and not moved:
            break
    return fold


def _move(counts: Ints, fold: Ints, shares: Floats) -> bool:
    surplus, moved = _surplus(counts, fold, shares), False
    sizes = np.bincount(fold, minlength=len(shares))
    for unit, brought in enumerate(counts):
        old = int(fold[unit])
        if sizes[old] == 1:
            continue
        without = surplus.copy()
        without[old] -= brought
        cost = _cost(without[None] + np.eye(len(shares))[:, :, None] * brought)
        best = int(np.argmin(cost))
        if cost[best] < cost[old] - 1e-9:
            without[best] += brought
            sizes[old] -= 1
            sizes[best] += 1
            fold[unit], surplus, moved = best, without, True
    return moved


def _swap(counts: Ints, fold: Ints, shares: Floats) -> bool:
    surplus, swapped = _surplus(counts, fold, shares), False
    for unit in range(len(counts)):
        others = np.flatnonzero(fold != fold[unit])
        if not len(others):
            continue
        change = (counts[others] - counts[unit]).astype(float)
        tried = np.repeat(surplus[None], len(others), axis=0)
        tried[:, fold[unit]] += change
        tried[np.arange(len(others)), fold[others]] -= change
        cost = _cost(tried)
        best = int(np.argmin(cost))
        if cost[best] < float(_cost(surplus)) - 1e-9:
            surplus, swapped = tried[best], True
            fold[unit], fold[others[best]] = fold[others[best]], fold[unit]
    return swapped


def _programme(counts: Ints, shares: Floats) -> tuple[Ints | None, bool]:
    """Minimise `cost_of` exactly: (folds or None, whether they are known to be best)."""
    units, strata, folds = len(counts), counts.shape[1], len(shares)
    cells = units * folds
    size = cells + strata * folds + 1  # x[u, f], distance[s, f], largest distance
    fair = (shares[None] * counts.sum(axis=0)[:, None]).ravel()
    eye, one = sparse.eye_array(strata * folds), np.ones((1, 1))
    inside = sparse.kron(sparse.coo_array(counts.T), sparse.eye_array(folds))  # patients of (s, f)
    once = sparse.hstack([sparse.kron(sparse.eye_array(units), np.ones((1, folds))), _none(units, size - cells)])
    filled = sparse.hstack([sparse.kron(np.ones((1, units)), sparse.eye_array(folds)), _none(folds, size - cells)])
    above = sparse.hstack([inside, -eye, _none(strata * folds, 1)])
    below = sparse.hstack([-inside, -eye, _none(strata * folds, 1)])
    largest = sparse.hstack([_none(strata * folds, cells), eye, -np.ones((strata * folds, 1)) * one])
    upper = np.full(size, np.inf)
    upper[:cells] = 1
    if np.ptp(shares) < 1e-12:  # folds are alike but for their numbers: unit i need not look beyond fold i
        upper[:cells] = (np.arange(folds)[None] <= np.arange(units)[:, None]).ravel()
    found = milp(
        np.concatenate([np.zeros(cells), np.ones(strata * folds), [folds]]),
        integrality=np.concatenate([np.ones(cells), np.zeros(size - cells)]),
        bounds=Bounds(np.zeros(size), upper),
        constraints=[
            LinearConstraint(once.tocsc(), 1, 1),
            LinearConstraint(filled.tocsc(), 1, np.inf),
            LinearConstraint(above.tocsc(), -np.inf, fair),
            LinearConstraint(below.tocsc(), -np.inf, -fair),
            LinearConstraint(largest.tocsc(), -np.inf, 0),
        ],
        options={"node_limit": _NODES, "mip_rel_gap": 1e-6},
    )
    if found.x is None:
        return None, False
    return np.argmax(found.x[:cells].reshape(units, folds), axis=1).astype(np.int64), found.status == 0


def _none(rows: int, columns: int) -> sparse.coo_array:
    return sparse.coo_array((rows, columns))
