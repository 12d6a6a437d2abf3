"""`pathpipe store`: look into files of tiles and features, pathpipe's own or another tool's."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from pathpipe.cli.listing import FormOption


def register(app: typer.Typer) -> None:
    """Add the commands to the app."""
    group = typer.Typer(help="Look into files of tiles and features.", no_args_is_help=True)
    group.command("inspect")(inspect)
    group.callback()(_group)
    app.add_typer(group, name="store")


def _group() -> None:
    """Look into files of tiles and features."""


def inspect(
    path: Annotated[Path, typer.Argument(help="A tile table or feature file (HDF5), of pathpipe, CLAM or TRIDENT")],
    form: FormOption = "table",
) -> None:
    """Say what a file holds, what made it and what is wrong with it; exits 1 when something is."""
    from pathpipe.cli.tables import print_table
    from pathpipe.errors import ExitCode
    from pathpipe.store.inspect import describe

    found = describe(path)
    rows = [["layout", found.layout], *([name, str(value)] for name, value in found.facts.items())]
    rows += [["problem", problem] for problem in found.problems]
    print_table(["field", "value"], rows, form)
    if found.problems:
        raise typer.Exit(ExitCode.SOME_FAILED)
