"""Compare: evaluated models of one run or several, target by target. Not a stage: its result belongs to no one run."""

from __future__ import annotations

import csv
import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import isnan, nan
from pathlib import Path
from typing import Any

from pathpipe.errors import SettingsError, StoreError
from pathpipe.evaluation.baseline import NAME as BASELINE
from pathpipe.evaluation.comparison.compare import compare
from pathpipe.evaluation.comparison.comparison import Comparison
from pathpipe.evaluation.comparison.matching import Entrant
from pathpipe.evaluation.predictions import Predictions
from pathpipe.provenance import FOLDER_FILE, Provenance, read_provenance
from pathpipe.publish import publish, publish_json
from pathpipe.run import Run, safe_name
from pathpipe.settings import EvaluateSettings, RunSettings
from pathpipe.stages.chain import train_name
from pathpipe.stages.evaluate import BASELINE_TABLE
from pathpipe.stages.evaluating import Grounds
from pathpipe.stages.stage import versions

FILE, TABLE = "comparison.json", "differences.csv"
VERSION = 2
COLUMNS = (
    "target",
    "metric",
    "first",
    "second",
    "difference",
    "low",
    "high",
    "p bootstrap",
    "p DeLong",
    "p folds",
    "p permutation",
    "p Holm",
    "real?",
)


@dataclass(frozen=True)
class EvaluatedRun:
    """A trained and evaluated model: a run and the settings that name it."""

    run: Run
    settings: RunSettings

    @property
    def folder(self) -> Path:
        """Its evaluation."""
        return self.run.evaluation(train_name(self.settings))


def names_of(models: Sequence[EvaluatedRun]) -> list[str]:
    """A name for each model: its own, preceded by as many folders as tell it from the others.

    Raises:
        SettingsError: One is given twice.
    """
    places = [(*one.run.folder.resolve().parts, train_name(one.settings)) for one in models]
    twice = next((place for place in places if places.count(place) > 1), None)
    if twice is not None:
        raise SettingsError(f"the model {twice[-1]} is given twice", where=str(Path(*twice[:-1])))
    parts = 1
    while len({place[-parts:] for place in places}) < len(places):
        parts += 1
    return ["/".join(place[-parts:]) for place in places]


def comparison_name(names: Sequence[str]) -> str:
    """Folder name of a comparison."""
    return "-vs-".join(safe_name(name) for name in names)


def compare_models(models: Sequence[EvaluatedRun], baseline: bool) -> dict[str, Comparison]:
    """Target -> comparison, of the targets that all models predict.

    Args:
        baseline: Whether the first model's colour baseline takes part, where it has one.

    Raises:
        SettingsError: A model is given twice.
        StoreError: The models have no target in common, or can't be compared.
    """
    names, settings = names_of(models), models[0].settings.evaluate
    found = [_entrants(one, name) for one, name in zip(models, names, strict=True)]
    targets = [target for target in found[0] if all(target in other for other in found[1:])]
    if not targets:
        said = "; ".join(f"{name}: {', '.join(one)}" for name, one in zip(names, found, strict=True))
        raise StoreError(f"the models predict different targets ({said})", hint="compare models of one target")
    colours = _baseline(models[0], next(iter(found[0].items()))) if baseline else {}
    return {
        target: compare(target, [*(one[target] for one in found), *colours.get(target, [])], settings)
        for target in targets
    }


def _entrants(model: EvaluatedRun, name: str) -> dict[str, Entrant]:
    grounds, predictions = Grounds.of(model.run, model.settings)
    return {
        _question(target): Entrant(name, one, grounds.trained_on(target), grounds.horizon(target))
        for target, one in predictions.items()
    }


def _question(target: str) -> str:
    """A target without the way its time is modelled: Cox's and a discrete-time model answer the same question."""
    return target.removesuffix(":survival").removesuffix(":cox")


def _baseline(model: EvaluatedRun, first: tuple[str, Entrant]) -> dict[str, list[Entrant]]:
    target, entrant = first
    path = model.folder / BASELINE_TABLE
    if not path.exists():
        return {}
    return {target: [replace(entrant, name=BASELINE, predictions=Predictions.read(path, entrant.predictions.kind))]}


def write_comparison(folder: Path, models: Sequence[EvaluatedRun], found: dict[str, Comparison]) -> None:
    """Write comparison.json, differences.csv and what they were made from; what lay there is replaced."""
    names, settings = names_of(models), models[0].settings.evaluate
    made = Provenance(
        stage="compare",
        version=VERSION,
        settings={"evaluate": _settings(settings)},
        inputs={name: _fingerprint(one) for name, one in zip(names, models, strict=True)},
        made_by=versions("pathpipe", "numpy", "scipy"),
    )
    with publish(folder) as partial:
        partial.mkdir()
        content = {"models": names, "comparisons": {target: one.to_dict() for target, one in found.items()}}
        publish_json(partial / FILE, content)
        with open(partial / TABLE, "w", encoding="utf-8", newline="") as file:
            writer = csv.writer(file, lineterminator="\n")
            writer.writerow(COLUMNS)
            writer.writerows(rows(found))
        publish_json(partial / FOLDER_FILE, made.to_dict())


def read_comparison(folder: Path) -> dict[str, Comparison]:
    """Target -> comparison.

    Raises:
        StoreError: The folder is no comparison, or damaged.
    """
    try:
        content = json.loads((folder / FILE).read_text(encoding="utf-8"))
        return {target: Comparison.from_dict(one) for target, one in dict(content["comparisons"]).items()}
    except (OSError, KeyError, TypeError, ValueError) as error:
        raise StoreError(f"can't be read as a comparison: {error!r}", where=str(folder)) from None


def rows(found: dict[str, Comparison]) -> list[list[Any]]:
    """Rows of the table of differences; see `COLUMNS`. None where a number is undefined."""
    table = []
    for target, comparison in found.items():
        for one in comparison.differences:
            difference = one.difference
            numbers = [difference.value, difference.low, difference.high, one.p_bootstrap]
            numbers += [one.delong.p if one.delong else nan, one.across_folds.p if one.across_folds else nan]
            numbers += [one.p_permutation, one.p_holm]
            shown = [None if isnan(number) else number for number in numbers]
            table.append([target, one.metric, one.first, one.second, *shown, one.verdict])
    return table


def _settings(settings: EvaluateSettings) -> dict[str, Any]:
    return settings.model_dump(mode="json", include={"bootstrap", "interval", "confidence", "seed", "threshold"})


def _fingerprint(model: EvaluatedRun) -> str:
    found = read_provenance(model.folder)
    if found is None:
        raise StoreError("is not evaluated", where=str(model.folder), hint="run `pathpipe evaluate`")
    return found.fingerprint
