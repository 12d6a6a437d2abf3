"""Results of a run as its report shows them: each target's numbers, beside the baseline where there is one."""

from __future__ import annotations

from pathpipe.evaluation.baseline import NAME as BASELINE
from pathpipe.evaluation.evaluation import Evaluation
from pathpipe.report.results import Result
from pathpipe.run import Run
from pathpipe.settings import RunSettings
from pathpipe.settings.target import TargetSpec, parse_target
from pathpipe.stages.chain import train_name
from pathpipe.stages.evaluate import read_evaluation


def read_results(run: Run, settings: RunSettings) -> tuple[Result, ...]:
    """The targets of the evaluation, the first one first.

    Raises:
        StoreError: It is missing or damaged.
    """
    found = read_evaluation(run.evaluation(train_name(settings)))
    specs = parse_target(settings.split.target)
    first = Result(
        settings.split.target.split(",")[0] if len(found.others) and len(specs) > 1 else settings.split.target,
        _unit(specs[0]),
        settings.train.model,
        Evaluation.from_dict(found.model.to_dict()),
        settings.evaluate.confidence,
        BASELINE,
        Evaluation.from_dict(found.baseline.to_dict()) if found.baseline else None,
        found.baseline_note,
    )
    others = [
        Result(
            target,
            _unit_of(target, specs),
            settings.train.model,
            Evaluation.from_dict(one.to_dict()),
            settings.evaluate.confidence,
        )
        for target, one in found.others.items()
    ]
    return (first, *others)


def _unit(spec: TargetSpec) -> str:
    """The column of a number, the time of a survival."""
    return spec.columns[0]


def _unit_of(target: str, specs: tuple[TargetSpec, ...]) -> str:
    named = [spec for spec in specs if target in (*spec.columns, "/".join(spec.columns)) or str(spec) == target]
    return _unit(named[0]) if named else target
