"""Listener: who hears of the work while it goes on."""

from __future__ import annotations

from collections.abc import Sequence

from pathpipe.execution.receipt import Receipt
from pathpipe.progress import Progress


class Listener:
    """This one doesn't care; override what should be shown."""

    def begin(self, stages: Sequence[str], count: int) -> None:
        """`count` units are about to go through `stages`."""

    def progress(self, message: Progress) -> None:
        """A unit says how far it is."""

    def finished(self, key: str, receipts: list[Receipt]) -> None:
        """A unit is through, or has stopped where it failed."""
