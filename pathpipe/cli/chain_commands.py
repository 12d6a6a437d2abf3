"""The commands of the chain, from `tile` to `run`: each brings a run up to date as far as its stage."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pathpipe.cli.evaluate import evaluate
from pathpipe.cli.options import with_settings
from pathpipe.cli.report import report
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
from pathpipe.errors import ExitCode, PathpipeError, SettingsError

if TYPE_CHECKING:
    from pathpipe.run import Run
    from pathpipe.settings import RunSettings

_TILES = ("tile", "tissue", "slide")
_FEATURES = (*_TILES, "execution", "cluster")
_TRAIN = ("split", "audit", "extract", *_FEATURES)
_LAST = {"tile": "contact-sheet"}  # a command goes on to the view of what it made
Given = dict[str, dict[str, Any]]

# command -> (help, sections whose settings are its options, its own first)
COMMANDS: dict[str, tuple[str, tuple[str, ...]]] = {
    "tile": (
        "Find the tissue of every slide and lay the grid of tiles.\n\n"
        "Writes RUN/tissue/SLIDE.geojson (opens in QuPath), RUN/tiles/SLIDE.h5 (opens in CLAM and TRIDENT) and "
        "SLIDE.jpg, a picture of the slide with its grid to look at; and RUN/contact_sheet.jpg, all pictures small, "
        "those to look at first at the top.",
        (*_TILES, "execution:on,shard,help_others,dry_run,workers,stale,max_failures", "cluster"),
    ),
    "extract": (
        "Turn every tile into a feature vector; tissue and tiles are made first where they are missing.\n\n"
        "Goes on where an interrupted run stopped, inside the slide. Writes RUN/features/ENCODER/SLIDE.h5.",
        ("extract", *_FEATURES),
    ),
    "embed": (
        "Make one vector of every slide; features are made first where they are missing.\n\n"
        "Mean, max and mean-std need no training; a published slide encoder needs its own tile encoder and tiles, "
        "which is checked. Writes RUN/embeddings/ENCODER/SLIDE_ENCODER/SLIDE.h5.",
        ("embed", "extract", *_FEATURES),
    ),
    "split": (
        "Assign patients to the folds of a cross-validation, or around a fixed test set.\n\n"
        "Always by patient: stratified by class, grade, bins of a value, event and time, or several labels; by whole "
        "groups or sites where asked; or taken from files of CLAM and MCAT. Prints what is in each fold. Writes "
        "RUN/splits/.",
        ("split", "execution:stale"),
    ),
    "audit": (
        "Look for what would make results look better than they are.\n\n"
        "One slide or person under two names on both sides of the split, near-duplicates, sites that features give "
        "away or that go with the label. `train` does the same first, and stops at a leak (exit code 4) unless its "
        "kind is named by --allow-leaks. Prints and writes RUN/audit/.",
        ("audit", "split", "extract", *_FEATURES),
    ),
    "train": (
        "Train a multiple-instance-learning model on every fold.\n\n"
        "What comes before (features, folds) is made first where it is missing. The test fold of a model is never "
        "used to choose anything. Writes RUN/train/NAME/.",
        ("train", *_TRAIN),
    ),
}


def register(app: typer.Typer) -> None:
    """Add the commands to the app."""
    for name, (text, sections) in COMMANDS.items():
        app.command(name, help=text)(_chain_command(name, sections))
    app.command("evaluate")(evaluate)
    app.command("heatmap")(heatmap)
    app.command("report")(report)
    app.command("run")(run)


def _chain_command(stage: str, sections: tuple[str, ...]) -> Callable[..., None]:
    @with_settings(*sections)
    def command(
        source: SourceArgument = None,
        out: OutOption = None,
        config: ConfigOption = None,
        print_config: PrintConfigOption = False,
        quiet: QuietOption = False,
        *,
        given: Given,
    ) -> None:
        asked = Request(source, out, config, print_config, quiet)
        last = stage if "shard" in given.get("execution", {}) else _LAST.get(stage, stage)
        run_stage(last, asked, given, None, _SHOW.get(stage))

    return command


def _show_split(run: Run, settings: RunSettings) -> None:
    from pathpipe.cli.tables import print_table
    from pathpipe.stages.split import split_name, split_notes, split_summary

    notes, kept_out = split_notes(run.split(split_name(settings)))
    shown = ", ".join(kept_out[:5]) + (f" and {len(kept_out) - 5} more" if len(kept_out) > 5 else "")
    summary = split_summary(run, settings)
    print_table(summary.columns, summary.rows)
    for line in [*notes, *([f"{len(kept_out)} patients without a label are kept out: {shown}"] if kept_out else [])]:
        stderr_console().print(f"note: {line}", markup=False, highlight=False, soft_wrap=True)


def _show_audit(run: Run, settings: RunSettings) -> None:
    from pathpipe.stages.audit import read_audit

    print(read_audit(run, settings).to_text(), end="")


def _show_explanations(run: Run, settings: RunSettings) -> None:
    from pathpipe.cli.tables import print_table
    from pathpipe.stages.explanations import COLUMNS, table

    rows = table(run, settings)
    if rows:
        print_table(COLUMNS, rows)


_SHOW = {"split": _show_split, "audit": _show_audit}


@with_settings("heatmap", "train", *_TRAIN)
def heatmap(
    source: SourceArgument = None,
    out: OutOption = None,
    slide: Annotated[list[str] | None, typer.Option("--slide", help="Only this slide id (may be repeated)")] = None,
    config: ConfigOption = None,
    print_config: PrintConfigOption = False,
    quiet: QuietOption = False,
    *,
    given: Given,
) -> None:
    """Draw what a trained model looked at, from stored features.

    Each slide is scored by the models that never saw its patient; where none is left (a fixed test set), it is not
    drawn. SOURCE is a run, or one model of it: RUN/train/NAME. Prints whether the explanations hold. Writes
    RUN/heatmaps/NAME/SLIDE/ and RUN/explanations/NAME/.
    """
    asked = Request(source, out, config, print_config, quiet)
    if slide:
        found, settings = run_stage("heatmap", asked, given, only=slide)
        _refuse_seen(found, settings, slide)
    else:
        run_stage("explanations", asked, given, None, _show_explanations)


def _refuse_seen(run: Run, settings: RunSettings, slides: list[str]) -> None:
    """Say so where a slide that was asked for can't be drawn."""
    from pathpipe.errors import CohortError
    from pathpipe.stages.chain import always_seen

    seen = always_seen(run, settings)
    lost = [slide for slide in slides if slide in seen]
    if lost:
        raise CohortError(
            "every model was trained or validated on the patient",
            where=", ".join(lost),
            hint="a slide is explained by models that never saw its patient",
        )


