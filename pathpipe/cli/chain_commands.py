"""The commands of the chain, from `tile` to `run`: each brings a run up to date as far as its stage."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer

from pathpipe.cli.options import with_settings
from pathpipe.cli.session import (
    ConfigOption,
    OutOption,
    PrintConfigOption,
    QuietOption,
    Request,
    SourceArgument,
    run_stage,
)

_TILES = ("tile", "tissue", "slide")
_FEATURES = (*_TILES, "execution")
_TRAIN = ("split", "extract", *_FEATURES)
_LAST = {"tile": "contact-sheet"}  # a command goes on to the view of what it made
Given = dict[str, dict[str, Any]]

# command -> (help, sections whose settings are its options, its own first)
COMMANDS: dict[str, tuple[str, tuple[str, ...]]] = {
    "tile": (
        "Find the tissue of every slide and lay the grid of tiles.\n\n"
        "Writes RUN/tissue/SLIDE.geojson (opens in QuPath), RUN/tiles/SLIDE.h5 (opens in CLAM and TRIDENT) and "
        "SLIDE.jpg, a picture of the slide with its grid to look at; and RUN/contact_sheet.jpg, all pictures small, "
        "those to look at first at the top.",
        (*_TILES, "execution:workers,stale,max_failures"),
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
        "Assign patients to cross-validation folds.\n\nAlways by patient, stratified by label. Writes RUN/splits/.",
        ("split", "execution:stale"),
    ),
    "train": (
        "Train a multiple-instance-learning model on every fold.\n\n"
        "What comes before (features, folds) is made first where it is missing. The test fold of a model is never "
        "used to choose anything. Writes RUN/train/NAME/.",
        ("train", *_TRAIN),
    ),
    "evaluate": (
        "Measure a trained model on its test folds, with intervals by patient.\n\n"
        "SOURCE is a run, or one model of it: RUN/train/NAME. Writes RUN/evaluate/NAME/.",
        ("evaluate", "train", *_TRAIN),
    ),
    "report": (
        "Write one offline HTML page that shows the whole run.\n\nWrites RUN/report.html.",
        ("evaluate", "heatmap", "train", *_TRAIN),
    ),
}


def register(app: typer.Typer) -> None:
    """Add the commands to the app."""
    for name, (text, sections) in COMMANDS.items():
        app.command(name, help=text)(_chain_command(name, sections))
        if name == "evaluate":
            app.command("heatmap")(heatmap)
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
        run_stage(_LAST.get(stage, stage), Request(source, out, config, print_config, quiet), given)

    return command


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

    Each slide is scored by the models that never saw its patient. SOURCE is a run, or one model of it:
    RUN/train/NAME. Writes RUN/heatmaps/NAME/SLIDE/.
    """
    run_stage("heatmap", Request(source, out, config, print_config, quiet), given, only=slide)


@with_settings("execution")
def run(
    config: Annotated[Path, typer.Argument(help="YAML file with a `cohort` and settings (see configs/)")],
    out: OutOption = None,
    print_config: PrintConfigOption = False,
    quiet: QuietOption = False,
    *,
    given: Given,
) -> None:
    """Everything from slides to report, as one YAML file says.

    Run it again after an interruption or a failure: only what is left is done.
    """
    where = out or Path("runs") / config.stem
    run_stage("report", Request(None, where, config, print_config, quiet), given)
