"""Isolated work: every item has its result, and a process that dies takes one item with it."""

from __future__ import annotations

import os
import signal

from pathpipe.execution.isolated import Crash, isolated


def _square(value: int) -> int:
    if value == 3:
        os._exit(9)
    if value == 5:
        os.kill(os.getpid(), signal.SIGSEGV)
    return value * value


def test_every_item_ends_and_crashes_cost_only_themselves() -> None:
    for workers in (1, 2):
        found = dict(isolated(_square, list(range(8)), workers))
        assert found == {0: 0, 1: 1, 2: 4, 3: Crash(9), 4: 16, 5: Crash(-signal.SIGSEGV), 6: 36, 7: 49}


def test_no_items_and_a_caller_that_stops_listening() -> None:
    assert list(isolated(_square, [])) == []
    work = isolated(_square, [1, 2, 4, 6], 2)
    next(work)
    del work


def test_the_last_item_may_be_the_one_that_crashes() -> None:
    assert dict(isolated(_square, [3])) == {0: Crash(9)}