@with_settings("execution", "cluster")
def run(
    configs: Annotated[
        list[Path], typer.Argument(metavar="CONFIG...", help="YAML files with a `cohort` and settings (see configs/)")
    ],
    out: OutOption = None,
    print_config: PrintConfigOption = False,
    quiet: QuietOption = False,
    *,
    given: Given,
) -> None:
    """Everything from slides to report, as YAML files say: one run a file, one after the other.

    Run it again after an interruption or a failure: only what is left is done. The runs are named after the files and
    lie in runs/; -o names the run of one file, or of several the folder that holds them. Prints what became of every
    stage, in how many seconds, and where it lies.
    """
    if len(configs) == 1:
        where = out or Path("runs") / configs[0].stem
        run_stage("report", Request(None, where, configs[0], print_config, quiet), given)
        return
    _run_all(configs, out or Path("runs"), Request(None, None, None, print_config, quiet), given)


def _run_all(configs: list[Path], parent: Path, asked: Request, given: Given) -> None:
    """One run a file; the exit code is the largest, so one failure is not lost among others."""
    from pathpipe.cli.tables import print_table

    rows: list[tuple[str, int, str, str]] = []
    for config in configs:
        if [one.stem for one in configs].count(config.stem) > 1:
            raise SettingsError(f"two files are named {config.stem}, and so would be their runs", where=str(config))
    for config in configs:
        where, code, reason = parent / config.stem, ExitCode.DONE, ""
        stderr_console().print(f"{config}:", markup=False, highlight=False)
        try:
            run_stage("report", replace(asked, out=where, config=config), given)
        except typer.Exit as stop:
            code = ExitCode(stop.exit_code)
        except PathpipeError as error:
            code, reason = error.exit_code, str(error)
        rows.append((str(config), int(code), reason, str(where)))
    if not asked.print_config:
        print_table(("config", "exit code", "reason", "run"), rows)
    if worst := max(code for _, code, _, _ in rows):
        raise typer.Exit(worst)
