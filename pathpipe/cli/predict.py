"""`pathpipe predict`: raw slides to predictions, preprocessed exactly as the model's training slides were."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pathpipe.cli.elsewhere import Work, do_elsewhere, is_elsewhere
from pathpipe.cli.options import typed_again, with_settings
from pathpipe.cli.session import QuietOption, stderr_console

if TYPE_CHECKING:
    from pathpipe.run import Run
    from pathpipe.settings import RunSettings
    from pathpipe.stages.predict import Ensemble


def register(app: typer.Typer) -> None:
    """Add the command to the app."""
    app.command("predict")(predict)


# Of the command line that was typed, what the last step of a submission isn't told.
_SLURM_S = ("cluster", "execution.on", "execution.dry_run", "execution.device")


@with_settings("execution", "cluster", "tissue:mask_dir", "tile:coords_dir,include,exclude")
def predict(  # noqa: PLR0913 - typer makes an option of each parameter
    model: Annotated[Path, typer.Argument(help="RUN/train/NAME (all folds together), one fold of it, or a model.pt")],
    source: Annotated[
        str, typer.Argument(metavar="SLIDES", help="A folder or bucket prefix of slides, a cohort table, or one slide")
    ],
    out: Annotated[Path, typer.Option("-o", "--out", help="Folder for features and the tables")] = Path("predicted"),
    weights: Annotated[str | None, typer.Option("--weights", help="Encoder weights, when they aren't found")] = None,
    tissue_network: Annotated[
        str | None, typer.Option("--tissue-network", help="The network that found the tissue, if one did")
    ] = None,
    form: Annotated[
        list[str] | None,
        typer.Option("--form", help="Further form of the tables (may be repeated)", metavar="csv|json|parquet"),
    ] = None,
    warn_from: Annotated[
        float, typer.Option("--warn-from", min=0, max=100, help="Percentile from which a slide is called unfamiliar")
    ] = 99.0,
    quiet: QuietOption = False,
    *,
    given: dict[str, dict[str, Any]],
) -> None:
    """Predict new slides with a trained model.

    Tissue, tiles and features are made with the settings kept in the model, and reused when run again. Writes
    OUT/predictions.csv: one row a patient (a slide is its own patient unless the table says otherwise), with the mean
    prediction of the models and their spread; and OUT/slides.csv: one row a slide, which says how far it lies from the
    slides of the training, with a warning where that is far. What failed or holds no tissue is a row with its reason.
    """
    from pathpipe.cohort import Cohort
    from pathpipe.run import Run
    from pathpipe.stages.predict import covariates_or_refuse, load_ensemble
    from pathpipe.stages.predicted import refuse_forms
    from pathpipe.url import place

    form = form or ["csv"]
    refuse_forms(form)
    ensemble = load_ensemble(model)
    how = {name: given.get(name, {}) for name in ("execution", "cluster")}
    folders = {**given.get("tissue", {}), **given.get("tile", {})}
    settings = ensemble.settings(how, weights, tissue_network, folders)
    cohort = Cohort.read(place(source))
    covariates_or_refuse(cohort, ensemble.covariates)
    if is_elsewhere(settings):
        own: dict[str, list[Any]] = {
            "--weights": [weights],
            "--tissue-network": [tissue_network],
            "--warn-from": [warn_from],
            "--form": form,
        }
        last = ["predict", str(model.absolute()), source, "-o", str(out.absolute()), *_words(own)]
        last += typed_again(given, _SLURM_S) + (["--device", "cpu"] if settings.execution.device == "cpu" else [])
        do_elsewhere(Work("predict", "extract", out.absolute(), cohort, settings, last, quiet=quiet))
        return
    run = Run.create(out, cohort)
    run.save_settings(settings)
    _work(run, settings, ensemble, Asked(form, warn_from, quiet))


@dataclass(frozen=True)
class Asked:
    """How the answer is to look."""

    form: Sequence[str]
    warn_from: float
    quiet: bool


def _work(run: Run, settings: RunSettings, ensemble: Ensemble, asked: Asked) -> None:
    """Features, then the tables; of a part of the slides the features only."""
    from pathpipe.cli.progress import Display
    from pathpipe.cli.tables import print_outcome
    from pathpipe.encoders.load import pick_device
    from pathpipe.execution.pipeline import bring_up_to_stage
    from pathpipe.stages.predicted import predict_run, write_predicted

    console = stderr_console()
    with Display(console, asked.quiet) as display:
        outcome = bring_up_to_stage(run, "extract", settings, display)
    written: list[Path] = []
    unfamiliar: Sequence[str] = ()
    if settings.execution.shard is None:
        failed = {one.key: f"{one.state}: {one.reason}" for one in outcome.of("failed", "stale", "empty")}
        device = pick_device(settings.execution.device)
        predicted = predict_run(run, settings, ensemble, device, asked.warn_from, failed)
        written = write_predicted(run.folder, predicted, ensemble, asked.form)
        unfamiliar = predicted.unfamiliar
    if not asked.quiet or outcome.of("failed", "stale"):
        print_outcome(outcome, console)
    for line in unfamiliar:
        console.print(f"warning: {line}", markup=False, highlight=False, soft_wrap=True)
    for path in written:
        print(path)
    if code := outcome.exit_code(settings.execution.max_failures):
        raise typer.Exit(code)


def _words(options: Mapping[str, Sequence[Any]]) -> list[str]:
    return [word for flag, values in options.items() for one in values if one is not None for word in (flag, str(one))]
