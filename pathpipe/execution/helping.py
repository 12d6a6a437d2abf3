"""Helping: a part of a shared-out stage that is through takes slides of other parts that nobody has begun."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import islice

from pathpipe.execution.dispatch import large_first, run_units
from pathpipe.execution.listener import Listener
from pathpipe.execution.receipt import Receipt, read_receipt
from pathpipe.lease import is_free
from pathpipe.run import Run
from pathpipe.settings import RunSettings


def help_others(
    run: Run, stages: Sequence[str], settings: RunSettings, keys: Sequence[str], listener: Listener
) -> dict[str, list[Receipt]]:
    """Bring slides of other parts through `stages`, the largest first, a few at a time.

    Parts are dealt out by the size of slides' files, which says little of their tissue; without help the last of many
    parts takes a tenth longer than the others (benchmarks/cluster_simulation.py). A slide that has failed or been
    finished is left to its own part: there it is tried again.

    Args:
        keys: Slides of the other parts.

    Returns:
        key -> receipts of those that were taken.
    """
    results: dict[str, list[Receipt]] = {}
    free = _untouched(run, stages, large_first(run, stages, keys), settings.execution.lease_s)
    while taken := list(islice(free, settings.execution.slides_in_flight)):
        listener.begin(stages, len(taken))
        results |= run_units(run, stages, settings, taken, listener)
    return results


def _untouched(run: Run, stages: Sequence[str], keys: Sequence[str], lasts_s: float) -> Iterator[str]:
    """Each is looked at once, when it is its turn: a scan of the whole cohort for every slide would take longer."""
    for key in keys:
        if run.receipt(stages[-1], key).exists():
            continue
        before = [read_receipt(run, name, key) for name in stages[:-1]]
        if any(one is not None and not one.ok for one in before):
            continue
        if all(is_free(run.lease(name, key), lasts_s) for name in stages):
            yield key
