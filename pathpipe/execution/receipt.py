"""Receipts: one small file a unit says what happened to it last. Derived tables are made from these."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from pathpipe.publish import publish_json
from pathpipe.run import Run

State = Literal["done", "current", "empty", "failed", "stale", "busy"]


@dataclass(frozen=True)
class Receipt:
    """The outcome of one unit.

    Attributes:
        state: `done` now; `current` since before; `empty`, rightly; `failed`; `stale`: made from something else and
            left alone; `busy`: another worker is making it.
        reason: What went wrong, or why it is empty, in one sentence.
        hint: What to do about it.
        counts: Numbers such as tiles.
        spent: Activity -> seconds, where the time went.
        trace: Python's traceback of an unforeseen failure.
        refused: Whether it failed because going on would leak test data into training.
        tried: Why earlier tries in the same command came to nothing: a worker or a node died.
    """

    stage: str
    key: str
    state: State
    reason: str | None = None
    hint: str | None = None
    fingerprint: str | None = None
    seconds: float = 0.0
    counts: Mapping[str, float] = field(default_factory=dict)
    spent: Mapping[str, float] = field(default_factory=dict)
    host: str = ""
    attempts: int = 1
    trace: str | None = None
    refused: bool = False
    tried: list[str] = field(default_factory=list)

    @property
    def ok(self) -> bool:
        """Whether downstream stages can go on."""
        return self.state in ("done", "current", "empty")

    def write(self, run: Run) -> None:
        """Keep it in the run."""
        publish_json(run.receipt(self.stage, self.key), asdict(self))


def read_receipt(run: Run, stage: str, key: str) -> Receipt | None:
    """The last receipt of a unit, or None."""
    try:
        value: dict[str, Any] = json.loads(run.receipt(stage, key).read_text(encoding="utf-8"))
        return Receipt(**value)
    except (OSError, ValueError, TypeError):
        return None
