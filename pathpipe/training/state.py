"""State: a training that was cut off goes on from its last saved step, to the same numbers as if it never had been.

Randomness needs no saving: every draw is seeded by the step it is for (`training/sampling.py`).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from pathpipe.errors import StoreError
from pathpipe.publish import Claim
from pathpipe.training.archive import read_archive, write_archive

FORMAT, VERSION = "pathpipe-training", 1


@dataclass
class Standing:
    """How far a training is.

    Attributes:
        epoch: Epochs that are through.
        step: Optimiser steps done of the next one.
        loss: Sum over the bags of these steps.
        history: One row an epoch.
        best_epoch: From 1; 0 before the first validation.
        best: What is maximised, most important first.
        weights: State dict of the best epoch.
    """

    epoch: int = 0
    step: int = 0
    loss: Tensor = field(default_factory=lambda: torch.zeros((), dtype=torch.float64))
    history: list[dict[str, float]] = field(default_factory=list)
    best_epoch: int = 0
    best: tuple[float, ...] = ()
    weights: dict[str, Tensor] = field(default_factory=dict)


@dataclass
class StateFile:
    """Where a half-made training is kept.

    Attributes:
        fingerprint: Of what is trained: a file of anything else is ignored and replaced.
        every_s: Seconds between two savings.
        claim: Of the worker that trains: one that has lost it saves and removes nothing.
    """

    path: Path
    fingerprint: str
    every_s: float = 30.0
    claim: Claim | None = None
    _saved_at: float = field(default_factory=lambda: time.monotonic())

    def read(self) -> dict[str, Any] | None:
        """What `save` was given, tensors on the host; None when there is nothing that can be gone on with."""
        try:
            content = read_archive(self.path)
        except StoreError:
            return None
        known = {"format": FORMAT, "version": VERSION, "torch": str(torch.__version__), "fingerprint": self.fingerprint}
        if not isinstance(content, dict) or any(content.get(key) != value for key, value in known.items()):
            return None
        return dict(content["content"])

    def save(self, content: Callable[[], Mapping[str, Any]]) -> None:
        """Replace the file, if the last time is long enough ago."""
        if time.monotonic() - self._saved_at < self.every_s:
            return
        head = {"format": FORMAT, "version": VERSION, "torch": str(torch.__version__), "fingerprint": self.fingerprint}
        write_archive(self.path, {**head, "content": dict(content())}, self.claim)
        self._saved_at = time.monotonic()

    def forget(self) -> None:
        """The training is through: what it left half-made has served."""
        if self.claim is not None:
            self.claim.confirm()
        self.path.unlink(missing_ok=True)
