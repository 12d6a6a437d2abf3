"""What every working command does first and last: find the run, layer the settings, work, sum up."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console

from pathpipe.cli.options import origins
from pathpipe.errors import ExitCode, PathpipeError, SettingsError
from pathpipe.settings import Layer, RunSettings, merge, read_yaml, to_yaml

if TYPE_CHECKING:
    from pathpipe.run import Run

SourceArgument = Annotated[
    Path | None, typer.Argument(help="A run folder, a cohort table (CSV), a folder of slides, or one slide")
]
OutOption = Annotated[Path | None, typer.Option("-o", "--out", help="Run folder to make or go on with")]
ConfigOption = Annotated[Path | None, typer.Option("--config", help="YAML file with settings (see configs/)")]
PrintConfigOption = Annotated[
    bool, typer.Option("--print-config", help="Print the settings, where each comes from, and stop")
]
QuietOption = Annotated[bool, typer.Option("--quiet", "-q", help="Only say what went wrong")]


@dataclass(frozen=True)
class Request:
    """What was typed, beside the settings' own options."""

    source: Path | None
    out: Path | None
    config: Path | None
    print_config: bool = False
    quiet: bool = False


def stderr_console() -> Console:
    """Progress and messages go to stderr; stdout is for data."""
    return Console(stderr=True)


def resolve(request: Request, given: Mapping[str, Mapping[str, Any]]) -> tuple[Path | None, Path | None, RunSettings]:
    """Layer the settings: default < the run's own < --config < options.

    Returns:
        The run folder (or None), the cohort source (or None for an existing run's own), the settings.
    """
    from pathpipe.run import Run

    config = read_yaml(request.config) if request.config else {}
    source = request.source
    if source is None and config.get("cohort"):
        assert request.config is not None
        source = request.config.parent / str(config["cohort"])
    folder = request.out
    if source is not None and source.is_dir() and Run.exists(source):
        if folder is not None and folder.resolve() != source.resolve():
            raise SettingsError(f"{source} is a run already", where="-o", hint="leave out -o to go on with it")
        folder, source = source, None
    layers: list[Layer] = []
    if source is not None and (inside := _model_of_run(source)) is not None:
        folder, source = inside, None
    own = Run.open(folder).saved_settings() if folder is not None and Run.exists(folder) else None
    recorded = None
    if request.source is not None and source is None and folder != request.source:
        recorded = _recorded_settings(request.source)
    if own is not None:  # options that another model was trained with last are none of this model's
        kept = own if recorded is None else {name: one for name, one in own.items() if name != "train"}
        layers.append((f"{folder}/settings.yaml", kept))
    if recorded is not None:
        layers.append((str(request.source), recorded))
    if config:
        layers.append((str(request.config), config))
    layers.extend(origins(given))
    settings, where_from = merge(RunSettings, layers)
    if request.print_config:
        sys.stdout.write(to_yaml(settings, where_from))
        raise typer.Exit
    return folder, source, settings


def _model_of_run(source: Path) -> Path | None:
    """The run folder, when `source` is RUN/train/NAME."""
    from pathpipe.run import Run

    inside = Path(os.path.realpath(source)).parent  # not resolve(), which raises on links that lead in a circle
    return inside.parent if inside == inside.parent / "train" and Run.exists(inside.parent) else None


def _recorded_settings(trained: Path) -> dict[str, Any]:
    """What a trained model says it was made with."""
    from pathpipe.provenance import read_provenance

    for fold in sorted(trained.glob("fold-*")):
        made = read_provenance(fold)
        if made is not None:
            return {**made.settings, "train": {**made.settings["train"], "name": trained.name}}
    raise SettingsError("holds no trained fold", where=str(trained), hint="train it first: `pathpipe train RUN`")


def run_stage(
    stage: str,
    request: Request,
    given: Mapping[str, Mapping[str, Any]],
    only: Sequence[str] | None = None,
    show: Callable[[Run, RunSettings], None] | None = None,
    alone: bool = False,
) -> tuple[Run, RunSettings]:
    """Bring a run up to `stage`; exit with a code that says what went wrong, if anything did.

    Args:
        only: Slide ids the stage is limited to.
        show: Prints what the stage made, whatever the exit code; called when it is there and `--quiet` is not.
        alone: Whether what comes before the stage is left as it is.

    Returns:
        The run, and the settings it is up to date with.
    """
    from pathpipe.cli.progress import Display
    from pathpipe.cli.tables import SUMMARY, print_outcome, print_table, summary_rows
    from pathpipe.execution.follow import follow, is_follower, leading
    from pathpipe.execution.pipeline import bring_up_to_stage
    from pathpipe.stages.bottleneck import describe_time

    if is_follower():
        follow()
        raise typer.Exit
    folder, source, settings = resolve(request, given)
    run = _open_run(folder, source)
    console = stderr_console()
    before = run.saved_settings()
    if settings.execution.stale == "remake" or not before:
        run.save_settings(settings)
    try:
        with leading(), Display(console, request.quiet) as display:
            outcome = bring_up_to_stage(run, stage, settings, display, only, alone)
    except PathpipeError:  # refused before anything was made: the request must not come back as the run's own settings
        run.restore_settings(before)
        raise
    if not outcome.of("stale"):
        run.save_settings(settings)
    if not request.quiet or outcome.of("failed", "stale"):
        print_outcome(outcome, console, counts=stage != "report")
    encoded = outcome.receipts.get("extract", {}).values()
    spent = describe_time([(one.spent, one.counts.get("tiles", 0)) for one in encoded], settings.execution)
    if spent and not request.quiet:
        console.print(spent, highlight=False, soft_wrap=True)
    if stage == "report" and not request.quiet:
        print_table(SUMMARY, summary_rows(outcome, run, settings))
    if show is not None and not request.quiet and _made(run, stage, settings):
        show(run, settings)
    code = outcome.exit_code(settings.execution.max_failures)
    if code is not ExitCode.DONE:
        raise typer.Exit(code)
    return run, settings


def _made(run: Run, stage: str, settings: RunSettings) -> bool:
    """Whether the artefact of a stage of the whole cohort is there and made from what is asked for."""
    from pathpipe.provenance import read_provenance
    from pathpipe.stages.chain import COHORT, STAGES

    path = STAGES[stage].output(run, COHORT, settings)
    found = read_provenance(path) if path.exists() else None
    return found is not None and found.settings == STAGES[stage].what(settings)


def _open_run(folder: Path | None, source: Path | None) -> Any:
    from pathpipe.cohort import Cohort
    from pathpipe.run import Run

    if source is None:
        if folder is None:
            raise SettingsError(
                "nothing to work on",
                hint="give a run folder, or a cohort table or folder of slides with `-o RUN`",
            )
        return Run.open(folder)
    if folder is None:
        raise SettingsError("where should the results go?", where="-o", hint=f"e.g. `-o runs/{source.stem}`")
    return Run.create(folder, Cohort.read(source))
