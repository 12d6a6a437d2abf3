"""Looking: which units there is nothing to do for, found by all cores where a cohort is large."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from pathpipe.execution.listener import Listener
from pathpipe.execution.processes import Hearing, cores, run_in_processes
from pathpipe.execution.receipt import Receipt
from pathpipe.execution.unit import look_at
from pathpipe.progress import Notify, silent
from pathpipe.run import Run
from pathpipe.settings import RunSettings
from pathpipe.stages.chain import STAGES

_PER_PROCESS = 1000  # units; for fewer, starting a process takes longer than looking


def finished_already(
    run: Run, stages: Sequence[str], settings: RunSettings, keys: Sequence[str], listener: Listener
) -> dict[str, list[Receipt]]:
    """Units whose artefacts are all there and are found current, or stale: nobody need be asked to make them.

    Returns:
        key -> a receipt a stage.
    """
    there = [key for key in keys if all(STAGES[name].output(run, key, settings).exists() for name in reversed(stages))]
    look = partial(_look, run, tuple(stages), settings)
    processes = min(cores(), len(there) // _PER_PROCESS)
    if processes > 1:
        nobody: Hearing[list[Receipt] | None] = Hearing(silent, lambda key, seen: None, lambda key, code: None)
        seen = run_in_processes([look] * processes, there, nobody)
    else:
        seen = {key: look(key) for key in there}
    found = {key: receipts for key in there if (receipts := seen[key]) is not None}
    for key, receipts in found.items():
        listener.finished(key, receipts)
    return found


def _look(
    run: Run, stages: Sequence[str], settings: RunSettings, key: str, notify: Notify = silent
) -> list[Receipt] | None:
    """What `work` would return, or None where it would make something."""
    receipts: list[Receipt] = []
    for name in stages:
        receipt = look_at(STAGES[name], run, key, settings)
        if receipt is None:
            return None
        receipts.append(receipt)
        if not receipt.ok:
            break
    return receipts
