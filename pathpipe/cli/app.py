"""The `pathpipe` command: commands by name, errors as one paragraph with an exit code."""

from __future__ import annotations

import os
import signal
import sys
import traceback
from types import FrameType
from typing import Annotated

import typer
from rich.console import Console

import pathpipe
from pathpipe.cli import (
    chain_commands,
    demo,
    doctor,
    encoders,
    export,
    jobs,
    listing,
    plan,
    predict,
    store,
    sweep,
    view,
)
from pathpipe.errors import ExitCode, PathpipeError
from pathpipe.execution.element import Element

app = typer.Typer(
    name="pathpipe",
    help="Whole-slide images in, an honestly evaluated slide-level model out.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
_debug = False
_told: int | None = None  # the signal that stopped this command


def _version(wanted: bool) -> None:
    if wanted:
        print(f"pathpipe {pathpipe.__version__}")
        raise typer.Exit


@app.callback()
def _global(
    debug: Annotated[bool, typer.Option("--debug", help="Show Python's traceback of an error")] = False,
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version and stop")
    ] = False,
) -> None:
    global _debug
    _debug = debug or _debug


demo.register(app)
doctor.register(app)
plan.register(app)
chain_commands.register(app)
sweep.register(app)
predict.register(app)
export.register(app)
jobs.register(app)
encoders.register(app)
listing.register(app)
store.register(app)
view.register(app)


def main(arguments: list[str] | None = None) -> None:
    """Entry point of the console script: runs, explains errors, exits."""
    global _told
    _told = None
    for number in (signal.SIGTERM, signal.SIGUSR1):
        signal.signal(number, _stop)  # a scheduler's polite kill ends like Ctrl-C: leases given back
    element = Element.begun(os.environ)
    code = 1
    try:
        code = _run(arguments)
    finally:
        if element is not None:
            code = element.ended(code, _told)
    sys.exit(code)


def _run(arguments: list[str] | None) -> int:
    """The exit code of a command; only what nobody foresaw passes through."""
    try:
        code = app(args=arguments, standalone_mode=False)
    except typer.Exit as stop:
        code = stop.exit_code
    except (KeyboardInterrupt, typer.Abort):
        code = ExitCode.INTERRUPTED
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # `pathpipe ... | head` is no error
        return ExitCode.DONE
    except PathpipeError as error:
        if _debug:
            traceback.print_exc()
        _explain(error.reason, error.hint)
        return error.exit_code
    except OSError as error:
        from pathpipe.execution.unit import explain_os_error

        if _debug:
            traceback.print_exc()
        _explain(*explain_os_error(error))
        return ExitCode.BAD_REQUEST
    except Exception as error:
        if hasattr(error, "format_message"):  # usage errors of the command-line parser
            error.show()  # type: ignore[attr-defined]
            return ExitCode.BAD_REQUEST
        raise
    if code == ExitCode.INTERRUPTED:  # of Ctrl-C typer leaves only the code
        by_scheduler = _told == signal.SIGUSR1 or (_told == signal.SIGTERM and "SLURM_JOB_ID" in os.environ)
        code = ExitCode.PREEMPTED if by_scheduler else code
        _say("interrupted: what was finished is kept; the same command goes on from there")
    return code if isinstance(code, int) else ExitCode.DONE


def _stop(number: int, frame: FrameType | None) -> None:
    """Once: a scheduler says it several times, and giving back must not be cut off."""
    global _told
    if _told is None:
        _told = number
        raise KeyboardInterrupt


def _explain(reason: str, hint: str | None) -> None:
    _say(f"error: {reason}" + (f"\n\nhint: {hint}" if hint else ""))


def _say(text: str) -> None:
    Console(stderr=True, soft_wrap=True).print(text, markup=False, highlight=False)
