"""Search: candidates of a sweep, proposed by Optuna's TPE and kept in a study that outlives a kill.

Reference: Bergstra et al., Algorithms for Hyper-Parameter Optimization, NeurIPS 2011 (TPE); Akiba et al., Optuna, KDD
2019, arXiv:1907.10902.
"""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pathpipe.errors import MissingError
from pathpipe.settings.sweep import Choice, Span, SweepSettings, parse_space

_WARM = 5  # complete candidates before one is given up, and folds are compared


@dataclass(frozen=True)
class Proposal:
    """A candidate.

    Attributes:
        params: What was varied -> its value.
        distributions: The same -> Optuna's distribution.
        values: The values of `train`, with these changes.
    """

    params: Mapping[str, Any]
    distributions: Mapping[str, Any]
    values: dict[str, Any]


def import_optuna() -> Any:
    """The package.

    Raises:
        MissingError: It is not installed.
    """
    try:
        import optuna
    except ModuleNotFoundError:
        raise MissingError("the package `optuna` is not installed", hint='pip install "pathpipe[sweep]"') from None
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    return optuna


def open_study(path: Path, name: str, maximise: bool) -> Any:
    """The study of that name in a journal file; made when it isn't there. It holds candidates that are finished."""
    optuna = import_optuna()
    from optuna.storages import JournalStorage
    from optuna.storages.journal import JournalFileBackend

    path.parent.mkdir(parents=True, exist_ok=True)
    return optuna.create_study(
        storage=JournalStorage(JournalFileBackend(str(path))),
        study_name=name,
        direction="maximize" if maximise else "minimize",
        load_if_exists=True,
    )


def propose(
    known: Sequence[Any], settings: SweepSettings, base: Mapping[str, Any], number: int, maximise: bool
) -> Proposal:
    """A candidate. It depends on the sweep's seed, its number and those that are known, and on nothing else.

    Args:
        known: Optuna's trials that it learns from.
        base: Values of `train` that the candidate changes.
    """
    optuna = import_optuna()
    study = optuna.create_study(
        sampler=optuna.samplers.TPESampler(seed=settings.seed + number, multivariate=False),
        direction="maximize" if maximise else "minimize",
    )
    study.add_trials(known)
    trial = study.ask()
    values: dict[str, Any] = {key: dict(value) if isinstance(value, dict) else value for key, value in base.items()}
    if settings.models:
        values["model"] = trial.suggest_categorical("model", list(settings.models))
        own = parse_space(settings.models[values["model"]])
        chosen = {key: _suggested(trial, f"{values['model']}.{key}", kind) for key, kind in own.items()}
        kept = values["model_settings"] if values["model"] == base["model"] else {}
        values["model_settings"] = {**kept, **chosen}
    for key, kind in parse_space(settings.space).items():
        _place(values, key.split("."), _suggested(trial, key, kind))
    return Proposal(trial.params, trial.distributions, values)


def bars(known: Sequence[Any]) -> list[float]:
    """After each round, the median of the complete candidates that are known: one that is below is given up.

    The rule is that of Optuna's MedianPruner; here a worker needs no study to go by it.
    """
    complete = [list(trial.intermediate_values.values()) for trial in known if trial.state.name == "COMPLETE"]
    if len(complete) < _WARM:
        return []
    return [statistics.median(at) for at in zip(*complete, strict=True)]


def record(study: Any, proposal: Proposal, state: str, reached: Sequence[float], reason: str = "") -> Any:
    """Keep what became of a candidate.

    Args:
        state: complete, pruned or fail.
        reached: After each round, the mean so far.
    """
    from optuna.trial import TrialState, create_trial

    trial = create_trial(
        state=TrialState[state.upper()],
        value=reached[-1] if state != "fail" else None,
        params=dict(proposal.params),
        distributions=dict(proposal.distributions),
        user_attrs={"train": proposal.values, **({"reason": reason} if reason else {})},
        intermediate_values=dict(enumerate(reached)),
    )
    study.add_trial(trial)
    return study.get_trials(deepcopy=False)[-1]


def _suggested(trial: Any, key: str, kind: Span | Choice) -> Any:
    if isinstance(kind, list):
        return trial.suggest_categorical(key, kind)
    if kind.whole:
        return trial.suggest_int(key, int(kind.low), int(kind.high), log=kind.log)
    return trial.suggest_float(key, kind.low, kind.high, log=kind.log)


def _place(values: dict[str, Any], path: list[str], value: Any) -> None:
    for part in path[:-1]:
        values[part] = dict(values.get(part, {}))
        values = values[part]
    values[path[-1]] = value
