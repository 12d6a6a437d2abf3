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
from pathpipe.url import Place, is_url, place, was_url

if TYPE_CHECKING:
    from pathpipe.cohort import Cohort
    from pathpipe.execution.pipeline import Outcome
    from pathpipe.run import Run

# text, not a path: a URL doesn't survive being one
SourceArgument = Annotated[
    str | None,
    typer.Argument(help="A run folder, a cohort table (CSV), a folder or bucket prefix of slides, or one slide"),
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

    source: str | Path | None
    out: Path | None
    config: Path | None
    print_config: bool = False
    quiet: bool = False

    @property
    def place(self) -> Place | None:
        """The source as a path or a URL.

        Raises:
            SettingsError: The run would lie behind a URL, or the source was a URL once.
        """
        if self.out is not None and was_url(self.out):
            raise SettingsError(
                "a run lies on a file system",
                where=f"-o {self.out}",
                hint="give a folder; `--publish-to` also writes finished features to a bucket",
            )
        if isinstance(self.source, Path) and was_url(self.source):
            raise SettingsError("takes no URL here", where=str(self.source), hint="give a run folder")
        return None if self.source is None else place(self.source)


def stderr_console() -> Console:
    """Progress and messages go to stderr; stdout is for data."""
    return Console(stderr=True)


def resolve(request: Request, given: Mapping[str, Mapping[str, Any]]) -> tuple[Path | None, Place | None, RunSettings]:
    """Layer the settings: default < the run's own < --config < options.

    Returns:
        The run folder (or None), the cohort source (or None for an existing run's own), the settings.
    """
    from pathpipe.run import Run

    config = read_yaml(request.config) if request.config else {}
    source = request.place
    if source is None and config.get("cohort"):
        assert request.config is not None
        cohort = str(config["cohort"])
        source = place(cohort) if is_url(cohort) else request.config.parent / cohort
    folder, asked = request.out, request.place
    if isinstance(source, Path) and source.is_dir() and Run.exists(source):
        if folder is not None and folder.resolve() != source.resolve():
            raise SettingsError(f"{source} is a run already", where="-o", hint="leave out -o to go on with it")
        folder, source = source, None
    layers: list[Layer] = []
    if isinstance(source, Path) and (inside := _model_of_run(source)) is not None:
        folder, source = inside, None
    own = Run.open(folder).saved_settings() if folder is not None and Run.exists(folder) else None
    recorded = None
    if isinstance(asked, Path) and source is None and folder != asked:
        recorded = _recorded_settings(asked)
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
    asked: str | None = None,
) -> tuple[Run, RunSettings]:
    """Bring a run up to `stage`; exit with a code that says what went wrong, if anything did, or with 0 when the work
    is handed over or only shown.

    Args:
        only: Slide ids the stage is limited to.
        show: Prints what the stage made, whatever the exit code; called when it is there and `--quiet` is not.
        alone: Whether what comes before the stage is left as it is.
        asked: What the stage is brought up to date for, where it isn't for itself.

    Returns:
        The run, and the settings it is up to date with.
    """
    from pathpipe.cli.elsewhere import Work, do_elsewhere, is_elsewhere
    from pathpipe.cli.progress import Display
    from pathpipe.cli.tables import print_outcome
    from pathpipe.execution.follow import follow, is_follower, leading
    from pathpipe.execution.pipeline import bring_up_to_stage
    from pathpipe.run import Run

    if is_follower():
        follow()
        raise typer.Exit
    folder, cohort, settings = _found(*resolve(request, given))
    if is_elsewhere(settings):
        alone = alone or only is not None
        do_elsewhere(Work(asked or stage, stage, folder.absolute(), cohort, settings, (), alone, request.quiet))
        raise typer.Exit
    run = Run.open(folder) if cohort is None else Run.create(folder, cohort)
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
    if not request.quiet:
        _sum_up(outcome, run, settings, table=stage == "report")
    if show is not None and not request.quiet and _made(run, stage, settings):
        show(run, settings)
    code = outcome.exit_code(settings.execution.max_failures)
    if code is not ExitCode.DONE:
        raise typer.Exit(code)
    return run, settings


def _sum_up(outcome: Outcome, run: Run, settings: RunSettings, table: bool) -> None:
    from pathpipe.cli.tables import SUMMARY, print_table, summary_rows
    from pathpipe.stages.bottleneck import describe_time

    encoded = outcome.receipts.get("extract", {}).values()
    spent = describe_time([(one.spent, one.counts.get("tiles", 0)) for one in encoded], settings.execution)
    if spent:
        stderr_console().print(spent, highlight=False, soft_wrap=True)
    if table:
        print_table(SUMMARY, summary_rows(outcome, run, settings))


def _made(run: Run, stage: str, settings: RunSettings) -> bool:
    """Whether the artefact of a stage of the whole cohort is there and made from what is asked for."""
    from pathpipe.provenance import read_provenance
    from pathpipe.stages.chain import COHORT, STAGES

    path = STAGES[stage].output(run, COHORT, settings)
    found = read_provenance(path) if path.exists() else None
    return found is not None and found.settings == STAGES[stage].what(settings)


def _found(folder: Path | None, source: Place | None, settings: RunSettings) -> tuple[Path, Cohort | None, RunSettings]:
    """The run's folder and the table it is to take, if it isn't to go on with its own."""
    from pathpipe.cohort import Cohort

    if source is None:
        if folder is None:
            raise SettingsError(
                "nothing to work on",
                hint="give a run folder, or a cohort table or folder of slides with `-o RUN`",
            )
        return folder, None, settings
    if folder is None:
        raise SettingsError("where should the results go?", where="-o", hint=f"e.g. `-o runs/{source.stem}`")
    return folder, Cohort.read(source), settings
