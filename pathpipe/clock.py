"""Where the time goes: seconds by activity, added up over the threads of one unit."""

from __future__ import annotations

import threading
import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager


class Clock:
    """Adds up seconds under names. Safe from several threads."""

    def __init__(self) -> None:
        self._seconds: dict[str, float] = defaultdict(float)
        self._lock = threading.Lock()

    @contextmanager
    def spend(self, activity: str) -> Iterator[None]:
        """Count what happens inside towards `activity`."""
        started = time.perf_counter()
        try:
            yield
        finally:
            self.add(activity, time.perf_counter() - started)

    def add(self, activity: str, seconds: float) -> None:
        """Count seconds measured elsewhere; a negative number takes them away again."""
        with self._lock:
            self._seconds[activity] += seconds

    @property
    def seconds(self) -> dict[str, float]:
        """activity -> seconds so far."""
        with self._lock:
            return {name: round(value, 4) for name, value in self._seconds.items()}
