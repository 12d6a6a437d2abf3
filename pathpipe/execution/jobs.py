"""Jobs: how a submission goes, told from what its elements put on record and what Slurm's queue says of the rest."""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from pathpipe.errors import ExitCode, SettingsError
from pathpipe.execution.element import Attempt, read_attempts
from pathpipe.execution.slurm import ARRAYS
from pathpipe.execution.slurm_queue import Queued, queued, scancel
from pathpipe.execution.submission import Submission, SubmittedStep, hand_again
from pathpipe.run import Run

State = Literal["pending", "running", "requeued", "done", "failed", "lost", "unknown"]
STATES: tuple[State, ...] = ("pending", "running", "requeued", "done", "failed", "lost", "unknown")
IN_QUEUE = ("pending", "running", "requeued")
_TAIL_BYTES = 20_000
_TELLING = ("error:", "slurmstepd: error:", "failed:", "conflict:")
_GRACE_S = 10.0  # the queue may not know yet what was just submitted


@dataclass(frozen=True)
class ElementState:
    """One element of a step.

    Attributes:
        state: `requeued` waits once more; `failed` came to an end with something that failed; `lost` is neither in the
            queue nor came to an end: it was cancelled or killed; `unknown`: it came to no end, and the queue can't be
            asked.
        why: Why it waits, or the last words of its log that tell why it failed.
    """

    step: str
    number: int
    state: State
    attempts: int
    host: str
    why: str
    log: Path


@dataclass(frozen=True)
class StepState:
    """How one step goes.

    Attributes:
        done: Units made since it began, `left` there were to make.
        per_hour: Units made an hour so far.
        hours_left: Until the rest is made at that rate; None where nothing tells it.
    """

    name: str
    jobs: tuple[str, ...]
    elements: tuple[ElementState, ...]
    left: int
    done: int
    failed: int
    per_hour: float | None
    hours_left: float | None

    def count(self, state: State) -> int:
        """Elements in a state."""
        return sum(one.state == state for one in self.elements)

    @property
    def trouble(self) -> list[ElementState]:
        """Elements that failed or were lost."""
        return [one for one in self.elements if one.state in ("failed", "lost")]


@dataclass(frozen=True)
class _Units:
    done: int = 0
    failed: int = 0


def look(run: Run, one: Submission) -> list[StepState]:
    """How a submission goes."""
    jobs = [handed.job for step in one.steps for handed in step.handed]
    queue = queued(jobs, one.user)
    return [_step_state(run, one, step, queue) for step in one.steps]


def is_over(states: list[StepState]) -> bool:
    """Whether nothing of it waits or works any more."""
    return not any(element.state in (*IN_QUEUE, "unknown") for step in states for element in step.elements)


def _step_state(
    run: Run, one: Submission, step: SubmittedStep, queue: Mapping[tuple[str, int], Queued] | None
) -> StepState:
    elements, begun, ended = [], [], []
    for number, job in sorted(step.elements.items()):
        attempts = [attempt for attempt in read_attempts(one.record(step.name, number)) if attempt.job == job]
        entry = None if queue is None else queue.get((job, number))
        young = time.time() - max(handed.at for handed in step.handed) < _GRACE_S
        state = _state(attempts, entry, asked=queue is not None, young=young)
        log = one.log(step.name, number)
        why = entry.why if entry is not None and entry.why != "None" and state in ("pending", "requeued") else ""
        if state in ("failed", "lost"):
            why = (
                last_words(log) if attempts or log.exists() else "never began: what it waited for failed, or cancelled"
            )
        host = attempts[-1].host if attempts else ""
        elements.append(ElementState(step.name, number, state, len(attempts), host, why, log))
        begun += [attempt.started for attempt in attempts]
        ended += [attempt.ended for attempt in attempts if attempt.ended is not None]
    if step.name not in ARRAYS:  # one job, and not each has a receipt
        made = _Units(sum(element.state == "done" for element in elements))
    else:
        made = _made_since(run, step.name, min(begun)) if begun else _Units()
    over = all(element.state not in IN_QUEUE for element in elements)
    seconds = (max(ended) if over and ended else time.time()) - min(begun) if begun else 0.0
    per_hour = 3600 * made.done / seconds if made.done and seconds > 0 else None
    rest = max(0, step.left - made.done - made.failed)
    hours = None if per_hour is None or over else rest / per_hour
    jobs = tuple(handed.job for handed in step.handed)
    return StepState(step.name, jobs, tuple(elements), step.left, made.done, made.failed, per_hour, hours)


def _state(attempts: list[Attempt], entry: Queued | None, asked: bool, young: bool) -> State:
    last = attempts[-1] if attempts else None
    if last is not None and last.code is not None and last.code not in (ExitCode.PREEMPTED, ExitCode.INTERRUPTED):
        return "done" if last.code == ExitCode.DONE else "failed"
    if entry is not None:
        if entry.state == "PENDING":
            return "requeued" if attempts else "pending"
        return "running"
    if not asked:
        return "unknown"
    return "pending" if young and not attempts else "lost"


def _made_since(run: Run, stage: str, begun: float) -> _Units:
    """Units with a receipt since then."""
    states: Counter[str] = Counter()
    folder = run.receipt(stage, "any").parent
    for path in folder.glob("*.json") if folder.is_dir() else ():
        if path.stat().st_mtime < begun - 1:
            continue
        try:
            states[json.loads(path.read_text(encoding="utf-8"))["state"]] += 1
        except (FileNotFoundError, json.JSONDecodeError, KeyError):
            continue
    return _Units(states["done"] + states["empty"], states["failed"])


def last_words(log: Path) -> str:
    """The last line of a log that names an error, or else its last line."""
    try:
        with log.open("rb") as file:
            file.seek(max(0, log.stat().st_size - _TAIL_BYTES))
            text = file.read().decode("utf-8", errors="replace")
    except FileNotFoundError:
        return "there is no log"
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    telling = [line for line in lines if line.startswith(_TELLING)]
    return [*([""] if not lines else lines[-1:]), *telling[-1:]][-1]


def resubmit(one: Submission, states: list[StepState]) -> tuple[Submission, dict[str, list[int]]]:
    """Submit what failed or was lost again, and all that comes after it.

    Returns:
        The submission as it is now, and step -> numbers of the elements that were submitted.

    Raises:
        SettingsError: There is nothing to submit, or the queue can't be asked.
    """
    if any(element.state == "unknown" for step in states for element in step.elements):
        raise SettingsError(
            "the queue can't be asked", where="squeue", hint="resubmit from a login node of the cluster"
        )
    again: dict[str, list[int]] = {}
    waits_for: dict[str, list[str]] = {}
    stale: list[str] = []
    before: list[str] = []
    for place, step in enumerate(one.steps):
        numbers = [element.number for element in states[place].trouble]
        if again:  # what it is made from is made anew
            numbers = sorted(step.elements)
            stale += [f"{job}_{number}" for number, job in step.elements.items() if _waits(states[place], number)]
        if numbers:
            again[step.name], waits_for[step.name] = numbers, before
        still = [element.number for element in states[place].elements if element.state in IN_QUEUE]
        before = [f"{step.elements[number]}_{number}" for number in still if number not in numbers]
    if not again:
        raise SettingsError("nothing of it has failed or was lost", where=str(one.folder), hint="`pathpipe jobs RUN`")
    scancel(stale)
    return hand_again(one, again, waits_for), again


def _waits(state: StepState, number: int) -> bool:
    return any(element.number == number and element.state in IN_QUEUE for element in state.elements)
