"""A worker: takes one unit at a time through its chain of stages and says how it went."""

from __future__ import annotations

from collections.abc import Sequence

from pathpipe.execution.receipt import Receipt
from pathpipe.execution.unit import bring_up_to_date
from pathpipe.progress import Notify, silent
from pathpipe.run import Run
from pathpipe.settings import RunSettings
from pathpipe.stages.chain import STAGES


def work(
    run: Run,
    stages: Sequence[str],
    settings: RunSettings,
    key: str,
    notify: Notify = silent,
    threads: int | None = None,
) -> list[Receipt]:
    """Bring one unit through `stages` in order; stops at the first that isn't `ok`.

    Args:
        threads: Most threads that torch may use, where several processes share the cores.

    Returns:
        One receipt a stage that was reached.
    """
    if threads is not None:
        import torch

        torch.set_num_threads(min(threads, torch.get_num_threads()))
    receipts = []
    for name in stages:
        receipts.append(bring_up_to_date(STAGES[name], run, key, settings, notify))
        if not receipts[-1].ok:
            break
    return receipts
