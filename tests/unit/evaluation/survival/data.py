"""Survival data of the tests: the published leukaemia trial, peers' numbers, and small random cohorts with ties."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

# Weeks in remission of 21 patients on 6-MP and 21 on placebo: Freireich et al. (1963), Blood 21, 699-716, as given by
# Gehan (1965), Biometrika 52, 203-223.
MP_WEEKS = np.array([6, 6, 6, 6, 7, 9, 10, 10, 11, 13, 16, 17, 19, 20, 22, 23, 25, 32, 32, 34, 35], float)
MP_RELAPSE = np.array([1, 1, 1, 0, 1, 0, 1, 0, 0, 1, 1, 0, 0, 0, 1, 1, 0, 0, 0, 0, 0], bool)
PLACEBO_WEEKS = np.array([1, 1, 2, 2, 3, 4, 4, 5, 5, 8, 8, 8, 8, 11, 11, 12, 12, 15, 17, 22, 23], float)
WEEKS = np.r_[MP_WEEKS, PLACEBO_WEEKS]
RELAPSE = np.r_[MP_RELAPSE, np.ones(21, bool)]
PLACEBO = np.r_[np.zeros(21), np.ones(21)]

PEERS: dict[str, Any] = json.loads((Path(__file__).parent / "peers.json").read_text())


def of_peers(name: str) -> tuple[np.ndarray, ...]:
    """time, event, risk, group, stratum of one of the peers' cohorts: `train`, `test` or `crossed`."""
    data = PEERS[name]
    event = np.array(data["event"], bool)
    return np.array(data["time"]), event, np.array(data["risk"]), np.array(data["group"]), np.array(data["stratum"])


def cohort(seed: int, patients: int = 30) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """time, event and risk with ties in all of them, events and censored at the same times."""
    rng = np.random.default_rng(seed)
    time = rng.integers(1, 9, patients) / 2
    return time, rng.random(patients) < 0.6, rng.integers(0, 6, patients) / 2.0


def draws(seed: int, patients: int, count: int = 4) -> np.ndarray:
    """(count, P) bootstrap-like counts with zeros."""
    return np.random.default_rng(1000 + seed).integers(0, 4, (count, patients)).astype(float)
