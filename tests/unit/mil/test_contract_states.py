"""The contract kept by state-space models, INS and GNN-ViTCap."""

from __future__ import annotations

import numpy as np

from pathpipe.mil.bag import Bag
from pathpipe.testing.bags import random_bag
from pathpipe.testing.contract import DIM, SIZES, ModelContract

SMALL = {"hidden": 16, "state": 4}


class TestMambaMIL(ModelContract):
    model = "mambamil"
    options = {**SMALL, "type": "mamba"}


class TestBiMambaMIL(ModelContract):
    model = "mambamil"
    options = {**SMALL, "type": "bimamba", "layers": 1}


class TestSRMambaMIL(ModelContract):
    model = "mambamil"
    options = {**SMALL, "rate": 3}


class Test2DMamba(ModelContract):
    model = "2dmamba"
    options = SMALL

    def bags(self) -> list[Bag]:
        """Bags with a hole behind their first tile: the token of empty cells must be felt."""
        return [_with_hole(size) for size in SIZES]


class Test2DMambaOfAllCells(Test2DMamba):
    options = {**SMALL, "attend": "cells"}


class TestIns(ModelContract):
    model = "ins"
    options = {"hidden": 64}


class TestInsMean(ModelContract):
    model = "ins"
    options = {"hidden": 64, "pool": "mean"}


class TestGnnVitCap(ModelContract):
    model = "gnn-vitcap"
    options = {"hidden": 64}


def _with_hole(size: int) -> Bag:
    bag = random_bag(size + 1, DIM, seed=1, name=f"bag-{size}")
    return bag.take(np.delete(np.arange(size + 1), 1))
