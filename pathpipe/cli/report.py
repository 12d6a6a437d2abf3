"""`pathpipe report`: one page of a run, or of several models side by side."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from pathpipe.cli.evaluate import compare_sources
from pathpipe.cli.options import with_settings
from pathpipe.cli.session import (
    ConfigOption,
    OutOption,
    PrintConfigOption,
    QuietOption,
    Request,
    run_stage,
    stderr_console,
)
from pathpipe.errors import SettingsError

SourcesArgument = Annotated[
    list[Path] | None,
    typer.Argument(help="A run or one model of it, RUN/train/NAME; with --compare two or more"),
]


@with_settings(
    "evaluate", "heatmap", "train", "split", "audit", "extract", "tile", "tissue", "slide", "execution", "cluster"
)
def report(  # noqa: PLR0913 - typer makes an option of each parameter
    source: SourcesArgument = None,
    out: OutOption = None,
    compare: Annotated[bool, typer.Option("--compare", help="Set two or more models side by side")] = False,
    as_it_is: Annotated[
        bool, typer.Option("--as-it-is", help="Make nothing first: show what is there, and say what is missing")
    ] = False,
    config: ConfigOption = None,
    print_config: PrintConfigOption = False,
    quiet: QuietOption = False,
    *,
    given: dict[str, dict[str, Any]],
) -> None:
    """Write one offline HTML page that shows the whole run; or one that sets models side by side.

    What comes before is brought up to date first; where that fails, the page shows how. Writes RUN/report.html. With
    --compare, -o is the folder of the comparison (default: compare/NAMES in the first run), and the page is
    comparison.html in it.
    """
    sources = source or []
    if not compare:
        if len(sources) > 1:
            raise SettingsError("a report is of one run", where=str(sources[1]), hint="`--compare` takes several")
        asked = Request(sources[0] if sources else None, out, config, print_config, quiet)
        run_stage("report", asked, given, alone=as_it_is)
        return
    if len(sources) < 2:
        raise SettingsError("a comparison takes two models or more", hint="pathpipe report --compare RUN RUN")
    if as_it_is:
        raise SettingsError("a comparison is of evaluated models", where="--as-it-is", hint="leave it out")
    from pathpipe.stages.side_by_side import write_page

    folder, models, found = compare_sources(
        sources, Request(None, out, config, print_config, quiet), given, baseline=True
    )
    page = write_page(folder, models, found)
    stderr_console().print(f"comparison: {page}", markup=False, highlight=False, soft_wrap=True)
