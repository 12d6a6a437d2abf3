"""Predict: features of new slides through the models of a trained folder. Not a stage: its result is a table."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from pathpipe.encoders.stain import target_of
from pathpipe.errors import SettingsError, StoreError
from pathpipe.run import Run
from pathpipe.settings import RunSettings, merge
from pathpipe.stages.train import MODEL
from pathpipe.tissue.method import missing_files
from pathpipe.training.checkpoint import Checkpoint, load_checkpoint
from pathpipe.training.loading import load_bags
from pathpipe.training.trainer import predict_logits


@dataclass(frozen=True, eq=False)
class Ensemble:
    """The models of one training, all of one task, one encoder and one preprocessing."""

    checkpoints: tuple[Checkpoint, ...]

    @property
    def classes(self) -> tuple[str, ...]:
        """Class names, in the order of the probabilities."""
        return tuple(self.checkpoints[0].task["classes"])

    def settings(
        self,
        execution: dict[str, Any],
        weights: str | None,
        network: str | None = None,
        coords_dir: str | None = None,
    ) -> RunSettings:
        """Settings that preprocess new slides exactly as in training.

        Args:
            weights: The encoder's weights, where they aren't found by its name.
            network: File of the network that found the tissue, where one did: models know it by content alone.
            coords_dir: Coordinate files of the new slides, where another tool laid the tiles.

        Raises:
            SettingsError: A network found the tissue, or another tool laid the tiles, and it isn't given.
        """
        made = self.checkpoints[0].preprocessing
        extract, tissue, tile = {**made["extract"], "weights": weights}, dict(made["tissue"]), dict(made["tile"])
        extract["stain_target"] = target_of(str(self.checkpoints[0].encoder["transform"]))
        if coords_dir is not None:
            tile["coords_dir"] = coords_dir
        elif tile.get("coords_dir"):
            raise SettingsError(
                "the tiles of the model's slides were laid by another tool",
                where="--coords-dir",
                hint="give the folder of its coordinate files for the new slides",
            )
        method, options = tissue["method"], dict(tissue["method_settings"])
        if network is not None:
            tissue["method_settings"] = {**options, "file": network}
        elif missing_files(method, options):
            raise SettingsError(
                f"the tissue of the model's slides was found by a network (method `{method}`)",
                where="--tissue-network",
                hint="give its file",
            )
        values = {**made, "extract": extract, "tissue": tissue, "tile": tile, "execution": execution}
        return merge(RunSettings, [("the model's checkpoint", values)])[0]


def load_ensemble(path: Path) -> Ensemble:
    """The models of `RUN/train/NAME`, of one fold of it, or of one model.pt.

    Raises:
        StoreError: There is none, or they don't belong together.
    """
    files = [path] if path.is_file() else sorted([*path.glob(MODEL), *path.glob(f"*/{MODEL}")])
    if not files:
        raise StoreError("holds no model.pt", where=str(path), hint="give RUN/train/NAME, as `pathpipe train` wrote it")
    checkpoints = tuple(load_checkpoint(file) for file in files)
    first = checkpoints[0]
    for file, other in zip(files, checkpoints, strict=True):
        first.refuse_other_encoder(other.encoder, where=str(file))
        if other.task != first.task or other.preprocessing != first.preprocessing:
            raise StoreError("was trained for another target or preprocessing than its neighbours", where=str(file))
    return Ensemble(checkpoints)


def predict_patients(run: Run, settings: RunSettings, ensemble: Ensemble, device: str) -> pd.DataFrame:
    """One row a patient with tiles: mean probability of the models and their spread.

    Returns:
        Columns patient_id, slides, tiles, predicted, `p_<class>`, `sd_<class>` (over models; 0 for one model).
    """
    paths = {slide.slide_id: run.features(settings.extract.encoder, slide.slide_id) for slide in run.cohort.slides}
    files = {slide_id: path for slide_id, path in paths.items() if path.exists()}
    if not files:
        return pd.DataFrame()
    try:
        loaded = load_bags(files, run.cohort.patients)
    except StoreError as error:
        if "no slide has features" in error.what:
            return pd.DataFrame()
        raise
    ensemble.checkpoints[0].refuse_other_encoder(loaded.encoder)
    bags = list(loaded.bags.values())
    scores = np.stack([_scores(checkpoint, bags, device) for checkpoint in ensemble.checkpoints])  # (M, P, C)
    mean, spread = scores.mean(axis=0), scores.std(axis=0)
    table = pd.DataFrame(
        {
            "patient_id": list(loaded.bags),
            "slides": [len(bag.slide_ids) for bag in bags],
            "tiles": [len(bag) for bag in bags],
            "predicted": [ensemble.classes[index] for index in mean.argmax(axis=1)],
        }
    )
    for index, name in enumerate(ensemble.classes):
        table[f"p_{name}"], table[f"sd_{name}"] = mean[:, index], spread[:, index]
    return table


def _scores(checkpoint: Checkpoint, bags: Sequence[Any], device: str) -> np.ndarray:
    model = checkpoint.build().to(device)
    return np.asarray(checkpoint.load_task().scores(predict_logits(model, bags, device)).numpy())
