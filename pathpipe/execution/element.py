"""Element: one command as a part of a Slurm array: its beginning and end on record, and back into the queue if told so.

`sacct` is absent at many sites, so a command that is an element writes down itself when it began and how it ended.
The batch script says so by the environment variable `PATHPIPE_ELEMENT`, the path of the record.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from pathpipe.errors import ExitCode
from pathpipe.publish import publish_json

VARIABLE = "PATHPIPE_ELEMENT"
MOST_ATTEMPTS = 50
_SHORT_S = 60.0  # an attempt that gets no further than starting up
_MOST_SHORT = 3


@dataclass(frozen=True)
class Attempt:
    """One time that Slurm started an element.

    Attributes:
        job: Id of the array; another one after `pathpipe jobs --resubmit`.
        started: Seconds since 1970, as `ended`; that is None while it works, and where it was killed.
        code: Exit code of the command.
        told: Name of the signal that stopped it.
    """

    job: str
    host: str
    pid: int
    started: float
    ended: float | None = None
    code: int | None = None
    told: str | None = None


def read_attempts(path: Path) -> list[Attempt]:
    """What is on record of an element, oldest first; empty when it never began."""
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
        return [Attempt(**one) for one in value["attempts"]]
    except (FileNotFoundError, json.JSONDecodeError, KeyError, TypeError):
        return []


class Element:
    """This process as an element of an array. Make one with `Element.begun`."""

    def __init__(self, path: Path, attempts: list[Attempt], task: str) -> None:
        self._path = path
        self._attempts = attempts
        self._task = task

    @classmethod
    def begun(cls, environment: Mapping[str, str]) -> Element | None:
        """The element this process is, its beginning on record; None for a command of everyday."""
        if VARIABLE not in environment:
            return None
        path = Path(environment[VARIABLE])
        job, number = environment.get("SLURM_ARRAY_JOB_ID", ""), environment.get("SLURM_ARRAY_TASK_ID", "")
        attempt = Attempt(job, socket.gethostname(), os.getpid(), time.time())
        element = cls(path, [*read_attempts(path), attempt], f"{job}_{number}")
        element._write()
        return element

    def ended(self, code: int, told: int | None) -> int:
        """Put the end on record; an element that stopped for its time limit goes back into the queue.

        Args:
            code: Exit code of the command.
            told: The signal that stopped it.

        Returns:
            What to exit with. Slurm's `afterok` has to mean that every unit had its turn, and a bad slide must not
            keep the rest of the cohort from going on: `SOME_FAILED` stays on record, and Slurm is told 0.
        """
        name = None if told is None else signal.Signals(told).name
        last = replace(self._attempts[-1], ended=time.time(), code=int(code), told=name)
        self._attempts[-1] = last
        self._write()
        if code == ExitCode.PREEMPTED and told == signal.SIGUSR1:
            self._requeue()
        return 0 if code == ExitCode.SOME_FAILED else code

    def _requeue(self) -> None:
        """SIGUSR1 comes from the time limit; a job that Slurm preempts gets SIGTERM, and Slurm requeues it itself."""
        refusal = refuse_requeue([one for one in self._attempts if one.job == self._attempts[-1].job])
        if refusal is None:
            done = subprocess.run(["scontrol", "requeue", self._task], capture_output=True, text=True)
            refusal = done.stderr.strip() if done.returncode else None
        print("requeued" if refusal is None else f"not requeued: {refusal}", flush=True)

    def _write(self) -> None:
        publish_json(self._path, {"attempts": [asdict(one) for one in self._attempts]})


def refuse_requeue(attempts: list[Attempt]) -> str | None:
    """Why an element should not go back into the queue: it would go round for ever."""
    if len(attempts) >= MOST_ATTEMPTS:
        return f"it has been started {len(attempts)} times"
    last = attempts[-_MOST_SHORT:]
    if len(last) == _MOST_SHORT and all((one.ended or one.started) - one.started < _SHORT_S for one in last):
        return f"the time limit leaves less than {_SHORT_S:.0f} s to work; give --worker-hours more"
    return None
