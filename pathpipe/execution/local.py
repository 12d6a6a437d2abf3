"""A cohort on one machine: units go to spawned worker processes one by one, or run in this process."""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path

from pathpipe.execution.folds import devices_of_folds, threads_of_fold
from pathpipe.execution.listener import Listener
from pathpipe.execution.processes import Hearing, cores, run_in_processes
from pathpipe.execution.receipt import Receipt
from pathpipe.execution.threads import run_in_threads
from pathpipe.execution.worker import work
from pathpipe.lease import is_free
from pathpipe.run import Run
from pathpipe.settings import RunSettings

_POLL_S, _LONGEST_POLL_S = 0.5, 5.0
_UNITS_PER_WORKER = 4  # below this, starting another process costs more than it saves


def run_units(
    run: Run, stages: Sequence[str], settings: RunSettings, keys: Sequence[str], listener: Listener
) -> dict[str, list[Receipt]]:
    """Bring every unit through `stages`; never raises for a unit that fails.

    A unit that another command is making is waited for. A worker that dies (a reader that crashes on a corrupt
    slide) costs its own unit only.

    Returns:
        key -> receipts, in the order of `keys`.
    """
    told = settings_of_workers(run, settings, stages, len(keys))
    threads = threads_of_fold(len(told)) if "train" in stages and len(told) > 1 else None
    works = [partial(work, run, stages, one, threads=threads) for one in told]
    at_once = _in_flight(settings, stages)

    def finished(key: str, receipts: list[Receipt]) -> None:
        if not _busy(receipts):
            listener.finished(key, receipts)

    died = partial(_died, run, stages)
    results: dict[str, list[Receipt]] = {}
    left, waiting = list(keys), dict[str, str]()
    while left:
        hearing = Hearing(listener.progress, finished, died)
        if len(works) > 1:
            done = run_in_processes(works, left, hearing, at_once)
        else:
            done = run_in_threads(works[0], left, at_once, hearing)
        results.update(done)
        waiting.update({key: done[key][-1].stage for key in left if _busy(done[key])})
        left = _free_again(run, waiting, settings.execution.lease_s)
    return {key: results[key] for key in keys}


def settings_of_workers(run: Run, settings: RunSettings, stages: Sequence[str], units: int) -> list[RunSettings]:
    """What each process is told: with several GPUs, which one is its own."""
    if "train" in stages:
        devices = devices_of_folds(run, settings, units)
    elif "extract" in stages and settings.execution.gpus is not None:
        from pathpipe.encoders.load import pick_devices

        devices = pick_devices(settings.execution.gpus)
    else:
        return [settings] * worker_count(settings, stages, units)
    return [settings.with_execution(device=device) for device in devices]


def worker_count(settings: RunSettings, stages: Sequence[str], units: int) -> int:
    """Processes to use: as asked, else the cores for tissue and tiles and one where torch uses them all itself."""
    asked = settings.execution.workers
    if asked:
        return min(asked, max(units, 1))
    if not set(stages) <= {"tissue", "tile"}:
        return 1
    return max(1, min(cores(), units // _UNITS_PER_WORKER))


def _in_flight(settings: RunSettings, stages: Sequence[str]) -> int:
    """Only encoding gains: the slides that follow are read while the device works on one."""
    return settings.execution.slides_in_flight if "extract" in stages else 1


def _free_again(run: Run, waiting: dict[str, str], lasts_s: float) -> list[str]:
    """Units, key -> stage, that others have let go of, once there are some; they are taken out of `waiting`.

    This process watches, because a lease of another machine must be seen for a while before it counts as dead, and
    the processes that work don't live so long.
    """
    pause_s = _POLL_S
    while waiting:
        free = [key for key, stage in waiting.items() if _is_free(run.lease(stage, key), lasts_s)]
        if free:
            for key in free:
                del waiting[key]
            return free
        time.sleep(pause_s)
        pause_s = min(1.2 * pause_s, _LONGEST_POLL_S)
    return []


def _is_free(lease: Path, lasts_s: float) -> bool:
    try:
        return is_free(lease, lasts_s)
    except OSError:
        return True  # it fails in the unit then, which can say so


def _busy(receipts: list[Receipt]) -> bool:
    return bool(receipts) and receipts[-1].state == "busy"


def _died(run: Run, stages: Sequence[str], key: str, exitcode: int | None) -> list[Receipt]:
    reason = f"the process that worked on it died (exit {exitcode}): a reader crashed, or memory ran out"
    receipt = Receipt(stages[0], key, "failed", reason, "try `--workers 1`, or another `--reader`")
    with suppress(OSError):  # a full disk mustn't stop the others
        receipt.write(run)
    return [receipt]
