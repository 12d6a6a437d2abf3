"""What work says of itself while it runs; the command line decides how it looks."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True)
class Progress:
    """One message from a unit of work.

    Attributes:
        stage: Stage name, e.g. `extract`.
        key: The unit: a slide id, a fold, or the run.
        done: Steps finished inside the unit (tiles, epochs).
        total: Steps in all; 0 when not known.
        note: A few words, e.g. a loss.
    """

    stage: str
    key: str
    done: int = 0
    total: int = 0
    note: str = ""


Notify = Callable[[Progress], None]


def silent(_: Progress) -> None:
    """A listener that doesn't care."""
