"""`pathpipe predict`: raw slides to predictions, preprocessed exactly as the model's training slides were."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from pathpipe.cli.options import with_settings
from pathpipe.cli.session import QuietOption, stderr_console

FILE = "predictions.csv"


def register(app: typer.Typer) -> None:
    """Add the command to the app."""
    app.command("predict")(predict)


@with_settings("execution", "tile:coords_dir")
def predict(
    model: Annotated[Path, typer.Argument(help="RUN/train/NAME (all folds together), one fold of it, or a model.pt")],
    source: Annotated[Path, typer.Argument(metavar="SLIDES", help="A folder of slides, a cohort table, or one slide")],
    out: Annotated[Path, typer.Option("-o", "--out", help="Folder for features and predictions.csv")] = Path(
        "predicted"
    ),
    weights: Annotated[str | None, typer.Option("--weights", help="Encoder weights, when they aren't found")] = None,
    tissue_network: Annotated[
        str | None, typer.Option("--tissue-network", help="The network that found the tissue, if one did")
    ] = None,
    quiet: QuietOption = False,
    *,
    given: dict[str, dict[str, Any]],
) -> None:
    """Predict new slides with a trained model.

    Tissue, tiles and features are made with the settings kept in the model, and reused when run again. Writes
    OUT/predictions.csv: one row a patient (a slide is its own patient unless the table says otherwise), with the mean
    prediction of the models and their spread; slides that failed or hold no tissue are rows with their reason.
    """
    from pathpipe.cli.progress import Display
    from pathpipe.cli.tables import print_outcome
    from pathpipe.cohort import Cohort
    from pathpipe.encoders.load import pick_device
    from pathpipe.errors import ExitCode
    from pathpipe.execution.pipeline import bring_up_to_stage
    from pathpipe.publish import publish_text
    from pathpipe.run import Run
    from pathpipe.stages.predict import covariates_or_refuse, load_ensemble, predict_patients

    console = stderr_console()
    ensemble = load_ensemble(model)
    settings = ensemble.settings(
        given.get("execution", {}), weights, tissue_network, given.get("tile", {}).get("coords_dir")
    )
    cohort = Cohort.read(source)
    covariates_or_refuse(cohort, ensemble.covariates)
    run = Run.create(out, cohort)
    run.save_settings(settings)
    with Display(console, quiet) as display:
        outcome = bring_up_to_stage(run, "extract", settings, display)
    table = predict_patients(run, settings, ensemble, pick_device(settings.execution.device))
    done = set(table["patient_id"]) if len(table) else set()
    failed = [one for one in outcome.of("failed", "stale", "empty") if run.cohort.patients[one.key] not in done]
    table = _with_reasons(table, {run.cohort.patients[one.key]: f"{one.state}: {one.reason}" for one in failed})
    publish_text(out / FILE, table.to_csv(index=False))
    if not quiet or failed:
        print_outcome(outcome, console)
    print(out / FILE)
    code = outcome.exit_code(settings.execution.max_failures)
    if code is not ExitCode.DONE:
        raise typer.Exit(code)


def _with_reasons(table: Any, reasons: dict[str, str]) -> Any:
    import pandas as pd

    table = table.assign(reason="")
    if not reasons:
        return table
    rows = pd.DataFrame({"patient_id": list(reasons), "slides": 0, "tiles": 0, "reason": list(reasons.values())})
    return pd.concat([table, rows], ignore_index=True) if len(table) else rows
