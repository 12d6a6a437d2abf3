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
from pathpipe.cli import chain_commands, demo, doctor, encoders, export, listing, plan, predict, store, sweep, view
from pathpipe.errors import ExitCode, PathpipeError

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
encoders.register(app)
listing.register(app)
store.register(app)
view.register(app)


def main(arguments: list[str] | None = None) -> None:
    """Entry point of the console script: runs, explains errors, exits."""
    signal.signal(signal.SIGTERM, _terminate)  # a scheduler's polite kill ends like Ctrl-C: leases given back
    try:
        code = app(args=arguments, standalone_mode=False)
    except typer.Exit as stop:
        code = stop.exit_code
    except (KeyboardInterrupt, typer.Abort):
        code = ExitCode.INTERRUPTED
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # `pathpipe ... | head` is no error
        sys.exit(ExitCode.DONE)
    except PathpipeError as error:
        if _debug:
            traceback.print_exc()
        _explain(error.reason, error.hint)
        sys.exit(error.exit_code)
    except OSError as error:
        from pathpipe.execution.unit import explain_os_error

        if _debug:
            traceback.print_exc()
        _explain(*explain_os_error(error))
        sys.exit(ExitCode.BAD_REQUEST)
    except Exception as error:
        if hasattr(error, "format_message"):  # usage errors of the command-line parser
            error.show()  # type: ignore[attr-defined]
            sys.exit(ExitCode.BAD_REQUEST)
        raise
    if code == ExitCode.INTERRUPTED:  # of Ctrl-C typer leaves only the code
        _say("interrupted: what was finished is kept; the same command goes on from there")
    sys.exit(code if isinstance(code, int) else ExitCode.DONE)


def _terminate(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def _explain(reason: str, hint: str | None) -> None:
    _say(f"error: {reason}" + (f"\n\nhint: {hint}" if hint else ""))


def _say(text: str) -> None:
    Console(stderr=True, soft_wrap=True).print(text, markup=False, highlight=False)
