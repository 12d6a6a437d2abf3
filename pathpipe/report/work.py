"""The work on a page: what went wrong and where, what is not there yet, what took how long."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median

from pathpipe.report.blocks import Block, Cell, Section, Table, Value, Words
from pathpipe.report.cohort import state_cell
from pathpipe.report.words import counted, duration


@dataclass(frozen=True)
class Trouble:
    """A unit that came to nothing.

    Attributes:
        unit: A slide, a fold, or the whole cohort.
        state: `failed`, `stale` or `empty`.
    """

    unit: str
    stage: str
    state: str
    reason: str
    hint: str


@dataclass(frozen=True)
class StageWork:
    """What a stage did.

    Attributes:
        states: State -> number of units.
        seconds: Of each unit that was made.
        tiles: Tiles of those units.
        where: Its folder in the run.
    """

    stage: str
    states: dict[str, int]
    seconds: tuple[float, ...]
    tiles: int
    where: str


@dataclass(frozen=True)
class Absent:
    """A part of a run that is not there.

    Attributes:
        what: What it is.
        why: A sentence.
        command: Which command makes it.
    """

    what: str
    why: str
    command: str


def absent_section(absent: Sequence[Absent]) -> Section | None:
    """What is missing and which command makes it; None where nothing is."""
    if not absent:
        return None
    rows = tuple((Cell(one.what), Cell(one.why, wide=True), Cell(f"`{one.command}`", wide=True)) for one in absent)
    return Section("missing", "Not there yet", (Table("absent", ("what", "why", "made by"), rows),))


def trouble_section(troubles: Sequence[Trouble], lost: Sequence[str]) -> Section | None:
    """Failures with reasons; None where there is none.

    Args:
        lost: Patients of whom no slide has a result.
    """
    if not troubles:
        return None
    rows = tuple(
        (one.unit, one.stage, state_cell(one.state), Cell(one.reason, hint=one.hint, wide=True)) for one in troubles
    )
    blocks: list[Block] = []
    if lost:
        names = ", ".join(lost[:8]) + (f" and {len(lost) - 8} more" if len(lost) > 8 else "")
        are = "is" if len(lost) == 1 else "are"
        blocks.append(Words(f"{counted(len(lost), 'patient')} {are} left without any slide: {names}.", "warn"))
    blocks.append(Table("trouble", ("unit", "stage", "state", "reason, and what to do"), rows))
    return Section("failures", "Failures and empty slides", tuple(blocks), "Failures")


def work_section(stages: Sequence[StageWork], bottleneck: str | None) -> Section | None:
    """Units, times and rates of every stage; None where nothing was done."""
    if not stages:
        return None
    rows = tuple(_row(one) for one in stages)
    columns = ("stage", "units", "done", "empty", "failed", "time of work", "a unit (median)", "tiles/s", "where")
    blocks: list[Block] = [
        Words("Time is added up over processes and threads; what was there already took none."),
        Table("work", columns, rows, digits=1),
    ]
    if bottleneck:
        blocks.append(Words(f"Encoding: {bottleneck.removeprefix('time: ')}.", ""))
    return Section("work", "Throughput and bottleneck", tuple(blocks), "Throughput")


def _row(one: StageWork) -> tuple[Value, ...]:
    total = sum(one.seconds)
    done = sum(one.states.get(state, 0) for state in ("done", "current"))
    return (
        one.stage,
        sum(one.states.values()),
        done,
        one.states.get("empty", 0),
        one.states.get("failed", 0) + one.states.get("stale", 0),
        duration(total) if one.seconds else None,
        duration(median(one.seconds)) if one.seconds else None,
        one.tiles / total if one.tiles and total else None,
        Cell(f"`{one.where}`", wide=True),
    )
