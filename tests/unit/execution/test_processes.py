"""Processes that take one unit at a time: all units are done, progress arrives, a death costs its own unit only."""

from __future__ import annotations

import multiprocessing
import os
import signal
import time

import pytest

from pathpipe.execution.processes import Hearing, run_in_processes
from pathpipe.progress import Notify, Progress


def _work(key: str, notify: Notify) -> str:
    notify(Progress("toy", key, 1, 2))
    if key == "crash":
        os._exit(7)
    return key.upper()


def test_a_process_that_dies_costs_its_own_unit() -> None:
    heard: list[str] = []
    ended: dict[str, str] = {}
    hearing = Hearing(
        progress=lambda message: heard.append(message.key),
        finished=lambda key, result: ended.update({key: result}),
        died=lambda key, exitcode: f"{key} died with {exitcode}",
    )
    keys = ["a", "crash", "b", "c", "d"]
    results = run_in_processes([_work] * 2, keys, hearing)
    assert results == {"a": "A", "b": "B", "c": "C", "d": "D", "crash": "crash died with 7"}
    assert ended == results and sorted(heard) == sorted(keys)


def _fragile(key: str, notify: Notify) -> str:
    if key == "bad":
        time.sleep(0.3)  # the others are under way
        os._exit(7)
    time.sleep(0.02)
    return f"{key} done"


def test_only_the_unit_to_blame_is_lost_of_those_a_process_had() -> None:
    keys = [f"k{number}" for number in range(6)] + ["bad"] + [f"l{number}" for number in range(6)]
    hearing: Hearing[str] = Hearing(lambda _: None, lambda *_: None, lambda key, code: f"{key} died of {code}")
    results = run_in_processes([_fragile], keys, hearing, at_once=4)
    assert results == {key: "bad died of 7" if key == "bad" else f"{key} done" for key in keys}


def _square(key: str, notify: Notify) -> int:
    if key == "3":
        os._exit(9)
    if key == "5":
        os.kill(os.getpid(), signal.SIGSEGV)
    return int(key) ** 2


def _squares(keys: list[str], count: int) -> dict[str, object]:
    hearing: Hearing[object] = Hearing(lambda _: None, lambda *_: None, lambda _, exitcode: ("died", exitcode))
    return run_in_processes([_square] * count, keys, hearing)


def test_every_unit_ends_and_crashes_cost_only_themselves() -> None:
    expected = {"0": 0, "1": 1, "2": 4, "3": ("died", 9), "4": 16, "5": ("died", -signal.SIGSEGV), "6": 36, "7": 49}
    for count in (1, 2):
        assert _squares([str(number) for number in range(8)], count) == expected


def test_no_units_and_a_caller_that_stops_listening() -> None:
    assert _squares([], 2) == {} and _squares(["2"], 1) == {"2": 4}

    def stop(key: str, result: int) -> None:
        raise KeyboardInterrupt

    hearing: Hearing[int] = Hearing(lambda _: None, stop, lambda *_: 0)
    before = len(os.listdir("/proc/self/fd"))
    with pytest.raises(KeyboardInterrupt):
        run_in_processes([_square] * 2, ["1", "2", "4", "6"], hearing)
    assert not multiprocessing.active_children() and len(os.listdir("/proc/self/fd")) <= before


def test_the_last_unit_may_be_the_one_that_crashes() -> None:
    assert _squares(["3"], 4) == {"3": ("died", 9)}
