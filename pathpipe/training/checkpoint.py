"""Checkpoint: a trained model in one file, with all it takes to use it on a new slide and to refuse a wrong one."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

import pathpipe
from pathpipe.errors import StoreError
from pathpipe.mil.model import MILModule
from pathpipe.mil.registry import Recipe, build_model, recipe_of
from pathpipe.tasks.task import Task, task_from_dict
from pathpipe.training.archive import read_archive, write_archive
from pathpipe.training.trainer import TrainedFold

FORMAT = "pathpipe-checkpoint"
VERSION = 3


@dataclass(frozen=True, eq=False)
class Checkpoint:
    """A model of one fold and seed; plain values and tensors only.

    Attributes:
        model: Registered name.
        options: All options of the model, defaults written out.
        wrappers: Name -> options of what is around it when it predicts, from the innermost outwards.
        dim_in: Width D of a feature.
        task: `Task.to_dict`: target and label names in the order of the logits.
        encoder: Identity of the encoder: name, revision, weights_sha256, transform, dim.
        preprocessing: Slide, tissue, tile and extract settings, from slide to features.
        feature_mean: (D,) float32 of the training features.
        feature_std: (D,) float32 likewise.
        distances: How far training and validation slides lie from that mean: `training.familiarity`.
        fold: Whose test patients it has never seen.
        best_epoch: Epoch of the weights, from 1.
        state: The model's state dict, on the host.
        pathpipe_version: What wrote it.
    """

    model: str
    options: Mapping[str, Any]
    wrappers: Mapping[str, Mapping[str, Any]]
    dim_in: int
    task: Mapping[str, Any]
    encoder: Mapping[str, Any]
    preprocessing: Mapping[str, Any]
    feature_mean: Tensor
    feature_std: Tensor
    distances: Mapping[str, Mapping[str, Any]]
    fold: int
    seed: int
    best_epoch: int
    state: Mapping[str, Tensor]
    pathpipe_version: str = pathpipe.__version__

    @classmethod
    def of(
        cls, trained: TrainedFold, task: Task, encoder: Mapping[str, Any], preprocessing: Mapping[str, Any]
    ) -> Checkpoint:
        """The checkpoint of a trained fold."""
        recipe = recipe_of(trained.model)
        return cls(
            model=recipe.model,
            options=dict(recipe.options),
            wrappers=dict(recipe.wrappers),
            dim_in=trained.model.dim_in,
            task=task.to_dict(),
            encoder=dict(encoder),
            preprocessing=dict(preprocessing),
            feature_mean=trained.feature_mean,
            feature_std=trained.feature_std,
            distances=trained.distances,
            fold=trained.fold,
            seed=trained.seed,
            best_epoch=trained.best_epoch,
            state={name: value.detach().cpu() for name, value in trained.model.state_dict().items()},
        )

    def save(self, path: Path) -> None:
        """Write it; equal checkpoints give equal bytes."""
        content = {field.name: getattr(self, field.name) for field in fields(self)}
        write_archive(path, {"format": FORMAT, "version": VERSION, **content})

    def build(self) -> MILModule:
        """The model with its weights, in evaluation mode.

        Raises:
            StoreError: The weights don't fit the model.
            SettingsError: The model is not installed here.
        """
        with torch.random.fork_rng(devices=[]):
            model = build_model(self.recipe, self.dim_in, self.load_task().outputs)
        try:
            model.load_state_dict(dict(self.state))
        except RuntimeError as error:
            raise StoreError(f"the weights don't fit model `{self.model}`: {error}") from None
        return model.eval()

    @property
    def recipe(self) -> Recipe:
        """How the model is built."""
        return Recipe(self.model, self.options, self.wrappers)

    def load_task(self) -> Task:
        """The task: what the logits mean."""
        return task_from_dict(self.task)

    def refuse_other_encoder(self, identity: Mapping[str, Any], where: str | None = None) -> None:
        """Make sure that features come from the encoder the model was trained on.

        Raises:
            StoreError: They don't; with both identities.
        """
        if dict(identity) != dict(self.encoder):
            raise StoreError(
                f"the model was trained on features of {_identity(self.encoder)}, these are of {_identity(identity)}",
                where=where,
                hint=f"extract with `--encoder {self.encoder.get('name')}` and the same weights",
            )


def load_checkpoint(path: Path) -> Checkpoint:
    """Read a checkpoint; nothing in the file is executed.

    Raises:
        StoreError: There is no such file, or it is damaged, foreign, unsafe or of another version.
    """
    content = read_archive(path)
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        raise StoreError("is not a pathpipe checkpoint", where=str(path), hint="`pathpipe train` writes model.pt")
    if content.get("version") != VERSION:
        raise StoreError(
            f"is a checkpoint of version {content.get('version')}, this pathpipe reads version {VERSION}",
            where=str(path),
            hint="train it again: `pathpipe train RUN`, or use the pathpipe that wrote it "
            f"({content.get('pathpipe_version', 'unknown')})",
        )
    names = {field.name for field in fields(Checkpoint)}
    given = set(content) - {"format", "version"}
    if given != names:
        wrong = sorted(given ^ names)
        raise StoreError(f"is a damaged checkpoint: {', '.join(wrong)} missing or unknown", where=str(path))
    return Checkpoint(**{name: content[name] for name in names})


def _identity(identity: Mapping[str, Any]) -> str:
    return ", ".join(f"{key} {value}" for key, value in identity.items()) or "an unknown encoder"
