"""Results of a run as its report shows them: each target's numbers, beside the baseline where there is one."""

from __future__ import annotations

from pathpipe.errors import StoreError
from pathpipe.evaluation.baseline import NAME as BASELINE
from pathpipe.evaluation.comparison.comparison import Comparison
from pathpipe.report.results import Result
from pathpipe.run import Run
from pathpipe.settings import RunSettings
from pathpipe.settings.target import TargetSpec, parse_target
from pathpipe.stages.chain import train_name
from pathpipe.stages.compare import read_comparison
from pathpipe.stages.evaluate import read_evaluation
from pathpipe.stages.outcomes import read_task, table_files


def read_results(run: Run, settings: RunSettings) -> tuple[Result, ...]:
    """The targets of the evaluation, the first one first.

    Raises:
        StoreError: It is missing or damaged.
    """
    folder = run.evaluation(train_name(settings))
    found = read_evaluation(folder)
    specs = parse_target(settings.split.target)
    first = next(iter(table_files(read_task(folder))))
    level, model = settings.evaluate.confidence, settings.train.model
    beside = Result(
        target=first,
        unit=_unit(first, specs),
        model_name=model,
        model=found.model,
        confidence=level,
        baseline_name=BASELINE,
        baseline=found.baseline,
        baseline_note=found.baseline_note,
        against_baseline=found.against_baseline,
    )
    others = [Result(target, _unit(target, specs), model, one, level) for target, one in found.others.items()]
    return (beside, *others)


def _unit(target: str, specs: tuple[TargetSpec, ...]) -> str:
    """The column of a number, the time of a survival; a label itself."""
    named = [spec for spec in specs if target.partition(":")[0] in ("/".join(spec.columns), spec.columns[0])]
    return named[0].columns[0] if named and named[0].kind != "multilabel" else target


def read_comparisons(run: Run) -> dict[str, dict[str, Comparison]]:
    """Name -> target -> comparison, of the comparisons that lie in the run; damaged ones are left out."""
    found = {}
    parent = run.comparison("any").parent
    for folder in sorted(parent.iterdir()) if parent.is_dir() else []:
        try:
            found[folder.name] = read_comparison(folder)
        except StoreError:
            continue
    return found
