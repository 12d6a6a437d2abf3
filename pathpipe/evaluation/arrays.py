"""What the arithmetic of evaluation shares: types of arrays, a division that knows when it has no meaning, and lengths.

Metrics take weights (K, P) and give (K,) values: a bootstrap draw is a vector of counts, in which a patient drawn twice
weighs 2, and a patient left out weighs 0.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]


def ratio(top: npt.ArrayLike, bottom: npt.ArrayLike) -> Floats:
    """`top` / `bottom`, NaN where `bottom` is not above 0."""
    top, bottom = np.broadcast_arrays(np.asarray(top, np.float64), np.asarray(bottom, np.float64))
    return np.divide(top, bottom, out=np.full(top.shape, np.nan), where=bottom > 0)


def ones(patients: int) -> Floats:
    """(1, P) weights of the data as they are."""
    return np.ones((1, patients))


def same_length(**named: npt.NDArray[np.generic]) -> int:
    """Number of patients, which all arrays must have as their first axis.

    Raises:
        ValueError: Two arrays differ; the text names both.
    """
    lengths = {name: np.shape(array)[:1] for name, array in named.items()}
    if any(not length for length in lengths.values()) or len(set(lengths.values())) > 1:
        listed = ", ".join(f"`{name}` {np.shape(array)}" for name, array in named.items())
        raise ValueError(f"arrays must have one row a patient, each the same number: {listed}")
    return int(next(iter(lengths.values()))[0])


def same_weights(weights: Floats, patients: int) -> Floats:
    """`weights`, if they are (K, P) and P is `patients`.

    Raises:
        ValueError: They are not.
    """
    if weights.ndim != 2 or weights.shape[1] != patients:
        raise ValueError(f"weights must be (draws, {patients}), not {weights.shape}")
    return weights


def binary(targets: npt.NDArray[np.generic], name: str = "targets") -> Bools:
    """(P,) booleans of an array of 0 and 1.

    Raises:
        ValueError: There are other values, or more axes than one.
    """
    if targets.ndim != 1 or not np.isin(targets, (0, 1)).all():
        raise ValueError(f"`{name}` must be one row of 0 and 1")
    return targets.astype(bool)


def mid_ranks(values: Floats) -> Floats:
    """(P,) ranks from 1; ties get the mean of the ranks they take together."""
    return ranks(values, ones(len(values)))[0]


def ranks(values: Floats, weights: Floats) -> Floats:
    """Mid-ranks as if every patient stood in the list as often as it weighs.

    Returns:
        (K, P) ranks from 1; equal for ties. The rank of a patient of weight 0 means nothing; all are NaN if a value is.
    """
    if np.isnan(values).any():
        return np.full(weights.shape, np.nan)
    order = np.argsort(values, kind="stable")
    starts, group = tie_groups(values[order])
    heavy = np.add.reduceat(weights[:, order], starts, axis=1)
    below = np.cumsum(heavy, axis=1) - heavy
    ranked = np.empty(weights.shape)
    ranked[:, order] = (below + (heavy + 1) / 2)[:, group]
    return ranked


def tie_groups(ordered: Floats) -> tuple[npt.NDArray[np.intp], npt.NDArray[np.intp]]:
    """Where each distinct value begins, and (P,) which of them each value is; `ordered` is sorted."""
    fresh = np.r_[True, ordered[1:] != ordered[:-1]][: len(ordered)]
    return np.flatnonzero(fresh), np.cumsum(fresh) - 1
