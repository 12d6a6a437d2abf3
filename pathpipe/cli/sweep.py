"""`pathpipe sweep`: a model and its options chosen by validation patients."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import typer
from rich.console import Console

from pathpipe.cli.chain_commands import Given
from pathpipe.cli.options import with_settings
from pathpipe.cli.session import (
    ConfigOption,
    OutOption,
    PrintConfigOption,
    QuietOption,
    Request,
    SourceArgument,
    run_stage,
    stderr_console,
)


def register(app: typer.Typer) -> None:
    """Add the command to the app."""
    app.command("sweep")(sweep)


@with_settings("sweep", "train", "split", "extract", "tile", "tissue", "slide", "execution", "cluster")
def sweep(
    source: SourceArgument = None,
    out: OutOption = None,
    config: ConfigOption = None,
    print_config: PrintConfigOption = False,
    quiet: QuietOption = False,
    *,
    given: Given,
) -> None:
    """Search for a model and its options by validation patients; those a fold tests are never looked at.

    What is varied is said in a YAML file (configs/sweep.yaml is one to start from). Features and folds are made first
    where they are missing. With --inner-folds, candidates are scored on inner folds. Run it again to go on. Prints a
    table; writes RUN/sweeps/STUDY/ with best.yaml for `pathpipe train --config`.
    """
    from pathpipe.cli.tables import print_table
    from pathpipe.execution.sweep import Tried, run_sweep
    from pathpipe.training.search import import_optuna

    import_optuna()
    run, settings = run_stage("audit", Request(source, out, config, print_config, quiet), given, asked="sweep")
    console = stderr_console()

    def heard(one: Tried) -> None:
        if not quiet:
            console.print(_line(one), highlight=False, soft_wrap=True, markup=False)

    swept = run_sweep(run, settings, heard)
    keys = sorted({key for one in swept.trials for key in one.changes})
    ranked = sorted(swept.trials, key=lambda one: _rank(one, swept.objective == "loss"))
    rows: list[list[Any]] = [
        [one.number, one.state, _short(one.value), *(_short(one.changes.get(key, "")) for key in keys)]
        for one in ranked
    ]
    print_table(["trial", "state", swept.objective, *keys], rows)
    _conclude(console, swept.best, swept.best_yaml)


def _conclude(console: Console, best: Any, path: Path) -> None:
    if best is None:
        console.print("no candidate could be trained; trials.csv says why", highlight=False)
        raise typer.Exit(1)
    console.print(f"best: trial {best.number}. Train it with `pathpipe train RUN --config {path}`", soft_wrap=True)


def _line(one: Any) -> str:
    value = "" if one.value is None else f" {one.value:.4f}"
    changes = ", ".join(f"{key} {_short(value)}" for key, value in one.changes.items())
    return f"trial {one.number} {one.state}{value}: {changes}" + (f" ({one.reason})" if one.reason else "")


def _rank(one: Any, small_is_good: bool) -> tuple[bool, float]:
    value = one.value if one.value is not None else 0.0
    return (one.state != "complete", value if small_is_good else -value)


def _short(value: Any) -> Any:
    return f"{value:.4g}" if isinstance(value, float) else value
