"""`pathpipe evaluate`: one model measured, or several compared."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

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

if TYPE_CHECKING:
    from pathpipe.evaluation.comparison.comparison import Comparison
    from pathpipe.run import Run
    from pathpipe.settings import RunSettings
    from pathpipe.stages.compare import EvaluatedRun

SourcesArgument = Annotated[
    list[Path] | None,
    typer.Argument(help="A run or one model of it, RUN/train/NAME; several are compared with each other"),
]


@with_settings("evaluate", "train", "split", "audit", "extract", "tile", "tissue", "slide", "execution", "cluster")
def evaluate(
    source: SourcesArgument = None,
    out: OutOption = None,
    baseline: Annotated[
        bool, typer.Option("--baseline/--no-baseline", help="Let the colour baseline take part in a comparison")
    ] = True,
    config: ConfigOption = None,
    print_config: PrintConfigOption = False,
    quiet: QuietOption = False,
    *,
    given: dict[str, dict[str, Any]],
) -> None:
    """Measure a trained model on its test folds, with intervals by patient; or compare several.

    SOURCE is a run, or one model of it: RUN/train/NAME. Prints the numbers; writes RUN/evaluate/NAME/. Of several
    sources, of one run or of many, every pair is compared on the patients that all of them tested: -o is then the
    folder of the comparison (default: compare/NAMES in the first run).
    """
    sources = source or []
    if len(sources) < 2:
        asked = Request(sources[0] if sources else None, out, config, print_config, quiet)
        run_stage("evaluate", asked, given, None, _show)
        return
    folder, _, found = compare_sources(sources, Request(None, out, config, print_config, quiet), given, baseline)
    if not quiet:
        _show_comparison(found)
    stderr_console().print(f"comparison: {folder}", markup=False, highlight=False, soft_wrap=True)


def compare_sources(
    sources: list[Path], asked: Request, given: dict[str, dict[str, Any]], baseline: bool
) -> tuple[Path, list[EvaluatedRun], dict[str, Comparison]]:
    """Evaluate several models, compare them and write that down.

    Args:
        asked: Everything that was typed but the sources; `out` is the folder of the comparison.

    Returns:
        That folder, the models, target -> comparison.
    """
    from pathpipe.stages.compare import EvaluatedRun, compare_models, comparison_name, names_of, write_comparison

    if asked.out is not None:
        _refuse_other(asked.out)
    models = []
    for one in sources:
        run, settings = run_stage("evaluate", replace(asked, source=one, out=None), given)
        models.append(EvaluatedRun(run, settings))
    folder = asked.out or models[0].run.comparison(comparison_name(names_of(models)))
    found = compare_models(models, baseline)
    write_comparison(folder, models, found)
    return folder, models, found


def _refuse_other(folder: Path) -> None:
    from pathpipe.errors import SettingsError
    from pathpipe.stages.compare import FILE

    if folder.exists() and not (folder / FILE).exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise SettingsError(f"{folder} is there already and is no comparison", where="-o", hint="give another folder")


def _show(run: Run, settings: RunSettings) -> None:
    from pathpipe.cli.tables import print_table
    from pathpipe.stages.chain import train_name
    from pathpipe.stages.evaluate import read_evaluation

    found = read_evaluation(run.evaluation(train_name(settings)))
    several = {found.target: found.model, **found.others}
    columns = ["target", "metric", "value", "low", "high", "mean of folds", "sd of folds", "colour only"]
    rows: list[list[Any]] = []
    for target, model in several.items():
        beside = found.baseline.metrics if found.baseline and model is found.model else {}
        for name, one in model.metrics.items():
            fold = model.fold_means.get(name)
            numbers = [one.value, one.low, one.high, fold.mean if fold else None, fold.sd if fold else None]
            numbers.append(beside[name].value if name in beside else None)
            rows.append([target, name, *map(_short, numbers)])
    print_table(columns, rows)
    further = [f"{target}: {note}" for target, model in found.others.items() for note in model.notes]
    _say_notes([*found.model.notes, *further, *([found.baseline_note] if found.baseline_note else [])])
    if found.against_baseline is not None and found.against_baseline.differences:
        first = found.against_baseline.differences[0]
        low, value, high = (
            _short(one) for one in (first.difference.low, first.difference.value, first.difference.high)
        )
        p = _short(first.p_permutation)
        _say_notes([f"{first.metric} less that of colour only: {value} ({low} to {high}), p {p}: {first.verdict}"])


def _show_comparison(found: dict[str, Comparison]) -> None:
    from pathpipe.cli.tables import print_table
    from pathpipe.stages.compare import COLUMNS, rows

    print_table(COLUMNS, [[_short(value) for value in row] for row in rows(found)])
    for comparison in found.values():
        patients = sum(comparison.patients.values())
        _say_notes([f"{comparison.target}: {patients} patients that all models tested", *comparison.notes])


def _say_notes(notes: list[str]) -> None:
    for note in notes:
        stderr_console().print(f"note: {note}", markup=False, highlight=False, soft_wrap=True)


def _short(value: Any) -> Any:
    if isinstance(value, float):
        return None if math.isnan(value) else float(f"{value:.4g}")
    return value
