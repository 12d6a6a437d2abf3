"""Search: candidates of a sweep, proposed by Optuna's TPE and kept in a study that outlives a kill.

Reference: Bergstra et al., Algorithms for Hyper-Parameter Optimization, NeurIPS 2011 (TPE); Akiba et al., Optuna, KDD
2019, arXiv:1907.10902.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pathpipe.errors import MissingError
from pathpipe.settings.sweep import Choice, Span, SweepSettings, parse_space

_WARM = 5  # finished candidates before one is given up, and folds are compared


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


def open_study(path: Path, name: str, settings: SweepSettings, maximise: bool) -> Any:
    """The study of that name in a journal file; made when it isn't there.

    What one candidate is depends on the sweep's seed, how many are finished and their results: a study that was cut
    off goes on to the same candidates.
    """
    optuna = import_optuna()
    from optuna.storages import JournalStorage
    from optuna.storages.journal import JournalFileBackend

    path.parent.mkdir(parents=True, exist_ok=True)
    study = optuna.create_study(
        storage=JournalStorage(JournalFileBackend(str(path))),
        study_name=name,
        direction="maximize" if maximise else "minimize",
        pruner=optuna.pruners.MedianPruner(_WARM) if settings.prune else optuna.pruners.NopPruner(),
        load_if_exists=True,
    )
    for trial in study.get_trials(deepcopy=False, states=(optuna.trial.TrialState.RUNNING,)):
        study.tell(trial.number, state=optuna.trial.TrialState.FAIL)  # killed in its middle
    return study


def propose(study: Any, settings: SweepSettings, base: Mapping[str, Any], number: int) -> tuple[Any, dict[str, Any]]:
    """The next candidate.

    Args:
        number: How many are finished.
        base: Values of `train` that the candidate changes.

    Returns:
        Optuna's trial, and the values of `train` with its changes.
    """
    optuna = import_optuna()
    study.sampler = optuna.samplers.TPESampler(seed=settings.seed + number, multivariate=False)
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
    return trial, values


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
