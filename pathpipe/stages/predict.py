"""Predict: features of new slides through the models of a trained folder. Not a stage: its result is a table."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from pathpipe.cohort import Cohort
from pathpipe.encoders.stain import target_of
from pathpipe.errors import CohortError, SettingsError, StoreError
from pathpipe.evaluation.calling import median_grade
from pathpipe.mil.bag import Bag
from pathpipe.mil.wrappers.covariates import covariates_of
from pathpipe.run import Run
from pathpipe.settings import RunSettings, merge
from pathpipe.stages.patients import Values, covariate_values, feature_sets, with_covariates
from pathpipe.stages.train import MODEL
from pathpipe.tasks.task import Table
from pathpipe.tissue.method import missing_files
from pathpipe.training.checkpoint import Checkpoint, load_checkpoint
from pathpipe.training.loading import LoadedBags, load_bags
from pathpipe.training.trainer import predict_logits


@dataclass(frozen=True)
class _Given:
    """A folder of what was given for slides in training, and must be for new ones.

    Attributes:
        goes_without: Settings that say nothing without the folder; None: there is no doing without.
    """

    section: str
    was: str
    of: str
    goes_without: tuple[str, ...] | None = ()


GIVEN = {
    "mask_dir": _Given("tissue", "the tissue of all the model's slides was outlined for them", "outlines"),
    "coords_dir": _Given("tile", "the tiles of the model's slides were laid by another tool", "coordinate files", None),
    "include": _Given("tile", "the model's slides had tiles in regions only", "regions", ("include_class", "min_roi")),
    "exclude": _Given(
        "tile", "the model's slides had no tiles in some regions", "regions", ("exclude_class", "max_excluded")
    ),
}
NONE = "none"  # asked for in place of a folder: do without


@dataclass(frozen=True, eq=False)
class Ensemble:
    """The models of one training, all of one task, one encoder and one preprocessing."""

    checkpoints: tuple[Checkpoint, ...]

    @property
    def covariates(self) -> list[str]:
        """Cohort columns that the models take."""
        return list(dict.fromkeys(one.column for model in self.checkpoints for one in covariates_of(model.wrappers)))

    def settings(
        self,
        how: Mapping[str, Any],
        weights: str | None,
        network: str | None = None,
        folders: Mapping[str, str] | None = None,
    ) -> RunSettings:
        """Settings that preprocess new slides exactly as in training, or otherwise where that is said.

        Args:
            how: The sections that say how the work is done: execution, cluster.
            weights: The encoder's weights, where they aren't found by its name.
            network: File of the network that found the tissue, where one did: models know it by content alone.
            folders: Keys of `GIVEN` -> folder for the new slides, or `none`.

        Raises:
            SettingsError: A network found the tissue, or outlines, tiles or regions were given in training, and aren't.
        """
        made = self.checkpoints[0].preprocessing
        extract, tissue, tile = {**made["extract"], "weights": weights}, dict(made["tissue"]), dict(made["tile"])
        extract["stain_target"] = target_of(str(self.checkpoints[0].encoder["transform"]))
        for name, one in GIVEN.items():
            _give({"tissue": tissue, "tile": tile}[one.section], name, one, (folders or {}).get(name))
        method, options = tissue["method"], dict(tissue["method_settings"])
        if network is not None:
            tissue["method_settings"] = {**options, "file": network}
        elif missing_files(method, options):
            raise SettingsError(
                f"the tissue of the model's slides was found by a network (method `{method}`)",
                where="--tissue-network",
                hint="give its file",
            )
        values = {**made, "extract": extract, "tissue": tissue, "tile": tile, **how}
        return merge(RunSettings, [("the model's checkpoint", values)])[0]


def _give(section: dict[str, Any], name: str, one: _Given, folder: str | None) -> None:
    without = one.goes_without is not None
    flag = f"--{name.replace('_', '-')}"
    if folder is None and section.get(name):
        hint = f"give the folder of {one.of} of the new slides" + (f", or `{NONE}` to do without" if without else "")
        raise SettingsError(one.was, where=flag, hint=hint)
    if folder == NONE and not without:
        raise SettingsError(f"`{NONE}` is no folder of {one.of}", where=flag)
    section[name] = None if folder == NONE else folder
    if section[name] is None:
        for key in one.goes_without or ():
            section.pop(key, None)


def model_files(path: Path) -> list[Path]:
    """The files of `RUN/train/NAME`, of one fold of it, or one model.pt.

    Raises:
        StoreError: There is none.
    """
    files = [path] if path.is_file() else sorted([*path.glob(MODEL), *path.glob(f"*/{MODEL}")])
    if not files:
        raise StoreError("holds no model.pt", where=str(path), hint="give RUN/train/NAME, as `pathpipe train` wrote it")
    return files


def load_ensemble(path: Path) -> Ensemble:
    """The models of `model_files`.

    Raises:
        StoreError: There is none, or they don't belong together.
    """
    files = model_files(path)
    checkpoints = tuple(load_checkpoint(file) for file in files)
    first = checkpoints[0]
    for file, other in zip(files, checkpoints, strict=True):
        first.refuse_other_encoder(other.encoder, where=str(file))
        same = other.load_task().question() == first.load_task().question()
        if not same or other.preprocessing != first.preprocessing:
            raise StoreError("was trained for another target or preprocessing than its neighbours", where=str(file))
    return Ensemble(checkpoints)


def load_patients(run: Run, settings: RunSettings, ensemble: Ensemble) -> LoadedBags | None:
    """The patients with tiles; None where nobody has any.

    Raises:
        StoreError: The features are of another encoder, or damaged.
    """
    try:
        loaded = load_bags(feature_sets(run, settings), run.cohort.patients)
    except CohortError:
        return None
    except StoreError as error:
        if "no slide has features" in error.what:
            return None
        raise
    ensemble.checkpoints[0].refuse_other_encoder(loaded.encoder)
    return loaded


def predict_patients(cohort: Cohort, loaded: LoadedBags, ensemble: Ensemble, device: str) -> pd.DataFrame:
    """One row a patient with tiles: mean prediction of the models and their spread.

    Returns:
        Columns patient_id, slides, tiles, then for each target `predicted` and `p_<class>` of classes and grades,
        `prediction` of a number, `risk` and `survival_<t>` of a time, each with its `sd_` over models (0 for one
        model). With several targets the target's name and a space stand before each.

    Raises:
        CohortError: The models take covariates, and the cohort lacks their column.
    """
    values = covariates_or_refuse(cohort, ensemble.covariates)
    said = [
        _tables(checkpoint, with_covariates(loaded.bags, covariates_of(checkpoint.wrappers), values), device)
        for checkpoint in ensemble.checkpoints
    ]
    bags = loaded.bags.values()
    columns: dict[str, Sequence[Any]] = {
        "patient_id": list(loaded.bags),
        "slides": [len(bag.slide_ids) for bag in bags],
        "tiles": [len(bag) for bag in bags],
    }
    for tables in zip(*said, strict=True):
        before = f"{tables[0].target} " if len(said[0]) > 1 else ""
        columns |= {f"{before}{name}": column for name, column in _averaged(tables).items()}
    return pd.DataFrame(columns)


def covariates_or_refuse(cohort: Cohort, columns: list[str]) -> Values:
    """What the cohort knows of the covariates that models take.

    Raises:
        CohortError: It lacks a column.
    """
    try:
        return covariate_values(cohort, columns)
    except CohortError as error:
        raise CohortError(
            f"the model takes the covariates {', '.join(columns)}: {error.what}",
            where=error.where,
            hint="give a cohort table with these columns; a patient's cell may be empty",
        ) from None


def _tables(checkpoint: Checkpoint, bags: Mapping[str, Bag], device: str) -> tuple[Table, ...]:
    model = checkpoint.build().to(device)
    return checkpoint.load_task().tables(predict_logits(model, list(bags.values()), device))


def _averaged(tables: Sequence[Table]) -> dict[str, Any]:
    """Mean and spread over models of what they say about one target."""
    names = [name for name in tables[0].columns if not name.startswith("logit_")]
    stacked = {name: np.stack([np.asarray(table.columns[name]) for table in tables]) for name in names}
    found: dict[str, Any] = {}
    if tables[0].kind in ("classification", "ordinal"):
        mean = np.stack([stacked[name].mean(axis=0) for name in names], axis=1)
        at = mean.argmax(axis=1) if tables[0].kind == "classification" else median_grade(mean)
        found["predicted"] = [names[index].removeprefix("p_") for index in at]
    for name in names:
        found[name] = stacked[name].mean(axis=0)
        found[f"sd_{name.removeprefix('p_')}"] = stacked[name].std(axis=0)
    return found
