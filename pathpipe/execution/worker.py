"""A worker: takes one unit at a time through its chain of stages and says how it went."""

from __future__ import annotations

import signal
from collections.abc import Sequence
from multiprocessing.connection import Connection
from pathlib import Path

from pathpipe.execution.receipt import Receipt
from pathpipe.execution.unit import bring_up_to_date
from pathpipe.progress import Notify, Progress, silent
from pathpipe.run import Run
from pathpipe.settings import RunSettings
from pathpipe.stages.chain import STAGES


def work(run: Run, stages: Sequence[str], settings: RunSettings, key: str, notify: Notify = silent) -> list[Receipt]:
    """Bring one unit through `stages` in order; stops at the first that isn't `ok`.

    Returns:
        One receipt a stage that was reached.
    """
    receipts = []
    for name in stages:
        receipts.append(bring_up_to_date(STAGES[name], run, key, settings, notify))
        if not receipts[-1].ok:
            break
    return receipts


def serve(connection: Connection, folder: Path, stages: Sequence[str], settings: RunSettings) -> None:
    """Main of a worker process: keys come in through the pipe, receipts and progress go out, None ends it."""
    # Ctrl-C reaches the whole group: the parent decides, the worker must not print a traceback of its own.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    run = Run.open(folder)

    def notify(progress: Progress) -> None:
        connection.send(progress)

    try:
        while (key := connection.recv()) is not None:
            connection.send(work(run, stages, settings, key, notify))
    except (EOFError, BrokenPipeError):
        return  # the parent is gone
