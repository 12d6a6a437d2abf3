"""Faithfulness: does what is predicted hang on the tiles that score high? Deletion, insertion and artefacts."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.integrate import trapezoid
from scipy.stats import t

from pathpipe.explain.aims import Aim
from pathpipe.explain.probing import Member, Probe, Rows
from pathpipe.tissue.mask import TissueMask, area_share, integral

Floats = npt.NDArray[np.float64]
STEPS = 20
MOST_TILES = 4_000
SEED = 0
_LEVEL = 0.95
ANY = "any"


@dataclass(frozen=True)
class Curve:
    """One way of taking tiles away or adding them.

    Attributes:
        values: At each number of tiles kept, from all or one of them onwards.
        area: Mean height of the curve.
        random: Mean height over random orders, with a 95% t-interval of that mean.
        low: Its lower end.
        high: Its upper end.
        gain: How much better than the random mean; above 0 the scores find what matters.
        beaten: Share of the random orders that are worse.
    """

    values: tuple[float, ...]
    area: float
    random: float
    low: float
    high: float
    gain: float
    beaten: float


@dataclass(frozen=True)
class Curves:
    """Deletion and insertion of tiles in the order of their scores.

    Attributes:
        kept: Share of the tiles kept in insertion, ascending; deletion keeps them in descending order.
        random: Mean over random orders at each share kept.
        measure: `probability`, or `closeness`: minus the distance from what is predicted from all tiles.
        tiles: How many were used.
        of_tiles: How many there are.
        orders: Random orders.
    """

    kept: tuple[float, ...]
    random: tuple[float, ...]
    deletion: Curve
    insertion: Curve
    measure: str
    tiles: int
    of_tiles: int
    orders: int

    def to_dict(self) -> dict[str, Any]:
        """JSON-able form."""
        return asdict(self)


def deletion_insertion(
    members: Sequence[Member], aims: Sequence[Aim], score: Floats, orders: int, seed: int = SEED
) -> Curves | None:
    """Take tiles away from the highest score on, and add them from the highest on; random orders beside.

    The whole bag of the patient is used, or `MOST_TILES` of it drawn at random; at least one tile always stays. A class
    is followed by its probability. A number or risk, which good evidence may move either way, is followed by minus its
    distance from what all tiles together give. Ties of the score are broken at random.

    Args:
        aims: The aim, as each member has it.
        score: (N,) of the bag's tiles.
        orders: How many random orders.

    Returns:
        None for a bag of one tile.

    Reference: Petsiuk, Das & Saenko, RISE, BMVC 2018, arXiv:1806.07421 (deletion and insertion).
    """
    if len(score) < 2:
        return None
    rng = np.random.default_rng([seed, len(score)])
    rows = np.arange(len(score))
    if len(score) > MOST_TILES:
        rows = np.sort(rng.choice(len(score), MOST_TILES, replace=False))
    tiles = len(rows)
    kept = np.unique(np.rint(np.linspace(1, tiles, STEPS + 1)).astype(np.int64))
    order = np.lexsort((rng.permutation(tiles), -score[rows]))  # among the rows, the highest first
    chance = [rng.permutation(tiles) for _ in range(orders)]
    subsets = [np.sort(order[:count]) for count in kept] + [np.sort(order[tiles - count :]) for count in kept]
    subsets += [np.sort(one[:count]) for one in chance for count in kept]
    values = _values(members, aims, rows, subsets).reshape(2 + orders, len(kept))
    heights = _heights(values, kept / tiles)
    return Curves(
        kept=tuple((kept / tiles).tolist()),
        random=tuple(values[2:].mean(axis=0).tolist()),
        deletion=_curve(values[1, ::-1], heights[1], heights[2:], -1),
        insertion=_curve(values[0], heights[0], heights[2:], 1),
        measure="probability" if aims[0].kind == "class" else "closeness",
        tiles=tiles,
        of_tiles=len(score),
        orders=orders,
    )


def _values(members: Sequence[Member], aims: Sequence[Aim], rows: Rows, subsets: Sequence[Rows]) -> Floats:
    """(R,) what the ensemble says of each subset of the rows; a whole bag's is the last of the first block."""
    said = []
    for member, aim in zip(members, aims, strict=True):
        probe = Probe(member, None if len(rows) == len(member.bag) else rows)
        said.append(aim.value(probe.logits(subsets)).numpy())
    values = np.mean(said, axis=0)
    if aims[0].kind == "class":
        return np.asarray(values)
    whole = values[next(at for at, subset in enumerate(subsets) if len(subset) == len(rows))]
    return -np.abs(values - whole)


def _heights(values: Floats, kept: Floats) -> Floats:
    """(R,) mean height of curves by the trapezoidal rule."""
    return np.asarray(trapezoid(values, kept, axis=1) / (kept[-1] - kept[0]))


def _curve(values: Floats, area: float, chance: Floats, sign: int) -> Curve:
    mean = float(chance.mean())
    reach = float(t.ppf((1 + _LEVEL) / 2, len(chance) - 1) * chance.std(ddof=1) / math.sqrt(len(chance)))
    beaten = float((sign * area > sign * chance).mean())
    gain = sign * (float(area) - mean)
    return Curve(tuple(values.tolist()), float(area), mean, mean - reach, mean + reach, gain, beaten)


def artefact_shares(
    mask: TissueMask, xy0: npt.NDArray[np.int64], side0: tuple[float, float], weights: Floats
) -> dict[str, dict[str, float]]:
    """Share of a score that lies on artefacts, and their share of the tiles' area.

    Args:
        weights: (N,) of the tiles, summing to 1.

    Returns:
        Kind of artefact, and `any` -> `score` and `area`, both 0 to 1; nothing where none was seen.
    """
    seen: Mapping[str, npt.NDArray[np.bool_]] = {kind: where for kind, where in mask.artefacts.items() if where.any()}
    if not seen or not len(xy0):
        return {}
    regions = {**seen, ANY: np.logical_or.reduce(list(seen.values()))}
    found = {}
    for kind, where in regions.items():
        share = area_share(integral(where), mask.scale0, xy0, side0).astype(np.float64)
        found[kind] = {"score": float(weights @ share), "area": float(share.mean())}
    return found
