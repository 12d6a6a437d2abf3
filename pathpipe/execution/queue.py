"""Queue: which unit is begun next, and which are begun alone because a worker died with them."""

from __future__ import annotations

from collections import deque
from collections.abc import Collection
from dataclasses import dataclass, field


@dataclass
class Queue:
    """What is left to do.

    Attributes:
        waiting: Keys in the order in which they are begun.
        suspects: Keys that were in a worker that died: each is done alone, so that the one to blame is found.
        alone: Suspects that are being worked on.
    """

    waiting: deque[str]
    suspects: deque[str] = field(default_factory=deque)
    alone: set[str] = field(default_factory=set)

    def next_for(self, held: Collection[str], at_once: int) -> str | None:
        """The unit that a worker begins beside those it holds, or None when it has no room or there is nothing."""
        if len(held) >= at_once or self.alone.intersection(held):
            return None
        if self.suspects:
            if held:
                return None
            key = self.suspects.popleft()
            self.alone.add(key)
            return key
        return self.waiting.popleft() if self.waiting else None

    def came_back(self, key: str) -> None:
        """A worker is through with it."""
        self.alone.discard(key)

    def suspect(self, key: str) -> None:
        """A worker died with it in hand."""
        self.alone.discard(key)
        self.suspects.append(key)

    def __len__(self) -> int:
        return len(self.waiting) + len(self.suspects)
