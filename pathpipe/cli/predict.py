"""`pathpipe predict`: raw slides to predictions, preprocessed exactly as the model's training slides were."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from pathpipe.cli.options import with_settings
from pathpipe.cli.session import QuietOption, stderr_console


def register(app: typer.Typer) -> None:
    """Add the command to the app."""
    app.command("predict")(predict)


@with_settings("execution", "cluster", "tile:coords_dir")
def predict(  # noqa: PLR0913 - typer makes an option of each parameter
    model: Annotated[Path, typer.Argument(help="RUN/train/NAME (all folds together), one fold of it, or a model.pt")],
    source: Annotated[Path, typer.Argument(metavar="SLIDES", help="A folder of slides, a cohort table, or one slide")],
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
    from pathpipe.cli.progress import Display
    from pathpipe.cli.tables import print_outcome
    from pathpipe.cohort import Cohort
    from pathpipe.encoders.load import pick_device
    from pathpipe.errors import ExitCode
    from pathpipe.execution.pipeline import bring_up_to_stage
    from pathpipe.run import Run
    from pathpipe.stages.predict import covariates_or_refuse, load_ensemble
    from pathpipe.stages.predicted import predict_run, refuse_forms, write_predicted

    console, form = stderr_console(), form or ["csv"]
    refuse_forms(form)
    ensemble = load_ensemble(model)
    how = {name: given.get(name, {}) for name in ("execution", "cluster")}
    settings = ensemble.settings(how, weights, tissue_network, given.get("tile", {}).get("coords_dir"))
    cohort = Cohort.read(source)
    covariates_or_refuse(cohort, ensemble.covariates)
    run = Run.create(out, cohort)
    run.save_settings(settings)
    with Display(console, quiet) as display:
        outcome = bring_up_to_stage(run, "extract", settings, display)
    failed = {one.key: f"{one.state}: {one.reason}" for one in outcome.of("failed", "stale", "empty")}
    predicted = predict_run(run, settings, ensemble, pick_device(settings.execution.device), warn_from, failed)
    written = write_predicted(out, predicted, ensemble, form)
    if not quiet or outcome.of("failed", "stale"):
        print_outcome(outcome, console)
    for line in predicted.unfamiliar:
        console.print(f"warning: {line}", markup=False, highlight=False, soft_wrap=True)
    for path in written:
        print(path)
    code = outcome.exit_code(settings.execution.max_failures)
    if code is not ExitCode.DONE:
        raise typer.Exit(code)
