"""`pathpipe jobs`: how the work goes that was handed to Slurm, and once more what failed."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pathpipe.cli.session import stderr_console
from pathpipe.errors import ExitCode, SettingsError

if TYPE_CHECKING:
    from pathpipe.execution.jobs import StepState
    from pathpipe.execution.submission import Submission

_SHOWN = 20  # elements in trouble that are listed


def register(app: typer.Typer) -> None:
    """Add the command to the app."""
    app.command("jobs")(jobs)


def jobs(
    folder: Annotated[Path, typer.Argument(metavar="RUN", help="A run folder")],
    number: Annotated[str | None, typer.Option("--job", help="This submission, e.g. 0002 (default: the last)")] = None,
    resubmit: Annotated[
        bool, typer.Option("--resubmit", help="Submit what failed or was lost again, and all that comes after it")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print everything as JSON (docs/formats.md)")] = False,
) -> None:
    """Show how the work goes that was handed to Slurm (`--on slurm`).

    Of each step: elements of its array that wait, work, wait once more after a preemption, are done, failed, or lost
    (cancelled or killed); units made, how many an hour, and when the rest will be. What failed is listed with its log.
    The exit code is 1 when something has failed or was lost.
    """
    from pathpipe.execution.jobs import look
    from pathpipe.execution.jobs import resubmit as submit_again
    from pathpipe.execution.submission import submissions
    from pathpipe.run import Run

    run = Run.open(folder)
    known = {one.name: one for one in submissions(run)}
    if not known:
        raise SettingsError("nothing of it was handed to Slurm", where=str(folder), hint="add `--on slurm`")
    if number is not None and number not in known:
        raise SettingsError(f"there is no job {number}", where=str(folder), hint=f"there are {', '.join(known)}")
    one = known[number or max(known)]
    states = look(run, one)
    if resubmit:
        one, again = submit_again(one, states)
        words = ", ".join(f"{step} {len(numbers)}" for step, numbers in again.items())
        stderr_console().print(f"submitted again: {words}", highlight=False, soft_wrap=True)
        states = look(run, one)
    if as_json:
        print(json.dumps(_to_dict(one, states), indent=2, ensure_ascii=False))
    else:
        _show(one, states, len(known))
    if any(step.trouble for step in states):
        raise typer.Exit(ExitCode.SOME_FAILED)


def _show(one: Submission, states: list[StepState], known: int) -> None:
    from pathpipe.cli.tables import print_table
    from pathpipe.execution.jobs import STATES

    shown = [name for name in STATES if name != "unknown" or any(step.count("unknown") for step in states)]
    rows: list[list[Any]] = [
        [
            step.name,
            *(step.count(name) for name in shown),
            f"{step.done}/{step.left}" + (f", {step.failed} failed" if step.failed else ""),
            None if step.per_hour is None else f"{step.per_hour:.3g}",
            _duration(step.hours_left),
            " ".join(step.jobs),
        ]
        for step in states
    ]
    console = stderr_console()
    beside = f" (of {known}; --job shows another)" if known > 1 else ""
    console.print(f"job {one.name}{beside}: pathpipe {one.asked} on Slurm", highlight=False, soft_wrap=True)
    print_table(("step", *shown, "units", "an hour", "time left", "job"), rows)
    trouble = [element for step in states for element in step.trouble]
    for element in trouble[:_SHOWN]:
        text = f"{element.state}: {element.step} {element.number}: {element.why}\n  {element.log}"
        console.print(text, markup=False, highlight=False, soft_wrap=True)
    if len(trouble) > _SHOWN:
        console.print(f"and {len(trouble) - _SHOWN} more; --json lists them all", highlight=False)
    if trouble:
        console.print("`pathpipe jobs RUN --resubmit` submits these again", highlight=False)


def _duration(hours: float | None) -> str | None:
    if hours is None:
        return None
    return f"{hours:.1f} h" if hours >= 1 else f"{60 * hours:.0f} min"


def _to_dict(one: Submission, states: list[StepState]) -> dict[str, Any]:
    steps = []
    for step in states:
        value = asdict(step)
        for element in value["elements"]:
            element["log"] = str(element["log"])
        steps.append(value)
    return {"format": "pathpipe-jobs-state", "version": 1, "job": one.name, "asked": one.asked, "steps": steps}
